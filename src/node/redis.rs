//! The options of the Redis backends, as JavaScript sends them: checked there for names and types.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::redis::RedisConfig;
use crate::store::{RedisStoreOptions, Trim};
use crate::stream::{RedisStreamOptions, RetainTopics};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Connection {
    url: Option<String>,
    host: Option<String>,
    port: Option<f64>,
    username: Option<String>,
    password: Option<String>,
    db: Option<f64>,
    tls: Option<bool>,
}

/// A whole number in a range.
fn whole(what: &str, value: f64, max: f64) -> Result<u64> {
    if value.fract() == 0.0 && (0.0..=max).contains(&value) {
        Ok(value as u64)
    } else {
        Err(Error::invalid(format!("options.{what}: expected a whole number from 0 to {max}, got {value}")))
    }
}

impl Connection {
    fn config(self) -> Result<RedisConfig> {
        if let Some(url) = &self.url {
            return RedisConfig::from_url(url);
        }
        let defaults = RedisConfig::default();
        let port = self.port.map(|port| whole("connection.port", port, 65_535.0)).transpose()?;
        let db = self.db.map(|db| whole("connection.db", db, 1e6)).transpose()?;
        Ok(RedisConfig {
            host: self.host.unwrap_or(defaults.host),
            port: port.map_or(defaults.port, |port| port as u16),
            db: db.map_or(defaults.db, |db| db as i64),
            tls: self.tls.unwrap_or(defaults.tls),
            username: self.username,
            password: self.password,
            ..RedisConfig::default()
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StoreSettings {
    connection: Connection,
    prefix: Option<String>,
    trim: TrimSettings,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TrimSettings {
    max_len: Option<f64>,
    approx: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StreamSettings {
    connection: Connection,
    prefix: Option<String>,
    retain: Option<RetainSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetainSettings {
    topics: Vec<String>,
    max_len: Option<f64>,
}

fn read<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T> {
    // The text of the error could quote a password.
    serde_json::from_str(text).map_err(|_| Error::invalid("options: not usable for Redis"))
}

/// The options of a store on Redis.
pub(super) fn store_options(text: &str) -> Result<RedisStoreOptions> {
    let given: StoreSettings = read(text)?;
    let defaults = RedisStoreOptions::default();
    let max_len = given.trim.max_len.map(|n| whole("streams.trim.maxLen", n, 1e15)).transpose()?;
    Ok(RedisStoreOptions {
        connection: given.connection.config()?,
        prefix: given.prefix.unwrap_or(defaults.prefix),
        trim: Trim {
            max_len: max_len.or(defaults.trim.max_len),
            approx: given.trim.approx.unwrap_or(defaults.trim.approx),
        },
        feed_max_len: defaults.feed_max_len,
        clock: defaults.clock,
    })
}

/// The options of a stream on Redis.
pub(super) fn stream_options(text: &str) -> Result<RedisStreamOptions> {
    let given: StreamSettings = read(text)?;
    let defaults = RedisStreamOptions::default();
    let retain = match given.retain {
        None => None,
        Some(retain) => Some(RetainTopics {
            topics: retain.topics,
            max_len: match retain.max_len {
                None => RetainTopics::DEFAULT_MAX_LEN,
                Some(n) => whole("retain.maxLen", n, 1e15)?.max(1),
            },
            max_backlog: None,
        }),
    };
    Ok(RedisStreamOptions {
        connection: given.connection.config()?,
        prefix: given.prefix.unwrap_or(defaults.prefix),
        retain,
        groups: defaults.groups,
    })
}
