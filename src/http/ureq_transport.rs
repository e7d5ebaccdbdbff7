//! The HTTP connection pool (ureq): sends one attempt, reads the response, and translates errors.

use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rustls::AlertDescription;
use ureq::http::{HeaderValue, Method, Request as WireRequest, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy, ProxyProtocol};
use zeroize::Zeroizing;

use super::{
    INPUT, Idempotency, MAX_HEAD, OUTPUT, Request, Response, Transport, TransportError, exchange,
    resolver, transport,
};
use crate::ca_bundle;
use crate::config::{HttpConfig, Limits, Timeouts, absolute_url, is_loopback, is_without_proxy};
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status, exhaustion};
use crate::lookup::ThreadSpawnError;

/// The connection pool of one client.
pub struct UreqTransport {
    agent: OnceLock<Agent>,
    connect_timeout: Duration,
    answer_timeout: Duration,
    /// The size limit of a body, in bytes.
    body_limit: u64,
    proxy: Option<Proxy>,
    /// Trusted in addition to the platform's own certificates.
    trusted: Option<Vec<Certificate<'static>>>,
    user_agent: String,
}

impl Transport for UreqTransport {
    fn send(&self, request: &Request, deadline: &Deadline) -> Result<Response, TransportError> {
        #[cfg(fuzzing)]
        if let Some(response) = crate::fuzzing::next_response() {
            return Ok(response);
        }
        let rest = match request.idempotency.may_be_abandoned() {
            true => deadline.remaining(),
            // Before it is sent, the exchange ends by the call's deadline.
            false => deadline.remaining_to_complete(),
        };
        let limit = self.response_limit(request.idempotency, rest);
        let timeout = limit.unwrap_or(rest);
        let (result, sent) =
            exchange::run(deadline, request.idempotency, || self.run(request, timeout));
        result.map_err(|failure| {
            let overdue = || {
                limit.map_or_else(|| deadline.timed_out(), |limit| overdue_attempt(request, limit))
            };
            self.explain(failure, sent, request, deadline, overdue)
        })
    }
}

impl UreqTransport {
    /// Creates an empty pool.
    pub fn new(
        base_url: &str,
        http: &HttpConfig,
        timeouts: &Timeouts,
        limits: &Limits,
    ) -> Result<UreqTransport> {
        let mut user_agent = concat!("ghl-oauth/", env!("CARGO_PKG_VERSION")).to_owned();
        if let Some(suffix) = &http.user_agent_suffix {
            user_agent = format!("{user_agent} {suffix}");
        }
        let unusable =
            |_| Error::new(Status::Config, "http.userAgentSuffix is not a valid header value");
        HeaderValue::from_str(&user_agent).map_err(unusable)?;
        Ok(UreqTransport {
            agent: OnceLock::new(),
            connect_timeout: Duration::from_millis(timeouts.connect_ms),
            answer_timeout: Duration::from_millis(timeouts.answer_ms),
            body_limit: limits.response_bytes,
            proxy: proxy(http)?.filter(|_| !is_direct(base_url, http)),
            trusted: http.ca_bundle_path.as_deref().map(bundle).transpose()?,
            user_agent,
        })
    }

    /// The timeout of an attempt, if it is less than the rest of the call. Only an attempt that
    /// leaves as much time for a repetition has one.
    fn response_limit(&self, idempotency: Idempotency, rest: Duration) -> Option<Duration> {
        let limit = self.answer_timeout;
        (idempotency == Idempotency::Replayable && limit * 2 <= rest).then_some(limit)
    }

    fn run(&self, request: &Request, timeout: Duration) -> Result<Response, ureq::Error> {
        let agent = self.agent()?;
        let mut wire =
            WireRequest::builder().method(request.method.clone()).uri(request.uri.clone());
        for (name, value) in &request.headers {
            wire = wire.header(name, *value);
        }
        if request.headers.iter().all(|(name, _)| name != header::ACCEPT) {
            wire = wire.header(header::ACCEPT, "application/json");
        }
        if let Some(bearer) = request.bearer {
            // A single allocation of the right size, which the header takes over.
            let text = ["Bearer ", bearer.expose()].concat();
            let mut value =
                HeaderValue::try_from(text).map_err(|error| ureq::Error::Http(error.into()))?;
            value.set_sensitive(true);
            wire = wire.header(header::AUTHORIZATION, value);
        }
        // Without the length of an empty body, these would be sent in chunks, which some servers
        // refuse (RFC 9110, section 8.6).
        let is_body_usual = [Method::POST, Method::PUT, Method::PATCH].contains(&request.method);
        let response = match request.body.or(is_body_usual.then_some(&[])) {
            Some(body) => {
                let wire = wire.body(body)?;
                agent.run(agent.configure_request(wire).timeout_global(Some(timeout)).build())?
            }
            None => {
                let wire = wire.body(())?;
                agent.run(agent.configure_request(wire).timeout_global(Some(timeout)).build())?
            }
        };
        let (head, body) = response.into_parts();
        let cap = self.body_limit;
        let expected = body.content_length().unwrap_or(4096).min(cap);
        let body = read_body(body.into_reader().take(cap + 1), expected)?;
        if body.len() as u64 > cap {
            return Err(ureq::Error::BodyExceedsLimit(cap));
        }
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Translates an error of ureq. `overdue` is the error for a timeout.
    fn explain(
        &self,
        failure: ureq::Error,
        sent: bool,
        request: &Request,
        deadline: &Deadline,
        overdue: impl FnOnce() -> Error,
    ) -> TransportError {
        if let (false, Some(tls)) = (sent, tls_error(&failure)) {
            return untrusted(request, tls);
        }
        if let (ureq::Error::ConnectProxyFailed(reason), Some(proxy)) = (&failure, &self.proxy) {
            let status = status_of_proxy(reason);
            let error = refused_by(proxy, status, request);
            return TransportError {
                error,
                sent,
                permanent: status
                    .is_some_and(|status| status < 500 && ![408, 429].contains(&status)),
            };
        }
        let is_timeout = matches!(failure, ureq::Error::Timeout(_));
        let error = match deadline.check() {
            Err(over)
                if (request.idempotency.may_be_abandoned() || !sent)
                    && (is_timeout || deadline.is_cancelled()) =>
            {
                over
            }
            _ => self.broken(&failure, sent, request, overdue),
        };
        // Another service responds at this address.
        let permanent = matches!(
            failure,
            ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..)
        );
        TransportError { error, sent, permanent }
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
                let limit = self.connect_timeout.as_millis();
                Error::new(
                    Status::Timeout,
                    format!("no connection to {host}{through} within {limit} ms"),
                )
                .with_help(format!("check the network and {look_at}, or raise timeouts.connectMs"))
            }
            ureq::Error::Timeout(_) => overdue(),
            ureq::Error::BodyExceedsLimit(cap) => {
                Error::new(Status::Protocol, format!("{host} answered with more than {cap} bytes"))
                    .with_help(
                        "check whether a proxy answered; otherwise raise limits.responseBytes",
                    )
            }
            ureq::Error::Protocol(_)
            | ureq::Error::LargeResponseHeader(..)
            | ureq::Error::Http(_) => {
                let message = format!("{host}{through} did not answer in valid HTTP: {failure}");
                Error::new(Status::Protocol, message).with_help(
                    "check baseUrl and http.proxy: a proxy or another service may have answered",
                )
            }
            _ if sent => Error::new(
                Status::Network,
                format!("the connection to {host} broke before the response: {failure}"),
            )
            .with_help("try again"),
            _ => {
                let message =
                    format!("{host} could not be reached{through}, nothing was sent: {failure}");
                let help = exhausted(failure).map_or_else(
                    || format!("check the network and {look_at}, then try again"),
                    str::to_owned,
                );
                Error::new(Status::Network, message).with_help(help)
            }
        }
    }

    /// The connection pool, created at the first request, because loading the platform's
    /// certificates is slow.
    fn agent(&self) -> Result<&Agent, ureq::Error> {
        if let Some(agent) = self.agent.get() {
            return Ok(agent);
        }
        let roots = match &self.trusted {
            None => RootCerts::PlatformVerifier,
            Some(trusted) => {
                let native = ca_bundle::platform_roots()?;
                let native = native.iter().map(|native| Certificate::from_der(native).to_owned());
                let all: Vec<_> = trusted.iter().cloned().chain(native).collect();
                RootCerts::new_with_certs(&all)
            }
        };
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            // Set even if `None`: otherwise ureq reads the environment's proxy variables.
            .proxy(self.proxy.clone())
            .user_agent(&self.user_agent)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(self.connect_timeout))
            .input_buffer_size(INPUT)
            .output_buffer_size(OUTPUT)
            .max_response_header_size(MAX_HEAD)
            .max_idle_connections(64)
            .max_idle_connections_per_host(64)
            .build();
        let agent = Agent::with_parts(config, transport::connector(), resolver::NoopResolver);
        Ok(self.agent.get_or_init(|| agent))
    }
}

/// How much memory is allocated because a header announces it, in bytes.
const MAX_INITIAL_BODY: u64 = 256 * 1024;

/// Reads a body that is announced as `expected` bytes long. The buffer grows with the data, not by
/// the announcement, and its old memory is zeroized.
fn read_body(mut reader: impl Read, expected: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let initial = usize::try_from(expected.min(MAX_INITIAL_BODY)).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(initial));
    loop {
        let room = bytes.capacity() - bytes.len();
        // With spare capacity for all that is read, the vector does not grow.
        if (&mut reader).take(room as u64).read_to_end(&mut bytes)? < room {
            return Ok(bytes);
        }
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * bytes.capacity()));
        larger.extend_from_slice(&bytes);
        // Cleared, it is zeroized as spare capacity, in one pass instead of byte by byte.
        bytes.clear();
        bytes = larger;
    }
}

/// The error of an attempt that reached its own timeout before the call's deadline.
fn overdue_attempt(request: &Request, limit: Duration) -> Error {
    let message = format!("no answer from {} within {} ms", host(request), limit.as_millis());
    Error::new(Status::Timeout, message)
        .with_help("try again; if the server is always this slow, raise timeouts.answerMs")
}

fn host<'a>(request: &'a Request) -> &'a str {
    request.uri.host().unwrap_or_default()
}

/// The TLS error of a failure; `None` for any other, such as an error of the TCP connection.
fn tls_error(failure: &ureq::Error) -> Option<&rustls::Error> {
    match failure {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// The help text if a connection failed because a resource of this machine is exhausted.
fn exhausted(failure: &ureq::Error) -> Option<&'static str> {
    let known = match failure {
        ureq::Error::Io(cause) if ThreadSpawnError::is_cause_of(cause) => {
            Some(ThreadSpawnError::HELP)
        }
        ureq::Error::Io(cause) => exhaustion::help(cause),
        _ => None,
    };
    // The system's resolver does not say that it could not open its files.
    known.or_else(exhaustion::no_descriptor)
}

/// The failure of a TLS handshake.
fn untrusted(request: &Request, tls: &rustls::Error) -> TransportError {
    let host = host(request);
    let (message, help) = match tls {
        rustls::Error::InvalidCertificate(_) => (
            format!("the certificate of {host} is not trusted, nothing was sent: {tls}"),
            "check the host name and this machine's clock; for a private CA, set http.caBundlePath",
        ),
        // The platform verifier could not be created.
        rustls::Error::General(_) => match ca_bundle::lacks_roots() {
            Ok(false) => handshake_failed(host, tls),
            Ok(true) => (
                format!("{}, nothing was sent to {host}", ca_bundle::no_roots()),
                ca_bundle::NO_ROOTS_HELP,
            ),
            Err(cause) => {
                let message = format!("the trusted certificates cannot be read: {cause}");
                let error = Error::new(Status::Network, message);
                return TransportError::before_sending(
                    error.with_help(exhaustion::help(&cause).unwrap_or_default()),
                );
            }
        },
        _ => handshake_failed(host, tls),
    };
    // A server reports its own failures with this alert.
    let permanent = !matches!(tls, rustls::Error::AlertReceived(AlertDescription::InternalError));
    let error = Error::new(Status::Network, message).with_help(help);
    TransportError { error, sent: false, permanent }
}

fn handshake_failed(host: &str, tls: &rustls::Error) -> (String, &'static str) {
    (
        format!("the TLS handshake with {host} failed, nothing was sent: {tls}"),
        "check that the URL points to an HTTPS server, and that no proxy intercepts the connection",
    )
}

/// The status with which a proxy refused a connection; ureq has it only in the message.
fn status_of_proxy(reason: &str) -> Option<u16> {
    reason.rsplit('/').next()?.parse().ok()
}

fn refused_by(proxy: &Proxy, status: Option<u16>, request: &Request) -> Error {
    let (host, proxy) = (host(request), address(proxy));
    let Some(status) = status else {
        let message = format!("the proxy {proxy} did not answer, nothing was sent to {host}");
        return Error::new(Status::Network, message).with_help("check http.proxy, then try again");
    };
    let message =
        format!("the proxy {proxy} refused to connect to {host} with {status}, nothing was sent");
    Error::new(Status::Network, message).with_help(match status {
        407 => "check the user name and the password in http.proxy",
        _ => "check http.proxy, and that the proxy allows this host",
    })
}

/// A proxy's host and port, without the credentials.
fn address(proxy: &Proxy) -> String {
    format!("{}:{}", proxy.host(), proxy.port())
}

fn proxy(http: &HttpConfig) -> Result<Option<Proxy>> {
    let Some(url) = &http.proxy else {
        return Ok(None);
    };
    // ureq would ignore a port that is not a number and use 80.
    let is_address = absolute_url(url.expose())
        .is_some_and(|url| url.port_u16() != Some(0) && matches!(url.path(), "" | "/"));
    let usable = is_address
        .then(|| Proxy::new(url.expose()).ok())
        .flatten()
        .filter(|proxy| proxy.protocol() == ProxyProtocol::Http);
    let unusable = || {
        Error::new(
            Status::Config,
            "http.proxy cannot be used: it must be http://[user:password@]host:port",
        )
        .with_parameter("http.proxy")
    };
    usable.map(Some).ok_or_else(unusable)
}

/// Whether the API is reached without the proxy: if `http.noProxy` names its host, or if it is on
/// this machine without TLS. Plain HTTP is allowed there because the traffic, which contains the
/// client secret, does not leave the machine. With `http.allowInsecureHttp` it may.
fn is_direct(base_url: &str, http: &HttpConfig) -> bool {
    let Some(url) = absolute_url(base_url) else { return false };
    let host = url.host().unwrap_or_default();
    let is_plain = url.scheme_str() == Some("http");
    is_without_proxy(&http.no_proxy, host)
        || is_plain && is_loopback(host) && !http.allow_insecure_http
}

/// The certificates that are trusted in addition to the platform's own.
fn bundle(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let certificates = ca_bundle::read("http.caBundlePath", path)?;
    Ok(certificates
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of `left` bytes, in pieces.
    struct Pieces {
        left: usize,
    }

    impl Read for Pieces {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let piece = room.len().min(self.left).min(10_000);
            room[..piece].fill(b'x');
            self.left -= piece;
            Ok(piece)
        }
    }

    #[test]
    fn memory_for_a_body_grows_with_the_data_and_not_by_the_announced_length() {
        for (length, announced, most) in [
            (10, 1 << 30, MAX_INITIAL_BODY + 1),
            (0, 0, 1),
            (3_000_000, 1 << 30, 6_000_000),
            (3_000_000, 10, 6_000_000),
            (1000, 1000, 1001),
        ] {
            let body = read_body(Pieces { left: length }, announced).unwrap();
            assert_eq!(body.len(), length, "{announced}");
            assert!(body.iter().all(|byte| *byte == b'x'), "{announced}");
            assert!(body.capacity() as u64 <= most, "{} for {length}", body.capacity());
        }
    }
}
