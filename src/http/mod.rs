//! One request, one answer: deadlines, pacing, retries, size caps. Knows nothing of tokens.

mod pace;
mod resolver;
mod retry;
mod tcp;
mod transport;

use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request as WireRequest, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy, ProxyProtocol};
use zeroize::Zeroizing;

use crate::ca_bundle;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;

pub use pace::Lane;
use pace::Pace;
pub use retry::wait_asked;

/// The longest head of an answer that is read.
const LONGEST_HEAD: usize = 64 * 1024;

/// The sizes of a connection's buffers. A head must fit into each; more would only have to be made, and wiped, for each new
/// connection.
const INPUT: usize = LONGEST_HEAD + 8 * 1024;
const OUTPUT: usize = 64 * 1024;

/// Whether sending a request twice does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// May be repeated, and abandoned at any moment.
    Repeatable,
    /// Changes something: repeated only when it surely did nothing, but abandoned at any moment.
    Once,
    /// Spends something that exists once: repeated only when it surely did nothing, never abandoned.
    Spends,
    /// The same, but for a while the server gives the answer again to whoever repeats it: so no answer is waited for so
    /// long that this while is over.
    Renews,
}

impl Effect {
    /// Whether nobody needs to wait for its end.
    fn may_be_abandoned(self) -> bool {
        !matches!(self, Effect::Spends | Effect::Renews)
    }
}

/// What is sent.
pub struct Request<'a> {
    /// GET, POST, …
    pub method: Method,
    /// Where to.
    pub uri: Uri,
    /// Headers beside those that every request carries.
    pub headers: Vec<(HeaderName, &'a str)>,
    /// The bearer token.
    pub bearer: Option<&'a Secret>,
    /// The body, with its content type among the headers.
    pub body: Option<Zeroizing<Vec<u8>>>,
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

impl Drop for Answer {
    /// Emptied, the body is all spare room, which is overwritten at once, and not byte by byte.
    fn drop(&mut self) {
        self.body.clear();
    }
}

/// Why no answer came back.
#[derive(Debug)]
pub struct NoAnswer {
    /// What happened.
    pub error: Error,
    /// Whether any byte of the request may have reached the server.
    pub sent: bool,
    /// Whether a repetition would only meet the same: a certificate that is not trusted, a proxy that refuses.
    pub lasting: bool,
}

impl NoAnswer {
    /// What ended the call before anything was sent.
    fn before_sending(error: Error) -> NoAnswer {
        NoAnswer { error, sent: false, lasting: false }
    }
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
    agent: OnceLock<Agent>,
    config: Config,
    proxy: Option<Proxy>,
    /// Trusted beside the platform's own certificates.
    trusted: Option<Vec<Certificate<'static>>>,
    user_agent: String,
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
        HeaderValue::from_str(&user_agent).map_err(unusable)?;
        Ok(Http {
            agent: OnceLock::new(),
            config: config.clone(),
            proxy: proxy(config)?,
            trusted: config.http.ca_bundle_path.as_deref().map(bundle).transpose()?,
            user_agent,
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
        let mut attempt = 1;
        loop {
            let place = match request.lane {
                Some(lane) => Some(self.pace.enter(lane, deadline).map_err(NoAnswer::before_sending)?),
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
            deadline.sleep(pause).map_err(NoAnswer::before_sending)?;
            self.counters.repeated.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    /// Sends once.
    fn send(&self, request: &Request, deadline: &Deadline) -> Result<Answer, NoAnswer> {
        deadline.check().map_err(NoAnswer::before_sending)?;
        #[cfg(fuzzing)]
        if let Some(answer) = crate::fuzzing::next_answer() {
            return Ok(answer);
        }
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        let limit = self.answer_limit(request.effect, deadline);
        let patience = limit.unwrap_or_else(|| deadline.remaining());
        let (result, sent) = transport::watched(deadline, request.effect, || self.run(request, patience));
        let outcome = result.map_err(|failure| {
            let overdue =
                || limit.map_or_else(|| deadline.timed_out(), |limit| overdue_attempt(request, limit));
            self.explain(failure, sent, request, deadline, overdue)
        });
        match &outcome {
            Ok(answer) => log::debug!("{} {}: {}", request.method, request.uri.path(), answer.status),
            Err(failure) => {
                self.counters.unanswered.fetch_add(1, Ordering::Relaxed);
                log::warn!("{} {}: {}", request.method, request.uri.path(), failure.error);
            }
        }
        outcome
    }

    /// How long an attempt may take, if that is less than the whole call. The next one must be able to have as long: the
    /// last one is waited for to the end.
    fn answer_limit(&self, effect: Effect, deadline: &Deadline) -> Option<Duration> {
        let limit = Duration::from_millis(self.config.timeouts.answer_ms);
        (effect == Effect::Renews && limit * 2 <= deadline.remaining()).then_some(limit)
    }

    fn run(&self, request: &Request, patience: Duration) -> Result<Answer, ureq::Error> {
        let agent = self.agent();
        let mut wire = WireRequest::builder().method(request.method.clone()).uri(request.uri.clone());
        for (name, value) in &request.headers {
            wire = wire.header(name, *value);
        }
        if request.headers.iter().all(|(name, _)| name != header::ACCEPT) {
            wire = wire.header(header::ACCEPT, "application/json");
        }
        if let Some(bearer) = request.bearer {
            // One copy, of the right size, which the header takes over.
            let text = ["Bearer ", bearer.expose()].concat();
            let mut value = HeaderValue::try_from(text).map_err(|error| ureq::Error::Http(error.into()))?;
            value.set_sensitive(true);
            wire = wire.header(header::AUTHORIZATION, value);
        }
        let response = match &request.body {
            Some(body) => {
                let wire = wire.body(&body[..])?;
                agent.run(agent.configure_request(wire).timeout_global(Some(patience)).build())?
            }
            None => {
                let wire = wire.body(())?;
                agent.run(agent.configure_request(wire).timeout_global(Some(patience)).build())?
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

    /// `overdue` is the error where time ran out.
    fn explain(
        &self,
        failure: ureq::Error,
        sent: bool,
        request: &Request,
        deadline: &Deadline,
        overdue: impl FnOnce() -> Error,
    ) -> NoAnswer {
        let lasts = |error| NoAnswer { error, sent, lasting: true };
        if let (false, Some(tls)) = (sent, tls_error(&failure)) {
            return lasts(untrusted(request, tls));
        }
        if let (ureq::Error::ConnectProxyFailed(reason), Some(proxy)) = (&failure, &self.proxy) {
            let status = status_of_proxy(reason);
            let error = refused_by(proxy, status, request);
            return NoAnswer { error, sent, lasting: status.is_some_and(|status| status < 500) };
        }
        let error = if deadline.is_cancelled() && (request.effect.may_be_abandoned() || !sent) {
            Error::new(Status::Cancelled, "the call was cancelled")
        } else {
            self.broken(&failure, sent, request, overdue)
        };
        NoAnswer { error, sent, lasting: false }
    }

    fn broken(
        &self,
        failure: &ureq::Error,
        sent: bool,
        request: &Request,
        overdue: impl FnOnce() -> Error,
    ) -> Error {
        let host = host(request);
        let (through, look_at) = match &self.proxy {
            Some(proxy) => (format!(" through the proxy {}", address(proxy)), "http.proxy"),
            None => (String::new(), "the proxy"),
        };
        match failure {
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                let limit = self.config.timeouts.connect_ms;
                Error::new(Status::Timeout, format!("no connection to {host}{through} within {limit} ms"))
                    .with_help(format!("check the network and {look_at}, or raise timeouts.connectMs"))
            }
            ureq::Error::Timeout(_) => overdue(),
            ureq::Error::BodyExceedsLimit(cap) => {
                Error::new(Status::Protocol, format!("{host} answered with more than {cap} bytes")).with_help(
                    "a proxy may have answered; if the answer is right, raise limits.responseBytes",
                )
            }
            ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) | ureq::Error::Http(_) => {
                let message = format!("{host}{through} did not answer in valid HTTP: {failure}");
                Error::new(Status::Protocol, message)
                    .with_help("a proxy or another service may have answered; check baseUrl and http.proxy")
            }
            _ if sent => Error::new(
                Status::Network,
                format!("the connection to {host} broke before the answer: {failure}"),
            )
            .with_help("try again"),
            _ => Error::new(
                Status::Network,
                format!("{host} could not be reached{through}, nothing was sent: {failure}"),
            )
            .with_help(format!("check the network and {look_at}, then try again")),
        }
    }

    /// The connection pool, made at the first request: reading the platform's certificates takes a while.
    fn agent(&self) -> &Agent {
        self.agent.get_or_init(|| {
            let roots = match &self.trusted {
                None => RootCerts::PlatformVerifier,
                Some(trusted) => {
                    let own = rustls_native_certs::load_native_certs().certs;
                    let own = own.iter().map(|own| Certificate::from_der(own).to_owned());
                    let all: Vec<_> = trusted.iter().cloned().chain(own).collect();
                    RootCerts::new_with_certs(&all)
                }
            };
            let tls = TlsConfig::builder()
                .root_certs(roots)
                .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
                .build();
            let config = Agent::config_builder()
                .tls_config(tls)
                // Said in any case: unsaid, the environment would say it.
                .proxy(self.proxy.clone())
                .user_agent(&self.user_agent)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .http_status_as_error(false)
                .timeout_connect(Some(Duration::from_millis(self.config.timeouts.connect_ms)))
                .input_buffer_size(INPUT)
                .output_buffer_size(OUTPUT)
                .max_response_header_size(LONGEST_HEAD)
                .max_idle_connections(64)
                .max_idle_connections_per_host(64)
                .build();
            Agent::with_parts(config, transport::connector(), resolver::Later)
        })
    }
}

/// The error of an attempt that took as long as one may, in a call that may take longer.
fn overdue_attempt(request: &Request, limit: Duration) -> Error {
    let message = format!("no answer from {} within {} ms", host(request), limit.as_millis());
    Error::new(Status::Timeout, message)
        .with_help("try again; where it is always that slow, raise timeouts.answerMs")
}

fn host<'a>(request: &'a Request) -> &'a str {
    request.uri.host().unwrap_or_default()
}

/// What TLS itself, and not the connection beneath it, complains about.
fn tls_error(failure: &ureq::Error) -> Option<&rustls::Error> {
    match failure {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn untrusted(request: &Request, tls: &rustls::Error) -> Error {
    let host = host(request);
    if let rustls::Error::InvalidCertificate(_) = tls {
        let message = format!("the certificate of {host} is not trusted, nothing was sent: {tls}");
        return Error::new(Status::Network, message).with_help(
            "check the host's name and this machine's clock; for a private CA, name its file in http.caBundlePath",
        );
    }
    Error::new(Status::Network, format!("{host} does not speak TLS as it should, nothing was sent: {tls}"))
        .with_help("check that the URL is that of an https server, and what stands in between")
}

/// The status that a proxy refused with. ureq tells it in words only.
fn status_of_proxy(reason: &str) -> Option<u16> {
    reason.rsplit('/').next()?.parse().ok()
}

fn refused_by(proxy: &Proxy, status: Option<u16>, request: &Request) -> Error {
    let (host, proxy) = (host(request), address(proxy));
    let Some(status) = status else {
        let message = format!("the proxy {proxy} did not answer, nothing was sent to {host}");
        return Error::new(Status::Network, message).with_help("check http.proxy, then try again");
    };
    let message = format!("the proxy {proxy} refused to connect to {host} with {status}, nothing was sent");
    Error::new(Status::Network, message).with_help(match status {
        407 => "check the user name and the password in http.proxy",
        _ => "check http.proxy, and that the proxy lets this host through",
    })
}

/// A proxy without its user and password.
fn address(proxy: &Proxy) -> String {
    format!("{}:{}", proxy.host(), proxy.port())
}

fn proxy(config: &Config) -> Result<Option<Proxy>> {
    let Some(url) = &config.http.proxy else {
        return Ok(None);
    };
    let usable = Proxy::new(url.expose()).ok().filter(|proxy| proxy.protocol() == ProxyProtocol::Http);
    let unusable = || {
        Error::new(Status::Config, "http.proxy cannot be used: it must be http://[user:password@]host:port")
            .with_parameter("http.proxy")
    };
    usable.map(Some).ok_or_else(unusable)
}

/// The certificates that are trusted beside the platform's own.
fn bundle(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let certificates = ca_bundle::read("http.caBundlePath", path)?;
    Ok(certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}
