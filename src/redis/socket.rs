//! One socket to a server: connects, authenticates, reads and writes.

use std::io;
use std::time::Duration;

use ::redis::{Cmd, Parser, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::{RedisConfig, Sentinels};
use super::reply::{server_error, texts};
use super::tls::tls_error;
use crate::error::{Error, Result};

/// A plain or encrypted byte stream.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Parses bytes into whole replies.
#[derive(Default)]
pub(crate) struct ReplyParser {
    parser: Parser,
}

/// The received bytes as a reader that then would block, as more may follow.
struct Chunk<'a>(&'a [u8]);

impl io::Read for Chunk<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // To the parser, zero bytes would mean the end of the input.
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { io::Read::read(&mut self.0, buf) }
    }
}

impl ReplyParser {
    /// Calls `each` with every reply that these bytes complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Value)) -> Result<()> {
        let mut chunk = Chunk(bytes);
        loop {
            match self.parser.parse_value(&mut chunk) {
                Ok(value) => each(value),
                Err(e) if e.is_io_error() => return Ok(()),
                Err(e) => return Err(Error::unavailable(format!("the server does not speak the Redis protocol: {e}"))),
            }
        }
    }
}

/// A connected socket that is ready for commands.
pub(crate) struct Socket {
    pub(crate) reader: ReadHalf<Box<dyn Transport>>,
    pub(crate) writer: WriteHalf<Box<dyn Transport>>,
    pub(crate) parser: ReplyParser,
    /// Replies that were read and not taken yet.
    ready: std::collections::VecDeque<Value>,
    /// The server's address, for messages.
    pub(crate) address: String,
}

impl Socket {
    /// Connects, authenticates and pings, within [`RedisConfig::connect_timeout`].
    pub(crate) async fn open(config: &RedisConfig) -> Result<Self> {
        let address = config.address();
        match timeout(config.connect_timeout, Self::connect(config)).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!(
                "no reply from {address} within {:?}: check that it is running and reachable",
                config.connect_timeout
            ))),
        }
    }

    async fn connect(config: &RedisConfig) -> Result<Self> {
        let Some(sentinels) = &config.sentinels else {
            let mut socket = Self::connect_to(config, &config.host, config.port).await?;
            socket.handshake(config).await?;
            return Ok(socket);
        };
        let mut last = Error::invalid("connection.sentinels: expected at least one sentinel");
        for (host, port) in &sentinels.addresses {
            match timeout(config.connect_timeout / 3, Self::ask_sentinel(config, sentinels, host, *port)).await {
                Ok(Ok((host, port))) => {
                    let mut socket = Self::connect_to(config, &host, port).await?;
                    socket.handshake(config).await?;
                    socket.require_primary().await?;
                    return Ok(socket);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = Error::unavailable(format!("no reply from the sentinel {host}:{port}")),
            }
        }
        Err(last)
    }

    /// Connects, with TLS if that is configured.
    async fn connect_to(config: &RedisConfig, host: &str, port: u16) -> Result<Self> {
        let address = match config.sentinels {
            Some(_) => format!("{host}:{port}"),
            None => config.address(),
        };
        let failed = |e: io::Error| Error::unavailable(format!("{address} cannot be reached: {e}"));
        let tcp = TcpStream::connect((host, port)).await.map_err(failed)?;
        set_options(&tcp, config).map_err(failed)?;
        let transport: Box<dyn Transport> = if let Some(tls) = &config.tls {
            let connector = TlsConnector::from(tls.client_config()?);
            let stream = connector.connect(tls.server_name(host)?, tcp).await;
            Box::new(stream.map_err(|e| {
                tls_error(&address, &e).unwrap_or_else(|| Error::unavailable(format!("{address}: TLS failed: {e}")))
            })?)
        } else {
            Box::new(tcp)
        };
        let (reader, writer) = tokio::io::split(transport);
        Ok(Self { reader, writer, parser: ReplyParser::default(), ready: Default::default(), address })
    }

    /// Asks a sentinel for the address of the primary.
    async fn ask_sentinel(config: &RedisConfig, sentinels: &Sentinels, host: &str, port: u16) -> Result<(String, u16)> {
        let mut sentinel = Self::connect_to(config, host, port).await?;
        let what = format!("the sentinel {host}:{port}");
        if let Some(password) = sentinels.password.as_ref().filter(|password| !password.is_empty()) {
            sentinel.call(&what, ::redis::cmd("AUTH").arg(password)).await?;
        }
        let ask = ::redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&sentinels.name).take();
        let address = texts(sentinel.call(&what, &ask).await?)?;
        let parsed = match address.as_slice() {
            [host, port] => port.parse().ok().map(|port| (host.clone(), port)),
            _ => None,
        };
        // Sentinels that have just started may not know it yet.
        parsed.ok_or_else(|| {
            Error::unavailable(format!(
                "{what} knows no primary of the name {:?}: check connection.name",
                sentinels.name
            ))
        })
    }

    /// Fails if the server is not a primary: sentinels may name the old one for a while.
    async fn require_primary(&mut self) -> Result<()> {
        match self.call("ROLE", &::redis::cmd("ROLE")).await {
            Ok(Value::Array(role)) if !matches!(role.first(), Some(Value::BulkString(role)) if role == b"master") => {
                Err(Error::unavailable(format!("{}, which the sentinels name, is not a primary now", self.address)))
            }
            // The user may lack the permission for ROLE.
            _ => Ok(()),
        }
    }

    async fn handshake(&mut self, config: &RedisConfig) -> Result<()> {
        let mut commands = vec![];
        if config.password.is_some() || config.username.is_some() {
            let mut auth = ::redis::cmd("AUTH");
            if let Some(username) = &config.username {
                auth.arg(username);
            }
            auth.arg(config.password.as_deref().unwrap_or_default());
            commands.push(("AUTH", auth));
        }
        if config.db != 0 {
            commands.push(("SELECT", ::redis::cmd("SELECT").arg(config.db).take()));
        }
        commands.push(("CLIENT SETNAME", ::redis::cmd("CLIENT").arg("SETNAME").arg(&config.client_name).take()));
        commands.push(("INFO", ::redis::cmd("INFO").arg("cluster").take()));
        // A server that is loading its data set, or a replica without a primary, replies with an error.
        commands.push(("PING", ::redis::cmd("PING")));
        let mut out = Vec::new();
        for (_, cmd) in &commands {
            cmd.write_packed_command(&mut out);
        }
        self.write(&out).await?;
        for (name, _) in commands {
            match (name, self.next().await?) {
                // It only serves to refuse a cluster with a clear error.
                ("INFO", Value::ServerError(_)) => {}
                ("INFO", Value::BulkString(info)) => self.refuse_cluster(&info)?,
                // The user may lack the permission for a command that is not essential.
                ("CLIENT SETNAME" | "PING", Value::ServerError(e)) if e.code() == "NOPERM" => {}
                (_, Value::ServerError(e)) => return Err(server_error(&format!("{}: {name}", self.address), &e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn refuse_cluster(&self, info: &[u8]) -> Result<()> {
        if !String::from_utf8_lossy(info).lines().any(|line| line.trim() == "cluster_enabled:1") {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "connection: {} is a node of a Redis Cluster, which is not supported: use a single primary, with replicas and \
             sentinels if it has to be highly available",
            self.address
        )))
    }

    /// Writes everything.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).await.map_err(|e| connection_lost(&self.address, &e))
    }

    /// Reads the next reply or message.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        let mut buffer = Vec::with_capacity(8 * 1024);
        loop {
            if let Some(value) = self.ready.pop_front() {
                return Ok(value);
            }
            buffer.clear();
            match self.reader.read_buf(&mut buffer).await {
                Ok(0) => return Err(connection_closed(&self.address)),
                Ok(_) => self.parser.feed(&buffer, |value| self.ready.push_back(value))?,
                Err(e) => return Err(connection_lost(&self.address, &e)),
            }
        }
    }

    /// Sends a command and waits for its reply, without a limit.
    pub(crate) async fn call(&mut self, what: &str, cmd: &Cmd) -> Result<Value> {
        self.write(&cmd.get_packed_command()).await?;
        match self.next().await? {
            Value::ServerError(error) => Err(server_error(what, &error)),
            value => Ok(value),
        }
    }

    /// Sends QUIT and waits until the server has closed the connection, so that it no longer lists it; at most 1 s.
    pub(crate) async fn quit(mut self) {
        const QUIT_TIMEOUT: Duration = Duration::from_secs(1);
        let quit = async {
            self.write(&::redis::cmd("QUIT").get_packed_command()).await?;
            let _ = self.writer.shutdown().await;
            while self.next().await.is_ok() {}
            Ok::<_, Error>(())
        };
        let _ = timeout(QUIT_TIMEOUT, quit).await;
    }
}

/// Returns the error of a connection that broke.
pub(crate) fn connection_lost(address: &str, error: &io::Error) -> Error {
    if let Some(error) = tls_error(address, error) {
        return error;
    }
    Error::unavailable(format!("the connection to {address} is lost: {error}"))
}

/// Returns the error of a connection that the server closed.
pub(crate) fn connection_closed(address: &str) -> Error {
    Error::unavailable(format!("{address} closed the connection"))
}

/// Disables Nagle's algorithm, and lets the kernel detect a peer that vanished even without traffic.
fn set_options(tcp: &TcpStream, config: &RedisConfig) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(tcp);
    let interval = (config.ping_interval / 2).max(Duration::from_secs(1));
    let keepalive = socket2::TcpKeepalive::new().with_time(config.ping_interval.max(Duration::from_secs(1)));
    #[cfg(not(any(target_os = "openbsd", target_os = "haiku")))]
    let keepalive = keepalive.with_interval(interval);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(config.response_timeout + interval))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_whole_however_the_bytes_are_split() {
        let wire = b"+OK\r\n$5\r\nhe\r\no\r\n*2\r\n:1\r\n*1\r\n$-1\r\n-ERR no\r\n$0\r\n\r\n";
        let mut whole = Vec::new();
        ReplyParser::default().feed(wire, |value| whole.push(value)).unwrap();
        assert_eq!(whole.len(), 5);
        for size in 1..wire.len() {
            let (mut parser, mut got) = (ReplyParser::default(), Vec::new());
            for chunk in wire.chunks(size) {
                parser.feed(chunk, |value| got.push(value)).unwrap();
            }
            assert_eq!(got, whole, "in chunks of {size}");
        }
    }

    #[test]
    fn a_server_that_is_not_redis_is_reported() {
        let error = ReplyParser::default().feed(b"HTTP/1.1 400 Bad Request\r\n", |_| {}).unwrap_err();
        assert!(error.message().contains("does not speak the Redis protocol"));
    }
}
