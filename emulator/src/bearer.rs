//! Who is calling: the bearer token, its class and its scopes.

use crate::answer::Answer;
use crate::call::Call;
use crate::state::State;
use crate::tokens::{Grant, UserType};
use std::sync::Arc;

/// The grant behind the request's access token.
pub(crate) fn authenticate(state: &State, call: &Call) -> Result<Arc<Grant>, Answer> {
    call.only_header("authorization")
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, token)| state.tokens.authenticate(token, state.clock.now_ms()))
        .ok_or_else(|| Answer::refusal(401, "Invalid JWT"))
}

/// Lets only companies' tokens with this scope pass.
pub(crate) fn require_company(grant: &Grant, scope: &str) -> Result<(), Answer> {
    if grant.user_type != UserType::Company {
        return Err(Answer::refusal(
            401,
            "This authClass type is not allowed to access this scope. Please use a Company token for this request.",
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

/// The refusal of a token that has the right class but belongs elsewhere.
pub(crate) fn no_access() -> Answer {
    Answer::refusal(403, "The token does not have access to this location.")
}
