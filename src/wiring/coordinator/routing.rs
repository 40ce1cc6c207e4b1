//! The routing task of a session.
//!
//! **Order.** The events of one subject form a partition. The next batch of a partition is started when the one before
//! has completed: the whole backlog at once where the stream keeps the order of calls, one message at a time elsewhere.
//! Partitions do not wait for each other.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::BusEvent;
use crate::fanout::{Delivery, Mailbox};
use crate::op::Op;
use crate::sync::lock;
use crate::wiring::coordinator::publishing::{Channels, Item};
use crate::wiring::run_status::RunStatusTracker;

/// Limit of events taken from the queue that are waiting in partitions or being published.
const MAX_IN_FLIGHT: usize = 256;

/// A batch of a partition in flight; resolves with the partition and the number of its events.
type Batch = Pin<Box<dyn Future<Output = (Arc<str>, usize)> + Send>>;

/// Routes the events of a queue until it is stopped.
pub(super) struct RoutingTask {
    channels: Arc<Channels>,
    queue: Arc<Mailbox<BusEvent>>,
    statuses: Arc<Mutex<RunStatusTracker>>,
    /// The backlog of each partition that has a batch in flight.
    partitions: HashMap<Arc<str>, VecDeque<Item>>,
    batches: FuturesUnordered<Batch>,
    /// Events in partitions.
    in_flight: usize,
}

impl RoutingTask {
    pub(super) fn new(
        channels: Arc<Channels>,
        queue: Arc<Mailbox<BusEvent>>,
        statuses: Arc<Mutex<RunStatusTracker>>,
    ) -> Self {
        Self { channels, queue, statuses, partitions: HashMap::new(), batches: FuturesUnordered::new(), in_flight: 0 }
    }

    /// Routes events until `stopped` is true and nothing is left, or `drain_timeout` has passed after it.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>, drain_timeout: Duration) {
        let mut deadline = None;
        let mut taken = Vec::new();
        loop {
            if self.queue.is_empty() {
                self.flush_gaps();
                if deadline.is_some() && self.batches.is_empty() {
                    break;
                }
            }
            tokio::select! {
                biased;
                // Stopping, or the coordinator has been dropped.
                _ = stopped.wait_for(|stop| *stop), if deadline.is_none() => {
                    deadline = Some(Instant::now() + drain_timeout);
                }
                () = until(deadline) => break,
                Some((partition, events)) = self.batches.next() => {
                    self.in_flight -= events;
                    self.start_batch(partition);
                }
                delivery = self.queue.recv(), if self.in_flight < MAX_IN_FLIGHT => {
                    taken.extend(delivery);
                    self.queue.take(MAX_IN_FLIGHT - self.in_flight, &mut taken);
                    for delivery in taken.drain(..) {
                        // The queue's own gap is reported by topic instead.
                        if let Delivery::Item(event) = delivery {
                            self.route(&event);
                        }
                    }
                }
            }
        }
        self.channels.end_session((self.queue.len() + self.in_flight) as u64);
        self.queue.close();
    }

    fn route(&mut self, event: &BusEvent) {
        let channels = self.channels.clone();
        let (routed, skipped) = channels.router().route(event, &mut lock(&self.statuses), channels.now_ms());
        channels.record_skipped(skipped);
        let Some(partition) = channels.router().partition(event).filter(|_| !routed.is_empty()) else {
            return channels.complete_events(1);
        };
        self.in_flight += 1;
        self.send(partition, channels.event_items(event, routed));
    }

    /// Publishes gaps of topics that have had no message since.
    fn flush_gaps(&mut self) {
        if let Some(items) = self.channels.take_due_gaps() {
            self.send("".into(), items);
            self.channels.notify_if_idle();
        }
    }

    /// Publishes items after those that the partition has in flight.
    fn send(&mut self, partition: Arc<str>, items: Vec<Item>) {
        match self.partitions.get_mut(&partition) {
            Some(backlog) => backlog.extend(items),
            None => {
                self.partitions.insert(partition.clone(), items.into());
                self.start_batch(partition);
            }
        }
    }

    /// Starts the next batch of a partition that has none in flight, or removes the partition.
    fn start_batch(&mut self, partition: Arc<str>) {
        while let Some(backlog) = self.partitions.get_mut(&partition).filter(|backlog| !backlog.is_empty()) {
            let size = if self.channels.keeps_order() { backlog.len() } else { 1 };
            let batch: Vec<Item> = backlog.drain(..size).collect();
            let events = batch.iter().filter(|item| item.last).count();
            let started = self.channels.publish(batch);
            if started.iter().all(|(_, op)| matches!(op, Op::Ready(Ok(())))) {
                started.iter().for_each(|(item, _)| self.channels.record_delivery(item));
                self.in_flight -= events;
                self.channels.complete_events(events as u64);
                continue;
            }
            let completion = self.channels.clone().complete_batch(started);
            self.batches.push(Box::pin(async move {
                completion.await;
                (partition, events)
            }));
            return;
        }
        self.partitions.remove(&partition);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
