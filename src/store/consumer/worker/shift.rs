//! The work of a consumer while it holds its lease: reads the feed, calls the handler, stores the cursor.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::replay::Replays;
use super::{Command, End, Worker};
use crate::error::{Code, Error, Result};
use crate::name::ConsumerName;
use crate::op::{BoxFuture, Completer, OpFuture, completion};
use crate::store::consumer::live::{Live, Taken};
use crate::store::consumer::partitions::{Partitions, Pending};
use crate::store::consumer::{
    Batch, BatchOutcome, CURSOR_DELAY, ConsumerChange, ConsumerEvent, Lease, MAX_UNSAVED, ParkedEvent, is_set, refuse,
};
use crate::store::feed::{FeedFollower, FeedPage, FeedQuery, Origin, Position};
use crate::sync::lock;
use crate::topic::Glob;

/// Events that one read returns at most, and their bytes.
const PAGE_LIMIT: usize = 512;
const MAX_PAGE_BYTES: usize = 4 << 20;

/// The next page is read when fewer events than this wait for their handler.
const READ_THRESHOLD: usize = 256;

/// Events that wait at which what is appended is not taken any more, but read when there is room.
const MAX_PENDING: usize = 2_048;

/// Most events that one batch has.
const MAX_BATCH: usize = 256;

/// Most places in the window: events behind one that is retried for long are not read without bound.
const MAX_WINDOW: usize = 65_536;

/// Pause after a read or a write of the store failed.
pub(super) const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A batch that has ended.
struct Ended {
    events: Vec<Pending>,
    missed: Option<u64>,
    outcome: BatchOutcome,
}

/// A change that is being stored.
struct Saving {
    op: OpFuture<()>,
    change: ConsumerChange,
}

/// What happens next.
enum Next {
    Lost,
    Stopped,
    Batch(Result<Ended>),
    Saved(Result<()>),
    Page(Result<FeedPage>),
    Command(Command),
    /// The replay of parked events was requested.
    Replay,
    /// Something was appended.
    Live,
    /// It is time to store, or to read again.
    Due,
}

/// The work between getting a lease and losing it.
pub(super) struct Shift<'w> {
    worker: &'w mut Worker,
    lease: Lease,
    live: Arc<Live>,
    /// The version of `live` when the last read began.
    live_version: u64,
    partitions: Partitions,
    /// Batches at work, and failed events that wait for their next delivery.
    slots: FuturesUnordered<BoxFuture<Ended>>,
    stop_batches: watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
    query: FeedQuery,
    reading: Option<OpFuture<FeedPage>>,
    /// When to read again after a failure.
    read_at: Option<Instant>,
    /// The last read found nothing more, and what is appended is taken.
    at_end: bool,
    /// A page behind a gap: it is handled when everything before the gap is.
    held_page: Option<FeedPage>,
    saving: Option<Saving>,
    /// When to store what has changed.
    save_at: Option<Instant>,
    /// What is to be stored.
    change: ConsumerChange,
    /// How many events the cursor has moved over since it was stored.
    unsaved: usize,
    replays: Replays,
    /// When to look again for requested replays, after a failure.
    replay_at: Option<Instant>,
}

impl<'w> Shift<'w> {
    /// Creates the work of a worker that has got a lease, after a position.
    pub(super) fn new(worker: &'w mut Worker, lease: Lease, position: Option<Position>) -> Result<Self> {
        let globs = |texts: &[Arc<str>]| texts.iter().map(|text| Glob::new(text)).collect::<Vec<_>>();
        let filter = &worker.options.filter;
        let (subjects, types) = (globs(&filter.subjects), globs(&filter.types));
        let filter = (subjects.clone(), types.clone());
        let live = Live::new(worker.handler.clone(), worker.stats.clone(), filter, lease.lost.clone());
        let follower: Arc<dyn FeedFollower> = live.clone();
        worker.store.feed_follow(ConsumerName::new(&worker.name)?, Arc::downgrade(&follower))?;
        let (stop_batches, stopping) = watch::channel(false);
        Ok(Self {
            partitions: Partitions::new(worker.options.concurrency > 1),
            query: FeedQuery {
                after: position,
                limit: PAGE_LIMIT,
                subjects,
                types,
                max_bytes: Some(MAX_PAGE_BYTES),
                consumer: Some(worker.name.clone()),
            },
            worker,
            lease,
            live,
            live_version: 0,
            slots: FuturesUnordered::new(),
            stop_batches,
            stopping,
            reading: None,
            read_at: None,
            at_end: false,
            held_page: None,
            saving: None,
            save_at: None,
            change: ConsumerChange::default(),
            unsaved: 0,
            replays: Replays::default(),
            replay_at: None,
        })
    }

    /// Works until the lease is lost or the consumer is stopped.
    pub(super) async fn run(mut self) -> Result<End> {
        self.take_replays().await;
        let ended = self.work().await;
        self.live.close();
        ended
    }

    async fn work(&mut self) -> Result<End> {
        let mut stopped = *self.worker.stop.borrow();
        loop {
            self.follow(stopped);
            if !stopped {
                self.start_read();
                self.start_batches();
            }
            if self.saving.is_none() && self.save_at.is_some_and(|at| stopped || at <= Instant::now()) {
                self.take_live(true);
                self.start_save()?;
            }
            if stopped {
                self.stop_batches.send_replace(true);
                if self.slots.is_empty() && self.saving.is_none() && self.save_at.is_none() {
                    return Ok(End::Stopped);
                }
            }
            match self.next(stopped).await {
                Next::Lost => return self.lose().await,
                Next::Stopped => stopped = true,
                Next::Batch(ended) => self.end_batch(ended, stopped),
                Next::Saved(Ok(())) => self.saving = None,
                Next::Saved(Err(error)) => {
                    let change = self.saving.take().map(|saving| saving.change).unwrap_or_default();
                    match error.code() {
                        Code::Conflict => return self.lose().await,
                        Code::Closed => return Err(error),
                        _ if stopped => return Err(error),
                        _ => {}
                    }
                    self.warn("its cursor could not be stored", &error);
                    self.unsave(change);
                }
                Next::Page(page) => {
                    self.reading = None;
                    match page {
                        Ok(page) => self.take_page(page),
                        Err(error) if error.code() == Code::Closed => return Err(error),
                        Err(error) => {
                            self.warn("the feed could not be read", &error);
                            self.read_at = Some(Instant::now() + STORE_RETRY_DELAY);
                        }
                    }
                }
                Next::Command(command) => self.command(command).await,
                Next::Replay => self.take_replays().await,
                Next::Live => {}
                Next::Due => {
                    if self.read_at.is_some_and(|at| at <= Instant::now()) {
                        self.read_at = None;
                    }
                    if self.replay_at.is_some_and(|at| at <= Instant::now()) {
                        self.take_replays().await;
                    }
                }
            }
        }
    }

    /// Waits for what happens next.
    async fn next(&mut self, stopped: bool) -> Next {
        let due =
            [self.save_at.filter(|_| self.saving.is_none()), self.read_at, self.replay_at].into_iter().flatten().min();
        tokio::select! {
            biased;
            () = is_set(&mut self.lease.lost) => Next::Lost,
            () = is_set(&mut self.worker.stop), if !stopped => Next::Stopped,
            Some(ended) = self.slots.next() => Next::Batch(ended),
            saved = poll(self.saving.as_mut().map(|saving| &mut saving.op)) => Next::Saved(saved),
            page = poll(self.reading.as_mut()) => Next::Page(page),
            Some(command) = self.worker.commands.recv() => Next::Command(command),
            Ok(()) = self.lease.replays.changed(), if !stopped => Next::Replay,
            () = self.live.changed() => Next::Live,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Next::Due,
        }
    }

    fn warn(&self, what: &str, error: &Error) {
        tracing::warn!(code = "NVENT_CONSUMER", consumer = %self.worker.name, "{what}, trying again: {error}");
    }

    /// Ends the work after the lease was lost: handlers at work end, nothing further begins.
    async fn lose(&mut self) -> Result<End> {
        self.live.close();
        self.stop_batches.send_replace(true);
        while self.slots.next().await.is_some() {}
        Ok(if *self.worker.stop.borrow() { End::Stopped } else { End::Lost })
    }

    fn start_read(&mut self) {
        // A gap that is not stored as reported would be counted again.
        let gap_unsaved = self.held_page.is_some()
            || self.change.missed_reported > 0
            || self.saving.as_ref().is_some_and(|saving| saving.change.missed_reported > 0);
        let room = self.partitions.pending() < READ_THRESHOLD && self.partitions.window() < MAX_WINDOW;
        if self.reading.is_none() && self.read_at.is_none() && !self.at_end && room && !gap_unsaved {
            self.live_version = self.live.version();
            self.reading = Some(self.worker.store.feed_read(self.query.clone()).into_future());
        }
    }

    /// Takes over what was appended since, and lets the handler be called in appends where nothing is under way.
    fn follow(&mut self, stopped: bool) {
        let has_room = self.partitions.pending() < MAX_PENDING && self.partitions.window() < MAX_WINDOW;
        if stopped || !has_room {
            self.live.close();
        }
        // Once it is closed, nothing more can come before the next read.
        let is_open = self.live.is_open();
        self.take_live(!is_open);
        self.at_end &= is_open;
        let is_idle = self.slots.is_empty()
            && self.reading.is_none()
            && self.held_page.is_none()
            && self.partitions.window() == 0
            && self.partitions.pending() == 0
            && self.replays.is_empty();
        self.live.set_busy(!is_idle);
        match self.live.passed() {
            0 => {}
            passed if self.unsaved + passed >= MAX_UNSAVED => self.save_at = Some(Instant::now()),
            _ => self.save_soon(),
        }
    }

    /// Takes over the events that wait, with everything that was handled before them. With `all`, also if none waits.
    fn take_live(&mut self, all: bool) {
        let Some(Taken { reached, passed, page, begun }) = self.live.take(all) else { return };
        if let Some(position) = reached {
            self.query.after = Some(position.clone());
            self.reach(position, passed);
        }
        let Some(end) = page.end.clone() else { return };
        self.query.after = Some(end);
        // An event that is delivered again may have come between: then both are handled by the worker.
        let begun = begun.filter(|_| self.partitions.is_empty());
        self.partitions.push_page(page);
        if let Some(begun) = begun {
            let events = self.partitions.take(1, 1);
            self.slots.push(Box::pin(async move {
                let outcome = outcome(begun).await;
                Ok(Ended { events, missed: None, outcome })
            }));
        }
        self.advance();
    }

    fn take_page(&mut self, page: FeedPage) {
        let bytes = page.records.iter().map(|record| record.event.len()).sum();
        let is_last = !self.query.is_full(page.records.len(), bytes);
        if let Some(end) = &page.end {
            self.query.after = Some(end.clone());
        }
        if page.missed > 0 {
            self.held_page = Some(page);
        } else {
            self.partitions.push_page(page);
        }
        // What is appended must not overtake a page that is held.
        if is_last && self.held_page.is_none() {
            let number = self.query.after.as_ref().map_or(Ok(0), |position| self.worker.store.feed_number(position));
            self.at_end = number.is_ok_and(|number| self.live.open(number, self.live_version));
        }
        self.advance();
    }

    fn start_batches(&mut self) {
        if self.slots.is_empty()
            && self.partitions.pending() == 0
            && let Some(mut page) = self.held_page.take()
        {
            let missed = std::mem::take(&mut page.missed);
            self.partitions.push_page(page);
            let events = self.partitions.take(1, MAX_BATCH);
            self.start_batch(events, Some(missed), None);
        }
        let free = self.worker.options.concurrency.max(1).saturating_sub(self.slots.len());
        for slot in 0..free {
            // Ready partitions are shared out among the free slots.
            let share = self.partitions.ready().div_ceil(free - slot);
            if share == 0 {
                return;
            }
            let events = self.partitions.take(share, MAX_BATCH);
            self.start_batch(events, None, None);
        }
    }

    fn start_batch(&mut self, events: Vec<Pending>, missed: Option<u64>, delay: Option<Duration>) {
        let (handler, mut stopping) = (self.worker.handler.clone(), self.stopping.clone());
        self.slots.push(Box::pin(async move {
            if let Some(delay) = delay {
                tokio::select! {
                    () = sleep(delay) => {}
                    () = is_set(&mut stopping) => {}
                }
            }
            if *stopping.borrow() {
                return Ok(Ended { events, missed: None, outcome: BatchOutcome::default() });
            }
            let batch: Vec<ConsumerEvent> = events.iter().map(|pending| pending.event.clone()).collect();
            let batch = Batch { missed, events: batch, stopping };
            let outcome = outcome(async move { handler.handle(batch).await }).await;
            Ok(Ended { events, missed, outcome })
        }));
    }

    fn end_batch(&mut self, ended: Result<Ended>, stopped: bool) {
        let Ok(Ended { events, missed, outcome }) = ended else { return };
        if let Some(missed) = missed {
            self.change.missed_reported += missed;
            // At once: reading goes on when it is stored.
            self.save_at = Some(Instant::now());
        }
        let mut partitions: HashSet<Arc<str>> = events.iter().map(|p| self.partitions.key(&p.event.subject)).collect();
        let mut events = events.into_iter();
        let mut handled = 0;
        for pending in events.by_ref().take(outcome.handled) {
            handled += 1;
            self.settle(&pending);
        }
        lock(&self.worker.stats).delivered += handled;
        let mut rest: Vec<Pending> = events.collect();
        let mut failure = outcome.failure;
        if failure.is_none() && handled == 0 && !rest.is_empty() && !*self.stopping.borrow() {
            failure = Some("the handler ended without handling an event".to_owned());
        }
        if let Some(reason) = failure.filter(|_| !rest.is_empty()) {
            lock(&self.worker.stats).failed += 1;
            let failed = rest.remove(0);
            let attempt = failed.event.attempt;
            if attempt >= self.worker.options.attempts.max(1) {
                self.park(failed, reason);
            } else if !stopped {
                // The event keeps its slot and its partition until its next delivery, with what was behind it.
                let key = self.partitions.key(&failed.event.subject);
                partitions.remove(&key);
                let mut again = vec![failed];
                again[0].event.attempt += 1;
                let (same, others) = rest.into_iter().partition(|p| self.partitions.key(&p.event.subject) == key);
                again.extend::<Vec<Pending>>(same);
                rest = others;
                let delay = self.worker.options.retry_delay.after(attempt);
                self.start_batch(again, None, Some(delay));
            }
        }
        self.partitions.put_back(rest);
        partitions.iter().for_each(|key| self.partitions.release(key));
        self.advance();
    }

    /// Records that an event was handled.
    fn settle(&mut self, pending: &Pending) {
        match pending.ticket {
            Some(ticket) => self.partitions.done(ticket),
            None => {
                self.change.unpark.push(pending.event.position.clone());
                let mut stats = lock(&self.worker.stats);
                stats.parked = stats.parked.saturating_sub(1);
                drop(stats);
                self.replays.end(&pending.event.position);
                self.save_soon();
            }
        }
    }

    fn park(&mut self, pending: Pending, reason: String) {
        let Pending { event, ticket, attempts_before } = pending;
        tracing::warn!(
            code = "NVENT_CONSUMER_PARKED",
            consumer = %self.worker.name,
            "an event of {:?} at {} is parked after {} deliveries: {reason}", event.subject, event.position, event.attempt
        );
        match ticket {
            Some(ticket) => {
                self.partitions.done(ticket);
                lock(&self.worker.stats).parked += 1;
            }
            None => self.replays.end(&event.position),
        }
        self.change.park.push(ParkedEvent {
            position: event.position,
            subject: event.subject,
            event: event.event,
            attempts: attempts_before.saturating_add(event.attempt),
            reason,
            parked_at_ms: self.worker.clock.now_ms(),
        });
        self.save_soon();
    }

    /// Moves the cursor over what is done.
    fn advance(&mut self) {
        let before = self.partitions.window();
        if let Some(position) = self.partitions.advance() {
            lock(&self.worker.stats).position = Some(position.clone());
            self.reach(position, before - self.partitions.window());
        }
    }

    /// Notes that everything up to a position is done, which are so many events more.
    fn reach(&mut self, position: Position, events: usize) {
        self.unsaved += events;
        self.change.position = Some(position);
        self.save_soon();
        if self.unsaved >= MAX_UNSAVED {
            self.save_at = Some(Instant::now());
        }
    }

    fn save_soon(&mut self) {
        self.save_at.get_or_insert_with(|| Instant::now() + CURSOR_DELAY);
    }

    /// Begins to store the change.
    fn start_save(&mut self) -> Result<()> {
        self.save_at = None;
        self.unsaved = 0;
        let change = std::mem::take(&mut self.change);
        if !change.is_empty() {
            let name = ConsumerName::new(&self.worker.name)?;
            let op = self.worker.store.consumer_save(name, &self.lease, change.clone()).into_future();
            self.saving = Some(Saving { op, change });
        }
        Ok(())
    }

    /// Waits until the change is stored.
    async fn finish_save(&mut self) -> Result<()> {
        if let Some(Saving { op, change }) = self.saving.take()
            && let Err(error) = op.await
        {
            self.unsave(change);
            return Err(error);
        }
        Ok(())
    }

    /// Takes back a change that was not stored.
    fn unsave(&mut self, earlier: ConsumerChange) {
        let later = std::mem::replace(&mut self.change, earlier);
        self.change.position = later.position.or(self.change.position.take());
        self.change.missed_reported += later.missed_reported;
        // None of them is in both: a replay begins when every earlier change is stored.
        self.change.park.extend(later.park);
        self.change.unpark.extend(later.unpark);
        self.save_at = Some(Instant::now() + STORE_RETRY_DELAY);
    }

    /// Carries out a command.
    async fn command(&mut self, command: Command) {
        let Command::Replay { positions, reply } = command;
        match self.parked(positions).await {
            Ok(events) => self.replay(events, reply),
            Err(error) => refuse(reply, error),
        }
    }

    /// Delivers again what was requested through the store.
    async fn take_replays(&mut self) {
        self.replay_at = None;
        let requested = async {
            let name = self.worker.name.clone();
            // What has ended meanwhile is no longer requested when it is stored.
            self.save_all().await?;
            let positions = self.worker.store.consumer_replays(ConsumerName::new(&name)?).await?;
            if positions.is_empty() { Ok(Vec::new()) } else { self.parked(Some(positions)).await }
        };
        match requested.await {
            // No caller waits: the requests are in the store until their events are handled or parked again.
            Ok(events) => self.replay(events, completion(|| Error::closed("the consumer")).0),
            Err(error) => {
                self.warn("requested replays could not be read", &error);
                self.replay_at = Some(Instant::now() + STORE_RETRY_DELAY);
            }
        }
    }

    /// Stores what has changed, and waits for it.
    async fn save_all(&mut self) -> Result<()> {
        self.finish_save().await?;
        self.start_save()?;
        self.finish_save().await
    }

    /// Returns parked events, these or all.
    async fn parked(&mut self, positions: Option<Vec<Position>>) -> Result<Vec<ParkedEvent>> {
        // What was parked last may not be stored yet.
        self.save_all().await?;
        let wanted: Option<HashSet<Position>> = positions.map(|positions| positions.into_iter().collect());
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let name = ConsumerName::new(&self.worker.name)?;
            let page = self.worker.store.consumer_parked(name, after, PAGE_LIMIT).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.position.clone());
            found.extend(
                page.into_iter().filter(|event| wanted.as_ref().is_none_or(|wanted| wanted.contains(&event.position))),
            );
        }
    }

    fn replay(&mut self, events: Vec<ParkedEvent>, reply: Completer<u64>) {
        let fresh: Vec<ParkedEvent> =
            events.into_iter().filter(|event| !self.replays.under_way.contains_key(&event.position)).collect();
        self.replays.begin(fresh.iter().map(|event| event.position.clone()), reply);
        for parked in fresh {
            let ParkedEvent { position, subject, event, attempts, .. } = parked;
            let event = ConsumerEvent { subject, position, event, origin: Origin::Unknown, attempt: 1 };
            self.partitions.push(Pending { event, ticket: None, attempts_before: attempts });
        }
    }
}

/// Returns what became of a batch whose handler may fail or panic.
async fn outcome(handled: impl Future<Output = Result<BatchOutcome>>) -> BatchOutcome {
    let failed = |reason: String| BatchOutcome { handled: 0, failure: Some(reason) };
    match AssertUnwindSafe(handled).catch_unwind().await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed("the handler panicked".to_owned()),
    }
}

/// Polls an operation, if there is one.
async fn poll<T: Send + 'static>(op: Option<&mut OpFuture<T>>) -> Result<T> {
    match op {
        Some(op) => op.await,
        None => std::future::pending().await,
    }
}
