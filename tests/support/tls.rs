//! For tests: a certificate authority, and a TLS server in front of another one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority_named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A certificate authority as real ones are: what it issues is signed by an intermediate, and only its root is trusted.
pub(crate) struct Authority {
    root: Issuer,
    intermediate: Issuer,
}

/// A certificate with its intermediate, and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = authority_named(&format!("root {number}"));
        let root = Issuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let intermediate = authority_named(&format!("intermediate {number}"));
        let intermediate = Issuer::signed_by(intermediate, KeyPair::generate().unwrap(), &root).unwrap();
        Self { root, intermediate }
    }

    /// Returns the root as PEM.
    pub(crate) fn root(&self) -> String {
        self.root.pem()
    }

    /// Issues a certificate for a host.
    pub(crate) fn issue(&self, host: &str) -> Issued {
        self.issue_with(host, |_| {})
    }

    /// Issues a certificate that is no longer valid.
    pub(crate) fn issue_expired(&self, host: &str) -> Issued {
        self.issue_with(host, |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    fn issue_with(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.intermediate).unwrap();
        Issued { chain: certificate.pem() + &self.intermediate.pem(), key: key.serialize_pem() }
    }
}

/// A TLS server that forwards what it decrypts to a local port, and records it.
pub(crate) struct TlsServer {
    port: u16,
    handshakes: Arc<Mutex<Vec<HandshakeKind>>>,
    received: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl TlsServer {
    pub(crate) async fn start(issued: &Issued, forward_to: u16) -> Self {
        let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (handshakes, received) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let record = (handshakes.clone(), received.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(acceptor.clone(), socket, forward_to, record.clone()));
            }
        });
        Self { port, handshakes, received, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the handshakes that were completed, in order.
    pub(crate) fn handshakes(&self) -> Vec<HandshakeKind> {
        self.handshakes.lock().unwrap().clone()
    }

    /// Returns what clients sent on all connections, decrypted.
    pub(crate) fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap()).into_owned()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Record = (Arc<Mutex<Vec<HandshakeKind>>>, Arc<Mutex<Vec<u8>>>);

async fn serve(acceptor: TlsAcceptor, socket: TcpStream, forward_to: u16, (handshakes, received): Record) {
    // A client that does not trust the certificate ends the handshake.
    let Ok(client) = acceptor.accept(socket).await else { return };
    handshakes.lock().unwrap().extend(client.get_ref().1.handshake_kind());
    let Ok(server) = TcpStream::connect(("127.0.0.1", forward_to)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (tokio::io::split(client), server.into_split());
    let requests = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            received.lock().unwrap().extend_from_slice(&buffer[..count]);
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        _ = to_server.shutdown().await;
    };
    let replies = async {
        _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        _ = to_client.shutdown().await;
    };
    tokio::join!(requests, replies);
}
