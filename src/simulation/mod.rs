//! Deterministic simulation testing: the real code for tokens, webhooks and consents, in several
//! processes that share one simulated disk, API, network and clock, under a seeded scheduler.
//! docs/simulation.md lists the operations, faults and checks.
//!
//! A failed run prints the command that repeats it.

mod disk;
mod ledger;
mod network;
pub mod pool;
mod process;
mod server;
mod world;

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::random;
use process::{Delivery, Form, Process};
use server::{COMPANY, LOCATIONS, RESOURCES};
use world::{Scheduler, State, World};

/// The number of runs in `cargo test`.
const USUAL_RUNS: u64 = 2_000;

/// The largest number of processes at a time.
const PROCESSES: usize = 3;

const DAY: Duration = Duration::from_secs(86_400);

/// A scheduled event.
enum ScheduledEvent {
    Deliver(Delivery),
    Reinstall(&'static str),
    Start(usize),
}

/// One run.
struct Run {
    world: Arc<World>,
    scheduler: Scheduler,
    /// The running processes, by slot.
    processes: Vec<Option<Arc<Process>>>,
    scheduled: Vec<(Duration, ScheduledEvent)>,
    webhooks: u64,
    actions: u64,
}

impl Run {
    fn new(seed: u64, traced: bool) -> Run {
        random::seed(Some(seed));
        let world = World::new(seed, traced);
        Run {
            scheduler: Scheduler::new(Arc::clone(&world)),
            world,
            processes: vec![None; PROCESSES],
            scheduled: Vec::new(),
            webhooks: 0,
            actions: 0,
        }
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut State) -> T) -> T {
        self.world.with(draw)
    }

    fn spawn(&mut self, process: &Arc<Process>, call: impl FnOnce(&Process) + Send + 'static) {
        let process = Arc::clone(process);
        self.scheduler.spawn(process.index, move || call(&process));
    }

    /// Plays the run from begin to end.
    fn play(&mut self) {
        self.begin();
        let actions = self.draw(|state| 8 + state.rng.below(30));
        while self.actions < actions {
            self.actions += 1;
            self.act();
            let gap = self.draw(gap);
            self.pass(gap);
        }
        self.end();
    }

    /// Advances the clock, and plays the events that become due.
    fn pass(&mut self, time: Duration) {
        let end = self.world.now() + time;
        loop {
            let next = (0..self.scheduled.len()).min_by_key(|index| self.scheduled[*index].0);
            let Some(index) = next.filter(|index| self.scheduled[*index].0 <= end) else { break };
            let (time, event) = self.scheduled.swap_remove(index);
            self.scheduler.run_until(Some(time));
            self.run_event(event);
        }
        self.scheduler.run_until(Some(end));
    }

    /// Sets up a consent for the company, a location installed with it, and perhaps a location with
    /// its own consent.
    fn begin(&mut self) {
        for slot in 0..self.draw(|state| state.rng.pick(&[1, 2, 2, 3])) {
            self.start(slot);
        }
        let first = self.processes[0].clone().unwrap();
        self.consent(&first, COMPANY);
        self.scheduler.run_until(None);
        if self.draw(|state| state.rng.chance(70)) {
            self.consent(&first, LOCATIONS[1]);
        }
        self.draw(|state| state.server.resources.get_mut(LOCATIONS[0]).unwrap().installed = true);
        self.scheduler.run_until(None);
    }

    fn start(&mut self, slot: usize) {
        let offset_ms = self.draw(|state| {
            let is_wrong = state.profile.skew && state.rng.chance(25);
            if is_wrong { skew(state) } else { 0 }
        });
        self.processes[slot] = Some(Process::start(&self.world, offset_ms));
    }

    fn consent(&mut self, process: &Arc<Process>, owner: &'static str) {
        let code = self.draw(|state| state.server.consent(owner));
        self.spawn(process, move |process| process.complete(owner, &code));
    }

    /// A running process that accepts calls.
    fn any_process(&self) -> Option<Arc<Process>> {
        let able: Vec<usize> = (0..PROCESSES)
            .filter(|slot| {
                let takes = |process: &Arc<Process>| {
                    self.draw(|state| !state.processes[process.index].ending)
                };
                self.processes[*slot].as_ref().is_some_and(takes)
            })
            .collect();
        let slot = (!able.is_empty()).then(|| self.draw(|state| state.rng.pick(&able)))?;
        self.processes[slot].clone()
    }

    /// One random operation or fault.
    fn act(&mut self) {
        let (profile, dice, id) =
            self.draw(|state| (state.profile, state.rng.below(100), state.rng.pick(&RESOURCES)));
        let Some(process) = self.any_process() else {
            let slot = self.processes.iter().position(Option::is_none).unwrap_or(0);
            return self.start(slot);
        };
        if profile.requests && self.draw(|state| state.rng.chance(25)) {
            return self.use_token(&process, id);
        }
        match dice {
            0..30 => {
                for _ in 0..self.draw(|state| state.rng.pick(&[1, 1, 1, 2, 4])) {
                    self.spawn(&process, move |process| drop(process.ask(id)));
                }
            }
            30..36 => self.spawn(&process, move |process| process.refresh(id)),
            36..44 => {
                let concurrency = self.draw(|state| state.rng.pick(&[1, 1, 3]));
                self.spawn(&process, move |process| process.maintain(concurrency));
            }
            44..45 => self.spawn(&process, Process::list),
            45..46 => self.spawn(&process, Process::export),
            46..48 => self.spawn(&process, Process::mint_all),
            48..52 => {
                let is_connected =
                    id == COMPANY || self.draw(|state| state.server.resources[COMPANY].installed);
                if is_connected && (id != LOCATIONS[0] || self.draw(|state| state.rng.chance(30))) {
                    self.consent(&process, id);
                }
            }
            52..56 if profile.deletions => self.spawn(&process, move |process| process.delete(id)),
            56..62 if profile.imports => self.import(&process),
            62..64 if profile.cancels => process.cancel(),
            64..67 => self.close(&process),
            67..71 if profile.crashes => self.crash(&process),
            71..74 if profile.pauses => self.pause(&process, id),
            74..76 if profile.skew => self.draw(|state| {
                let offset_ms = if state.rng.chance(40) { 0 } else { skew(state) };
                let clock = &mut state.processes[process.index];
                clock.offset_ms = offset_ms;
                clock.farthest_ms = clock.farthest_ms.max(offset_ms);
                clock.lowest_ms = clock.lowest_ms.min(offset_ms);
                state.say(|| {
                    format!("the clock of process {} is {offset_ms} ms ahead", process.index)
                });
            }),
            76..80 if profile.webhooks => self.uninstall(id),
            80..83 if id != COMPANY && self.draw(|state| state.rng.chance(50)) => {
                self.draw(|state| state.revoke(id));
                self.spawn(&process, move |process| process.refresh(id));
            }
            80..83 if id != COMPANY => self.draw(|state| {
                let resource = state.server.resources.get_mut(id).unwrap();
                resource.paused = !resource.paused;
                let is_paused = resource.paused;
                state.say(|| format!("{id} is paused: {is_paused}"));
            }),
            83..91 => {
                self.draw(|state| {
                    if state.profile.store_faults {
                        let until = state.now + trouble(state);
                        state.processes[process.index].store_trouble_until = until;
                        state.say(|| {
                            format!("store trouble of process {} until {until:?}", process.index)
                        });
                    }
                });
                self.refresh_some(&process, id);
            }
            91..100 => {
                self.draw(|state| {
                    let until = state.now + trouble(state);
                    state.processes[process.index].network_trouble_until = until;
                    state.say(|| {
                        format!("network trouble of process {} until {until:?}", process.index)
                    });
                });
                self.refresh_some(&process, id);
                for _ in 0..self.draw(|state| state.rng.pick(&[0, 0, 0, 3])) {
                    self.spawn(&process, move |process| drop(process.ask(id)));
                }
            }
            _ => self.spawn(&process, move |process| drop(process.ask(id))),
        }
    }

    /// Requests with the resource's token, perhaps after the API has ended it, or a call for a
    /// token that stays valid for some time.
    fn use_token(&mut self, process: &Arc<Process>, id: &'static str) {
        match self.draw(|state| state.rng.below(10)) {
            0..3 => {
                let least = self.draw(|state| state.rng.pick(&[60, 3_600, 80_000]));
                self.spawn(process, move |process| process.ask_for(id, least));
            }
            dice => {
                if dice < 6 {
                    self.draw(|state| state.end_access_tokens(id));
                }
                for _ in 0..self.draw(|state| state.rng.pick(&[1, 1, 2, 3])) {
                    self.spawn(process, move |process| process.request(id));
                }
            }
        }
    }

    /// Starts refreshes as an episode of faults begins: none, one, or one in each process.
    fn refresh_some(&mut self, process: &Arc<Process>, id: &'static str) {
        match self.draw(|state| state.rng.below(4)) {
            0 | 1 => self.spawn(process, move |process| process.refresh(id)),
            2 => {
                for process in self.processes.clone().into_iter().flatten() {
                    if self.draw(|state| !state.processes[process.index].ending) {
                        self.spawn(&process, move |process| process.refresh(id));
                    }
                }
            }
            _ => {}
        }
    }

    fn import(&mut self, process: &Arc<Process>) {
        let drawn = self.draw(|state| {
            let saved = &state.server.saved;
            let index = usize::try_from(state.rng.below(saved.len() as u64)).unwrap();
            let saved = saved.get(index)?.clone();
            let form = state.rng.pick(&[Form::Answer, Form::Bare, Form::Dated, Form::Exported]);
            let is_misfiled = saved.owner == COMPANY && state.rng.chance(20);
            let under = is_misfiled.then(|| state.rng.pick(&LOCATIONS));
            Some((saved, form, under))
        });
        if let Some((saved, form, under)) = drawn {
            self.spawn(process, move |process| process.import(&saved, form, under));
        }
    }

    fn slot_of(&self, process: &Arc<Process>) -> usize {
        let is_it = |slot: &Option<Arc<Process>>| {
            slot.as_ref().is_some_and(|other| Arc::ptr_eq(other, process))
        };
        self.processes.iter().position(is_it).unwrap_or(0)
    }

    fn schedule_start(&mut self, slot: usize) {
        let (time, starts) = self.draw(|state| (state.now + gap(state), state.rng.chance(85)));
        if starts {
            self.scheduled.push((time, ScheduledEvent::Start(slot)));
        }
    }

    fn close(&mut self, process: &Arc<Process>) {
        self.draw(|state| state.processes[process.index].ending = true);
        self.spawn(process, Process::close);
        let slot = self.slot_of(process);
        self.processes[slot] = None;
        self.schedule_start(slot);
    }

    fn crash(&mut self, process: &Arc<Process>) {
        self.draw(|state| state.say(|| format!("process {} crashes", process.index)));
        self.scheduler.crash(process.index);
        let slot = self.slot_of(process);
        self.processes[slot] = None;
        self.schedule_start(slot);
    }

    /// Suspends a process, perhaps in the middle of a refresh. Its store sessions may end
    /// meanwhile, so that other processes take its locks and rotate the refresh token more than
    /// once.
    fn pause(&mut self, process: &Arc<Process>, id: &'static str) {
        let (refreshes, moment) = self.draw(|state| (state.rng.chance(60), state.rng.millis(150)));
        if refreshes {
            self.spawn(process, move |process| process.refresh(id));
            self.pass(moment);
        }
        self.stop(process);
        if refreshes && self.draw(|state| state.profile.lost_locks) {
            self.draw(|state| match state.rng.chance(50) {
                true => state.restart_store(),
                false => state.lose_locks(process.index),
            });
            for other in self.processes.clone().into_iter().flatten() {
                let takes = self.draw(|state| !state.processes[other.index].ending);
                if takes && other.index != process.index {
                    self.spawn(&other, move |other| {
                        other.refresh(id);
                        other.refresh(id);
                    });
                }
            }
        }
    }

    fn stop(&mut self, process: &Arc<Process>) {
        self.draw(|state| {
            let wait = gap(state).min(Duration::from_secs(120));
            let paused = &mut state.processes[process.index];
            if paused.paused_until <= state.now {
                paused.paused_until = state.now + wait;
                paused.paused += wait;
                state.say(|| format!("process {} is paused for {wait:?}", process.index));
            }
        });
    }

    /// A user uninstalls the app, and may reinstall it later; the API sends webhooks for both.
    fn uninstall(&mut self, id: &'static str) {
        let again = self.draw(|state| {
            let now = state.now;
            if !state.server.resources[id].installed {
                return None;
            }
            state.say(|| format!("the app is removed from {id}"));
            state.server.uninstall(id, now);
            state.ledger.was_uninstalled.insert(id.to_owned());
            if id == COMPANY {
                state.ledger.was_uninstalled.extend(LOCATIONS.map(str::to_owned));
            }
            Some((state.rng.chance(70), now + Duration::from_millis(1_000) + gap(state)))
        });
        let Some((is_again, time)) = again else { return };
        self.tell(id, false);
        if is_again {
            self.scheduled.push((time, ScheduledEvent::Reinstall(id)));
        }
    }

    /// The API sends a webhook: perhaps late, twice, or not at all.
    fn tell(&mut self, id: &'static str, install: bool) {
        self.webhooks += 1;
        let number = self.webhooks;
        let times = self.draw(|state| {
            let at_ms = world::wall_ms(state.now);
            let is_dated = state.rng.chance(90);
            let company_id = (install && state.rng.chance(80)).then_some(COMPANY);
            let delivery = Delivery {
                install,
                resource_id: id,
                company_id,
                at_ms: is_dated.then_some(at_ms),
                number,
            };
            let times = state.rng.pick(&[0, 1, 1, 1, 1, 2]);
            let mut sent = Vec::new();
            for _ in 0..times {
                let delay =
                    if state.rng.chance(70) { state.rng.millis(20_000) } else { gap(state) };
                sent.push((state.now + delay, ScheduledEvent::Deliver(delivery.clone())));
            }
            sent
        });
        self.scheduled.extend(times);
    }

    fn run_event(&mut self, event: ScheduledEvent) {
        match event {
            ScheduledEvent::Start(slot) => {
                if self.processes[slot].is_none() {
                    self.start(slot);
                }
            }
            ScheduledEvent::Reinstall(id) => {
                if id == COMPANY || id == LOCATIONS[1] {
                    if let Some(process) = self.any_process() {
                        self.consent(&process, id);
                    }
                } else {
                    self.install(id);
                }
                if id == COMPANY && self.draw(|state| state.rng.chance(70)) {
                    self.install(LOCATIONS[0]);
                }
            }
            ScheduledEvent::Deliver(delivery) => {
                if let Some(process) = self.any_process() {
                    self.spawn(&process, move |process| process.webhook(&delivery));
                }
            }
        }
    }

    fn install(&mut self, id: &'static str) {
        self.draw(|state| {
            state.say(|| format!("the app is installed on {id}"));
            state.server.resources.get_mut(id).unwrap().installed = true;
        });
        self.tell(id, true);
    }

    /// Stops all faults and closes every process. A new process must then find every connection
    /// that could be kept.
    fn end(&mut self) {
        let patient = self.draw(|state| {
            state.is_quiet = true;
            state.profile.lost_locks = false;
            for process in &mut state.processes {
                (process.store_trouble_until, process.network_trouble_until) =
                    (Duration::ZERO, Duration::ZERO);
            }
            state.say(|| "trouble is over".into());
            state.profile.patient_end
        });
        self.scheduled.clear();
        self.scheduler.run_until(None);
        let living: Vec<Arc<Process>> =
            self.processes.iter_mut().filter_map(Option::take).collect();
        if patient {
            self.pass(Duration::from_secs(70));
            for process in &living {
                for id in RESOURCES {
                    self.spawn(process, move |process| drop(process.ask(id)));
                    self.scheduler.run_until(None);
                }
                let unsaved = process.tokens.unsaved_count();
                if unsaved > 0 {
                    let what =
                        format!("process {} still has {unsaved} unsaved tokens", process.index);
                    self.draw(|state| state.violation(what));
                }
            }
        }
        for process in &living {
            self.spawn(process, Process::close);
        }
        self.scheduler.run_until(None);
        drop(living);
        self.draw(State::check_store);
        self.draw(|state| {
            for resource in state.server.resources.values_mut() {
                resource.paused = false;
            }
        });
        self.pass(DAY + Duration::from_secs(3_600));
        let last = Process::start(&self.world, 0);
        let mut answers = Vec::new();
        for id in RESOURCES {
            let cell = Arc::new(std::sync::Mutex::new(None));
            let answer = Arc::clone(&cell);
            self.spawn(&last, move |process| *answer.lock().unwrap() = process.ask(id));
            self.scheduler.run_until(None);
            let answer = cell.lock().unwrap().take();
            answers.extend(answer.map(|answer| (id, answer)));
        }
        self.draw(|state| state.check_connections(&answers));
    }
}

/// The time between two events: zero, a moment, or a large part of a day.
fn gap(state: &mut State) -> Duration {
    match state.rng.below(22) {
        0..5 => Duration::ZERO,
        5..8 => state.rng.millis(20),
        8..11 => state.rng.millis(1_000),
        11..14 => state.rng.millis(10_000),
        14..16 => state.rng.millis(40_000),
        16..17 => state.rng.millis(600_000),
        17..19 => state.rng.millis(7 * 3_600_000),
        19..20 => state.rng.millis(26 * 3_600_000),
        _ => until_due(state),
    }
}

/// The time until the newest token is a few minutes from its expiry.
fn until_due(state: &mut State) -> Duration {
    let last = state.server.saved.last();
    let dies =
        last.and_then(|last| state.server.access.get(&last.access_token)).map(|access| access.dies);
    let left = state.rng.millis(290_000);
    dies.unwrap_or_default().saturating_sub(state.now + left)
}

/// The length of an episode of faults.
fn trouble(state: &mut State) -> Duration {
    match state.rng.below(4) {
        0 => state.rng.millis(1_000),
        1 => state.rng.millis(20_000),
        2 => state.rng.millis(120_000),
        _ => state.rng.millis(20 * 3_600_000),
    }
}

/// A clock offset, in milliseconds ahead.
fn skew(state: &mut State) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    state.ledger.is_skewed = true;
    state.rng.pick(&[365 * DAY_MS, -10 * DAY_MS, -DAY_MS / 2, -DAY_MS / 12, DAY_MS / 12, 3_000])
}

/// Runs one seed. Returns the violations and, if `traced`, the log of every step.
fn run(seed: u64, traced: bool) -> (Vec<String>, Vec<String>) {
    let mut run = Run::new(seed, traced);
    pool::enter(Some(&run.world));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| run.play()));
    pool::enter(None);
    random::seed(None);
    let mut found = run.draw(|state| std::mem::take(&mut state.ledger.violations));
    let trace = run.draw(|state| {
        let mut lines = vec![format!("{:?}", state.profile)];
        lines.extend(state.trace.take().unwrap_or_default());
        lines
    });
    if let Err(payload) = outcome {
        let words = payload.downcast_ref::<String>().cloned();
        let words =
            words.or_else(|| payload.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        found.push(format!("a panic: {}", words.unwrap_or_default()));
        // Its coroutines are suspended in the middle of calls, and cannot be dropped.
        std::mem::forget(run);
    }
    (found, trace)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Repeats one seed, and prints every step.
fn repeat(seed: u64) {
    let (found, trace) = run(seed, true);
    for line in trace {
        println!("{line}");
    }
    assert!(found.is_empty(), "seed {seed}: {}", found.join("\n"));
}

#[test]
fn simulated_runs_violate_no_invariant() {
    log::set_max_level(log::LevelFilter::Off);
    if let Some(seed) = number("GHL_SIMULATION_SEED") {
        return repeat(seed);
    }
    let runs = number("GHL_SIMULATION_RUNS").unwrap_or(USUAL_RUNS);
    let first = number("GHL_SIMULATION_FIRST").unwrap_or(1);
    let most_failures = number("GHL_SIMULATION_FAILURES").unwrap_or(1);
    let end = number("GHL_SIMULATION_SECONDS")
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (next, made, failures) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs || end.is_some_and(|end| Instant::now() > end) {
                        return;
                    }
                    let (found, _) = run(seed, false);
                    made.fetch_add(1, Ordering::Relaxed);
                    if !found.is_empty() {
                        println!("{}", found.join("\n"));
                        println!(
                            "to repeat it: GHL_SIMULATION_SEED={seed} cargo test --lib simulation"
                        );
                        let so_far = failures.fetch_add(1, Ordering::Relaxed) + 1;
                        over.fetch_or(so_far >= most_failures, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (made, failures) = (made.into_inner(), failures.into_inner());
    println!("{made} runs in {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(failures, 0, "{failures} of {made} runs violated an invariant");
}

#[test]
fn same_seed_produces_the_same_run() {
    for seed in 1..20 {
        assert_eq!(run(seed, true), run(seed, true), "seed {seed}");
    }
}
