//! Where the app is installed, as the vendor's webhooks tell: in any order, more than once, and before the company's
//! token is here. What was last said of each place is written down, so that an older word never undoes a newer one.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Tokens, Want};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::event::Event;
use crate::outbox;
use crate::store::{Note, Query, Record, Standing};

/// How long an UNINSTALL and a delivery's id are remembered. The vendor repeats a delivery for two hours.
pub const REMEMBERED_MS: i64 = 7 * 86_400_000;

/// The list of the locations whose INSTALL waits for a token.
const UNMINTED: &str = "unminted";

const KEY: &str = "installation/";

/// How many records or notes are read at a time.
const PAGE: usize = 100;

/// How many remembered locations are minted for within the call that brings their company's token; maintenance, or the
/// first use, does the rest.
const MOST_AT_ONCE: usize = 10;

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it was the newest word on its company or location.
    pub applied: bool,
    /// Why not, or what is still to come.
    pub reason: Option<&'static str>,
}

impl Verdict {
    /// A delivery that changes nothing.
    pub const fn ignored(reason: &'static str) -> Verdict {
        Verdict { applied: false, reason: Some(reason) }
    }
}

/// The last word on a company or location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Installation {
    /// When it was said, in milliseconds since the epoch.
    at_ms: i64,
    installed: bool,
    company_id: Option<String>,
}

/// What became of a token that should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Deleted,
    Newer,
    NotHeld,
}

impl Tokens {
    /// The app was installed on a location: its token is minted now, if its company's token is here. Else, and where that
    /// fails, the location is remembered.
    ///
    /// # Errors
    /// `STORE`.
    pub fn location_installed(
        &self,
        location_id: &str,
        company_id: Option<&str>,
        at_ms: i64,
        deadline: &Deadline,
    ) -> Result<Verdict> {
        let company_id = company_id.map(str::to_owned);
        let last = self.write_down(location_id, Installation { at_ms, installed: true, company_id })?;
        if !last.installed {
            return Ok(Verdict::ignored("a later UNINSTALL was applied"));
        }
        // Looked at after the note is written, as the company's UNINSTALL looks for notes after its own: of two that come
        // at once, one sees the other.
        if let Some(company_id) = &last.company_id
            && let Some(company) = self.last_word(company_id)?.filter(|company| company.outdates(last.at_ms))
        {
            self.write_down(location_id, company)?;
            return Ok(Verdict::ignored("a later UNINSTALL of its company was applied"));
        }
        Ok(Verdict { applied: true, reason: self.mint_installed(location_id, deadline)? })
    }

    /// The app was taken off a location: its token is deleted, unless it is newer than that.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`.
    pub fn location_uninstalled(
        &self,
        location_id: &str,
        at_ms: i64,
        deadline: &Deadline,
    ) -> Result<Verdict> {
        let last =
            self.write_down(location_id, Installation { at_ms, installed: false, company_id: None })?;
        if last.installed {
            // Installed anew: a token of the earlier time ends all the same, and a new one is due.
            self.put_on_list(location_id, UNMINTED)?;
        }
        let end = self.end(location_id, at_ms, deadline)?;
        let pending = if last.installed { self.mint_installed(location_id, deadline)? } else { None };
        Ok(match end {
            End::Deleted => Verdict { applied: true, reason: pending },
            End::Newer => Verdict::ignored("the token is newer"),
            End::NotHeld if last.installed => Verdict::ignored("a later INSTALL was applied"),
            End::NotHeld => Verdict { applied: true, reason: Some("no token was held") },
        })
    }

    /// The app was taken off a company: its token and those of its locations are deleted, and their INSTALLs forgotten,
    /// unless they are newer than that.
    ///
    /// # Errors
    /// `STORE`, `TIMEOUT`, `CANCELLED`: then some are deleted already, and the repetition deletes the rest.
    pub fn company_uninstalled(&self, company_id: &str, at_ms: i64, deadline: &Deadline) -> Result<Verdict> {
        self.write_down(company_id, Installation { at_ms, installed: false, company_id: None })?;
        // The company first: without its token none of its locations gets a new one meanwhile.
        let company = self.end(company_id, at_ms, deadline)?;
        let mut deleted = company == End::Deleted;
        let mut query = Query { company_id: Some(company_id.to_owned()), limit: PAGE, ..Query::default() };
        loop {
            let page = self.store.list(&query)?;
            for record in page.records {
                deleted |= self.end_of_company(&record, at_ms, deadline)?;
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        let unsaved: Vec<Record> = self.unsaved().values().cloned().collect();
        for record in unsaved.iter().filter(|record| record.token.company_id.as_deref() == Some(company_id)) {
            deleted |= self.end_of_company(record, at_ms, deadline)?;
        }
        self.each_unminted(|location_id, installation| {
            if installation.company_id.as_deref() == Some(company_id) {
                self.write_down(location_id, Installation { at_ms, installed: false, company_id: None })?;
            }
            Ok(true)
        })?;
        Ok(match (deleted, company) {
            (true, _) => Verdict { applied: true, reason: None },
            (false, End::Newer) => Verdict::ignored("the token is newer"),
            (false, _) => Verdict { applied: true, reason: Some("no token was held") },
        })
    }

    /// A company's token is here: mints for a few of the locations that waited for it. What fails is left to
    /// maintenance.
    pub(super) fn mint_the_waiting(&self, company_id: &str, deadline: &Deadline) {
        let mut minted = 0;
        let told = self.mint_remembered(Some(company_id), &|| deadline.clone(), |location_id, outcome| {
            minted += 1;
            if let Err(error) = &outcome {
                log::warn!("{location_id}: its INSTALL is remembered, and no token could be minted: {error}");
            }
            Ok(outcome.is_ok() && minted < MOST_AT_ONCE)
        });
        if let Err(error) = told {
            log::warn!("{company_id}: its remembered INSTALLs could not be looked at: {error}");
        }
    }

    /// Mints for the locations that were installed before they could be minted for, of a company or of all. `each` hears
    /// of every attempt, and answers whether to go on.
    pub(super) fn mint_remembered(
        &self,
        company_id: Option<&str>,
        deadline: &dyn Fn() -> Deadline,
        mut each: impl FnMut(&str, Result<()>) -> Result<bool>,
    ) -> Result<()> {
        self.each_unminted(|location_id, _| {
            if self.holds_good(location_id)? {
                self.put_on_list(location_id, "")?;
                return Ok(true);
            }
            match self.minting_company(location_id)? {
                Some(minting) if company_id.is_none_or(|company_id| company_id == minting) => {
                    each(location_id, self.mint_waiting(location_id, &deadline()))
                }
                _ => Ok(true),
            }
        })
    }

    /// Whether the app was installed on a location after its token was refused.
    pub(super) fn has_newer_installation(&self, record: &Record) -> bool {
        let Standing::ReauthorizationRequired { since_ms, .. } = record.standing else {
            return false;
        };
        let last = self.last_word(&record.resource_id).ok().flatten();
        last.is_some_and(|last| last.installed && last.at_ms > since_ms)
    }

    /// The company that an INSTALL named for a location.
    pub(super) fn installed_under(&self, location_id: &str) -> Result<Option<String>> {
        Ok(self.last_word(location_id)?.filter(|last| last.installed).and_then(|last| last.company_id))
    }

    /// Mints for a location that was just installed. Answers why there is no token yet, where there is none.
    fn mint_installed(&self, location_id: &str, deadline: &Deadline) -> Result<Option<&'static str>> {
        if self.holds_good(location_id)? {
            self.put_on_list(location_id, "")?;
            return Ok(None);
        }
        if self.minting_company(location_id)?.is_none() {
            return Ok(Some("remembered until its company's token is here"));
        }
        match self.mint_waiting(location_id, deadline) {
            Ok(()) => Ok(None),
            Err(error) => {
                log::warn!("{location_id}: installed, but no token could be minted: {error}");
                Ok(Some("remembered, since no token could be minted yet"))
            }
        }
    }

    /// Mints, and takes the location off the list of those that wait, where it was minted or the API refuses for good.
    fn mint_waiting(&self, location_id: &str, deadline: &Deadline) -> Result<()> {
        // A token that the API refused is not asked for again, though its time is not over.
        let refused = self.record(location_id)?.map(|record| record.token.access_token.clone());
        let want = if refused.is_some() { Want::Another } else { Want::Fresh };
        if refused.is_none() {
            // What this process still has in memory was deleted by another one.
            self.live.forget(location_id);
        }
        let minted = self.renewed(location_id, want, refused.as_ref(), deadline);
        let for_good = |error: &Error| matches!(error.status(), Status::Forbidden | Status::InvalidRequest);
        if minted.as_ref().err().is_none_or(for_good) {
            self.put_on_list(location_id, "")?;
        }
        minted.map(drop)
    }

    fn holds_good(&self, resource_id: &str) -> Result<bool> {
        Ok(self.record(resource_id)?.is_some_and(|record| record.standing == Standing::Good))
    }

    /// The company whose token is here and can mint for a location.
    fn minting_company(&self, location_id: &str) -> Result<Option<String>> {
        let company_id = match self.company_of(location_id, self.record(location_id)?.as_ref()) {
            Err(error) if error.status() == Status::NotFound => return Ok(None),
            company_id => company_id?,
        };
        Ok(self.holds_company(&company_id)?.then_some(company_id))
    }

    /// Ends the token of a company's location. One that was installed anew since then is to get another.
    fn end_of_company(&self, record: &Record, at_ms: i64, deadline: &Deadline) -> Result<bool> {
        let location_id = &record.resource_id;
        if self.last_word(location_id)?.is_some_and(|last| last.installed && last.at_ms > at_ms) {
            self.put_on_list(location_id, UNMINTED)?;
        }
        Ok(self.end(location_id, at_ms, deadline)? == End::Deleted)
    }

    /// Deletes a token, unless it was granted after `at_ms`.
    fn end(&self, resource_id: &str, at_ms: i64, deadline: &Deadline) -> Result<End> {
        let _quiet = outbox::hold();
        let lock =
            self.store.lock(resource_id, deadline).map_err(|error| error.with_resource(resource_id))?;
        match self.record(resource_id)? {
            None => Ok(End::NotHeld),
            Some(record) if record.granted_at() > at_ms => Ok(End::Newer),
            Some(_) => {
                self.remove(resource_id, lock)?;
                Ok(End::Deleted)
            }
        }
    }

    /// Deletes a token under its lock, which is given back before the host is told.
    pub(super) fn remove(&self, resource_id: &str, lock: Box<dyn crate::store::Lock>) -> Result<()> {
        self.store.remove(resource_id)?;
        self.unsaved().remove(resource_id);
        self.refused_new().remove(resource_id);
        self.live.forget(resource_id);
        drop(lock);
        self.emit(&Event::Deleted, resource_id, None);
        Ok(())
    }

    /// Writes a word on a company or location down, unless a later one is known; answers the one that stands.
    fn write_down(&self, resource_id: &str, mut word: Installation) -> Result<Installation> {
        self.change(resource_id, |last, note| {
            if let Some(last) = last {
                if !word.outdates_word(&last) {
                    return Err(last);
                }
                // An automatic INSTALL may leave the company out that an earlier one named.
                word.company_id = word.company_id.take().or(last.company_id);
            }
            note.list = if word.installed { UNMINTED.into() } else { String::new() };
            note.expires_at =
                if word.installed { i64::MAX } else { self.clock.wall_ms().saturating_add(REMEMBERED_MS) };
            Ok(word.clone())
        })
    }

    /// Puts an installed location on a list, or with an empty name on none.
    fn put_on_list(&self, location_id: &str, list: &str) -> Result<()> {
        self.change(location_id, |last, note| match last {
            Some(last) if last.installed && note.list != list => {
                note.list = list.into();
                Ok(last)
            }
            // Nothing to change, and nobody asks what stands.
            last => Err(last.unwrap_or(Installation { at_ms: 0, installed: false, company_id: None })),
        })
        .map(drop)
    }

    /// Changes what is written down of a place. `change` gets the last word, and answers the new one, or with `Err` the
    /// one that stands as it is; asked again when somebody else was faster.
    fn change(
        &self,
        resource_id: &str,
        mut change: impl FnMut(Option<Installation>, &mut Note) -> Result<Installation, Installation>,
    ) -> Result<Installation> {
        for _ in 0..10 {
            let stored = self.store.note(&key(resource_id))?;
            let last = stored.as_ref().and_then(|note| self.read(note));
            let mut note = stored.unwrap_or_else(|| Note {
                key: key(resource_id),
                version: 0,
                list: String::new(),
                document: Value::Null,
                expires_at: i64::MAX,
            });
            let word = match change(last, &mut note) {
                Ok(word) => word,
                Err(last) => return Ok(last),
            };
            note.document = serde_json::to_value(&word).unwrap_or_default();
            match self.store.save_note(&note) {
                Err(error) if error.status() == Status::Conflict => {}
                saved => return saved.map(|()| word).map_err(|error| error.with_resource(resource_id)),
            }
        }
        Err(Error::new(Status::Store, "what is remembered of a place changes faster than it can be saved")
            .with_resource(resource_id))
    }

    fn last_word(&self, resource_id: &str) -> Result<Option<Installation>> {
        Ok(self.store.note(&key(resource_id))?.and_then(|note| self.read(&note)))
    }

    /// What a note says, until its time is over.
    fn read(&self, note: &Note) -> Option<Installation> {
        let lasts = note.expires_at > self.clock.wall_ms();
        serde_json::from_value(note.document.clone()).ok().filter(|_| lasts)
    }

    /// Goes through the locations that wait for a token, as long as `work` wants to.
    fn each_unminted(&self, mut work: impl FnMut(&str, Installation) -> Result<bool>) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.store.notes(UNMINTED, after.as_deref(), PAGE)?;
            for note in &page.notes {
                if let (Some(location_id), Some(installation)) = (note.key.strip_prefix(KEY), self.read(note))
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

impl Installation {
    /// Whether this UNINSTALL came after an INSTALL at that time.
    fn outdates(&self, at_ms: i64) -> bool {
        !self.installed && self.at_ms > at_ms
    }

    /// Whether this is the later word. Of two at the same time INSTALL counts, whichever came first: what was wrongly
    /// minted is refused by the API, what was wrongly deleted is lost.
    fn outdates_word(&self, other: &Installation) -> bool {
        (self.at_ms, self.installed) > (other.at_ms, other.installed)
    }
}

fn key(resource_id: &str) -> String {
    format!("{KEY}{resource_id}")
}
