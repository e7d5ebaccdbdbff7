//! A scenario run: the queue of its events by time, and the latest past events.

use crate::behaviour::{Behaviour, DailyReset};
use crate::fault::{FaultId, FaultKind, Rule};
use crate::options::Options;
use crate::random::Seeded;
use crate::retry::RetryRule;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub(crate) const SECOND_MS: i64 = 1_000;
pub(crate) const MINUTE_MS: i64 = 60 * SECOND_MS;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// A scenario that the emulator can play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// A day of an agency with 500 locations: locations are created, paused, moved, uninstalled and
    /// reinstalled, faults start and end, the daily limit is used up, and webhooks arrive late, out
    /// of order and more than once.
    AgencyDay,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 1] = [Self::AgencyDay];

    /// Its name on the command line and in the control API.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgencyDay => "agency-day",
        }
    }

    /// The options that the scenario is designed for.
    pub fn options(self) -> Options {
        match self {
            Self::AgencyDay => Options {
                companies: 2,
                locations: 500,
                behaviour: Behaviour {
                    webhook_retries: RetryRule::Generation2,
                    daily_reset: DailyReset::Milliseconds,
                    ..Behaviour::default()
                },
                ..Options::default()
            },
        }
    }
}

/// The phase of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ScenarioPhase {
    /// Waiting until the first company is connected.
    Waiting,
    /// Running.
    Running,
    /// All events were played, and every webhook was delivered.
    Finished,
}

/// An event of a scenario that has taken place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    /// When it happened, on the emulator's clock.
    pub at_ms: i64,
    /// Its kind.
    pub what: Happened,
    /// The company or location; `None` for a fault that applies to any.
    pub resource_id: Option<String>,
    /// The body of the webhook that was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Happened {
    /// The agency created a new location, and the app was installed on it automatically.
    Opened,
    /// The app was uninstalled from a location.
    Uninstalled,
    /// The app was installed again, hours after it was uninstalled.
    Installed,
    /// The app was uninstalled and installed again within seconds.
    Reinstalled,
    /// A location was paused.
    Paused,
    /// A paused location is active again.
    Resumed,
    /// A location moved to the other company.
    Moved,
    /// A fault was injected.
    FaultBegan,
    /// A fault was removed.
    FaultEnded,
    /// Another program used up the agency's daily quota.
    QuotaSpent,
    /// A webhook was delivered.
    Delivered,
    /// A webhook was delivered again.
    DeliveredAgain,
    /// The day ended.
    Ended,
}

/// A queued event.
#[derive(Debug)]
pub(crate) enum Event {
    Open,
    Uninstall(String),
    Install(String),
    Reinstall { location_id: String, after: Duration },
    Pause(String),
    Resume(String),
    Move { location_id: String, company_id: String },
    FaultBegins { rule: Rule, kind: FaultKind, until_ms: i64 },
    FaultEnds { id: FaultId, resource_id: Option<String> },
    SpendQuota,
    Deliver { webhook_id: u64, again: bool },
    End,
}

/// A scenario that is waiting, running or finished.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) scenario: Scenario,
    /// The real time that the day takes; `None` if the caller steps it.
    pub(crate) day: Option<Duration>,
    pub(crate) began: Option<(i64, Instant)>,
    pub(crate) finished: bool,
    /// By time, then in the order of scheduling.
    pub(crate) queue: BTreeMap<(i64, u64), Event>,
    pub(crate) scheduled: u64,
    pub(crate) chance: Seeded,
    pub(crate) played: usize,
    pub(crate) happened: VecDeque<Happening>,
}

impl Run {
    pub(crate) fn new(scenario: Scenario, day: Option<Duration>, seed: u64) -> Self {
        Self {
            scenario,
            day,
            began: None,
            finished: false,
            queue: BTreeMap::new(),
            scheduled: 0,
            // A random sequence of its own, so that IDs and random faults do not change.
            chance: Seeded::new(seed ^ 0x7363_656e_6172_696f),
            played: 0,
            happened: VecDeque::new(),
        }
    }

    pub(crate) fn phase(&self) -> ScenarioPhase {
        match (self.began, self.finished) {
            (None, _) => ScenarioPhase::Waiting,
            (Some(_), false) => ScenarioPhase::Running,
            (Some(_), true) => ScenarioPhase::Finished,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.scenario.name()
    }

    /// How many events were played, and how many are queued.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.played, self.queue.len())
    }

    /// The latest events, newest first.
    pub(crate) fn latest(&self) -> impl Iterator<Item = &Happening> {
        self.happened.iter().rev()
    }

    pub(crate) fn schedule(&mut self, at_ms: i64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at_ms, self.scheduled), event);
    }

    /// A random number below `limit`, which must be positive.
    pub(crate) fn below(&mut self, limit: i64) -> i64 {
        let limit = u64::try_from(limit).unwrap_or(1).max(1);
        i64::try_from(self.chance.next_u64() % limit).unwrap_or(0)
    }
}
