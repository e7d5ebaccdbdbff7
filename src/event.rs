//! Token life-cycle events for the host's listener: IDs and times, never a secret.

use std::sync::{Arc, Mutex, PoisonError};

use log::Level;
use serde_json::{Value, json};

use crate::deferred_callbacks;
use crate::error::Error;
use crate::error::log_fields::about;
use crate::fork_safety;
use crate::token::LastFailure;

/// A change in the life of a token.
#[derive(Debug, Clone)]
pub enum Event {
    /// A token from a consent or an import was stored.
    Saved,
    /// A token was refreshed and the new one was stored.
    Refreshed,
    /// A location's token was minted with its company's token and stored.
    Minted,
    Deleted,
    /// The user must consent again; with the failure, if it belongs to a stored token.
    ReauthorizationRequired(Error, Option<Arc<LastFailure>>),
    /// A refresh failed; callers get the old access token until it expires.
    RefreshFailed(Error, Option<Arc<LastFailure>>),
    /// A new token could not be saved; it is served from memory and the save is retried.
    Unsaved(Error),
}

impl Event {
    const fn name(&self) -> &'static str {
        match self {
            Event::Saved => "token.saved",
            Event::Refreshed => "token.refreshed",
            Event::Minted => "token.minted",
            Event::Deleted => "token.deleted",
            Event::ReauthorizationRequired(..) => "token.reauthorizationRequired",
            Event::RefreshFailed(..) => "token.refreshFailed",
            Event::Unsaved(_) => "token.unsaved",
        }
    }

    /// Logs the event: a lost consent as an error, a failed refresh as a warning.
    fn log(&self, resource_id: &str, at_ms: i64, expires_at: Option<i64>) {
        let (level, what, error, failure) = match self {
            Event::ReauthorizationRequired(error, failure) => {
                (Level::Error, "the user must consent again", error, failure)
            }
            Event::RefreshFailed(error, failure) => {
                (Level::Warn, "the token could not be renewed", error, failure)
            }
            _ => return log::info!("{}{}", self.name(), about(resource_id)),
        };
        if !log::log_enabled!(level) {
            return;
        }
        let mut times = String::new();
        let mut add = |key: &str, until: Option<i64>| {
            if let Some(until) = until {
                times += &format!(" {key}={}", until.saturating_sub(at_ms).max(0) / 1000);
            }
        };
        add("old_token_seconds", expires_at);
        add("next_attempt_seconds", failure.as_ref().and_then(|failure| failure.next_attempt_at));
        if let Some(failure) = failure {
            times += &format!(" attempts={}", failure.attempts);
        }
        log::log!(level, "{what} event={}{times}{}", self.name(), error.fields(resource_id));
    }

    fn error(&self) -> Option<&Error> {
        match self {
            Event::ReauthorizationRequired(error, _)
            | Event::RefreshFailed(error, _)
            | Event::Unsaved(error) => Some(error),
            Event::Saved | Event::Refreshed | Event::Minted | Event::Deleted => None,
        }
    }

    fn to_json(&self, resource_id: &str, at_ms: i64, expires_at: Option<i64>) -> Value {
        let mut event = json!({
            "type": self.name(), "resourceId": resource_id, "at": at_ms, "expiresAt": expires_at,
        });
        if let Some(error) = self.error() {
            event["error"] = error.to_json()["error"].take();
        }
        if let Event::ReauthorizationRequired(_, failure) | Event::RefreshFailed(_, failure) = self
        {
            event["lastFailure"] = json!(failure.as_deref().map(LastFailure::to_json));
        }
        event
    }
}

/// Called with each event, on the thread where it happened, without any lock of the library.
pub type Listener = Arc<dyn Fn(&Value) + Send + Sync>;

/// The host's listener, if there is one.
#[derive(Default)]
pub struct Events {
    listener: Mutex<Option<Listener>>,
}

impl Events {
    pub fn listen(&self, listener: Option<Listener>) {
        let old = self.with_listener(|current| std::mem::replace(current, listener));
        drop(old);
    }

    /// Logs the event and passes it to the listener.
    pub fn emit(&self, event: &Event, resource_id: &str, at_ms: i64, expires_at: Option<i64>) {
        event.log(resource_id, at_ms, expires_at);
        if let Some(listener) = self.with_listener(|listener| listener.clone()) {
            let event = event.to_json(resource_id, at_ms, expires_at);
            deferred_callbacks::run_or_defer(Box::new(move || listener(&event)));
        }
    }

    fn with_listener<T>(&self, work: impl FnOnce(&mut Option<Listener>) -> T) -> T {
        // A forked child keeps the listener, so a fork must not happen while the lock is held.
        let _gate = fork_safety::gate();
        work(&mut self.listener.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
