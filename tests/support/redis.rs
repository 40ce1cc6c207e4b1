//! For tests: a Redis server of one's own on a free port, and a TCP proxy that can go silent.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Returns the server that the tests run against. The full test run repeats the contracts on others.
fn server() -> String {
    std::env::var("NVENT_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".into())
}

/// A real redis-server: killed, and its directory removed, when dropped.
pub(crate) struct TestRedis {
    port: u16,
    args: Vec<String>,
    dir: PathBuf,
    child: Option<Child>,
}

impl TestRedis {
    /// Starts a server without persistence.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more options, as on the command line.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("nvent-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let port = StdListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let mut server = Self { port, args: args.iter().map(ToString::to_string).collect(), dir, child: None };
        server.restart();
        server
    }

    /// Starts a sentinel that watches a primary under this name, alone.
    pub(crate) fn start_sentinel(name: &str, primary: u16) -> Self {
        let config = tempfile::NamedTempFile::new().expect("a temporary file");
        let lines = [
            format!("sentinel monitor {name} 127.0.0.1 {primary} 1"),
            format!("sentinel failover-timeout {name} 5000"),
        ];
        std::fs::write(config.path(), lines.join("\n")).expect("a temporary file");
        let (_, path) = config.keep().expect("a temporary file");
        Self::start_with(&["CONFIG-FILE", path.to_str().expect("a path in UTF-8"), "--sentinel"])
    }

    /// Starts it again on the same port, killing it first if it runs.
    pub(crate) fn restart(&mut self) {
        self.spawn();
        self.wait_until_it_answers();
    }

    /// Starts it without waiting for an answer.
    pub(crate) fn spawn(&mut self) {
        self.kill();
        let mut command = Command::new(server());
        let mut args = self.args.as_slice();
        // A configuration file goes first.
        if let [marker, file, rest @ ..] = args
            && marker == "CONFIG-FILE"
        {
            command.arg(file);
            args = rest;
        }
        let child = command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(&self.dir)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|e| {
            panic!(
                "{} cannot be started ({e}). These tests need a real redis-server on the PATH, or named by NVENT_TEST_REDIS_SERVER: \
                 `apt-get install redis-server`, `brew install redis` or `dnf install redis`",
                server()
            )
        }));
    }

    fn wait_until_it_answers(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            assert!(Instant::now() < until, "redis-server on port {} does not answer", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = [0; 5];
        _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        // A server with a password refuses, which will do; one that reads its data set is not there yet.
        let answered = stream.write_all(b"PING\r\n").is_ok() && stream.read(&mut answer).is_ok_and(|n| n > 0);
        answered && answer != *b"-LOAD"
    }

    /// Returns its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// Sends SIGSTOP: it holds its connections and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("a running server").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// Sends one command by hand, over a connection of its own, and returns the reply.
    pub(crate) fn raw(&self, command: &[&str]) -> ::redis::Value {
        Raw::connect(self.port).call(command)
    }

    /// Returns what INFO says about a field.
    pub(crate) fn info(&self, field: &str) -> String {
        let ::redis::Value::BulkString(info) = self.raw(&["INFO", "everything"]) else { panic!("no INFO") };
        let info = String::from_utf8(info).expect("text");
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap_or_default().to_owned()
    }

    /// Returns its role, or nothing while it resets connections, as a sentinel lets it do.
    pub(crate) fn role(&self) -> String {
        let output =
            Command::new("redis-cli").args(["-p", &self.port.to_string(), "ROLE"]).output().expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    }

    /// Connections with this name.
    pub(crate) fn connections_named(&self, name: &str) -> usize {
        let ::redis::Value::BulkString(list) = self.raw(&["CLIENT", "LIST"]) else { panic!("no CLIENT LIST") };
        String::from_utf8(list).expect("text").lines().filter(|line| line.contains(&format!(" name={name} "))).count()
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
        _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A hand-made connection, without any code of ours but the writing of an array of bulk strings.
pub(crate) struct Raw {
    stream: std::net::TcpStream,
    parser: ::redis::Parser,
}

impl Raw {
    /// Connects to a local port.
    pub(crate) fn connect(port: u16) -> Self {
        let stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Self { stream, parser: ::redis::Parser::new() }
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn call(&mut self, command: &[&str]) -> ::redis::Value {
        use std::io::Write;
        let mut wire = format!("*{}\r\n", command.len());
        command.iter().for_each(|part| wire.push_str(&format!("${}\r\n{part}\r\n", part.len())));
        self.stream.write_all(wire.as_bytes()).expect("a server that reads");
        self.receive()
    }

    /// Waits for the next reply or message.
    pub(crate) fn receive(&mut self) -> ::redis::Value {
        self.parser.parse_value(&mut self.stream).expect("a reply")
    }
}

/// Forwards connections to a local port, until it is set to drop what comes: then both sides hold an open connection
/// on which nothing arrives any more.
pub(crate) struct Proxy {
    address: SocketAddr,
    silent: watch::Sender<bool>,
    latency: watch::Sender<Duration>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy for this port, on the runtime of the caller.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (silent, watcher) = watch::channel(false);
        let (latency, delays) = watch::channel(Duration::ZERO);
        let task = tokio::spawn(async move {
            let mut links = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (client, server) = (client.into_split(), server.into_split());
                links.spawn(forward(client.0, server.1, (watcher.clone(), delays.clone())));
                links.spawn(forward(server.0, client.1, (watcher.clone(), delays.clone())));
            }
        });
        Self { address, silent, latency, task }
    }

    /// Returns the port on which it listens.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Delays what is forwarded from now on, in each direction.
    pub(crate) fn delay(&self, latency: Duration) {
        self.latency.send_replace(latency);
    }

    /// Drops what comes from now on (also on new connections), or forwards again.
    pub(crate) fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    (silent, latency): (watch::Receiver<bool>, watch::Receiver<Duration>),
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let latency = *latency.borrow();
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
        if !*silent.borrow() && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Waits until something holds. Fails after twenty seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "it never came to be that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
