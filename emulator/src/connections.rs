//! Open client connections: how many there were, and closing them on demand.

use crate::fault::Ending;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Longer than closing any number of connections takes.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Connections {
    accepted: u64,
    open: Vec<oneshot::Sender<Order>>,
}

/// The order to close a connection. Dropping it reports completion.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) ending: Ending,
    _done: Sender<()>,
}

impl Connections {
    /// Counts an accepted connection.
    pub(crate) fn accept(&mut self) {
        self.accepted += 1;
    }

    /// Registers a connection and returns the receiver for its close order.
    pub(crate) fn open(&mut self) -> oneshot::Receiver<Order> {
        self.open.retain(|connection| !connection.is_closed());
        let (sender, receiver) = oneshot::channel();
        self.open.push(sender);
        receiver
    }

    /// The number of connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Orders every connection to close. The returned function waits until all are closed.
    pub(crate) fn end(&mut self, ending: Ending) -> impl FnOnce() + use<> {
        let (done, all_done) = channel();
        for connection in self.open.drain(..) {
            // A connection that has closed in the meantime needs no order.
            let _ = connection.send(Order { ending, _done: done.clone() });
        }
        move || {
            drop(done);
            let waited = all_done.recv_timeout(WAIT_LIMIT);
            assert_ne!(
                waited,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout),
                "connections do not end"
            );
        }
    }
}
