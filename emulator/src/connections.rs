//! The connections that clients hold: how many there were, and their end on demand.

use crate::fault::Ending;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Longer than ending any number of connections takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Connections {
    accepted: u64,
    open: Vec<oneshot::Sender<Order>>,
}

/// The order to end a connection. Dropping it reports that this is done.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) ending: Ending,
    _done: Sender<()>,
}

impl Connections {
    /// Counts one.
    pub(crate) fn accept(&mut self) {
        self.accepted += 1;
    }

    /// Gives one that can take an order the place where it will come.
    pub(crate) fn open(&mut self) -> oneshot::Receiver<Order> {
        self.open.retain(|connection| !connection.is_closed());
        let (sender, receiver) = oneshot::channel();
        self.open.push(sender);
        receiver
    }

    /// How many there have been.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Orders every one to end; what is returned waits until they have.
    pub(crate) fn end(&mut self, ending: Ending) -> impl FnOnce() + use<> {
        let (done, all_done) = channel();
        for connection in self.open.drain(..) {
            // One that has ended by itself meanwhile needs no order.
            let _ = connection.send(Order { ending, _done: done.clone() });
        }
        move || {
            drop(done);
            let waited = all_done.recv_timeout(PATIENCE);
            assert_ne!(waited, Err(std::sync::mpsc::RecvTimeoutError::Timeout), "connections do not end");
        }
    }
}
