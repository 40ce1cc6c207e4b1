//! TLS: which certificates are trusted, and which one this client has.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, AlertDescription, ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::error::{Error, Result};
use crate::tls::{certificates, is_pem, roots, unusable};

/// The TLS options of a connection. Certificates and keys are PEM text, or paths of PEM files.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TlsOptions {
    /// The only roots to trust. Empty: the system's (or those of `SSL_CERT_FILE`), and those of `NODE_EXTRA_CA_CERTS`.
    #[serde(deserialize_with = "one_or_many")]
    pub ca: Vec<String>,
    /// The client's certificate chain.
    pub cert: Option<String>,
    /// The key of the client's certificate.
    pub key: Option<String>,
    /// The name that the server's certificate must have. None: the host.
    pub servername: Option<String>,
    /// Whether the server's certificate is verified.
    pub reject_unauthorized: bool,
    /// Shared by all connections of a configuration, so that they resume sessions.
    #[serde(skip)]
    config: SharedConfig,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::One(text) => vec![text],
        Given::Many(texts) => texts,
    })
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            ca: Vec::new(),
            cert: None,
            key: None,
            servername: None,
            reject_unauthorized: true,
            config: SharedConfig::default(),
        }
    }
}

/// Never shows a key.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("servername", &self.servername)
            .field("reject_unauthorized", &self.reject_unauthorized)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Default)]
struct SharedConfig(Arc<OnceLock<Arc<ClientConfig>>>);

/// It follows from the other options.
impl PartialEq for SharedConfig {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SharedConfig {}

impl TlsOptions {
    /// Returns the name that the server's certificate must have.
    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>> {
        let (option, name) = match &self.servername {
            Some(name) => ("connection.tls.servername", name.as_str()),
            None => ("connection.host", host),
        };
        ServerName::try_from(name.to_owned()).map_err(|e| Error::invalid(format!("{option}: not usable with TLS: {e}")))
    }

    /// Returns the client configuration. Files are read until that succeeded once.
    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = self.config.0.get() {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build()?);
        Ok(self.config.0.get_or_init(|| config).clone())
    }

    fn build(&self) -> Result<ClientConfig> {
        let builder = if self.reject_unauthorized {
            ClientConfig::builder().with_root_certificates(roots("connection.tls", &self.ca, "set connection.tls.ca")?)
        } else {
            let verifier = Arc::new(AcceptAny(Arc::new(ring::default_provider())));
            ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier)
        };
        match (&self.cert, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(cert), Some(key)) => {
                let chain = certificates("connection.tls.cert", cert)?;
                let unusable = |e: &dyn fmt::Display| unusable("connection.tls.key", key, e);
                let key = match is_pem(key) {
                    true => PrivateKeyDer::from_pem_slice(key.as_bytes()),
                    false => PrivateKeyDer::from_pem_file(key),
                };
                let key = key.map_err(|e| unusable(&e))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| unusable(&e))
            }
            _ => Err(Error::invalid("connection.tls: cert and key belong together: give both, or none")),
        }
    }
}

/// Converts an error of a TLS connection. Failures that a retry does not resolve, such as an untrusted certificate, are
/// permanent.
pub(super) fn tls_error(address: &str, error: &io::Error) -> Option<Error> {
    let cause = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let advice = match cause {
        rustls::Error::InvalidCertificate(_) => {
            "check connection.tls.ca, connection.tls.servername and the server's certificate"
        }
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS on this port",
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError,
        ) => "the server requires another client certificate: check connection.tls.cert and connection.tls.key",
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion)
        | rustls::Error::PeerIncompatible(_) => {
            "the server offers no TLS version or cipher in common; TLS 1.2 is the least"
        }
        _ => return Some(Error::unavailable(format!("{address}: TLS failed: {cause}"))),
    };
    Some(Error::unavailable(format!("{address}: TLS failed: {cause} ({advice})")).permanent())
}

/// Accepts every certificate, for `rejectUnauthorized: false`. Signatures are verified nevertheless.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
