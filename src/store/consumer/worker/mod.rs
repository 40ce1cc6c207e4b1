//! The task of a consumer: waits for its lease and works while it holds it, until it is stopped.

mod replay;
mod shift;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::{
    ConsumerChange, ConsumerHandler, ConsumerOptions, ConsumerStats, Lease, StartAt, is_set, refuse, stands_by,
};
use crate::error::{Code, Result};
use crate::name::ConsumerName;
use crate::op::Completer;
use crate::store::StoreBackend;
use crate::store::feed::Position;
use crate::sync::lock;
use crate::time::SharedClock;
use shift::{STORE_RETRY_DELAY, Shift};

/// How often a consumer that waits for its lease looks whether its name was created meanwhile.
const CREATION_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A command to the worker.
pub(super) enum Command {
    /// Delivers parked events again.
    Replay { positions: Option<Vec<Position>>, reply: Completer<u64> },
}

/// Why the worker does not hold its lease any more.
enum End {
    Stopped,
    Lost,
}

pub(super) struct Worker {
    /// That it has been started with.
    pub(super) lease: Option<Lease>,
    pub(super) store: Arc<dyn StoreBackend>,
    pub(super) name: Arc<str>,
    pub(super) options: ConsumerOptions,
    pub(super) handler: Arc<dyn ConsumerHandler>,
    pub(super) clock: SharedClock,
    /// The newest position when the consumer was started.
    pub(super) head: Option<Position>,
    pub(super) stats: Arc<Mutex<ConsumerStats>>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Worker {
    /// Works until the consumer is stopped or its store is closed. `ready` completes when the cursor is stored.
    pub(super) async fn run(mut self, ready: Completer<()>) {
        let mut ready = Some(ready);
        let error = loop {
            let ended = match self.acquire(&mut ready).await {
                Ok(Some(lease)) => self.hold(lease, &mut ready).await,
                Ok(None) => break None,
                Err(error) => Err(error),
            };
            lock(&self.stats).active = false;
            match ended {
                Ok(End::Stopped) => break None,
                Ok(End::Lost) => {}
                Err(error) if error.code() == Code::Closed || ready.is_some() => break Some(error),
                Err(error) => {
                    tracing::warn!(code = "NVENT_CONSUMER", consumer = %self.name, "the consumer tries again: {error}");
                    if self.pause(STORE_RETRY_DELAY).await {
                        break None;
                    }
                }
            }
        };
        if let (Some(error), Some(ready)) = (error, ready.take()) {
            ready.complete(Err(error));
        }
    }

    /// Sleeps. Returns true at once when the consumer is stopped.
    async fn pause(&mut self, delay: Duration) -> bool {
        tokio::select! {
            () = sleep(delay) => false,
            () = is_set(&mut self.stop) => true,
        }
    }

    /// Waits for the lease. Returns None if the consumer was stopped. While another holder is at work, the consumer is
    /// ready as soon as the name exists.
    async fn acquire(&mut self, ready: &mut Option<Completer<()>>) -> Result<Option<Lease>> {
        if let Some(lease) = self.lease.take() {
            return Ok(Some(lease));
        }
        let name = self.name.clone();
        let name = ConsumerName::new(&name)?;
        let mut acquiring = self.store.consumer_acquire(name).into_future();
        loop {
            tokio::select! {
                biased;
                () = is_set(&mut self.stop) => return Ok(None),
                lease = &mut acquiring => return lease.map(Some),
                command = self.commands.recv() => if let Some(Command::Replay { reply, .. }) = command {
                    refuse(reply, stands_by(&self.name));
                },
                () = sleep(CREATION_POLL_INTERVAL), if ready.is_some() => {
                    if let Some(state) = self.store.consumer_load(name).await?
                        && let Some(ready) = ready.take()
                    {
                        let mut stats = lock(&self.stats);
                        (stats.position, stats.parked) = (state.position, state.parked);
                        drop(stats);
                        ready.complete(Ok(()));
                    }
                }
            }
        }
    }

    fn is_later(&self, position: &Position, than: Option<&Position>) -> Result<bool> {
        let number = |position: &Position| self.store.feed_number(position);
        Ok(number(position)? > than.map_or(Ok(0), number)?)
    }

    /// Works while it holds the lease.
    async fn hold(&mut self, lease: Lease, ready: &mut Option<Completer<()>>) -> Result<End> {
        let name = self.name.clone();
        let name = ConsumerName::new(&name)?;
        let filter = Some(self.options.filter.clone());
        let known = self.store.consumer_load(name).await?;
        let not_before = self.options.not_before.take();
        let (position, parked, change) = match known {
            Some(state) => match not_before {
                Some(position) if self.is_later(&position, state.position.as_ref())? => {
                    let change = ConsumerChange { position: Some(position.clone()), filter, ..Default::default() };
                    (Some(position), state.parked, change)
                }
                _ => (state.position, state.parked, ConsumerChange { filter, ..Default::default() }),
            },
            None => {
                let position = match &self.options.from {
                    _ if not_before.is_some() => not_before,
                    StartAt::Beginning => None,
                    StartAt::Now => self.head.clone(),
                    StartAt::Position(position) => {
                        self.store.feed_number(position)?;
                        Some(position.clone())
                    }
                };
                (position.clone(), 0, ConsumerChange { position, filter, ..Default::default() })
            }
        };
        self.store.consumer_save(name, &lease, change).await?;
        {
            let mut stats = lock(&self.stats);
            (stats.position, stats.parked, stats.active) = (position.clone(), parked, true);
        }
        if let Some(ready) = ready.take() {
            ready.complete(Ok(()));
        }
        Shift::new(self, lease, position)?.run().await
    }
}
