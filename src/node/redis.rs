//! The options of the Redis backends, as JavaScript sends them: checked there for names and types.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::redis::{ConnectionFields, RedisConfig, Sentinels, TlsOptions};
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
    tls: Option<Tls>,
    sentinels: Option<Vec<Sentinel>>,
    name: Option<String>,
    sentinel_password: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tls {
    Enabled(bool),
    Options(TlsFields),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TlsFields {
    ca: Option<OneOrMany>,
    cert: Option<String>,
    key: Option<String>,
    servername: Option<String>,
    reject_unauthorized: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<TlsFields> for TlsOptions {
    fn from(fields: TlsFields) -> Self {
        let mut options = Self::default();
        options.ca = match fields.ca {
            None => Vec::new(),
            Some(OneOrMany::One(ca)) => vec![ca],
            Some(OneOrMany::Many(ca)) => ca,
        };
        (options.cert, options.key, options.servername) = (fields.cert, fields.key, fields.servername);
        options.reject_unauthorized = fields.reject_unauthorized.unwrap_or(true);
        options
    }
}

#[derive(Deserialize)]
struct Sentinel {
    host: String,
    port: Option<f64>,
}

/// Reads a whole number in a range.
fn whole(what: &str, value: f64, max: f64) -> Result<u64> {
    if value.fract() == 0.0 && (0.0..=max).contains(&value) {
        Ok(value as u64)
    } else {
        Err(Error::invalid(format!("{what}: expected a whole number from 0 to {max}, got {value}")))
    }
}

impl Connection {
    fn config(self) -> Result<RedisConfig> {
        let port = |what: &str, port: f64| whole(what, port, 65_535.0).map(|port| port as u16);
        let sentinels = match (self.sentinels, self.name) {
            (None, None) => None,
            (Some(sentinels), Some(name)) => {
                let addresses = sentinels.into_iter().map(|Sentinel { host, port: given }| {
                    Ok((host, given.map_or(Ok(26_379), |given| port("connection.sentinels[].port", given))?))
                });
                let addresses = addresses.collect::<Result<Vec<_>>>()?;
                Some(Sentinels { addresses, name, password: self.sentinel_password })
            }
            _ => {
                return Err(Error::invalid("connection: sentinels and name belong together: give both, or none"));
            }
        };
        let (tls, tls_options) = match self.tls {
            None => (None, None),
            Some(Tls::Enabled(enabled)) => (Some(enabled), None),
            Some(Tls::Options(fields)) => (Some(true), Some(fields.into())),
        };
        RedisConfig::from_fields(ConnectionFields {
            url: self.url,
            host: self.host,
            port: self.port.map(|given| port("connection.port", given)).transpose()?,
            username: self.username,
            password: self.password,
            db: self.db.map(|db| whole("connection.db", db, 1e6)).transpose()?.map(|db| db as i64),
            tls,
            tls_options,
            sentinels,
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

/// Reads the options of a store on Redis.
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

/// Reads the options of a stream on Redis.
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
