//! One connection for subscriptions, which are restored after every outage.
//!
//! The desired channels are a set, and the server's state of each channel on this connection is known; where they differ,
//! a command is sent. How they came to differ does not matter, so a subscription made during an outage, or one whose
//! confirmation was lost, is no special case.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use ::redis::{Cmd, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::config::RedisConfig;
use super::connection::{Activity, Connection};
use super::reconnect_backoff;
use super::reply::server_error;
use super::socket::Socket;
use crate::error::{Error, Result};
use crate::latch::Latch;
use crate::op::Op;
use crate::sync::lock;

/// What can be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Channel {
    /// One channel.
    Exact(Arc<str>),
    /// Every channel that a glob matches.
    Pattern(Arc<str>),
}

impl Channel {
    fn subscribe(&self) -> Cmd {
        match self {
            Self::Exact(name) => ::redis::cmd("SUBSCRIBE").arg(&**name).take(),
            Self::Pattern(glob) => ::redis::cmd("PSUBSCRIBE").arg(&**glob).take(),
        }
    }

    fn unsubscribe(&self) -> Cmd {
        match self {
            Self::Exact(name) => ::redis::cmd("UNSUBSCRIBE").arg(&**name).take(),
            Self::Pattern(glob) => ::redis::cmd("PUNSUBSCRIBE").arg(&**glob).take(),
        }
    }
}

/// Receives messages and changes of the connection, on its task: it must not block.
pub trait PubSubHandler: Send + Sync + 'static {
    /// Receives a message on `topic`, which matched `channel`.
    fn on_message(&self, channel: &Channel, topic: &str, payload: &[u8]);
    /// Notes that messages of this channel arrive from now on. They may have been missed until now.
    fn on_subscribed(&self, channel: &Channel);
    /// Notes that messages of no channel arrive from now on.
    fn on_disconnected(&self);
}

type Confirm = oneshot::Sender<Result<()>>;

/// A desired channel.
#[derive(Default)]
struct Desired {
    waiting: Vec<Confirm>,
    /// The server has confirmed it before, on this connection or an earlier one.
    confirmed_before: bool,
}

#[derive(Default)]
struct State {
    desired: HashMap<Channel, Desired>,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    ended: Latch,
    connects: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Fails those that wait for a channel's confirmation. Returns whether the channel stays desired: it does if it was
    /// confirmed before, or if somebody was accepted without a confirmation.
    fn reject(entry: &mut Desired, error: &Error) -> bool {
        let mut kept = entry.confirmed_before || entry.waiting.is_empty();
        for confirm in entry.waiting.drain(..) {
            kept |= confirm.send(Err(error.clone())).is_err();
        }
        kept
    }
}

/// A handle to the connection, which is opened by the first subscription.
pub struct PubSub {
    config: Arc<RedisConfig>,
    shared: Arc<Shared>,
}

impl PubSub {
    /// Creates a connection that is served by `runtime` and reports to `handler`.
    pub fn new(config: Arc<RedisConfig>, handler: Arc<dyn PubSubHandler>, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared::default());
        let driver = Driver { config: config.clone(), shared: shared.clone(), handler };
        runtime.spawn(driver.run());
        Self { config, shared }
    }

    /// Subscribes to a channel. Resolves to true when the server has confirmed it, or to false after
    /// [`RedisConfig::queue_timeout`]; then the channel is subscribed to when the server can be reached. Fails if a retry
    /// cannot succeed; then the channel is not subscribed to.
    pub fn subscribe(&self, channel: Channel) -> Op<bool> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared.state();
            if state.closing {
                return Op::err(Error::closed("the subscriber"));
            }
            state.desired.entry(channel).or_default().waiting.push(sender);
        }
        self.shared.changed.notify_one();
        let accept_timeout = self.config.queue_timeout;
        Op::pending(async move {
            match tokio::time::timeout(accept_timeout, receiver).await {
                Ok(Ok(result)) => result.map(|()| true),
                Ok(Err(_)) => Err(Error::closed("the subscriber")),
                Err(_) => Ok(false),
            }
        })
    }

    /// Unsubscribes from a channel.
    pub fn unsubscribe(&self, channel: &Channel) {
        self.shared.state().desired.remove(channel);
        self.shared.changed.notify_one();
    }

    /// Returns how often the connection was made again.
    pub fn reconnects(&self) -> u64 {
        self.shared.connects.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Disconnects. Nothing is received after this has resolved.
    pub fn close(&self) -> Op<()> {
        {
            let mut state = self.shared.state();
            state.closing = true;
            state.desired.clear();
        }
        self.shared.changed.notify_one();
        let ended = self.shared.ended.waiter();
        Op::pending(async move {
            ended.await;
            Ok(())
        })
    }
}

impl Drop for PubSub {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_one();
    }
}

struct Driver {
    config: Arc<RedisConfig>,
    shared: Arc<Shared>,
    handler: Arc<dyn PubSubHandler>,
}

impl Driver {
    async fn run(self) {
        let mut backoff = reconnect_backoff(&self.config);
        loop {
            let changed = self.shared.changed.notified();
            let (closing, idle) = {
                let state = self.shared.state();
                (state.closing, state.desired.is_empty())
            };
            if closing {
                break;
            }
            if idle {
                changed.await;
                continue;
            }
            let error = match self.unless_closing(Socket::open(&self.config)).await {
                None => break,
                Some(Ok(socket)) => {
                    backoff.reset();
                    self.shared.connects.fetch_add(1, Ordering::Relaxed);
                    let end = Session::new(&self, socket).serve().await;
                    self.handler.on_disconnected();
                    match end {
                        None => break,
                        Some(error) => error,
                    }
                }
                Some(Err(error)) => error,
            };
            tracing::debug!(%error, "the subscriber is not connected to Redis");
            if !error.is_retryable() {
                self.shared.state().desired.retain(|_, entry| Shared::reject(entry, &error));
            }
            if self.unless_closing(tokio::time::sleep(backoff.next_delay())).await.is_none() {
                break;
            }
        }
        self.shared.ended.set();
    }

    /// Returns what `future` resolves to, or None when asked to close first.
    async fn unless_closing<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                out = &mut future => return Some(out),
                () = self.shared.changed.notified() => if self.shared.state().closing { return None },
            }
        }
    }
}

/// The server's state of a channel on one connection. A channel that is not known is not subscribed to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChannelState {
    Subscribing,
    Subscribed,
    /// Messages may still arrive, and stop at a moment that is not known: it has to be subscribed to again.
    Unsubscribing,
    /// The server refused it. It is asked again on the next connection.
    Refused,
}

/// A command whose reply is pending.
enum Pending {
    Subscribe(Channel),
    Unsubscribe(Channel),
    Ping,
}

/// One connection.
struct Session<'a> {
    driver: &'a Driver,
    connection: Connection,
    pending: VecDeque<Pending>,
    channels: HashMap<Channel, ChannelState>,
}

impl<'a> Session<'a> {
    fn new(driver: &'a Driver, socket: Socket) -> Self {
        let connection = Connection::new(socket, &driver.config);
        Self { driver, connection, pending: VecDeque::new(), channels: HashMap::new() }
    }

    /// Serves the subscriptions. Returns the error that broke the connection, or None when asked to close.
    async fn serve(mut self) -> Option<Error> {
        match self.exchange().await {
            Ok(()) => {
                self.connection.quit().await;
                None
            }
            Err(error) => Some(error),
        }
    }

    async fn exchange(&mut self) -> Result<()> {
        loop {
            if self.driver.shared.state().closing {
                return Ok(());
            }
            self.reconcile();
            let changed = self.driver.shared.changed.notified();
            match self.connection.next(!self.pending.is_empty(), changed).await? {
                Activity::Received(values) => values.into_iter().try_for_each(|value| self.on_value(value))?,
                Activity::Idle => self.send(Pending::Ping, &::redis::cmd("PING")),
                Activity::Flushed | Activity::Other(()) => {}
            }
        }
    }

    fn send(&mut self, pending: Pending, cmd: &Cmd) {
        self.connection.queue(cmd, self.pending.is_empty());
        self.pending.push_back(pending);
    }

    /// Compares the desired channels with the server's state, and sends commands where they differ.
    fn reconcile(&mut self) {
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        {
            let mut state = self.driver.shared.state();
            for (channel, entry) in &mut state.desired {
                match self.channels.get(channel) {
                    Some(ChannelState::Subscribed) => {
                        entry.confirmed_before = true;
                        entry.waiting.drain(..).for_each(|confirm| _ = confirm.send(Ok(())));
                    }
                    None => subscribe.push(channel.clone()),
                    Some(ChannelState::Refused) if !entry.waiting.is_empty() => subscribe.push(channel.clone()),
                    Some(ChannelState::Subscribing | ChannelState::Unsubscribing | ChannelState::Refused) => {}
                }
            }
            for (channel, channel_state) in &self.channels {
                if *channel_state == ChannelState::Subscribed && !state.desired.contains_key(channel) {
                    unsubscribe.push(channel.clone());
                }
            }
        }
        for channel in subscribe {
            let cmd = channel.subscribe();
            self.channels.insert(channel.clone(), ChannelState::Subscribing);
            self.send(Pending::Subscribe(channel), &cmd);
        }
        for channel in unsubscribe {
            let cmd = channel.unsubscribe();
            self.channels.insert(channel.clone(), ChannelState::Unsubscribing);
            self.send(Pending::Unsubscribe(channel), &cmd);
        }
    }

    fn on_value(&mut self, value: Value) -> Result<()> {
        if self.on_message(&value) {
            return Ok(());
        }
        match (self.pending.pop_front(), value) {
            (Some(Pending::Subscribe(channel)), Value::ServerError(error)) => {
                let error = server_error("SUBSCRIBE", &error);
                tracing::debug!(?channel, %error, "the server refused a subscription");
                let mut state = self.driver.shared.state();
                if let Some(entry) = state.desired.get_mut(&channel)
                    && !Shared::reject(entry, &error)
                {
                    state.desired.remove(&channel);
                }
                if state.desired.contains_key(&channel) {
                    self.channels.insert(channel, ChannelState::Refused);
                } else {
                    self.channels.remove(&channel);
                }
            }
            (Some(Pending::Subscribe(channel)), _) => {
                self.channels.insert(channel.clone(), ChannelState::Subscribed);
                self.driver.handler.on_subscribed(&channel);
            }
            (Some(Pending::Unsubscribe(channel)), _) => _ = self.channels.remove(&channel),
            (Some(Pending::Ping), Value::ServerError(error)) => return Err(server_error("PING", &error)),
            (Some(Pending::Ping), _) => {}
            (None, Value::ServerError(error)) => return Err(server_error("SUBSCRIBE", &error)),
            (None, _) => return Err(Error::unavailable("an unexpected reply on the subscriber's connection")),
        }
        Ok(())
    }

    /// Passes a message to the handler. Returns false if the value is a reply.
    fn on_message(&self, value: &Value) -> bool {
        let Value::Array(parts) = value else { return false };
        let part = |at: usize| match parts.get(at) {
            Some(Value::BulkString(bytes)) => Some(bytes.as_slice()),
            _ => None,
        };
        // Topics of other programs need not be UTF-8; this package's are.
        let text = |at: usize| part(at).map(String::from_utf8_lossy);
        let handler = &self.driver.handler;
        match (part(0), text(1), text(2)) {
            (Some(b"message"), Some(topic), _) => {
                handler.on_message(&Channel::Exact(topic.as_ref().into()), &topic, part(2).unwrap_or_default());
                true
            }
            (Some(b"pmessage"), Some(glob), Some(topic)) => {
                handler.on_message(&Channel::Pattern(glob.as_ref().into()), &topic, part(3).unwrap_or_default());
                true
            }
            _ => false,
        }
    }
}
