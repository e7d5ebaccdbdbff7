//! Metrics in Prometheus' text exposition format, version 0.0.4.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use serde::Deserialize;

use super::Components;
use crate::tokens::Summary;

/// The parameters of [`Client::metrics`](super::Client::metrics): none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsParams {}

/// Writes all metrics. Without `summary`, because the store failed, writes only the metrics of this
/// process.
pub fn exposition(components: &Components, summary: Option<Summary>) -> String {
    let mut out = Exposition::default();
    out.gauge(
        "store_up",
        "Whether the token store could be read; if not, the metrics of stored tokens are missing.",
        &u8::from(summary.is_some()),
    );
    if let Some(summary) = &summary {
        out.stored(summary);
    }
    out.process(components);
    out.0
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// The metrics of the store. They are the same in every process that shares it.
    fn stored(&mut self, summary: &Summary) {
        self.family("tokens", "gauge", "Stored tokens by state.");
        for (state, count) in [
            ("ok", summary.ok),
            ("inactive", summary.inactive),
            ("reauthorizationRequired", summary.reauthorization_required),
            ("unreadable", summary.unreadable),
        ] {
            self.labelled("tokens", "state", state, &count);
        }
        let failing = "tokens_failing";
        self.family(failing, "gauge", "Stored tokens whose last renewal failed, by status.");
        for (status, count) in summary.failing() {
            self.labelled(failing, "status", status.name(), &count);
        }
        if summary.failing_otherwise > 0 {
            self.labelled(failing, "status", "other", &summary.failing_otherwise);
        }
        self.gauge(
            "tokens_expired",
            "Stored tokens in state ok with an expired access token; calls renew it if possible.",
            &summary.expired,
        );
        let lag = summary.renewal_due_in.map_or(0, |due_in| due_in.saturating_neg().max(0));
        for (name, help, time) in [
            (
                "token_next_expiry_seconds",
                "Time until the next access token expires, among those in state ok.",
                summary.next_expiry_in,
            ),
            (
                "token_earliest_expiry_seconds",
                "Like ghl_oauth_token_next_expiry_seconds, including access tokens that have \
                 expired: negative since the first of them expired.",
                summary.earliest_expiry_in,
            ),
            (
                "token_failing_expiry_seconds",
                "Like ghl_oauth_token_earliest_expiry_seconds, among the tokens whose last \
                 renewal failed.",
                summary.failing_expiry_in,
            ),
            (
                "last_success_timestamp_seconds",
                "When the API last granted one of the stored tokens, in Unix time.",
                summary.last_success_at,
            ),
            (
                "maintenance_lag_seconds",
                "How long the most overdue token has been waiting for maintenance; 0 if none is \
                 overdue. Tokens that fail are not counted.",
                Some(lag),
            ),
        ] {
            self.family(name, "gauge", help);
            if let Some(time) = time {
                self.sample(name, &Seconds(time));
            }
        }
    }

    /// The metrics of this process.
    fn process(&mut self, components: &Components) {
        let (http, tokens) = (components.api.counters(), components.tokens.counters());
        self.family("build_info", "gauge", "The version of the library; always 1.");
        self.labelled("build_info", "version", env!("CARGO_PKG_VERSION"), &1);
        for (name, help, counter) in [
            ("requests_total", "Requests sent to the API, including repetitions.", &http.sent),
            ("requests_repeated_total", "Requests that were repetitions.", &http.repeated),
            ("requests_unanswered_total", "Requests without a response.", &http.unanswered),
            ("requests_rate_limited_total", "Responses with status 429.", &http.rate_limited),
            ("token_refreshes_total", "Tokens refreshed.", &tokens.refreshed),
            ("token_mints_total", "Location tokens minted.", &tokens.minted),
        ] {
            self.family(name, "counter", help);
            self.sample(name, &counter.load(Ordering::Relaxed));
        }
        let failures = "token_failures_total";
        self.family(failures, "counter", "Refreshes and mints that failed, by status.");
        for (status, count) in tokens.failures() {
            self.labelled(failures, "status", status.name(), &count);
        }
        self.gauge(
            "tokens_cached",
            "Access tokens in the memory of this process.",
            &components.tokens.cached_count(),
        );
        self.gauge(
            "tokens_unsaved",
            "New tokens of this process that the store has not accepted yet. They are lost if the \
             process ends.",
            &components.tokens.unsaved_count(),
        );
    }

    fn gauge(&mut self, name: &str, help: &str, value: &dyn Display) {
        self.family(name, "gauge", help);
        self.sample(name, value);
    }

    /// The head of a metric. Help texts contain neither a backslash nor a line feed.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!(
            "# HELP ghl_oauth_{name} {help}\n# TYPE ghl_oauth_{name} {kind}\n"
        ));
    }

    fn sample(&mut self, name: &str, value: &dyn Display) {
        self.write(format_args!("ghl_oauth_{name} {value}\n"));
    }

    /// A sample with a label. The label's values are fixed words, which need no escape.
    fn labelled(&mut self, name: &str, label: &str, text: &str, value: &dyn Display) {
        self.write(format_args!("ghl_oauth_{name}{{{label}=\"{text}\"}} {value}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

/// Milliseconds, written as seconds.
struct Seconds(i64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sign, time) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:03}", time / 1000, time % 1000)
    }
}
