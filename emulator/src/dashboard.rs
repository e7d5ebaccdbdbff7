//! The dashboard: shows the emulator's state and controls it through the control API.
//!
//! The server renders all of it, so it is readable without JavaScript. With JavaScript, the page
//! fetches itself every second and updates the parts that changed; `data-` attributes of buttons
//! and forms define their requests to the control API.

use crate::api;
use crate::behaviour::{BEHAVIOURS, Behaviour, BehaviourInfo};
use crate::clock::iso8601;
use crate::directory::{Company, Location};
use crate::fault::{FaultKind, Injected, Rule};
use crate::fault_catalogue::{FAULT_KINDS, FaultParameter, ParameterForm};
use crate::installations::{InstallationState, installations};
use crate::ledger::{Ended, Entry, EntryState, Kind};
use crate::origin::stranger;
use crate::page::{Escaped, Page, breakable, put};
use crate::refusal::Refusal;
use crate::request_log::RecordedRequest;
use crate::scenario_run::ScenarioPhase;
use crate::snippets::LANGUAGES;
use crate::state::{Shared, State};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// The path of the dashboard.
pub(crate) const PATH: &str = "/dashboard";

const STYLE: &str = include_str!("dashboard/dashboard.css");
const SCRIPT: &str = include_str!("dashboard/dashboard.js");

/// Rows shown per table, unless all are requested.
const TOKENS: usize = 10;
const REQUESTS: usize = 20;
const LOCATIONS: usize = 10;
/// Rows shown when all are requested; the limit protects the browser.
const ALL: usize = 2_000;
const WEBHOOKS: usize = 8;
/// Suggestions of an ID field, per kind of resource.
const SUGGESTED: usize = 100;

/// `GET /`: redirects a browser to the dashboard; other clients get the API's response for this
/// path.
pub(crate) async fn lead(shared: Extract<Shared>, request: Request) -> Response {
    let accepted = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepted.is_some_and(|accept| accept.contains("text/html")) {
        let location = [(header::LOCATION, HeaderValue::from_static(PATH))];
        return (StatusCode::SEE_OTHER, location).into_response();
    }
    api::serve(shared, request).await
}

/// The query: `?find=` selects the locations whose name or ID contains the text, `?all` shows all
/// rows instead of the newest.
#[derive(Debug, Default)]
struct Wish {
    find: String,
    all: bool,
}

impl Wish {
    fn read(query: &str) -> Self {
        let mut wish = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "find" => value.trim().clone_into(&mut wish.find),
                "all" => wish.all = true,
                _ => {}
            }
        }
        wish
    }

    fn rows(&self, usual: usize) -> usize {
        if self.all { ALL } else { usual }
    }
}

/// `GET /dashboard`: the page.
pub(crate) async fn show(Extract(shared): Extract<Shared>, request: Request) -> Response {
    if let Some(complaint) = stranger(request.headers()) {
        return (StatusCode::FORBIDDEN, complaint).into_response();
    }
    let wish = Wish::read(request.uri().query().unwrap_or_default());
    let body = body(&shared.lock(), &wish);
    Page { title: "Dashboard", class: "dashboard", style: STYLE, script: SCRIPT, body }
        .answer(200)
        .into_response()
}

fn body(state: &State, wish: &Wish) -> String {
    let mut page = String::with_capacity(1 << 16);
    page.push_str("<a class=\"unseen skip\" href=\"#tokens\">Skip to the tokens</a>\n");
    masthead(&mut page, state);
    page.push_str("<main>\n<div class=\"column\">\n");
    app(&mut page, state);
    tokens(&mut page, state, wish);
    requests(&mut page, state, wish);
    places(&mut page, state, wish);
    page.push_str("</div>\n<div class=\"column\">\n");
    scenario(&mut page, state);
    faults(&mut page, state);
    webhooks(&mut page, state);
    settings(&mut page, state);
    page.push_str("</div>\n</main>\n<p id=\"status\" role=\"status\"></p>\n");
    page
}

/// A button that sends a request to the control API.
struct Button<'a> {
    method: &'a str,
    path: &'a str,
    body: Value,
    /// The message on success; `{name}` stands for a member of the response.
    done: &'a str,
    text: &'a str,
    /// Accessible name, for screen readers that read the button outside its row.
    about: &'a str,
}

impl Button<'_> {
    const POST: Button<'static> =
        Button { method: "POST", path: "", body: Value::Null, done: "", text: "", about: "" };

    fn write(&self, page: &mut String) {
        let Button { method, path, body, done, text, about } = self;
        put!(
            page,
            "<button type=\"button\" class=\"act\" data-method=\"{method}\" data-path=\"{}\" \
             data-body=\"{}\" \
             data-done=\"{}\">{}",
            Escaped(path),
            Escaped(body),
            Escaped(done),
            Escaped(text),
        );
        if !about.is_empty() {
            put!(page, "<span class=\"unseen\"> {}</span>", Escaped(about));
        }
        page.push_str("</button>");
    }
}

fn masthead(page: &mut String, state: &State) {
    let now_ms = state.clock.now_ms();
    let now = iso8601(now_ms);
    let offset_ms = state.clock.offset_ms();
    put!(
        page,
        "<header>\n<div class=\"name\"><h1>GHL OAuth emulator</h1><p class=\"id\">{}</p></div>\n\
         <section class=\"clock\" aria-labelledby=\"clock\">\n\
         <h2 id=\"clock\" class=\"unseen\">Clock</h2>\n\
         <div id=\"live-clock\" data-live>\n\
         <p class=\"now\"><time datetime=\"{now}\">\
         <span>{}</span> {}</time> <span class=\"zone\">UTC</span></p>\n",
        Escaped(&state.base_url),
        &now[..10.min(now.len())],
        now.get(11..19).unwrap_or_default(),
    );
    match offset_ms {
        0 => page.push_str("<p class=\"soft\">System time"),
        ahead if ahead > 0 => put!(page, "<p><strong>{} ahead</strong>", span(ahead)),
        behind => put!(page, "<p><strong>{} behind</strong>", span(behind.saturating_neg())),
    }
    match state.tokens.ledger().next_expiry(now_ms) {
        None => page.push_str("<span class=\"soft\"> · nothing left to expire</span></p>\n"),
        Some(next) => put!(
            page,
            "<span class=\"soft\"> · next to expire: {} <code>{}</code> in {}</span></p>\n",
            word(next.kind),
            next.fingerprint(),
            span(next.expires_at_ms.saturating_sub(now_ms)),
        ),
    }
    page.push_str("</div>\n<p class=\"row\">");
    for (text, body, done) in [
        ("+ 1 hour", json!({"advanceSeconds": 3_600}), "One hour later: {now}."),
        ("+ 1 day", json!({"advanceSeconds": 86_400}), "One day later: {now}."),
        ("To next expiry", json!({"toNextExpiry": true}), "At the next expiry: {now}."),
        ("System time", json!({"reset": true}), "Back to the system time: {now}."),
    ] {
        Button { path: "/clock", body, done, text, ..Button::POST }.write(page);
    }
    page.push_str("</p>\n</section>\n</header>\n");
}

/// Opens a section with its heading and the content next to it.
fn section(page: &mut String, id: &str, heading: &str, beside: impl FnOnce(&mut String)) {
    put!(
        page,
        "<section aria-labelledby=\"{id}\">\n<div class=\"head\"><h2 id=\"{id}\">{heading}</h2>"
    );
    beside(page);
    page.push_str("</div>\n");
}

fn app(page: &mut String, state: &State) {
    let app = &state.directory.app;
    section(page, "app", "App", |_| {});
    page.push_str("<dl>\n");
    let secret: String = app.client_secret.chars().take(4).collect();
    for (name, value) in
        [("Client ID", app.client_id.as_str()), ("Authorize URL", &state.authorize_url())]
    {
        put!(page, "<dt>{name}</dt><dd><code>{}</code></dd>\n", breakable(value));
    }
    put!(
        page,
        "<dt>Client secret</dt><dd><code>{}…</code> <span class=\"soft\">in full at <a \
         href=\"/_emulator\">/_emulator</a></span></dd>\n",
        Escaped(secret)
    );
    for redirect_uri in &app.redirect_uris {
        put!(page, "<dt>Redirect URI</dt><dd><code>{}</code></dd>\n", breakable(redirect_uri));
    }
    page.push_str(
        "</dl>\n<div class=\"act copy\" role=\"group\" aria-labelledby=\"copying\">\
         <span id=\"copying\">Copy configuration for</span>",
    );
    for (language, name) in LANGUAGES {
        put!(
            page,
            "<button type=\"button\" data-copy=\"/_emulator/configuration/{language}\" \
             data-done=\"The configuration for {name} was copied, with the client secret.\">\
             {name}</button>"
        );
    }
    page.push_str("</div>\n<p class=\"start\">");
    for redirect_uri in &app.redirect_uris {
        // Without the base URL, so that the link works under any name of this machine.
        let link = state.authorization_link(redirect_uri, "from-the-dashboard");
        put!(
            page,
            "<a class=\"button\" href=\"{}\">Start a consent<span{}> to {}</span></a> ",
            Escaped(link.strip_prefix(&state.base_url).unwrap_or(&link)),
            if app.redirect_uris.len() == 1 { " class=\"unseen\"" } else { "" },
            Escaped(redirect_uri),
        );
    }
    page.push_str("</p>\n</section>\n");
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Code => "code",
        Kind::Access => "access token",
        Kind::Refresh => "refresh token",
    }
}

fn chip(class: &str, text: &str) -> String {
    format!("<span class=\"chip {class}\">{text}</span>")
}

fn state_name(entry_state: EntryState) -> &'static str {
    match entry_state {
        EntryState::Live => "live",
        EntryState::Expired => "expired",
        EntryState::Spent => "spent",
        EntryState::Revoked => "revoked",
    }
}

fn tokens(page: &mut String, state: &State, wish: &Wish) {
    section(page, "tokens", "Tokens", |page| {
        page.push_str("<span class=\"row\">");
        Button {
            path: "/tokens/expire",
            body: json!({}),
            done: "Every access token has expired.",
            text: "Expire access tokens",
            ..Button::POST
        }
        .write(page);
        page.push_str("</span>");
    });
    let now_ms = state.clock.now_ms();
    let ledger = state.tokens.ledger();
    page.push_str("<div id=\"live-tokens\" data-live>\n");
    if ledger.entries().len() == 0 {
        page.push_str(
            "<p class=\"empty\">None yet. A consent creates a code, which is exchanged for \
             tokens.</p>\n",
        );
    } else {
        let all = [EntryState::Live, EntryState::Spent, EntryState::Expired, EntryState::Revoked];
        let mut counts = [0; 4];
        for entry in ledger.entries() {
            let entry_state = entry.state(now_ms);
            if let Some(place) = all.iter().position(|one| *one == entry_state) {
                counts[place] += 1;
            }
        }
        page.push_str("<p class=\"counts\">");
        for (one, count) in all.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            put!(page, "{} ", chip(state_name(one), &format!("{count} {}", state_name(one))));
        }
        let total = ledger.entries().len();
        page.push_str(
            "</p>\n<table>\n<caption class=\"unseen\">Codes and tokens, newest first</caption>\n\
             <thead><tr><th scope=\"col\">Token</th><th scope=\"col\">Owner</th>\
             <th scope=\"col\">State</th></tr></thead>\n\
             <tbody>\n",
        );
        for (index, entry) in ledger.entries().take(wish.rows(TOKENS)).enumerate() {
            token(page, state, entry, total - index, now_ms);
        }
        page.push_str("</tbody>\n</table>\n");
        newest(page, wish.rows(TOKENS), total);
    }
    page.push_str(
        "</div>\n<p class=\"soft note\">Identified by the first digits of their SHA-256; tokens \
         are never shown.</p>\n</section>\n",
    );
}

/// Says how many rows are not shown.
fn newest(page: &mut String, shown: usize, total: usize) {
    if shown < total {
        put!(
            page,
            "<p class=\"soft note\">Newest {shown} of {total}. <a href=\"{PATH}?all\">Show all</a>\
             </p>\n"
        );
    }
}

fn token(page: &mut String, state: &State, entry: &Entry, number: usize, now_ms: i64) {
    let state_now = entry.state(now_ms);
    put!(
        page,
        "<tr id=\"token-{number}\"><td>{} <code class=\"soft\">{}</code></td><td>{}</td>\
         <td>{} <span class=\"soft\">",
        word(entry.kind),
        entry.fingerprint(),
        Escaped(name_of(state, entry.grant.resource_id())),
        chip(state_name(state_now), state_name(state_now)),
    );
    let ago = |at_ms: i64| format!("{} ago", span(now_ms.saturating_sub(at_ms)));
    match (state_now, entry.ended) {
        (EntryState::Live, _) => {
            put!(page, "for {}", span(entry.expires_at_ms.saturating_sub(now_ms)))
        }
        (_, Some(Ended::Spent { at_ms })) => {
            let window_seconds =
                i64::try_from(state.settings.reuse_window_seconds).unwrap_or(i64::MAX);
            let window_ms = state.scaled_ms(window_seconds.saturating_mul(1_000));
            let age_ms = now_ms.saturating_sub(at_ms);
            if entry.kind == Kind::Refresh && age_ms < window_ms {
                page.push_str("within the replay window");
            } else {
                page.push_str(&ago(at_ms));
            }
        }
        (_, None) => page.push_str(&ago(entry.expires_at_ms)),
        (_, Some(Ended::Expired)) => page.push_str("manually"),
        (_, Some(Ended::Revoked)) => {}
    }
    page.push_str("</span></td></tr>\n");
}

fn requests(page: &mut String, state: &State, wish: &Wish) {
    section(page, "requests", "Requests", |page| {
        page.push_str("<span class=\"row\">");
        Button {
            method: "DELETE",
            path: "/requests",
            done: "{cleared} requests were cleared.",
            text: "Clear",
            ..Button::POST
        }
        .write(page);
        page.push_str("</span>");
    });
    page.push_str("<div id=\"live-requests\" data-live>\n");
    let latest = state.log.latest();
    let total = latest.len();
    if total == 0 {
        page.push_str("<p class=\"empty\">None yet.</p>\n");
    } else {
        page.push_str(
            "<table>\n<caption class=\"unseen\">Requests, newest first</caption>\n\
             <thead><tr><th scope=\"col\">Time</th><th scope=\"col\">Request</th>\
             <th scope=\"col\">Response</th></tr></thead>\n\
             <tbody>\n",
        );
        for (index, request) in latest.take(wish.rows(REQUESTS)).enumerate() {
            recorded(page, state, request, state.log.number_of_latest() - index as u64);
        }
        page.push_str("</tbody>\n</table>\n");
        newest(page, wish.rows(REQUESTS), total);
    }
    page.push_str("</div>\n</section>\n");
}

fn recorded(page: &mut String, state: &State, request: &RecordedRequest, number: u64) {
    let at = iso8601(request.at_ms);
    put!(
        page,
        "<tr id=\"request-{number}\"><td class=\"at\"><time datetime=\"{at}\">\
         <span class=\"soft\">{}</span> {}</time></td>\
         <td><code><b>{}</b> {}</code>",
        at.get(5..10).unwrap_or_default(),
        at.get(11..19).unwrap_or_default(),
        Escaped(&request.method),
        Escaped(&request.path),
    );
    if let Some(id) = &request.resource_id {
        put!(page, " <span class=\"soft who\">{}</span>", Escaped(name_of(state, id)));
    }
    let class = match request.status {
        200..=399 => "live",
        0 => "expired",
        _ => "revoked",
    };
    let status = if request.status == 0 { "none".to_owned() } else { request.status.to_string() };
    put!(page, "</td><td>{}", chip(class, &status));
    if let Some(fault) = &request.fault {
        put!(page, " <span class=\"fault\">fault {}: {}</span>", fault.id.0, Escaped(&fault.kind));
    }
    page.push_str("</td></tr>\n");
}

/// The name of a company or location, or its ID.
fn name_of<'a>(state: &'a State, id: &'a str) -> &'a str {
    let location = state.directory.location(id).map(|location| location.name.as_str());
    location
        .or_else(|| state.directory.company(id).map(|company| company.name.as_str()))
        .unwrap_or(id)
}

/// The progress of the scenario that was started.
fn scenario(page: &mut String, state: &State) {
    let Some(run) = &state.scenario else { return };
    section(page, "scenario", "Scenario", |_| {});
    let (played, left) = run.counts();
    let total = played + left;
    put!(
        page,
        "<div id=\"live-scenario\" data-live>\n<p><strong>{}</strong> ",
        Escaped(run.name())
    );
    match run.phase() {
        ScenarioPhase::Waiting => {
            page.push_str(&chip("expired", "waiting for the first company’s connection"))
        }
        ScenarioPhase::Running => page.push_str(&chip("used", "running")),
        ScenarioPhase::Finished => page.push_str(&chip("live", "finished")),
    }
    if total > 0 {
        put!(
            page,
            "</p>\n<p><progress max=\"{total}\" value=\"{played}\" aria-label=\"Events played\">\
             </progress> \
             <span class=\"soft\">{played} of {total} events</span>",
        );
    }
    page.push_str("</p>\n");
    if run.phase() == ScenarioPhase::Finished {
        let count = |wanted| {
            installations(state).iter().filter(|installation| installation.state == wanted).count()
        };
        put!(
            page,
            "<p>{} connections are valid, {} are paused. <span class=\"soft\">All are listed at \
             <a href=\"/_emulator/installations\">/_emulator/installations</a></span></p>\n",
            count(InstallationState::Honoured),
            count(InstallationState::Paused),
        );
    }
    if played > 0 {
        page.push_str(
            "<table>\n<caption class=\"unseen\">Events, newest first</caption>\n\
             <thead><tr><th scope=\"col\">Time</th><th scope=\"col\">Event</th>\
             <th scope=\"col\">Resource</th></tr></thead>\n\
             <tbody>\n",
        );
        for happening in run.latest().take(WEBHOOKS) {
            let at = iso8601(happening.at_ms);
            let what = json!(happening.what);
            put!(
                page,
                "<tr><td class=\"at\"><time datetime=\"{at}\">{}</time></td><td>{}</td>\
                 <td class=\"soft\">{}</td></tr>\n",
                at.get(11..19).unwrap_or_default(),
                what.as_str().unwrap_or_default(),
                Escaped(happening.resource_id.as_deref().map_or("any", |id| name_of(state, id))),
            );
        }
        page.push_str("</tbody>\n</table>\n");
    }
    page.push_str("</div>\n</section>\n");
}

fn faults(page: &mut String, state: &State) {
    section(page, "faults", "Faults", |page| {
        page.push_str("<span class=\"row\">");
        Button {
            method: "DELETE",
            path: "/faults",
            done: "{removed} faults were removed.",
            text: "Clear all",
            about: "faults",
            ..Button::POST
        }
        .write(page);
        page.push_str("</span>");
    });
    page.push_str("<div id=\"live-faults\" data-live>\n");
    let injected = state.faults.iter();
    if injected.len() == 0 {
        page.push_str("<p class=\"empty\">None. All requests are processed normally.</p>\n");
    } else {
        page.push_str(
            "<table>\n<caption class=\"unseen\">Faults, in the order in which they are \
             matched</caption>\n\
             <thead><tr><th scope=\"col\">Fault</th><th scope=\"col\">Applies to</th>\
             <th scope=\"col\">Applied</th>\
             <th scope=\"col\"><span class=\"unseen\">Switch</span></th></tr></thead>\n<tbody>\n",
        );
        for fault in injected {
            one_fault(page, state, fault);
        }
        page.push_str("</tbody>\n</table>\n");
    }
    page.push_str("</div>\n");
    fault_form(page);
    page.push_str("</section>\n");
}

fn one_fault(page: &mut String, state: &State, fault: &Injected) {
    let Injected { id, kind, rule, struck, gate, .. } = fault;
    let name = kind.name();
    put!(page, "<tr id=\"fault-{0}\"><td>{0}: <strong>{1}</strong>", id.0, Escaped(&name));
    let parameters = parameters_of(kind);
    if !parameters.is_empty() {
        put!(page, "<br><span class=\"soft\">{}</span>", Escaped(parameters));
    }
    put!(page, "</td><td>{}</td><td>", Escaped(rule_of(state, rule)));
    let class = if fault.is_used_up() { "expired" } else { "used" };
    let count = match rule.count {
        Some(count) => format!("{struck} of {count}"),
        None => struck.to_string(),
    };
    page.push_str(&chip(class, &count));
    if gate.waiting() > 0 {
        put!(page, "<br>holds {}", gate.waiting());
    }
    page.push_str("</td><td class=\"row\">");
    Button {
        method: "DELETE",
        path: &format!("/faults/{}", id.0),
        done: &format!("Fault {} was removed.", id.0),
        text: "Off",
        about: &format!("fault {}", id.0),
        ..Button::POST
    }
    .write(page);
    page.push_str("</td></tr>\n");
}

/// The non-default parameters, in the catalogue's order.
fn parameters_of(kind: &FaultKind) -> String {
    let name = kind.name();
    let parameters =
        FAULT_KINDS.iter().filter(|info| info.kind == name).flat_map(|info| info.parameters);
    let values = json!(kind);
    let said: Vec<_> = parameters
        .filter_map(|parameter| {
            let FaultParameter { name: parameter, required, value: default, .. } = parameter;
            let said = match &values[&name][parameter] {
                Value::Null => return None,
                Value::String(text) => text.clone(),
                Value::Array(headers) => headers
                    .iter()
                    .map(|pair| {
                        [&pair[0], &pair[1]]
                            .map(|part| part.as_str().unwrap_or_default())
                            .join(": ")
                    })
                    .collect::<Vec<_>>()
                    .join("; "),
                value => value.to_string(),
            };
            (*required || said != *default).then(|| format!("{parameter} {said}"))
        })
        .collect();
    said.join(", ")
}

fn rule_of(state: &State, rule: &Rule) -> String {
    let plain = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let mut said = vec![plain(json!(rule.endpoint))];
    if let Some(grant_type) = rule.grant_type {
        said.push(plain(json!(grant_type)));
    }
    if let Some(id) = &rule.resource_id {
        said.push(name_of(state, id).to_owned());
    }
    if rule.skip > 0 {
        said.push(format!("after {}", rule.skip));
    }
    if rule.probability < 1.0 {
        said.push(format!("chance {}", rule.probability));
    }
    if let Some(requests) = rule.in_flight {
        said.push(format!("with {requests} in flight"));
    }
    said.join(", ")
}

fn fault_form(page: &mut String) {
    page.push_str(
        "<form class=\"act\" data-path=\"/faults\" data-done=\"Fault {id} was added.\">\n\
         <h3>Add a fault</h3>\n<div class=\"fields\">\n\
         <div class=\"wide\"><label for=\"kind\">Kind</label>\n\
         <select id=\"kind\" name=\"kind\" data-chooses>\n",
    );
    for info in &FAULT_KINDS {
        put!(
            page,
            "<option value=\"{0}\">{0}: {1}</option>\n",
            info.kind,
            Escaped(info.what.replace('`', ""))
        );
    }
    page.push_str("</select></div>\n");
    for (index, info) in
        FAULT_KINDS.iter().enumerate().filter(|(_, info)| !info.parameters.is_empty())
    {
        put!(
            page,
            "<fieldset class=\"wide\" data-of=\"{0}\"{1}>\
             <legend class=\"unseen\">Parameters of {0}</legend>\n\
             <div class=\"fields\">\n",
            info.kind,
            if index == 0 { "" } else { " hidden disabled" },
        );
        for parameter in info.parameters {
            parameter_field(page, info.kind, parameter);
        }
        page.push_str("</div></fieldset>\n");
    }
    page.push_str(
        "<div><label for=\"endpoint\">Endpoint</label>\n\
         <select id=\"endpoint\" name=\"endpoint\">\n",
    );
    for endpoint in ["any", "token", "location-token", "installed-locations", "location"] {
        put!(page, "<option>{endpoint}</option>");
    }
    page.push_str(
        "</select></div>\n\
         <div><label for=\"count\">How often</label>\n\
         <input id=\"count\" name=\"count\" type=\"number\" min=\"1\" value=\"1\" \
         placeholder=\"always\" data-type=\"number\"></div>\n\
         </div>\n<details><summary>More conditions</summary>\n<div class=\"fields\">\n\
         <div><label for=\"grantType\">Grant type</label>\n\
         <select id=\"grantType\" name=\"grantType\">\n\
         <option value=\"\">any</option><option>authorization_code</option>\
         <option>refresh_token</option>\
         <option>client_credentials</option></select></div>\n\
         <div><label for=\"resourceId\">Company or location</label>\n\
         <input id=\"resourceId\" name=\"resourceId\" list=\"places-list\" placeholder=\"any\" \
         autocomplete=\"off\"></div>\n\
         <div><label for=\"skip\">Skip the first</label>\n\
         <input id=\"skip\" name=\"skip\" type=\"number\" min=\"0\" placeholder=\"0\" \
         data-type=\"number\"></div>\n\
         <div><label for=\"probability\">Probability</label>\n\
         <input id=\"probability\" name=\"probability\" type=\"number\" min=\"0\" max=\"1\" \
         step=\"any\" placeholder=\"1\" \
         data-type=\"number\"></div>\n\
         <div><label for=\"inFlight\">Requests in flight</label>\n\
         <input id=\"inFlight\" name=\"inFlight\" type=\"number\" min=\"1\" placeholder=\"any\" \
         data-type=\"number\"></div>\n\
         </div></details>\n<p class=\"row\"><button class=\"main\">Add fault</button></p>\n\
         </form>\n",
    );
}

fn parameter_field(page: &mut String, kind: &str, parameter: &FaultParameter) {
    let FaultParameter { name, form, required, value } = *parameter;
    let id = format!("{kind}-{name}");
    let needed = if required { " required" } else { "" };
    if form == ParameterForm::Switch {
        put!(
            page,
            "<div class=\"switch\"><input type=\"checkbox\" id=\"{id}\" name=\"{name}\">\
             <label for=\"{id}\">{name}</label></div>\n"
        );
        return;
    }
    put!(page, "<div><label for=\"{id}\">{name}</label>\n");
    let choice = |page: &mut String, options: &[&str]| {
        put!(page, "<select id=\"{id}\" name=\"{name}\">");
        for option in options {
            put!(page, "<option>{option}</option>");
        }
        page.push_str("</select>");
    };
    match form {
        ParameterForm::Number => put!(
            page,
            "<input id=\"{id}\" name=\"{name}\" type=\"number\" min=\"0\" value=\"{value}\" \
             data-type=\"number\"{needed}>"
        ),
        ParameterForm::Stage => choice(page, &["beforeProcessing", "afterProcessing"]),
        ParameterForm::LateStage => choice(page, &["afterProcessing", "beforeProcessing"]),
        ParameterForm::Ending => choice(page, &["close", "cut", "reset", "silence"]),
        ParameterForm::Refusal => {
            put!(page, "<select id=\"{id}\" name=\"{name}\">\n");
            for refusal in Refusal::ALL {
                let name = json!(refusal);
                let name = name.as_str().unwrap_or_default();
                put!(
                    page,
                    "<option value=\"{name}\">{name}: {} {}</option>\n",
                    refusal.status(),
                    Escaped(refusal.words())
                );
            }
            page.push_str("</select>");
        }
        ParameterForm::Headers => put!(
            page,
            "<textarea id=\"{id}\" name=\"{name}\" rows=\"2\" placeholder=\"retry-after: 1\" \
             data-type=\"headers\"></textarea>"
        ),
        _ => put!(
            page,
            "<input id=\"{id}\" name=\"{name}\" value=\"{}\" autocomplete=\"off\"{needed}>",
            Escaped(value)
        ),
    }
    page.push_str("</div>\n");
}

fn webhooks(page: &mut String, state: &State) {
    section(page, "webhooks", "Webhooks", |_| {});
    put!(
        page,
        "<form class=\"act\" data-path=\"/settings\" data-done=\"Webhooks are sent to: \
         {{webhookUrl}}.\">\n<div class=\"fields\">\n\
         <div class=\"most\"><label for=\"webhookUrl\">Receiver</label>\n\
         <input id=\"webhookUrl\" name=\"webhookUrl\" value=\"{}\" \
         placeholder=\"http://127.0.0.1:5000/webhooks\" \
         autocomplete=\"off\" data-type=\"nullable\"></div>\n\
         <div class=\"end\"><button>Set</button></div>\n</div></form>\n\
         <form class=\"act\" data-path=\"/webhooks\" data-done=\"The receiver responded with \
         {{status}}.\">\n\
         <h3>Send a test webhook</h3>\n<div class=\"fields\">\n\
         <div><label for=\"place\">Company or location</label>\n\
         <input id=\"place\" data-named-by-button list=\"places-list\" required \
         autocomplete=\"off\"></div>\n\
         <div><label for=\"signature\">Signature</label>\n\
         <select id=\"signature\" name=\"signature\">\n\
         <option>ed25519</option><option>both</option><option>legacy</option>\
         <option>notAvailable</option>\
         <option>wrong</option></select></div>\n</div>\n\
         <input type=\"hidden\" name=\"deliver\" value=\"true\" data-type=\"json\">\n\
         <p class=\"row\"><button value=\"install\">Send INSTALL</button>\
         <button value=\"uninstall\">Send UNINSTALL</button></p>\n\
         </form>\n<div id=\"live-webhooks\" data-live>\n",
        Escaped(state.settings.webhook_url.as_deref().unwrap_or_default()),
    );
    if state.settings.webhook_url.is_none() {
        page.push_str("<p class=\"empty\">No receiver is set, so no webhooks are sent.</p>\n");
    }
    deliveries(page, state);
    caused(page, state);
    page.push_str("</div>\n</section>\n");
}

/// The type of a webhook, and the name of its company or location.
fn summary(state: &State, body: &str) -> (String, String) {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let id = body["locationId"].as_str().or(body["companyId"].as_str()).unwrap_or_default();
    let kind = body["type"].as_str().unwrap_or("unknown type");
    (kind.to_owned(), name_of(state, id).to_owned())
}

fn deliveries(page: &mut String, state: &State) {
    let latest = state.webhooks.deliveries.latest();
    if latest.is_empty() {
        return;
    }
    page.push_str(
        "<h3>Latest deliveries</h3>\n<table>\n<thead><tr><th scope=\"col\">Time</th>\
         <th scope=\"col\">Webhook</th>\
         <th scope=\"col\">Response</th></tr></thead>\n<tbody>\n",
    );
    for delivery in latest.iter().rev().take(WEBHOOKS) {
        let (kind, name) = summary(state, &delivery.body);
        let at = iso8601(delivery.at_ms);
        put!(
            page,
            "<tr><td class=\"at\"><time datetime=\"{at}\">{}</time></td>\
             <td>{} <span class=\"soft\">{}</span></td><td>",
            at.get(11..19).unwrap_or_default(),
            Escaped(kind),
            Escaped(name),
        );
        match (delivery.status, &delivery.error) {
            (Some(status), _) => {
                let class = if status < 300 { "live" } else { "revoked" };
                page.push_str(&chip(class, &status.to_string()));
            }
            (None, error) => put!(
                page,
                "{}<br><span class=\"soft\">{}</span>",
                chip("revoked", "failed"),
                Escaped(error.as_deref().unwrap_or_default())
            ),
        }
        page.push_str("</td></tr>\n");
    }
    page.push_str("</tbody>\n</table>\n");
}

fn caused(page: &mut String, state: &State) {
    let mut caused: Vec<_> = state.webhooks.caused().collect();
    if caused.is_empty() {
        return;
    }
    caused.reverse();
    page.push_str(
        "<h3>Triggered by events</h3>\n<table>\n<thead><tr><th scope=\"col\">Webhook</th>\
         <th scope=\"col\">Response</th><th scope=\"col\"><span class=\"unseen\">Again</span></th>\
         </tr></thead>\n<tbody>\n",
    );
    for one in caused.iter().take(WEBHOOKS) {
        let (kind, name) = summary(state, &one.body);
        let status = match one.status.load(Ordering::SeqCst) {
            0 => chip("expired", "none"),
            status => chip(if status < 300 { "live" } else { "revoked" }, &status.to_string()),
        };
        put!(
            page,
            "<tr id=\"webhook-{0}\"><td>{0}: {1} <span class=\"soft\">{2}</span></td>\
             <td>{status}</td><td class=\"row\">",
            one.id,
            Escaped(kind),
            Escaped(name),
        );
        Button {
            path: "/webhooks",
            body: json!({"id": one.id, "deliver": true}),
            done: "The receiver responded with {status}.",
            text: "Send again",
            about: &format!("webhook {}", one.id),
            ..Button::POST
        }
        .write(page);
        page.push_str("</td></tr>\n");
    }
    page.push_str("</tbody>\n</table>\n");
}

fn places(page: &mut String, state: &State, wish: &Wish) {
    let (find, limit) = (wish.find.as_str(), wish.rows(LOCATIONS));
    section(page, "places", "Companies and locations", |_| {});
    put!(
        page,
        "<form method=\"get\" action=\"{PATH}#places\" role=\"search\"><div class=\"fields\">\n\
         <div class=\"most\"><label for=\"find\">Name or ID</label>\n\
         <input id=\"find\" name=\"find\" type=\"search\" value=\"{}\" autocomplete=\"off\">\
         </div>\n\
         <div class=\"end\"><button>Find</button></div>\n</div></form>\n\
         <div id=\"live-places\" data-live>\n<table>\n<thead><tr>\
         <th scope=\"col\">Company or location</th><th scope=\"col\">App</th>\
         <th scope=\"col\"><span class=\"unseen\">Changes</span></th></tr></thead>\n<tbody>\n",
        Escaped(find),
    );
    let wanted = find.to_lowercase();
    let matches = |name: &str, id: &str| id.contains(find) || name.to_lowercase().contains(&wanted);
    let mut found = 0;
    for company in &state.directory.companies {
        let locations: Vec<_> = state
            .directory
            .locations_of(&company.id)
            .filter(|location| matches(&location.name, &location.id))
            .collect();
        if locations.is_empty() && !matches(&company.name, &company.id) {
            continue;
        }
        if found < limit {
            company_row(page, state, company);
        }
        for location in locations {
            found += 1;
            if found <= limit {
                location_row(page, location);
            }
        }
    }
    page.push_str("</tbody>\n</table>\n");
    if found > limit {
        put!(
            page,
            "<p class=\"soft note\">{limit} of {found} locations. <a href=\"{PATH}?all\">Show \
             all</a></p>\n"
        );
    }
    page.push_str(
        "<p class=\"soft note\">Revoke affects only the refresh tokens of a company or \
         location.</p>\n",
    );
    page.push_str("</div>\n<datalist id=\"places-list\">\n");
    let companies = state.directory.companies.iter().map(|company| (&company.id, &company.name));
    let locations = state.directory.locations.iter().map(|location| (&location.id, &location.name));
    for (id, name) in companies.take(SUGGESTED).chain(locations.take(SUGGESTED)) {
        put!(page, "<option value=\"{}\">{}</option>\n", Escaped(id), Escaped(name));
    }
    page.push_str("</datalist>\n</section>\n");
}

fn company_row(page: &mut String, state: &State, company: &Company) {
    let locations = state.directory.locations_of(&company.id);
    let (all, installed) = locations.fold((0, 0), |(all, installed), location| {
        (all + 1, installed + usize::from(location.installed_at_ms.is_some()))
    });
    put!(
        page,
        "<tr id=\"place-{0}\"><th scope=\"row\">{1}<br><code class=\"soft\">{0}</code></th>\
         <td>{2}</td><td class=\"row\">",
        Escaped(&company.id),
        Escaped(&company.name),
        chip(if installed > 0 { "live" } else { "expired" }, &format!("on {installed} of {all}")),
    );
    Button {
        path: &format!("/companies/{}", company.id),
        body: json!({"installed": false}),
        done: &format!("{} and its locations no longer have the app.", company.name),
        text: "Uninstall",
        about: &company.name,
        ..Button::POST
    }
    .write(page);
    revoke(page, &company.id, &company.name);
    page.push_str("</td></tr>\n");
}

fn location_row(page: &mut String, location: &Location) {
    let Location { id, name, active, .. } = location;
    let installed = location.installed_at_ms.is_some();
    put!(
        page,
        "<tr id=\"place-{0}\"><td>{1}<br><code class=\"soft\">{0}</code></td><td>{2}",
        Escaped(id),
        Escaped(name),
        if installed { chip("live", "installed") } else { chip("expired", "not installed") },
    );
    if !active {
        put!(page, "<br>{}", chip("used", "paused"));
    }
    page.push_str("</td><td class=\"row\">");
    let path = format!("/locations/{id}");
    let (text, word) =
        if installed { ("Uninstall", "uninstalled from") } else { ("Install", "installed on") };
    Button {
        path: &path,
        body: json!({"installed": !installed}),
        done: &format!("The app was {word} {name}."),
        text,
        about: name,
        ..Button::POST
    }
    .write(page);
    let (text, word) = if *active { ("Pause", "is paused") } else { ("Resume", "is active again") };
    Button {
        path: &path,
        body: json!({"active": !active}),
        done: &format!("{name} {word}."),
        text,
        about: name,
        ..Button::POST
    }
    .write(page);
    revoke(page, id, name);
    page.push_str("</td></tr>\n");
}

fn revoke(page: &mut String, id: &str, name: &str) {
    Button {
        path: "/tokens/revoke",
        body: json!({ "resourceId": id }),
        done: &format!("{{revoked}} refresh tokens of {name} were revoked."),
        text: "Revoke",
        about: &format!("the refresh tokens of {name}"),
        ..Button::POST
    }
    .write(page);
}

fn settings(page: &mut String, state: &State) {
    section(page, "settings", "Settings", |_| {});
    page.push_str(
        "<form class=\"act\" data-path=\"/settings\" data-done=\"Saved.\">\n\
         <div class=\"fields three\">\n",
    );
    let settings = &state.settings;
    for (name, label, value) in [
        ("accessTokenSeconds", "Access token, seconds", settings.access_token_seconds.to_string()),
        ("reuseWindowSeconds", "Replay window, seconds", settings.reuse_window_seconds.to_string()),
        ("latencyMs", "Latency, ms", settings.latency_ms.to_string()),
    ] {
        put!(
            page,
            "<div><label for=\"{name}\">{label}</label>\n\
             <input id=\"{name}\" name=\"{name}\" type=\"number\" value=\"{value}\" \
             data-type=\"number\"></div>\n"
        );
    }
    page.push_str("</div>\n<p class=\"row\"><button>Set</button></p>\n</form>\n");
    behaviours(page, &settings.behaviour);
    page.push_str("</section>\n");
}

/// The observed behaviours that differ from the API description.
fn behaviours(page: &mut String, behaviour: &Behaviour) {
    page.push_str(
        "<form class=\"act\" data-path=\"/settings\" data-done=\"Saved.\">\n<details>\
         <summary>Behaviours</summary>\n\
         <div class=\"fields\">\n",
    );
    let chosen = json!(behaviour);
    for BehaviourInfo { name, values, default, what, .. } in &BEHAVIOURS {
        let value = &chosen[name];
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let what = what.replace('`', "");
        put!(page, "<div><label for=\"{name}\" title=\"{0}\">{name}</label>\n", Escaped(&what));
        let options = if *default == "false" { &["false", "true"][..] } else { values };
        if options.is_empty() {
            put!(
                page,
                "<input id=\"{name}\" name=\"{name}\" type=\"number\" min=\"0\" value=\"{value}\" \
                 data-type=\"number\">"
            );
        } else {
            // Values that are JSON are sent as JSON; names are sent as strings.
            let json = serde_json::from_str::<Value>(default).is_ok();
            let form = if json { " data-type=\"json\"" } else { "" };
            put!(page, "<select id=\"{name}\" name=\"{name}\"{form}>");
            for option in options {
                let selected = if *option == value { " selected" } else { "" };
                put!(page, "<option{selected}>{option}</option>");
            }
            page.push_str("</select>");
        }
        page.push_str("</div>\n");
    }
    page.push_str(
        "</div></details>\n<p class=\"row\"><button>Set behaviours</button></p>\n</form>\n",
    );
}

/// A duration in its two largest units.
fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, 0) => format!("{hours} h"),
        (0, ..) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn durations_are_shown_in_short_form() {
        for (seconds, said) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min"),
            (3_600, "1 h"),
            (86_399, "23 h 59 min"),
            (86_400, "1 d"),
            (90_000, "1 d 1 h"),
            (365 * 86_400, "365 d"),
        ] {
            assert_eq!(span(seconds * 1_000), said);
        }
    }

    #[test]
    fn search_results_are_shown_and_escaped() {
        let state = State::new(&Options::default(), "http://127.0.0.1:1".to_owned());
        let body = |find: &str| body(&state, &Wish { find: find.to_owned(), all: false });
        let rows = |find: &str| body(find).matches("<tr id=\"place-").count();
        assert_eq!(rows(""), 1 + LOCATIONS);
        assert_eq!(rows("smith & sons"), 6);
        assert_eq!(rows(&state.directory.locations[7].id), 2);
        assert_eq!(rows("\"><script>"), 0);
        assert!(!body("\"><script>").contains("\"><script>"));
        assert!(!body("").contains("Smith & Sons"));
    }

    #[test]
    fn fault_is_described_by_its_options() {
        let of = |fault: Value| {
            let Value::Object(members) = fault else { panic!("no object") };
            parameters_of(&crate::fault::from_json(members).unwrap().1)
        };
        assert_eq!(of(json!({"kind": "replyLost"})), "");
        assert_eq!(
            of(json!({"kind": "stall", "stage": "afterProcessing"})),
            "stage afterProcessing"
        );
        assert_eq!(
            of(json!({"kind": "drip", "everyMs": 50, "bodyOnly": true})),
            "everyMs 50, bodyOnly true"
        );
        assert_eq!(
            of(json!({
                "kind": "status", "status": 429, "headers": [["retry-after", "2"], ["a", "b"]],
            })),
            "status 429, headers retry-after: 2; a: b"
        );
    }

    #[test]
    fn no_secret_is_shown_in_full() {
        let state = State::new(&Options::default(), "http://127.0.0.1:1".to_owned());
        assert!(!body(&state, &Wish::default()).contains(&state.directory.app.client_secret));
    }
}
