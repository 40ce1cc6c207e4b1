//! The address and credentials of a Redis server, and all timeouts.

use std::fmt;
use std::time::Duration;

use ::redis::{ConnectionAddr, IntoConnectionInfo};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::tls::TlsOptions;
use crate::error::{Error, Result};

/// Sentinels, and the primary that they watch.
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// Their hosts and ports.
    pub addresses: Vec<(String, u16)>,
    /// The name of the primary.
    pub name: String,
    /// Their password.
    pub password: Option<String>,
}

/// A sentinel as an application gives it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentinelAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    #[serde(default = "SentinelAddress::default_port")]
    pub port: u16,
}

impl SentinelAddress {
    const fn default_port() -> u16 {
        26_379
    }
}

/// Whether to use TLS, or its options, which imply it.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Tls {
    /// With the defaults, or not at all.
    Enabled(bool),
    /// With these.
    Options(TlsOptions),
}

/// The fields of a connection as an application gives them. Fields fill in what the URL leaves open.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConnectionFields {
    /// `redis://` or `rediss://`.
    pub url: Option<String>,
    /// Host name or address.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// ACL user. An empty one is none.
    pub username: Option<String>,
    /// Password. An empty one is none.
    pub password: Option<String>,
    /// Database number.
    pub db: Option<i64>,
    /// Whether to use TLS, and how.
    pub tls: Option<Tls>,
    /// Sentinels, instead of the URL, host and port.
    pub sentinels: Option<Vec<SentinelAddress>>,
    /// The name of the primary that they watch.
    pub name: Option<String>,
    /// Their password.
    pub sentinel_password: Option<String>,
}

/// Returns the value of a field that the URL may also have. They must agree.
fn agreed<T: PartialEq>(field: &str, in_url: Option<T>, given: Option<T>) -> Result<Option<T>> {
    match (in_url, given) {
        (Some(url), Some(given)) if url != given => Err(Error::invalid(format!(
            "connection.{field}: contradicts connection.url, which has another value: leave out one of the two"
        ))),
        (url, given) => Ok(given.or(url)),
    }
}

/// How to reach a Redis server. Its `Debug` output hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// ACL user. None: the default user.
    pub username: Option<String>,
    /// Password. It appears in no error, log or debug output.
    pub password: Option<String>,
    /// Database number.
    pub db: i64,
    /// TLS options. None: no TLS.
    pub tls: Option<TlsOptions>,
    /// Sentinels that know the primary's address, instead of `host` and `port`.
    pub sentinels: Option<Sentinels>,
    /// The name that `CLIENT LIST` shows.
    pub client_name: String,
    /// Limit of one attempt to connect and authenticate.
    pub connect_timeout: Duration,
    /// Limit of a call's wait for a connection. After it the call fails and is not sent.
    pub queue_timeout: Duration,
    /// Limit of the server's silence while a reply is pending. After it the connection counts as broken.
    pub response_timeout: Duration,
    /// Limit of one whole reply, from the one before it or, if it was the only pending one, from its command.
    pub reply_timeout: Duration,
    /// Time without traffic after which the connection is pinged.
    pub ping_interval: Duration,
    /// Longest delay between two attempts to connect, of which there is no limit.
    pub max_reconnect_delay: Duration,
    /// Limit of pending calls. Further ones fail at once.
    pub max_pending: usize,
}

impl<'de> Deserialize<'de> for RedisConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_fields(ConnectionFields::deserialize(deserializer)?).map_err(|e| D::Error::custom(e.message()))
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 6379,
            username: None,
            password: None,
            db: 0,
            tls: None,
            sentinels: None,
            client_name: "nvent-native".into(),
            connect_timeout: Duration::from_secs(3),
            queue_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            reply_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(10),
            max_reconnect_delay: Duration::from_secs(2),
            max_pending: 100_000,
        }
    }
}

impl RedisConfig {
    /// Parses `redis://` and `rediss://` URLs: `redis://user:password@host:port/db`.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::from_fields(ConnectionFields { url: Some(url.into()), ..ConnectionFields::default() })
    }

    /// Merges the URL and the fields. A contradiction between them is [`crate::error::Code::Invalid`].
    pub fn from_fields(fields: ConnectionFields) -> Result<Self> {
        let not_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut url = match &fields.url {
            Some(url) => parse_url(url)?,
            None => ConnectionFields::default(),
        };
        if fields.sentinels.is_some() && (fields.host.is_some() || fields.port.is_some() || fields.url.is_some()) {
            return Err(Error::invalid(
                "connection.sentinels: not usable with connection.url, host or port, as the sentinels know the address",
            ));
        }
        let sentinels = match (fields.sentinels, fields.name) {
            (None, None) => None,
            (Some(given), Some(name)) => Some(Sentinels {
                addresses: given.into_iter().map(|sentinel| (sentinel.host, sentinel.port)).collect(),
                name,
                password: fields.sentinel_password,
            }),
            _ => return Err(Error::invalid("connection: sentinels and name belong together: give both, or none")),
        };
        let (enabled, tls_options) = match fields.tls {
            None => (None, None),
            Some(Tls::Enabled(enabled)) => (Some(enabled), None),
            Some(Tls::Options(options)) => (Some(true), Some(options)),
        };
        let in_url = match url.tls.take() {
            Some(Tls::Enabled(enabled)) => Some(enabled),
            _ => None,
        };
        let tls = agreed("tls", in_url, enabled)?.unwrap_or(false);
        let defaults = Self::default();
        Ok(Self {
            host: agreed("host", url.host, not_empty(fields.host))?.unwrap_or(defaults.host),
            port: agreed("port", url.port, fields.port)?.unwrap_or(defaults.port),
            db: agreed("db", url.db, fields.db)?.unwrap_or(defaults.db),
            username: agreed("username", not_empty(url.username), not_empty(fields.username))?,
            password: agreed("password", not_empty(url.password), not_empty(fields.password))?,
            tls: tls.then(|| tls_options.unwrap_or_default()),
            sentinels,
            ..Self::default()
        })
    }

    /// Returns the server's address for messages, without user and password.
    pub fn address(&self) -> String {
        format!("{}://{}:{}/{}", if self.tls.is_some() { "rediss" } else { "redis" }, self.host, self.port, self.db)
    }
}

/// Parses a URL into the fields that it has.
fn parse_url(url: &str) -> Result<ConnectionFields> {
    // The message does not contain the URL, which may contain the password.
    let unusable = |why: String| {
        Error::invalid(format!(
            "connection.url: {why}; expected redis://[[user]:password@]host[:port][/db], or rediss:// for TLS"
        ))
    };
    // The crate accepts rediss:// only when built with its own TLS; the rest of the URL is the same.
    let (tls, plain) = match url.strip_prefix("rediss://") {
        Some(rest) => (true, format!("redis://{rest}")),
        None => (false, url.to_owned()),
    };
    let parsed = ::redis::parse_redis_url(&plain).ok_or_else(|| unusable("not a Redis URL".into()))?;
    let (port, has_db) = (parsed.port(), !parsed.path().trim_matches('/').is_empty());
    let info = parsed.into_connection_info().map_err(|e| unusable(e.category().to_owned()))?;
    let ConnectionAddr::Tcp(host, _) = info.addr() else {
        return Err(unusable("not an address on a network".into()));
    };
    let settings = info.redis_settings();
    Ok(ConnectionFields {
        host: Some(host.clone()),
        port,
        tls: Some(Tls::Enabled(tls)),
        db: has_db.then(|| settings.db()),
        username: settings.username().map(str::to_owned),
        password: settings.password().map(str::to_owned),
        ..ConnectionFields::default()
    })
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("address", &self.address())
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("client_name", &self.client_name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_url_sets_every_field_of_the_connection() {
        let config = RedisConfig::from_url("rediss://ann:s%40crt@cache.example:6390/3").unwrap();
        assert_eq!(
            (config.host.as_str(), config.port, config.db, config.tls.is_some()),
            ("cache.example", 6390, 3, true)
        );
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("ann"), Some("s@crt")));
        let config = RedisConfig::from_url("redis://:only-password@localhost").unwrap();
        assert_eq!((config.port, config.username, config.password.as_deref()), (6379, None, Some("only-password")));
    }

    #[test]
    fn no_message_contains_a_password() {
        for bad in ["redis://:hunter2@host:port", "http://u:hunter2@host", "redis://u:hunter2@host/x", "hunter2"] {
            let error = RedisConfig::from_url(bad).unwrap_err();
            assert_eq!(error.code(), Code::Invalid);
            assert!(!error.message().contains("hunter2"), "{error}");
        }
        let config = RedisConfig { password: Some("hunter2".into()), ..RedisConfig::default() };
        assert!(!format!("{config:?} {}", config.address()).contains("hunter2"));
    }

    #[test]
    fn fields_fill_in_what_the_url_leaves_open_and_a_contradiction_is_refused() {
        let merged = |fields: ConnectionFields| RedisConfig::from_fields(fields);
        let url = |url: &str| ConnectionFields { url: Some(url.into()), ..ConnectionFields::default() };
        let config = merged(ConnectionFields {
            port: Some(7000),
            db: Some(5),
            password: Some("p".into()),
            ..url("redis://cache.example")
        })
        .unwrap();
        assert_eq!((config.host.as_str(), config.port, config.db), ("cache.example", 7000, 5));
        assert_eq!((config.username, config.password.as_deref()), (None, Some("p")));
        for contradiction in [
            ConnectionFields { db: Some(5), ..url("redis://h/3") },
            ConnectionFields { port: Some(1), ..url("redis://h:2") },
            ConnectionFields { host: Some("other".into()), ..url("redis://h") },
            ConnectionFields { tls: Some(Tls::Enabled(true)), ..url("redis://h") },
            ConnectionFields { tls: Some(Tls::Options(TlsOptions::default())), ..url("redis://h") },
            ConnectionFields { tls: Some(Tls::Enabled(false)), ..url("rediss://h") },
            ConnectionFields { password: Some("hunter2".into()), ..url("redis://:hunter3@h") },
        ] {
            let error = merged(contradiction).unwrap_err();
            assert_eq!(error.code(), Code::Invalid);
            assert!(!error.message().contains("hunter"), "{error}");
        }
        let sentinels = || ConnectionFields {
            sentinels: Some(vec![SentinelAddress { host: "s".into(), port: 1 }]),
            name: Some("primary".into()),
            ..Default::default()
        };
        assert_eq!(merged(sentinels()).unwrap().sentinels.unwrap().addresses, [("s".to_owned(), 1)]);
        for contradiction in [
            ConnectionFields { url: Some("redis://h".into()), ..sentinels() },
            ConnectionFields { host: Some("h".into()), ..sentinels() },
            ConnectionFields { port: Some(1), ..sentinels() },
            ConnectionFields { name: None, ..sentinels() },
            ConnectionFields { sentinels: None, ..sentinels() },
        ] {
            assert_eq!(merged(contradiction).unwrap_err().code(), Code::Invalid);
        }
        assert!(
            merged(ConnectionFields { db: Some(3), tls: Some(Tls::Enabled(true)), ..url("rediss://h/3") })
                .unwrap()
                .tls
                .is_some()
        );
        let empty = ConnectionFields { username: Some("".into()), password: Some("".into()), ..Default::default() };
        let config = merged(empty).unwrap();
        assert_eq!((config.username, config.password), (None, None));
    }
}
