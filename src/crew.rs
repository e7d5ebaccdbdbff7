//! Threads that a call takes along: they end before it does, and what they have to tell the host is told on the call's
//! own thread.

use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result, Status};
use crate::inside;
use crate::lookup::NoThread;
use crate::outbox::{self, Messages};

/// How many results may wait to be looked at: what a crew brings in must not pile up.
const MOST_WAITING: usize = 64;

type Delivery<T> = (Option<Result<T>>, Messages);

/// What a crew brings in.
pub struct Results<T>(Receiver<Delivery<T>>);

/// The next thing that a crew has to say.
pub enum Next<T> {
    /// One of its results; a defect (a panic) is `INTERNAL`.
    Result(Result<T>),
    /// Nothing, so far.
    Nothing,
    /// All its threads have ended.
    Over,
}

/// Lets `hands` threads work, each calling `work` again and again until it has nothing more to do (`None`), and gives
/// their results to `collect` on this thread. A defect ends its thread.
///
/// # Errors
/// `NETWORK` if the system starts no thread: nothing was sent.
pub fn work<T: Send, R>(
    hands: usize,
    work: impl Fn() -> Option<T> + Sync,
    collect: impl FnOnce(&Results<T>) -> R,
) -> Result<R> {
    let (sender, receiver) = sync_channel(MOST_WAITING);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..hands {
            let (sender, work) = (sender.clone(), &work);
            let thread = thread::Builder::new().name("ghl-oauth".into());
            threads.extend(thread.spawn_scoped(scope, move || hand(&sender, work)));
        }
        drop(sender);
        if threads.is_empty() {
            return Err(Error::new(
                Status::Network,
                "no thread could be started for the work, nothing was sent",
            )
            .with_help(NoThread::HELP));
        }
        let results = Results(receiver);
        let collected = collect(&results);
        // Before the threads are waited for: those whose results nobody takes any more end with the next one.
        drop(results);
        for thread in threads {
            // Whatever it met has come as a result.
            let _ = thread.join();
        }
        Ok(collected)
    })
}

fn hand<T>(results: &SyncSender<Delivery<T>>, work: &impl Fn() -> Option<T>) {
    let _inside = inside::enter();
    let mut goes_on = true;
    while goes_on {
        let (outcome, messages) = outbox::collect(|| panic::catch_unwind(AssertUnwindSafe(work)));
        let result = match outcome {
            Ok(result) => {
                goes_on = result.is_some();
                result.map(Ok)
            }
            Err(payload) => {
                // A payload may panic when it is dropped.
                std::mem::forget(payload);
                goes_on = false;
                Some(Err(Error::new(Status::Internal, "the library met a defect of its own")
                    .with_help("please report it, with the log")))
            }
        };
        goes_on &= results.send((result, messages)).is_ok();
    }
}

impl<T> Results<T> {
    /// Waits so long for the next result. What the threads have to tell the host is told now.
    pub fn next(&self, patience: Duration) -> Next<T> {
        match self.0.recv_timeout(patience) {
            Ok((result, messages)) => {
                messages.into_iter().for_each(outbox::post);
                result.map_or(Next::Nothing, Next::Result)
            }
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    const LONG: Duration = Duration::from_secs(30);

    fn all<T>(results: &Results<T>) -> Vec<Result<T>> {
        let mut all = Vec::new();
        loop {
            match results.next(LONG) {
                Next::Result(result) => all.push(result),
                Next::Nothing => {}
                Next::Over => return all,
            }
        }
    }

    #[test]
    fn everything_is_brought_in_and_told_on_the_calls_own_thread() {
        let (left, heard) = (AtomicUsize::new(1000), Arc::new(Mutex::new(Vec::new())));
        let results = work(
            4,
            || {
                let number =
                    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                let heard = Arc::clone(&heard);
                outbox::post(Box::new(move || heard.lock().unwrap().push(thread::current().id())));
                number.ok()
            },
            all,
        );
        let mut numbers: Vec<usize> = results.unwrap().into_iter().map(|result| result.unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());
        // Each of the four said something, too, when it found nothing to do.
        assert_eq!(*heard.lock().unwrap(), vec![thread::current().id(); 1004]);
    }

    #[test]
    fn a_defect_is_a_result_and_the_others_go_on() {
        let left = AtomicUsize::new(100);
        let results = work(
            3,
            || {
                let number =
                    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).ok()?;
                assert_ne!(number, 50, "the defect");
                Some(number)
            },
            all,
        );
        let (good, bad): (Vec<_>, Vec<_>) = results.unwrap().into_iter().partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (99, 1));
        assert_eq!(bad[0].as_ref().unwrap_err().status(), Status::Internal);
    }

    #[test]
    fn threads_whose_results_nobody_takes_end() {
        let made = AtomicUsize::new(0);
        work(2, || Some(made.fetch_add(1, Ordering::SeqCst)), |results| drop(results.next(LONG))).unwrap();
        assert!(made.load(Ordering::SeqCst) <= MOST_WAITING + 4);
    }
}
