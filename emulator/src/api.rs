//! Request routing of the API: checks of version, bearer token and rate limit, then the endpoint.

use crate::answer::Answer;
use crate::bearer;
use crate::call::Call;
use crate::clock::day_of;
use crate::delivery::{self, Delivery};
use crate::distortion::snake;
use crate::fault::{Endpoint, FaultKind, GrantType, OtherOwner, Stage, Strike, Target};
use crate::fields::Fields;
use crate::request_log::StruckBy;
use crate::state::{Shared, State};
use crate::{installed_locations, location, location_token, token};
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Serves a request to the API: processes it and applies the matching fault, if any.
pub(crate) async fn serve(Extract(shared): Extract<Shared>, request: Request) -> Response {
    let in_flight = Arc::clone(&shared.lock().in_flight);
    let _counted = InFlight::count(&in_flight);
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(refusal) => return refusal.into_response(),
    };
    let (entry, fault) = {
        let mut state = shared.lock();
        let now_ms = state.clock.now_ms();
        let entry = state.log.record(&call, now_ms);
        let (target, holder) = target_of(&state, &call);
        let fault = state.faults.strike(&target);
        let struck_by =
            fault.as_ref().map(|strike| StruckBy { id: strike.id, kind: strike.kind.name() });
        state.log.add(entry, target.resource_id.or(holder), struck_by);
        (entry, fault)
    };
    let stall = match &fault {
        Some(Strike { kind: FaultKind::Stall { stage }, gate, .. }) => {
            Some((*stage, Arc::clone(gate)))
        }
        _ => None,
    };
    if let Some((Stage::BeforeProcessing, gate)) = &stall {
        gate.pass().await;
    }
    let (delivery, latency) = {
        let mut state = shared.lock();
        let delivery = match fault {
            None => Delivery::Whole(process(&mut state, &call, None)),
            Some(Strike { kind, .. }) => {
                let answer = kind
                    .processes()
                    .then(|| process(&mut state, &call, kind.other_owner().as_ref()));
                state.log.set_status(entry, answer.as_ref().map_or(0, |answer| answer.status));
                delivery::spoil(kind, answer, &state.url_of(&call))
            }
        };
        if let Delivery::Whole(answer) = &delivery {
            state.log.set_status(entry, answer.status);
        }
        (delivery, state.settings.latency())
    };
    if let Some((Stage::AfterProcessing, gate)) = &stall {
        gate.pass().await;
    }
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match delivery {
        Delivery::Whole(answer) => answer.into_response(),
        Delivery::Scripted(script) => {
            let mut response = Response::default();
            response.extensions_mut().insert(script);
            response
        }
    }
}

/// A request in flight. It is counted until its response is on its way or the client disconnects.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn count(requests: &'a AtomicUsize) -> Self {
        requests.fetch_add(1, Ordering::SeqCst);
        Self(requests)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The endpoint that a request addresses.
fn endpoint_of(call: &Call) -> Option<Endpoint> {
    match (call.method.as_str(), call.path.as_str()) {
        ("POST", "/oauth/token") => Some(Endpoint::Token),
        ("POST", "/oauth/location-token") => Some(Endpoint::LocationToken),
        ("GET", "/oauth/installed-locations") => Some(Endpoint::InstalledLocations),
        ("GET", path) if location_id(path).is_some() => Some(Endpoint::Location),
        _ => None,
    }
}

fn location_id(path: &str) -> Option<&str> {
    path.strip_prefix("/locations/")
        .filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The properties of a request that fault rules match, and the owner of its authorization code,
/// which rules do not match.
fn target_of(state: &State, call: &Call) -> (Target, Option<String>) {
    let endpoint = endpoint_of(call);
    let fields = match endpoint {
        Some(Endpoint::Token) => call.form_or_json(),
        Some(Endpoint::LocationToken) => call.form(),
        _ => Ok(Fields::default()),
    };
    let fields = fields.unwrap_or_default();
    let get = |name: &str| fields.get(name).or_else(|| fields.get(&snake(name)));
    let asked_about = get("locationId").or(location_id(&call.path)).map(str::to_owned);
    let asking = || {
        let refresh_token = get("refreshToken");
        refresh_token
            .and_then(|token| state.tokens.owner_of_refresh_token(token))
            .or_else(|| bearer::authenticate(state, call).ok())
            .map(|grant| grant.resource_id().to_owned())
    };
    let holder = fields.get("code").and_then(|code| state.tokens.owner_of_code(code));
    let holder = holder.map(|grant| grant.resource_id().to_owned());
    let target = Target {
        endpoint,
        grant_type: match get("grantType") {
            Some("authorization_code") => Some(GrantType::AuthorizationCode),
            Some("refresh_token") => Some(GrantType::RefreshToken),
            Some("client_credentials") => Some(GrantType::ClientCredentials),
            _ => None,
        },
        resource_id: asked_about.or_else(asking),
        in_flight: state.in_flight.load(Ordering::SeqCst),
    };
    (target, holder)
}

/// Processes a request.
fn process(state: &mut State, call: &Call, other: Option<&OtherOwner>) -> Answer {
    let Some(endpoint) = endpoint_of(call) else {
        return unknown(call);
    };
    if let Err(refusal) = check_headers(call, endpoint) {
        return refusal;
    }
    if endpoint == Endpoint::Token {
        return either(token::answer(state, call, other));
    }

    let caller = match bearer::authenticate(state, call) {
        Ok(caller) => caller,
        Err(refusal) => return refusal,
    };
    let quota = state.settings.rate_limit.map(|limit| {
        let day = day_of(state.clock.now_ms());
        state.limiter.take(limit, caller.resource_id(), Instant::now(), day)
    });
    let answer = if quota.is_some_and(|quota| !quota.admitted) {
        Answer::refusal(429, "Too Many Requests")
    } else {
        either(match endpoint {
            Endpoint::LocationToken => location_token::answer(state, call, &caller, other),
            Endpoint::InstalledLocations => installed_locations::answer(state, call, &caller),
            _ => {
                location::answer(state, call, &caller, location_id(&call.path).unwrap_or_default())
            }
        })
    };
    let unit = state.settings.behaviour.daily_reset;
    let reset =
        quota.and_then(|quota| quota.daily_reset(unit, state.clock.now_ms(), state.clock_speed()));
    answer.with_headers(quota.iter().flat_map(|quota| quota.headers())).with_headers(reset)
}

fn either(result: Result<Answer, Answer>) -> Answer {
    result.unwrap_or_else(|refusal| refusal)
}

fn check_headers(call: &Call, endpoint: Endpoint) -> Result<(), Answer> {
    match call.only_header("version") {
        Some("v3") => {}
        None => return Err(Answer::refusal(401, "version header was not found.")),
        // A dated version selects v2, which has none of the kebab-case paths.
        Some(version) if is_dated(version) && endpoint != Endpoint::Token => {
            return Err(not_routed(call));
        }
        Some(_) => return Err(Answer::refusal(401, "version header is invalid")),
    }
    let mut accepted = call.header_values("accept").flat_map(|value| value.split(',')).peekable();
    let takes_json = |media_range: &str| {
        let (media_type, _) = media_range.split_once(';').unwrap_or((media_range, ""));
        ["application/json", "application/*", "*/*"]
            .contains(&media_type.trim().to_ascii_lowercase().as_str())
    };
    if accepted.peek().is_some() && !accepted.any(takes_json) {
        return Err(Answer::refusal(406, "Not Acceptable"));
    }
    Ok(())
}

/// A version before v3, such as `2021-07-28`.
fn is_dated(version: &str) -> bool {
    version.len() == 10
        && version.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// A path without an endpoint. The two paths that v3 renamed have error messages of their own.
fn unknown(call: &Call) -> Answer {
    let renamed = match (call.method.as_str(), call.path.as_str()) {
        ("POST", "/oauth/locationToken") => Some("POST /oauth/location-token"),
        ("GET", "/oauth/installedLocations") => Some("GET /oauth/installed-locations"),
        _ => None,
    };
    match renamed {
        Some(successor) if call.only_header("version") == Some("v3") => Answer::json(
            400,
            &serde_json::json!({
                "statusCode": 400,
                "message": format!(
                    "Endpoint {} {} was removed in version v3. Use {successor} instead.",
                    call.method, call.path
                ),
                "error": "Bad Request",
            }),
        ),
        _ => not_routed(call),
    }
}

fn not_routed(call: &Call) -> Answer {
    Answer::refusal(404, &format!("Cannot {} {}", call.method, call.path))
}
