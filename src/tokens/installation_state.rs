//! Installation state from webhooks: the latest event by timestamp wins, so deliveries may be
//! repeated or out of order. The last state of each company and location is stored as a note.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::store::{Note, Record, Standing, Store};

/// Retention of UNINSTALLs and delivery IDs. The vendor repeats a delivery for two hours.
pub const DELIVERY_RETENTION_MS: i64 = 7 * 86_400_000;

/// The list of pending INSTALLs: their locations still need a token.
pub const UNMINTED: &str = "unminted";

const KEY: &str = "installation/";

/// INSTALLs that are no further apart belong to the same installation: a consent and the webhooks
/// that follow it.
const SAME_INSTALLATION_MS: i64 = 1_000;

/// Notes per page.
const PAGE: usize = 100;

/// The last known state of a company or location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallationState {
    /// The time of the event, in milliseconds since the epoch.
    pub at_ms: i64,
    pub installed: bool,
    pub company_id: Option<String>,
}

/// The stored installation states.
pub struct Installations {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Installations {
    /// The states in `store`.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Installations {
        Installations { store, clock }
    }

    /// Saves a state unless a later one is known, and returns the later of the two.
    pub fn update(
        &self,
        resource_id: &str,
        mut state: InstallationState,
        deadline: &Deadline,
    ) -> Result<InstallationState> {
        self.change(resource_id, deadline, |last, note| {
            if let Some(last) = last {
                if !state.is_newer_than(&last) {
                    return Err(last);
                }
                // An automatic INSTALL may omit the company that an earlier one named.
                state.company_id = state.company_id.take().or(last.company_id);
            }
            // A company waits for no mint.
            let is_company = state.company_id.as_deref() == Some(resource_id);
            let waits = state.installed && !is_company;
            note.list = if waits { UNMINTED.into() } else { String::new() };
            note.expires_at = if state.installed {
                i64::MAX
            } else {
                self.clock.wall_ms().saturating_add(DELIVERY_RETENTION_MS)
            };
            Ok(state.clone())
        })
    }

    /// Moves an installed location to a list, or off all lists if `list` is empty.
    pub fn set_list(&self, location_id: &str, list: &str, deadline: &Deadline) -> Result<()> {
        self.change(location_id, deadline, |last, note| match last {
            Some(last) if last.installed && note.list != list => {
                note.list = list.into();
                Ok(last)
            }
            // Nothing to change; the caller ignores the state.
            last => Err(last.unwrap_or(InstallationState {
                at_ms: 0,
                installed: false,
                company_id: None,
            })),
        })
        .map(drop)
    }

    /// Changes a stored state with compare-and-swap. `change` gets the last state and returns the
    /// new one, or `Err` with the state to leave in force. It is called again after a conflict.
    fn change(
        &self,
        resource_id: &str,
        deadline: &Deadline,
        mut change: impl FnMut(
            Option<InstallationState>,
            &mut Note,
        ) -> Result<InstallationState, InstallationState>,
    ) -> Result<InstallationState> {
        for _ in 0..10 {
            let stored = self.store.note(&key(resource_id), deadline)?;
            let last = stored.as_ref().and_then(|note| self.read(note));
            let mut note = stored.unwrap_or_else(|| Note {
                key: key(resource_id),
                version: 0,
                list: String::new(),
                document: Value::Null,
                expires_at: i64::MAX,
            });
            let state = match change(last, &mut note) {
                Ok(state) => state,
                Err(last) => return Ok(last),
            };
            note.document = serde_json::to_value(&state).unwrap_or_default();
            match self.store.save_note(&note, deadline) {
                Err(error) if error.status() == Status::Conflict => {}
                saved => {
                    return saved.map(|()| state).map_err(|error| error.with_resource(resource_id));
                }
            }
        }
        Err(Error::new(
            Status::Store,
            "the installation state was changed by other writers at every attempt to save it",
        )
        .with_resource(resource_id))
    }

    /// The last known state of a company or location, unless it has expired.
    pub fn last(
        &self,
        resource_id: &str,
        deadline: &Deadline,
    ) -> Result<Option<InstallationState>> {
        Ok(self.store.note(&key(resource_id), deadline)?.and_then(|note| self.read(&note)))
    }

    /// Whether the app was installed again on a location after its token was refused.
    pub fn is_after_refusal(&self, record: &Record, deadline: &Deadline) -> bool {
        let Standing::ReauthorizationRequired { since_ms, .. } = record.standing else {
            return false;
        };
        let last = self.last(&record.resource_id, deadline).ok().flatten();
        last.is_some_and(|last| last.installed && last.at_ms > since_ms)
    }

    /// When the installation of a newly minted token began: at the last INSTALL, if it is newer
    /// than the record's installation.
    pub fn begin_of_mint(
        &self,
        location_id: &str,
        held: Option<&Record>,
        minted_at: i64,
        deadline: &Deadline,
    ) -> i64 {
        let installed =
            self.last(location_id, deadline).ok().flatten().filter(|state| state.installed);
        match (installed, held) {
            (Some(state), Some(held)) if !state.begins_after(held) => held.installed_at(),
            (Some(state), _) => state.at_ms.min(minted_at),
            (None, Some(held)) => held.installed_at(),
            (None, None) => minted_at,
        }
    }

    /// When a mint from now on begins at the earliest: after the last known UNINSTALL of its
    /// company, whose sender's clock may be ahead. If the store fails, that UNINSTALL is compared
    /// with the mint when its token is saved.
    pub fn earliest_mint(&self, company_id: &str, deadline: &Deadline) -> i64 {
        let last = self.last(company_id, deadline).ok().flatten();
        last.filter(|last| !last.installed)
            .map_or(i64::MIN, |uninstalled| uninstalled.at_ms.saturating_add(1))
    }

    /// The state in a note, unless it has expired.
    fn read(&self, note: &Note) -> Option<InstallationState> {
        let lasts = note.expires_at > self.clock.wall_ms();
        serde_json::from_value(note.document.clone()).ok().filter(|_| lasts)
    }

    /// Calls `work` for every pending INSTALL until it returns false.
    pub fn for_each_unminted(
        &self,
        deadline: &dyn Fn() -> Deadline,
        mut work: impl FnMut(&str, InstallationState) -> Result<bool>,
    ) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.store.notes(UNMINTED, after.as_deref(), PAGE, &deadline())?;
            for note in &page.notes {
                if let (Some(location_id), Some(installation)) =
                    (note.key.strip_prefix(KEY), self.read(note))
                    && !work(location_id, installation)?
                {
                    return Ok(());
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }
}

impl InstallationState {
    /// Whether this is an UNINSTALL later than `at_ms`.
    pub fn uninstalled_after(&self, at_ms: i64) -> bool {
        !self.installed && self.at_ms > at_ms
    }

    /// Whether this INSTALL belongs to a later installation than the record.
    pub fn begins_after(&self, record: &Record) -> bool {
        self.at_ms > record.installed_at().saturating_add(SAME_INSTALLATION_MS)
    }

    /// Whether the record's token may be dead after this INSTALL: the installation is later, or the
    /// company is another.
    pub fn requires_mint(&self, record: &Record) -> bool {
        self.begins_after(record)
            || (self.names_another_company(record) && self.at_ms >= record.installed_at())
    }

    /// Whether this INSTALL names another company than the record.
    pub fn names_another_company(&self, record: &Record) -> bool {
        let held = record.token.company_id.as_ref();
        self.company_id.as_ref().zip(held).is_some_and(|(named, held)| named != held)
    }

    /// Whether this state is later. At the same time INSTALL wins in either order: the API rejects
    /// a token minted in error, but a token deleted in error is lost.
    fn is_newer_than(&self, other: &InstallationState) -> bool {
        (self.at_ms, self.installed) > (other.at_ms, other.installed)
    }
}

fn key(resource_id: &str) -> String {
    format!("{KEY}{resource_id}")
}
