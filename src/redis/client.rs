//! One multiplexed connection: commands go out in the order of the calls, many per write, and replies come back.
//!
//! A call is queued by the time [`Client::submit`] returns. One task owns the connection. While there is none, calls
//! wait for it, at most [`RedisConfig::queue_timeout`]; the task tries again without end. When a connection breaks, what
//! was never sent, or is harmless to send again, waits for the next one in its old order, and what was sent fails: a
//! write then says that it may have been applied. After a close, calls made before it get one more attempt to connect.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::config::RedisConfig;
use super::link::{Link, ended, lost};
use super::reply::server_error;
use super::{Backoff, Request, Script};
use crate::error::{Error, Result};
use crate::op::{Op, completion};
use crate::wake::{self, Wake};

/// What runs on the connection's task when the reply is there, in the order of replies. It must not block.
type Done = Box<dyn FnOnce(Result<Value>) + Send>;

/// A place among the calls that may wait, given back when dropped.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Call {
    request: Request,
    done: Done,
    since: Instant,
    /// Whether its bytes went out, on whatever connection.
    sent: bool,
    _slot: Slot,
}

impl Call {
    fn fail(self, error: &Error) {
        let error = Error::unavailable(format!("{}: {}", self.request.what, error.message()));
        self.fail_with(error);
    }

    /// Fails with this very error. What was sent before, on a connection that broke, may have been applied all the same.
    fn fail_with(self, error: Error) {
        (self.done)(Err(if self.sent && self.request.write { error.maybe_applied() } else { error }));
    }
}

enum Message {
    Calls(Vec<Call>),
    Close(oneshot::Sender<()>),
}

/// Calls on their way to the connection's task: those of one turn of the caller go together, in one write.
struct Outbox {
    calls: Mutex<Vec<Call>>,
    sender: mpsc::UnboundedSender<Message>,
    name: &'static str,
}

impl Outbox {
    /// So many calls are worth a write, whether or not the caller has more.
    const ENOUGH: usize = 64;

    fn push(self: &Arc<Self>, call: Call) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(call);
        if !wake::defer(self) || calls.len() >= Self::ENOUGH {
            self.send(&mut calls);
        }
    }

    /// Sends the calls; they are locked meanwhile, so that none overtakes another.
    fn send(&self, calls: &mut Vec<Call>) {
        if let Err(mpsc::error::SendError(Message::Calls(calls))) =
            self.sender.send(Message::Calls(std::mem::take(calls)))
        {
            calls.into_iter().for_each(|call| call.fail_with(Error::closed(self.name)));
        }
    }
}

impl Wake for Outbox {
    fn wake(&self) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if !calls.is_empty() {
            self.send(&mut calls);
        }
    }
}

/// The error of a call that was dropped without an answer.
pub fn unanswered() -> Error {
    Error::unavailable("the task of the Redis connection ended before the call did").maybe_applied()
}

/// What others may see of the connection.
#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    connected: AtomicBool,
    connects: AtomicU64,
    last_error: Mutex<Option<Error>>,
}

/// A handle to the connection. It opens with the first call.
pub struct Client {
    config: Arc<RedisConfig>,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    pending: Arc<AtomicUsize>,
}

impl Client {
    /// A client whose connection lives on `runtime` and loads `scripts` whenever it is made. `name` is what is closed
    /// after [`Client::close`], in errors.
    pub fn new(config: Arc<RedisConfig>, scripts: Vec<&'static Script>, name: &'static str, runtime: &Handle) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let driver = Driver {
            config: config.clone(),
            scripts,
            receiver,
            shared: shared.clone(),
            waiting: VecDeque::new(),
            closing: None,
        };
        runtime.spawn(driver.run());
        let outbox = Arc::new(Outbox { calls: Mutex::default(), sender, name });
        Self { config, outbox, shared, pending: Arc::default() }
    }

    /// Queues a command and calls `done` with what became of it.
    pub fn submit(&self, request: Request, done: impl FnOnce(Result<Value>) + Send + 'static) {
        if self.is_closed() {
            return done(Err(Error::closed(self.outbox.name)));
        }
        let waiting = self.pending.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(self.pending.clone());
        if waiting >= self.config.max_pending {
            return done(Err(Error::unavailable(format!(
                "{}: {waiting} calls wait for {} already: slow down and try again",
                request.what,
                self.config.address()
            ))));
        }
        self.outbox.push(Call { request, done: Box::new(done), since: Instant::now(), sent: false, _slot: slot });
    }

    /// Queues a command; its reply is the operation's value. `convert` runs on the connection's task.
    pub fn call<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let (completer, completion) = completion(unanswered);
        self.submit(request, move |result| completer.complete(result.and_then(convert)));
        completion.into_op()
    }

    /// How many calls wait for a reply or a connection.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// How often a connection was made after the first.
    pub fn reconnects(&self) -> u64 {
        self.shared.connects.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Why there is none.
    pub fn last_error(&self) -> Option<Error> {
        self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether [`Client::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Refuses further calls, lets those made before end, and says goodbye. Where there is no connection, one attempt is
    /// made for their sake, within [`RedisConfig::connect_timeout`].
    pub fn close(&self) -> Op<()> {
        self.shared.closed.store(true, Ordering::Release);
        let (sender, receiver) = oneshot::channel();
        self.outbox.wake();
        if self.outbox.sender.send(Message::Close(sender)).is_err() {
            return Op::ok(());
        }
        Op::pending(async move {
            // The sender is dropped where another close was first, when that one is over.
            _ = receiver.await;
            Ok(())
        })
    }
}

/// A command that was handed to the connection; `start` is where its bytes begin in everything ever written.
struct Sent {
    /// None for the connection's own commands.
    call: Option<Call>,
    start: u64,
}

struct Driver {
    config: Arc<RedisConfig>,
    scripts: Vec<&'static Script>,
    receiver: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
    /// Calls that are not sent, oldest first.
    waiting: VecDeque<Call>,
    /// Some: no further calls are taken. Within: whoever asked to close.
    closing: Option<Option<oneshot::Sender<()>>>,
}

impl Driver {
    async fn run(mut self) {
        // Lazily: an adapter that is never used never connects.
        let first = self.receiver.recv().await;
        self.take(first);
        while let Some(link) = self.connect().await {
            self.shared.connected.store(true, Ordering::Relaxed);
            self.shared.connects.fetch_add(1, Ordering::Relaxed);
            let end = Connection::new(&mut self, link).serve().await;
            self.shared.connected.store(false, Ordering::Relaxed);
            if let Err(error) = end {
                tracing::warn!(error = %error, "Redis: the connection is lost");
                self.note(error);
            }
            if self.closing.is_some() {
                break;
            }
        }
        let error = Error::unavailable("closed before the server could be reached");
        self.waiting.drain(..).for_each(|call| call.fail(&error));
        let closer = self.closing.take().flatten();
        // Dropping the receiver lets go whoever closed at the same time.
        drop(self);
        if let Some(closer) = closer {
            _ = closer.send(());
        }
    }

    fn take(&mut self, message: Option<Message>) {
        match message {
            Some(Message::Calls(calls)) => self.waiting.extend(calls),
            Some(Message::Close(closer)) => self.closing = Some(Some(closer)),
            None => self.closing = Some(None),
        }
    }

    fn note(&self, error: Error) {
        *self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Tries without end, and once more when asked to close while calls wait. None: closing, without a connection.
    async fn connect(&mut self) -> Option<Link> {
        let mut backoff = Backoff::new(self.config.max_reconnect_delay);
        let config = self.config.clone();
        loop {
            match self.meanwhile(Link::open(&config), |driver| driver.waiting.is_empty()).await? {
                Ok(link) => return Some(link),
                Err(error) => {
                    tracing::debug!(error = %error, "Redis: not connected");
                    if !error.is_retryable() {
                        // Waiting would not help these; an operator may help later ones.
                        self.waiting.drain(..).for_each(|call| call.fail_with(error.clone()));
                    }
                    self.note(error);
                }
            }
            if self.closing.is_some() {
                return None;
            }
            self.meanwhile(tokio::time::sleep(backoff.delay()), |_| true).await;
        }
    }

    /// Takes in calls, and fails those that waited too long, until `until` is over; or, with None, until asked to close
    /// where that `ends` the wait.
    async fn meanwhile<T>(&mut self, until: impl Future<Output = T>, ends: impl Fn(&Self) -> bool) -> Option<T> {
        tokio::pin!(until);
        loop {
            if self.closing.is_some() && ends(self) {
                return None;
            }
            let oldest = self.waiting.iter().position(|call| !call.request.patient);
            let patience = oldest.map(|at| self.waiting[at].since + self.config.queue_timeout);
            tokio::select! {
                out = &mut until => return Some(out),
                message = self.receiver.recv(), if self.closing.is_none() => self.take(message),
                () = tokio::time::sleep_until(patience.unwrap_or_else(Instant::now)), if oldest.is_some() => {
                    if let Some(call) = oldest.and_then(|at| self.waiting.remove(at)) {
                        let why = self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        let error = Error::unavailable(format!(
                            "no connection to {} for {:?}{}",
                            self.config.address(),
                            self.config.queue_timeout,
                            why.map_or_else(String::new, |e| format!(": {e}"))
                        ));
                        call.fail(&error);
                    }
                }
            }
        }
    }
}

/// One connection and what is under way on it.
struct Connection<'a> {
    driver: &'a mut Driver,
    link: Link,
    out: Vec<u8>,
    /// How much of `out` is written.
    written: usize,
    /// Where `out` begins in everything ever written.
    base: u64,
    sent: VecDeque<Sent>,
    /// When the server last owed nothing, or last said something.
    progress: Instant,
    /// A replica answered: reconnect when nothing is owed.
    leaving: Option<Error>,
}

impl<'a> Connection<'a> {
    /// More than this waits in memory rather than in `out`.
    const HIGH_WATER: usize = 1 << 20;

    fn new(driver: &'a mut Driver, link: Link) -> Self {
        Self {
            driver,
            link,
            out: Vec::new(),
            written: 0,
            base: 0,
            sent: VecDeque::new(),
            progress: Instant::now(),
            leaving: None,
        }
    }

    /// Err: it broke.
    async fn serve(mut self) -> Result<()> {
        for script in self.driver.scripts.clone() {
            self.push(None, &script.load());
        }
        while let Some(call) = self.driver.waiting.pop_front() {
            self.send(call);
        }
        let error = match self.exchange().await {
            Ok(()) if self.driver.closing.is_some() => {
                self.link.quit().await;
                return Ok(());
            }
            Ok(()) => self.leaving.take().unwrap_or_else(|| ended(&self.driver.config.address())),
            Err(error) => error,
        };
        self.give_up(&error);
        Err(error)
    }

    /// Reads and writes until nothing is owed and the connection shall end, or until it breaks.
    async fn exchange(&mut self) -> Result<()> {
        let address = self.driver.config.address();
        let (mut inbox, mut messages) = (Vec::with_capacity(64 * 1024), Vec::new());
        let timer = tokio::time::sleep_until(self.deadline());
        tokio::pin!(timer);
        loop {
            let ending = self.driver.closing.is_some() || self.leaving.is_some();
            if ending && self.sent.is_empty() {
                return Ok(());
            }
            let unwritten = self.out.len() - self.written;
            tokio::select! {
                read = self.link.reader.read_buf(&mut inbox) => {
                    if read.map_err(|e| lost(&address, &e))? == 0 {
                        return Err(ended(&address));
                    }
                    self.progress = Instant::now();
                    let mut values = Vec::new();
                    let parsed = self.link.replies.feed(&inbox, |value| values.push(value));
                    inbox.clear();
                    wake::coalesce_wakes(|| values.into_iter().for_each(|value| self.answer(value)));
                    parsed?;
                }
                written = self.link.writer.write(&self.out[self.written..]), if unwritten > 0 => {
                    self.written += written.map_err(|e| lost(&address, &e))?;
                    if self.written == self.out.len() {
                        self.base += self.written as u64;
                        (self.written, self.out) = (0, std::mem::take(&mut self.out));
                        self.out.clear();
                    }
                }
                n = self.driver.receiver.recv_many(&mut messages, 1024), if !ending && unwritten < Self::HIGH_WATER => {
                    if n == 0 {
                        self.driver.closing = Some(None);
                    }
                    for message in messages.drain(..) {
                        match message {
                            Message::Calls(calls) => calls.into_iter().for_each(|call| self.send(call)),
                            Message::Close(closer) => self.driver.closing = Some(Some(closer)),
                        }
                    }
                }
                () = &mut timer => {
                    if Instant::now() >= self.deadline() {
                        self.overdue(&address)?;
                    }
                    timer.as_mut().reset(self.deadline());
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        let config = &self.driver.config;
        self.progress + if self.sent.is_empty() { config.ping_interval } else { config.response_timeout }
    }

    /// The server was silent too long: dead if it owes a reply, else asked for a sign of life.
    fn overdue(&mut self, address: &str) -> Result<()> {
        if !self.sent.is_empty() {
            let silence = self.driver.config.response_timeout;
            return Err(Error::unavailable(format!("{address} owes a reply and has been silent for {silence:?}")));
        }
        self.push(None, &::redis::cmd("PING"));
        Ok(())
    }

    fn send(&mut self, mut call: Call) {
        let start = self.begin();
        match call.request.made() {
            Ok(cmd) => cmd.write_packed_command(&mut self.out),
            Err(error) => return call.fail_with(error),
        }
        self.sent.push_back(Sent { call: Some(call), start });
    }

    fn push(&mut self, call: Option<Call>, cmd: &Cmd) {
        let start = self.begin();
        cmd.write_packed_command(&mut self.out);
        self.sent.push_back(Sent { call, start });
    }

    /// Where the next command begins. The clock of a server that owed nothing starts now.
    fn begin(&mut self) -> u64 {
        if self.sent.is_empty() {
            self.progress = Instant::now();
        }
        self.base + self.out.len() as u64
    }

    fn answer(&mut self, value: Value) {
        let Some(Sent { call: Some(call), .. }) = self.sent.pop_front() else { return };
        let Value::ServerError(error) = value else {
            // A panic drops who would tell the end, which tells that it is lost. The connection goes on.
            _ = catch_unwind(AssertUnwindSafe(|| (call.done)(Ok(value))));
            return;
        };
        if let (Some(script), "NOSCRIPT") = (call.request.script, error.code()) {
            // The server was completion to forget its scripts. Sending this one whole teaches it again.
            let whole = script.whole(&call.request.cmd);
            return self.push(Some(call), &whole);
        }
        let error = server_error(call.request.what, &error);
        if error.message().contains("READONLY") {
            self.leaving = Some(error.clone());
        }
        call.fail_with(error);
    }

    /// What was not sent, or can be sent again, waits for the next connection; else what was sent has failed.
    fn give_up(&mut self, error: &Error) {
        let written = self.base + self.written as u64;
        let mut kept = VecDeque::new();
        for Sent { call, start } in self.sent.drain(..) {
            match call {
                Some(call) if start >= written || call.request.patient => kept.push_back(call),
                Some(mut call) => {
                    call.sent = true;
                    match &call.request.again {
                        Some(again) => {
                            call.request.cmd = again();
                            kept.push_back(call);
                        }
                        None => call.fail(error),
                    }
                }
                None => {}
            }
        }
        kept.append(&mut self.driver.waiting);
        self.driver.waiting = kept;
    }
}

/// How long a health check waits: shorter than a call, as whoever asks wants to know now.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the server can be written to: round-trip time and role. Never fails, never takes longer than
/// [`HEALTH_TIMEOUT`].
pub fn health(client: &Client) -> Op<(bool, String)> {
    if client.is_closed() {
        return Op::ok((false, "closed".into()));
    }
    let asked = Instant::now();
    let address = client.config.address();
    let role = client.call(Request::read("ROLE", ::redis::cmd("ROLE")), move |reply| {
        let role = super::reply::list(reply)?.into_iter().next().map(super::reply::text).transpose()?;
        Ok((role.unwrap_or_default(), asked.elapsed()))
    });
    let shared = client.shared.clone();
    Op::pending(async move {
        Ok(match tokio::time::timeout(HEALTH_TIMEOUT, role.into_future()).await {
            Ok(Ok((role, time))) => {
                let ms = time.as_secs_f64() * 1e3;
                (role == "master", format!("{address}: round trip {ms:.2} ms, role {role}"))
            }
            Ok(Err(error)) => (false, error.message().to_owned()),
            Err(_) => {
                let last = shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let why = last.map_or_else(String::new, |e| format!(": {e}"));
                (false, format!("{address}: no answer within {HEALTH_TIMEOUT:?}{why}"))
            }
        })
    })
}
