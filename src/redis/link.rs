//! One socket to a server: connected, authenticated, and told apart from a dead one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Parser, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::config::RedisConfig;
use super::reply::server_error;
use crate::error::{Error, Result};

/// What a connection reads and writes.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Takes bytes as they come and gives out whole replies.
#[derive(Default)]
pub(crate) struct Replies {
    parser: Parser,
}

/// Gives the parser what has come, then says that more will.
struct Chunk<'a>(&'a [u8]);

impl io::Read for Chunk<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // Nothing read would mean the end of the input to the parser.
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { io::Read::read(&mut self.0, buf) }
    }
}

impl Replies {
    /// Hands every reply that is complete with these bytes to `each`.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Value)) -> Result<()> {
        let mut chunk = Chunk(bytes);
        loop {
            match self.parser.parse_value(&mut chunk) {
                Ok(value) => each(value),
                Err(e) if e.is_io_error() => return Ok(()),
                Err(e) => return Err(Error::unavailable(format!("what answers does not speak Redis: {e}"))),
            }
        }
    }
}

/// A connection that is ready for commands.
pub(crate) struct Link {
    pub(crate) reader: ReadHalf<Box<dyn Socket>>,
    pub(crate) writer: WriteHalf<Box<dyn Socket>>,
    pub(crate) replies: Replies,
    /// What was read and not taken yet.
    ready: std::collections::VecDeque<Value>,
    address: String,
}

impl Link {
    /// Connects, authenticates and asks for a sign of life, within [`RedisConfig::connect_timeout`].
    pub(crate) async fn open(config: &RedisConfig) -> Result<Self> {
        let address = config.address();
        match tokio::time::timeout(config.connect_timeout, Self::connect(config)).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!(
                "{address} does not answer within {:?}: is it up and reachable?",
                config.connect_timeout
            ))),
        }
    }

    async fn connect(config: &RedisConfig) -> Result<Self> {
        let address = config.address();
        let failed = |e: io::Error| Error::unavailable(format!("{address} cannot be reached: {e}"));
        let tcp = TcpStream::connect((config.host.as_str(), config.port)).await.map_err(failed)?;
        tune(&tcp, config).map_err(failed)?;
        let socket: Box<dyn Socket> = if config.tls {
            let name = ServerName::try_from(config.host.clone())
                .map_err(|e| Error::invalid(format!("connection.host: not usable with TLS: {e}")))?;
            let tls = TlsConnector::from(tls_config(config)?).connect(name, tcp).await;
            Box::new(tls.map_err(|e| Error::unavailable(format!("{address}: TLS failed: {e}")))?)
        } else {
            Box::new(tcp)
        };
        let (reader, writer) = tokio::io::split(socket);
        let mut link = Self { reader, writer, replies: Replies::default(), ready: Default::default(), address };
        link.greet(config).await?;
        Ok(link)
    }

    async fn greet(&mut self, config: &RedisConfig) -> Result<()> {
        let mut greeting = vec![];
        if let Some(password) = &config.password {
            let mut auth = ::redis::cmd("AUTH");
            if let Some(username) = &config.username {
                auth.arg(username);
            }
            auth.arg(password);
            greeting.push(("AUTH", auth));
        }
        if config.db != 0 {
            greeting.push(("SELECT", ::redis::cmd("SELECT").arg(config.db).take()));
        }
        greeting.push(("CLIENT SETNAME", ::redis::cmd("CLIENT").arg("SETNAME").arg(&config.client_name).take()));
        // A server that reads its data set, or a replica without a primary, says so here.
        greeting.push(("PING", ::redis::cmd("PING")));
        let mut out = Vec::new();
        for (_, cmd) in &greeting {
            cmd.write_packed_command(&mut out);
        }
        self.write(&out).await?;
        for (name, _) in greeting {
            match self.next().await? {
                // A user may be forbidden what only helps.
                Value::ServerError(e) if e.code() == "NOPERM" && matches!(name, "CLIENT SETNAME" | "PING") => {}
                Value::ServerError(e) => return Err(server_error(&format!("{}: {name}", self.address), &e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes everything.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).await.map_err(|e| lost(&self.address, &e))
    }

    /// The next reply or message.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        let mut buffer = Vec::with_capacity(8 * 1024);
        loop {
            if let Some(value) = self.ready.pop_front() {
                return Ok(value);
            }
            buffer.clear();
            match self.reader.read_buf(&mut buffer).await {
                Ok(0) => return Err(ended(&self.address)),
                Ok(_) => self.replies.feed(&buffer, |value| self.ready.push_back(value))?,
                Err(e) => return Err(lost(&self.address, &e)),
            }
        }
    }

    /// Sends a command and waits for its reply, as long as that takes.
    pub(crate) async fn call(&mut self, what: &str, cmd: &Cmd) -> Result<Value> {
        self.write(&cmd.get_packed_command()).await?;
        match self.next().await? {
            Value::ServerError(error) => Err(server_error(what, &error)),
            value => Ok(value),
        }
    }

    /// Says goodbye and waits until the server has closed, so that it no longer lists this connection.
    pub(crate) async fn quit(mut self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let goodbye = async {
            self.write(&::redis::cmd("QUIT").get_packed_command()).await?;
            let _ = self.writer.shutdown().await;
            while self.next().await.is_ok() {}
            Ok::<_, Error>(())
        };
        let _ = tokio::time::timeout(PATIENCE, goodbye).await;
    }
}

/// The connection broke.
pub(crate) fn lost(address: &str, error: &io::Error) -> Error {
    Error::unavailable(format!("the connection to {address} is lost: {error}"))
}

/// The server closed the connection.
pub(crate) fn ended(address: &str) -> Error {
    Error::unavailable(format!("{address} closed the connection"))
}

/// Small writes go at once, and a peer that vanished is noticed by the kernel even when nobody writes.
fn tune(tcp: &TcpStream, config: &RedisConfig) -> io::Result<()> {
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

fn tls_config(config: &RedisConfig) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.tls_ca {
        let unusable =
            |e: &dyn std::fmt::Display| Error::invalid(format!("connection.tls_ca: {}: {e}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(&e))? {
            roots.add(certificate.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
        }
    } else {
        // Some of a system's roots may be unreadable; what matters is whether the server's is there.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_out_whole_however_the_bytes_come_in() {
        let wire = b"+OK\r\n$5\r\nhe\r\no\r\n*2\r\n:1\r\n*1\r\n$-1\r\n-ERR no\r\n$0\r\n\r\n";
        let mut whole = Vec::new();
        Replies::default().feed(wire, |value| whole.push(value)).unwrap();
        assert_eq!(whole.len(), 5);
        for size in 1..wire.len() {
            let (mut replies, mut got) = (Replies::default(), Vec::new());
            for chunk in wire.chunks(size) {
                replies.feed(chunk, |value| got.push(value)).unwrap();
            }
            assert_eq!(got, whole, "in chunks of {size}");
        }
    }

    #[test]
    fn what_is_no_redis_is_told() {
        let error = Replies::default().feed(b"HTTP/1.1 400 Bad Request\r\n", |_| {}).unwrap_err();
        assert!(error.message().contains("does not speak Redis"));
    }
}
