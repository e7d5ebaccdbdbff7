//! The simulated world: clock, random number generator, processes, and the scheduler of their
//! coroutines.
//!
//! Every call of every process is a coroutine on one thread. A coroutine yields at each store call,
//! HTTP attempt and wait. The scheduler then picks a coroutine that can run. If none can, time
//! jumps to the next wake-up.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use generator::{Generator, Gn};

use super::disk::Disk;
use super::ledger::Ledger;
use super::server::{Call, Server};
use crate::clock::Clock;
use crate::signal::Signal;

/// The true wall clock at the start of a run, in milliseconds since the epoch.
pub const EPOCH_MS: i64 = 1_800_000_000_000;

/// The machines' uptime at the start of a run.
const BOOTED: Duration = Duration::from_secs(50_000);

/// The clock of a crashed process: every deadline has passed.
const NEVER: Duration = Duration::from_secs(1 << 40);

/// The size of a coroutine's stack, in words.
pub const STACK: usize = 0x10000;

/// A run with more steps than this is treated as endless.
pub const MAX_STEPS: u64 = 300_000;

/// When a coroutine can continue.
#[derive(Clone, Copy)]
pub enum Wake {
    /// At this time.
    At(Duration),
    /// At this time, or as soon as the condition that it polls holds.
    Poll(Duration),
}

impl Wake {
    pub fn time(self) -> Duration {
        match self {
            Wake::At(time) | Wake::Poll(time) => time,
        }
    }
}

type Coroutine = Generator<'static, (), Wake>;

thread_local! {
    static TASK: Cell<usize> = const { Cell::new(0) };
    static PROCESS: Cell<usize> = const { Cell::new(0) };
    static POOL: RefCell<Vec<Coroutine>> = const { RefCell::new(Vec::new()) };
}

/// The task that is running on this thread.
pub fn current_task() -> usize {
    TASK.get()
}

/// The process of the running task.
pub fn current_process() -> usize {
    PROCESS.get()
}

/// SplitMix64, a small deterministic random number generator.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn millis(&mut self, end: u64) -> Duration {
        Duration::from_micros(self.below(end * 1000))
    }
}

/// The fault classes of a run. Each run has only some of them, so that one class does not mask
/// another.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub store_faults: bool,
    pub store_lost_answers: bool,
    pub lost_locks: bool,
    /// Whether a first save compares the tombstone atomically, as the built-in stores do.
    pub compares_tombstones: bool,
    pub network_faults: bool,
    pub pages: bool,
    /// Whether a firewall responds to many mints with a page, even outside episodes of faults.
    pub firewall: bool,
    pub slow_server: bool,
    pub window: bool,
    pub skew: bool,
    pub pauses: bool,
    pub crashes: bool,
    pub deletions: bool,
    pub imports: bool,
    pub webhooks: bool,
    pub signed_webhooks: bool,
    pub cancels: bool,
    /// Whether some calls have a timeout of their own.
    pub timeouts: bool,
    /// Whether hosts send requests with stored tokens, and the API ends access tokens early.
    pub requests: bool,
    /// Whether a minted token has a refresh token.
    pub minted_refresh: bool,
    /// Whether the run waits for unsaved tokens before it closes the processes at the end.
    pub patient_end: bool,
    pub total: Duration,
    /// How often a call fails during an episode of store faults, in percent.
    pub store_percent: u64,
    pub network_percent: u64,
}

impl Profile {
    pub fn draw(rng: &mut Rng) -> Profile {
        let lost_locks = rng.chance(25);
        Profile {
            store_faults: rng.chance(45),
            store_lost_answers: rng.chance(40),
            lost_locks,
            compares_tombstones: rng.chance(75),
            network_faults: rng.chance(50),
            pages: rng.chance(35),
            firewall: rng.chance(15),
            slow_server: rng.chance(40),
            window: rng.chance(65),
            skew: rng.chance(if lost_locks { 50 } else { 20 }),
            pauses: rng.chance(if lost_locks { 60 } else { 25 }),
            crashes: rng.chance(45),
            deletions: rng.chance(45),
            imports: rng.chance(40),
            webhooks: rng.chance(45),
            signed_webhooks: rng.chance(10),
            cancels: rng.chance(20),
            timeouts: rng.chance(25),
            requests: false,
            minted_refresh: rng.chance(75),
            patient_end: rng.chance(50),
            total: Duration::from_millis(rng.pick(&[5_000, 30_000, 30_000])),
            store_percent: rng.pick(&[5, 30, 100]),
            network_percent: rng.pick(&[10, 40, 100]),
        }
    }
}

/// The state of one process.
pub struct ProcessState {
    pub crashed: bool,
    /// Whether it no longer accepts calls.
    pub ending: bool,
    /// Whether it was closed while the store failed.
    pub closed_in_trouble: bool,
    /// The offset of its wall clock, in milliseconds ahead.
    pub offset_ms: i64,
    /// The largest offset so far: a request may have read the clock before it was changed.
    pub farthest_ms: i64,
    /// The smallest offset so far: a token may have been read with it.
    pub lowest_ms: i64,
    pub paused_until: Duration,
    /// How long it has been suspended in total.
    pub paused: Duration,
    pub tasks: usize,
    pub store_trouble_until: Duration,
    pub network_trouble_until: Duration,
    /// The number of its store calls that a fault affects now.
    pub store_faults: usize,
    /// When the last of these ended.
    pub store_worked_from: Duration,
}

/// The mutable state.
pub struct State {
    pub now: Duration,
    pub rng: Rng,
    pub profile: Profile,
    /// Whether all faults have stopped.
    pub is_quiet: bool,
    pub processes: Vec<ProcessState>,
    pub disk: Disk,
    pub server: Server,
    pub ledger: Ledger,
    /// Requests that arrive after their clients stopped waiting.
    pub late: Vec<(Duration, Call)>,
    pub trace: Option<Vec<String>>,
}

/// The world that all processes share.
pub struct World(Mutex<State>);

impl World {
    pub fn new(seed: u64, traced: bool) -> Arc<World> {
        let mut rng = Rng(seed);
        rng.next();
        // Drawn without the generator, so that the other runs stay as they were.
        let profile = Profile { requests: seed % 4 == 3, ..Profile::draw(&mut rng) };
        Arc::new(World(Mutex::new(State {
            now: Duration::ZERO,
            rng,
            profile,
            is_quiet: false,
            processes: Vec::new(),
            disk: Disk::default(),
            server: Server::new(profile),
            ledger: Ledger::default(),
            late: Vec::new(),
            trace: traced.then(Vec::new),
        })))
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn now(&self) -> Duration {
        self.with(|state| state.now)
    }

    pub fn is_crashed(&self, process: usize) -> bool {
        self.with(|state| state.processes[process].crashed)
    }

    /// Lets other coroutines run for `wait`. Returns whether the process is still running
    /// afterwards.
    pub fn step(&self, process: usize, wait: Duration) -> bool {
        let until =
            self.with(|state| (!state.processes[process].crashed).then(|| state.now + wait));
        let Some(until) = until else { return false };
        go_on(Wake::At(until));
        !self.is_crashed(process)
    }
}

impl State {
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>13.3} task {:<3} {}", now.as_secs_f64(), TASK.get(), what()));
        }
    }

    /// The timeout that a call gets from its caller, if any.
    pub fn draw_timeout(&mut self) -> Option<Duration> {
        let has_timeout = self.profile.timeouts && !self.is_quiet && self.rng.chance(40);
        has_timeout.then(|| {
            let total = self.profile.total.as_millis() as u64;
            let most = self.rng.pick(&[50, 1_000, total]);
            let timeout = self.rng.millis(most);
            self.say(|| format!("the next call has a timeout of {timeout:?}"));
            timeout
        })
    }

    pub fn violation(&mut self, what: String) {
        self.say(|| format!("VIOLATION {what}"));
        self.ledger.violations.push(what);
    }
}

/// Yields to the scheduler.
#[allow(deprecated)]
pub fn go_on(wake: Wake) {
    generator::yield_with(wake);
}

/// The clocks of one process.
pub struct SimulatedClock {
    pub world: Arc<World>,
    pub process: usize,
}

impl Clock for SimulatedClock {
    fn wall_ms(&self) -> i64 {
        self.world.with(|state| wall_ms(state.now) + state.processes[self.process].offset_ms)
    }

    fn uptime(&self) -> Duration {
        BOOTED + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.world.with(|state| {
            let process = &mut state.processes[self.process];
            if !process.crashed {
                return state.now;
            }
            // Advance the clock, since a call may wait for a later time.
            process.paused += Duration::from_millis(50);
            NEVER + process.paused
        })
    }

    fn wait(&self, signal: &Signal, seen: u64, timeout: Duration) {
        let until = self.world.now() + timeout;
        let is_over = || {
            let looks =
                |state: &mut State| state.now >= until || state.processes[self.process].crashed;
            signal.count() != seen || self.world.with(looks)
        };
        while !is_over() {
            go_on(Wake::Poll(until));
        }
        // Also in a crashed process: another coroutine may have to end before the condition holds.
        go_on(Wake::At(self.world.now()));
    }
}

/// The true wall clock, in milliseconds since the epoch.
pub fn wall_ms(now: Duration) -> i64 {
    EPOCH_MS + i64::try_from(now.as_millis()).unwrap()
}

struct Task {
    id: usize,
    process: usize,
    coroutine: Coroutine,
    wake: Wake,
}

/// Runs the coroutines, one at a time.
pub struct Scheduler {
    pub world: Arc<World>,
    tasks: Vec<Task>,
    next_id: usize,
    steps: u64,
}

impl Scheduler {
    pub fn new(world: Arc<World>) -> Scheduler {
        Scheduler { world, tasks: Vec::new(), next_id: 1, steps: 0 }
    }

    /// Starts a call of a process as a coroutine.
    pub fn spawn(&mut self, process: usize, work: impl FnOnce() + Send + 'static) {
        let run = move || {
            work();
            Wake::At(Duration::ZERO)
        };
        let coroutine = match POOL.with_borrow_mut(Vec::pop) {
            Some(mut coroutine) => {
                coroutine.init_code(run);
                coroutine
            }
            None => Gn::<()>::new_opt(STACK, run),
        };
        let now = self.world.with(|state| {
            state.processes[process].tasks += 1;
            state.now
        });
        self.tasks.push(Task { id: self.next_id, process, coroutine, wake: Wake::At(now) });
        self.next_id += 1;
    }

    /// Runs until `end`, or until no coroutine is left.
    pub fn run_until(&mut self, end: Option<Duration>) {
        let mut ready = Vec::new();
        let world = Arc::clone(&self.world);
        loop {
            let chosen = world.with(|state| {
                let due =
                    |task: &Task| task.wake.time().max(state.processes[task.process].paused_until);
                let late = state.late.iter().map(|(time, _)| *time);
                let next = self.tasks.iter().map(due).chain(late).min();
                let Some(next) = next.filter(|next| end.is_none_or(|end| *next <= end)) else {
                    state.now = state.now.max(end.unwrap_or_default());
                    return None;
                };
                state.now = state.now.max(next);
                ready.clear();
                ready.extend(
                    (0..self.tasks.len()).filter(|index| due(&self.tasks[*index]) <= state.now),
                );
                state.deliver_late();
                Some((!ready.is_empty()).then(|| state.rng.pick(&ready)))
            });
            match chosen {
                None => return,
                Some(None) => {}
                Some(Some(index)) => {
                    self.steps += 1;
                    assert!(self.steps < MAX_STEPS, "the run has no end");
                    self.resume(index);
                    self.poll();
                }
            }
        }
    }

    /// Crashes a process: its calls end without further effects.
    pub fn crash(&mut self, process: usize) {
        let now = self.world.with(|state| {
            let dying = &mut state.processes[process];
            (dying.crashed, dying.ending, dying.paused_until) = (true, true, Duration::ZERO);
            state.now
        });
        for task in self.tasks.iter_mut().filter(|task| task.process == process) {
            task.wake = Wake::At(now);
        }
    }

    /// Resumes each coroutine that polls a condition.
    fn poll(&mut self) {
        let mut index = 0;
        while index < self.tasks.len() {
            let task = &self.tasks[index];
            let is_paused =
                || self.world.with(|state| state.processes[task.process].paused_until > state.now);
            if matches!(task.wake, Wake::Poll(_)) && !is_paused() && self.resume(index) {
                continue;
            }
            index += 1;
        }
    }

    /// Runs one coroutine to its next scheduling point. Returns whether it ended.
    fn resume(&mut self, index: usize) -> bool {
        let task = &mut self.tasks[index];
        TASK.set(task.id);
        PROCESS.set(task.process);
        let wake = task.coroutine.resume();
        TASK.set(0);
        if !task.coroutine.is_done() {
            task.wake = wake.unwrap();
            return false;
        }
        let task = self.tasks.swap_remove(index);
        self.world.with(|state| state.processes[task.process].tasks -= 1);
        POOL.with_borrow_mut(|pool| pool.push(task.coroutine));
        true
    }
}
