//! The steps of a call: each is one operation on the store or one request.

use super::protocol::{INSTALLED_AT, Outcome};
use super::rules::{FirstSave, Kind, Scenario};
use super::state::{
    Broken, Call, Fresh, Grant, LOCATION, Note, Record, Source, State, Step, Token,
};

/// The maximum number of steps of a call.
const MAX_STEPS: u8 = 40;

impl Scenario {
    /// A record with a new token. Fields that the active rules never read stay zero, to reduce the
    /// number of states.
    pub fn record_of(
        &self,
        state: &State,
        index: usize,
        token: Token,
        began: i8,
        epoch: u8,
    ) -> Record {
        let skew = self.skew.get(index).copied().unwrap_or(0);
        Record {
            token,
            version: 0,
            intent: false,
            lost: false,
            began,
            issued: if self.rules.uninstall_by_beginning {
                0
            } else {
                self.wall_clock(state, index)
            },
            expires: if self.rules.conflict_by_content { 0 } else { state.issued() + skew },
            epoch,
        }
    }

    pub fn step(&self, state: &mut State, index: usize, outcome: Outcome) {
        let Some(mut call) = state.processes[index].call else { return };
        call.steps += 1;
        if call.steps > MAX_STEPS {
            state.broken = Some(Broken::Endless);
        }
        let resource = usize::from(call.resource);
        match call.step {
            Step::WriteNote => self.write_note(state, &mut call),
            Step::Lock => {
                call.locked = outcome == Outcome::Normal;
                if call.locked {
                    state.slots[resource].lock = Some(index as u8);
                }
                let offers = !matches!(call.kind, Kind::Delete | Kind::Consent);
                match state.processes[index].unsaved[resource] {
                    Some(unsaved) if offers => {
                        (call.fresh, call.offering, call.step) = (Some(unsaved), true, Step::Save);
                    }
                    _ => call.step = after_lock(&call),
                }
            }
            Step::Read => self.read(state, index, &mut call),
            Step::RecordIntent => self.record_intent(state, index, &mut call, outcome),
            Step::Send => self.send(state, index, &mut call, outcome),
            Step::Save => self.save(state, index, &mut call, outcome),
            Step::ResolveConflict => self.resolve(state, index, &mut call),
            Step::ReadTombstoneAgain => {
                if let Some(fresh) = call.fresh {
                    let slot = &mut state.slots[usize::from(fresh.owner)];
                    if slot.tombstone != fresh.tombstone {
                        if slot.row.is_some_and(|row| row.version == fresh.record.version) {
                            (slot.row, slot.durable) = (None, None);
                        }
                        call.dropped = true;
                    }
                }
                self.after_save(&mut call);
            }
            Step::CompareVerdict => {
                let row = state.slots[resource].row;
                call.step = match (row, call.record) {
                    (Some(row), Some(record)) if row.token != record.token => Step::Unlock,
                    (None, _) => Step::Unlock,
                    _ if resource == LOCATION => {
                        call.tombstone = state.slots[resource].tombstone;
                        call.epoch = state.slots[resource].epoch;
                        Step::SendMint
                    }
                    _ => {
                        self.judge_verdict(state, &mut call);
                        Step::WriteVerdict
                    }
                };
            }
            Step::SendMint => self.send_mint(state, index, &mut call, outcome),
            Step::WriteVerdict => {
                let row = state.slots[resource].row;
                if let (Some(row), Some(record)) = (row, call.record)
                    && row.version == record.version
                {
                    if call.hasty {
                        state.broken = Some(Broken::HastyVerdict);
                    }
                    let record =
                        Record { lost: true, intent: false, version: row.version + 1, ..row };
                    self.write(state, resource, record, true);
                }
                call.step = Step::Unlock;
            }
            Step::WriteTombstone => {
                self.write_tombstone(state, &mut call);
                if self.rules.atomic_deletion {
                    self.remove(state, index, &mut call);
                } else {
                    call.step = Step::Remove;
                }
            }
            Step::Remove => self.remove(state, index, &mut call),
            Step::ClearNote => {
                if let Some(note) = &mut state.slots[resource].note {
                    note.due &= !note.installed;
                }
                call.step = Step::Unlock;
            }
            Step::Unlock => {
                self.end(state, index, call);
                return;
            }
        }
        state.processes[index].call = Some(call);
    }

    /// The last step releases the lock.
    fn end(&self, state: &mut State, index: usize, call: Call) {
        let resource = usize::from(call.resource);
        let slot = &mut state.slots[resource];
        if call.locked && slot.lock == Some(index as u8) {
            slot.lock = None;
        }
        let touches = matches!(
            call.kind,
            Kind::Refresh | Kind::Access | Kind::Import | Kind::Installed | Kind::Uninstalled
        );
        if touches && !call.refused && state.processes[index].unsaved[resource].is_some() {
            state.broken = state.broken.or(Some(Broken::NotOffered));
        }
        match call.kind {
            Kind::Close => {
                state.processes[index].call = Some(Call { locked: false, ..call });
                self.close(state, index, resource + 1);
                return;
            }
            Kind::Uninstalled => (state.webhooks[0], state.processed[0]) = (false, true),
            Kind::Installed => (state.webhooks[1], state.processed[1]) = (false, true),
            _ => {}
        }
        state.processes[index].call = None;
    }

    fn write_note(&self, state: &mut State, call: &mut Call) {
        let slot = &mut state.slots[usize::from(call.resource)];
        let installed = call.kind == Kind::Installed;
        let is_later =
            slot.note.is_none_or(|note| (call.at, installed) > (note.at, note.installed));
        if is_later {
            slot.note = Some(Note { at: call.at, installed, due: installed });
        }
        let is_outdated = installed && slot.note.is_some_and(|note| !note.installed);
        call.step = if is_outdated { Step::Unlock } else { Step::Lock };
    }

    fn read(&self, state: &mut State, index: usize, call: &mut Call) {
        let resource = usize::from(call.resource);
        let slot = state.slots[resource];
        let row = slot.row;
        (call.tombstone, call.epoch) = (slot.tombstone, slot.epoch);
        let is_unsaved = state.processes[index].unsaved[resource].is_some();
        call.step = match call.kind {
            // The token is used from memory; an unsaved import or refresh spends nothing.
            Kind::Refresh | Kind::Import | Kind::Installed if is_unsaved => Step::Unlock,
            Kind::Refresh => match row {
                None if resource == LOCATION => {
                    call.record = None;
                    Step::SendMint
                }
                None => Step::Unlock,
                Some(row) if row.lost || Some(row.token) != call.known => Step::Unlock,
                Some(row) => {
                    call.record = Some(row);
                    call.epoch = row.epoch;
                    call.outcome_unknown |= row.intent;
                    if self.rules.intent { Step::RecordIntent } else { Step::Send }
                }
            },
            Kind::Mint => {
                call.record = row;
                Step::SendMint
            }
            Kind::Consent => {
                if let Some(fresh) = &mut call.fresh {
                    fresh.record.version = row.map_or(0, |row| row.version);
                    fresh.record.epoch = slot.epoch;
                    fresh.tombstone = slot.tombstone;
                }
                let began = call.fresh.map(|fresh| fresh.record.began);
                let is_newer = row.is_some_and(|row| began < Some(row.began));
                if is_newer && self.rules.later_beginning_wins {
                    call.fresh = None;
                    Step::Unlock
                } else {
                    Step::Save
                }
            }
            Kind::Import => {
                let of_resource =
                    |grant: &Option<Grant>| grant.is_some_and(|g| usize::from(g.owner) == resource);
                let first = state.grants.iter().position(of_resource).unwrap_or(0);
                let first = first + usize::from(self.foreign_import);
                let token = Token { grant: first as u8, generation: 0 };
                let keeps = self.rules.import_keeps_good && !self.replace;
                let is_spent = self.rules.spent_digests && slot.spent & digest(token) != 0;
                let is_good = row.is_some_and(|row| !row.lost);
                if row.is_some_and(|row| row.token == token) || is_spent || (is_good && keeps) {
                    Step::Unlock
                } else {
                    let began = if self.replace { self.time(state, index) } else { 0 };
                    let mut record = self.record_of(state, index, token, began, slot.epoch);
                    record.version = row.map_or(0, |row| row.version);
                    call.fresh = Some(Fresh {
                        record,
                        source: Source::Imported,
                        owner: resource as u8,
                        tombstone: slot.tombstone,
                    });
                    Step::Save
                }
            }
            Kind::Installed => {
                let is_held = row.is_some_and(|row| {
                    !row.lost && (!self.rules.install_mints || row.began >= call.at)
                });
                call.record = row;
                if is_held { Step::ClearNote } else { Step::SendMint }
            }
            Kind::Uninstalled => {
                let begins = |row: &Record| {
                    if self.rules.uninstall_by_beginning { row.began } else { row.issued }
                };
                let installed_anew = slot.note.is_some_and(|note| note.installed);
                call.record = row;
                let unsaved = state.processes[index].unsaved[resource].map(|fresh| fresh.record);
                let compared =
                    if self.rules.uninstall_compares_each { row } else { unsaved.or(row) };
                match compared {
                    Some(record) if begins(&record) > call.at => Step::Unlock,
                    None if installed_anew => Step::SendMint,
                    _ => Step::WriteTombstone,
                }
            }
            Kind::Access | Kind::Delete | Kind::Close => Step::Unlock,
        };
    }

    fn record_intent(&self, state: &mut State, index: usize, call: &mut Call, outcome: Outcome) {
        let resource = usize::from(call.resource);
        if outcome == Outcome::Refused {
            call.refused = true;
            call.step = Step::Unlock;
            return;
        }
        let (Some(row), Some(record)) = (state.slots[resource].row, call.record) else {
            call.step = Step::Unlock;
            return;
        };
        if row.version == record.version {
            let unique = if self.rules.intent_version_is_unique { 32 << index } else { 0 };
            let version = row.version + 1 + unique;
            let record = Record { intent: true, version, ..record };
            self.write(state, resource, record, false);
            call.record = Some(record);
            call.step = Step::Send;
        } else {
            call.tries += 1;
            call.step = if call.tries < 3 { Step::Read } else { Step::Unlock };
        }
    }

    fn send(&self, state: &mut State, index: usize, call: &mut Call, outcome: Outcome) {
        let Some(record) = call.record else { return };
        call.sends += 1;
        let again = |call: &mut Call| {
            call.step = if call.sends < 3 { Step::Send } else { Step::Unlock };
        };
        let answer = match outcome {
            Outcome::LostBefore | Outcome::HastyInvalid => None,
            _ => self.spend(state, record.token),
        };
        if matches!(outcome, Outcome::LostBefore | Outcome::LostAfter) {
            call.outcome_unknown = true;
            again(call);
            return;
        }
        let Some(token) = answer else {
            let is_verdict =
                call.called_invalid || !(call.outcome_unknown || self.rules.two_refusals);
            call.called_invalid = true;
            if is_verdict {
                call.step = Step::CompareVerdict;
            } else {
                again(call);
            }
            return;
        };
        let named = state.grant(token).owner;
        let owner = if self.rules.answer_names_owner { named } else { call.resource };
        let fresh = self.record_of(state, index, token, record.began, record.epoch);
        // The record of another resource was not read: its version is unknown, and the first save
        // meets a conflict.
        let (version, tombstone) = match owner == call.resource {
            true => (record.version, call.tombstone),
            false => (u16::MAX, state.slots[usize::from(owner)].tombstone),
        };
        call.fresh = Some(Fresh {
            record: Record { version, ..fresh },
            source: Source::Refreshed { spent: record.token },
            owner,
            tombstone,
        });
        call.step = Step::Save;
    }

    /// The server's side of a refresh.
    fn spend(&self, state: &mut State, token: Token) -> Option<Token> {
        let is_live = state.is_live(token);
        if !is_live && !state.is_recoverable(token) {
            return None;
        }
        let grant = state.grants[usize::from(token.grant)].as_mut()?;
        if is_live {
            grant.newest += 1;
            grant.replays = self.window;
        }
        Some(Token { generation: grant.newest, ..token })
    }

    fn send_mint(&self, state: &mut State, index: usize, call: &mut Call, outcome: Outcome) {
        let resource = usize::from(call.resource);
        let is_after_refusal = call.called_invalid && call.kind == Kind::Refresh;
        let refused = if is_after_refusal { Step::WriteVerdict } else { Step::Unlock };
        match outcome {
            Outcome::Page => {
                call.step = if self.rules.only_api_words { Step::Unlock } else { refused };
            }
            Outcome::Normal if state.can_mint() => {
                let began = if state.now >= INSTALLED_AT as u8 { INSTALLED_AT as u8 } else { 1 };
                let token =
                    state.add_grant(resource, if self.reinstalls { began } else { state.now });
                let noted =
                    state.slots[resource].note.filter(|note| note.installed).map(|note| note.at);
                let began = noted.unwrap_or_else(|| self.time(state, index));
                let record = self.record_of(state, index, token, began, call.epoch);
                let version = call.record.map_or(0, |record| record.version);
                let replaced = call.record.map(|record| record.token);
                call.fresh = Some(Fresh {
                    record: Record { version, ..record },
                    source: Source::Minted { replaced },
                    owner: resource as u8,
                    tombstone: call.tombstone,
                });
                call.step = Step::Save;
            }
            Outcome::Normal => call.step = refused,
            _ => call.step = Step::Unlock,
        }
        if call.step == Step::WriteVerdict {
            self.judge_verdict(state, call);
        }
    }

    fn save(&self, state: &mut State, index: usize, call: &mut Call, outcome: Outcome) {
        let Some(fresh) = call.fresh else { return };
        let owner = usize::from(fresh.owner);
        let slot = state.slots[owner];
        let spent = match fresh.source {
            Source::Refreshed { spent } => Some(spent),
            _ => None,
        };
        if outcome == Outcome::Refused {
            call.refused = true;
            self.keep_unsaved(state, index, call, fresh);
        } else if self.is_accepted(state, &fresh) {
            let version = match slot.row {
                Some(row) => row.version + 1,
                None if self.rules.versions_continue => slot.tombstone + 1,
                None => 1,
            };
            let is_first = slot.row.is_none();
            let record = Record { version, ..fresh.record };
            self.write(state, owner, record, true);
            if self.rules.spent_digests {
                state.slots[owner].spent |= spent.map_or(0, digest);
            }
            state.processes[index].unsaved[owner] = None;
            if outcome == Outcome::LostAck {
                call.refused = true;
                self.keep_unsaved(state, index, call, fresh);
                return;
            }
            if is_first && self.rules.first_save == FirstSave::ReadsAgain {
                call.fresh = Some(Fresh { record, ..fresh });
                call.step = Step::ReadTombstoneAgain;
            } else {
                self.after_save(call);
            }
        } else {
            call.tries += 1;
            if call.tries > 4 && call.kind != Kind::Close {
                call.refused = true;
                self.keep_unsaved(state, index, call, fresh);
            } else {
                call.step = Step::ResolveConflict;
            }
        }
    }

    /// An unsaved token stays in memory; an import can be repeated.
    fn keep_unsaved(&self, state: &mut State, index: usize, call: &mut Call, fresh: Fresh) {
        if fresh.source != Source::Imported {
            state.processes[index].unsaved[usize::from(fresh.owner)] = Some(fresh);
        }
        self.after_save(call);
    }

    fn resolve(&self, state: &mut State, index: usize, call: &mut Call) {
        let Some(fresh) = call.fresh else { return };
        let owner = usize::from(fresh.owner);
        let slot = state.slots[owner];
        let ours = fresh.record;
        let base = match (slot.row, fresh.source) {
            (_, Source::Imported) => {
                (call.fresh, call.step) = (None, Step::Read);
                return;
            }
            (None, _) => {
                let drops = if call.offering {
                    self.rules.deleted_copy_dropped
                } else {
                    self.rules.conflict_by_content
                };
                call.dropped |= drops;
                (!drops).then_some(0)
            }
            (Some(row), _) if !self.rules.conflict_by_content => {
                (row.lost || row.expires <= ours.expires).then_some(row.version)
            }
            (Some(row), source) => {
                let is_replaced = match source {
                    Source::Refreshed { spent } => row.token == spent,
                    Source::Minted { replaced } => Some(row.token) == replaced,
                    Source::Consented | Source::Imported => false,
                };
                let is_deleted = slot.tombstone != fresh.tombstone;
                let is_later = self.rules.later_beginning_wins && ours.began > row.began;
                call.dropped |= is_deleted && !is_replaced;
                (is_replaced || (is_later && !is_deleted)).then_some(row.version)
            }
        };
        // The successor of a token imported after a deletion counts from the time of the import.
        let epoch = match (slot.row, fresh.source) {
            (Some(row), Source::Refreshed { spent }) if row.token == spent => row.epoch,
            _ => ours.epoch,
        };
        match base {
            Some(version) => {
                call.fresh = Some(Fresh {
                    record: Record { version, epoch, ..ours },
                    tombstone: if version == 0 { slot.tombstone } else { fresh.tombstone },
                    ..fresh
                });
                call.step = Step::Save;
            }
            None => {
                state.processes[index].unsaved[owner] = None;
                self.after_save(call);
            }
        }
    }

    fn after_save(&self, call: &mut Call) {
        let fresh = call.fresh.take();
        if call.offering {
            call.offering = false;
            call.dropped = false;
            call.tries = 0;
            call.step = after_lock(call);
            return;
        }
        let is_stored = !call.dropped && !call.refused;
        call.step = match call.kind {
            // The response belonged to another resource: this location still needs a token.
            Kind::Refresh if fresh.is_some_and(|fresh| fresh.owner != call.resource) => {
                Step::SendMint
            }
            Kind::Installed | Kind::Uninstalled
                if is_stored || !self.rules.dropped_mint_stays_due =>
            {
                Step::ClearNote
            }
            _ => Step::Unlock,
        };
    }

    fn write_tombstone(&self, state: &mut State, call: &mut Call) {
        let slot = &mut state.slots[usize::from(call.resource)];
        slot.epoch += 1;
        call.epoch = slot.epoch;
        if slot.row.is_some() || self.rules.tombstone_without_row {
            slot.tombstone = (slot.tombstone + 1).max(slot.row.map_or(0, |row| row.version));
        }
        call.tombstone = slot.tombstone;
    }

    fn remove(&self, state: &mut State, index: usize, call: &mut Call) {
        let resource = usize::from(call.resource);
        let row = state.slots[resource].row;
        let is_uninstall = call.kind == Kind::Uninstalled;
        let unsaved = state.processes[index].unsaved[resource];
        let is_compared = row.map(|row| row.version) == call.record.map(|record| record.version);
        if is_uninstall && self.rules.conditional_removal && !is_compared {
            call.step = Step::Read;
            return;
        }
        let is_later = |record: Record| state.grant(record.token).began as i8 > call.at;
        let stays = unsaved
            .filter(|copy| self.rules.uninstall_compares_each && copy.record.began > call.at);
        let ends = unsaved.filter(|_| stays.is_none()).map(|copy| copy.record);
        if is_uninstall && row.into_iter().chain(ends).any(is_later) {
            state.broken = Some(Broken::EndedByOldUninstall);
        }
        let slot = &mut state.slots[resource];
        if let Some(row) = row {
            slot.tombstone = slot.tombstone.max(row.version);
        }
        (slot.row, slot.durable) = (None, None);
        slot.deleted = slot.deleted.max(call.epoch);
        // A copy of the later installation is then a first record.
        let record = |copy: Fresh| Record { version: 0, epoch: slot.epoch, ..copy.record };
        state.processes[index].unsaved[resource] = stays
            .filter(|_| is_uninstall)
            .map(|copy| Fresh { record: record(copy), tombstone: slot.tombstone, ..copy });
        let installed_anew = slot.note.is_some_and(|note| note.installed);
        (call.record, call.tombstone, call.epoch) = (None, slot.tombstone, slot.epoch);
        call.step = if is_uninstall && installed_anew { Step::SendMint } else { Step::Unlock };
    }

    /// The condition of the save of a new token: the stored state is still its base.
    pub fn is_accepted(&self, state: &State, fresh: &Fresh) -> bool {
        let slot = &state.slots[usize::from(fresh.owner)];
        match slot.row {
            Some(row) => row.version == fresh.record.version,
            None if fresh.record.version != 0 => false,
            None => {
                self.rules.first_save != FirstSave::NamesTombstone
                    || slot.tombstone == fresh.tombstone
            }
        }
    }

    /// Writes a row. `synced` means that it survives a power cut.
    fn write(&self, state: &mut State, resource: usize, record: Record, synced: bool) {
        let before = state.slots[resource].row;
        let changes = before.is_none_or(|before| before.token != record.token);
        if changes
            && before.is_some_and(|before| state.is_live(before.token))
            && !state.is_live(record.token)
        {
            state.broken = Some(Broken::Overwritten);
        }
        if changes && usize::from(state.grant(record.token).owner) != resource {
            state.broken = Some(Broken::Owner);
        }
        let slot = &mut state.slots[resource];
        slot.row = Some(record);
        if synced && self.forgets() {
            slot.durable = slot.row;
        }
    }
}

/// The next step of a call that has the lock and has retried its unsaved copy.
fn after_lock(call: &Call) -> Step {
    match call.kind {
        Kind::Refresh | Kind::Consent | Kind::Import | Kind::Installed | Kind::Uninstalled => {
            Step::Read
        }
        Kind::Mint => Step::Read,
        Kind::Delete => Step::WriteTombstone,
        Kind::Access | Kind::Close => Step::Unlock,
    }
}

/// The digest of a refresh token: one bit for each, with four generations per grant.
fn digest(token: Token) -> u32 {
    1 << (u32::from(token.grant) * 4 + u32::from(token.generation.min(3)))
}
