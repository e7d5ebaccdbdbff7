//! Webhooks: signature verification and the effect of INSTALL and UNINSTALL on tokens, idempotent
//! and in any order.

mod public_key;
mod signature;
mod timestamp;

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::log_fields::about;
use crate::error::{Error, Result, Status};
use crate::store::{Note, Store};
use crate::token::is_valid_id;
use crate::tokens::{DELIVERY_RETENTION_MS, InstallationEvents, Tokens, WebhookOutcome};

pub use signature::{Headers, Signed, Verifier};

/// How long the vendor may repeat a delivery: up to 12 times, about 10 minutes apart.
const REPEATED_FOR_MS: i64 = 150 * 60_000;

/// The shortest time between two repetitions.
const REPEATED_AFTER_MS: i64 = 9 * 60_000;

pub struct Webhooks {
    verifier: Verifier,
    app_id: String,
    max_age_ms: Option<i64>,
    store: Arc<dyn Store>,
    tokens: Arc<Tokens>,
    clock: Arc<dyn Clock>,
}

/// How a delivery is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[deny(missing_docs)]
pub struct WebhookParams {
    /// Whether an INSTALL mints its tokens in this call. Otherwise no request is sent, and each
    /// token is minted at its first use or by maintenance. Default: true.
    pub mint: Option<bool>,
}

/// A delivery with a valid signature.
struct Delivery {
    signed: Signed,
    payload: Map<String, Value>,
    /// Its timestamp, in milliseconds since the epoch, if it has one.
    at_ms: Option<i64>,
}

impl Webhooks {
    /// Webhooks for the configured app.
    pub fn new(
        config: &Config,
        verifier: Verifier,
        store: Arc<dyn Store>,
        tokens: Arc<Tokens>,
        clock: Arc<dyn Clock>,
    ) -> Webhooks {
        let max_age = config.webhook.max_age_seconds;
        Webhooks {
            verifier,
            app_id: config.app_id().to_owned(),
            max_age_ms: max_age
                .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)),
            store,
            tokens,
            clock,
        }
    }

    /// Verifies and parses a delivery of any type. Changes nothing.
    pub fn verify(&self, body: &[u8], headers: &Headers) -> Result<Value> {
        let delivery = self.open(body, headers)?;
        Ok(json!({
            "type": delivery.string("type"),
            "webhookId": delivery.string("webhookId"),
            "timestampMs": delivery.at_ms,
            "scheme": delivery.signed.scheme,
            "keyIndex": delivery.signed.key_index,
            "payload": delivery.payload,
        }))
    }

    /// Applies an INSTALL or UNINSTALL of this app to the tokens; ignores other deliveries.
    pub fn apply(
        &self,
        body: &[u8],
        headers: &Headers,
        params: &WebhookParams,
        deadline: &Deadline,
    ) -> Result<Value> {
        // A delivery that is not repeated is lost, and the store may be repaired until then.
        self.apply_once(body, headers, params, deadline).map_err(|error| {
            let is_of_store = error.status() == Status::Store && !error.is_unreadable();
            let retryable = is_of_store || error.retryable();
            error.with_retryable(retryable)
        })
    }

    fn apply_once(
        &self,
        body: &[u8],
        headers: &Headers,
        params: &WebhookParams,
        deadline: &Deadline,
    ) -> Result<Value> {
        let mints = params.mint != Some(false);
        let delivery = self.open(body, headers)?;
        let (location_id, company_id) = (delivery.id("locationId"), delivery.id("companyId"));
        let location_ids = delivery.location_ids();
        let resource_id = location_id.or(location_ids.first().copied()).or(company_id);
        let outcome = match (delivery.string("type"), resource_id) {
            (Some("INSTALL" | "UNINSTALL"), _)
                if delivery.string("appId") != Some(&self.app_id) =>
            {
                WebhookOutcome::ignored("it is about another app")
            }
            (Some("INSTALL" | "UNINSTALL"), None) => {
                WebhookOutcome::ignored("it names neither a location nor a company")
            }
            (Some("INSTALL" | "UNINSTALL"), _) if delivery.is_dated_unreadably() => {
                return Err(Error::invalid_argument(
                    "timestamp",
                    "the delivery's timestamp has an unknown form",
                ));
            }
            (Some(kind @ ("INSTALL" | "UNINSTALL")), Some(_)) => {
                let key = delivery.key(body);
                if self.is_repetition(&key, &delivery, resource_id, deadline)? {
                    // If another process applied it, this one may still have the token cached.
                    for id in location_ids.iter().copied().chain(resource_id) {
                        self.tokens.published.invalidate(id);
                    }
                    WebhookOutcome::ignored("it was applied before")
                } else {
                    let at_ms = delivery.at_ms.unwrap_or_else(|| self.clock.wall_ms());
                    let events = InstallationEvents::of(&self.tokens);
                    let each = |location_id: &&str| match kind {
                        "INSTALL" => events.location_installed(
                            location_id,
                            company_id,
                            at_ms,
                            mints,
                            deadline,
                        ),
                        _ => events.location_uninstalled(location_id, at_ms, mints, deadline),
                    };
                    let outcome = match (kind, company_id) {
                        _ if !location_ids.is_empty() => WebhookOutcome::of_all(
                            location_ids.iter().map(each).collect::<Result<_>>()?,
                        ),
                        _ if delivery.is_about_locations() => {
                            WebhookOutcome::ignored("it names a location by an invalid ID")
                        }
                        ("UNINSTALL", Some(company_id)) => {
                            events.company_uninstalled(company_id, at_ms, deadline)?
                        }
                        (_, Some(company_id)) => {
                            events.company_installed(company_id, at_ms, deadline)?
                        }
                        (_, None) => {
                            WebhookOutcome::ignored("it names neither a location nor a company")
                        }
                    };
                    // Last: after a crash before this line the repetition is applied again, which
                    // is harmless.
                    self.mark_as_seen(key, &delivery, deadline)?;
                    outcome
                }
            }
            _ => WebhookOutcome::ignored("its type does not concern tokens"),
        };
        let kind = delivery.string("type");
        log::debug!(
            "a webhook was handled kind={:?} applied={}{}",
            kind.unwrap_or_default(),
            outcome.applied,
            about(resource_id.unwrap_or_default())
        );
        let mut answer =
            json!({"type": kind, "resourceId": resource_id, "applied": outcome.applied});
        if let Some(reason) = outcome.reason {
            answer["reason"] = reason.into();
        }
        Ok(answer)
    }

    /// Checks signature and age, and parses the body.
    fn open(&self, body: &[u8], headers: &Headers) -> Result<Delivery> {
        let signed = self.verifier.verify(body, headers)?;
        let payload: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
            Error::invalid_argument("body", "the body is signed, but it is not a JSON object")
        })?;
        let at_ms = payload.get("timestamp").and_then(timestamp::read);
        if let Some(max_age_ms) = self.max_age_ms {
            let refused = |why| Err(Error::new(Status::SignatureInvalid, why));
            match at_ms.map(|at_ms| self.clock.wall_ms().saturating_sub(at_ms)) {
                None => return refused("the delivery has no readable timestamp"),
                Some(age) if age > max_age_ms => {
                    return refused("the delivery is older than webhook.maxAgeSeconds");
                }
                Some(age) if age < -max_age_ms => {
                    return refused("the delivery's timestamp lies in the future");
                }
                Some(_) => {}
            }
        }
        Ok(Delivery { signed, payload, at_ms })
    }

    /// Whether a delivery was applied before. If the body has an ID or a timestamp, a known key is
    /// sufficient. Otherwise a new event can have the same body as an old one; it counts as a
    /// repetition if no installation has begun since, or if it arrives when the vendor would repeat
    /// the old one. When in doubt, a delivery is not applied: a token that is wrongly kept is
    /// rejected by the API, but one that is wrongly deleted is lost.
    fn is_repetition(
        &self,
        key: &str,
        delivery: &Delivery,
        resource_id: Option<&str>,
        deadline: &Deadline,
    ) -> Result<bool> {
        let now = self.clock.wall_ms();
        let Some(seen) = self.store.note(key, deadline)?.filter(|note| note.expires_at > now)
        else {
            return Ok(false);
        };
        if delivery.is_unmistakable() {
            return Ok(true);
        }
        let seen_at = seen.document.get("atMs").and_then(Value::as_i64).unwrap_or(now);
        let began_since = match resource_id {
            Some(resource_id) => {
                InstallationEvents::of(&self.tokens).began_after(resource_id, seen_at, deadline)?
            }
            None => false,
        };
        let comes_when_repeated =
            (REPEATED_AFTER_MS..REPEATED_FOR_MS).contains(&now.saturating_sub(seen_at));
        Ok(!began_since || comes_when_repeated)
    }

    fn mark_as_seen(&self, key: String, delivery: &Delivery, deadline: &Deadline) -> Result<()> {
        let now = self.clock.wall_ms();
        self.store.prune_notes(now, deadline)?;
        let version = match delivery.is_unmistakable() {
            true => 0,
            false => self.store.note(&key, deadline)?.map_or(0, |note| note.version),
        };
        let seen = Note {
            key,
            version,
            list: String::new(),
            document: json!({"atMs": now}),
            expires_at: now.saturating_add(DELIVERY_RETENTION_MS),
        };
        match self.store.save_note(&seen, deadline) {
            // Another process applied it at the same time.
            Err(error) if error.status() == Status::Conflict => Ok(()),
            outcome => outcome,
        }
    }
}

impl Delivery {
    fn string(&self, name: &str) -> Option<&str> {
        self.payload.get(name)?.as_str()
    }

    /// Whether it has an ID or a timestamp, so that it differs from every other delivery.
    fn is_unmistakable(&self) -> bool {
        self.webhook_id().is_some() || self.at_ms.is_some()
    }

    /// Whether it has a timestamp, in a form that cannot be read. Without its age, an old UNINSTALL
    /// could end a newer installation.
    fn is_dated_unreadably(&self) -> bool {
        self.at_ms.is_none() && self.payload.get("timestamp").is_some_and(|it| !it.is_null())
    }

    fn webhook_id(&self) -> Option<&str> {
        self.string("webhookId").filter(|id| !id.is_empty())
    }

    /// The ID of a company or location; `None` if it is invalid.
    fn id(&self, name: &str) -> Option<&str> {
        self.string(name).filter(|id| is_valid_id(id))
    }

    /// Whether it names locations, even with invalid IDs.
    fn is_about_locations(&self) -> bool {
        let names = |field: &str| {
            let is_empty =
                |value: &Value| value.is_null() || *value == json!("") || *value == json!([]);
            self.payload.get(field).is_some_and(|value| !is_empty(value))
        };
        names("locationId") || names("locationIds")
    }

    /// The IDs in `locationId` and `locationIds`. Skips invalid ones.
    fn location_ids(&self) -> Vec<&str> {
        let listed = self.payload.get("locationIds").and_then(Value::as_array);
        let listed = listed.into_iter().flatten().filter_map(Value::as_str);
        let listed = listed.filter(|id| is_valid_id(id));
        let mut ids: Vec<&str> = self.id("locationId").into_iter().chain(listed).collect();
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(*id));
        ids
    }

    /// The key that repetitions of this delivery share: the digest of its ID, or of its body if it
    /// has no ID.
    fn key(&self, body: &[u8]) -> String {
        let (kind, identity) = match self.webhook_id() {
            Some(id) => ("id", id.as_bytes()),
            None => ("body", body),
        };
        format!("delivery/{kind}/{}", URL_SAFE_NO_PAD.encode(digest(&SHA256, identity)))
    }
}
