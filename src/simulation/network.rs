//! The simulated network: one HTTP attempt, and the faults on its way to the API and back.

use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::server::Call;
use super::world::{State, World, current_task};
use crate::deadline::Deadline;
use crate::error::{Error, Status};
use crate::http::{Bucket, Idempotency, Request, Response, Transport, TransportError};

/// The default limit for one refresh attempt.
const ANSWER: Duration = Duration::from_secs(12);

/// A firewall's page.
const PAGE: &str = "<!DOCTYPE html><html><body><h1>Access denied</h1>Error 1010</body></html>";

/// The fate of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    NotSent,
    /// The request is lost, with a reset or without any sign.
    Lost {
        silent: bool,
    },
    /// The API processes the request, and its response is lost.
    AnswerLost {
        silent: bool,
    },
    /// The API processes the request at once, and its response is late.
    Slow(Duration),
    /// The request arrives late, perhaps after its client gave up.
    Late(Duration),
    /// A proxy or firewall responds instead of the API.
    Page(u16),
    /// The API fails before or after it processed the request.
    Failed {
        status: u16,
        processed: bool,
    },
}

pub struct Network {
    pub world: Arc<World>,
    pub process: usize,
}

/// The message of a request that was not answered in time.
pub const UNANSWERED: &str = "no answer in time";

fn failed(status: Status, sent: bool) -> TransportError {
    let error = match status {
        Status::Timeout => Error::new(status, UNANSWERED),
        Status::Cancelled => Error::new(status, "the call was cancelled"),
        _ => Error::new(Status::Network, "the connection broke"),
    };
    TransportError { error, sent, permanent: false }
}

impl Network {
    fn draw(&self, state: &mut State, request: &Request) -> Fate {
        let profile = state.profile;
        let is_mint = request.uri.path() == "/oauth/location-token";
        if profile.firewall && is_mint && !state.is_quiet && state.rng.chance(50) {
            return Fate::Page(403);
        }
        let is_trouble = state.now < state.processes[self.process].network_trouble_until
            && state.rng.chance(profile.network_percent);
        if !is_trouble {
            return Fate::Answered;
        }
        let silent = state.rng.chance(30);
        let processed = state.rng.chance(50);
        loop {
            return match state.rng.below(9) {
                0 if profile.network_faults => Fate::NotSent,
                1 if profile.network_faults => Fate::Lost { silent },
                2 | 3 if profile.network_faults => Fate::AnswerLost { silent },
                4 if profile.slow_server => Fate::Slow(state.rng.millis(20_000)),
                5 if profile.slow_server => Fate::Late(state.rng.millis(40_000)),
                6 if profile.pages => Fate::Page(state.rng.pick(&[403, 502, 503, 200])),
                7 if profile.pages => {
                    Fate::Failed { status: state.rng.pick(&[401, 500, 503]), processed }
                }
                8 if profile.pages => Fate::Failed { status: 429, processed: false },
                0..8 if profile.network_faults || profile.slow_server || profile.pages => continue,
                _ => Fate::Answered,
            };
        }
    }

    /// Waits for the response, at most as long as the attempt may take. Returns why it did not
    /// arrive.
    fn wait(
        &self,
        wait: Duration,
        patience: Duration,
        request: &Request,
        deadline: &Deadline,
    ) -> Option<TransportError> {
        if matches!(request.idempotency, Idempotency::SingleUse | Idempotency::Replayable) {
            if !self.world.step(self.process, wait.min(patience)) {
                return Some(failed(Status::Network, true));
            }
        } else if let Err(over) = deadline.sleep(wait.min(patience)) {
            return Some(failed(over.status(), true));
        }
        if self.world.is_crashed(self.process) {
            return Some(failed(Status::Network, true));
        }
        (wait > patience).then(|| failed(Status::Timeout, true))
    }

    fn attempt(&self, request: &Request, deadline: &Deadline) -> Result<Response, TransportError> {
        let (fate, way) =
            self.world.with(|state| (self.draw(state, request), state.rng.millis(40)));
        if deadline.sleep(way).is_err() || self.world.is_crashed(self.process) {
            return Err(failed(
                if deadline.is_cancelled() { Status::Cancelled } else { Status::Timeout },
                false,
            ));
        }
        let limited =
            request.idempotency == Idempotency::Replayable && ANSWER * 2 <= deadline.remaining();
        let patience = if limited { ANSWER } else { deadline.remaining() };
        let call = self.call(request);
        self.world.with(|state| {
            state.say(|| format!("process {} sends {}: {fate:?}", self.process, call.path))
        });
        let forever = Duration::from_secs(1 << 30);
        let quick = self.world.with(|state| Duration::from_millis(5) + state.rng.millis(120));
        let (reply, wait) = match fate {
            Fate::NotSent => {
                self.world.step(self.process, quick);
                return Err(failed(Status::Network, false));
            }
            Fate::Lost { silent } => (None, if silent { forever } else { quick }),
            Fate::AnswerLost { silent } => {
                self.world.with(|state| state.processed(&call));
                (None, if silent { forever } else { quick })
            }
            Fate::Slow(wait) => (Some(self.world.with(|state| state.processed(&call))), wait),
            Fate::Late(wait) if wait >= patience => {
                self.world.with(|state| state.late.push((state.now + wait, call)));
                (None, forever)
            }
            Fate::Late(wait) => {
                if let Some(none) = self.wait(wait, patience, request, deadline) {
                    return Err(none);
                }
                (Some(self.world.with(|state| state.processed(&call))), Duration::ZERO)
            }
            Fate::Page(status) => {
                return match self.wait(quick, patience, request, deadline) {
                    Some(none) => Err(none),
                    None => Ok(answer(status, PAGE)),
                };
            }
            Fate::Failed { status, processed } => {
                if processed {
                    self.world.with(|state| state.processed(&call));
                }
                let message = match status {
                    401 => "Command timed out",
                    429 => "Too Many Requests",
                    503 => "Service Unavailable",
                    _ => "Internal server error",
                };
                let body = format!(r#"{{"statusCode":{status},"message":"{message}"}}"#);
                return match self.wait(quick, patience, request, deadline) {
                    Some(none) => Err(none),
                    None => Ok(answer(status, &body)),
                };
            }
            Fate::Answered => (Some(self.world.with(|state| state.processed(&call))), quick),
        };
        if let Some(none) = self.wait(wait, patience, request, deadline) {
            return Err(none);
        }
        let Some(reply) = reply else { return Err(failed(Status::Network, true)) };
        if let Some(granted) = reply.granted {
            self.world.with(|state| state.server.delivered(granted, self.process));
        }
        Ok(answer(reply.status, &reply.body))
    }

    fn call(&self, request: &Request) -> Call {
        let body = request.body.unwrap_or_default();
        Call {
            path: request.uri.path().to_owned(),
            fields: form_urlencoded::parse(body).into_owned().collect(),
            bearer: request.bearer.map(|bearer| bearer.expose().to_owned()),
            process: self.process,
        }
    }
}

impl Transport for Network {
    fn send(&self, request: &Request, deadline: &Deadline) -> Result<Response, TransportError> {
        if self.world.is_crashed(self.process) {
            return Err(failed(Status::Network, false));
        }
        let (task, process) = (current_task(), self.process);
        let renewal = match request.bucket {
            Some(Bucket::TokenEndpoint(resource_id)) => {
                let fields = self.call(request).fields;
                fields.get("refreshToken").map(|text| (resource_id.to_owned(), text.clone()))
            }
            _ => None,
        };
        self.world.with(|state| {
            *state.ledger.attempts.entry(task).or_default() += 1;
            if let Some((resource_id, refresh_token)) = &renewal {
                state.refresh_begins(task, process, resource_id.clone(), refresh_token);
            }
        });
        let outcome = self.attempt(request, deadline);
        if let Some((_, refresh_token)) = &renewal {
            self.world.with(|state| {
                state
                    .ledger
                    .under_way
                    .retain(|one| one.task != task || one.refresh_token != *refresh_token)
            });
        }
        outcome
    }
}

fn answer(status: u16, body: &str) -> Response {
    let mut headers = HeaderMap::new();
    let kind = if body.starts_with('<') { "text/html" } else { "application/json" };
    headers.insert("content-type", HeaderValue::from_static(kind));
    Response { status, headers, body: Zeroizing::new(body.as_bytes().to_vec()) }
}
