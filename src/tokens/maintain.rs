//! One pass over what is due, for the host's scheduler: so that a refresh that fails leaves hours to try again.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tokens, Want, valid_id};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::store::{Record, Standing};
use crate::token::USUAL_LIFE_MS;

/// How many due records are looked up at a time.
const PAGE: usize = 100;

/// What is maintained.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaintainParams {
    /// Only this company and its locations. Default: all.
    pub company_id: Option<String>,
}

/// Told how far the work is; answers whether to go on.
pub type Progress<'a> = &'a dyn Fn(&Value) -> bool;

impl Tokens {
    /// Renews every token of which less than the runway is left, takes up refreshes whose end is unknown, offers to the
    /// store what it did not take, mints for the locations whose INSTALL came when that could not be done, and seals anew
    /// what another key than the first sealed, or none. One failure does not stop the rest.
    ///
    /// `deadline` gives each renewal its own time; the pass as a whole ends when all is done or cancelled.
    ///
    /// # Errors
    /// `CANCELLED`, also when `progress` ends it; `STORE` when the store cannot be read. What was renewed by then is
    /// saved.
    pub fn maintain(
        &self,
        params: &MaintainParams,
        progress: Progress,
        deadline: impl Fn() -> Deadline,
    ) -> Result<Value> {
        if let Some(company_id) = &params.company_id {
            valid_id("companyId", company_id)?;
        }
        let whole = deadline();
        let mut failed: Vec<Value> = Vec::new();
        for resource_id in self.unsaved_ids() {
            if let Err(error) = self.offer_again(&resource_id) {
                failed.push(failure(&resource_id, &error));
            }
        }
        let (company_id, renew_by) = (params.company_id.as_deref(), self.clock.wall_ms());
        let (mut checked, mut refreshed) = (0_u64, 0_u64);
        let mut after = None;
        loop {
            let page = self.store.due(company_id, renew_by, after.as_deref(), PAGE)?;
            for resource_id in page.resource_ids {
                if whole.is_cancelled() {
                    return Err(stopped("the call was cancelled"));
                }
                checked += 1;
                match self.renewed(&resource_id, Want::Runway, None, &deadline()) {
                    Ok(_) => refreshed += 1,
                    Err(error) => failed.push(failure(&resource_id, &error.with_resource(&resource_id))),
                }
                let so_far = json!({"checked": checked, "refreshed": refreshed, "failed": failed.len()});
                if !progress(&so_far) {
                    return Err(stopped("the progress callback ended the work"));
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.mint_remembered(company_id, &deadline, |location_id, outcome| {
            checked += 1;
            match outcome {
                Ok(()) => refreshed += 1,
                Err(error) => failed.push(failure(location_id, &error.with_resource(location_id))),
            }
            if whole.is_cancelled() {
                return Err(stopped("the call was cancelled"));
            }
            let so_far = json!({"checked": checked, "refreshed": refreshed, "failed": failed.len()});
            if progress(&so_far) { Ok(true) } else { Err(stopped("the progress callback ended the work")) }
        })?;
        let resealed = self.store.reseal(&|sealed| {
            let so_far = json!({
                "checked": checked, "refreshed": refreshed, "failed": failed.len(), "resealed": sealed,
            });
            !whole.is_cancelled() && (sealed == 0 || progress(&so_far))
        })?;
        for error in &resealed.unreadable {
            failed.push(failure(error.resource_id().unwrap_or_default(), error));
        }
        let next_due_at = self.store.next_renewal(company_id)?.filter(|at| *at != i64::MAX);
        Ok(json!({
            "checked": checked,
            "refreshed": refreshed,
            "resealed": resealed.sealed,
            "failed": failed,
            "nextDueAt": next_due_at,
        }))
    }

    /// When maintenance should renew a token: as soon as less than its runway is left, at once where the end of a
    /// refresh is unknown, never where only a person can help.
    pub(super) fn renewal(&self, record: &Record) -> i64 {
        let token = &record.token;
        match record.standing {
            Standing::ReauthorizationRequired { .. } => i64::MAX,
            _ if !record.is_refreshable() => i64::MAX,
            Standing::Inactive { since_ms } => since_ms.saturating_add(super::refresh::INACTIVE_HOLD_MS),
            Standing::Good if record.intent.is_some() => self.clock.wall_ms(),
            Standing::Good => {
                let life = token
                    .life()
                    .map_or(USUAL_LIFE_MS, |life| i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
                let runway = life / 100 * i64::from(self.policy.runway_percent);
                let margin =
                    i64::try_from(token.margin(self.policy.margin()).as_millis()).unwrap_or(i64::MAX);
                token.expires_at.saturating_sub(runway.max(margin))
            }
        }
    }
}

pub(super) fn failure(resource_id: &str, error: &Error) -> Value {
    json!({"resourceId": resource_id, "error": error.to_json()["error"]})
}

pub(super) fn stopped(why: &str) -> Error {
    Error::new(Status::Cancelled, why).with_help("what was renewed is saved; call again for the rest")
}
