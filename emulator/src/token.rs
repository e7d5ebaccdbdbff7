//! `POST /oauth/token`: the grants authorization code, refresh token and client credentials.

use crate::answer::{Answer, trace_id};
use crate::call::Call;
use crate::fault::OtherOwner;
use crate::field_names::NamedFields;
use crate::grant::{Grant, UserType};
use crate::options::{ExpiresIn, Settings};
use crate::other_owner::grant_to_issue;
use crate::refusal::Refusal;
use crate::state::State;
use crate::tokens::{CodeRefusal, Pair, RefreshTokenState};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const FIELDS: [&str; 7] =
    ["clientId", "clientSecret", "grantType", "code", "refreshToken", "userType", "redirectUri"];

pub(crate) fn answer(
    state: &mut State,
    call: &Call,
    other: Option<&OtherOwner>,
) -> Result<Answer, Answer> {
    let names = state.settings.behaviour.field_names;
    let fields = NamedFields::read(call.form_or_json()?, &FIELDS, names)?;
    let client_id = required(&fields, "clientId")?;
    let client_secret = required(&fields, "clientSecret")?;
    let grant_type = required(&fields, "grantType")?;
    let user_type = match fields.get("userType") {
        None => None,
        Some("Company") => Some(UserType::Company),
        Some("Location") => Some(UserType::Location),
        Some(_) => return Err(Answer::invalid_parameter(&fields.written("userType"))),
    };
    if !["authorization_code", "refresh_token", "client_credentials"].contains(&grant_type) {
        return Err(Answer::invalid_parameter(&fields.written("grantType")));
    }
    let app = &state.directory.app;
    if client_id != app.client_id || client_secret != app.client_secret {
        return Err(if state.settings.behaviour.name_wrong_credentials {
            Refusal::ClientCredentialsInvalid.answer()
        } else {
            Answer::code_not_found()
        });
    }
    let pair = match grant_type {
        "authorization_code" => redeem(state, &fields, other)?,
        "refresh_token" => refresh(state, &fields, user_type, other)?,
        _ => client_credentials(state, user_type)?,
    };
    Ok(Answer::json(200, &Value::Object(body(state, &pair))))
}

/// An empty value counts as missing, as in the vendor's OAuth server.
fn required<'a>(fields: &'a NamedFields, name: &str) -> Result<&'a str, Answer> {
    fields
        .get(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Answer::missing_parameter(&fields.written(name)))
}

/// `userType` is only a hint: the class of the token follows the installation.
fn redeem(
    state: &mut State,
    fields: &NamedFields,
    other: Option<&OtherOwner>,
) -> Result<Pair, Answer> {
    let code = required(fields, "code")?;
    let now_ms = state.clock.now_ms();
    let grant =
        state.tokens.redeem_code(code, fields.get("redirectUri"), now_ms).map_err(|refusal| {
            match refusal {
                CodeRefusal::Unknown => Answer::code_not_found(),
                CodeRefusal::RedirectUriDiffers => {
                    Answer::invalid_parameter(&fields.written("redirectUri"))
                }
            }
        })?;
    let grant = grant_to_issue(state, grant, other);
    let how = state.issue(true);
    Ok(state.tokens.issue(&state.directory.app, grant, how))
}

fn refresh(
    state: &mut State,
    fields: &NamedFields,
    user_type: Option<UserType>,
    other: Option<&OtherOwner>,
) -> Result<Pair, Answer> {
    let token = required(fields, "refreshToken")?;
    let window_seconds = state.settings.reuse_window_seconds;
    let window_ms = i64::try_from(window_seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let standing =
        state.tokens.refresh_token_state(token, state.clock.now_ms(), state.scaled_ms(window_ms));
    let Some(grant) = standing.grant() else {
        return Err(Answer::refusal(400, "Invalid grant: refresh token is invalid"));
    };
    if user_type.is_some_and(|wanted| wanted != grant.user_type) {
        return Err(Answer::refusal(401, "Token's user type mismatch!"));
    }
    if !is_active(state, grant) {
        return Err(state.location_inactive());
    }
    Ok(match standing {
        RefreshTokenState::JustSpent(pair) => pair,
        RefreshTokenState::Fresh(grant) => {
            let grant = grant_to_issue(state, grant, other);
            let how = state.issue(true);
            state.tokens.rotate(&state.directory.app, token, grant, how)
        }
        RefreshTokenState::Invalid => unreachable!("it has a grant"),
    })
}

fn is_active(state: &State, grant: &Grant) -> bool {
    let location = grant.location_id.as_deref().and_then(|id| state.directory.location(id));
    location.is_none_or(|location| location.active)
}

/// The app's own token: a company token without a refresh token. It needs no consent and uses up no
/// token.
fn client_credentials(state: &mut State, user_type: Option<UserType>) -> Result<Pair, Answer> {
    if user_type == Some(UserType::Location) {
        return Err(Answer::refusal(401, "This token's user type is not yet supported!"));
    }
    let company = &state.directory.companies[0];
    let grant = Grant {
        user_type: UserType::Company,
        company_id: company.id.clone(),
        location_id: None,
        scope: state.directory.app.scopes.join(" "),
        user_id: company.user_id.clone(),
        plan_id: None,
        approved_locations: None,
        install_to_future_locations: company.install_to_future_locations,
        private: false,
    };
    let how = state.issue(false);
    Ok(state.tokens.issue(&state.directory.app, Arc::new(grant), how))
}

/// A whole response, which says whose token it is.
pub(crate) fn body(state: &State, pair: &Pair) -> Map<String, Value> {
    let grant = &pair.grant;
    let mut body = issued(&state.settings, pair, state.clock.now_ms());
    body.insert("userType".to_owned(), json!(grant.user_type));
    body.insert("companyId".to_owned(), json!(grant.company_id));
    body.insert("isBulkInstallation".to_owned(), json!(grant.user_type == UserType::Company));
    if grant.user_type == UserType::Company {
        body.insert(
            "installToFutureLocations".to_owned(),
            json!(grant.install_to_future_locations),
        );
        body.insert("approveAllLocations".to_owned(), json!(grant.approved_locations.is_none()));
        if let Some(approved) = &grant.approved_locations {
            body.insert("approvedLocations".to_owned(), json!(approved));
        }
    }
    body
}

/// The fields that every token response has.
pub(crate) fn issued(settings: &Settings, pair: &Pair, now_ms: i64) -> Map<String, Value> {
    let grant = &pair.grant;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("accessToken", json!(&*pair.access_token));
    put("tokenType", json!("Bearer"));
    match &settings.expires_in {
        ExpiresIn::Truth => {
            // Rounded up, so that a token issued within this second has its full lifetime left.
            let left_ms = pair.access_expires_at_ms.saturating_sub(now_ms);
            put("expiresIn", json!(left_ms.saturating_add(999).div_euclid(1_000)));
        }
        ExpiresIn::Absent => {}
        ExpiresIn::Value(value) => {
            put("expiresIn", value.clone());
        }
    }
    if let Some(refresh) = &pair.refresh {
        put("refreshToken", json!(&*refresh.token));
        put("refreshTokenId", json!(refresh.id));
    }
    put("scope", json!(grant.scope));
    put("userId", json!(grant.user_id));
    if let Some(location_id) = &grant.location_id {
        put("locationId", json!(location_id));
    }
    if let Some(plan_id) = &grant.plan_id {
        put("planId", json!(plan_id));
    }
    put("traceId", json!(trace_id()));
    body
}
