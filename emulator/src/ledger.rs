//! An audit log of every code and token, for a person to look at. It contains no secrets.

use crate::grant::{Grant, UserType};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;

/// Maximum number of entries; the oldest are dropped.
const CAPACITY: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    Code,
    Access,
    Refresh,
}

/// Why a code or token became invalid before its expiry time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was used; it is single-use.
    Spent { at_ms: i64 },
    /// A test expired it.
    Expired,
    /// A test revoked it, or the app was uninstalled.
    Revoked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum EntryState {
    Live,
    Expired,
    Spent,
    Revoked,
}

/// Identifies an entry, so that its end can be recorded later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryId(u64);

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    fingerprint: [u8; 4],
    pub(crate) grant: Arc<Grant>,
    pub(crate) issued_at_ms: i64,
    pub(crate) expires_at_ms: i64,
    pub(crate) ended: Option<Ended>,
}

/// An entry in the control API's format.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account<'a> {
    kind: Kind,
    fingerprint: String,
    resource_id: &'a str,
    user_type: UserType,
    state: EntryState,
    issued_at_ms: i64,
    expires_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    spent_at_ms: Option<i64>,
}

impl Entry {
    /// The first eight hex digits of the SHA-256: reproducible from the token, but not reversible.
    pub(crate) fn fingerprint(&self) -> String {
        hex(self.fingerprint)
    }

    pub(crate) fn state(&self, now_ms: i64) -> EntryState {
        match self.ended {
            Some(Ended::Spent { .. }) => EntryState::Spent,
            Some(Ended::Revoked) => EntryState::Revoked,
            Some(Ended::Expired) => EntryState::Expired,
            None if self.expires_at_ms <= now_ms => EntryState::Expired,
            None => EntryState::Live,
        }
    }

    pub(crate) fn account(&self, now_ms: i64) -> Account<'_> {
        Account {
            kind: self.kind,
            fingerprint: self.fingerprint(),
            resource_id: self.grant.resource_id(),
            user_type: self.grant.user_type,
            state: self.state(now_ms),
            issued_at_ms: self.issued_at_ms,
            expires_at_ms: self.expires_at_ms,
            spent_at_ms: match self.ended {
                Some(Ended::Spent { at_ms }) => Some(at_ms),
                _ => None,
            },
        }
    }
}

/// The fingerprint of a token.
pub(crate) fn fingerprint_of(token: &str) -> String {
    hex(start_of_digest(token))
}

fn start_of_digest(text: &str) -> [u8; 4] {
    let mut start = [0; 4];
    start.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..4]);
    start
}

fn hex(bytes: [u8; 4]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: VecDeque<Entry>,
    /// How many entries were dropped from the front.
    gone: u64,
}

impl Ledger {
    pub(crate) fn enter(
        &mut self,
        kind: Kind,
        text: &str,
        grant: &Arc<Grant>,
        issued_at_ms: i64,
        expires_at_ms: i64,
    ) -> EntryId {
        if self.entries.len() == CAPACITY {
            self.entries.pop_front();
            self.gone += 1;
        }
        let fingerprint = start_of_digest(text);
        let grant = Arc::clone(grant);
        self.entries.push_back(Entry {
            kind,
            fingerprint,
            grant,
            issued_at_ms,
            expires_at_ms,
            ended: None,
        });
        EntryId(self.gone + self.entries.len() as u64 - 1)
    }

    /// Records how a code or token ended, unless that is recorded already.
    pub(crate) fn end(&mut self, id: EntryId, ended: Ended) {
        let index = id.0.checked_sub(self.gone).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.ended.get_or_insert(ended);
        }
    }

    /// All entries, newest first.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().rev()
    }

    /// The entry that expires next.
    pub(crate) fn next_expiry(&self, now_ms: i64) -> Option<&Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.state(now_ms) == EntryState::Live)
            .min_by_key(|entry| entry.expires_at_ms)
    }
}
