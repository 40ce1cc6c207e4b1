//! What a Redis store is made with.

use serde::{Deserialize, Deserializer, de::Error as _};

use super::feed::MAX_ENTRIES;
use crate::redis::RedisConfig;
use crate::time::{SharedClock, system_clock};

/// The largest `maxLen`: whole numbers are exact in JavaScript and Lua up to well beyond it.
const MAX_MAX_LEN: f64 = 1e15;

/// How long streams get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trim {
    /// About how many events a subject keeps. None: all.
    #[serde(deserialize_with = "max_len")]
    pub max_len: Option<u64>,
    /// Whether Redis may keep somewhat more, which costs it less.
    #[serde(deserialize_with = "approx")]
    pub approx: bool,
}

impl Default for Trim {
    fn default() -> Self {
        Self { max_len: Some(10_000), approx: true }
    }
}

/// Reads `maxLen`; null and a missing field are the default.
fn max_len<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<f64>::deserialize(deserializer)? {
        None => Ok(Trim::default().max_len),
        Some(n) if n.fract() == 0.0 && (0.0..=MAX_MAX_LEN).contains(&n) => Ok(Some(n as u64)),
        Some(n) => Err(D::Error::custom(format!("expected a whole number from 0 to {MAX_MAX_LEN}, got {n}"))),
    }
}

/// Reads `approx`; null and a missing field are the default.
fn approx<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(Trim::default().approx))
}

/// Reads `{ trim }`.
fn streams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Trim, D::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Streams {
        trim: Trim,
    }
    Streams::deserialize(deserializer).map(|streams| streams.trim)
}

/// What a [`RedisStore`](super::RedisStore) is made with.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RedisStoreOptions {
    /// Where the server is.
    pub connection: RedisConfig,
    /// The beginning of the store's own keys. Subjects, kv keys and index keys are used as they are given.
    pub prefix: String,
    /// How long streams get.
    #[serde(rename = "streams", deserialize_with = "streams")]
    pub trim: Trim,
    /// About how many entries the feed keeps: how far a consumer or subscription may be behind without missing events.
    #[serde(skip)]
    pub feed_max_len: u64,
    /// The source of `ts`.
    #[serde(skip, default = "system_clock")]
    pub clock: SharedClock,
}

impl Default for RedisStoreOptions {
    fn default() -> Self {
        Self {
            connection: RedisConfig::default(),
            prefix: "nvent".into(),
            trim: Trim::default(),
            feed_max_len: MAX_ENTRIES,
            clock: system_clock(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_trimmed_as_the_options_say() {
        let trim = |json: &str| serde_json::from_str::<RedisStoreOptions>(json).map(|options| options.trim);
        for json in ["{}", r#"{"streams":{}}"#, r#"{"streams":{"trim":{"maxLen":null,"approx":null}}}"#] {
            assert_eq!(trim(json).unwrap(), Trim { max_len: Some(10_000), approx: true }, "{json}");
        }
        let given = trim(r#"{"streams":{"trim":{"maxLen":0,"approx":false}}}"#).unwrap();
        assert_eq!(given, Trim { max_len: Some(0), approx: false });
        assert_eq!(trim(r#"{"streams":{"trim":{"maxLen":1e15}}}"#).unwrap().max_len, Some(1_000_000_000_000_000));
        for bad in ["-1", "1.5", "2e15", "\"many\""] {
            assert!(trim(&format!(r#"{{"streams":{{"trim":{{"maxLen":{bad}}}}}}}"#)).is_err(), "{bad}");
        }
    }
}
