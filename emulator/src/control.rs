//! The control API under `/_emulator`: the methods of [`Emulator`](crate::Emulator) for programs in
//! other languages.

use crate::clock::iso8601;
use crate::complaint::{self, Complaint};
use crate::consent::{Decision, requested};
use crate::control_reply::{plain, refuse, refuse_for, reply};
use crate::fault::{self, FaultId};
use crate::fault_catalogue::FAULT_KINDS;
use crate::installations::installations;
use crate::options::SettingsChange;
use crate::origin::from_this_machine;
use crate::refusal::Refusal;
use crate::scenario_run::Scenario;
use crate::snippets::{LANGUAGES, snippet};
use crate::state::{Shared, State as Emulated};
use crate::webhook::{self, Notice};
use crate::webhook_delivery::parts_of;
use crate::webhook_signing::Signature;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(overview))
        .route("/configuration/{language}", get(configuration))
        .route("/clock", post(set_clock))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/tokens", get(tokens))
        .route("/tokens/ledger", get(ledger))
        .route("/tokens/expire", post(expire))
        .route("/tokens/revoke", post(revoke))
        .route("/consent", post(consent))
        .route("/settings", get(settings).post(change_settings))
        .route("/locations/{id}", post(change_location))
        .route("/companies/{id}", post(change_company))
        .route("/companies/{id}/locations", post(open_location))
        .route("/quota/spend", post(spend_quota))
        .route("/tokens/private", post(private_token))
        .route("/webhooks", get(webhooks).post(webhook))
        .route("/installations", get(installed))
        .route("/scenario", get(scenario).post(start_scenario))
        .route("/scenario/step", post(step_scenario))
        .route("/faults", get(faults).post(inject).delete(clear_faults))
        .route("/faults/kinds", get(fault_kinds))
        .route("/faults/{id}", delete(remove_fault))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "GET /_emulator lists the endpoints"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "GET /_emulator lists the endpoints")
        })
        .layer(from_fn(from_this_machine))
}

/// The endpoints of the control API, for its overview and the program's start-up text.
pub const CONTROL_ENDPOINTS: [(&str, &str); 28] = [
    ("GET /_emulator", "IDs, credentials, URLs, the clock, and the number of connections so far"),
    (
        "GET /_emulator/configuration/{language}",
        "the configuration as text to paste: json, c, cpp, python or environment",
    ),
    (
        "POST /_emulator/clock",
        r#"{"advanceSeconds": n}, {"setMs": n}, {"toNextExpiry": true} or {"reset": true}"#,
    ),
    (
        "GET /_emulator/requests",
        "every request so far, with its company or location and the fault that was applied",
    ),
    ("DELETE /_emulator/requests", "clears the request log"),
    ("GET /_emulator/tokens", "the valid refresh tokens"),
    (
        "GET /_emulator/tokens/ledger",
        "the state of every code and token, newest first, by fingerprint: the first digits of its \
         SHA-256",
    ),
    ("POST /_emulator/tokens/expire", "{}: expires every access token"),
    ("POST /_emulator/tokens/revoke", r#"{"resourceId"}: revokes its refresh tokens"#),
    (
        "POST /_emulator/tokens/private",
        r#"{"resourceId"}: a private integration token -> {"token"}"#,
    ),
    (
        "POST /_emulator/consent",
        r#"{"url", "companyId" [, "locationIds"] | "locationId" | "deny": true} -> {"redirectUrl"}"#,
    ),
    ("GET /_emulator/settings", "the settings"),
    (
        "POST /_emulator/settings",
        "changes accessTokenSeconds, expiresIn, reuseWindowSeconds, locationRefreshTokens, \
         rateLimit, latencyMs, acceptDelayMs, webhookUrl, and the behaviours",
    ),
    (
        "POST /_emulator/locations/{id}",
        concat!(
            r#"{"active"?: bool, "installed"?: bool, "companyId"?: moves it there, "#,
            r#""reinstallAfterSeconds"?: n}"#
        ),
    ),
    ("POST /_emulator/companies/{id}", r#"{"installed": false}"#),
    ("POST /_emulator/companies/{id}/locations", r#"{}: creates a location -> {"id"}"#),
    ("POST /_emulator/quota/spend", r#"{"resourceId"}: uses up its daily quota"#),
    (
        "GET /_emulator/webhooks",
        "the webhooks so far, the latest deliveries with their responses, and the public keys",
    ),
    (
        "POST /_emulator/webhooks",
        concat!(
            r#"{"install" | "uninstall": resource ID, "locationIds"?: for the install of a "#,
            r#"company; or "id": repeat this webhook, or "body"; "signature"?, "url"?: send it "#,
            r#"to this URL, or "deliver": true: to webhookUrl} -> {"body", "headers", "status"?}"#
        ),
    ),
    (
        "GET /_emulator/installations",
        "every company and location, and whether the API accepts its tokens now",
    ),
    (
        "GET /_emulator/scenario",
        "the progress of the scenario, its events, and, when it has finished, the installation \
         status",
    ),
    (
        "POST /_emulator/scenario",
        concat!(
            r#"{"name" [, "daySeconds": the real time that the day takes]}: starts a scenario; "#,
            "without daySeconds, step it"
        ),
    ),
    (
        "POST /_emulator/scenario/step",
        r#"{"count"?: n}: plays the next events -> {"happenings"}, empty when it has finished"#,
    ),
    (
        "GET /_emulator/faults",
        "the faults, how often each was applied, and how many requests it holds",
    ),
    (
        "POST /_emulator/faults",
        concat!(
            r#"{"kind", parameters of the kind, "endpoint"?, "grantType"?, "resourceId"?, "#,
            r#""skip"?, "count"?, "probability"?} -> {"id"}"#
        ),
    ),
    ("GET /_emulator/faults/kinds", "the kinds of faults, and their parameters"),
    ("DELETE /_emulator/faults", "removes every fault"),
    ("DELETE /_emulator/faults/{id}", "removes a fault and releases the requests that it holds"),
];

fn not_found(what: &str, id: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, format!("there is no {what} {id}"))
}

/// Parses a JSON body and refuses unknown names. An empty body counts as an empty object.
#[expect(clippy::result_large_err, reason = "built once, returned at once")]
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Response> {
    let text = if body.is_empty() { &b"{}"[..] } else { body };
    // serde would accept a list for a struct as well.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(refuse(StatusCode::BAD_REQUEST, "the body must be a JSON object"));
    }
    let mut source = serde_json::Deserializer::from_slice(text);
    complaint::deserialize(&mut source)
        .and_then(|value| match source.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(Complaint::whole(format!("the body is not JSON: {error}"))),
        })
        .map_err(|complaint| refuse_for(StatusCode::BAD_REQUEST, &complaint))
}

/// Refuses a field.
fn wrong(field: &str, what: impl Into<String>) -> Response {
    refuse_for(StatusCode::BAD_REQUEST, &Complaint::field(field, what))
}

/// Refuses a field that names a company, location or webhook that does not exist.
fn unknown(field: &str, what: &str, id: &str) -> Response {
    let complaint = Complaint::field(field, format!("there is no {what} {id}"));
    refuse_for(StatusCode::NOT_FOUND, &complaint)
}

async fn overview(State(shared): State<Shared>) -> Response {
    reply(&describe(&shared.lock()))
}

fn describe(state: &Emulated) -> Value {
    let app = &state.directory.app;
    let companies: Vec<_> = state
        .directory
        .companies
        .iter()
        .map(|company| {
            let locations: Vec<_> = state.directory.locations_of(&company.id).collect();
            json!({
                "id": company.id,
                "name": company.name,
                "locationIds": locations.iter().map(|location| &location.id).collect::<Vec<_>>(),
            })
        })
        .collect();
    let endpoints: Vec<_> = CONTROL_ENDPOINTS
        .iter()
        .map(|(endpoint, what)| json!({"endpoint": endpoint, "what": what}))
        .collect();
    json!({
        "baseUrl": state.base_url,
        "authorizeUrl": state.authorize_url(),
        "clientId": app.client_id,
        "clientSecret": app.client_secret,
        "redirectUris": app.redirect_uris,
        "appId": app.id,
        "versionId": app.version_id,
        "scopes": app.scopes,
        "companies": companies,
        "clock": clock(state),
        "refreshes": state.tokens.rotations(),
        "connections": state.connections.accepted(),
        "settings": state.settings,
        "configuration": state.configuration(),
        "control": endpoints,
    })
}

async fn configuration(State(shared): State<Shared>, Path(language): Path<String>) -> Response {
    match snippet(&shared.lock(), &language) {
        Some(text) => plain(text),
        None => {
            let known = LANGUAGES.map(|(name, _)| name).join(", ");
            refuse(StatusCode::NOT_FOUND, format!("there is only {known}"))
        }
    }
}

fn clock(state: &Emulated) -> Value {
    let now_ms = state.clock.now_ms();
    json!({"nowMs": now_ms, "now": iso8601(now_ms), "offsetMs": state.clock.offset_ms()})
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClockChange {
    advance_seconds: Option<f64>,
    set_ms: Option<i64>,
    #[serde(default)]
    to_next_expiry: bool,
    #[serde(default)]
    reset: bool,
}

async fn set_clock(State(shared): State<Shared>, body: Bytes) -> Response {
    let change: ClockChange = match read(&body) {
        Ok(change) => change,
        Err(refusal) => return refusal,
    };
    let state = shared.lock();
    let by = change.advance_seconds.map(Duration::try_from_secs_f64);
    match (by, change.set_ms, change.to_next_expiry, change.reset) {
        (Some(Ok(by)), None, false, false) => state.clock.advance(by),
        (Some(Err(_)), None, false, false) => {
            return wrong(
                "advanceSeconds",
                "it must not be negative; use setMs to move the clock back",
            );
        }
        (None, Some(now_ms), false, false) => state.clock.set_ms(now_ms),
        (None, None, true, false) => {
            match state.tokens.ledger().next_expiry(state.clock.now_ms()) {
                Some(next) => state.clock.set_ms(next.expires_at_ms),
                None => {
                    return refuse(
                        StatusCode::CONFLICT,
                        "there is no valid code or token that could expire",
                    );
                }
            }
        }
        (None, None, false, true) => state.clock.reset(),
        _ => {
            return refuse(
                StatusCode::BAD_REQUEST,
                "give exactly one of advanceSeconds, setMs, toNextExpiry and reset",
            );
        }
    }
    reply(&clock(&state))
}

async fn requests(State(shared): State<Shared>) -> Response {
    let entries = shared.lock().log.entries();
    reply(&json!({ "requests": entries }))
}

async fn clear_requests(State(shared): State<Shared>) -> Response {
    reply(&json!({"cleared": shared.lock().log.clear()}))
}

async fn tokens(State(shared): State<Shared>) -> Response {
    let state = shared.lock();
    reply(&json!({
        "refreshTokens": state.tokens.live(state.clock.now_ms()),
        "refreshes": state.tokens.rotations(),
    }))
}

async fn ledger(State(shared): State<Shared>) -> Response {
    let state = shared.lock();
    let now_ms = state.clock.now_ms();
    let accounts: Vec<_> =
        state.tokens.ledger().entries().map(|entry| entry.account(now_ms)).collect();
    reply(&json!({ "tokens": accounts }))
}

async fn fault_kinds() -> Response {
    reply(&json!({ "kinds": FAULT_KINDS, "refusals": Refusal::ALL }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn expire(State(shared): State<Shared>, body: Bytes) -> Response {
    match read(&body) {
        Ok(Nothing {}) => {
            shared.lock().tokens.expire_access_tokens();
            reply(&json!({}))
        }
        Err(refusal) => refusal,
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Place {
    resource_id: String,
}

async fn revoke(State(shared): State<Shared>, body: Bytes) -> Response {
    match read(&body) {
        Ok(Place { resource_id }) => {
            let revoked = shared.lock().tokens.revoke_refresh_tokens(&resource_id);
            reply(&json!({ "revoked": revoked }))
        }
        Err(refusal) => refusal,
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Consent {
    url: String,
    company_id: Option<String>,
    location_ids: Option<Vec<String>>,
    location_id: Option<String>,
    #[serde(default)]
    deny: bool,
}

impl Consent {
    fn decision(self) -> Option<Decision> {
        match (self.company_id, self.location_ids, self.location_id, self.deny) {
            (Some(company), None, None, false) => Some(Decision::Company(company)),
            (Some(company), Some(locations), None, false) => {
                Some(Decision::CompanyWithLocations { company, locations })
            }
            (None, None, Some(location), false) => Some(Decision::Location(location)),
            (None, None, None, true) => Some(Decision::Deny),
            _ => None,
        }
    }
}

async fn consent(State(shared): State<Shared>, body: Bytes) -> Response {
    let mut consent: Consent = match read(&body) {
        Ok(consent) => consent,
        Err(refusal) => return refusal,
    };
    let url = std::mem::take(&mut consent.url);
    let Some(decision) = consent.decision() else {
        return refuse(
            StatusCode::BAD_REQUEST,
            r#"give exactly one of companyId (with locationIds or without), locationId and "deny": true"#,
        );
    };
    let mut state = shared.lock();
    let field = match &decision {
        Decision::CompanyWithLocations { company, .. }
            if state.directory.company(company).is_some() =>
        {
            "locationIds"
        }
        Decision::Location(_) => "locationId",
        _ => "companyId",
    };
    let decided = requested(&state, &url)
        .map_err(|complaint| Complaint::field("url", complaint))
        .and_then(|asked| {
            let decided = asked.decide(&mut state, decision);
            decided.map_err(|complaint| Complaint::field(field, complaint))
        });
    match decided {
        Ok(redirect_url) => reply(&json!({ "redirectUrl": redirect_url })),
        Err(complaint) => refuse_for(StatusCode::BAD_REQUEST, &complaint),
    }
}

async fn settings(State(shared): State<Shared>) -> Response {
    reply(&json!(shared.lock().settings))
}

async fn change_settings(State(shared): State<Shared>, body: Bytes) -> Response {
    let change: SettingsChange = match read(&body) {
        Ok(change) => change,
        Err(refusal) => return refusal,
    };
    let mut state = shared.lock();
    match state.settings.apply(change) {
        Ok(()) => reply(&json!(state.settings)),
        Err(complaint) => refuse_for(StatusCode::BAD_REQUEST, &complaint),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocationChange {
    active: Option<bool>,
    installed: Option<bool>,
    company_id: Option<String>,
    reinstall_after_seconds: Option<u64>,
}

async fn change_location(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let change: LocationChange = match read(&body) {
        Ok(change) => change,
        Err(refusal) => return refusal,
    };
    let mut state = shared.lock();
    if state.directory.location(&id).is_none() {
        return not_found("location", &id);
    }
    if let Some(company_id) = &change.company_id
        && !state.move_location(&id, company_id)
    {
        return unknown("companyId", "company", company_id);
    }
    if let Some(active) = change.active {
        state.set_location_active(&id, active);
    }
    match change.installed {
        Some(true) => drop(state.install_location(&id)),
        Some(false) => drop(state.uninstall(&id)),
        None => {}
    }
    if let Some(seconds) = change.reinstall_after_seconds {
        state.reinstall_location(&id, Duration::from_secs(seconds));
    }
    let location = state.directory.location(&id);
    reply(&json!({
        "id": id,
        "companyId": location.map(|location| &location.company_id),
        "active": location.is_some_and(|location| location.active),
        "installed": location.is_some_and(|location| location.installed_at_ms.is_some()),
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompanyChange {
    installed: bool,
}

async fn change_company(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let change: CompanyChange = match read(&body) {
        Ok(change) => change,
        Err(refusal) => return refusal,
    };
    let mut state = shared.lock();
    if state.directory.company(&id).is_none() {
        return not_found("company", &id);
    }
    if change.installed {
        return wrong("installed", "only consent installs the app on a company");
    }
    state.uninstall(&id);
    reply(&json!({"id": id, "installed": false}))
}

async fn open_location(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    if let Err(refusal) = read::<Nothing>(&body) {
        return refusal;
    }
    match shared.lock().open_location(&id) {
        Some(location_id) => reply(&json!({ "id": location_id })),
        None => not_found("company", &id),
    }
}

async fn spend_quota(State(shared): State<Shared>, body: Bytes) -> Response {
    let Place { resource_id } = match read(&body) {
        Ok(place) => place,
        Err(refusal) => return refusal,
    };
    let mut state = shared.lock();
    if state.settings.rate_limit.is_none() {
        return refuse(StatusCode::CONFLICT, "there is no rateLimit in the settings");
    }
    state.spend_daily_quota(&resource_id);
    reply(&json!({}))
}

async fn private_token(State(shared): State<Shared>, body: Bytes) -> Response {
    let Place { resource_id } = match read(&body) {
        Ok(place) => place,
        Err(refusal) => return refusal,
    };
    match shared.lock().private_token(&resource_id) {
        Some(token) => reply(&json!({ "token": token })),
        None => unknown("resourceId", "company or location", &resource_id),
    }
}

async fn webhooks(State(shared): State<Shared>) -> Response {
    let state = shared.lock();
    let keys = state.webhooks.keys.public();
    let caused: Vec<_> = state
        .webhooks
        .caused()
        .map(|caused| match caused.status.load(Ordering::SeqCst) {
            0 => json!({"id": caused.id, "body": caused.body, "status": null}),
            status => json!({"id": caused.id, "body": caused.body, "status": status}),
        })
        .collect();
    reply(&json!({
        "webhooks": caused,
        "deliveries": state.webhooks.deliveries.latest(),
        "publicKeys": {"ed25519": keys.ed25519, "rsa": keys.rsa},
    }))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookRequest {
    install: Option<String>,
    uninstall: Option<String>,
    location_ids: Option<Vec<String>>,
    id: Option<u64>,
    body: Option<String>,
    #[serde(default)]
    signature: Signature,
    url: Option<String>,
    #[serde(default)]
    deliver: bool,
}

async fn webhook(State(shared): State<Shared>, body: Bytes) -> Response {
    let WebhookRequest { install, uninstall, location_ids, id, body, signature, url, deliver } =
        match read(&body) {
            Ok(request) => request,
            Err(refusal) => return refusal,
        };
    if url.as_deref().is_some_and(|url| parts_of(url).is_none()) {
        return wrong("url", "it must be http://HOST:PORT/PATH");
    }
    let named = match (&install, &uninstall, id) {
        (Some(place), ..) => ("install", "company or location", place.clone()),
        (_, Some(place), _) => ("uninstall", "company or location", place.clone()),
        (.., id) => ("id", "webhook", id.unwrap_or_default().to_string()),
    };
    let (keys, deliveries, url, body) = {
        let state = shared.lock();
        let told = |notice: Notice| webhook::body(&state.directory, &notice, state.clock.now_ms());
        let body = match (install, uninstall, id, body) {
            (Some(place), None, None, None) => told(match location_ids {
                None => Notice::Install(place),
                Some(location_ids) => Notice::BulkInstall { company_id: place, location_ids },
            }),
            _ if location_ids.is_some() => {
                return wrong("locationIds", "it requires install");
            }
            (None, Some(place), None, None) => told(Notice::Uninstall(place)),
            (None, None, Some(id), None) => state
                .webhooks
                .caused()
                .find(|caused| caused.id == id)
                .map(|caused| caused.body.clone()),
            (None, None, None, Some(body)) => Some(body),
            _ => {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    "give exactly one of install, uninstall, id and body",
                );
            }
        };
        let Some(body) = body else {
            let (field, what, id) = &named;
            return unknown(field, what, id);
        };
        let url = match (url, deliver) {
            (url, false) => url,
            (None, true) if state.settings.webhook_url.is_some() => {
                state.settings.webhook_url.clone()
            }
            (None, true) => {
                return refuse(StatusCode::CONFLICT, "there is no webhookUrl in the settings");
            }
            (Some(_), true) => {
                return refuse(StatusCode::BAD_REQUEST, "give either url or deliver");
            }
        };
        (Arc::clone(&state.webhooks.keys), state.webhooks.deliveries.clone(), url, body)
    };
    let headers = keys.sign(body.as_bytes(), signature);
    let mut answer = json!({"body": body, "headers": Map::from_iter(
        headers.iter().map(|(name, value)| (name.clone(), Value::from(value.clone())))
    )});
    if let Some(url) = url {
        // Not on this thread: the receiver may call the emulator before it responds.
        let sent =
            tokio::task::spawn_blocking(move || deliveries.post(&url, &headers, body.as_bytes()));
        match sent.await.map_err(std::io::Error::other).flatten() {
            Ok(status) => answer["status"] = status.into(),
            Err(error) => return refuse(StatusCode::BAD_GATEWAY, error.to_string()),
        }
    }
    reply(&answer)
}

async fn installed(State(shared): State<Shared>) -> Response {
    reply(&json!({"installations": installations(&shared.lock())}))
}

async fn scenario(State(shared): State<Shared>) -> Response {
    match shared.lock().scenario_report() {
        Some(report) => reply(&json!(report)),
        None => refuse(StatusCode::NOT_FOUND, "no scenario was started"),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScenarioStart {
    name: Scenario,
    day_seconds: Option<u64>,
}

async fn start_scenario(State(shared): State<Shared>, body: Bytes) -> Response {
    let ScenarioStart { name, day_seconds } = match read(&body) {
        Ok(start) => start,
        Err(refusal) => return refusal,
    };
    if day_seconds == Some(0) {
        return wrong("daySeconds", "the day must be longer than zero");
    }
    match shared.lock().start_scenario(name, day_seconds.map(Duration::from_secs)) {
        Ok(()) => reply(&json!({"name": name})),
        Err(complaint) => refuse(StatusCode::CONFLICT, complaint),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Steps {
    count: Option<usize>,
}

async fn step_scenario(State(shared): State<Shared>, body: Bytes) -> Response {
    let Steps { count } = match read(&body) {
        Ok(steps) => steps,
        Err(refusal) => return refusal,
    };
    let mut state = shared.lock();
    let mut happenings = Vec::new();
    while happenings.len() < count.unwrap_or(1) {
        match state.step_scenario() {
            Ok(Some(happening)) => happenings.push(happening),
            Ok(None) => break,
            Err(complaint) => return refuse(StatusCode::CONFLICT, complaint),
        }
    }
    reply(&json!({ "happenings": happenings }))
}

async fn faults(State(shared): State<Shared>) -> Response {
    reply(&json!({"faults": shared.lock().faults.describe()}))
}

async fn inject(State(shared): State<Shared>, body: Bytes) -> Response {
    let fault = match read::<Map<String, Value>>(&body) {
        Ok(members) => fault::from_json(members),
        Err(refusal) => return refusal,
    };
    match fault {
        Ok((rule, kind)) => {
            let (id, _) = shared.lock().faults.inject(rule, kind);
            reply(&json!({ "id": id }))
        }
        Err(complaint) => refuse_for(StatusCode::BAD_REQUEST, &complaint),
    }
}

async fn clear_faults(State(shared): State<Shared>) -> Response {
    reply(&json!({"removed": shared.lock().faults.clear()}))
}

async fn remove_fault(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let removed = id.parse().is_ok_and(|id| shared.lock().faults.remove(FaultId(id)));
    if removed { reply(&json!({"removed": 1})) } else { not_found("fault", &id) }
}
