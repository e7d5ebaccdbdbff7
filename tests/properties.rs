//! For any sequence of events: a returned token works, and a connection is lost only if that was
//! unavoidable and is reported.

use std::sync::Arc;
use std::time::Duration;

use ghl_oauth::config::StoreKind;
use ghl_oauth::internals::authorization::{CompleteParams, UrlParams};
use ghl_oauth::internals::clock::Clock;
use ghl_oauth::internals::{Client, Config, Status};
use ghl_oauth_emulator::{
    Decision, Emulator, Endpoint, FaultKind, GrantType, Options, Rule, Stage,
};
use proptest::prelude::*;

/// An event caused by the host, the server or the vendor.
#[derive(Debug, Clone)]
enum Act {
    Ask(Who),
    Refresh(Who),
    Maintain,
    Delete(Who),
    Consent,
    /// The next refreshes fail this way.
    Fault {
        times: u32,
        kind: Fault,
    },
    Pass {
        seconds: u64,
    },
    Revoke(Who),
    Pause {
        active: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Company,
    Location,
}

#[derive(Debug, Clone)]
enum Fault {
    ReplyLost,
    Reset,
    Broken,
    Failing,
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![Just(Who::Company), Just(Who::Location)]
}

fn act() -> impl Strategy<Value = Act> {
    let fault = prop_oneof![
        Just(Fault::ReplyLost),
        Just(Fault::Reset),
        Just(Fault::Broken),
        Just(Fault::Failing)
    ];
    prop_oneof![
        6 => who().prop_map(Act::Ask),
        3 => who().prop_map(Act::Refresh),
        2 => Just(Act::Maintain),
        1 => who().prop_map(Act::Delete),
        1 => Just(Act::Consent),
        4 => (1_u32..4, fault).prop_map(|(times, kind)| Act::Fault { times, kind }),
        4 => prop_oneof![Just(5_u64), Just(86_000), Just(86_400), Just(70_000), 1_u64..200_000]
            .prop_map(|seconds| Act::Pass { seconds }),
        1 => who().prop_map(Act::Revoke),
        1 => any::<bool>().prop_map(|active| Act::Pause { active }),
    ]
}

struct SharedClock(ghl_oauth_emulator::Clock, i64);

impl Clock for SharedClock {
    fn wall_ms(&self) -> i64 {
        self.0.now_ms()
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.0.now_ms().saturating_sub(self.1).unsigned_abs())
    }
}

/// The system under test, and the state of a simple model.
struct World {
    emulator: Emulator,
    client: Client,
    company: String,
    location: String,
    /// A refresh may have been processed without the client's knowledge, and the replay window has
    /// ended.
    may_be_lost: bool,
    /// The refresh token of the location was revoked: only its company can help.
    revoked: bool,
    company_held: bool,
    /// The client may have refreshes of unknown outcome.
    outcome_unknown: bool,
    /// The age of the unknown outcome in seconds.
    unknown_for: u64,
}

impl World {
    fn new(config: &dyn Fn(&mut Config)) -> World {
        let emulator =
            Emulator::start(Options { locations: 2, rate_limit: None, ..Options::default() })
                .unwrap();
        let mut settings = Config::new(emulator.client_id(), emulator.client_secret());
        settings.base_url = emulator.base_url();
        settings.authorize_url = emulator.authorize_url();
        settings.redirect_uri = Some(emulator.redirect_uri().to_owned());
        settings.scopes = vec!["oauth.readonly".into(), "oauth.write".into()];
        settings.retry.base_delay_ms = 0;
        // Enough for three attempts, but not for extended retries.
        settings.timeouts.total_ms = 1_500;
        config(&mut settings);
        let clock = emulator.clock();
        let began = clock.now_ms();
        let client = Client::with_clock(&settings, Arc::new(SharedClock(clock, began))).unwrap();
        let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());
        let mut world = World {
            emulator,
            client,
            company,
            location,
            may_be_lost: false,
            revoked: false,
            company_held: true,
            outcome_unknown: false,
            unknown_for: 0,
        };
        world.consent();
        world
    }

    fn id(&self, who: Who) -> &str {
        match who {
            Who::Company => &self.company,
            Who::Location => &self.location,
        }
    }

    fn consent(&mut self) {
        let link = self.client.authorization_url(UrlParams::default()).unwrap();
        let url = link["url"].as_str().unwrap();
        let redirect = self.emulator.consent(url, Decision::Company(self.company.clone())).unwrap();
        let params = serde_json::json!({"redirectUrl": redirect});
        let completed = self
            .client
            .authorization_complete(&serde_json::from_value::<CompleteParams>(params).unwrap());
        assert!(completed.is_ok(), "{completed:?}");
        self.may_be_lost = false;
        self.company_held = true;
    }

    fn perform(&mut self, act: &Act) {
        match act {
            Act::Ask(who) => {
                let asked = self.client.access_token(self.id(*who));
                self.check(asked);
            }
            Act::Refresh(who) => {
                let refreshed = self.client.token_refresh(self.id(*who));
                self.check(refreshed.and_then(|_| self.client.access_token(self.id(*who))));
            }
            Act::Maintain => {
                let report = self.client.tokens_maintain(&Default::default(), &|_| true).unwrap();
                self.outcome_unknown |= !report["failed"].as_array().unwrap().is_empty();
                self.see_failures();
            }
            Act::Delete(who) => {
                let _ = self.client.token_delete(self.id(*who));
                self.company_held &= *who == Who::Location;
            }
            Act::Consent => self.consent(),
            Act::Fault { times, kind } => {
                let rule =
                    Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).times(*times);
                let kind = match kind {
                    Fault::ReplyLost => FaultKind::ReplyLost,
                    Fault::Reset => FaultKind::Reset { stage: Stage::AfterProcessing },
                    Fault::Broken => FaultKind::TruncatedJson,
                    Fault::Failing => FaultKind::Status {
                        status: 500,
                        body: "<html>oops</html>".into(),
                        content_type: None,
                        headers: Vec::new(),
                        stage: Stage::BeforeProcessing,
                    },
                };
                self.emulator.inject(rule, kind);
            }
            Act::Pass { seconds } => {
                // An outcome that is still unknown may be lost at the end of the window.
                if self.outcome_unknown {
                    self.unknown_for += seconds;
                }
                self.may_be_lost |= self.unknown_for >= 30;
                self.emulator.clock().advance(Duration::from_secs(*seconds));
            }
            Act::Revoke(who) => {
                self.emulator.revoke_refresh_token(self.id(*who));
                self.may_be_lost |= *who == Who::Company;
                self.revoked |= *who == Who::Location;
            }
            Act::Pause { active } => self.emulator.set_location_active(&self.location, *active),
        }
    }

    /// A returned token must work, and an error must be explained by the events so far.
    fn check(&mut self, asked: Result<ghl_oauth::internals::secret::Secret, ghl_oauth::Error>) {
        match asked {
            Ok(token) => {
                assert!(
                    self.emulator.access_token_is_live(token.expose()),
                    "an expired token was returned"
                )
            }
            Err(error) => match error.status() {
                Status::Network | Status::Server | Status::Protocol | Status::Timeout => {
                    self.outcome_unknown = true
                }
                // A truncated refusal is unspecific and harmless.
                Status::LocationInactive | Status::NotFound | Status::InvalidRequest => {}
                Status::ReauthorizationRequired => {
                    let revoked = self.revoked && !self.company_held;
                    assert!(self.may_be_lost || revoked, "lost without cause: {error}");
                }
                other => panic!("{other:?}: {error}"),
            },
        }
        self.see_failures();
    }

    /// A failed refresh may be hidden from a caller who got the old token, or by the mint of a
    /// location.
    fn see_failures(&mut self) {
        self.outcome_unknown |= self.client.stats().unwrap()["tokens"]["failed"] != 0;
    }
}

fn holds(acts: &[Act], config: &dyn Fn(&mut Config)) {
    let mut world = World::new(config);
    for act in acts {
        world.perform(act);
    }
    // After the faults end, a new consent repairs everything.
    world.emulator.clear_faults();
    world.emulator.set_location_active(&world.location, true);
    world.emulator.clock().advance(Duration::from_secs(120));
    world.consent();
    for who in [Who::Company, Who::Location] {
        let token = world.client.access_token(world.id(who));
        let token = token.unwrap_or_else(|error| panic!("{who:?} after consent: {error}"));
        assert!(world.emulator.access_token_is_live(token.expose()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn returned_token_works_and_no_connection_is_lost_without_cause(
        acts in prop::collection::vec(act(), 1..25),
        durable in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        holds(&acts, &|config| {
            if durable {
                config.store.kind = StoreKind::Sqlite;
                config.store.path = Some(folder.path().join("tokens.db"));
            }
        });
    }
}
