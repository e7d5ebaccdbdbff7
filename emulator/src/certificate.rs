//! The emulator's private certificate authority (CA), and the valid and invalid server certificates
//! that it issues.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use std::io;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The server certificate for HTTPS clients. A private CA, created at start, issues each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Valid, for 127.0.0.1, ::1 and localhost.
    Good,
    /// Valid for another host name.
    WrongName,
    /// Expired, for the right names.
    Expired,
}

/// The server's TLS settings, and the CA that a client must trust.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) ca_pem: String,
}

impl Tls {
    pub(crate) fn new(certificate: Certificate) -> io::Result<Self> {
        let (ca_pem, chain, key) = issue(certificate).map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(io::Error::other)?;
        Ok(Self { acceptor: Arc::new(config).into(), ca_pem })
    }
}

type Issued = (String, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn issue(certificate: Certificate) -> Result<Issued, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "GHL OAuth emulator CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let names: &[&str] = match certificate {
        Certificate::WrongName => &["elsewhere.example"],
        Certificate::Good | Certificate::Expired => &["127.0.0.1", "::1", "localhost"],
    };
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "GHL OAuth emulator");
    if certificate == Certificate::Expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate()?;
    let server = params.signed_by(&key, &ca)?;
    Ok((ca.pem(), vec![server.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}
