//! What came in, for tests to look at afterwards.

use crate::call::Call;
use crate::fault::FaultId;
use serde::Serialize;
use std::collections::VecDeque;

/// Older requests make room: an emulator may run for days.
const CAPACITY: usize = 50_000;

/// A request that reached the emulator, and what it was answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRequest {
    /// When it arrived, on the emulator's clock.
    pub at_ms: i64,
    /// `GET`, `POST` …
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// What followed the `?`, still encoded; empty without one.
    pub query: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
    /// The status of the answer; 0 while there is none, and where a fault let none be made.
    /// An answer that was made and then lost on the way has its status here.
    pub status: u16,
    /// The location or company that it was about: the one that was asked about, else the one that asked.
    pub resource_id: Option<String>,
    /// The fault that struck it.
    pub fault: Option<StruckBy>,
}

/// The fault that struck a request. It may be gone since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StruckBy {
    /// Its id.
    pub id: FaultId,
    /// The name of its kind, as the control API writes it.
    pub kind: String,
}

/// Names an entry of the log, for its status to be filled in later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryId(u64);

#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    entries: VecDeque<RecordedRequest>,
    /// How many entries have left at the front.
    gone: u64,
}

impl RequestLog {
    pub(crate) fn record(&mut self, call: &Call, at_ms: i64) -> EntryId {
        if self.entries.len() == CAPACITY {
            self.entries.pop_front();
            self.gone += 1;
        }
        self.entries.push_back(RecordedRequest {
            at_ms,
            method: call.method.clone(),
            path: call.path.clone(),
            query: call.query.clone().unwrap_or_default(),
            headers: call.headers.clone(),
            body: String::from_utf8_lossy(&call.body).into_owned(),
            status: 0,
            resource_id: None,
            fault: None,
        });
        EntryId(self.gone + self.entries.len() as u64 - 1)
    }

    pub(crate) fn set_status(&mut self, id: EntryId, status: u16) {
        if let Some(entry) = self.entry(id) {
            entry.status = status;
        }
    }

    /// Adds what was found out about a request before it was answered.
    pub(crate) fn add(&mut self, id: EntryId, resource_id: Option<String>, fault: Option<StruckBy>) {
        if let Some(entry) = self.entry(id) {
            entry.resource_id = resource_id;
            entry.fault = fault;
        }
    }

    fn entry(&mut self, id: EntryId) -> Option<&mut RecordedRequest> {
        let index = id.0.checked_sub(self.gone).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.entries.get_mut(index))
    }

    /// Counts all that ever came, those that are forgotten included.
    pub(crate) fn number_of_latest(&self) -> u64 {
        self.gone + self.entries.len() as u64
    }

    /// The newest first.
    pub(crate) fn latest(&self) -> impl ExactSizeIterator<Item = &RecordedRequest> {
        self.entries.iter().rev()
    }

    pub(crate) fn entries(&self) -> Vec<RecordedRequest> {
        self.entries.iter().cloned().collect()
    }

    /// Forgets everything, and says how much that was.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.entries.len();
        self.gone += count as u64;
        self.entries.clear();
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_comes_after_a_clearance_goes_nowhere() {
        let call = Call {
            method: "GET".to_owned(),
            path: "/a".to_owned(),
            query: None,
            headers: Vec::new(),
            body: Vec::new(),
        };
        let mut log = RequestLog::default();
        let early = log.record(&call, 1);
        assert_eq!(log.clear(), 1);
        let late = log.record(&call, 2);
        log.set_status(early, 500);
        log.set_status(late, 200);
        assert_eq!(log.entries().len(), 1);
        assert_eq!(log.entries()[0].status, 200);
    }
}
