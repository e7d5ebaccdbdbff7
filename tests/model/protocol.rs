//! The transitions of the model: one step is one operation on the store, one request, or one fault.

use stateright::{Model, Property};

use super::properties::properties;
use super::rules::{Fault, Kind, Scenario};
use super::state::{
    COMPANY, Call, Fresh, GRANTS, Grant, LOCATION, Process, Record, Slot, Source, State, Step,
};

/// The times at which the vendor uninstalls and reinstalls the app.
pub const UNINSTALLED_AT: i8 = 2;
pub const INSTALLED_AT: i8 = 3;

/// The outcome of a step of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Normal,
    /// The wait for the lock times out, and the call continues without it.
    NoLock,
    Refused,
    LostAck,
    LostBefore,
    LostAfter,
    HastyInvalid,
    Page,
}

/// One transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process begins a call.
    Begin(usize, Kind, usize),
    /// A process takes the next step of its call.
    Step(usize, Step, Outcome),
    Kill(usize),
    LoseLock(usize),
    PowerCut,
    StoreRestart,
    /// The replay window of a grant closes.
    CloseWindow(usize),
    /// The vendor uninstalls or installs the app on the location.
    Vendor(i8),
    /// The server ends the grants of the earlier installation.
    Revoke,
    LoseWebhook(usize),
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            grants: [None; GRANTS],
            slots: [Slot::default(); 2],
            processes: vec![Process::default(); self.processes],
            calls_left: [0; 12],
            faults_left: self.most_faults,
            now: 1,
            installed: true,
            webhooks: [false; 2],
            processed: [false; 2],
            broken: None,
        };
        for (index, (_, _, count)) in self.calls.iter().enumerate() {
            state.calls_left[index] = *count;
        }
        for resource in [COMPANY, LOCATION] {
            if self.held[resource] {
                let token = match resource {
                    LOCATION if self.mislabelled => state.slots[COMPANY].row.map(|row| row.token),
                    _ => None,
                };
                let token = token.unwrap_or_else(|| state.add_grant(resource, 1));
                let record = Record {
                    token,
                    version: 1,
                    intent: false,
                    lost: false,
                    began: 1,
                    issued: 1,
                    expires: 1,
                    epoch: 0,
                };
                state.slots[resource].row = Some(record);
                state.slots[resource].durable = Some(record).filter(|_| self.forgets());
            }
        }
        if self.foreign_import {
            let token = state.add_grant(COMPANY, 0);
            if let Some(grant) = &mut state.grants[usize::from(token.grant)] {
                grant.newest = 1;
            }
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let may_fail = |fault: Fault| state.faults_left > 0 && self.faults.contains(&fault);
        for (index, process) in state.processes.iter().enumerate() {
            match &process.call {
                _ if process.closed => {}
                None => self.beginnings(state, index, actions),
                Some(call) => {
                    for outcome in self.outcomes(state, call, may_fail) {
                        actions.push(Action::Step(index, call.step, outcome));
                    }
                }
            }
            let has_memory = process.call.is_some() || process.unsaved.iter().any(Option::is_some);
            if has_memory && may_fail(Fault::Kill) {
                actions.push(Action::Kill(index));
            }
        }
        for (resource, slot) in state.slots.iter().enumerate() {
            if slot.lock.is_some() && may_fail(Fault::LostLock) {
                actions.push(Action::LoseLock(resource));
            }
        }
        let is_unsynced = state.slots.iter().any(|slot| self.forgets() && slot.row != slot.durable);
        if is_unsynced && may_fail(Fault::PowerCut) {
            actions.push(Action::PowerCut);
        }
        if is_unsynced && may_fail(Fault::StoreRestart) {
            actions.push(Action::StoreRestart);
        }
        for (index, grant) in state.grants.iter().enumerate() {
            if grant.is_some_and(|grant| grant.replays) {
                actions.push(Action::CloseWindow(index));
            }
        }
        if self.reinstalls {
            if state.now < 3 {
                actions.push(Action::Vendor(state.now as i8 + 1));
            }
            let is_old = |grant: &Grant| {
                usize::from(grant.owner) == LOCATION && grant.began == 1 && !grant.revoked
            };
            if state.now > 1 && state.grants.iter().flatten().any(is_old) {
                actions.push(Action::Revoke);
            }
        }
        for (index, waits) in state.webhooks.iter().enumerate() {
            if *waits && may_fail(Fault::LostWebhook) {
                actions.push(Action::LoseWebhook(index));
            }
        }
    }

    fn properties(&self) -> Vec<Property<Scenario>> {
        properties()
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Begin(index, kind, resource) => self.begin(&mut state, index, kind, resource),
            Action::Step(index, _, outcome) => {
                if !matches!(outcome, Outcome::Normal | Outcome::NoLock) {
                    state.faults_left -= 1;
                }
                self.step(&mut state, index, outcome);
            }
            Action::Kill(index) => {
                state.faults_left -= 1;
                state.processes[index] = Process::default();
                free_locks_of(&mut state, index);
            }
            Action::LoseLock(resource) => {
                state.faults_left -= 1;
                state.slots[resource].lock = None;
            }
            Action::PowerCut | Action::StoreRestart => {
                state.faults_left -= 1;
                for slot in &mut state.slots {
                    slot.row = slot.durable;
                    slot.lock = None;
                }
                if action == Action::PowerCut {
                    for process in state.processes.iter_mut().filter(|process| !process.closed) {
                        *process = Process::default();
                    }
                }
            }
            Action::CloseWindow(index) => {
                if let Some(grant) = &mut state.grants[index] {
                    grant.replays = false;
                }
            }
            Action::Vendor(now) => {
                state.now = now as u8;
                state.installed = now == INSTALLED_AT;
                state.webhooks[usize::from(state.installed)] = true;
            }
            Action::Revoke => {
                for grant in state.grants.iter_mut().flatten() {
                    if usize::from(grant.owner) == LOCATION && grant.began == 1 {
                        grant.revoked = true;
                    }
                }
            }
            Action::LoseWebhook(index) => {
                state.faults_left -= 1;
                state.webhooks[index] = false;
            }
        }
        self.judge(last, &mut state, action);
        Some(state)
    }
}

fn free_locks_of(state: &mut State, index: usize) {
    for slot in &mut state.slots {
        if slot.lock == Some(index as u8) {
            slot.lock = None;
        }
    }
}

impl Scenario {
    /// Whether writes can be undone.
    pub fn forgets(&self) -> bool {
        self.faults.contains(&Fault::PowerCut) || self.faults.contains(&Fault::StoreRestart)
    }

    fn beginnings(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let process = &state.processes[index];
        let has_unsaved = process.unsaved.iter().any(Option::is_some);
        let mut are_left = state.webhooks.contains(&true);
        for ((kind, resource, _), left) in self.calls.iter().zip(state.calls_left) {
            are_left |= left > 0 && *kind != Kind::Access;
            let makes_sense = *kind != Kind::Access || process.unsaved[*resource].is_some();
            if left > 0 && makes_sense {
                actions.push(Action::Begin(index, *kind, *resource));
            }
        }
        for (webhook, kind) in [Kind::Uninstalled, Kind::Installed].into_iter().enumerate() {
            let is_busy = state
                .processes
                .iter()
                .flat_map(|process| process.call)
                .any(|call| call.kind == kind);
            if state.webhooks[webhook] && !is_busy {
                actions.push(Action::Begin(index, kind, LOCATION));
            }
        }
        // A process without tokens in memory counts as closed; it closes in the end.
        let is_last = !are_left && state.processes.iter().take(index).all(|before| before.closed);
        if has_unsaved || is_last {
            actions.push(Action::Begin(index, Kind::Close, COMPANY));
        }
    }

    fn outcomes(
        &self,
        state: &State,
        call: &Call,
        may_fail: impl Fn(Fault) -> bool,
    ) -> Vec<Outcome> {
        let slot = &state.slots[usize::from(call.resource)];
        let mut outcomes = Vec::new();
        if call.step == Step::Lock {
            match (slot.lock, call.kind) {
                _ if !self.rules.lock => outcomes.push(Outcome::Normal),
                (None, _) => outcomes.push(Outcome::Normal),
                (Some(_), Kind::Consent) => outcomes.push(Outcome::NoLock),
                // It waits.
                (Some(_), _) => {}
            }
            return outcomes;
        }
        outcomes.push(Outcome::Normal);
        match call.step {
            Step::Save | Step::RecordIntent => {
                if may_fail(Fault::RefusedSave) {
                    outcomes.push(Outcome::Refused);
                }
                let is_accepted = call.step == Step::Save
                    && call.fresh.is_some_and(|fresh| self.is_accepted(state, &fresh));
                if is_accepted && may_fail(Fault::LostAck) {
                    outcomes.push(Outcome::LostAck);
                }
            }
            Step::Send => {
                if may_fail(Fault::LostReply) {
                    outcomes.extend([Outcome::LostBefore, Outcome::LostAfter]);
                }
                let token = call.record.map(|record| record.token);
                let would_repeat =
                    token.is_some_and(|token| state.is_recoverable(token) && !state.is_live(token));
                // Half a second later, in the second attempt, the server knows its own newest
                // token.
                if would_repeat && !call.called_invalid && may_fail(Fault::HastyInvalid) {
                    outcomes.push(Outcome::HastyInvalid);
                }
            }
            Step::SendMint => {
                if may_fail(Fault::LostReply) {
                    outcomes.push(Outcome::LostBefore);
                }
                if may_fail(Fault::Page) {
                    outcomes.push(Outcome::Page);
                }
            }
            _ => {}
        }
        outcomes
    }

    /// The current time from the view of a process: the vendor's, or its own clock.
    pub fn time(&self, state: &State, index: usize) -> i8 {
        if self.rules.vendor_time { state.now as i8 } else { self.wall_clock(state, index) }
    }

    pub fn wall_clock(&self, state: &State, index: usize) -> i8 {
        state.now as i8 + self.skew.get(index).copied().unwrap_or(0)
    }

    fn begin(&self, state: &mut State, index: usize, kind: Kind, resource: usize) {
        if let Some(position) =
            self.calls.iter().position(|call| (call.0, call.1) == (kind, resource))
        {
            state.calls_left[position] -= 1;
        }
        let unsaved = state.processes[index].unsaved[resource];
        let row = state.slots[resource].row;
        let mut call = Call {
            kind,
            resource: resource as u8,
            step: Step::Lock,
            locked: false,
            known: None,
            record: None,
            fresh: None,
            offering: false,
            tombstone: 0,
            epoch: 0,
            outcome_unknown: false,
            called_invalid: false,
            hasty: false,
            sends: 0,
            tries: 0,
            refused: false,
            dropped: false,
            at: 0,
            steps: 0,
        };
        match kind {
            Kind::Refresh => {
                call.known = unsaved.map(|fresh| fresh.record).or(row).map(|record| record.token);
            }
            Kind::Mint => call.step = Step::Read,
            Kind::Consent => {
                if self.consent_revokes {
                    let of_resource = |grant: &&mut Grant| usize::from(grant.owner) == resource;
                    for grant in state.grants.iter_mut().flatten().filter(of_resource) {
                        grant.revoked = true;
                        grant.replays = false;
                    }
                }
                state.now += 1;
                let token = state.add_grant(resource, state.now);
                let began = self.time(state, index);
                let record =
                    self.record_of(state, index, token, began, state.slots[resource].epoch);
                call.fresh = Some(Fresh {
                    record,
                    source: Source::Consented,
                    owner: resource as u8,
                    tombstone: 0,
                });
            }
            Kind::Uninstalled => (call.at, call.step) = (UNINSTALLED_AT, Step::WriteNote),
            Kind::Installed => (call.at, call.step) = (INSTALLED_AT, Step::WriteNote),
            Kind::Access if !self.rules.calls_offer => call.step = Step::Unlock,
            Kind::Access | Kind::Delete | Kind::Import => {}
            Kind::Close => {
                state.processes[index].call = Some(call);
                self.close(state, index, 0);
                return;
            }
        }
        state.processes[index].call = Some(call);
    }

    /// Closes a process: retries the copies from a resource on, then ends.
    pub fn close(&self, state: &mut State, index: usize, from: usize) {
        let process = &mut state.processes[index];
        let next = (from..2).find(|resource| process.unsaved[*resource].is_some());
        match (next, &mut process.call) {
            (Some(resource), Some(call)) if self.rules.close_offers => {
                call.resource = resource as u8;
                call.step = Step::Lock;
                call.tries = 0;
            }
            _ => *process = Process { closed: true, ..Process::default() },
        }
    }
}
