//! Leases: one consumer of a name is at work at a time.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{oneshot, watch};

use crate::error::Error;
use crate::op::Op;
use crate::sync::lock;

/// The right to work for a consumer's name, until it is dropped or lost.
pub struct Lease {
    /// Identifies the holder in the store.
    pub token: u64,
    /// Becomes true when the lease is lost.
    pub lost: watch::Receiver<bool>,
    /// Changes when the replay of parked events may have been requested.
    pub replays: watch::Receiver<u64>,
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
    held: Arc<Mutex<HashMap<Arc<str>, Held>>>,
}

struct Held {
    lost: watch::Sender<bool>,
    replays: watch::Sender<u64>,
    /// Those who wait for the name, in order.
    waiting: VecDeque<oneshot::Sender<Lease>>,
}

impl LocalLeases {
    /// Reserves a name, or waits until its holder releases it.
    pub(crate) fn acquire(&self, name: &str) -> Op<Lease> {
        if let Some(lease) = self.try_acquire(name) {
            return Op::ok(lease);
        }
        let mut held = lock(&self.held);
        let Some(held) = held.get_mut(name) else {
            // It was released meanwhile.
            drop(held);
            return self.acquire(name);
        };
        let (sender, receiver) = oneshot::channel();
        held.waiting.push_back(sender);
        Op::pending(async move { receiver.await.map_err(|_| Error::closed("the store")) })
    }

    /// Reserves a name, if it is free.
    pub(crate) fn try_acquire(&self, name: &str) -> Option<Lease> {
        let mut held = lock(&self.held);
        if held.contains_key(name) {
            return None;
        }
        let name: Arc<str> = name.into();
        let ((lost, on_lost), (replays, on_replay)) = (watch::channel(false), watch::channel(0));
        held.insert(name.clone(), Held { lost, replays, waiting: VecDeque::new() });
        drop(held);
        Some(lease(self.held.clone(), name, on_lost, on_replay))
    }

    /// Notifies the holder of a name that the replay of parked events was requested.
    pub(crate) fn notify_replay(&self, name: &str) {
        if let Some(held) = lock(&self.held).get(name) {
            held.replays.send_modify(|count| *count += 1);
        }
    }

    /// Ends the leases, and fails those who wait.
    pub(crate) fn close(&self) {
        for held in lock(&self.held).values_mut() {
            held.lost.send_replace(true);
            held.waiting.clear();
        }
    }
}

fn lease(
    held: Arc<Mutex<HashMap<Arc<str>, Held>>>,
    name: Arc<str>,
    lost: watch::Receiver<bool>,
    replays: watch::Receiver<u64>,
) -> Lease {
    Lease { token: 0, lost, replays, guard: Box::new(Guard { held, name }) }
}

struct Guard {
    held: Arc<Mutex<HashMap<Arc<str>, Held>>>,
    name: Arc<str>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let next = {
            let mut held = lock(&self.held);
            let Some(this) = held.get_mut(&self.name) else { return };
            match this.waiting.pop_front() {
                Some(next) => {
                    let (lost, on_lost) = watch::channel(false);
                    this.lost = lost;
                    Some((next, on_lost, this.replays.subscribe()))
                }
                None => {
                    held.remove(&self.name);
                    None
                }
            }
        };
        if let Some((next, lost, replays)) = next {
            // If the waiter is gone the lease is dropped here, which passes it on.
            drop(next.send(lease(self.held.clone(), self.name.clone(), lost, replays)));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::error::Code;

    #[test]
    fn those_who_wait_get_a_name_in_their_order_and_closing_ends_every_lease() {
        let leases = LocalLeases::default();
        let first = leases.try_acquire("a").unwrap();
        let waiting = || leases.acquire("a").into_future();
        let (mut second, mut third, mut fourth) = (waiting(), waiting(), waiting());
        assert!(leases.try_acquire("a").is_none() && (&mut second).now_or_never().is_none());
        drop(first);
        assert!((&mut third).now_or_never().is_none(), "it is behind the second");
        let second = second.now_or_never().unwrap().unwrap();
        drop(fourth.now_or_never());
        drop(second);
        let third = third.now_or_never().unwrap().unwrap();
        fourth = waiting();
        let other = leases.try_acquire("b").unwrap();
        assert!(!third.is_lost() && !other.is_lost());
        leases.close();
        assert!(third.is_lost() && other.is_lost());
        assert_eq!(fourth.now_or_never().unwrap().err().unwrap().code(), Code::Closed);
        drop(third);
        assert!(leases.try_acquire("a").is_some(), "no other caller waits");
    }

    #[test]
    fn the_holder_of_a_name_is_notified_of_replays_whoever_held_it_before() {
        let leases = LocalLeases::default();
        let first = leases.try_acquire("a").unwrap();
        let second = leases.acquire("a").into_future();
        drop(first);
        let mut second = second.now_or_never().unwrap().unwrap();
        assert!(!second.replays.has_changed().unwrap());
        leases.notify_replay("a");
        leases.notify_replay("other");
        assert!(second.replays.has_changed().unwrap());
        second.replays.mark_unchanged();
    }
}
