//! Scenarios: the emulator simulates a day of server-side events on its own clock, from a seed.
//!
//! A run is a queue of events, ordered by time. Events change the emulator's state and trigger
//! webhooks. Webhook deliveries are events as well; they may be late, out of order or duplicated. A
//! run advances by steps of its caller or in real time.

mod agency_day;

use crate::clock::milliseconds;
use crate::installations::{Installation, installations};
use crate::scenario_run::{
    DAY_MS, Event, HOUR_MS, Happened, Happening, MINUTE_MS, Run, SECOND_MS, Scenario, ScenarioPhase,
};
use crate::state::{Shared, State};
use crate::webhook::Notice;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many past events are kept for reports.
const KEPT: usize = 2_000;
/// How often a paced run moves the clock.
const TICK: Duration = Duration::from_millis(20);

/// The state of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioReport {
    /// Its name.
    pub name: &'static str,
    /// Its phase.
    pub phase: ScenarioPhase,
    /// When it started, on the emulator's clock.
    pub began_at_ms: Option<i64>,
    /// How many events were played.
    pub played: usize,
    /// How many events are queued; events can add further ones.
    pub left: usize,
    /// The latest events, oldest first.
    pub happenings: Vec<Happening>,
    /// The installation status, once the scenario has finished.
    pub ledger: Option<Vec<Installation>>,
}

impl Run {
    fn begin(&mut self, state: &State) {
        let now_ms = state.clock.now_ms();
        self.began = Some((now_ms, Instant::now()));
        match self.scenario {
            Scenario::AgencyDay => agency_day::plan(self, state, now_ms),
        }
    }

    /// Plays the next event at its scheduled time, or now if that time has passed.
    fn step(&mut self, state: &mut State) -> Option<Happening> {
        let ((at_ms, _), event) = self.queue.pop_first()?;
        if state.clock.now_ms() < at_ms {
            state.clock.set_ms(at_ms);
        }
        let happening = self.play(state, event);
        self.played += 1;
        if self.happened.len() == KEPT {
            self.happened.pop_front();
        }
        self.happened.push_back(happening.clone());
        if self.queue.is_empty() {
            self.finished = true;
        }
        Some(happening)
    }

    fn play(&mut self, state: &mut State, event: Event) -> Happening {
        let at_ms = state.clock.now_ms();
        // The run itself delivers the webhooks of its events.
        let url = state.settings.webhook_url.take();
        let last = state.webhooks.last_id();
        let (what, resource_id, webhook) = self.change(state, event, url.as_deref());
        for webhook_id in last + 1..=state.webhooks.last_id() {
            self.schedule_deliveries(webhook_id, at_ms);
        }
        state.settings.webhook_url = url;
        Happening { at_ms, what, resource_id, webhook }
    }

    /// Carries out an event. Returns its kind, its resource, and the body of the webhook that it
    /// delivers.
    fn change(
        &mut self,
        state: &mut State,
        event: Event,
        url: Option<&str>,
    ) -> (Happened, Option<String>, Option<String>) {
        let agency = state.directory.companies[0].id.clone();
        let (what, resource_id) = match event {
            Event::Open => (Happened::Opened, state.open_location(&agency)),
            Event::Uninstall(id) => {
                state.uninstall(&id);
                (Happened::Uninstalled, Some(id))
            }
            Event::Install(id) => {
                state.mark_installed(&id);
                state.tell(&Notice::Install(id.clone()));
                (Happened::Installed, Some(id))
            }
            Event::Reinstall { location_id, after } => {
                state.reinstall_location(&location_id, after);
                (Happened::Reinstalled, Some(location_id))
            }
            Event::Pause(id) => {
                state.set_location_active(&id, false);
                (Happened::Paused, Some(id))
            }
            Event::Resume(id) => {
                state.set_location_active(&id, true);
                (Happened::Resumed, Some(id))
            }
            Event::Move { location_id, company_id } => {
                state.move_location(&location_id, &company_id);
                (Happened::Moved, Some(location_id))
            }
            Event::FaultBegins { rule, kind, until_ms } => {
                let resource_id = rule.resource_id.clone();
                let (id, _) = state.faults.inject(rule, kind);
                self.schedule(until_ms, Event::FaultEnds { id, resource_id: resource_id.clone() });
                (Happened::FaultBegan, resource_id)
            }
            Event::FaultEnds { id, resource_id } => {
                state.faults.remove(id);
                (Happened::FaultEnded, resource_id)
            }
            Event::SpendQuota => {
                state.spend_daily_quota(&agency);
                (Happened::QuotaSpent, Some(agency))
            }
            Event::Deliver { webhook_id, again } => {
                if let Some(url) = url {
                    state.webhooks.send(webhook_id, url, state.settings.behaviour.webhook_retries);
                }
                let caused = state.webhooks.caused().find(|caused| caused.id == webhook_id);
                let body = caused.map(|caused| caused.body.clone());
                let what = if again { Happened::DeliveredAgain } else { Happened::Delivered };
                return (what, body.as_deref().and_then(place_of), body);
            }
            Event::End => (Happened::Ended, None),
        };
        (what, resource_id, None)
    }

    /// Most webhooks arrive within seconds, some after minutes or hours; some arrive more than
    /// once.
    fn schedule_deliveries(&mut self, webhook_id: u64, now_ms: i64) {
        let delay_ms = match self.below(20) {
            0 => HOUR_MS + self.below(2 * HOUR_MS),
            1..=5 => self.below(20 * MINUTE_MS),
            _ => self.below(5 * SECOND_MS),
        };
        let repetitions = match self.below(20) {
            0 => 2,
            1..=3 => 1,
            _ => 0,
        };
        for attempt in 0..=repetitions {
            let at_ms = now_ms + delay_ms + attempt * 10 * MINUTE_MS;
            self.schedule(at_ms, Event::Deliver { webhook_id, again: attempt > 0 });
        }
    }

    /// Plays the events of a paced run that are due, and moves the clock. False if no event is
    /// left.
    fn tick(&mut self, state: &mut State) -> bool {
        let Some(day) = self.day else { return false };
        let Some((began_ms, began)) = self.began else {
            let agency = &state.directory.companies[0].id;
            let live = state.tokens.live(state.clock.now_ms());
            if live.iter().any(|token| token.resource_id == *agency) {
                self.begin(state);
            }
            return true;
        };
        let ratio = began.elapsed().as_secs_f64() / day.as_secs_f64();
        let target_ms = began_ms.saturating_add(milliseconds(DAY_MS, ratio));
        while self.queue.first_key_value().is_some_and(|((at_ms, _), _)| *at_ms <= target_ms) {
            self.step(state);
        }
        if self.finished {
            return false;
        }
        if state.clock.now_ms() < target_ms {
            state.clock.set_ms(target_ms);
        }
        true
    }
}

/// The location or company ID in the body of a webhook.
fn place_of(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    body["locationId"].as_str().or(body["companyId"].as_str()).map(str::to_owned)
}

impl State {
    /// Starts a scenario; `day` is the real time that the day takes, or `None` if the caller steps
    /// it.
    pub(crate) fn start_scenario(
        &mut self,
        scenario: Scenario,
        day: Option<Duration>,
    ) -> Result<(), String> {
        if self.scenario.as_ref().is_some_and(|run| run.phase() == ScenarioPhase::Running) {
            return Err("a scenario is running".to_owned());
        }
        if day.is_some_and(|day| day.is_zero()) {
            return Err("the day must be longer than zero".to_owned());
        }
        self.scenario = Some(Run::new(scenario, day, self.seed));
        self.scenario_started.notify_one();
        Ok(())
    }

    /// Plays the next event; `None` when the scenario has finished.
    pub(crate) fn step_scenario(&mut self) -> Result<Option<Happening>, String> {
        let agency_has_app = self.directory.companies[0].installed_at_ms.is_some();
        let Some(mut run) = self.scenario.take() else {
            return Err("no scenario was started".to_owned());
        };
        let result = if run.day.is_some() {
            Err("this scenario runs in real time".to_owned())
        } else if run.began.is_none() && !agency_has_app {
            Err("the first company has not given consent yet".to_owned())
        } else {
            if run.began.is_none() {
                run.begin(self);
            }
            Ok(run.step(self))
        };
        self.scenario = Some(run);
        result
    }

    /// The ratio of the emulator's clock to real time. A client waits in real time, so durations
    /// that it acts on (the replay window, the time until a quota resets) are scaled by this ratio.
    #[expect(clippy::cast_precision_loss, reason = "a day of milliseconds fits")]
    pub(crate) fn clock_speed(&self) -> f64 {
        let paced = self.scenario.as_ref().filter(|run| run.phase() == ScenarioPhase::Running);
        let day = paced.and_then(|run| run.day);
        day.map_or(1.0, |day| DAY_MS as f64 / 1_000.0 / day.as_secs_f64()).max(1.0)
    }

    /// A real duration, in milliseconds of the emulator's clock.
    pub(crate) fn scaled_ms(&self, real_ms: i64) -> i64 {
        milliseconds(real_ms, self.clock_speed())
    }

    pub(crate) fn scenario_report(&self) -> Option<ScenarioReport> {
        let run = self.scenario.as_ref()?;
        let phase = run.phase();
        Some(ScenarioReport {
            name: run.name(),
            phase,
            began_at_ms: run.began.map(|(at_ms, _)| at_ms),
            played: run.played,
            left: run.queue.len(),
            happenings: run.happened.iter().cloned().collect(),
            ledger: (phase == ScenarioPhase::Finished).then(|| installations(self)),
        })
    }

    fn tick_scenario(&mut self) -> bool {
        let Some(mut run) = self.scenario.take() else { return false };
        let goes_on = run.tick(self);
        self.scenario = Some(run);
        goes_on
    }
}

/// Moves the clock for paced runs, as long as the server runs.
pub(crate) async fn run_clock(shared: Shared) {
    let started = Arc::clone(&shared.lock().scenario_started);
    loop {
        started.notified().await;
        while shared.lock().tick_scenario() {
            tokio::time::sleep(TICK).await;
        }
    }
}
