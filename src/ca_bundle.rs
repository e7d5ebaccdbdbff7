//! CA bundles: PEM files of root certificates to trust, one for each kind of server.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result, Status};

/// The certificates of a PEM file that stands under that key of the configuration. Read when the client is made, so that
/// a bad file is not found out at night. What stands beside the certificates, a key for instance, is passed over.
///
/// # Errors
/// `CONFIG`, naming the key, for a file that cannot be read, that holds none, or one that cannot be a root.
pub fn read(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let refused = |why: String| {
        Error::new(Status::Config, format!("{key} cannot be used: {}: {why}", path.display()))
            .with_parameter(key)
    };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        // One that cannot be a root would be left out in silence later.
        RootCertStore::empty().add(certificate.clone()).map_err(|error| refused(error.to_string()))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(refused("it holds no certificate in PEM".to_owned()));
    }
    Ok(certificates)
}
