//! The simulated API: single-use refresh tokens, with or without a replay window; mints; and
//! installations that begin, pause and end. It records every grant that it issues.

use std::collections::HashMap;
use std::time::Duration;

use super::world::{Profile, State};

pub const COMPANY: &str = "company1";
pub const LOCATIONS: [&str; 2] = ["location1", "location2"];
pub const RESOURCES: [&str; 3] = [COMPANY, LOCATIONS[0], LOCATIONS[1]];

/// The path of the requests that hosts send, which ends with the resource.
pub const PATH: &str = "/resources/";

/// The message for an access token that the API does not accept.
pub const INVALID: &str = "Invalid JWT";

const WINDOW: Duration = Duration::from_secs(30);

/// The lifetime of an access token.
pub const LIFE: Duration = Duration::from_secs(86_399);

/// A request as the API receives it.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    pub fields: HashMap<String, String>,
    pub bearer: Option<String>,
    /// The process that sent it.
    pub process: usize,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub body: String,
    /// The tokens that it carries.
    pub granted: Option<Saved>,
}

/// An access token that was issued.
pub struct Access {
    pub owner: String,
    pub chain: usize,
    pub dies: Duration,
    /// How far ahead the receiving process's clock was, in milliseconds.
    pub granter_offset_ms: i64,
    /// When the API ended it before its expiry.
    pub ended: Option<Duration>,
}

/// One grant: a refresh token and its successors.
pub struct Chain {
    pub owner: String,
    pub created: Duration,
    /// Whether it began with a user's consent rather than a mint.
    pub is_consented: bool,
    /// The current refresh token.
    pub tip: Option<String>,
    /// The process whose request began it.
    pub granted_to: usize,
    /// When a process first knew that the grant is stored.
    pub stored_at: Option<Duration>,
    /// When the API ended the grant.
    pub ended: Option<Duration>,
    /// When a host last accepted it by consent or import; `Duration::MAX` while it does so.
    pub adopted: Duration,
    /// The processes that received the response with the current refresh token.
    pub delivered: Vec<usize>,
}

impl Chain {
    /// Whether it was issued or accepted after `time`.
    pub fn began_after(&self, time: Duration) -> bool {
        self.created.max(self.adopted) > time
    }
}

struct Spent {
    at: Duration,
    reply: Reply,
}

struct Refresh {
    chain: usize,
    spent: Option<Spent>,
}

/// The API's state of the company or a location.
#[derive(Default)]
pub struct Resource {
    pub installed: bool,
    pub paused: bool,
}

pub struct Server {
    profile: Profile,
    pub resources: HashMap<&'static str, Resource>,
    pub access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    pub chains: Vec<Chain>,
    codes: HashMap<String, &'static str>,
    used_codes: HashMap<String, usize>,
    next: u64,
    /// When a mint was last refused because the app was not installed on the location.
    pub refused: HashMap<String, Duration>,
    /// Every token response that reached a process, with its owner's ID, as a host may have saved
    /// it.
    pub saved: Vec<Saved>,
}

/// The tokens of one response.
#[derive(Debug, Clone)]
pub struct Saved {
    pub owner: String,
    pub access_token: String,
    pub refresh_token: Option<String>,
    pub expires_at_ms: i64,
}

impl Server {
    pub fn new(profile: Profile) -> Server {
        let resources = RESOURCES.iter().map(|id| (*id, Resource::default())).collect();
        Server {
            profile,
            resources,
            access: HashMap::new(),
            refresh: HashMap::new(),
            chains: Vec::new(),
            codes: HashMap::new(),
            used_codes: HashMap::new(),
            next: 0,
            refused: HashMap::new(),
            saved: Vec::new(),
        }
    }

    /// A user consents, which installs the app. Returns the code of the redirect.
    pub fn consent(&mut self, owner: &'static str) -> String {
        self.next += 1;
        let code = format!("code{}", self.next);
        self.codes.insert(code.clone(), owner);
        self.resources.get_mut(owner).unwrap().installed = true;
        code
    }

    /// Removes the app and ends every grant of the installation. A location with its own consent
    /// survives the uninstallation of its company.
    pub fn uninstall(&mut self, owner: &'static str, now: Duration) {
        let Server { chains, resources, codes, .. } = self;
        let ends = |id: &str| id == owner || owner == COMPANY;
        for chain in chains.iter_mut().filter(|chain| ends(&chain.owner)) {
            if chain.owner == owner || !chain.is_consented {
                chain.ended.get_or_insert(now);
            }
        }
        for (id, resource) in resources {
            let has_own = chains.iter().any(|chain| chain.owner == *id && chain.ended.is_none());
            if ends(id) && !has_own {
                *resource = Resource::default();
            }
        }
        codes.retain(|_, id| *id != owner);
    }

    /// Whether the API accepts an access token.
    pub fn accepts(&self, access_token: &str, now: Duration) -> bool {
        self.access.get(access_token).is_some_and(|access| {
            now < access.dies && access.ended.is_none() && self.is_alive(access.chain)
        })
    }

    pub fn is_alive(&self, chain: usize) -> bool {
        self.chains[chain].ended.is_none()
    }

    /// Whether a saved response is of a grant that began with a user's consent.
    pub fn is_consented(&self, saved: &Saved) -> bool {
        let access = self.access.get(&saved.access_token);
        access.is_some_and(|access| self.chains[access.chain].is_consented)
    }

    /// The grant that was issued for a code.
    pub fn chain_of_code(&self, code: &str) -> Option<usize> {
        self.used_codes.get(code).copied()
    }

    /// Records that a response reached a process.
    pub fn delivered(&mut self, granted: Saved, process: usize) {
        if let Some(refresh_token) = &granted.refresh_token
            && let Some(refresh) = self.refresh.get(refresh_token)
        {
            let chain = &mut self.chains[refresh.chain];
            if chain.tip.as_ref() == Some(refresh_token) {
                chain.delivered.push(process);
            }
        }
        self.saved.push(granted);
    }

    fn grant(&mut self, now: Duration, chain: usize, offset_ms: i64, minted: bool) -> Reply {
        self.next += 1;
        let number = self.next;
        let owner = self.chains[chain].owner.clone();
        let access_token = format!("access{number}.{owner}");
        let refresh_token =
            (!minted || self.profile.minted_refresh).then(|| format!("refresh{number}.{owner}"));
        let named = match (owner == COMPANY, minted) {
            (true, _) => format!(r#""userType":"Company","companyId":"{COMPANY}""#),
            (false, false) => {
                format!(r#""userType":"Location","locationId":"{owner}","companyId":"{COMPANY}""#)
            }
            (false, true) => format!(r#""locationId":"{owner}""#),
        };
        let refresh = refresh_token
            .as_ref()
            .map(|text| format!(r#""refreshToken":"{text}","#))
            .unwrap_or_default();
        let body = format!(
            r#"{{"accessToken":"{access_token}","tokenType":"Bearer","expiresIn":86399,{refresh}"scope":"a b",{named}}}"#
        );
        let access = Access {
            owner: owner.clone(),
            chain,
            dies: now + LIFE,
            granter_offset_ms: offset_ms,
            ended: None,
        };
        self.access.insert(access_token.clone(), access);
        if let Some(text) = &refresh_token {
            self.refresh.insert(text.clone(), Refresh { chain, spent: None });
        }
        self.chains[chain].tip.clone_from(&refresh_token);
        self.chains[chain].delivered.clear();
        let expires_at_ms = super::world::wall_ms(now + LIFE);
        let granted = Some(Saved { owner, access_token, refresh_token, expires_at_ms });
        Reply { status: 200, body, granted }
    }

    /// Records that a process knows a refresh token to be stored.
    pub fn stored(&mut self, refresh_token: &str, now: Duration) {
        if let Some(refresh) = self.refresh.get(refresh_token) {
            self.chains[refresh.chain].stored_at.get_or_insert(now);
        }
    }

    fn begin(&mut self, owner: &str, granted_to: usize, now: Duration) -> usize {
        self.chains.push(Chain {
            owner: owner.to_owned(),
            created: now,
            is_consented: false,
            tip: None,
            granted_to,
            stored_at: None,
            ended: None,
            adopted: Duration::ZERO,
            delivered: Vec::new(),
        });
        self.chains.len() - 1
    }

    /// Processes a request.
    fn process(&mut self, call: &Call, now: Duration, offset_ms: i64) -> Reply {
        let field = |name: &str| call.fields.get(name).map(String::as_str).unwrap_or_default();
        match (call.path.as_str(), field("grantType")) {
            ("/oauth/token", "refresh_token") => {
                self.refresh(field("refreshToken"), now, offset_ms)
            }
            ("/oauth/token", "authorization_code") => match self.codes.remove(field("code")) {
                Some(owner) => {
                    let chain = self.begin(owner, call.process, now);
                    self.chains[chain].adopted = Duration::MAX;
                    self.chains[chain].is_consented = true;
                    self.used_codes.insert(field("code").to_owned(), chain);
                    self.grant(now, chain, offset_ms, false)
                }
                None => refusal(
                    401,
                    r#"{"error":"UnAuthorized!","error_description":"Authorization code not found"}"#,
                ),
            },
            ("/oauth/location-token", _) => self.mint(call, field("locationId"), now, offset_ms),
            (path, _) if path.starts_with(PATH) => match &call.bearer {
                Some(bearer) if self.accepts(bearer, now) => {
                    let owner = &self.access[bearer].owner;
                    Reply { status: 200, body: format!(r#"{{"owner":"{owner}"}}"#), granted: None }
                }
                _ => invalid(),
            },
            _ => refusal(404, r#"{"statusCode":404,"message":"Not Found"}"#),
        }
    }

    fn refresh(&mut self, text: &str, now: Duration, offset_ms: i64) -> Reply {
        let invalid = || {
            refusal(
                400,
                r#"{"statusCode":400,"message":"Invalid grant: refresh token is invalid"}"#,
            )
        };
        let Some(refresh) = self.refresh.get(text) else { return invalid() };
        let chain = refresh.chain;
        if !self.is_alive(chain) {
            return invalid();
        }
        if self.resources[self.chains[chain].owner.as_str()].paused {
            return refusal(400, r#"{"statusCode":400,"message":"Location is not active"}"#);
        }
        if let Some(spent) = &refresh.spent {
            let repeats = self.profile.window && now < spent.at + WINDOW;
            if !repeats {
                return invalid();
            }
            let reply = spent.reply.clone();
            // Each process computes the expiry with its own clock.
            let access = reply
                .granted
                .as_ref()
                .and_then(|granted| self.access.get_mut(&granted.access_token));
            if let Some(access) = access {
                access.granter_offset_ms = access.granter_offset_ms.max(offset_ms);
            }
            return reply;
        }
        let reply = self.grant(now, chain, offset_ms, false);
        self.refresh.get_mut(text).unwrap().spent = Some(Spent { at: now, reply: reply.clone() });
        reply
    }

    fn mint(&mut self, call: &Call, location: &str, now: Duration, offset_ms: i64) -> Reply {
        let bearer = call.bearer.as_deref().filter(|bearer| self.accepts(bearer, now));
        if bearer.is_none_or(|bearer| self.access[bearer].owner != COMPANY) {
            return invalid();
        }
        match self.resources.get(location) {
            Some(resource) if resource.installed && !resource.paused => {
                let chain = self.begin(location, call.process, now);
                self.grant(now, chain, offset_ms, true)
            }
            Some(resource) if resource.installed => {
                refusal(401, r#"{"statusCode":401,"message":"Location is not active"}"#)
            }
            _ => {
                self.refused.insert(location.to_owned(), now);
                refusal(
                    403,
                    r#"{"statusCode":403,"message":"The token does not have access to this location."}"#,
                )
            }
        }
    }
}

fn invalid() -> Reply {
    refusal(401, &format!(r#"{{"statusCode":401,"message":"{INVALID}"}}"#))
}

fn refusal(status: u16, body: &str) -> Reply {
    Reply { status, body: body.to_owned(), granted: None }
}

impl State {
    /// The API processes a request.
    pub fn processed(&mut self, call: &Call) -> Reply {
        let offset_ms = self.processes[call.process].farthest_ms;
        let now = self.now;
        let reply = self.server.process(call, now, offset_ms);
        self.say(|| {
            let sent = ["refreshToken", "code", "locationId"].map(|name| call.fields.get(name));
            let sent: Vec<&String> = sent.into_iter().flatten().collect();
            format!(
                "API {} {sent:?} of process {}: {} {}",
                call.path, call.process, reply.status, reply.body
            )
        });
        reply
    }

    /// Ends the grants of a location that stays installed: it can be connected again only by a
    /// mint.
    pub fn revoke(&mut self, id: &str) {
        let now = self.now;
        for chain in self.server.chains.iter_mut().filter(|chain| chain.owner == id) {
            chain.ended.get_or_insert(now);
        }
        self.say(|| format!("the grants of {id} end"));
    }

    /// Ends the access tokens of a resource, whose refresh tokens stay.
    pub fn end_access_tokens(&mut self, id: &str) {
        let now = self.now;
        for access in self.server.access.values_mut().filter(|access| access.owner == id) {
            access.ended.get_or_insert(now);
        }
        self.say(|| format!("the access tokens of {id} end"));
    }

    /// Processes the requests that arrive after their clients stopped waiting.
    pub fn deliver_late(&mut self) {
        while let Some(index) = self.late.iter().position(|(time, _)| *time <= self.now) {
            let (_, call) = self.late.swap_remove(index);
            self.processed(&call);
        }
    }
}
