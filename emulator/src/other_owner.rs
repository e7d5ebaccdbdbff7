//! A fault that issues another owner's token: a refresh or mint for a location returns its
//! company's token.

use crate::fault::OtherOwner;
use crate::grant::Grant;
use crate::state::State;
use std::sync::Arc;

/// The grant to issue a token for: the right owner's, or another owner's if the fault applies.
pub(crate) fn grant_to_issue(
    state: &State,
    asked: Arc<Grant>,
    other: Option<&OtherOwner>,
) -> Arc<Grant> {
    let Some(other) = other else {
        return asked;
    };
    let chosen = other.owner_id.as_deref().and_then(|id| state.grant_of_owner(id));
    let chosen = chosen.or_else(|| state.grant_of_owner(&asked.company_id));
    chosen.map_or_else(
        || Arc::clone(&asked),
        |grant| {
            Arc::new(Grant { scope: asked.scope.clone(), user_id: asked.user_id.clone(), ..grant })
        },
    )
}
