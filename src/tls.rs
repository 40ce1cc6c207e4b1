//! What every TLS client shares: certificates from PEM, and the roots that are trusted.

use std::fmt;
use std::path::Path;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result};

/// Returns whether an option holds PEM text rather than a path.
pub(crate) fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN")
}

/// Returns the error of PEM text or of a PEM file. PEM text is never quoted.
pub(crate) fn unusable(option: &str, given: &str, error: &dyn fmt::Display) -> Error {
    match is_pem(given) {
        true => Error::invalid(format!("{option}: not usable: {error}")),
        false => Error::invalid(format!("{option}: {} is not usable: {error}", Path::new(given).display())),
    }
}

/// Reads the certificates of PEM text or of a PEM file.
pub(crate) fn certificates(option: &str, given: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: std::result::Result<Vec<_>, _> = match is_pem(given) {
        true => CertificateDer::pem_slice_iter(given.as_bytes()).collect(),
        false => CertificateDer::pem_file_iter(given).and_then(Iterator::collect),
    };
    let certificates = read.map_err(|e| unusable(option, given, &e))?;
    if certificates.is_empty() {
        return Err(unusable(option, given, &"it contains no certificate"));
    }
    Ok(certificates)
}

/// Returns the roots of `ca`. Empty: the system's (or those of `SSL_CERT_FILE`), and those of `NODE_EXTRA_CA_CERTS`.
/// `option` names the TLS options in messages, `advice` what to set instead.
pub(crate) fn roots(option: &str, ca: &[String], advice: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for given in ca {
        let option = format!("{option}.ca");
        for certificate in certificates(&option, given)? {
            roots.add(certificate).map_err(|e| unusable(&option, given, &e))?;
        }
    }
    if !ca.is_empty() {
        return Ok(roots);
    }
    let native = rustls_native_certs::load_native_certs();
    let named = std::env::var_os("SSL_CERT_FILE");
    let problem = match native.errors.first() {
        Some(error) if native.certs.is_empty() || named.is_some() => Some(format!("cannot be read: {error}")),
        None if native.certs.is_empty() && named.is_some() => Some("contains no certificate".to_owned()),
        _ => None,
    };
    if let Some(problem) = problem {
        let origin = named.map(|file| format!("SSL_CERT_FILE={}", file.display()));
        let origin = origin.as_deref().unwrap_or("the system's roots");
        return Err(Error::invalid(format!("{option}: {origin} {problem}; {advice}")));
    }
    // Some of a system's roots may be unreadable; it matters only whether the server's is among them.
    roots.add_parsable_certificates(native.certs);
    if let Some(file) = std::env::var("NODE_EXTRA_CA_CERTS").ok().filter(|file| !file.is_empty()) {
        roots.add_parsable_certificates(certificates("NODE_EXTRA_CA_CERTS", &file)?);
    }
    if roots.is_empty() {
        return Err(Error::invalid(format!("{option}: the system has no root certificates; {advice}")));
    }
    Ok(roots)
}
