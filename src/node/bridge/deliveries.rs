//! Deliveries to JavaScript handlers. Subscriptions are drained in turn, in batches of bounded size, and paused while an
//! asynchronous handler is at work, so that what is waiting stays in their bounded mailboxes.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, Weak};

use super::notifier::Notifier;
use super::{BATCH_BYTES, MAX_TEXT_BYTES};
use crate::fanout::{Delivery, Gap, GapReason, Mailbox, OnReady};
use crate::json::{Json, push_string};
use crate::queue::{Cancellation, JobDelivery, Queue, QueueEvent};
use crate::store::Stored;
use crate::stream::{Ack, Incoming, Message};
use crate::sync::lock;
use crate::time::{Clock, SystemClock};

/// Messages of one batch. Handlers run between turns of the event loop, and a turn should stay short.
const BATCH_MESSAGES: usize = 512;

/// Messages for one subscriber in a batch, so that all get their turn.
const MAX_PER_TURN: usize = 64;

/// Where the events of a subscription come from.
pub(in crate::node) enum Source {
    /// A stream: messages with topics.
    Stream(Arc<Mailbox<Incoming>>),
    /// A store's subscription, or a bus: records.
    Store(Arc<Mailbox<Stored>>),
    /// Events of a queue.
    QueueEvents(Arc<Mailbox<QueueEvent>>),
    /// Cancellations of attempts.
    Cancellations(Arc<Mailbox<Cancellation>>),
    /// Jobs for a worker.
    Jobs(Arc<Mailbox<JobDelivery>>, Weak<Queue>),
}

/// A subscription whose handler is a JavaScript function.
struct Subscription {
    id: u64,
    topic: Arc<str>,
    source: Source,
    /// One event at a time: the mailbox is shared with others, or events are acknowledged.
    serial: bool,
    flow: Mutex<Flow>,
}

/// Where a subscription is between its mailbox and its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Has no handler yet, or its handler is at work. What arrives stays in the mailbox until it is resumed.
    Paused,
    /// Waits for something to arrive.
    Idle,
    /// In the list of those that have something.
    Queued,
    /// Nothing is delivered to it any more.
    Removed,
}

struct Flow {
    state: State,
    /// Its handler has returned a promise once: one event at a time from then on.
    async_handler: bool,
    /// Acknowledges the event that the handler has.
    ack: Option<Ack>,
}

/// The subscriptions of one environment.
pub(super) struct Deliveries {
    notifier: Arc<Notifier>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    ready: VecDeque<Arc<Subscription>>,
    subscriptions: HashMap<u64, Arc<Subscription>>,
    /// Acknowledgements of removed subscriptions whose handlers are still at work.
    removed: HashMap<u64, Ack>,
}

/// Messages that stand one after the other in a batch and go to one subscriber.
struct Span {
    subscription: u64,
    first: usize,
    count: usize,
}

/// One batch of deliveries under construction.
#[derive(Default)]
struct Batch {
    messages: String,
    spans: Vec<Span>,
    /// The index of the last message given, as one message usually goes to many subscribers in a row.
    last: Option<(*const u8, usize)>,
    /// The indexes of all, by address.
    seen: HashMap<*const u8, usize>,
    /// Keeps what the addresses point to alive, so that none is used again.
    kept: Vec<Json>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_BYTES || self.kept.len() >= BATCH_MESSAGES
    }

    fn push(&mut self, subscription: u64, topic: &str, json: &Json) {
        if json.len() > MAX_TEXT_BYTES {
            tracing::warn!(
                code = "NVENT_INVALID",
                "a message of {} bytes on {topic:?} was not delivered: it is too large for a JavaScript string",
                json.len()
            );
            let gap = Gap { reason: GapReason::Overflow, missed: Some(1) };
            let gap = Message::gap(topic, gap, SystemClock.now_ms());
            return self.push(subscription, topic, gap.json());
        }
        let index = self.index(topic, json);
        match self.spans.last_mut() {
            Some(last) if last.subscription == subscription && last.first + last.count == index => last.count += 1,
            _ => self.spans.push(Span { subscription, first: index, count: 1 }),
        }
    }

    fn index(&mut self, topic: &str, json: &Json) -> usize {
        let (next, address) = (self.kept.len(), json.as_ptr());
        let index = match self.last {
            Some((last, index)) if last == address => index,
            _ => *self.seen.entry(address).or_insert(next),
        };
        self.last = Some((address, index));
        if index == next {
            self.messages.push_str(if next == 0 { "[" } else { ",[" });
            push_string(&mut self.messages, topic);
            self.messages.push(',');
            self.messages.push_str(json);
            self.messages.push(']');
            self.kept.push(json.clone());
        }
        index
    }

    fn into_json(self, more: bool) -> Option<String> {
        if self.spans.is_empty() {
            return None;
        }
        let mut json = format!("[[{}],[", self.messages);
        for (n, Span { subscription, first, count }) in self.spans.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            // Writing to a String does not fail.
            _ = write!(json, "{comma}{subscription},{first},{count}");
        }
        json.push_str(if more { "],true]" } else { "],false]" });
        Some(json)
    }
}

impl Subscription {
    fn pause(&self) {
        let mut flow = lock(&self.flow);
        if flow.state != State::Removed {
            flow.state = State::Paused;
        }
    }

    /// Moves what is waiting into the batch, up to `max` messages or the size of a batch. Returns whether more is waiting.
    fn take(&self, batch: &mut Batch, max: usize) -> bool {
        let gap = |batch: &mut Batch, gap: Gap| {
            let message = Message::gap(&self.topic, gap, SystemClock.now_ms());
            batch.push(self.id, &self.topic, message.json());
        };
        match &self.source {
            Source::Stream(mailbox) => take_from(mailbox, max, batch, |batch, delivery| match delivery {
                Delivery::Gap(it) => gap(batch, it),
                Delivery::Item(incoming) => {
                    batch.push(self.id, incoming.message.topic(), incoming.message.json());
                    if incoming.ack.is_some() {
                        lock(&self.flow).ack = incoming.ack;
                    }
                }
            }),
            Source::Store(mailbox) => take_from(mailbox, max, batch, |batch, delivery| match delivery {
                Delivery::Gap(it) => gap(batch, it),
                Delivery::Item(stored) => batch.push(self.id, &stored.subject, stored.event.json()),
            }),
            Source::QueueEvents(mailbox) => take_from(mailbox, max, batch, |batch, delivery| {
                // What a listener missed is in the queue's counts; there is no place for a gap among these events.
                if let Delivery::Item(event) = delivery {
                    batch.push(self.id, &event.queue, &event.payload);
                }
            }),
            Source::Cancellations(mailbox) => take_from(mailbox, max, batch, |batch, delivery| {
                if let Delivery::Item(Cancellation { token, reason }) = delivery {
                    let json: Json = format!("{{\"token\":{token},\"reason\":\"{}\"}}", reason.as_str()).into();
                    batch.push(self.id, "", &json);
                }
            }),
            Source::Jobs(mailbox, queue) => take_from(mailbox, max, batch, |batch, delivery| {
                // JavaScript starts the attempt when it calls the handler; until then the job can be revoked.
                if let Delivery::Item(job) = delivery {
                    let json: Json = format!("{{\"token\":{},\"job\":{}}}", job.token, job.job).into();
                    let name = job.queue.clone();
                    if queue.upgrade().is_some_and(|queue| queue.accept(job)) {
                        batch.push(self.id, &name, &json);
                    }
                }
            }),
        }
    }
}

/// Takes up to `max` deliveries, fewer where the batch is full. Returns whether more is waiting.
fn take_from<T>(
    mailbox: &Mailbox<T>,
    max: usize,
    batch: &mut Batch,
    mut each: impl FnMut(&mut Batch, Delivery<T>),
) -> bool {
    let mut out = Vec::with_capacity(1);
    for _ in 0..max {
        let more = mailbox.take(1, &mut out);
        let Some(delivery) = out.pop() else { return false };
        each(batch, delivery);
        if !more || batch.is_full() {
            return more;
        }
    }
    true
}

impl Deliveries {
    pub(super) fn new(notifier: Arc<Notifier>) -> Self {
        Self { notifier, table: Mutex::default() }
    }

    /// Adds a subscription, paused until JavaScript has a handler for it. Returns the wake-up for its mailbox.
    pub(super) fn subscribe(self: &Arc<Self>, id: u64, topic: Arc<str>, source: Source, serial: bool) -> OnReady {
        let flow = Mutex::new(Flow { state: State::Paused, async_handler: false, ack: None });
        let subscription = Arc::new(Subscription { id, topic, source, serial, flow });
        lock(&self.table).subscriptions.insert(id, subscription.clone());
        let (deliveries, subscription) = (Arc::downgrade(self), Arc::downgrade(&subscription));
        Arc::new(move || {
            if let (Some(deliveries), Some(subscription)) = (deliveries.upgrade(), subscription.upgrade()) {
                deliveries.enqueue(&subscription);
            }
        })
    }

    /// Removes a subscription. Where `handler_at_work`, the acknowledgement of what the handler has is kept until
    /// [`Deliveries::resume`]; otherwise it is dropped, and another member of the group gets the event.
    pub(super) fn remove(&self, id: u64, handler_at_work: bool) {
        let mut table = lock(&self.table);
        let Some(subscription) = table.subscriptions.remove(&id) else { return };
        let mut flow = lock(&subscription.flow);
        flow.state = State::Removed;
        let ack = flow.ack.take();
        drop(flow);
        if handler_at_work && let Some(ack) = ack {
            table.removed.insert(id, ack);
        }
    }

    fn get(&self, id: u64) -> Option<Arc<Subscription>> {
        lock(&self.table).subscriptions.get(&id).cloned()
    }

    fn enqueue(&self, subscription: &Arc<Subscription>) {
        {
            let mut flow = lock(&subscription.flow);
            if flow.state != State::Idle {
                return;
            }
            flow.state = State::Queued;
        }
        lock(&self.table).ready.push_back(subscription.clone());
        self.notifier.notify();
    }

    /// Takes a batch, `[[[topic, message], …], [subscription, index of first message, how many, …], more]`.
    pub(super) fn take(&self) -> Option<String> {
        let mut batch = Batch::default();
        let mut turns = std::mem::take(&mut lock(&self.table).ready);
        while !batch.is_full()
            && let Some(subscription) = turns.pop_front()
        {
            let max = {
                let mut flow = lock(&subscription.flow);
                if flow.state != State::Queued {
                    continue;
                }
                flow.state = State::Idle;
                if subscription.serial || flow.async_handler { 1 } else { MAX_PER_TURN }
            };
            let (before, more) = (batch.spans.len(), subscription.take(&mut batch, max));
            if subscription.serial && batch.spans.len() > before {
                subscription.pause();
            } else if more {
                self.enqueue(&subscription);
            }
        }
        let more = {
            let mut table = lock(&self.table);
            turns.append(&mut table.ready);
            table.ready = turns;
            !table.ready.is_empty()
        };
        batch.into_json(more)
    }

    /// Takes what is waiting for one subscription, up to the size of a batch.
    pub(super) fn take_only(&self, id: u64) -> Option<String> {
        let mut batch = Batch::default();
        self.get(id)?.take(&mut batch, usize::MAX);
        batch.into_json(false)
    }

    /// Holds a subscription's events back until [`Deliveries::resume`]: its handler has returned a promise.
    pub(super) fn pause(&self, id: u64) {
        if let Some(subscription) = self.get(id) {
            lock(&subscription.flow).async_handler = true;
            subscription.pause();
        }
    }

    /// Goes on with a subscription: its handler has been registered, or is done with what it was given. Acknowledges that.
    pub(super) fn resume(&self, id: u64, ok: bool) {
        let (subscription, removed) = {
            let mut table = lock(&self.table);
            (table.subscriptions.get(&id).cloned(), table.removed.remove(&id))
        };
        let mut ack = removed;
        if let Some(subscription) = &subscription {
            let mut flow = lock(&subscription.flow);
            ack = flow.ack.take();
            if flow.state == State::Paused {
                flow.state = State::Idle;
            }
        }
        if let Some(Ack(ack)) = ack {
            ack(ok);
        }
        if let Some(subscription) = subscription {
            self.enqueue(&subscription);
        }
    }

    /// Removes every subscription.
    pub(super) fn close(&self) {
        let table = std::mem::take(&mut *lock(&self.table));
        drop(table);
    }
}
