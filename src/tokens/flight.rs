//! Single flight: the first caller for a key does the work, and the others wait for its result.
//! Generic over key and result.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::PoisonError;

#[cfg(ghl_loom)]
use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(ghl_loom))]
use std::sync::{Arc, Mutex, MutexGuard};

use crate::deadline::Deadline;
use crate::error::Result;
use crate::signal::Signal;

pub struct Flights<K, T> {
    open: Mutex<HashMap<K, Arc<Flight<T>>>>,
}

/// One piece of work that several callers share.
pub struct Flight<T> {
    state: Mutex<State<T>>,
    changed: Signal,
}

enum State<T> {
    Running,
    Completed(T),
    /// The leader was dropped without a result, for example by a panic.
    Abandoned,
}

pub enum Role<'a, K: Hash + Eq, T: Clone> {
    /// Does the work and completes the flight.
    Leader(Leader<'a, K, T>),
    /// Waits for the result.
    Follower(Arc<Flight<T>>),
}

/// The leader must call [`Leader::complete`]. If it is dropped first, the followers wake and try
/// again.
pub struct Leader<'a, K: Hash + Eq, T: Clone> {
    flights: &'a Flights<K, T>,
    key: K,
    flight: Arc<Flight<T>>,
    completed: bool,
}

impl<K: Hash + Eq + Clone, T: Clone> Flights<K, T> {
    pub fn new() -> Flights<K, T> {
        Flights { open: Mutex::new(HashMap::new()) }
    }

    /// Joins the flight for `key`, or opens it as its leader.
    pub fn join(&self, key: K) -> Role<'_, K, T> {
        let mut open = self.open();
        if let Some(flight) = open.get(&key) {
            return Role::Follower(Arc::clone(flight));
        }
        let flight = Arc::new(Flight { state: Mutex::new(State::Running), changed: Signal::new() });
        open.insert(key.clone(), Arc::clone(&flight));
        Role::Leader(Leader { flights: self, key, flight, completed: false })
    }

    /// Wakes all followers to check their deadlines.
    pub fn wake_all(&self) {
        for flight in self.open().values() {
            flight.changed.notify();
        }
    }
}

impl<K: Hash + Eq, T> Flights<K, T> {
    pub fn is_open(&self, key: &K) -> bool {
        self.open().contains_key(key)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<K, Arc<Flight<T>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Flight<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a flight after it was closed to new followers.
    fn end(flight: &Arc<Self>, end: State<T>) {
        *flight.state() = end;
        // Without followers, save the system call.
        if Arc::strong_count(flight) > 1 {
            flight.changed.notify();
        }
    }
}

impl<T: Clone> Flight<T> {
    /// Waits for the result; `None` if the leader was dropped without one.
    pub fn wait(&self, deadline: &Deadline) -> Result<Option<T>> {
        loop {
            let seen = self.changed.count();
            match &*self.state() {
                State::Completed(result) => return Ok(Some(result.clone())),
                State::Abandoned => return Ok(None),
                State::Running => deadline.check()?,
            }
            deadline.wait(&self.changed, seen);
        }
    }
}

impl<K: Hash + Eq, T: Clone> Leader<'_, K, T> {
    /// Completes the flight; later callers start a new one.
    pub fn complete(mut self, result: T) {
        self.completed = true;
        self.flights.open().remove(&self.key);
        Flight::end(&self.flight, State::Completed(result));
    }
}

impl<K: Hash + Eq, T: Clone> Drop for Leader<'_, K, T> {
    fn drop(&mut self) {
        if !self.completed {
            self.flights.open().remove(&self.key);
            Flight::end(&self.flight, State::Abandoned);
        }
    }
}

#[cfg(all(test, not(ghl_loom)))]
mod tests {
    use super::*;
    use crate::deadline::Cancellation;
    use crate::error::Status;
    use std::time::Duration;

    fn deadline(cancellation: &Arc<Cancellation>) -> Deadline {
        Deadline::after(Duration::from_secs(60), cancellation)
    }

    #[test]
    fn followers_get_the_result_of_the_leader() {
        let flights = Flights::new();
        let Role::Leader(leader) = flights.join("a") else { panic!("the first leads") };
        let cancellation = Arc::default();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..4)
                .map(|_| {
                    let Role::Follower(flight) = flights.join("a") else {
                        panic!("the others wait")
                    };
                    let deadline = deadline(&cancellation);
                    scope.spawn(move || flight.wait(&deadline).unwrap())
                })
                .collect();
            assert!(matches!(flights.join("b"), Role::Leader(_)));
            leader.complete(7);
            for waiter in waiting {
                assert_eq!(waiter.join().unwrap(), Some(7));
            }
        });
        assert!(matches!(flights.join("a"), Role::Leader(_)));
    }

    #[test]
    fn leader_without_a_result_wakes_the_followers() {
        let flights = Flights::<_, u8>::new();
        let leader = flights.join("a");
        let Role::Follower(flight) = flights.join("a") else { panic!("the second waits") };
        drop(leader);
        assert_eq!(flight.wait(&deadline(&Arc::default())).unwrap(), None);
    }

    #[test]
    fn cancelled_follower_returns_and_the_flight_continues() {
        let flights = Flights::new();
        let Role::Leader(leader) = flights.join("a") else { panic!("the first leads") };
        let cancellation = Arc::default();
        std::thread::scope(|scope| {
            let Role::Follower(flight) = flights.join("a") else { panic!("the second waits") };
            let deadline = deadline(&cancellation);
            let waiter = scope.spawn(move || flight.wait(&deadline));
            cancellation.raise();
            flights.wake_all();
            assert_eq!(waiter.join().unwrap().unwrap_err().status(), Status::Cancelled);
        });
        let Role::Follower(flight) = flights.join("a") else { panic!("the flight is still open") };
        leader.complete(1);
        assert_eq!(flight.wait(&deadline(&cancellation)).unwrap(), Some(1));
    }
}

/// Loom models: all interleavings of a few threads.
#[cfg(all(test, ghl_loom))]
mod models {
    use super::*;
    use crate::deadline::Cancellation;
    use crate::error::Status;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;
    use std::time::Duration;

    type TestFlights = Flights<&'static str, usize>;

    fn deadline(cancellation: &std::sync::Arc<Cancellation>) -> Deadline {
        Deadline::after(Duration::from_secs(3600), cancellation)
    }

    /// A typical caller: leads, or follows and joins again if the leader was dropped.
    fn call(flights: &TestFlights, work: impl Fn() -> usize, deadline: &Deadline) -> Result<usize> {
        loop {
            match flights.join("resource") {
                Role::Leader(leader) => {
                    let result = work();
                    leader.complete(result);
                    return Ok(result);
                }
                Role::Follower(flight) => {
                    if let Some(result) = flight.wait(deadline)? {
                        return Ok(result);
                    }
                }
            }
        }
    }

    #[test]
    fn one_leader_works_at_a_time_and_every_caller_gets_a_result() {
        loom::model(|| {
            let flights = Arc::new(TestFlights::new());
            let (working, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let callers: Vec<_> = (0..2)
                .map(|_| {
                    let (flights, working, done) = (flights.clone(), working.clone(), done.clone());
                    thread::spawn(move || {
                        let work = || {
                            assert_eq!(
                                working.fetch_add(1, Ordering::SeqCst),
                                0,
                                "two leaders at once"
                            );
                            working.fetch_sub(1, Ordering::SeqCst);
                            done.fetch_add(1, Ordering::SeqCst) + 1
                        };
                        call(&flights, work, &deadline(&Default::default())).unwrap()
                    })
                })
                .collect();
            let results: Vec<usize> =
                callers.into_iter().map(|caller| caller.join().unwrap()).collect();
            // A late caller starts a new flight; the others share the first result.
            assert!(
                results.iter().all(|result| (1..=done.load(Ordering::SeqCst)).contains(result))
            );
        });
    }

    #[test]
    fn leader_without_a_result_blocks_no_follower() {
        loom::model(|| {
            let flights = Arc::new(TestFlights::new());
            let failing = {
                let flights = flights.clone();
                thread::spawn(move || drop(flights.join("resource")))
            };
            assert_eq!(call(&flights, || 7, &deadline(&Default::default())).unwrap(), 7);
            failing.join().unwrap();
        });
    }

    #[test]
    fn follower_cancelled_at_any_moment_returns() {
        loom::model(|| {
            let flights = Arc::new(TestFlights::new());
            let cancellation = std::sync::Arc::new(Cancellation::default());
            let Role::Leader(leader) = flights.join("resource") else { panic!("the first leads") };
            let waiter = {
                let (flights, deadline) = (flights.clone(), deadline(&cancellation));
                thread::spawn(move || match flights.join("resource") {
                    Role::Follower(flight) => flight.wait(&deadline).map(|_| ()),
                    Role::Leader(_) => panic!("the flight is still open"),
                })
            };
            cancellation.raise();
            flights.wake_all();
            // The leader completes only after the waiter has returned: a lost wakeup would hang the
            // model.
            assert_eq!(waiter.join().unwrap().unwrap_err().status(), Status::Cancelled);
            leader.complete(1);
        });
    }

    #[test]
    fn late_follower_shares_the_result_or_starts_a_new_flight() {
        loom::model(|| {
            let flights = Arc::new(TestFlights::new());
            let Role::Leader(leader) = flights.join("resource") else { panic!("the first leads") };
            let waiter = {
                let flights = flights.clone();
                thread::spawn(move || call(&flights, || 2, &deadline(&Default::default())).unwrap())
            };
            leader.complete(1);
            assert!([1, 2].contains(&waiter.join().unwrap()));
        });
    }
}
