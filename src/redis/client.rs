//! One multiplexed connection: commands are sent in the order of the calls, many per write.
//!
//! A call is queued by the time [`Client::submit`] returns. One task owns the connection. While it is not connected, calls
//! wait, at most [`RedisConfig::queue_timeout`]; the task reconnects without a limit. When a connection breaks, commands
//! that were not sent, or can safely be sent again, wait for the next one in their order; the others fail, and the error of a
//! write says that it may have been applied. After a close, calls made before it get one more attempt to connect.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redis::{Cmd, Value};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::config::RedisConfig;
use super::connection::{Activity, Connection};
use super::reply::{is_read_only, server_error, text};
use super::socket::{Socket, connection_closed};
use super::{Request, Script, reconnect_backoff};
use crate::error::{Error, Result};
use crate::op::{Op, completion};
use crate::sync::lock;
use crate::wake::{self, Wake};

/// Runs on the connection's task when the reply arrives, in the order of replies. It must not block.
type OnReply = Box<dyn FnOnce(Result<Value>) + Send>;

/// Counts a call among the pending ones until it is dropped.
struct PendingGuard(Arc<AtomicUsize>);

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Call {
    request: Request,
    on_reply: OnReply,
    since: Instant,
    /// Whether it was sent on an earlier connection.
    sent: bool,
    _pending: PendingGuard,
}

impl Call {
    /// Fails because there is, or was, no usable connection.
    fn fail_unavailable(self, error: &Error) {
        let message = format!("{}: {}", self.request.operation, error.message());
        self.fail(Error::unavailable(message));
    }

    /// Fails with this error. A write that was sent on an earlier connection may have been applied nevertheless.
    fn fail(self, error: Error) {
        let error = error.with_operation(self.request.operation);
        (self.on_reply)(Err(if self.sent && self.request.is_write { error.maybe_applied() } else { error }));
    }
}

enum Message {
    Calls(Vec<Call>),
    Close(oneshot::Sender<()>),
}

/// Collects the calls that a caller makes in one turn, so that the connection's task sends them in one write.
struct CallBatch {
    calls: Mutex<Vec<Call>>,
    sender: mpsc::UnboundedSender<Message>,
    name: &'static str,
}

impl CallBatch {
    /// A batch of this size is sent without waiting for more.
    const MAX_CALLS: usize = 64;

    fn push(self: &Arc<Self>, call: Call) {
        let mut calls = lock(&self.calls);
        calls.push(call);
        if !wake::defer(self) || calls.len() >= Self::MAX_CALLS {
            self.send(&mut calls);
        }
    }

    /// Sends the batch. The caller holds its lock, so that no call overtakes another.
    fn send(&self, calls: &mut Vec<Call>) {
        if let Err(mpsc::error::SendError(Message::Calls(calls))) =
            self.sender.send(Message::Calls(std::mem::take(calls)))
        {
            calls.into_iter().for_each(|call| call.fail(Error::closed(self.name)));
        }
    }
}

impl Wake for CallBatch {
    fn wake(&self) {
        let mut calls = lock(&self.calls);
        if !calls.is_empty() {
            self.send(&mut calls);
        }
    }
}

/// Returns the error of a call that was dropped without a reply.
pub fn unanswered() -> Error {
    Error::unavailable("the Redis connection's task ended before the reply came").maybe_applied()
}

/// The state of the connection, for the handles.
#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    connected: AtomicBool,
    connects: AtomicU64,
    last_error: Mutex<Option<Error>>,
}

/// A handle to the connection, which is opened by the first call.
pub struct Client {
    config: Arc<RedisConfig>,
    batch: Arc<CallBatch>,
    shared: Arc<Shared>,
    pending: Arc<AtomicUsize>,
}

impl Client {
    /// Creates a client whose connection is served by `runtime` and loads `scripts` whenever it is made. `name` is what
    /// errors after [`Client::close`] say is closed.
    pub fn new(config: Arc<RedisConfig>, scripts: Vec<&'static Script>, name: &'static str, runtime: &Handle) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let driver = Driver {
            config: config.clone(),
            scripts,
            receiver,
            shared: shared.clone(),
            waiting: VecDeque::new(),
            lifecycle: Lifecycle::Open,
        };
        runtime.spawn(driver.run());
        let batch = Arc::new(CallBatch { calls: Mutex::default(), sender, name });
        Self { config, batch, shared, pending: Arc::default() }
    }

    /// Queues a command and calls `on_reply` with the reply or the error.
    pub fn submit(&self, request: Request, on_reply: impl FnOnce(Result<Value>) + Send + 'static) {
        let operation = request.operation;
        if self.is_closed() {
            return on_reply(Err(Error::closed(self.batch.name).with_operation(operation)));
        }
        let pending = self.pending.fetch_add(1, Ordering::Relaxed);
        let guard = PendingGuard(self.pending.clone());
        if pending >= self.config.max_pending {
            let error = Error::unavailable(format!(
                "{operation}: {pending} calls are pending on {} already: slow down and try again",
                self.config.address()
            ));
            return on_reply(Err(error.with_operation(operation)));
        }
        let on_reply = Box::new(on_reply);
        self.batch.push(Call { request, on_reply, since: Instant::now(), sent: false, _pending: guard });
    }

    /// Queues a command and returns its converted reply. `convert` runs on the connection's task.
    pub fn call<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let (completer, completion) = completion(unanswered);
        self.submit(request, move |result| completer.complete(result.and_then(convert)));
        completion.into_op()
    }

    /// Returns the number of calls that wait for a reply or a connection.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Returns how often the connection was made again.
    pub fn reconnects(&self) -> u64 {
        self.shared.connects.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Returns the error of the last connection or attempt to connect.
    pub fn last_error(&self) -> Option<Error> {
        lock(&self.shared.last_error).clone()
    }

    /// Returns whether [`Client::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Rejects further calls, completes those made before, and disconnects. If it is not connected while calls wait, it makes
    /// one attempt to connect, within [`RedisConfig::connect_timeout`].
    pub fn close(&self) -> Op<()> {
        self.shared.closed.store(true, Ordering::Release);
        let (sender, receiver) = oneshot::channel();
        self.batch.wake();
        if self.batch.sender.send(Message::Close(sender)).is_err() {
            return Op::ok(());
        }
        Op::pending(async move {
            // If another close was first, the sender is dropped when that one has completed.
            _ = receiver.await;
            Ok(())
        })
    }
}

/// A command that was queued on the connection at this offset.
struct Sent {
    /// None for the connection's own commands.
    call: Option<Call>,
    offset: u64,
}

enum Lifecycle {
    Open,
    /// No further calls are accepted. The sender, if any, is notified when everything has ended.
    Closing(Option<oneshot::Sender<()>>),
}

struct Driver {
    config: Arc<RedisConfig>,
    scripts: Vec<&'static Script>,
    receiver: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
    /// Calls that are not sent, oldest first.
    waiting: VecDeque<Call>,
    lifecycle: Lifecycle,
}

impl Driver {
    /// Time after an error that a retry does not resolve before a call may cause the next attempt to connect.
    const PERMANENT_ERROR_DELAY: Duration = Duration::from_millis(100);

    async fn run(mut self) {
        // Connects lazily: an adapter that is never used never connects.
        let first = self.receiver.recv().await;
        self.accept(first);
        let mut lost_at = None::<Instant>;
        while let Some(socket) = self.connect().await {
            self.shared.connected.store(true, Ordering::Relaxed);
            self.shared.connects.fetch_add(1, Ordering::Relaxed);
            match lost_at.take() {
                None => tracing::debug!("connected to Redis"),
                Some(lost_at) => tracing::warn!(
                    code = "NVENT_RECONNECTED",
                    "the connection to Redis has been restored after {:.1} s",
                    lost_at.elapsed().as_secs_f64()
                ),
            }
            let end = Session::new(&mut self, socket).serve().await;
            self.shared.connected.store(false, Ordering::Relaxed);
            match end {
                SessionEnd::Closed => {}
                SessionEnd::Replica(error) => {
                    tracing::debug!("connecting again, as the server is a replica");
                    self.record_error(error);
                }
                SessionEnd::Lost(error) => {
                    tracing::warn!(code = %error.code(), "the connection to Redis is lost: {error}");
                    self.record_error(error);
                    lost_at = Some(Instant::now());
                }
            }
            if self.is_closing() {
                break;
            }
        }
        let error = Error::unavailable("closed before the server could be reached");
        self.waiting.drain(..).for_each(|call| call.fail_unavailable(&error));
        let closer = match std::mem::replace(&mut self.lifecycle, Lifecycle::Closing(None)) {
            Lifecycle::Closing(closer) => closer,
            Lifecycle::Open => None,
        };
        // Dropping the receiver completes every other close.
        drop(self);
        if let Some(closer) = closer {
            _ = closer.send(());
        }
    }

    fn is_closing(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Closing(_))
    }

    fn accept(&mut self, message: Option<Message>) {
        match message {
            Some(Message::Calls(calls)) => self.waiting.extend(calls),
            Some(Message::Close(closer)) => self.lifecycle = Lifecycle::Closing(Some(closer)),
            None => self.lifecycle = Lifecycle::Closing(None),
        }
    }

    fn record_error(&self, error: Error) {
        *lock(&self.shared.last_error) = Some(error);
    }

    /// Connects, without a limit on attempts; once more when closing while calls wait. Returns None when closing without a
    /// connection.
    async fn connect(&mut self) -> Option<Socket> {
        let mut backoff = reconnect_backoff(&self.config);
        let config = self.config.clone();
        loop {
            let opened = self.wait_until(Socket::open(&config), |driver| driver.waiting.is_empty()).await?;
            let error = match opened {
                Ok(socket) => return Some(socket),
                Err(error) => error,
            };
            tracing::debug!(%error, "not connected to Redis");
            let permanent = !error.is_retryable();
            if permanent {
                // Waiting does not help these calls. Later ones try again, as an operator may have resolved the cause.
                self.waiting.drain(..).for_each(|call| call.fail(error.clone()));
            }
            self.record_error(error);
            if self.is_closing() {
                return None;
            }
            if permanent {
                self.wait_until(tokio::time::sleep(Self::PERMANENT_ERROR_DELAY), |_| true).await;
                while self.waiting.is_empty() && !self.is_closing() {
                    let message = self.receiver.recv().await;
                    self.accept(message);
                }
            } else {
                self.wait_until(tokio::time::sleep(backoff.next_delay()), |_| true).await;
            }
        }
    }

    /// Accepts calls, and fails those that waited too long, until `future` resolves. Returns None when asked to close and
    /// `stops` holds.
    async fn wait_until<T>(&mut self, future: impl Future<Output = T>, stops: impl Fn(&Self) -> bool) -> Option<T> {
        tokio::pin!(future);
        loop {
            if self.is_closing() && stops(self) {
                return None;
            }
            let oldest = self.waiting.iter().position(|call| !call.request.survives_reconnect);
            let deadline = oldest.map(|at| self.waiting[at].since + self.config.queue_timeout);
            tokio::select! {
                out = &mut future => return Some(out),
                message = self.receiver.recv(), if !self.is_closing() => self.accept(message),
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if oldest.is_some() => {
                    if let Some(call) = oldest.and_then(|at| self.waiting.remove(at)) {
                        let cause = lock(&self.shared.last_error).clone();
                        let error = Error::unavailable(format!(
                            "no connection to {} for {:?}{}",
                            self.config.address(),
                            self.config.queue_timeout,
                            cause.map_or_else(String::new, |e| format!(": {e}"))
                        ));
                        call.fail_unavailable(&error);
                    }
                }
            }
        }
    }
}

/// Why a connection is used no longer.
enum SessionEnd {
    /// The client closes.
    Closed,
    /// A replica refused a write. The call has failed with the reason, so that this is no outage: the next connection may
    /// reach the new primary.
    Replica(Error),
    Lost(Error),
}

/// One connection and the commands that are in flight on it.
struct Session<'a> {
    driver: &'a mut Driver,
    connection: Connection,
    sent: VecDeque<Sent>,
    /// A replica replied: disconnect when nothing is in flight.
    draining: Option<Error>,
}

impl<'a> Session<'a> {
    /// Calls wait in memory while more bytes than this are unwritten.
    const MAX_UNWRITTEN: usize = 1 << 20;
    /// Messages taken from the channel at a time.
    const MAX_MESSAGES: usize = 1024;

    fn new(driver: &'a mut Driver, socket: Socket) -> Self {
        let connection = Connection::new(socket, &driver.config);
        Self { driver, connection, sent: VecDeque::new(), draining: None }
    }

    /// Serves calls until the connection breaks, a replica has answered or the client closes.
    async fn serve(mut self) -> SessionEnd {
        for script in self.driver.scripts.clone() {
            self.send_own(&script.load());
        }
        while let Some(call) = self.driver.waiting.pop_front() {
            self.send(call);
        }
        let end = match self.exchange().await {
            Ok(()) if self.driver.is_closing() => {
                self.connection.quit().await;
                return SessionEnd::Closed;
            }
            Ok(()) => match self.draining.take() {
                Some(error) => SessionEnd::Replica(error),
                None => SessionEnd::Lost(connection_closed(&self.driver.config.address())),
            },
            Err(error) => SessionEnd::Lost(error),
        };
        if let SessionEnd::Replica(error) | SessionEnd::Lost(error) = &end {
            self.requeue_or_fail(error);
        }
        end
    }

    /// Exchanges commands and replies until nothing is in flight and the connection shall end, or until it breaks.
    async fn exchange(&mut self) -> Result<()> {
        let mut messages = Vec::new();
        loop {
            let ending = self.driver.is_closing() || self.draining.is_some();
            if ending && self.sent.is_empty() {
                return Ok(());
            }
            let accepts_calls = !ending && self.connection.unwritten() < Self::MAX_UNWRITTEN;
            let receiver = &mut self.driver.receiver;
            let calls = async {
                match accepts_calls {
                    true => receiver.recv_many(&mut messages, Self::MAX_MESSAGES).await,
                    false => std::future::pending().await,
                }
            };
            match self.connection.next(!self.sent.is_empty(), calls).await? {
                Activity::Received(values) => {
                    wake::coalesce_wakes(|| values.into_iter().for_each(|value| self.on_reply(value)));
                }
                Activity::Flushed => {}
                Activity::Idle => self.send_own(&::redis::cmd("PING")),
                Activity::Other(0) => self.driver.lifecycle = Lifecycle::Closing(None),
                Activity::Other(_) => {
                    for message in messages.drain(..) {
                        match message {
                            Message::Calls(calls) => calls.into_iter().for_each(|call| self.send(call)),
                            Message::Close(closer) => self.driver.lifecycle = Lifecycle::Closing(Some(closer)),
                        }
                    }
                }
            }
        }
    }

    fn send(&mut self, mut call: Call) {
        let offset = match call.request.build() {
            Ok(cmd) => self.connection.queue(cmd, self.sent.is_empty()),
            Err(error) => return call.fail(error),
        };
        self.sent.push_back(Sent { call: Some(call), offset });
    }

    /// Sends a command of the connection's own, whose reply does not matter.
    fn send_own(&mut self, cmd: &Cmd) {
        let offset = self.connection.queue(cmd, self.sent.is_empty());
        self.sent.push_back(Sent { call: None, offset });
    }

    fn on_reply(&mut self, value: Value) {
        let Some(Sent { call: Some(call), .. }) = self.sent.pop_front() else { return };
        let Value::ServerError(error) = value else {
            // If the callback panics, its completer is dropped, which reports that. The connection continues.
            _ = catch_unwind(AssertUnwindSafe(|| (call.on_reply)(Ok(value))));
            return;
        };
        if let (Some(script), "NOSCRIPT") = (call.request.script, error.code()) {
            // The scripts of the server were flushed. EVAL loads this one again.
            let offset = self.connection.queue(&script.whole(&call.request.cmd), self.sent.is_empty());
            return self.sent.push_back(Sent { call: Some(call), offset });
        }
        let read_only = is_read_only(&error);
        let error = server_error(call.request.operation, &error);
        if read_only {
            self.draining = Some(error.clone());
        }
        call.fail(error);
    }

    /// Requeues what was not sent, or can be sent again, and fails the rest.
    fn requeue_or_fail(&mut self, error: &Error) {
        let written = self.connection.written();
        let mut requeued = VecDeque::new();
        for Sent { call, offset } in self.sent.drain(..) {
            match call {
                Some(call) if offset >= written || call.request.survives_reconnect => requeued.push_back(call),
                Some(mut call) => {
                    call.sent = true;
                    match &call.request.retry {
                        Some(retry) => {
                            call.request.cmd = retry();
                            requeued.push_back(call);
                        }
                        None => call.fail_unavailable(error),
                    }
                }
                None => {}
            }
        }
        requeued.append(&mut self.driver.waiting);
        self.driver.waiting = requeued;
    }
}

/// Longest time that a health check takes. It is shorter than a call's, as a monitor needs a prompt answer.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns whether the server can be written to, with the round-trip time and the role. Never fails, and takes at most
/// [`HEALTH_TIMEOUT`].
pub fn health(client: &Arc<Client>) -> Op<(bool, String)> {
    if client.is_closed() {
        return Op::ok((false, "closed".into()));
    }
    let (client, address) = (client.clone(), client.config.address());
    // Queued now, in the order of the calls.
    let asked = Instant::now();
    let role = role(&client);
    Op::pending(async move {
        let checked = tokio::time::timeout(HEALTH_TIMEOUT, async {
            match role.await {
                Ok(role) => Ok((asked.elapsed(), Some(role))),
                // The user may lack the permission for ROLE; then all that can be known is that the server replies.
                Err(error) if super::reply::server_code(&error) == Some("NOPERM") => {
                    let asked = Instant::now();
                    let ping = client.call(Request::read("PING", ::redis::cmd("PING")), |_| Ok(()));
                    match ping.await {
                        Err(error) if super::reply::server_code(&error) != Some("NOPERM") => Err(error),
                        _ => Ok((asked.elapsed(), None)),
                    }
                }
                Err(error) => Err(error),
            }
        });
        Ok(match checked.await {
            Ok(Ok((time, role))) => {
                let ms = time.as_secs_f64() * 1e3;
                let is_primary = role.as_deref().is_none_or(|role| role == "master");
                let role = role.unwrap_or_else(|| "unknown (the user may not call ROLE)".into());
                (is_primary, format!("{address}: round trip {ms:.2} ms, role {role}"))
            }
            Ok(Err(error)) => (false, error.message().to_owned()),
            Err(_) => {
                let cause = client.last_error().map_or_else(String::new, |e| format!(": {e}"));
                (false, format!("{address}: no reply within {HEALTH_TIMEOUT:?}{cause}"))
            }
        })
    })
}

fn role(client: &Client) -> Op<String> {
    client.call(Request::read("ROLE", ::redis::cmd("ROLE")), |reply| {
        super::reply::list(reply)?.into_iter().next().map(text).transpose().map(Option::unwrap_or_default)
    })
}
