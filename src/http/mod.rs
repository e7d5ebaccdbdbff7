//! One request, one answer: deadlines, pacing, retries, size caps. Knows nothing of tokens.

mod pace;
mod resolver;
mod retry;
mod transport;

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use once_cell::sync::OnceCell;
use ureq::Agent;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request as WireRequest, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;

pub use pace::Lane;
use pace::Pace;
pub use retry::wait_asked;

/// Whether sending a request twice does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// May be repeated, and abandoned at any moment.
    Repeatable,
    /// Spends something that exists once: repeated only when it surely did nothing, never abandoned.
    Spends,
}

/// What is sent.
pub struct Request<'a> {
    /// GET or POST.
    pub method: Method,
    /// Where to.
    pub uri: Uri,
    /// Headers beside those that every request carries.
    pub headers: Vec<(HeaderName, &'a str)>,
    /// The bearer token.
    pub bearer: Option<&'a Secret>,
    /// The body, with its content type among the headers.
    pub body: Option<Zeroizing<String>>,
    /// Whether it may be repeated.
    pub effect: Effect,
    /// Whose rate limit it counts against.
    pub lane: Option<Lane<'a>>,
}

/// What came back.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, never longer than the configured cap.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why no answer came back.
#[derive(Debug)]
pub struct NoAnswer {
    /// What happened.
    pub error: Error,
    /// Whether any byte of the request may have reached the server.
    pub sent: bool,
}

/// How often something happened since the client was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that left, repetitions included.
    pub sent: AtomicU64,
    /// Requests that were repetitions.
    pub repeated: AtomicU64,
    /// Requests without an answer.
    pub unanswered: AtomicU64,
}

/// The transport of one client: a connection pool and the pace of each resource.
pub struct Http {
    agent: OnceCell<Agent>,
    config: Config,
    user_agent: HeaderValue,
    pace: Pace,
    counters: Counters,
}

impl Http {
    /// A transport; nothing is opened before the first request.
    ///
    /// # Errors
    /// `CONFIG` for a proxy URL or a certificate bundle that cannot be used.
    pub fn new(config: &Config) -> Result<Http> {
        let mut user_agent = concat!("ghl-oauth/", env!("CARGO_PKG_VERSION")).to_owned();
        if let Some(suffix) = &config.http.user_agent_suffix {
            user_agent = format!("{user_agent} {suffix}");
        }
        let unusable = |_| Error::new(Status::Config, "http.userAgentSuffix is no header text");
        proxy(config)?;
        Ok(Http {
            agent: OnceCell::new(),
            config: config.clone(),
            user_agent: HeaderValue::from_str(&user_agent).map_err(unusable)?,
            pace: Pace::new(&config.rate_limit),
            counters: Counters::default(),
        })
    }

    /// What happened since the client was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The figures of the busiest resources.
    pub fn pace(&self) -> serde_json::Value {
        self.pace.figures()
    }

    /// Sends, paced, and repeats what may be repeated until the deadline.
    pub fn exchange(&self, request: &Request, deadline: &Deadline) -> Result<Answer, NoAnswer> {
        let unsent = |error| NoAnswer { error, sent: false };
        let mut attempt = 1;
        loop {
            let place = match request.lane {
                Some(lane) => Some(self.pace.enter(lane, deadline).map_err(unsent)?),
                None => None,
            };
            let outcome = self.send(request, deadline);
            let asked = match &outcome {
                Ok(answer) => retry::after_answer(answer, request.effect),
                Err(failure) => retry::after_failure(failure, request.effect),
            };
            let pause = asked.map(|asked| retry::pause(&self.config.retry, attempt, asked));
            if let Some(place) = place {
                place.leave(outcome.as_ref().ok(), pause);
            }
            let Some(pause) = pause else { return outcome };
            if attempt >= self.config.retry.max_attempts || pause >= deadline.remaining() {
                return outcome;
            }
            log::debug!(
                "{} {}: attempt {attempt} failed, next in {pause:?}",
                request.method,
                request.uri.path()
            );
            deadline.sleep(pause).map_err(unsent)?;
            self.counters.repeated.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    /// Sends once.
    fn send(&self, request: &Request, deadline: &Deadline) -> Result<Answer, NoAnswer> {
        deadline.check().map_err(|error| NoAnswer { error, sent: false })?;
        let agent = self.agent().map_err(|error| NoAnswer { error, sent: false })?;
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        let abandon = (request.effect == Effect::Repeatable).then_some(deadline);
        let (result, sent) = transport::watched(abandon, || self.run(agent, request, deadline.remaining()));
        let outcome = result
            .map_err(|failure| NoAnswer { error: self.explain(failure, sent, request, deadline), sent });
        match &outcome {
            Ok(answer) => log::debug!("{} {}: {}", request.method, request.uri.path(), answer.status),
            Err(failure) => {
                self.counters.unanswered.fetch_add(1, Ordering::Relaxed);
                log::warn!("{} {}: {}", request.method, request.uri.path(), failure.error);
            }
        }
        outcome
    }

    fn run(&self, agent: &Agent, request: &Request, remaining: Duration) -> Result<Answer, ureq::Error> {
        let mut wire = WireRequest::builder().method(request.method.clone()).uri(request.uri.clone());
        for (name, value) in &request.headers {
            wire = wire.header(name, *value);
        }
        wire = wire.header(header::ACCEPT, "application/json").header(header::USER_AGENT, &self.user_agent);
        if let Some(bearer) = request.bearer {
            let text = Zeroizing::new(format!("Bearer {}", bearer.expose()));
            let mut value = HeaderValue::from_str(&text).map_err(|error| ureq::Error::Http(error.into()))?;
            value.set_sensitive(true);
            wire = wire.header(header::AUTHORIZATION, value);
        }
        let response = match &request.body {
            Some(body) => {
                let wire = wire.body(body.as_bytes())?;
                agent.run(agent.configure_request(wire).timeout_global(Some(remaining)).build())?
            }
            None => {
                let wire = wire.body(())?;
                agent.run(agent.configure_request(wire).timeout_global(Some(remaining)).build())?
            }
        };
        let (head, body) = response.into_parts();
        let cap = self.config.limits.response_bytes;
        let expected = body.content_length().unwrap_or(4096).min(cap);
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(expected).unwrap_or(4096) + 1));
        body.into_reader().take(cap + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > cap {
            return Err(ureq::Error::BodyExceedsLimit(cap));
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes })
    }

    fn explain(&self, failure: ureq::Error, sent: bool, request: &Request, deadline: &Deadline) -> Error {
        let host = request.uri.host().unwrap_or_default();
        if deadline.is_cancelled() && request.effect == Effect::Repeatable {
            return Error::new(Status::Cancelled, "the call was cancelled");
        }
        match failure {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                let limit = self.config.timeouts.connect_ms;
                Error::new(Status::Timeout, format!("no connection to {host} within {limit} ms"))
                    .with_help("check the network and the proxy, or raise timeouts.connectMs")
            }
            ureq::Error::Timeout(_) => deadline.timed_out(),
            ureq::Error::BodyExceedsLimit(cap) => {
                Error::new(Status::Protocol, format!("{host} answered with more than {cap} bytes")).with_help(
                    "a proxy may have answered; if the answer is right, raise limits.responseBytes",
                )
            }
            ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) | ureq::Error::Http(_) => {
                Error::new(Status::Protocol, format!("{host} did not answer in valid HTTP: {failure}"))
                    .with_help("a proxy or another service may have answered; check baseUrl and http.proxy")
            }
            _ if sent => Error::new(
                Status::Network,
                format!("the connection to {host} broke before the answer: {failure}"),
            )
            .with_help("try again"),
            _ => Error::new(
                Status::Network,
                format!("{host} could not be reached, nothing was sent: {failure}"),
            )
            .with_help("check the network, the proxy and the host's certificate, then try again"),
        }
    }

    /// The connection pool, made at the first request: loading the platform's certificates takes a while.
    fn agent(&self) -> Result<&Agent> {
        self.agent.get_or_try_init(|| {
            let roots = match &self.config.http.ca_bundle_path {
                None => RootCerts::PlatformVerifier,
                Some(path) => trusted_beside_the_platform(path)?,
            };
            let tls = TlsConfig::builder()
                .root_certs(roots)
                .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
                .build();
            let config = Agent::config_builder()
                .tls_config(tls)
                .proxy(proxy(&self.config)?)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .http_status_as_error(false)
                .timeout_connect(Some(Duration::from_millis(self.config.timeouts.connect_ms)))
                .max_idle_connections(64)
                .max_idle_connections_per_host(64)
                .build();
            Ok(Agent::with_parts(config, transport::connector(), resolver::Resolver::default()))
        })
    }
}

fn proxy(config: &Config) -> Result<Option<ureq::Proxy>> {
    let Some(url) = &config.http.proxy else {
        return Ok(None);
    };
    let unusable = |_| {
        Error::new(Status::Config, "http.proxy cannot be used: it must be http://[user:password@]host:port")
            .with_parameter("http.proxy")
    };
    ureq::Proxy::new(url.expose()).map(Some).map_err(unusable)
}

/// The platform's roots and those of the file.
fn trusted_beside_the_platform(path: &std::path::Path) -> Result<RootCerts> {
    let refused = |why: String| {
        Error::new(Status::Config, format!("http.caBundlePath cannot be used: {why}"))
            .with_parameter("http.caBundlePath")
    };
    let pem = std::fs::read(path).map_err(|error| refused(format!("{}: {error}", path.display())))?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        match item.map_err(|error| refused(error.to_string()))? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            _ => continue,
        }
    }
    if certificates.is_empty() {
        return Err(refused(format!("{} holds no certificate", path.display())));
    }
    for own in rustls_native_certs::load_native_certs().certs {
        certificates.push(Certificate::from_der(own.as_ref()).to_owned());
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
