//! CA bundles: PEM files of additional root certificates, one for the API and one for the database.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result, Status};

/// Reads the certificates of the PEM file that the configuration names under `key`. Called when the
/// client is created, so that a bad file is reported at once, not at the first connection. Ignores
/// other PEM sections, such as private keys.
pub fn read(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let refused = |why: String| {
        Error::new(Status::Config, format!("{key} cannot be used: {}: {why}", path.display()))
            .with_parameter(key)
    };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
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
