//! `POST /oauth/location-token`: a location's token from its company's.

use crate::answer::Answer;
use crate::bearer;
use crate::call::Call;
use crate::fields::Fields;
use crate::state::State;
use crate::token;
use crate::tokens::{Grant, UserType};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn answer(state: &mut State, call: &Call, caller: &Grant) -> Result<Answer, Answer> {
    bearer::require_company(caller, "oauth.write")?;
    let fields = call.form()?;
    fields.allow_only(&["companyId", "locationId"])?;
    let company_id = required(&fields, "companyId")?;
    let location_id = required(&fields, "locationId")?;

    let location = state
        .directory
        .location(location_id)
        .filter(|location| location.company_id == company_id && caller.company_id == company_id)
        .filter(|location| location.installed_at_ms.is_some())
        .ok_or_else(bearer::no_access)?;
    if !location.active {
        return Err(Answer::refusal(400, "Location is not active"));
    }
    let grant = Grant {
        user_type: UserType::Location,
        company_id: company_id.to_owned(),
        location_id: Some(location_id.to_owned()),
        scope: minted_scope(&caller.scope),
        user_id: caller.user_id.clone(),
        plan_id: Some(location.plan_id.clone()),
        approved_locations: None,
        install_to_future_locations: false,
    };
    let how = state.issue(state.settings.location_refresh_tokens);
    let pair = state.tokens.issue(&state.directory.app, Arc::new(grant), how);

    // Neither `userType` nor `companyId`: whoever stores this token has to know them.
    let mut body = token::issued(&state.settings, &pair, how.now_ms);
    body.insert("appId".to_owned(), json!(state.directory.app.id));
    body.insert("versionId".to_owned(), json!(state.directory.app.version_id));
    Ok(Answer::json(200, &Value::Object(body)))
}

fn required<'a>(fields: &'a Fields, name: &str) -> Result<&'a str, Answer> {
    match fields.get(name) {
        Some("") => Err(Answer::unprocessable(&[format!("{name} should not be empty")])),
        Some(value) => Ok(value),
        None => Err(Answer::unprocessable(&[
            format!("{name} should not be empty"),
            format!("{name} must be a string"),
        ])),
    }
}

/// The real server adds these two to every minted token, asked for or not.
fn minted_scope(company_scope: &str) -> String {
    let mut scopes: Vec<_> = company_scope.split(' ').collect();
    for extra in ["oauth.readonly", "oauth.write"] {
        if !scopes.contains(&extra) {
            scopes.push(extra);
        }
    }
    scopes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::minted_scope;

    #[test]
    fn minting_adds_the_oauth_scopes_once() {
        assert_eq!(
            minted_scope("contacts.readonly oauth.write"),
            "contacts.readonly oauth.write oauth.readonly"
        );
        assert_eq!(minted_scope("oauth.readonly oauth.write"), "oauth.readonly oauth.write");
    }
}
