//! The bridge between the native threads and one JavaScript environment.
//!
//! Native threads only put things into the bridge and ring a bell: one weak threadsafe function per environment, rung
//! once however much is waiting. JavaScript then takes what is there, in batches of JSON text:
//!
//! - settled operations: `[ticket, ok, value or error, …]`
//! - deliveries to subscribers: `[[[topic, message], …], [subscription, index of first message, how many, …], more]`
//! - calls of JavaScript objects (a user's own stream, say): `[[id, target, method, [arguments]], …]`
//!
//! The bell never keeps the process alive. JavaScript does while operations are under way, so that an awaited one ends.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::fanout::{Delivery, Gap, Mailbox, OnReady};
use crate::json::{Json, push_string};
use crate::node::reply::error_json;
use crate::queue::{JobDelivery, Queue, QueueEvent};
use crate::store::Stored;
use crate::stream::{Ack, Incoming, Message};
use crate::time::{Clock, SystemClock};
use crate::wake::{self, DeferredWakes, Wake};

type Bell = ThreadsafeFunction<(), (), (), napi::Status, false, true, 1>;

/// At most so many messages, or bytes of them, go to JavaScript in one batch: handlers run between turns of the event
/// loop, and a turn should stay short.
const BATCH_MESSAGES: usize = 512;
const BATCH_BYTES: usize = 512 * 1024;

/// At most so many for one subscriber, so that all get their turn.
const BURST: usize = 64;

/// Where the events of a subscription come from.
pub(super) enum Source {
    /// A stream: messages with topics.
    Stream(Arc<Mailbox<Incoming>>),
    /// A store's subscription: records.
    Store(Arc<Mailbox<Stored>>),
    /// A bus.
    Bus(Arc<Mailbox<Json>>),
    /// Events of a queue.
    QueueEvents(Arc<Mailbox<QueueEvent>>),
    /// Jobs for a worker.
    Jobs(Arc<Mailbox<JobDelivery>>, Weak<Queue>),
}

/// A subscription whose handler is a JavaScript function.
struct Subscription {
    id: u64,
    topic: Arc<str>,
    source: Source,
    /// It shares its mailbox with others, or acknowledges: one event at a time.
    single: bool,
    /// In the list of those that have something.
    queued: AtomicBool,
    /// Its handler is not there yet, or still busy with what it was given.
    held: AtomicBool,
    /// Its handler has been seen to take its time: one event at a time from then on, so that the rest waits in the
    /// bounded mailbox.
    slow: AtomicBool,
    /// Forgotten: nothing is delivered to it any more.
    gone: AtomicBool,
    ack: Mutex<Option<Ack>>,
}

/// A call of a method of a JavaScript object.
struct Call {
    id: u32,
    target: u32,
    method: &'static str,
    args: String,
}

#[derive(Default)]
struct Inbox {
    settled: Vec<(u32, Result<Option<String>>)>,
    calls: Vec<Call>,
    answers: HashMap<u32, oneshot::Sender<Result<String>>>,
    ready: VecDeque<Arc<Subscription>>,
    subscriptions: HashMap<u64, Arc<Subscription>>,
}

/// The native side of the bridge, shared with whatever reports to it.
pub(super) struct Shared {
    bell: Bell,
    rung: AtomicBool,
    closed: AtomicBool,
    next: AtomicU32,
    inbox: Mutex<Inbox>,
    wakes: Mutex<DeferredWakes>,
}

impl Wake for Shared {
    fn wake(&self) {
        // Closing or full mean that nobody is left to hear, or that somebody is about to.
        _ = self.bell.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket for an operation that is settled later. Unique among those under way.
    pub(super) fn next_ticket(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells JavaScript that there is something to take. Cheap when it has been told already.
    fn ring(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) && !wake::defer(self) {
            self.wake();
        }
    }

    /// Keeps whom a call was to wake until JavaScript has no more calls in this turn, and says so with `flush`.
    pub(super) fn keep_wakes(&self, wakes: DeferredWakes) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).append(wakes);
    }

    fn flush(&self) {
        let wakes = std::mem::take(&mut *self.wakes.lock().unwrap_or_else(PoisonError::into_inner));
        drop(wakes);
    }

    /// Settles an operation.
    pub(super) fn settle(self: &Arc<Self>, ticket: u32, result: Result<Option<String>>) {
        self.lock().settled.push((ticket, result));
        self.ring();
    }

    /// Calls a method of a JavaScript object; resolves with the JSON of what it returns. `args` is a JSON array.
    pub(super) fn call(
        self: &Arc<Self>,
        target: u32,
        method: &'static str,
        args: String,
    ) -> impl Future<Output = Result<String>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let id = self.next_ticket();
        if !self.closed.load(Ordering::Acquire) {
            let mut inbox = self.lock();
            inbox.answers.insert(id, sender);
            inbox.calls.push(Call { id, target, method, args });
            drop(inbox);
            self.ring();
        }
        async move {
            receiver.await.unwrap_or_else(|_| Err(Error::closed("the JavaScript environment that the call was for")))
        }
    }

    /// Registers a subscription whose mailbox JavaScript drains; returns its wake-up.
    pub(super) fn subscribe(self: &Arc<Self>, id: u64, topic: Arc<str>, source: Source, single: bool) -> OnReady {
        let subscription = Arc::new(Subscription {
            id,
            topic,
            source,
            single,
            queued: AtomicBool::new(false),
            // Until JavaScript has a handler for it and says so with `release`.
            held: AtomicBool::new(true),
            slow: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            ack: Mutex::default(),
        });
        self.lock().subscriptions.insert(id, subscription.clone());
        let bridge = Arc::downgrade(self);
        let subscription = Arc::downgrade(&subscription);
        Arc::new(move || {
            if let (Some(bridge), Some(subscription)) = (bridge.upgrade(), subscription.upgrade()) {
                bridge.enqueue(subscription);
            }
        })
    }

    /// Forgets a subscription. Nothing is delivered to it any more.
    pub(super) fn unsubscribe(&self, id: u64) {
        if let Some(subscription) = self.lock().subscriptions.remove(&id) {
            subscription.gone.store(true, Ordering::Release);
        }
    }

    fn enqueue(self: &Arc<Self>, subscription: Arc<Subscription>) {
        if !subscription.queued.swap(true, Ordering::AcqRel) {
            self.lock().ready.push_back(subscription);
            self.ring();
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.flush();
        let mut inbox = self.lock();
        *inbox = Inbox::default();
    }
}

/// Messages that stand one after the other in a batch and go to one subscriber.
struct Sequence {
    subscription: u64,
    first: usize,
    count: usize,
}

/// One batch of deliveries under construction.
#[derive(Default)]
struct Batch {
    messages: String,
    sequences: Vec<Sequence>,
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
        let index = self.index(topic, json);
        match self.sequences.last_mut() {
            Some(last) if last.subscription == subscription && last.first + last.count == index => last.count += 1,
            _ => self.sequences.push(Sequence { subscription, first: index, count: 1 }),
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
        if self.sequences.is_empty() {
            return None;
        }
        let mut json = format!("[[{}],[", self.messages);
        for (n, Sequence { subscription, first, count }) in self.sequences.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            // Writing to a String does not fail.
            _ = write!(json, "{comma}{subscription},{first},{count}");
        }
        json.push_str(if more { "],true]" } else { "],false]" });
        Some(json)
    }
}

impl Subscription {
    /// Takes its turn; whether more is waiting.
    fn take(&self, batch: &mut Batch) -> bool {
        let max = if self.single || self.slow.load(Ordering::Relaxed) { 1 } else { BURST };
        let gap = |batch: &mut Batch, gap: Gap| {
            let message = Message::gap(&self.topic, gap, SystemClock.now_ms());
            batch.push(self.id, &self.topic, message.json());
        };
        match &self.source {
            Source::Stream(mailbox) => take_from(mailbox, max, |delivery| match delivery {
                Delivery::Gap(it) => gap(batch, it),
                Delivery::Item(incoming) => {
                    batch.push(self.id, incoming.message.topic(), incoming.message.json());
                    if incoming.ack.is_some() {
                        *self.ack.lock().unwrap_or_else(PoisonError::into_inner) = incoming.ack;
                    }
                }
            }),
            Source::Store(mailbox) => take_from(mailbox, max, |delivery| match delivery {
                Delivery::Gap(it) => gap(batch, it),
                Delivery::Item(stored) => batch.push(self.id, &stored.subject, stored.event.json()),
            }),
            Source::Bus(mailbox) => take_from(mailbox, max, |delivery| match delivery {
                Delivery::Gap(it) => gap(batch, it),
                Delivery::Item(json) => batch.push(self.id, "", &json),
            }),
            Source::QueueEvents(mailbox) => take_from(mailbox, max, |delivery| {
                // What a listener missed is in the queue's counts; there is no place for a gap among these events.
                if let Delivery::Item(event) = delivery {
                    batch.push(self.id, &event.queue, &event.payload);
                }
            }),
            Source::Jobs(mailbox, queue) => take_from(mailbox, max, |delivery| {
                // Begun as it is handed over: its handler is called in this turn of the event loop.
                if let Delivery::Item(job) = delivery
                    && queue.upgrade().is_some_and(|queue| queue.start_attempt(&job))
                {
                    let json: Json = format!("{{\"token\":{},\"job\":{}}}", job.token, job.job).into();
                    batch.push(self.id, &job.queue, &json);
                }
            }),
        }
    }
}

fn take_from<T>(mailbox: &Mailbox<T>, max: usize, mut each: impl FnMut(Delivery<T>)) -> bool {
    let mut out = Vec::new();
    let more = mailbox.take(max, &mut out);
    out.into_iter().for_each(&mut each);
    more
}

/// One per JavaScript environment.
#[napi]
pub struct Bridge {
    pub(super) shared: Arc<Shared>,
}

#[napi]
impl Bridge {
    /// `on_wake` is called without arguments, on the JavaScript thread, when there is something to take.
    #[napi(constructor)]
    pub fn new(on_wake: Function<'_, (), ()>) -> napi::Result<Self> {
        let bell = on_wake
            .build_threadsafe_function::<()>()
            .callee_handled::<false>()
            .weak::<true>()
            .max_queue_size::<1>()
            .build()?;
        Ok(Self {
            shared: Arc::new(Shared {
                bell,
                rung: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                next: AtomicU32::new(1),
                inbox: Mutex::default(),
                wakes: Mutex::default(),
            }),
        })
    }

    /// To be called when JavaScript has made its calls of this turn: threads that carry them out are woken.
    #[napi]
    pub fn flush(&self) {
        self.shared.flush();
    }

    /// To be called first on waking: what arrives from now on rings again.
    #[napi]
    pub fn awake(&self) {
        self.shared.rung.store(false, Ordering::Release);
    }

    /// Operations that have ended: `[ticket, ok, value or error, …]`, or null.
    #[napi]
    pub fn take_settled(&self) -> Option<String> {
        let settled = std::mem::take(&mut self.shared.lock().settled);
        if settled.is_empty() {
            return None;
        }
        let mut json = String::from("[");
        for (index, (ticket, result)) in settled.into_iter().enumerate() {
            json.push_str(if index == 0 { "" } else { "," });
            match result {
                Ok(value) => json.push_str(&format!("{ticket},1,{}", value.as_deref().unwrap_or("null"))),
                Err(error) => json.push_str(&format!("{ticket},0,{}", error_json(&error))),
            }
        }
        json.push(']');
        Some(json)
    }

    /// A batch of deliveries, `[[[topic, message], …], [subscription, index of first, how many, …], more]`, or null. With a subscription's
    /// id only what waits for that one, all of it.
    #[napi]
    pub fn take_deliveries(&self, only: Option<f64>) -> Option<String> {
        let mut batch = Batch::default();
        if let Some(id) = only {
            let subscription = self.shared.lock().subscriptions.get(&(id as u64)).cloned()?;
            while subscription.take(&mut batch) {}
            return batch.into_json(false);
        }
        let mut turns = std::mem::take(&mut self.shared.lock().ready);
        while !batch.is_full()
            && let Some(subscription) = turns.pop_front()
        {
            subscription.queued.store(false, Ordering::Release);
            if subscription.gone.load(Ordering::Acquire) || subscription.held.load(Ordering::Acquire) {
                continue;
            }
            let (before, more) = (batch.sequences.len(), subscription.take(&mut batch));
            if subscription.single && batch.sequences.len() > before {
                // It is asked again when its handler is done.
                subscription.held.store(true, Ordering::Release);
            } else if more {
                self.shared.enqueue(subscription);
            }
        }
        let more = {
            let mut inbox = self.shared.lock();
            turns.append(&mut inbox.ready);
            inbox.ready = turns;
            !inbox.ready.is_empty()
        };
        batch.into_json(more)
    }

    /// A handler has returned a promise: its subscription gets nothing until `release`.
    #[napi]
    pub fn hold(&self, subscription: f64) {
        if let Some(subscription) = self.shared.lock().subscriptions.get(&(subscription as u64)) {
            subscription.slow.store(true, Ordering::Relaxed);
            subscription.held.store(true, Ordering::Release);
        }
    }

    /// A handler is there, or is done with what it was given, successfully or not.
    #[napi]
    pub fn release(&self, subscription: f64, ok: bool) {
        let Some(subscription) = self.shared.lock().subscriptions.get(&(subscription as u64)).cloned() else { return };
        let ack = subscription.ack.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Ack(ack)) = ack {
            ack(ok);
        }
        subscription.held.store(false, Ordering::Release);
        self.shared.enqueue(subscription);
    }

    /// A subscription has no handler any more: nothing is kept for it.
    #[napi]
    pub fn forget(&self, subscription: f64) {
        self.shared.unsubscribe(subscription as u64);
    }

    /// Calls of JavaScript objects, `[[id, target, method, [arguments]], …]`, or null.
    #[napi]
    pub fn take_calls(&self) -> Option<String> {
        let calls = std::mem::take(&mut self.shared.lock().calls);
        if calls.is_empty() {
            return None;
        }
        let rows: Vec<_> = calls
            .into_iter()
            .map(|call| format!("[{},{},\"{}\",{}]", call.id, call.target, call.method, call.args))
            .collect();
        Some(format!("[{}]", rows.join(",")))
    }

    /// How a call of a JavaScript object ended: with the JSON of its value, or with a message.
    #[napi]
    pub fn answer(&self, call: u32, ok: bool, text: String) {
        let sender = self.shared.lock().answers.remove(&call);
        if let Some(sender) = sender {
            // Whoever asked may have stopped waiting.
            _ = sender.send(if ok { Ok(text) } else { Err(Error::unavailable(text)) });
        }
    }
}

impl Drop for Bridge {
    /// The environment ends: nothing can be delivered any more, and whoever waits for an answer gets an error.
    fn drop(&mut self) {
        self.shared.close();
    }
}
