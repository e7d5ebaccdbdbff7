//! Authentication and authorization: the bearer token, its class and its scopes.

use crate::answer::Answer;
use crate::call::Call;
use crate::grant::{Grant, UserType};
use crate::refusal::Refusal;
use crate::state::State;
use crate::tokens::PRIVATE_PREFIX;
use std::sync::Arc;

/// The grant behind the request's access token.
pub(crate) fn authenticate(state: &State, call: &Call) -> Result<Arc<Grant>, Answer> {
    let token = call
        .only_header("authorization")
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token);
    if let Some(token) = token.filter(|token| token.starts_with(PRIVATE_PREFIX)) {
        let known = state.tokens.authenticate_private(token);
        return known.ok_or_else(|| Refusal::PrivateTokenInvalid.answer());
    }
    token
        .and_then(|token| state.tokens.authenticate(token, state.clock.now_ms()))
        .ok_or_else(|| Answer::refusal(401, "Invalid JWT"))
}

/// Accepts only company tokens with this scope.
pub(crate) fn require_company(grant: &Grant, scope: &str) -> Result<(), Answer> {
    if grant.private {
        return Err(Refusal::AuthClassUnsupported.answer());
    }
    if grant.user_type != UserType::Company {
        return Err(Answer::refusal(
            401,
            "This authClass type is not allowed to access this scope. Please use a Company token \
             for this request.",
        ));
    }
    require_scope(grant, scope)
}

pub(crate) fn require_scope(grant: &Grant, scope: &str) -> Result<(), Answer> {
    if grant.has_scope(scope) {
        Ok(())
    } else {
        Err(Answer::refusal(401, "The token is not authorized for this scope."))
    }
}

/// The error response to a token of the right class for a resource of another owner.
pub(crate) fn no_access() -> Answer {
    Answer::refusal(403, "The token does not have access to this location.")
}
