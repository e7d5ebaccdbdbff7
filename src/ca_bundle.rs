//! CA bundles: PEM files of additional root certificates, one for the API and one for the database;
//! and the platform's root certificates.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use rustls_native_certs::{ErrorKind, load_native_certs};

use crate::error::{Error, Result, Status, exhaustion};

/// The variables that replace the platform's places of root certificates.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The help text for a platform without root certificates.
pub const NO_ROOTS_HELP: &str = "install the system's CA certificates (package ca-certificates), \
                                 correct SSL_CERT_FILE or SSL_CERT_DIR, or set caBundlePath";

/// Reads the certificates of the PEM file that the configuration names under `key`. Called when the
/// client is created, so that a bad file is reported at once, not at the first connection. Ignores
/// other PEM sections, such as private keys.
pub fn read(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let refused = |why: String| {
        Error::new(Status::Config, format!("{key} cannot be used: {}: {why}", path.display()))
            .with_parameter(key)
    };
    let pem = std::fs::read(path).map_err(|error| {
        let message = format!("{key} cannot be read: {}: {error}", path.display());
        let help = "check the path and the permissions of the file";
        Error::of_file(Status::Config, message, &error, help).with_parameter(key)
    })?;
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        // rustls would silently skip a certificate that cannot be a trust anchor.
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|error| refused(error.to_string()))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(refused("it contains no certificate in PEM".to_owned()));
    }
    Ok(certificates)
}

/// The platform's root certificates.
///
/// # Errors
/// If a resource to read them with is exhausted. Other errors are ignored, as by the platform's
/// verifier.
pub fn platform_roots() -> io::Result<Vec<CertificateDer<'static>>> {
    let loaded = load_native_certs();
    for error in loaded.errors {
        if let ErrorKind::Io { inner, .. } = error.kind
            && exhaustion::help(&inner).is_some()
        {
            return Err(inner);
        }
    }
    Ok(loaded.certs)
}

/// Whether the platform has no root certificate.
///
/// # Errors
/// As [`platform_roots`].
pub fn lacks_roots() -> io::Result<bool> {
    let (added, _) = RootCertStore::empty().add_parsable_certificates(platform_roots()?);
    Ok(added == 0)
}

/// The message for a platform without root certificates.
pub fn no_roots() -> String {
    let named: Vec<String> = VARIABLES
        .iter()
        .filter_map(|name| {
            Some(format!("{} ({name})", Path::new(&std::env::var_os(name)?).display()))
        })
        .collect();
    let places = match named.is_empty() {
        true => "the system's usual places, such as /etc/ssl/certs".to_owned(),
        false => named.join(" and "),
    };
    format!("no trusted certificates found at {places}")
}

/// Whether a connection failed because the server's certificate is not trusted.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub fn is_untrusted(cause: &(dyn StdError + 'static)) -> bool {
    let tls = cause.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}
