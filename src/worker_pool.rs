//! A scoped worker pool: worker threads for the duration of one call, whose callbacks run on the
//! caller's thread.
//!
//! The threads share the state on the stack of the thread that runs the pool. A host's callback may
//! move its own stack: greenlets (coroutines of Python) copy it elsewhere when they switch. So
//! [`relay`] runs the pool on a thread of its own, and only the callbacks on the caller's thread.

#[cfg(test)]
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::deferred_callbacks::{self, DeferredCall, DeferredCalls};
use crate::error::{Error, Result, Status};
use crate::lookup::{ThreadSpawnError, new_thread};
use crate::{fork_safety, panic_scope};

/// How many results may be queued, so that fast workers wait for the collector instead of using up
/// memory.
const MAX_QUEUED_RESULTS: usize = 64;

type WorkerMessage<T> = (Option<Result<T>>, DeferredCalls);

/// Runs workers as coroutines, in a test whose calls are coroutines.
#[cfg(test)]
pub trait Cooperative {
    /// Calls `work` in `workers` coroutines. Their results are collected afterwards.
    fn run(&self, workers: usize, work: &(dyn Fn() + Sync));
}

#[cfg(test)]
thread_local! {
    /// The pool of the calls on this thread, instead of threads.
    pub static COOPERATIVE: RefCell<Option<std::rc::Rc<dyn Cooperative>>> =
        const { RefCell::new(None) };
}

pub struct Results<T>(Receiver<WorkerMessage<T>>);

/// The next message of the workers.
pub enum Received<T> {
    /// A result; `INTERNAL` for a panic.
    Result(Result<T>),
    /// No result yet.
    Nothing,
    /// All threads have ended.
    Closed,
}

/// Runs `workers` threads, each of which calls `work` until it returns `None`, and passes their
/// results to `collect` on this thread. A panic ends its thread.
pub fn run<T: Send, R>(
    workers: usize,
    work: impl Fn() -> Option<T> + Sync,
    collect: impl FnOnce(&Results<T>) -> R,
) -> Result<R> {
    let (sender, receiver) = sync_channel(MAX_QUEUED_RESULTS);
    #[cfg(test)]
    if let Some(pool) = COOPERATIVE.with_borrow(Option::clone) {
        let senders = std::sync::Mutex::new(vec![sender; workers]);
        pool.run(workers, &|| {
            let sender = senders.lock().ok().and_then(|mut senders| senders.pop());
            sender.iter().for_each(|sender| run_worker(sender, &work));
        });
        return Ok(collect(&Results(receiver)));
    }
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..workers {
            let (sender, work) = (sender.clone(), &work);
            threads.extend(new_thread().spawn_scoped(scope, move || run_worker(&sender, work)));
        }
        drop(sender);
        if threads.is_empty() {
            return Err(no_thread());
        }
        let results = Results(receiver);
        let collected = collect(&results);
        // Disconnects the channel, so that threads that still have work end at their next result
        // instead of blocking the joins below.
        drop(results);
        for thread in threads {
            // A panic has been delivered as a result.
            let _ = thread.join();
        }
        Ok(collected)
    })
}

enum Relayed {
    Progress(Value),
    Callback(DeferredCall),
}

/// Runs `work` on another thread, and its callbacks, including `progress`, on this thread.
///
/// # Errors
/// The errors of `work`; `NETWORK` if no thread could be started; `CANCELLED` in a child
/// that a callback forked, since the other thread does not exist there.
pub fn relay<R: Send + 'static>(
    work: impl FnOnce(&dyn Fn(&Value) -> bool) -> Result<R> + Send + 'static,
    progress: &dyn Fn(&Value) -> bool,
) -> Result<R> {
    let (sender, receiver) = sync_channel(MAX_QUEUED_RESULTS);
    let (answers, answer) = sync_channel(1);
    let coordinate = move || {
        let _scope = panic_scope::enter();
        let callbacks = sender.clone();
        // Fails only if the caller is gone.
        let _redirected = deferred_callbacks::redirect(move |callback| {
            let _ = callbacks.send(Relayed::Callback(callback));
        });
        let report = |so_far: &Value| {
            sender.send(Relayed::Progress(so_far.clone())).is_ok() && answer.recv() == Ok(true)
        };
        panic::catch_unwind(AssertUnwindSafe(|| work(&report))).unwrap_or_else(|payload| {
            // A payload may panic when it is dropped.
            std::mem::forget(payload);
            Err(panicked())
        })
    };
    let generation = fork_safety::generation();
    let thread = new_thread().spawn(coordinate);
    let thread = thread.map_err(|_| no_thread())?;
    loop {
        let goes_on = match receiver.recv() {
            Ok(Relayed::Progress(so_far)) => Some(progress(&so_far)),
            Ok(Relayed::Callback(callback)) => {
                deferred_callbacks::run_or_defer(callback);
                None
            }
            Err(_) => break,
        };
        if generation != fork_safety::generation() {
            // The thread may have held the locks of the channels during the fork.
            std::mem::forget((receiver, answers, thread));
            return Err(Error::new(Status::Cancelled, "a callback of this call has forked")
                .with_help("call again in the child"));
        }
        if let Some(goes_on) = goes_on {
            // Fails only if the thread has ended.
            let _ = answers.send(goes_on);
        }
    }
    thread.join().unwrap_or_else(|payload| {
        std::mem::forget(payload);
        Err(panicked())
    })
}

fn no_thread() -> Error {
    Error::new(Status::Network, "no worker thread could be started; nothing was sent")
        .with_help(ThreadSpawnError::HELP)
}

fn panicked() -> Error {
    Error::new(Status::Internal, "the library panicked")
        .with_help("report this defect and attach the log")
        // Whether it was is unknown.
        .with_sent(true)
}

fn run_worker<T>(results: &SyncSender<WorkerMessage<T>>, work: &impl Fn() -> Option<T>) {
    let _scope = panic_scope::enter();
    let mut should_continue = true;
    while should_continue {
        let (outcome, messages) =
            deferred_callbacks::capture(|| panic::catch_unwind(AssertUnwindSafe(work)));
        let result = match outcome {
            Ok(result) => {
                should_continue = result.is_some();
                result.map(Ok)
            }
            Err(payload) => {
                // A payload may panic when it is dropped.
                std::mem::forget(payload);
                should_continue = false;
                Some(Err(panicked()))
            }
        };
        should_continue &= results.send((result, messages)).is_ok();
    }
}

impl<T> Results<T> {
    /// Waits up to `timeout` for the next result, and runs the callbacks that the worker deferred.
    pub fn next(&self, timeout: Duration) -> Received<T> {
        match self.0.recv_timeout(timeout) {
            Ok((result, messages)) => {
                messages.into_iter().for_each(deferred_callbacks::run_or_defer);
                result.map_or(Received::Nothing, Received::Result)
            }
            Err(RecvTimeoutError::Timeout) => Received::Nothing,
            Err(RecvTimeoutError::Disconnected) => Received::Closed,
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
                Received::Result(result) => all.push(result),
                Received::Nothing => {}
                Received::Closed => return all,
            }
        }
    }

    #[test]
    fn every_result_is_delivered_on_the_calling_thread() {
        let (left, heard) = (AtomicUsize::new(1000), Arc::new(Mutex::new(Vec::new())));
        let results = run(
            4,
            || {
                let number = left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                let heard = Arc::clone(&heard);
                deferred_callbacks::run_or_defer(Box::new(move || {
                    heard.lock().unwrap().push(thread::current().id())
                }));
                number.ok()
            },
            all,
        );
        let mut numbers: Vec<usize> =
            results.unwrap().into_iter().map(|result| result.unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());
        // 1000 results, and one callback of each worker when it found no work left.
        assert_eq!(*heard.lock().unwrap(), vec![thread::current().id(); 1004]);
    }

    #[test]
    fn panic_of_a_job_is_its_result_and_the_others_continue() {
        let left = AtomicUsize::new(100);
        let results = run(
            3,
            || {
                let number = left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .ok()?;
                assert_ne!(number, 50, "the panic");
                Some(number)
            },
            all,
        );
        let (good, bad): (Vec<_>, Vec<_>) = results.unwrap().into_iter().partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (99, 1));
        assert_eq!(bad[0].as_ref().unwrap_err().status(), Status::Internal);
    }

    #[test]
    fn relayed_work_runs_elsewhere_and_its_callbacks_on_the_calling_thread() {
        let (caller, heard) = (thread::current().id(), Arc::new(Mutex::new(Vec::new())));
        let own = Arc::clone(&heard);
        let work = move |progress: &dyn Fn(&Value) -> bool| {
            let say = |word: &'static str| {
                let own = Arc::clone(&own);
                let callback = move || own.lock().unwrap().push((word, thread::current().id()));
                deferred_callbacks::run_or_defer(Box::new(callback));
            };
            say("at once");
            let deferred = deferred_callbacks::defer();
            say("later");
            assert!(progress(&1.into()));
            drop(deferred);
            assert!(!progress(&2.into()));
            Ok(thread::current().id())
        };
        let progress = |so_far: &Value| {
            heard.lock().unwrap().push(("progress", thread::current().id()));
            *so_far == 1
        };
        assert_ne!(relay(work, &progress).unwrap(), caller);
        let expected = ["at once", "progress", "later", "progress"].map(|word| (word, caller));
        assert_eq!(*heard.lock().unwrap(), expected);
    }

    #[test]
    fn panic_of_relayed_work_is_its_result() {
        let work = |_: &dyn Fn(&Value) -> bool| -> Result<()> { panic!("as intended") };
        let error = relay(work, &|_| true).unwrap_err();
        assert_eq!(error.status(), Status::Internal);
    }

    #[test]
    fn workers_end_if_their_results_are_not_taken() {
        let made = AtomicUsize::new(0);
        run(2, || Some(made.fetch_add(1, Ordering::SeqCst)), |results| drop(results.next(LONG)))
            .unwrap();
        assert!(made.load(Ordering::SeqCst) <= MAX_QUEUED_RESULTS + 4);
    }
}
