//! One simulated process: the real parts of a client on the simulated store, network and clock, and
//! the calls of its host.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};

use super::disk::SimulatedStore;
use super::ledger::{By, Deletion, Measured, Owed};
use super::network::Network;
use super::server::{COMPANY, LOCATIONS, PATH, Saved};
use super::world::{EPOCH_MS, ProcessState, SimulatedClock, State, World, current_task};
use crate::api::Api;
use crate::authorization::{Authorization, CompleteParams};
use crate::clock::Clock;
use crate::config::Config;
use crate::deadline::{Cancellation, Deadline};
use crate::error::{Error, Result, Status};
use crate::event::Events;
use crate::request::Requests;
use crate::secret::Secret;
use crate::store::Store;
use crate::tokens::{
    AccessTokenParams, BulkMint, ImportParams, InstallationEvents, ListParams, MaintainParams,
    Maintenance, MintParams, Tokens, Transfer, WebhookOutcome,
};
use crate::webhook::{Verifier, WebhookParams, Webhooks};

const REDIRECT: &str = "https://app.example/back";

/// The private key that signs the simulated API's webhooks.
const WEBHOOK_KEY: [u8; 32] = [7; 32];

pub struct Process {
    pub index: usize,
    pub tokens: Arc<Tokens>,
    world: Arc<World>,
    authorization: Authorization,
    requests: Requests,
    webhooks: Webhooks,
    clock: Arc<dyn Clock>,
    cancellation: Arc<Cancellation>,
    total: Duration,
}

/// A webhook to be delivered.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub install: bool,
    pub resource_id: &'static str,
    pub company_id: Option<&'static str>,
    /// When the event happened, in milliseconds since the epoch.
    pub at_ms: Option<i64>,
    pub number: u64,
}

impl Delivery {
    /// Whether the host lets an INSTALL mint its token.
    fn mints(&self) -> bool {
        !self.number.is_multiple_of(4)
    }
}

/// The form in which a host imports a saved response.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// As the API sent it: `expiresIn`, without a timestamp.
    Answer,
    /// Without an expiry.
    Bare,
    /// With `expiresAt`.
    Dated,
    /// From an export, which says whether a location consented separately.
    Exported,
}

impl Process {
    /// Starts a process on the world's disk.
    pub fn start(world: &Arc<World>, offset_ms: i64) -> Arc<Process> {
        let (index, total, signed) = world.with(|state| {
            state.processes.push(ProcessState {
                crashed: false,
                ending: false,
                closed_in_trouble: false,
                offset_ms,
                farthest_ms: offset_ms,
                lowest_ms: offset_ms,
                paused_until: Duration::ZERO,
                paused: Duration::ZERO,
                tasks: 0,
                store_trouble_until: Duration::ZERO,
                network_trouble_until: Duration::ZERO,
                store_faults: 0,
                store_worked_from: Duration::ZERO,
            });
            (state.processes.len() - 1, state.profile.total, state.profile.signed_webhooks)
        });
        let mut config = Config::new("app-1", "secret");
        config.redirect_uri = Some(REDIRECT.into());
        config.webhook.ed25519_public_keys.clear();
        if signed {
            let key = Ed25519KeyPair::from_seed_unchecked(&WEBHOOK_KEY).unwrap();
            let hex = key.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            config.webhook.ed25519_public_keys.push(hex);
        }
        let clock: Arc<dyn Clock> =
            Arc::new(SimulatedClock { world: Arc::clone(world), process: index });
        let store: Arc<dyn Store> =
            Arc::new(SimulatedStore { world: Arc::clone(world), process: index });
        let network = Network { world: Arc::clone(world), process: index };
        let api = Arc::new(Api::over(&config, &clock, Box::new(network)).unwrap());
        let events = Arc::new(Events::default());
        let observer = Arc::new(OnceLock::<Weak<Tokens>>::new());
        let observed = (Arc::clone(world), Arc::clone(&observer));
        events.listen(Some(Arc::new(move |event| {
            if let Some(tokens) = observed.1.get().and_then(Weak::upgrade) {
                observed.0.with(|state| {
                    state.check_event(index, event, |record| tokens.knows_failure(record));
                });
            }
        })));
        let tokens = Arc::new(Tokens::new(
            Arc::clone(&api),
            Arc::clone(&store),
            Arc::clone(&clock),
            events,
            config.refresh.clone(),
        ));
        let _ = observer.set(Arc::downgrade(&tokens));
        let verifier = Verifier::new(&config.webhook).unwrap();
        let of_webhooks = (Arc::clone(&tokens), Arc::clone(&clock));
        Arc::new(Process {
            index,
            requests: Requests::new(Arc::clone(&api), Arc::clone(&tokens)),
            authorization: Authorization::new(
                &config,
                api,
                Arc::clone(&tokens),
                Arc::clone(&clock),
            )
            .unwrap(),
            webhooks: Webhooks::new(&config, verifier, store, of_webhooks.0, of_webhooks.1),
            world: Arc::clone(world),
            tokens,
            clock,
            cancellation: Arc::default(),
            total,
        })
    }

    /// The deadline of a call, in some runs with a timeout of its own.
    fn deadline(&self) -> Deadline {
        match self.world.with(State::draw_timeout) {
            Some(timeout) => self.usual_deadline().with_timeout(timeout),
            None => self.usual_deadline(),
        }
    }

    fn usual_deadline(&self) -> Deadline {
        Deadline::by(&self.clock, self.total, &self.cancellation)
    }

    /// Makes one call and measures its time. Returns `None` if the process crashes during the call.
    fn measured<T>(
        &self,
        what: impl FnOnce() -> String,
        call: impl FnOnce() -> T,
    ) -> Option<(T, Measured)> {
        let look = || self.world.with(|state| (state.now, state.processes[self.index].paused));
        let name = self.world.with(|state| {
            let name = state.trace.is_some().then(what);
            state.say(|| {
                format!("process {} begins {}", self.index, name.as_deref().unwrap_or_default())
            });
            name
        });
        let (begin, paused) = look();
        let result = call();
        let (end, paused_then) = look();
        if self.world.is_crashed(self.index) {
            return None;
        }
        self.world.with(|state| {
            state.say(|| {
                format!("process {} ends {}", self.index, name.as_deref().unwrap_or_default())
            });
        });
        let took = (end - begin).saturating_sub(paused_then - paused);
        Some((result, Measured { task: current_task(), process: self.index, begin, took }))
    }

    pub fn ask(&self, resource_id: &'static str) -> Option<Result<Secret>> {
        let is_held = self.tokens.holds_valid(resource_id);
        let deadline = self.deadline();
        // An unsaved copy may replace the stored token, and a short timeout may end the call before
        // the store responds.
        let stored = (self.tokens.unsaved_count() == 0 && !deadline.has_timeout())
            .then(|| self.world.with(|state| state.stored_valid(resource_id)))
            .flatten();
        let call = || self.tokens.access_token(resource_id, || deadline.clone());
        let (answer, measured) = self.measured(|| format!("access_token {resource_id}"), call)?;
        self.world.with(|state| {
            state.say(|| {
                format!("access_token {resource_id}: {:?}", answer.as_ref().map(Secret::expose))
            });
            state.check_time("access_token", &measured, Duration::ZERO);
            state.check_timeout("access_token", &measured, deadline.total(), &answer);
            state.check_answer(resource_id, &measured, (is_held, stored.as_deref()), &answer);
        });
        Some(answer)
    }

    /// Asks for a token that is valid for some seconds.
    pub fn ask_for(&self, resource_id: &'static str, seconds: u64) {
        let params = AccessTokenParams {
            resource_id: resource_id.to_owned(),
            min_valid_seconds: Some(seconds),
        };
        let detail = format!("{resource_id} for {seconds} s");
        let call = |deadline: &Deadline| {
            let token = self.tokens.access_token_with(&params, deadline)?;
            Ok(Value::from(token.expose()))
        };
        let begin = self.world.now();
        let Some(Ok(token)) = self.checked("access_token", &detail, call) else { return };
        let token = token.as_str().unwrap_or_default();
        self.world.with(|state| {
            state.check_validity(resource_id, self.index, begin, token, seconds);
        });
    }

    /// Sends a request with the resource's token.
    pub fn request(&self, resource_id: &'static str) {
        let params = json!({
            "method": "GET", "path": format!("{PATH}{resource_id}"), "resourceId": resource_id,
        });
        let params = serde_json::from_value(params).unwrap();
        let (begin, stored) = self.world.with(|state| (state.now, state.stored_live(resource_id)));
        let call = |deadline: &Deadline| {
            let response = self.requests.send(&params, deadline)?;
            Ok(serde_json::to_value(response).unwrap())
        };
        if let Some(answer) = self.checked("request", resource_id, call) {
            self.world.with(|state| {
                let is_readable = state.store_works_since(self.index, begin);
                let stored = stored.as_deref().filter(|_| is_readable);
                state.check_response(resource_id, stored, &answer);
            });
        }
    }

    pub fn refresh(&self, resource_id: &'static str) {
        let call = |deadline: &Deadline| self.tokens.refresh(resource_id, deadline);
        self.checked("refresh", resource_id, call);
    }

    /// Makes a call, and checks only its duration and that its error is not an internal one.
    fn checked(
        &self,
        what: &str,
        detail: &str,
        call: impl FnOnce(&Deadline) -> Result<Value>,
    ) -> Option<Result<Value>> {
        let deadline = self.deadline();
        let (answer, measured) =
            self.measured(|| format!("{what} {detail}"), || call(&deadline))?;
        self.world.with(|state| {
            state.ledger.attempts.remove(&measured.task);
            state.say(|| format!("{what} {detail}: {answer:?}"));
            state.check_time(what, &measured, Duration::ZERO);
            state.check_timeout(what, &measured, deadline.total(), &answer);
            if let Err(error) = &answer
                && error.status() == Status::Internal
            {
                state.violation(format!("{what} {detail}: {error}"));
            }
        });
        Some(answer)
    }

    pub fn list(&self) {
        self.checked("list", "", |deadline| {
            Transfer::of(&self.tokens).list(&ListParams::default(), deadline)
        });
    }

    pub fn export(&self) {
        self.checked("export", "", |deadline| {
            Transfer::of(&self.tokens).export(&ListParams::default(), deadline)
        });
    }

    /// Records that a deletion begins, which covers grants up to `from` or now; the returned
    /// closure records its end.
    fn deleting<'a>(
        &'a self,
        resource_ids: &'a [&'static str],
        by: By,
        from: Option<Duration>,
    ) -> impl FnOnce(bool) + 'a {
        let begin = from.unwrap_or_else(|| self.world.now());
        // Until it ends, the deletion may take effect at any time.
        let first = self.world.with(|state| {
            let first = state.ledger.deletions.len();
            for resource_id in resource_ids {
                state.ledger.deletions.push(Deletion {
                    resource_id: (*resource_id).to_owned(),
                    by,
                    process: self.index,
                    begin,
                    end: Duration::MAX,
                    done: false,
                });
            }
            first
        });
        move |done| {
            self.world.with(|state| {
                let now = state.now;
                for deletion in &mut state.ledger.deletions[first..first + resource_ids.len()] {
                    (deletion.end, deletion.done) = (now, done);
                }
            });
        }
    }

    pub fn delete(&self, resource_id: &'static str) {
        let resource_ids = [resource_id];
        let ended = self.deleting(&resource_ids, By::User, None);
        let call = |deadline: &Deadline| self.tokens.delete(resource_id, deadline);
        let outcome = self.checked("delete", resource_id, call);
        ended(matches!(outcome, Some(Ok(_))));
    }

    /// Completes a consent with the code of the redirect.
    pub fn complete(&self, owner: &'static str, code: &str) {
        let params = CompleteParams {
            redirect_url: Secret::new(format!("{REDIRECT}?code={code}&state=state-{code}")),
            state: Some(Secret::new(format!("state-{code}"))),
            allow_missing_state: false,
            redirect_uri: None,
            user_type: None,
        };
        let call = |deadline: &Deadline| self.authorization.complete(&params, deadline);
        let outcome = self.checked("complete", owner, call);
        self.world.with(|state| {
            let now = state.now;
            if let (Some(Ok(_)), Some(chain)) = (outcome, state.server.chain_of_code(code)) {
                state.server.chains[chain].adopted = now;
                state.ledger.forget_ages_in(self.index);
                // A concurrent deletion may take effect after the consent.
                let since = state.server.chains[chain].created;
                state.ledger.owed.push(Owed {
                    resource_id: owner.into(),
                    chain,
                    since,
                    has_origin: true,
                    is_dated: true,
                });
            }
        });
    }

    pub fn import(&self, saved: &Saved, form: Form, under: Option<&str>) {
        let owner = under.unwrap_or(&saved.owner).to_owned();
        let mut token = json!({"accessToken": saved.access_token, "companyId": COMPANY});
        if let Some(refresh_token) = &saved.refresh_token {
            token["refreshToken"] = refresh_token.as_str().into();
        }
        if owner == COMPANY {
            token["userType"] = "Company".into();
        } else {
            token["userType"] = "Location".into();
            token["locationId"] = owner.as_str().into();
        }
        match form {
            Form::Answer => token["expiresIn"] = 86_399.into(),
            Form::Bare => {}
            Form::Dated | Form::Exported => token["expiresAt"] = saved.expires_at_ms.into(),
        }
        let is_dated = matches!(form, Form::Dated | Form::Exported);
        let is_exported = matches!(form, Form::Exported) && under.is_none();
        if is_exported && self.world.with(|state| state.server.is_consented(saved)) {
            token["ownConsent"] = true.into();
        }
        let Value::Object(token) = token else { return };
        let begin = self.world.now();
        let chain = self.world.with(|state| {
            state.ledger.batches += 1;
            if under.is_some() {
                state.ledger.misfiled.extend([owner.clone(), COMPANY.to_owned()]);
            }
            if state.ledger.is_skewed {
                state.ledger.imported_skewed.insert(owner.clone());
            }
            let chain = state.server.access.get_mut(&saved.access_token).map(|access| {
                // The host saved it with its true expiry.
                access.granter_offset_ms = access.granter_offset_ms.max(0);
                access.chain
            });
            if let Some(chain) = chain {
                state.server.chains[chain].adopted = Duration::MAX;
            }
            state.ledger.forget_age(&saved.access_token);
            if under.is_some() || !is_dated {
                state.ledger.mistold.insert(saved.access_token.clone());
            }
            let held = state.disk.records.get(&owner);
            // The import of a newer token ends the stored one, even if the newer one is of no use.
            let is_newer =
                is_dated && held.is_some_and(|held| held.token.expires_at < saved.expires_at_ms);
            (chain, is_exported || held.is_some_and(|held| held.own_consent), is_newer)
        });
        let (chain, has_origin, is_newer) = chain;
        let params = ImportParams { tokens: vec![token], ..ImportParams::default() };
        let call = |whole: &Deadline| {
            Transfer::of(&self.tokens).import(params, || whole.renewed(self.total))
        };
        let detail = format!("{form:?} {} as {owner}", saved.access_token);
        let outcome = self.checked("import", &detail, call);
        self.world.with(|state| {
            let now = state.now;
            state.ledger.batches -= 1;
            let Some(chain) = chain else { return };
            let Some(outcome) = outcome else { return };
            // Under another owner it outlives the deletion of its own, and may return to that.
            state.server.chains[chain].adopted = if under.is_some() { Duration::MAX } else { now };
            let is_taken = outcome.is_ok_and(|report| report["imported"] == 1);
            let is_good = saved.refresh_token.is_some()
                && state.server.chains[chain].tip == saved.refresh_token;
            if is_taken && is_newer {
                state.ledger.owed.retain(|owed| owed.resource_id != owner);
            }
            if is_taken && under.is_none() && is_good {
                state.ledger.owed.push(Owed {
                    resource_id: owner,
                    chain,
                    since: begin,
                    has_origin,
                    is_dated,
                });
            }
        });
    }

    pub fn maintain(&self, concurrency: i64) {
        let params = MaintainParams { concurrency: Some(concurrency), ..MaintainParams::default() };
        self.over_many("maintain", |deadline| {
            Maintenance::of(&self.tokens).run(&params, &|_| true, deadline)
        });
    }

    /// Mints for every location, with two workers; in runs with requests also with one, and tokens
    /// that are not due.
    pub fn mint_all(&self) {
        let (concurrency, force) = self.world.with(|state| match state.profile.requests {
            true => (state.rng.pick(&[1, 2]), state.rng.chance(30)),
            false => (2, false),
        });
        let params = MintParams {
            company_id: COMPANY.into(),
            location_ids: Some(LOCATIONS.map(str::to_owned).to_vec()),
            installed: false,
            app_id: None,
            force,
            concurrency: Some(concurrency),
        };
        let forced = self.world.with(|state| {
            state.ledger.batches += 1;
            force.then(|| {
                state.ledger.forced.push([state.now, Duration::MAX]);
                state.ledger.forced.len() - 1
            })
        });
        self.over_many("mint_all", |deadline| {
            BulkMint::of(&self.tokens).run(params, &|_| true, deadline)
        });
        self.world.with(|state| {
            state.ledger.batches -= 1;
            if let Some(index) = forced {
                state.ledger.forced[index][1] = state.now;
            }
        });
    }

    /// Makes a call over many tokens, whose duration only a timeout limits.
    fn over_many(
        &self,
        what: &str,
        call: impl FnOnce(&(dyn Fn() -> Deadline + Sync)) -> Result<Value>,
    ) {
        let whole = self.deadline();
        let call = || call(&|| whole.renewed(self.total));
        let Some((answer, measured)) = self.measured(|| what.into(), call) else { return };
        self.world.with(|state| {
            state.ledger.attempts.remove(&measured.task);
            state.say(|| format!("{what}: {answer:?}"));
            if whole.has_timeout() {
                state.check_time(what, &measured, whole.total());
            }
            if let Err(error) = &answer
                && error.status() == Status::Internal
            {
                state.violation(format!("{what}: {error}"));
            }
        });
    }

    pub fn cancel(&self) {
        self.cancellation.raise();
        self.tokens.wake_all();
    }

    /// Closes the client after its other calls have ended, as a host does before it frees the
    /// client.
    pub fn close(&self) {
        while self.world.with(|state| state.processes[self.index].tasks > 1) {
            if !self.world.step(self.index, Duration::from_millis(50)) {
                return;
            }
        }
        let is_in_trouble =
            || self.world.with(|state| state.now < state.processes[self.index].store_trouble_until);
        let in_trouble = is_in_trouble();
        let call = || self.tokens.close(&self.usual_deadline());
        let Some(((), measured)) = self.measured(|| "close".into(), call) else { return };
        let unsaved = self.tokens.unsaved_count();
        self.world.with(|state| {
            let in_trouble =
                in_trouble || state.now < state.processes[self.index].store_trouble_until;
            state.processes[self.index].closed_in_trouble = in_trouble;
            state.check_time("close", &measured, Duration::from_secs(5));
            if unsaved > 0 && !in_trouble {
                state.violation(format!(
                    "process {} was closed with {unsaved} unsaved tokens",
                    self.index
                ));
            }
        });
    }

    /// Delivers a webhook.
    pub fn webhook(&self, delivery: &Delivery) {
        let by = By::Webhook { of: delivery.resource_id, dated: delivery.at_ms.is_some() };
        let all = super::server::RESOURCES;
        let ends: &[&'static str] = match delivery.install {
            true => &[],
            false if delivery.resource_id == COMPANY => &all[..],
            false => std::slice::from_ref(&delivery.resource_id),
        };
        // Tokens issued before the UNINSTALL must be deleted, even if the call reports an error.
        let from = delivery.at_ms.map(|at_ms| Duration::from_millis(at_ms.abs_diff(EPOCH_MS)));
        let ended = self.deleting(ends, by, from);
        let signed = self.world.with(|state| state.profile.signed_webhooks);
        let call = |deadline: &Deadline| match signed {
            true => self.apply_signed(delivery, deadline),
            false => self.apply(delivery, deadline),
        };
        let outcome = self.checked("webhook", &format!("{delivery:?}"), call);
        let is_done = |verdict: &Value| {
            delivery.resource_id != COMPANY && (from.is_some() || verdict["applied"] == true)
        };
        ended(matches!(&outcome, Some(Ok(verdict)) if is_done(verdict)));
        self.world.with(|state| state.ledger.forget_ages_in(self.index));
        if delivery.install && matches!(outcome, Some(Ok(_))) {
            self.world.with(|state| {
                let told = &mut state.ledger.was_told_installed;
                told.insert(delivery.resource_id.to_owned(), state.now);
            });
        }
    }

    fn apply(&self, delivery: &Delivery, deadline: &Deadline) -> Result<Value> {
        let at_ms = delivery.at_ms.unwrap_or_else(|| self.clock.wall_ms());
        let (id, mints) = (delivery.resource_id, delivery.mints());
        let events = InstallationEvents::of(&self.tokens);
        let WebhookOutcome { applied, reason } = match (delivery.install, id == COMPANY) {
            (true, _) => {
                events.location_installed(id, delivery.company_id, at_ms, mints, deadline)?
            }
            (false, false) => events.location_uninstalled(id, at_ms, mints, deadline)?,
            (false, true) => events.company_uninstalled(id, at_ms, deadline)?,
        };
        Ok(json!({"applied": applied, "reason": reason}))
    }

    fn apply_signed(&self, delivery: &Delivery, deadline: &Deadline) -> Result<Value> {
        let mut body = Map::new();
        body.insert("type".into(), if delivery.install { "INSTALL" } else { "UNINSTALL" }.into());
        body.insert("appId".into(), "app".into());
        let is_company = delivery.resource_id == COMPANY;
        body.insert(
            if is_company { "companyId" } else { "locationId" }.into(),
            delivery.resource_id.into(),
        );
        if let Some(company_id) = delivery.company_id {
            body.insert("companyId".into(), company_id.into());
        }
        if let Some(at_ms) = delivery.at_ms {
            body.insert("timestamp".into(), at_ms.into());
            body.insert("webhookId".into(), format!("webhook{}", delivery.number).into());
        }
        let body = Value::Object(body).to_string();
        let key = Ed25519KeyPair::from_seed_unchecked(&WEBHOOK_KEY)
            .map_err(|_| Error::new(Status::Internal, "the key of the webhooks"))?;
        use base64::Engine;
        let signature = base64::engine::general_purpose::STANDARD.encode(key.sign(body.as_bytes()));
        let headers = json!({"x-ghl-signature": signature}).to_string();
        let headers = serde_json::from_str(&headers)
            .map_err(|_| Error::new(Status::Internal, "the headers of the webhooks"))?;
        let params = WebhookParams { mint: Some(delivery.mints()) };
        self.webhooks.apply(body.as_bytes(), &headers, &params, deadline)
    }
}
