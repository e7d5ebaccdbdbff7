//! The request log: received requests, for tests to inspect.

use crate::call::Call;
use crate::fault::FaultId;
use serde::Serialize;
use std::collections::VecDeque;

/// Maximum number of requests; the oldest are dropped.
const CAPACITY: usize = 50_000;

/// A received request and the status of its response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRequest {
    /// Time of arrival, on the emulator's clock.
    pub at_ms: i64,
    /// `GET`, `POST` …
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query string, still encoded; empty if absent.
    pub query: String,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
    /// The status of the response; 0 before the response, or if a fault prevented one. A response
    /// that was lost in transit has its status here.
    pub status: u16,
    /// The location or company that the request was about, or the owner of the access token.
    pub resource_id: Option<String>,
    /// The fault that was applied.
    pub fault: Option<StruckBy>,
}

/// The fault that was applied to a request. It may have been removed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StruckBy {
    /// Its ID.
    pub id: FaultId,
    /// The name of its kind, as the control API writes it.
    pub kind: String,
}

/// Identifies a log entry, so that its status can be recorded later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryId(u64);

#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    entries: VecDeque<RecordedRequest>,
    /// How many entries were dropped from the front.
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

    /// Adds the details that are known before the response.
    pub(crate) fn add(
        &mut self,
        id: EntryId,
        resource_id: Option<String>,
        fault: Option<StruckBy>,
    ) {
        if let Some(entry) = self.entry(id) {
            entry.resource_id = resource_id;
            entry.fault = fault;
        }
    }

    fn entry(&mut self, id: EntryId) -> Option<&mut RecordedRequest> {
        let index = id.0.checked_sub(self.gone).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.entries.get_mut(index))
    }

    /// The number of requests so far, including dropped ones.
    pub(crate) fn number_of_latest(&self) -> u64 {
        self.gone + self.entries.len() as u64
    }

    /// All entries, newest first.
    pub(crate) fn latest(&self) -> impl ExactSizeIterator<Item = &RecordedRequest> {
        self.entries.iter().rev()
    }

    pub(crate) fn entries(&self) -> Vec<RecordedRequest> {
        self.entries.iter().cloned().collect()
    }

    /// Clears the log and returns the number of entries.
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
    fn status_recorded_after_a_clear_is_ignored() {
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
