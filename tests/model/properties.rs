//! The properties. A property of a transition is checked when it is taken, and marks the resulting
//! state.

use stateright::{Model, Property};

use super::protocol::{Action, INSTALLED_AT, Outcome, UNINSTALLED_AT};
use super::rules::{Fault, Kind, Scenario};
use super::state::{Broken, COMPANY, Call, LOCATION, Process, Record, State, Step};

pub fn properties() -> Vec<Property<Scenario>> {
    /// A property of transitions: the transition that violates it marks the state.
    macro_rules! holds {
        ($broken:ident) => {
            Property::always(Broken::$broken.property(), |_, state: &State| {
                state.broken != Some(Broken::$broken)
            })
        };
    }
    vec![
        holds!(Overwritten),
        holds!(Lost),
        holds!(CameBack),
        holds!(Owner),
        holds!(TwoRefreshes),
        holds!(HastyVerdict),
        holds!(NotOffered),
        holds!(KeptAfterUninstall),
        holds!(EndedByOldUninstall),
        holds!(MissedInstall),
        holds!(Endless),
        // Every behaviour is finite, because the number of calls is limited and every call ends:
        // this is liveness.
        Property::always(
            "every behaviour ends with all calls ended and nothing unsaved",
            |model, state| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                !actions.is_empty() || state.broken.is_some() || has_ended(state)
            },
        ),
    ]
}

fn has_ended(state: &State) -> bool {
    state.processes.iter().all(|process| {
        process.closed && process.call.is_none() && process.unsaved.iter().all(Option::is_none)
    })
}

impl Scenario {
    /// A final refusal ends a connection until the next consent: it must not happen while the
    /// server would still accept a token.
    pub fn judge_verdict(&self, state: &State, call: &mut Call) {
        let (resource, Some(record)) = (usize::from(call.resource), call.record) else { return };
        call.hasty =
            state.is_recoverable(record.token) || (resource == LOCATION && state.can_mint());
    }

    /// The properties of a transition or of an idle state.
    pub fn judge(&self, last: &State, state: &mut State, action: Action) {
        let is_protocol = match action {
            Action::Begin(..) => true,
            Action::Step(_, _, outcome) => matches!(outcome, Outcome::Normal | Outcome::NoLock),
            _ => false,
        };
        for resource in [COMPANY, LOCATION] {
            let goes_on = state.is_held(resource) || (resource == LOCATION && state.can_mint());
            if is_protocol && !goes_on && last.is_held(resource) && !may_end(last, action, resource)
            {
                state.broken = state.broken.or(Some(Broken::Lost));
            }
            let works = |process: &&Process| {
                process.call.is_some_and(|call| {
                    call.kind == Kind::Refresh
                        && call.locked
                        && usize::from(call.resource) == resource
                        && (Step::Read..=Step::WriteVerdict).contains(&call.step)
                })
            };
            let locks_hold = !self.faults.contains(&Fault::LostLock)
                && !self.faults.contains(&Fault::StoreRestart);
            if locks_hold && state.processes.iter().filter(works).count() > 1 {
                state.broken = state.broken.or(Some(Broken::TwoRefreshes));
            }
        }
        if state.processes.iter().any(|process| process.call.is_some()) {
            return;
        }
        for slot in &state.slots {
            if slot.row.is_some_and(|row| row.epoch < slot.deleted) {
                state.broken = state.broken.or(Some(Broken::CameBack));
            }
        }
        let location = state.slots[LOCATION];
        let began = location.row.map(|row| state.grant(row.token).began as i8);
        if state.processed[0] && began.is_some_and(|began| began < UNINSTALLED_AT) {
            state.broken = state.broken.or(Some(Broken::KeptAfterUninstall));
        }
        let is_due = location.note.is_some_and(|note| note.due);
        let copies = state.processes.iter().filter_map(|process| process.unsaved[LOCATION]);
        let mut held = copies.map(|fresh| fresh.record).chain(location.row);
        let is_new = |record: Record| state.grant(record.token).began as i8 == INSTALLED_AT;
        if state.processed[1] && !is_due && !held.any(is_new) {
            state.broken = state.broken.or(Some(Broken::MissedInstall));
        }
    }
}

/// Whether a step may end the connection of a resource: a deletion and its consequences may, and so
/// may a client freed while the store refuses saves, which reports it.
fn may_end(last: &State, action: Action, resource: usize) -> bool {
    let Action::Step(index, step, _) = action else { return false };
    let Some(call) = last.processes[index].call else { return false };
    let is_removal = matches!(step, Step::Remove | Step::WriteTombstone);
    let slot = &last.slots[resource];
    let is_outdated = call.fresh.is_some_and(|fresh| fresh.record.epoch < slot.epoch);
    is_removal || is_outdated || (call.kind == Kind::Close && call.refused)
}
