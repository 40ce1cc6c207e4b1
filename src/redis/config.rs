//! The address and credentials of a Redis server, and all timeouts.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ::redis::{ConnectionAddr, IntoConnectionInfo};

use crate::error::{Error, Result};

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
    /// Whether to use TLS.
    pub tls: bool,
    /// A PEM file with the only roots to trust. None: the system's (or `SSL_CERT_FILE`).
    pub tls_ca: Option<PathBuf>,
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

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 6379,
            username: None,
            password: None,
            db: 0,
            tls: false,
            tls_ca: None,
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
        let info = ::redis::parse_redis_url(&plain)
            .ok_or_else(|| unusable("not a Redis URL".into()))?
            .into_connection_info()
            .map_err(|e| unusable(e.category().to_owned()))?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(unusable("not an address on a network".into()));
        };
        let settings = info.redis_settings();
        Ok(Self {
            host: host.clone(),
            port: *port,
            tls,
            db: settings.db(),
            username: settings.username().filter(|name| !name.is_empty()).map(str::to_owned),
            password: settings.password().map(str::to_owned),
            ..Self::default()
        })
    }

    /// Returns the server's address for messages, without user and password.
    pub fn address(&self) -> String {
        format!("{}://{}:{}/{}", if self.tls { "rediss" } else { "redis" }, self.host, self.port, self.db)
    }
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
        assert_eq!((config.host.as_str(), config.port, config.db, config.tls), ("cache.example", 6390, 3, true));
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
}
