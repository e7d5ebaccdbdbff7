//! `GET /locations/{locationId}`: an ordinary endpoint to try a token on.

use crate::answer::{Answer, trace_id};
use crate::bearer;
use crate::call::Call;
use crate::grant::Grant;
use crate::state::State;
use serde_json::json;

pub(crate) fn answer(
    state: &State,
    call: &Call,
    caller: &Grant,
    location_id: &str,
) -> Result<Answer, Answer> {
    bearer::require_scope(caller, "locations.readonly")?;
    call.without_body()?;
    call.query_fields().map_err(|error| error.answer())?.allow_only(&[])?;
    let location = state
        .directory
        .location(location_id)
        .ok_or_else(|| Answer::not_found("Location", location_id))?;
    let granted = match &caller.location_id {
        Some(own) => own == location_id,
        None => caller.company_id == location.company_id,
    };
    if !granted {
        return Err(bearer::no_access());
    }
    Ok(Answer::json(
        200,
        &json!({
            "location": {
                "_id": location.id,
                "companyId": location.company_id,
                "name": location.name,
                "address": location.address,
            },
            "traceId": trace_id(),
        }),
    ))
}
