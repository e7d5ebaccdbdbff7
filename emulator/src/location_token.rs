//! `POST /oauth/location-token`: mints a location token from its company's token.

use crate::answer::Answer;
use crate::bearer;
use crate::call::Call;
use crate::fault::OtherOwner;
use crate::field_names::NamedFields;
use crate::grant::{Grant, UserType};
use crate::other_owner::grant_to_issue;
use crate::state::State;
use crate::token;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn answer(
    state: &mut State,
    call: &Call,
    caller: &Grant,
    other: Option<&OtherOwner>,
) -> Result<Answer, Answer> {
    bearer::require_company(caller, "oauth.write")?;
    let names = state.settings.behaviour.field_names;
    let fields = NamedFields::read(call.form()?, &["companyId", "locationId"], names)?;
    let company_id = required(&fields, "companyId")?;
    let location_id = required(&fields, "locationId")?;

    let location = state
        .directory
        .location(location_id)
        .filter(|location| location.company_id == company_id && caller.company_id == company_id)
        .filter(|location| location.installed_at_ms.is_some())
        .ok_or_else(bearer::no_access)?;
    if !location.active {
        return Err(state.location_inactive());
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
        private: false,
    };
    let how = state.issue(state.settings.location_refresh_tokens);
    let grant = grant_to_issue(state, Arc::new(grant), other);
    let pair = state.tokens.issue(&state.directory.app, grant, how);

    if pair.grant.user_type == UserType::Company {
        // Another owner's token comes in that owner's own shape.
        return Ok(Answer::json(200, &Value::Object(token::body(state, &pair))));
    }
    // Without `userType` and `companyId`: the client must know them when it stores this token.
    let mut body = token::issued(&state.settings, &pair, how.now_ms);
    body.insert("appId".to_owned(), json!(state.directory.app.id));
    body.insert("versionId".to_owned(), json!(state.directory.app.version_id));
    Ok(Answer::json(200, &Value::Object(body)))
}

fn required<'a>(fields: &'a NamedFields, name: &str) -> Result<&'a str, Answer> {
    let written = fields.written(name);
    match fields.get(name) {
        Some("") => Err(Answer::unprocessable(&[format!("{written} should not be empty")])),
        Some(value) => Ok(value),
        None => Err(Answer::unprocessable(&[
            format!("{written} should not be empty"),
            format!("{written} must be a string"),
        ])),
    }
}

/// The real server adds these two scopes to every minted token, whether requested or not.
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
