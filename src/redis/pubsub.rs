//! One connection for subscriptions, which come back after every outage.
//!
//! What is wanted is a set, and so is what the server has confirmed on this connection; whenever they differ, the
//! difference is asked for. Nothing is remembered of how the sets came about, so a subscription made during an outage, or
//! one whose confirmation was lost, is no special case.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::{Cmd, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::Backoff;
use super::config::RedisConfig;
use super::link::{Link, ended, lost};
use super::reply::server_error;
use crate::error::{Error, Result};
use crate::op::Op;

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

/// Hears what the connection hears, on its task: it must not block.
pub trait Receiver: Send + Sync + 'static {
    /// A message on `topic`, which came because of `channel`.
    fn message(&self, channel: &Channel, topic: &str, payload: &[u8]);
    /// From now on messages of this channel arrive; until now they may have been missed.
    fn live(&self, channel: &Channel);
    /// From now on messages of no channel arrive.
    fn interrupted(&self);
}

type Confirm = oneshot::Sender<Result<()>>;

#[derive(Default)]
struct State {
    wanted: HashMap<Channel, Vec<Confirm>>,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    closed: Notify,
    ended: AtomicBool,
    connects: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the connection. It opens with the first subscription.
pub struct PubSub {
    config: Arc<RedisConfig>,
    shared: Arc<Shared>,
}

impl PubSub {
    /// A connection on `runtime` that tells `receiver` what it hears.
    pub fn new(config: Arc<RedisConfig>, receiver: Arc<dyn Receiver>, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared::default());
        let driver = Driver { config: config.clone(), shared: shared.clone(), receiver };
        runtime.spawn(driver.run());
        Self { config, shared }
    }

    /// Wants a channel. The operation ends when the server has confirmed it, with true; with false after
    /// [`RedisConfig::queue_timeout`], when the channel stays wanted and becomes live as soon as the server is there.
    /// It fails where trying again would not help, and then the channel is not wanted any more.
    pub fn want(&self, channel: Channel) -> Op<bool> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared.state();
            if state.closing {
                return Op::err(Error::closed("the subscriber"));
            }
            state.wanted.entry(channel).or_default().push(sender);
        }
        self.shared.changed.notify_one();
        let patience = self.config.queue_timeout;
        Op::pending(async move {
            match tokio::time::timeout(patience, receiver).await {
                Ok(Ok(result)) => result.map(|()| true),
                Ok(Err(_)) => Err(Error::closed("the subscriber")),
                Err(_) => Ok(false),
            }
        })
    }

    /// Does not want a channel any more.
    pub fn unwant(&self, channel: &Channel) {
        self.shared.state().wanted.remove(channel);
        self.shared.changed.notify_one();
    }

    /// How often a connection was made after the first.
    pub fn reconnects(&self) -> u64 {
        self.shared.connects.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Says goodbye. Nothing is received after it.
    pub fn close(&self) -> Op<()> {
        {
            let mut state = self.shared.state();
            state.closing = true;
            state.wanted.clear();
        }
        self.shared.changed.notify_one();
        let shared = self.shared.clone();
        Op::pending(async move {
            loop {
                let closed = shared.closed.notified();
                tokio::pin!(closed);
                closed.as_mut().enable();
                if shared.ended.load(Ordering::Acquire) {
                    return Ok(());
                }
                closed.await;
            }
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
    receiver: Arc<dyn Receiver>,
}

impl Driver {
    async fn run(self) {
        let mut backoff = Backoff::new(self.config.max_reconnect_delay);
        loop {
            let changed = self.shared.changed.notified();
            let (closing, idle) = {
                let state = self.shared.state();
                (state.closing, state.wanted.is_empty())
            };
            if closing {
                break;
            }
            if idle {
                changed.await;
                continue;
            }
            let error = match self.unless_closing(Link::open(&self.config)).await {
                None => break,
                Some(Ok(link)) => {
                    backoff = Backoff::new(self.config.max_reconnect_delay);
                    self.shared.connects.fetch_add(1, Ordering::Relaxed);
                    let end = Connection::new(&self, link).serve().await;
                    self.receiver.interrupted();
                    match end {
                        None => break,
                        Some(error) => error,
                    }
                }
                Some(Err(error)) => error,
            };
            tracing::debug!(%error, "Redis: subscriber not connected");
            if !error.is_retryable() {
                // Whoever waits for a confirmation is told; what was confirmed before stays wanted.
                self.shared.state().wanted.retain(|_, waiting| {
                    let keep = waiting.is_empty();
                    waiting.drain(..).for_each(|confirm| _ = confirm.send(Err(error.clone())));
                    keep
                });
            }
            if self.unless_closing(tokio::time::sleep(backoff.delay())).await.is_none() {
                break;
            }
        }
        self.shared.ended.store(true, Ordering::Release);
        self.shared.closed.notify_waiters();
    }

    /// What `future` gives, or nothing when asked to close first.
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

/// What a reply that is no message answers.
enum Asked {
    Subscribe(Channel),
    Unsubscribe(Channel),
    Ping,
}

struct Connection<'a> {
    driver: &'a Driver,
    link: Link,
    out: Vec<u8>,
    asked: VecDeque<Asked>,
    /// What the server has confirmed.
    confirmed: HashSet<Channel>,
    /// What it was asked for and has not answered.
    underway: HashSet<Channel>,
    progress: Instant,
}

impl<'a> Connection<'a> {
    fn new(driver: &'a Driver, link: Link) -> Self {
        Self {
            driver,
            link,
            out: Vec::new(),
            asked: VecDeque::new(),
            confirmed: HashSet::new(),
            underway: HashSet::new(),
            progress: Instant::now(),
        }
    }

    /// None: asked to close.
    async fn serve(mut self) -> Option<Error> {
        match self.exchange().await {
            Ok(()) => {
                self.link.quit().await;
                None
            }
            Err(error) => Some(error),
        }
    }

    async fn exchange(&mut self) -> Result<()> {
        let address = self.driver.config.address();
        let mut inbox = Vec::with_capacity(64 * 1024);
        loop {
            if self.driver.shared.state().closing {
                return Ok(());
            }
            self.ask_for_the_difference();
            let config = &self.driver.config;
            let patience = if self.asked.is_empty() { config.ping_interval } else { config.response_timeout };
            tokio::select! {
                read = self.link.reader.read_buf(&mut inbox) => {
                    if read.map_err(|e| lost(&address, &e))? == 0 {
                        return Err(ended(&address));
                    }
                    self.progress = Instant::now();
                    let mut values = Vec::new();
                    let parsed = self.link.replies.feed(&inbox, |value| values.push(value));
                    inbox.clear();
                    values.into_iter().try_for_each(|value| self.hear(value))?;
                    parsed?;
                }
                written = self.link.writer.write(&self.out), if !self.out.is_empty() => {
                    self.out.drain(..written.map_err(|e| lost(&address, &e))?);
                }
                () = self.driver.shared.changed.notified() => {}
                () = tokio::time::sleep_until(self.progress + patience) => {
                    if !self.asked.is_empty() {
                        return Err(Error::unavailable(format!("{address} owes a reply and has been silent for {patience:?}")));
                    }
                    self.ask(Asked::Ping, &::redis::cmd("PING"));
                }
            }
        }
    }

    fn ask(&mut self, asked: Asked, cmd: &Cmd) {
        if self.asked.is_empty() {
            self.progress = Instant::now();
        }
        cmd.write_packed_command(&mut self.out);
        self.asked.push_back(asked);
    }

    /// Compares what is wanted with what is confirmed or under way, and asks for the rest.
    fn ask_for_the_difference(&mut self) {
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        {
            let mut state = self.driver.shared.state();
            for (channel, waiting) in &mut state.wanted {
                if self.confirmed.contains(channel) {
                    waiting.drain(..).for_each(|confirm| _ = confirm.send(Ok(())));
                } else if !self.underway.contains(channel) {
                    subscribe.push(channel.clone());
                }
            }
            for channel in &self.confirmed {
                if !state.wanted.contains_key(channel) && !self.underway.contains(channel) {
                    unsubscribe.push(channel.clone());
                }
            }
        }
        for channel in subscribe {
            self.underway.insert(channel.clone());
            let cmd = channel.subscribe();
            self.ask(Asked::Subscribe(channel), &cmd);
        }
        for channel in unsubscribe {
            self.underway.insert(channel.clone());
            let cmd = channel.unsubscribe();
            self.ask(Asked::Unsubscribe(channel), &cmd);
        }
    }

    fn hear(&mut self, value: Value) -> Result<()> {
        if let Value::Array(parts) = &value {
            let part = |at: usize| match parts.get(at) {
                Some(Value::BulkString(bytes)) => Some(bytes.as_slice()),
                _ => None,
            };
            // Topics of others may be no UTF-8; ours all are.
            let text = |at: usize| part(at).map(String::from_utf8_lossy);
            match (part(0), text(1), text(2)) {
                (Some(b"message"), Some(topic), _) => {
                    let channel = Channel::Exact(topic.as_ref().into());
                    self.driver.receiver.message(&channel, &topic, part(2).unwrap_or_default());
                    return Ok(());
                }
                (Some(b"pmessage"), Some(glob), Some(topic)) => {
                    let channel = Channel::Pattern(glob.as_ref().into());
                    self.driver.receiver.message(&channel, &topic, part(3).unwrap_or_default());
                    return Ok(());
                }
                _ => {}
            }
        }
        match (self.asked.pop_front(), value) {
            (Some(Asked::Subscribe(channel)), Value::ServerError(error)) => {
                self.underway.remove(&channel);
                let error = server_error("SUBSCRIBE", &error);
                let waiting = self.driver.shared.state().wanted.remove(&channel).unwrap_or_default();
                waiting.into_iter().for_each(|confirm| _ = confirm.send(Err(error.clone())));
            }
            (Some(Asked::Subscribe(channel)), _) => {
                self.underway.remove(&channel);
                self.confirmed.insert(channel.clone());
                self.driver.receiver.live(&channel);
            }
            (Some(Asked::Unsubscribe(channel)), _) => {
                self.underway.remove(&channel);
                self.confirmed.remove(&channel);
            }
            (Some(Asked::Ping), Value::ServerError(error)) => return Err(server_error("PING", &error)),
            (Some(Asked::Ping), _) => {}
            (None, value) => {
                return Err(match value {
                    Value::ServerError(error) => server_error("SUBSCRIBE", &error),
                    _ => Error::unavailable("an unexpected reply came over the subscriber's connection"),
                });
            }
        }
        Ok(())
    }
}
