//! Signatures as [Standard Webhooks](https://www.standardwebhooks.com) has them: HMAC-SHA256 of `id.timestamp.body`.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};
use ring::hmac::{self, HMAC_SHA256, Key};

use crate::error::{Error, Result};

const PREFIX: &str = "whsec_";
const VERSION: &str = "v1";
/// Signatures of one request that are looked at: more than anybody rotates.
const MAX_SIGNATURES: usize = 32;

/// Secrets are pasted with and without their padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A secret that requests are signed with. Never shown.
#[derive(Clone)]
pub struct Secret(Key);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Parses `whsec_` and base64; the prefix may be missing. `what` names the option in the error, which never quotes the
    /// text.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        let key = LENIENT.decode(text.strip_prefix(PREFIX).unwrap_or(text)).ok().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| Error::invalid(format!("{what}: expected whsec_ and base64 of 24 to 64 bytes")))?;
        Ok(Self(Key::new(HMAC_SHA256, &key)))
    }

    fn digest(&self, id: &str, timestamp: i64, body: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        context
    }
}

/// Returns the header `webhook-signature`: one signature per secret. `timestamp` is in seconds.
pub fn sign(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures = secrets
        .iter()
        .map(|secret| format!("{VERSION},{}", STANDARD.encode(secret.digest(id, timestamp, body).sign())));
    signatures.collect::<Vec<_>>().join(" ")
}

/// Returns whether any signature of the header was made with any of the secrets. Compares in constant time. The age of the
/// timestamp is for the caller to check.
pub fn verify(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8], header: &str) -> bool {
    let given = header.split(' ').filter_map(|part| part.split_once(',')).filter(|(version, _)| *version == VERSION);
    let given: Vec<_> =
        given.filter_map(|(_, signature)| STANDARD.decode(signature).ok()).take(MAX_SIGNATURES).collect();
    secrets.iter().any(|secret| {
        let digest = secret.digest(id, timestamp, body).sign();
        // Compared by ring, in constant time, as the digests of both under the same key: the body is hashed once.
        given.iter().any(|signature| {
            let tag = hmac::sign(&secret.0, signature);
            hmac::verify(&secret.0, digest.as_ref(), tag.as_ref()).is_ok()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &str = r#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::parse("secret", text).unwrap()).collect()
    }

    #[test]
    fn the_vector_of_the_specification_is_signed_and_verified() {
        for text in [SECRET, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            let secrets = secrets(&[text]);
            assert_eq!(sign(&secrets, ID, TIMESTAMP, BODY.as_bytes()), SIGNATURE);
            assert!(verify(&secrets, ID, TIMESTAMP, BODY.as_bytes(), SIGNATURE));
        }
    }

    #[test]
    fn a_request_that_differs_in_anything_is_not_verified() {
        let own = secrets(&[SECRET]);
        assert!(!verify(&own, "msg_other", TIMESTAMP, BODY.as_bytes(), SIGNATURE));
        assert!(!verify(&own, ID, TIMESTAMP + 1, BODY.as_bytes(), SIGNATURE));
        assert!(!verify(&own, ID, TIMESTAMP, b"{}", SIGNATURE));
        assert!(!verify(&secrets(&["whsec_AAAA"]), ID, TIMESTAMP, BODY.as_bytes(), SIGNATURE));
        for header in ["", "v1", "v1,", "v1,Zg==", "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v1,***"] {
            assert!(!verify(&own, ID, TIMESTAMP, BODY.as_bytes(), header), "{header}");
        }
    }

    #[test]
    fn while_a_secret_is_rotated_either_verifies() {
        let both = secrets(&["whsec_AAAA", SECRET]);
        let header = sign(&both, ID, TIMESTAMP, BODY.as_bytes());
        assert_eq!(header.split(' ').count(), 2);
        for one in ["whsec_AAAA", SECRET] {
            assert!(verify(&secrets(&[one]), ID, TIMESTAMP, BODY.as_bytes(), &header));
        }
        assert!(verify(&both, ID, TIMESTAMP, BODY.as_bytes(), SIGNATURE));
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_refused_and_not_quoted() {
        for text in ["", "whsec_", "whsec_not base64"] {
            let error = Secret::parse("webhooks[0].secret", text).unwrap_err();
            assert!(error.message().starts_with("webhooks[0].secret: ") && !error.message().contains("not base64"));
        }
    }
}
