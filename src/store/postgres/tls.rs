//! TLS to PostgreSQL, with certificate and host name verification and channel binding.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use ring::digest::{self, digest};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pg_error::PgError;
use super::socket::AsyncSocket;
use crate::ca_bundle;
use crate::der::element;
use crate::error::Result;

pub struct Trust {
    bundle: Vec<CertificateDer<'static>>,
    /// Created at the first connection, because loading the platform's certificates is slow.
    config: OnceLock<Arc<ClientConfig>>,
}

impl Trust {
    /// Trusts the certificates of the platform and of a PEM file.
    pub fn new(bundle: Option<&Path>) -> Result<Trust> {
        let read = |path| ca_bundle::read("store.caBundlePath", path);
        let bundle = bundle.map(read).transpose()?.unwrap_or_default();
        Ok(Trust { bundle, config: OnceLock::new() })
    }

    /// The TLS connector for a host.
    ///
    /// # Errors
    /// If there are no trusted certificates, or no file descriptor to read them.
    pub fn tls(&self, host: &str) -> Result<Tls, PgError> {
        let config = match self.config.get() {
            Some(config) => config,
            None => {
                let config = self.config()?;
                self.config.get_or_init(|| config)
            }
        };
        Ok(Tls(Some((Arc::clone(config), host.to_owned()))))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, PgError> {
        let mut roots = RootCertStore::empty();
        // Certificates that rustls rejects as roots are ignored.
        roots.add_parsable_certificates(ca_bundle::platform_roots()?);
        roots.add_parsable_certificates(self.bundle.iter().cloned());
        if roots.is_empty() {
            return Err(PgError::Untrusted(ca_bundle::no_roots(), ca_bundle::NO_ROOTS_HELP));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            // Cannot fail: ring's provider has cipher suites for all default versions.
            .unwrap_or_else(|error| unreachable!("ring speaks TLS 1.2 and 1.3: {error}"))
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A TLS connector for one connection; `None` if TLS is disabled.
pub struct Tls(Option<(Arc<ClientConfig>, String)>);

impl Tls {
    /// A connector that never uses TLS.
    pub fn none() -> Tls {
        Tls(None)
    }
}

impl TlsConnect<AsyncSocket> for Tls {
    type Stream = PgTlsStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<PgTlsStream>> + Send>>;

    fn connect(self, socket: AsyncSocket) -> Self::Future {
        Box::pin(async move {
            let (config, host) = self.0.ok_or(io::ErrorKind::Unsupported)?;
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let stream = TlsConnector::from(config).connect(name, socket).await?;
            Ok(PgTlsStream(Box::new(stream)))
        })
    }
}

pub struct PgTlsStream(Box<TlsStream<AsyncSocket>>);

impl tokio_postgres::tls::TlsStream for PgTlsStream {
    /// Channel binding `tls-server-end-point` (RFC 5929): ties the proof of the password to the
    /// server's certificate, so that a man in the middle with another certificate cannot relay it.
    fn channel_binding(&self) -> ChannelBinding {
        let certificates = self.0.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(<[_]>::first);
        let bound = certificate.and_then(|certificate| {
            Some(digest(signature_digest(certificate)?, certificate).as_ref().to_vec())
        });
        bound.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// The hash function for `tls-server-end-point` (RFC 5929, section 4.1): the certificate's
/// signature hash, with SHA-256 replacing MD5 and SHA-1. `None` if the signature algorithm has no
/// hash function, or names it in its parameters.
fn signature_digest(certificate: &[u8]) -> Option<&'static digest::Algorithm> {
    // Certificate ::= SEQUENCE {
    //     tbsCertificate, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }
    let (certificate, _) = element(SEQUENCE, certificate)?;
    let (_, rest) = element(SEQUENCE, certificate)?;
    let (algorithm, _) = element(SEQUENCE, rest)?;
    let (identifier, _) = element(OBJECT_IDENTIFIER, algorithm)?;
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    let (last, family) = identifier.split_last()?;
    match (family, last) {
        (RSA, 4 | 5 | 11) | (ECDSA_SHA2, 2) => Some(&digest::SHA256),
        (RSA, 12) | (ECDSA_SHA2, 3) => Some(&digest::SHA384),
        (RSA, 13) | (ECDSA_SHA2, 4) => Some(&digest::SHA512),
        _ if identifier == ECDSA_SHA1 => Some(&digest::SHA256),
        _ => None,
    }
}

impl AsyncRead for PgTlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for PgTlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
