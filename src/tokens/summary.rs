//! Totals over all records of the store, for metrics: one scan in pages, which reads only the store
//! and so gives every process the same result.

use super::Tokens;
use crate::deadline::Deadline;
use crate::error::{Result, Status};
use crate::store::{Query, Record, Standing};
use crate::token::NEVER;

/// Records per page.
const PAGE: usize = 1000;

/// Totals of the stored tokens. Times are in milliseconds relative to the scan: negative if past.
#[derive(Debug, Default)]
pub struct Summary {
    pub ok: u64,
    pub inactive: u64,
    pub reauthorization_required: u64,
    /// Records that cannot be read: damaged, or encrypted with a key that is not configured.
    pub unreadable: u64,
    /// Tokens whose last renewal failed, in the order of [`Status::ALL`].
    failing: [u64; Status::ALL.len()],
    /// The same with a status that this version does not know.
    pub failing_otherwise: u64,
    /// Usable tokens whose access token has expired. The next call renews each of them if possible.
    pub expired: u64,
    /// The earliest expiry of a usable access token that has not expired.
    pub next_expiry_in: Option<i64>,
    /// The earliest expiry of a usable access token, expired or not.
    pub earliest_expiry_in: Option<i64>,
    /// The same among tokens whose last renewal failed.
    pub failing_expiry_in: Option<i64>,
    /// When the API last granted a token, in milliseconds since the epoch.
    pub last_success_at: Option<i64>,
    /// The earliest time at which maintenance should have renewed, or should renew, a token
    /// that does not fail.
    pub renewal_due_in: Option<i64>,
}

impl Tokens {
    /// Adds up the stored records; unsaved copies of this process are not counted.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn summary(&self, deadline: &Deadline) -> Result<Summary> {
        let mut summary = Summary::default();
        let mut query = Query { limit: PAGE, ..Query::default() };
        loop {
            deadline.check()?;
            let page = self.records.store().list(&query, deadline)?;
            let now = self.clock.wall_ms();
            for record in &page.records {
                summary.add(record, now);
            }
            summary.unreadable += page.unreadable.len() as u64;
            if page.next.is_none() {
                return Ok(summary);
            }
            query.after = page.next;
        }
    }
}

impl Summary {
    /// The number of tokens whose last renewal failed with each status.
    pub fn failing(&self) -> impl Iterator<Item = (Status, u64)> {
        Status::ALL.into_iter().zip(self.failing)
    }

    fn add(&mut self, record: &Record, now: i64) {
        match record.standing {
            Standing::Good => self.ok += 1,
            Standing::Inactive { .. } => self.inactive += 1,
            Standing::ReauthorizationRequired { .. } => self.reauthorization_required += 1,
        }
        if let Some(failure) = &record.last_failure {
            match Status::ALL.iter().position(|status| status.name() == failure.status) {
                Some(position) => self.failing[position] += 1,
                None => self.failing_otherwise += 1,
            }
        } else if record.renew_at < i64::MAX {
            earliest(&mut self.renewal_due_in, record.renew_at.saturating_sub(now));
        }
        self.last_success_at = self.last_success_at.max(record.token.issued_at);
        let expires_at = record.token.expires_at;
        if record.standing == Standing::Good && expires_at < NEVER {
            let left = expires_at.saturating_sub(now);
            earliest(&mut self.earliest_expiry_in, left);
            if record.last_failure.is_some() {
                earliest(&mut self.failing_expiry_in, left);
            }
            if left > 0 {
                earliest(&mut self.next_expiry_in, left);
            } else {
                self.expired += 1;
            }
        }
    }
}

fn earliest(known: &mut Option<i64>, other: i64) {
    *known = Some(known.map_or(other, |known| known.min(other)));
}
