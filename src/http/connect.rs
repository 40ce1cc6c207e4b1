//! Connecting: names are resolved, every address is checked, and only what was checked is connected to.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tower_service::Service;

use super::address::classify;
use crate::error::{Error, Result};
use crate::op::BoxFuture;
use crate::tls::roots;

/// Of one address; the next one follows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of the TLS handshake. The timeout of a request does not end a connection that is being made: it may serve the next.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Resolves names. Tests bring their own.
pub trait Resolve: Send + Sync + 'static {
    /// Returns the addresses of a host.
    fn resolve(&self, host: &str) -> BoxFuture<Vec<IpAddr>>;
}

/// The resolver of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> BoxFuture<Vec<IpAddr>> {
        let host = host.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            let found = found.map_err(|e| Error::unavailable(format!("{host} cannot be resolved: {e}")))?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// TLS as configured; its roots are read when they are first needed.
pub(super) struct Tls {
    ca: Vec<String>,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(ca: Vec<String>) -> Self {
        Self { ca, config: OnceLock::new() }
    }

    fn config(&self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let roots = roots("webhooks", &self.ca, "set SSL_CERT_FILE to a readable file")?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(self.config.get_or_init(|| Arc::new(config)).clone())
    }
}

/// Makes the connections of a client.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) tls: Arc<Tls>,
    pub(super) allow_private: bool,
}

impl Connector {
    /// Returns the addresses of a host, all of them allowed.
    async fn checked(&self, host: &str) -> Result<Vec<IpAddr>> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let mut addresses = match literal {
            Some(address) => vec![address],
            None => self.resolver.resolve(host).await?,
        };
        if addresses.is_empty() {
            return Err(Error::unavailable(format!("{host} cannot be resolved: it has no address")));
        }
        if !self.allow_private
            && let Some((address, kind)) = addresses.iter().find_map(|&a| classify(a).map(|kind| (a, kind)))
        {
            return Err(Error::invalid(format!(
                "{host} is refused: {address} is {}; allowPrivate: true permits it",
                kind.as_str()
            )));
        }
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }

    async fn connect(self, uri: Uri) -> Result<HttpStream> {
        let host = uri.host().ok_or_else(|| Error::invalid("url: has no host"))?;
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let mut failure = None;
        for address in self.checked(host).await? {
            let address = SocketAddr::new(address, port);
            let tcp = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => tcp,
                Ok(Err(e)) => {
                    failure = Some(format!("{host}:{port} refuses connections: {e}"));
                    continue;
                }
                Err(_) => {
                    failure = Some(format!("{host}:{port}: no connection within {CONNECT_TIMEOUT:?}"));
                    continue;
                }
            };
            // Delivery does not depend on it.
            let _ = tcp.set_nodelay(true);
            if !is_tls {
                return Ok(HttpStream(TokioIo::new(Box::new(tcp))));
            }
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare)
                .map_err(|e| Error::invalid(format!("url: {host} is not usable with TLS: {e}")))?;
            let handshake = TlsConnector::from(self.tls.config()?).connect(name, tcp);
            return match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => Ok(HttpStream(TokioIo::new(Box::new(stream)))),
                Ok(Err(e)) => Err(Error::unavailable(format!("{host}:{port}: TLS failed: {e}"))),
                Err(_) => Err(Error::unavailable(format!("{host}:{port}: no TLS within {HANDSHAKE_TIMEOUT:?}"))),
            };
        }
        Err(Error::unavailable(failure.unwrap_or_else(|| format!("{host}:{port} cannot be reached"))))
    }
}

impl Service<Uri> for Connector {
    type Response = HttpStream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection, with TLS or without.
pub(super) struct HttpStream(TokioIo<Box<dyn Stream>>);

impl Connection for HttpStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for HttpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for HttpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
