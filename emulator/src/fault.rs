//! Fault injection: rules that select requests, and the faults that are applied to them.

use crate::complaint::{self, Complaint};
use crate::gate::Gate;
use crate::random::Seeded;
use crate::refusal::Refusal;
use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// An endpoint of the API, as fault rules distinguish them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// Every request to the API, including those to unknown paths.
    #[default]
    Any,
    /// `POST /oauth/token`
    Token,
    /// `POST /oauth/location-token`
    LocationToken,
    /// `GET /oauth/installed-locations`
    InstalledLocations,
    /// `GET /locations/{locationId}`
    Location,
}

/// The grant type of a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    /// A code from the consent page.
    AuthorizationCode,
    /// A refresh token.
    RefreshToken,
    /// The client's own credentials.
    ClientCredentials,
}

/// Selects the requests that a fault applies to.
///
/// ```
/// use ghl_oauth_emulator::{Endpoint, GrantType, Rule};
///
/// // The second refresh from now on, and no other.
/// let rule = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).skip(1).times(1);
/// # assert_eq!(rule.count, Some(1));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// Only requests to this endpoint.
    pub endpoint: Endpoint,
    /// Only token requests with this grant type.
    pub grant_type: Option<GrantType>,
    /// Only requests about this location or company: the one in the request, or the owner of the
    /// access token if the request names none.
    pub resource_id: Option<String>,
    /// How many matching requests pass before the fault applies.
    pub skip: u32,
    /// How many requests the fault applies to; `None`: all.
    pub count: Option<u32>,
    /// The probability that the fault applies, from 0 to 1. The emulator's seed makes the sequence
    /// repeatable.
    pub probability: f64,
    /// Only while at least this many requests are in flight, this request included.
    pub in_flight: Option<usize>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::Any,
            grant_type: None,
            resource_id: None,
            skip: 0,
            count: None,
            probability: 1.0,
            in_flight: None,
        }
    }
}

impl Rule {
    /// Every request to an endpoint.
    pub fn on(endpoint: Endpoint) -> Self {
        Self { endpoint, ..Self::default() }
    }

    /// Only token requests with this grant type.
    #[must_use]
    pub fn grant_type(mut self, grant_type: GrantType) -> Self {
        self.grant_type = Some(grant_type);
        self
    }

    /// Only requests about this location or company.
    #[must_use]
    pub fn resource(mut self, resource_id: impl Into<String>) -> Self {
        self.resource_id = Some(resource_id.into());
        self
    }

    /// Lets the first `skip` matching requests pass.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Applies the fault this often, then never again.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// Applies the fault with this probability.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// Applies the fault only while at least this many requests are in flight, this request
    /// included.
    #[must_use]
    pub fn in_flight(mut self, requests: usize) -> Self {
        self.in_flight = Some(requests);
        self
    }

    fn matches(&self, target: &Target) -> bool {
        (self.endpoint == Endpoint::Any || Some(self.endpoint) == target.endpoint)
            && (self.grant_type.is_none() || self.grant_type == target.grant_type)
            && (self.resource_id.is_none() || self.resource_id == target.resource_id)
            && self.in_flight.is_none_or(|requests| target.in_flight >= requests)
    }
}

/// The properties of a request that a rule matches.
#[derive(Debug, Default)]
pub(crate) struct Target {
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) grant_type: Option<GrantType>,
    pub(crate) resource_id: Option<String>,
    /// How many requests are in flight, this one included.
    pub(crate) in_flight: usize,
}

/// Whether a fault applies before or after the request is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// The request is not processed: no token is used up.
    #[default]
    BeforeProcessing,
    /// The request is processed, but the client does not receive the regular response.
    AfterProcessing,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ending {
    /// A regular close: over TLS with `close_notify`.
    #[default]
    Close,
    /// A TCP close without the TLS `close_notify`.
    Cut,
    /// By a TCP reset.
    Reset,
    /// The connection stays open without further data until the client disconnects.
    Silence,
}

/// The effect of a fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FaultKind {
    /// Processes the request, then closes the connection without a response.
    ReplyLost,
    /// Resets the connection before the first byte of a response.
    Reset {
        /// Whether the request is processed first.
        #[serde(default)]
        stage: Stage,
    },
    /// Processes the request, sends the head of the response, and ends the connection within its
    /// body.
    CutBody {
        /// How many bytes of the body are sent.
        #[serde(default)]
        body_bytes: usize,
        /// How the connection ends.
        #[serde(default)]
        ending: Ending,
    },
    /// Holds the request until the fault is removed, then processes it normally.
    Stall {
        /// Whether the request is processed first.
        #[serde(default)]
        stage: Stage,
    },
    /// Processes the request, and sends the response one byte at a time.
    Drip {
        /// The pause before each byte, in milliseconds.
        every_ms: u64,
        /// Whether the head is sent at once and only the body byte by byte.
        #[serde(default)]
        body_only: bool,
    },
    /// Sends a custom response.
    Status {
        /// Its status.
        status: u16,
        /// Its body.
        #[serde(default)]
        body: String,
        /// Its `Content-Type`; by default JSON or HTML, depending on the body.
        #[serde(default)]
        content_type: Option<String>,
        /// Additional headers, such as `Retry-After`.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Whether the request is processed first.
        #[serde(default)]
        stage: Stage,
    },
    /// Refuses the request, without processing it, with an error response of the real API.
    Refusal {
        /// The error response.
        refusal: Refusal,
    },
    /// Processes the request, and sends the regular response with another status, such as 201
    /// instead of 200.
    ReplaceStatus {
        /// The status.
        status: u16,
    },
    /// Processes the request, and responds without a body.
    EmptyBody,
    /// Processes the request, and responds with the first half of the JSON in a complete HTTP
    /// message.
    TruncatedJson,
    /// Processes the request, and responds with plain text labelled as JSON.
    NotJson,
    /// Processes the request, and responds with numbers and booleans as strings.
    Stringified,
    /// Processes the request, and responds with values of the wrong type: numbers for strings,
    /// lists for numbers.
    WrongTypes,
    /// Processes the request, and responds with `snake_case` keys, as older versions did.
    SnakeCase,
    /// Processes the request, and responds with its JSON followed by spaces up to a size limit;
    /// still valid JSON.
    HugeBody {
        /// The size of the body.
        #[serde(default = "two_hundred_megabytes")]
        bytes: u64,
        /// Whether the body is sent without `Content-Length`.
        #[serde(default)]
        chunked: bool,
    },
    /// Processes the request, and responds with gzipped JSON although the client did not accept
    /// gzip.
    Gzip {
        /// Whether the response has a `Content-Encoding` header.
        #[serde(default)]
        marked: bool,
    },
    /// Processes the request, and responds with an oversized header section.
    HugeHead {
        /// The total size of the headers.
        #[serde(default = "one_megabyte")]
        bytes: usize,
        /// The number of header lines.
        #[serde(default = "one")]
        lines: usize,
    },
    /// Redirects the request without processing it.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The target URL; by default the URL of the request.
        #[serde(default)]
        location: Option<String>,
    },
    /// Responds with the transient 401 `Command timed out`, as any endpoint does under load. It
    /// says nothing about credentials or tokens.
    CommandTimedOut {
        /// Whether the request is processed first.
        #[serde(default)]
        stage: Stage,
        /// Whether `message` is an object that contains the text.
        #[serde(default)]
        as_object: bool,
    },
    /// Responds with 503, a gateway's HTML page and no `Retry-After`, by default after the request
    /// was processed.
    UnavailablePage {
        /// Whether the request is processed first.
        #[serde(default = "after_processing")]
        stage: Stage,
    },
    /// Processes the request, and issues the token of another owner: a refresh or mint for a
    /// location returns its company's token.
    OtherOwner {
        /// The company or location whose token is issued; by default the company of the right
        /// owner.
        #[serde(default)]
        owner_id: Option<String>,
    },
    /// Sends these bytes instead of an HTTP response, without processing the request.
    Raw {
        /// The bytes.
        text: String,
        /// How the connection ends.
        #[serde(default)]
        ending: Ending,
    },
}

fn two_hundred_megabytes() -> u64 {
    200_000_000
}

fn after_processing() -> Stage {
    Stage::AfterProcessing
}

fn one_megabyte() -> usize {
    1 << 20
}

fn one() -> usize {
    1
}

impl FaultKind {
    /// The fault's name in the control API.
    pub(crate) fn name(&self) -> String {
        match json!(self) {
            Value::Object(tagged) => tagged.into_iter().map(|(name, _)| name).collect(),
            name => name.as_str().unwrap_or_default().to_owned(),
        }
    }

    /// The owner whose token is issued instead.
    pub(crate) fn other_owner(&self) -> Option<OtherOwner> {
        match self {
            Self::OtherOwner { owner_id } => Some(OtherOwner { owner_id: owner_id.clone() }),
            _ => None,
        }
    }

    /// Whether the request is processed.
    pub(crate) fn processes(&self) -> bool {
        match self {
            // A stall only delays the request.
            Self::Stall { .. } => true,
            Self::Reset { stage }
            | Self::Status { stage, .. }
            | Self::CommandTimedOut { stage, .. }
            | Self::UnavailablePage { stage } => *stage == Stage::AfterProcessing,
            Self::Refusal { .. } | Self::Redirect { .. } | Self::Raw { .. } => false,
            _ => true,
        }
    }
}

/// Identifies an injected fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct FaultId(pub(crate) u64);

/// A fault that applies to a request.
#[derive(Debug, Clone)]
pub(crate) struct Strike {
    pub(crate) id: FaultId,
    pub(crate) kind: FaultKind,
    pub(crate) gate: Arc<Gate>,
}

#[derive(Debug)]
pub(crate) struct Injected {
    pub(crate) id: FaultId,
    pub(crate) rule: Rule,
    pub(crate) kind: FaultKind,
    matched: u32,
    pub(crate) struck: u32,
    pub(crate) gate: Arc<Gate>,
}

impl Injected {
    pub(crate) fn is_used_up(&self) -> bool {
        self.rule.count.is_some_and(|count| self.struck >= count)
    }
}

#[derive(Debug)]
pub(crate) struct Faults {
    injected: Vec<Injected>,
    next_id: u64,
    chance: Seeded,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { injected: Vec::new(), next_id: 1, chance: Seeded::new(seed) }
    }

    pub(crate) fn inject(&mut self, rule: Rule, kind: FaultKind) -> (FaultId, Arc<Gate>) {
        let id = FaultId(self.next_id);
        self.next_id += 1;
        let gate = Arc::new(Gate::default());
        self.injected.push(Injected {
            id,
            rule,
            kind,
            matched: 0,
            struck: 0,
            gate: Arc::clone(&gate),
        });
        (id, gate)
    }

    /// The fault that applies to this request: the first match, in order of injection.
    pub(crate) fn strike(&mut self, target: &Target) -> Option<Strike> {
        for fault in &mut self.injected {
            if fault.is_used_up() || !fault.rule.matches(target) {
                continue;
            }
            fault.matched = fault.matched.saturating_add(1);
            if fault.matched <= fault.rule.skip || self.chance.fraction() >= fault.rule.probability
            {
                continue;
            }
            fault.struck = fault.struck.saturating_add(1);
            let (id, kind, gate) = (fault.id, fault.kind.clone(), Arc::clone(&fault.gate));
            return Some(Strike { id, kind, gate });
        }
        None
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Injected> {
        self.injected.iter()
    }

    /// How many requests the rule of a fault has selected; `None` if the ID is unknown.
    pub(crate) fn matched(&self, id: FaultId) -> Option<u32> {
        self.injected.iter().find(|fault| fault.id == id).map(|fault| fault.matched)
    }

    /// How often a fault was applied; `None` if the ID is unknown.
    pub(crate) fn struck(&self, id: FaultId) -> Option<u32> {
        self.injected.iter().find(|fault| fault.id == id).map(|fault| fault.struck)
    }

    /// Removes a fault and releases the requests that it holds. False if the ID is unknown.
    pub(crate) fn remove(&mut self, id: FaultId) -> bool {
        let before = self.injected.len();
        self.injected.retain(|fault| {
            if fault.id == id {
                fault.gate.open();
            }
            fault.id != id
        });
        self.injected.len() < before
    }

    /// Removes every fault and releases the requests that they hold.
    pub(crate) fn clear(&mut self) -> usize {
        let removed = self.injected.drain(..);
        removed.map(|fault| fault.gate.open()).count()
    }

    pub(crate) fn describe(&self) -> Value {
        self.injected.iter().map(describe).collect()
    }
}

/// A fault in the control API's format: rule, kind and the kind's parameters in one object.
fn describe(fault: &Injected) -> Value {
    let mut description = Map::new();
    let mut join = |members: Value| {
        if let Value::Object(members) = members {
            description.extend(members);
        }
    };
    join(json!({
        "id": fault.id,
        "struck": fault.struck,
        "usedUp": fault.is_used_up(),
        "waiting": fault.gate.waiting(),
    }));
    join(json!(fault.rule));
    match json!(fault.kind) {
        Value::Object(tagged) => {
            for (kind, parameters) in tagged {
                join(json!({ "kind": kind }));
                join(parameters);
            }
        }
        kind => join(json!({ "kind": kind })),
    }
    Value::Object(description)
}

/// Parses a fault in the control API's format.
pub(crate) fn from_json(mut members: Map<String, Value>) -> Result<(Rule, FaultKind), Complaint> {
    const RULE: [&str; 7] =
        ["endpoint", "grantType", "resourceId", "skip", "count", "probability", "inFlight"];
    let mut rule = Map::new();
    for name in RULE {
        if let Some(value) = members.remove(name) {
            rule.insert(name.to_owned(), value);
        }
    }
    let rule: Rule = complaint::deserialize(Value::Object(rule))?;
    if !(0.0..=1.0).contains(&rule.probability) {
        return Err(Complaint::field("probability", "it must be between 0 and 1"));
    }
    let Some(Value::String(name)) = members.remove("kind") else {
        return Err(Complaint::field("kind", "it is missing or not a string"));
    };
    // serde reads a kind without parameters from its name, and the others from an object with that
    // name as its only key.
    let bare = serde_json::from_value::<FaultKind>(json!(name));
    let kind = match bare {
        Ok(kind) => match members.keys().next() {
            None => kind,
            Some(extra) => {
                return Err(Complaint::field(extra, format!("{name} takes no parameters")));
            }
        },
        Err(_) => complaint::deserialize(json!({ &name: members }))
            .map_err(|complaint| complaint.below(&name).or_field("kind"))?,
    };
    check(&kind)?;
    Ok((rule, kind))
}

/// Rejects statuses and headers that HTTP cannot send when the fault is injected, not when it is
/// applied.
pub(crate) fn check(kind: &FaultKind) -> Result<(), Complaint> {
    let (status, headers) = match kind {
        FaultKind::Status { status, headers, .. } => (*status, headers.as_slice()),
        FaultKind::ReplaceStatus { status } | FaultKind::Redirect { status, .. } => {
            (*status, &[][..])
        }
        _ => return Ok(()),
    };
    if !(200..=599).contains(&status) {
        let what = format!("{status} is not the status of a final response");
        return Err(Complaint::field("status", what));
    }
    for (name, value) in headers {
        if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
            return Err(Complaint::field("headers", format!("{name} is not a valid header")));
        }
        if ["content-length", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str()) {
            let what = format!("{name} is set by the emulator; use raw to send other values");
            return Err(Complaint::field("headers", what));
        }
    }
    Ok(())
}

/// Whose token is issued instead of the right owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtherOwner {
    /// The company or location; the right owner's company when not given or unknown.
    pub(crate) owner_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(faults: &mut Faults, target: &Target) -> bool {
        faults.strike(target).is_some()
    }

    fn refresh() -> Target {
        Target {
            endpoint: Some(Endpoint::Token),
            grant_type: Some(GrantType::RefreshToken),
            resource_id: Some("a".to_owned()),
            in_flight: 2,
        }
    }

    #[test]
    fn rule_matches_its_requests() {
        let target = refresh();
        let matches = |rule: Rule| rule.matches(&target);
        assert!(matches(Rule::default()));
        assert!(matches(
            Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken).resource("a")
        ));
        assert!(!matches(Rule::on(Endpoint::Location)));
        assert!(!matches(Rule::default().grant_type(GrantType::AuthorizationCode)));
        assert!(!matches(Rule::default().resource("b")));
        assert!(matches(Rule::default().in_flight(2)) && !matches(Rule::default().in_flight(3)));
        assert!(Rule::default().matches(&Target::default()));
    }

    #[test]
    fn rule_skips_strikes_and_expires_by_count() {
        let mut faults = Faults::new(0);
        let (id, _) = faults.inject(Rule::default().skip(1).times(2), FaultKind::ReplyLost);
        let struck: Vec<_> = (0..5).map(|_| struck(&mut faults, &refresh())).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!((faults.struck(id), faults.matched(id)), (Some(2), Some(3)));
        assert!(faults.remove(id) && !faults.remove(id));
    }

    #[test]
    fn probability_is_reproducible() {
        let run = || {
            let mut faults = Faults::new(7);
            faults.inject(Rule::default().probability(0.3), FaultKind::ReplyLost);
            (0..1_000).map(|_| struck(&mut faults, &refresh())).collect::<Vec<_>>()
        };
        let struck = run().iter().filter(|struck| **struck).count();
        assert!((250..350).contains(&struck), "{struck}");
        assert_eq!(run(), run());
    }

    #[test]
    fn json_is_parsed_strictly_and_written_back() {
        let read = |value: Value| match value {
            Value::Object(members) => from_json(members),
            _ => panic!("no object"),
        };
        let flat = json!({
            "endpoint": "installed-locations", "count": 1,
            "kind": "status", "status": 429, "headers": [["retry-after", "1"]],
        });
        let (rule, kind) = read(flat).unwrap();
        assert_eq!(rule, Rule::on(Endpoint::InstalledLocations).times(1));
        assert!(matches!(kind, FaultKind::Status { status: 429, .. }));
        assert_eq!(read(json!({"kind": "replyLost"})).unwrap().1, FaultKind::ReplyLost);
        assert!(matches!(
            read(json!({"kind": "stall"})).unwrap().1,
            FaultKind::Stall { stage: Stage::BeforeProcessing }
        ));

        let mut faults = Faults::new(0);
        let (rule, kind) =
            read(json!({"grantType": "refresh_token", "kind": "drip", "everyMs": 5})).unwrap();
        faults.inject(rule, kind);
        let described = &faults.describe()[0];
        assert_eq!(described["kind"], "drip");
        assert_eq!(described["everyMs"], 5);
        assert_eq!(described["grantType"], "refresh_token");

        for (wrong, field) in [
            (json!({}), "kind"),
            (json!({"kind": 1}), "kind"),
            (json!({"kind": "nothing"}), "kind"),
            (json!({"kind": "replyLost", "bytes": 1}), "bytes"),
            (json!({"kind": "stall", "bytes": 1}), "bytes"),
            (json!({"kind": "drip"}), "everyMs"),
            (json!({"kind": "drip", "everyMs": "5"}), "everyMs"),
            (json!({"kind": "replyLost", "probability": 2}), "probability"),
            (json!({"kind": "replyLost", "count": -1}), "count"),
            (json!({"kind": "replyLost", "endpoint": "tokens"}), "endpoint"),
            (json!({"kind": "refusal"}), "refusal"),
            (json!({"kind": "refusal", "refusal": "no"}), "refusal"),
            (json!({"kind": "status", "status": 99}), "status"),
            (json!({"kind": "status", "status": 200, "headers": [["a b", "c"]]}), "headers"),
            (
                json!({"kind": "status", "status": 200, "headers": [["Content-Length", "1"]]}),
                "headers",
            ),
            (json!({"kind": "status", "status": 200, "headers": [["a", "b\r\nc: d"]]}), "headers"),
        ] {
            let complaint = read(wrong.clone()).unwrap_err();
            assert_eq!(complaint.field.as_deref(), Some(field), "{wrong}: {complaint}");
        }
    }
}
