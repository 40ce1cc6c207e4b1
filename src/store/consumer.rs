//! Durable consumers: a loop over the feed with a cursor, retries and parked events.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::feed::Position;
use crate::error::Error;
use crate::json::Json;
use crate::op::Op;
use crate::sync::lock;

/// What is stored of a consumer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConsumerState {
    /// Every event up to here was handled or parked. None: it begins with the first event.
    pub position: Option<Position>,
    /// Events that retention or trimming removed before it had them, and that were not yet reported to it.
    pub missed: u64,
    /// Number of its parked events.
    pub parked: u64,
}

/// A change of a consumer, stored in one step.
#[derive(Debug, Clone, Default)]
pub struct ConsumerChange {
    /// The new cursor. None: it stays.
    pub position: Option<Position>,
    /// Which events it consumes: what retention removes of others is not counted as missed.
    pub filter: Option<ConsumerFilter>,
    /// How many missed events have been reported.
    pub missed_reported: u64,
    /// Events to park. One that is parked already is replaced.
    pub park: Vec<ParkedEvent>,
    /// Positions of parked events that have been handled.
    pub unpark: Vec<Position>,
}

/// Which events a consumer consumes, as globs. Empty: all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerFilter {
    /// Subjects.
    pub subjects: Vec<Arc<str>>,
    /// Types.
    pub types: Vec<Arc<str>>,
}

impl ConsumerChange {
    /// Returns whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.position.is_none()
            && self.filter.is_none()
            && self.missed_reported == 0
            && self.park.is_empty()
            && self.unpark.is_empty()
    }
}

/// An event whose handler failed too often.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedEvent {
    /// Where it is in the feed.
    pub position: Position,
    /// Where it was stored.
    pub subject: Arc<str>,
    /// The record. It is kept also when the log loses it.
    pub event: Json,
    /// Deliveries so far.
    pub attempts: u32,
    /// The last error.
    pub reason: String,
    /// When it was parked, in ms of Unix time.
    pub parked_at_ms: u64,
}

/// A consumer in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Every event up to here was handled or parked.
    pub position: Option<Position>,
    /// Number of its parked events.
    pub parked: u64,
}

/// The right to work for a consumer's name, until it is dropped or lost.
pub struct Lease {
    /// Identifies the holder in the store.
    pub token: u64,
    /// Becomes true when the lease is lost.
    pub lost: watch::Receiver<bool>,
    /// Released when it is dropped.
    pub guard: Box<dyn Any + Send + Sync>,
}

impl Lease {
    /// Returns whether it was lost.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }
}

/// The leases of consumers in a store that only this process uses.
#[derive(Default)]
pub(crate) struct LocalLeases {
    held: Arc<Mutex<HashMap<Arc<str>, Waiting>>>,
}

/// Those who wait for the holder of a name, in order.
type Waiting = VecDeque<oneshot::Sender<Lease>>;

impl LocalLeases {
    /// Reserves a name, or waits until its holder releases it.
    pub(crate) fn acquire(&self, name: &str) -> Op<Lease> {
        let name: Arc<str> = name.into();
        let mut held = lock(&self.held);
        match held.get_mut(&name) {
            Some(waiting) => {
                let (sender, receiver) = oneshot::channel();
                waiting.push_back(sender);
                Op::pending(async move { receiver.await.map_err(|_| Error::closed("the store")) })
            }
            None => {
                held.insert(name.clone(), VecDeque::new());
                drop(held);
                Op::ok(self.lease(name))
            }
        }
    }

    /// Fails those who wait.
    pub(crate) fn close(&self) {
        lock(&self.held).values_mut().for_each(VecDeque::clear);
    }

    fn lease(&self, name: Arc<str>) -> Lease {
        lease(self.held.clone(), name)
    }
}

fn lease(held: Arc<Mutex<HashMap<Arc<str>, Waiting>>>, name: Arc<str>) -> Lease {
    let (keep, lost) = watch::channel(false);
    Lease { token: 0, lost, guard: Box::new(LocalGuard { held, name, _keep: keep }) }
}

struct LocalGuard {
    held: Arc<Mutex<HashMap<Arc<str>, Waiting>>>,
    name: Arc<str>,
    _keep: watch::Sender<bool>,
}

impl Drop for LocalGuard {
    fn drop(&mut self) {
        let next = {
            let mut held = lock(&self.held);
            let next = held.get_mut(&self.name).and_then(VecDeque::pop_front);
            if next.is_none() {
                held.remove(&self.name);
            }
            next
        };
        if let Some(next) = next {
            // If the waiter is gone the lease is dropped here, which passes it on.
            drop(next.send(lease(self.held.clone(), self.name.clone())));
        }
    }
}
