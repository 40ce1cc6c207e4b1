//! Durable consumers: their leases, cursors and parked events.
//!
//! A lease belongs to its holder for [`LEASE`] by the server's clock. The holder renews it, and counts it as lost, by its own
//! monotonic clock, some time before the server would give it to another: counted from before the request that got or
//! renewed it, so that a slow reply makes it shorter, never longer. Every lease has a greater token than those before, and
//! only the newest one can store a cursor.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use ::redis::Value;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::feed::parse_position;
use super::keys::Keys;
use super::scripts;
use crate::error::{Code, Error, Result};
use crate::json::to_json;
use crate::op::Op;
use crate::redis::{Client, Request, reply};
use crate::store::{ConsumerChange, ConsumerInfo, ConsumerState, Lease, ParkedEvent, Position, unknown_consumer};

/// How long the server keeps a lease that is not renewed.
const LEASE: Duration = Duration::from_secs(10);
/// Time between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);
/// A holder stops this long before the server could give the lease to another.
const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// Delay after a failed renewal or acquisition.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// A reply with parked events ends with the one that makes it larger than this.
const PARKED_BYTES: usize = 8 << 20;

/// The consumers of one store.
#[derive(Clone)]
pub(super) struct Consumers {
    client: Arc<Client>,
    keys: Keys,
    /// Notified when a holder, of whatever process, has released its lease.
    released: Arc<Notify>,
    runtime: Handle,
}

/// What is stored of a parked event beside its position.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parked<'a> {
    subject: String,
    attempts: u32,
    reason: String,
    parked_at: u64,
    #[serde(borrow)]
    event: &'a RawValue,
}

impl Consumers {
    pub(super) fn new(client: Arc<Client>, keys: Keys, released: Arc<Notify>, runtime: Handle) -> Self {
        Self { client, keys, released, runtime }
    }

    /// Waits until the lease of a name is free, and takes it.
    pub(super) fn acquire(&self, name: &str) -> Op<Lease> {
        if self.client.is_closed() {
            return Op::err(Error::closed("the Redis store"));
        }
        let (sender, receiver) = oneshot::channel();
        // A lease that is granted after the caller has stopped waiting is dropped, which releases it.
        self.runtime.spawn(self.clone().wait_for_lease(name.into(), sender));
        Op::pending(async move { receiver.await.unwrap_or_else(|_| Err(Error::closed("the Redis store"))) })
    }

    async fn wait_for_lease(self, name: Arc<str>, mut sender: oneshot::Sender<Result<Lease>>) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let wait = match self.try_acquire(&name).await {
                Ok(Ok(lease)) => {
                    _ = sender.send(Ok(lease));
                    return;
                }
                Ok(Err(rest)) => rest,
                Err(error) if error.is_retryable() && !self.client.is_closed() => RETRY_DELAY,
                Err(error) => {
                    _ = sender.send(Err(error));
                    return;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = released => {}
                () = sender.closed() => return,
            }
        }
    }

    /// Takes a lease, or returns how long its holder has it at most.
    pub(super) async fn try_acquire(&self, name: &Arc<str>) -> Result<std::result::Result<Lease, Duration>> {
        let (key, replay_key) = (self.keys.lease(name), self.keys.replays(name));
        let mut call = scripts::CONSUMER_ACQUIRE.call(&[&key, &self.keys.feed_state()]);
        call.arg(LEASE.as_millis() as u64);
        let asked = Instant::now();
        let request = Request::write("consume", call).of(&scripts::CONSUMER_ACQUIRE);
        let numbers = self
            .client
            .call(request, |value| reply::list(value)?.into_iter().map(reply::int).collect::<Result<Vec<_>>>());
        match *numbers.into_future().await? {
            [0, rest] => Ok(Err(Duration::from_millis(u64::try_from(rest).unwrap_or(0) + 1))),
            [token] => {
                let (lost_sender, lost) = watch::channel(false);
                let (replays_sender, replays) = watch::channel(0);
                let (stop, stopped) = oneshot::channel();
                let guard =
                    Guard { client: self.client.clone(), keys: self.keys.clone(), key, replay_key, token, _stop: stop };
                let keys = [guard.key.clone(), guard.replay_key.clone()];
                let renewal = Renewal { client: self.client.clone(), keys, token, asked, replays: replays_sender };
                self.runtime.spawn(renewal.run(lost_sender, stopped));
                let guard: Box<dyn Any + Send + Sync> = Box::new(guard);
                Ok(Ok(Lease { token: u64::try_from(token).unwrap_or(0), lost, replays, guard }))
            }
            _ => Err(Error::corrupt("Redis sent an unexpected reply for a lease")),
        }
    }

    pub(super) fn save(&self, name: &str, lease: &Lease, change: ConsumerChange) -> Op<()> {
        let keys = [
            self.keys.lease(name),
            self.keys.consumers(),
            self.keys.parked_positions(name),
            self.keys.parked_events(name),
            self.keys.replays(name),
        ];
        let mut call = scripts::CONSUMER_SAVE.call(&[&keys[0], &keys[1], &keys[2], &keys[3], &keys[4]]);
        call.arg(lease.token).arg(name);
        let mut parked = Vec::with_capacity(change.park.len());
        for event in change.park {
            match encode(&event) {
                Ok((number, json)) => parked.push((event.position, number, json)),
                Err(error) => return Op::err(error),
            }
        }
        if let Some(Err(error)) = change.position.as_ref().map(parse_position) {
            return Op::err(error);
        }
        call.arg(change.position.as_ref().map_or("", Position::as_str)).arg(parked.len());
        for (position, number, json) in parked {
            call.arg(position.as_str()).arg(number).arg(json);
        }
        for position in &change.unpark {
            call.arg(position.as_str());
        }
        let name: Box<str> = name.into();
        let request = Request::write("consume", call).of(&scripts::CONSUMER_SAVE);
        self.client.call(request, move |saved| {
            if reply::int(saved)? == 1 {
                return Ok(());
            }
            Err(Error::new(Code::Conflict, format!("consumer {name:?}: another process has taken over its lease")))
        })
    }

    pub(super) fn load(&self, name: &str) -> Op<Option<ConsumerState>> {
        self.infos(name).map(|consumers| {
            let consumer = consumers.into_iter().next();
            consumer.map(|info| ConsumerState { position: info.position, missed: 0, parked: info.parked })
        })
    }

    pub(super) fn list(&self) -> Op<Vec<ConsumerInfo>> {
        self.infos("")
    }

    fn infos(&self, name: &str) -> Op<Vec<ConsumerInfo>> {
        let mut call = scripts::CONSUMER_LIST.call(&[&self.keys.consumers()]);
        call.arg(self.keys.parked_positions("")).arg(name);
        let request = Request::read("consumers", call).of(&scripts::CONSUMER_LIST);
        self.client.call(request, |value| {
            let (mut values, mut consumers) = (reply::list(value)?.into_iter(), Vec::new());
            while let (Some(name), Some(position), Some(parked)) = (values.next(), values.next(), values.next()) {
                let position = Some(reply::text(position)?).filter(|text| !text.is_empty());
                consumers.push(ConsumerInfo {
                    name: reply::text(name)?.into(),
                    position: position.as_deref().map(Position::new).transpose()?,
                    parked: u64::try_from(reply::int(parked)?).unwrap_or(0),
                });
            }
            consumers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(consumers)
        })
    }

    pub(super) fn delete(&self, name: &str) -> Op<bool> {
        let keys = [
            self.keys.consumers(),
            self.keys.parked_positions(name),
            self.keys.parked_events(name),
            self.keys.replays(name),
        ];
        let mut call = scripts::CONSUMER_DELETE.call(&[&keys[0], &keys[1], &keys[2], &keys[3]]);
        call.arg(name);
        let request = Request::write("deleteConsumer", call).of(&scripts::CONSUMER_DELETE);
        self.client.call(request, |deleted| Ok(reply::int(deleted)? != 0))
    }

    pub(super) fn parked(&self, name: &str, after: Option<Position>, limit: usize) -> Op<Vec<ParkedEvent>> {
        let after = match after.as_ref().map(parse_position).transpose() {
            Ok(after) => after.map_or(0, |id| id.seq),
            Err(error) => return Op::err(error),
        };
        let keys = [self.keys.parked_positions(name), self.keys.parked_events(name)];
        let mut call = scripts::CONSUMER_PARKED.call(&[&keys[0], &keys[1]]);
        call.arg(after).arg(limit.min(i32::MAX as usize)).arg(PARKED_BYTES);
        let request = Request::read("parked", call).of(&scripts::CONSUMER_PARKED);
        self.client.call(request, |value: Value| {
            reply::pairs(value)?.into_iter().map(|(position, json)| decode(&position, &json)).collect()
        })
    }
}

impl Consumers {
    /// Stores that parked events are to be delivered again, these or all. The holder of the lease learns of it when it
    /// renews it.
    pub(super) fn request_replay(&self, name: &str, positions: Option<Vec<Position>>) -> Op<u64> {
        if let Some(Err(error)) = positions.iter().flatten().map(parse_position).find(Result::is_err) {
            return Op::err(error);
        }
        let keys = [self.keys.consumers(), self.keys.parked_positions(name), self.keys.replays(name)];
        let mut call = scripts::CONSUMER_REPLAY.call(&[&keys[0], &keys[1], &keys[2]]);
        call.arg(name).arg(u8::from(positions.is_none()));
        for position in positions.iter().flatten() {
            call.arg(position.as_str());
        }
        let name: Box<str> = name.into();
        self.client.call(Request::write("replay", call).of(&scripts::CONSUMER_REPLAY), move |count| {
            u64::try_from(reply::int(count)?).map_err(|_| unknown_consumer(&name))
        })
    }

    /// Returns the positions of parked events that are to be delivered again.
    pub(super) fn replays(&self, name: &str) -> Op<Vec<Position>> {
        let mut call = ::redis::cmd("SMEMBERS");
        call.arg(self.keys.replays(name));
        self.client.call(Request::read("replay", call), |members| {
            reply::list(members)?.into_iter().map(|text| Position::new(&reply::text(text)?)).collect()
        })
    }
}

fn encode(event: &ParkedEvent) -> Result<(u64, String)> {
    let raw: &RawValue = serde_json::from_str(&event.event).map_err(|e| Error::invalid(format!("event: {e}")))?;
    let parked = Parked {
        subject: event.subject.as_ref().into(),
        attempts: event.attempts,
        reason: event.reason.clone(),
        parked_at: event.parked_at_ms,
        event: raw,
    };
    Ok((parse_position(&event.position)?.seq, to_json(&parked).as_ref().to_owned()))
}

fn decode(position: &str, json: &str) -> Result<ParkedEvent> {
    let parked: Parked<'_> =
        serde_json::from_str(json).map_err(|e| Error::corrupt(format!("parked event {position}: {e}")))?;
    Ok(ParkedEvent {
        position: Position::new(position)?,
        subject: parked.subject.into(),
        event: parked.event.get().into(),
        attempts: parked.attempts,
        reason: parked.reason,
        parked_at_ms: parked.parked_at,
    })
}

/// Releases a lease when it is dropped.
struct Guard {
    client: Arc<Client>,
    keys: Keys,
    key: String,
    replay_key: String,
    token: i64,
    /// Ends the renewal.
    _stop: oneshot::Sender<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut call = scripts::CONSUMER_RENEW.call(&[&self.key, &self.replay_key]);
        call.arg(self.token).arg("").arg(self.keys.appended());
        // What is not released ends by itself.
        self.client.submit(Request::write("consume", call).of(&scripts::CONSUMER_RENEW), |_| {});
    }
}

/// Renews a lease until it is released or lost.
struct Renewal {
    client: Arc<Client>,
    /// The lease, and what is to be delivered again.
    keys: [String; 2],
    token: i64,
    replays: watch::Sender<u64>,
    /// Before the last request that got or renewed it.
    asked: Instant,
}

impl Renewal {
    async fn run(mut self, lost: watch::Sender<bool>, mut stopped: oneshot::Receiver<()>) {
        let mut next = self.asked + RENEW_INTERVAL;
        loop {
            let end = self.asked + (LEASE - LEASE_MARGIN);
            let attempt = async {
                tokio::time::sleep_until(next).await;
                let asked = Instant::now();
                let mut call = scripts::CONSUMER_RENEW.call(&[&self.keys[0], &self.keys[1]]);
                call.arg(self.token).arg(LEASE.as_millis() as u64).arg("");
                let request = Request::write("consume", call).of(&scripts::CONSUMER_RENEW);
                (asked, self.client.call(request, reply::int).into_future().await)
            };
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep_until(end) => break,
                (asked, renewed) = attempt => match renewed {
                    Ok(held @ (1 | 2)) => {
                        if held == 2 {
                            self.replays.send_modify(|count| *count += 1);
                        }
                        self.asked = asked;
                        next = asked + RENEW_INTERVAL;
                    }
                    Ok(_) => break,
                    Err(_) if self.client.is_closed() => break,
                    Err(_) => next = Instant::now() + RETRY_DELAY,
                },
            }
        }
        lost.send_replace(true);
        // The receiver sees the change until the holder drops the lease.
        _ = stopped.await;
    }
}
