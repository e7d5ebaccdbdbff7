//! The webhook sender: one thread that delivers webhooks in order, with retries and a circuit
//! breaker.

use crate::clock::Clock;
use crate::retry::{CircuitBreaker, RETRY_INTERVAL_MS, RetryRule};
use crate::webhook_delivery::Deliveries;
use crate::webhook_signing::{Keys, Signature};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How often the thread reads the emulator's clock, which tests may move at any time, while a retry
/// is scheduled.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A webhook that an event triggered.
#[derive(Debug)]
pub(crate) struct Caused {
    pub(crate) id: u64,
    pub(crate) body: String,
    /// The receiver's last status; 0 without a response.
    pub(crate) status: AtomicU16,
}

/// A webhook to be delivered.
#[derive(Debug)]
pub(crate) struct QueuedWebhook {
    pub(crate) url: String,
    pub(crate) caused: Arc<Caused>,
    pub(crate) rule: RetryRule,
}

/// A failed delivery, or one that the circuit breaker holds back.
#[derive(Debug)]
struct Pending {
    queued: QueuedWebhook,
    retries: u32,
    due_ms: i64,
}

/// The queue of webhooks to send; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct WebhookSender {
    sender: Sender<QueuedWebhook>,
    stopped: Arc<AtomicBool>,
}

impl WebhookSender {
    /// Starts the thread. The receiver may call the emulator before it responds, so the server's
    /// thread cannot send.
    pub(crate) fn start(keys: Arc<Keys>, deliveries: Deliveries, clock: Clock) -> Self {
        let (sender, receiver) = channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = SenderThread {
            keys,
            deliveries,
            clock,
            stopped: Arc::clone(&stopped),
            pending: Vec::new(),
            breakers: HashMap::new(),
        };
        std::thread::spawn(move || thread.run(&receiver));
        Self { sender, stopped }
    }

    pub(crate) fn take(&self, queued: QueuedWebhook) {
        // The thread runs as long as this value exists.
        let _ = self.sender.send(queued);
    }
}

impl Drop for WebhookSender {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
    }
}

/// The thread's state.
struct SenderThread {
    keys: Arc<Keys>,
    deliveries: Deliveries,
    clock: Clock,
    stopped: Arc<AtomicBool>,
    pending: Vec<Pending>,
    breakers: HashMap<String, CircuitBreaker>,
}

impl SenderThread {
    fn run(mut self, receiver: &Receiver<QueuedWebhook>) {
        loop {
            let next = if self.pending.is_empty() {
                receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                receiver.recv_timeout(POLL_INTERVAL)
            };
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            match next {
                Ok(queued) => {
                    // In order of time: retries that are due are sent first.
                    self.retry_what_is_due();
                    self.attempt(Pending { queued, retries: 0, due_ms: i64::MIN });
                }
                Err(RecvTimeoutError::Timeout) => self.retry_what_is_due(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn retry_what_is_due(&mut self) {
        let now_ms = self.clock.now_ms();
        let due: Vec<_> = self.pending.extract_if(.., |pending| pending.due_ms <= now_ms).collect();
        for pending in due {
            self.attempt(pending);
        }
    }

    fn attempt(&mut self, mut pending: Pending) {
        let QueuedWebhook { url, caused, rule } = &pending.queued;
        let now_ms = self.clock.now_ms();
        if rule.has_breaker()
            && let Some(until_ms) =
                self.breakers.get(url).and_then(|breaker| breaker.open_until(now_ms))
        {
            pending.due_ms = until_ms;
            self.pending.push(pending);
            return;
        }
        let headers = self.keys.sign(caused.body.as_bytes(), Signature::default());
        let status = self.deliveries.post(url, &headers, caused.body.as_bytes()).ok();
        if let Some(status) = status {
            caused.status.store(status, Ordering::SeqCst);
        }
        if rule.has_breaker() {
            let succeeded = status.is_some_and(|status| (200..300).contains(&status));
            self.breakers.entry(url.clone()).or_default().record(succeeded, now_ms);
        }
        if rule.repeats(status, pending.retries) {
            pending.retries += 1;
            pending.due_ms = now_ms + RETRY_INTERVAL_MS;
            self.pending.push(pending);
        }
    }
}
