//! Events for the host's listener about the life of its tokens: ids and times, never a secret.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::deferred_callbacks;
use crate::error::Error;
use crate::fork_safety;

/// Something that happened to a token.
#[derive(Debug, Clone)]
pub enum Event {
    /// A token came by consent or import, and is stored.
    Saved,
    /// A token was refreshed, and the new one is stored.
    Refreshed,
    /// A location's token was minted from its company's, and is stored.
    Minted,
    /// A token was deleted.
    Deleted,
    /// Only a person's consent can help.
    ReauthorizationRequired(Error),
    /// A refresh failed; while the old access token lives, it is still handed out.
    RefreshFailed(Error),
    /// A new token could not be stored; it is held in memory and offered to the store again and again.
    Unsaved(Error),
}

impl Event {
    const fn name(&self) -> &'static str {
        match self {
            Event::Saved => "token.saved",
            Event::Refreshed => "token.refreshed",
            Event::Minted => "token.minted",
            Event::Deleted => "token.deleted",
            Event::ReauthorizationRequired(_) => "token.reauthorizationRequired",
            Event::RefreshFailed(_) => "token.refreshFailed",
            Event::Unsaved(_) => "token.unsaved",
        }
    }

    fn to_json(&self, resource_id: &str, at_ms: i64, expires_at: Option<i64>) -> Value {
        let mut event =
            json!({"type": self.name(), "resourceId": resource_id, "at": at_ms, "expiresAt": expires_at});
        if let Event::ReauthorizationRequired(error) | Event::RefreshFailed(error) | Event::Unsaved(error) =
            self
        {
            event["error"] = error.to_json()["error"].take();
        }
        event
    }
}

/// Called with each event, on the thread on which it happened, with no lock of the library held.
pub type Listener = Arc<dyn Fn(&Value) + Send + Sync>;

/// The host's listener, if there is one.
#[derive(Default)]
pub struct Events {
    listener: Mutex<Option<Listener>>,
}

impl Events {
    /// Replaces the listener.
    pub fn listen(&self, listener: Option<Listener>) {
        let old = self.with_listener(|current| std::mem::replace(current, listener));
        drop(old);
    }

    /// Tells the host.
    pub fn emit(&self, event: &Event, resource_id: &str, at_ms: i64, expires_at: Option<i64>) {
        log::info!("{} {resource_id}", event.name());
        if let Some(listener) = self.with_listener(|listener| listener.clone()) {
            let event = event.to_json(resource_id, at_ms, expires_at);
            deferred_callbacks::run_or_defer(Box::new(move || listener(&event)));
        }
    }

    fn with_listener<T>(&self, work: impl FnOnce(&mut Option<Listener>) -> T) -> T {
        // A forked child goes on with the same listener, and must not find it locked.
        let _gate = fork_safety::gate();
        work(&mut self.listener.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
