//! Durable consumers and the feed, as JavaScript calls them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use napi_derive::napi;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::json::{self, push_string, to_json};
use crate::name::ConsumerName;
use crate::node::bridge::{Bridge, Reply, Returns, Shared, guard, reply};
use crate::node::runtime;
use crate::node::store::{NativeStore, array_json, nothing};
use crate::op::{BoxFuture, Op};
use crate::store::consumer::{Batch, BatchOutcome, Consumer, ConsumerHandler, ConsumerOptions, list};
use crate::store::{FeedQuery, FeedRecord, Position, StoreBackend};
use crate::time::system_clock;
use crate::topic::Glob;

/// Bytes of one page of the feed. A reader goes on after the last position of the page.
const PAGE_BYTES: usize = 32 * 1024 * 1024;

/// Pause before events are offered again whose handler could not be called.
const UNREACHABLE_DELAY: Duration = Duration::from_secs(1);

/// A JavaScript object with `handle(batch, missed, events)` and `stop(batch)`.
struct JsHandler {
    bridge: Arc<Shared>,
    target: u32,
    next_batch: AtomicU32,
}

/// What `handle` resolves with.
#[derive(Deserialize)]
struct Outcome {
    handled: usize,
    failure: Option<String>,
}

impl ConsumerHandler for JsHandler {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        let Batch { missed, events, mut stopping } = batch;
        let id = self.next_batch.fetch_add(1, Ordering::Relaxed);
        let rows = array_json(&events, |out, event| {
            out.push('[');
            push_string(out, &event.subject);
            out.push(',');
            push_string(out, event.position.as_str());
            out.push_str(&format!(",{},{}]", event.attempt, event.event));
        });
        let missed = missed.map_or_else(|| "null".into(), |count| count.to_string());
        let outcome = self.bridge.call(self.target, "handle", format!("[{id},{missed},{rows}]"), Returns::Value);
        let (bridge, target) = (self.bridge.clone(), self.target);
        Box::pin(async move {
            tokio::pin!(outcome);
            let outcome = tokio::select! {
                biased;
                outcome = &mut outcome => outcome,
                () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => {
                    let stop = bridge.call(target, "stop", format!("[{id}]"), Returns::Nothing);
                    let (outcome, _) = tokio::join!(outcome, stop);
                    outcome
                }
            };
            match outcome {
                Ok(text) => {
                    let Outcome { handled, failure } =
                        serde_json::from_str(&text).map_err(|e| Error::internal(format!("a batch's outcome: {e}")))?;
                    Ok(BatchOutcome { handled, failure })
                }
                // The environment ends: that is no failure of an event.
                Err(error) if error.code() == Code::Closed => {
                    tokio::time::sleep(UNREACHABLE_DELAY).await;
                    Ok(BatchOutcome::default())
                }
                Err(error) => Err(error),
            }
        })
    }
}

/// A durable consumer whose handler is a JavaScript object.
#[napi]
pub struct NativeConsumer {
    bridge: Arc<Shared>,
    store: Arc<dyn StoreBackend>,
    name: String,
    options: ConsumerOptions,
    handler: Arc<JsHandler>,
    consumer: Arc<OnceLock<Consumer>>,
}

/// `ConsumerStats` of lib/types.ts.
#[derive(Serialize)]
struct StatsRow<'a> {
    position: Option<&'a str>,
    lag: u64,
    delivered: u64,
    failed: u64,
    parked: u64,
    active: bool,
}

/// An entry of `consumers()`.
#[derive(Serialize)]
struct ListRow<'a> {
    name: &'a str,
    position: Option<&'a str>,
    lag: u64,
    parked: u64,
}

#[napi]
impl NativeConsumer {
    /// Creates a consumer of a store. `target` handles its batches.
    #[napi(constructor)]
    pub fn new(bridge: &Bridge, store: &NativeStore, name: String, target: u32, options: String) -> napi::Result<Self> {
        guard(|| {
            ConsumerName::new(&name)?;
            let bridge = bridge.shared.clone();
            let handler = Arc::new(JsHandler { bridge: bridge.clone(), target, next_batch: AtomicU32::new(1) });
            let options = json::options("options", &options)?;
            Ok(Self { bridge, store: store.store.clone(), name, options, handler, consumer: Arc::default() })
        })
    }

    /// Starts it; completes when its cursor is stored. To be called once.
    #[napi]
    pub fn start(&self) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let (store, options, handler) = (self.store.clone(), self.options.clone(), self.handler.clone());
                let name = ConsumerName::new(&self.name)?;
                let slot = self.consumer.clone();
                Ok(Consumer::start(store, name, options, handler, system_clock(), &runtime())
                    .map(move |consumer| drop(slot.set(consumer))))
            },
            nothing,
        )
    }

    fn consumer(&self) -> Result<&Consumer> {
        self.consumer.get().ok_or_else(|| Error::internal("the consumer has not started"))
    }

    /// Returns its numbers.
    #[napi]
    pub fn stats(&self) -> napi::Result<String> {
        guard(|| {
            let stats = self.consumer()?.stats();
            let row = StatsRow {
                position: stats.position.as_ref().map(Position::as_str),
                lag: stats.lag,
                delivered: stats.delivered,
                failed: stats.failed,
                parked: stats.parked,
                active: stats.active,
            };
            Ok(to_json(&row).to_string())
        })
    }

    /// Reads its parked events after a position.
    #[napi]
    pub fn parked(&self, after: Option<String>, limit: f64) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let after = after.as_deref().map(Position::new).transpose()?;
                Ok(self.consumer()?.parked(after, limit as usize))
            },
            |rows| Some(to_json(&rows).to_string()),
        )
    }

    /// Delivers parked events again, these or all; replies with their number.
    #[napi]
    pub fn replay(&self, positions: Option<Vec<String>>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let positions = parse_positions(positions)?;
                Ok(self.consumer()?.replay(positions))
            },
            |count| Some(count.to_string()),
        )
    }

    /// Waits for the handler at work, stores the cursor and stops.
    #[napi]
    pub fn stop(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.consumer.get().map_or_else(|| Op::ok(()), Consumer::stop)), nothing)
    }
}

fn parse_positions(texts: Option<Vec<String>>) -> Result<Option<Vec<Position>>> {
    texts.map(|texts| texts.iter().map(|text| Position::new(text)).collect()).transpose()
}

fn push_record(out: &mut String, record: &FeedRecord) {
    out.push_str("{\"position\":");
    push_string(out, record.position.as_str());
    out.push_str(",\"subject\":");
    push_string(out, &record.subject);
    out.push_str(&format!(",\"event\":{}}}", record.event));
}

/// Reads until a page has something, or the end of the feed is reached.
fn read_feed(store: Arc<dyn StoreBackend>, mut query: FeedQuery) -> Op<Vec<FeedRecord>> {
    let first = store.feed_read(query.clone());
    Op::pending(async move {
        let mut page = first.await?;
        while page.records.is_empty()
            && let Some(end) = page.end.take()
        {
            query.after = Some(end);
            page = store.feed_read(query.clone()).await?;
        }
        Ok(page.records)
    })
}

#[napi]
impl NativeStore {
    /// Reads a page of the feed.
    #[napi]
    pub fn feed_read(
        &self,
        after: Option<String>,
        limit: f64,
        subjects: Vec<String>,
        types: Vec<String>,
    ) -> napi::Result<Reply> {
        let globs = |patterns: &[String]| patterns.iter().map(|pattern| Glob::new(pattern)).collect();
        reply(
            &self.bridge,
            || {
                let query = FeedQuery {
                    after: after.as_deref().map(Position::new).transpose()?,
                    limit: limit as usize,
                    subjects: globs(&subjects),
                    types: globs(&types),
                    max_bytes: Some(PAGE_BYTES),
                    ..FeedQuery::default()
                };
                Ok(read_feed(self.store.clone(), query))
            },
            |records| Some(array_json(&records, push_record)),
        )
    }

    /// Returns the newest position.
    #[napi]
    pub fn feed_head(&self) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.feed_head()),
            |head| head.map(|position| to_json(position.as_str()).to_string()),
        )
    }

    /// Lists the consumers.
    #[napi]
    pub fn consumers(&self) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(list(&self.store)),
            |listed| {
                let rows: Vec<_> = listed
                    .iter()
                    .map(|row| ListRow {
                        name: &row.info.name,
                        position: row.info.position.as_ref().map(Position::as_str),
                        lag: row.lag,
                        parked: row.info.parked,
                    })
                    .collect();
                Some(to_json(&rows).to_string())
            },
        )
    }

    /// Reads parked events of a consumer after a position.
    #[napi]
    pub fn parked(&self, consumer: String, after: Option<String>, limit: f64) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let after = after.as_deref().map(Position::new).transpose()?;
                Ok(self.store.consumer_parked(ConsumerName::new(&consumer)?, after, limit as usize))
            },
            |rows| Some(to_json(&rows).to_string()),
        )
    }

    /// Requests that parked events of a consumer are delivered again, these or all; replies with their number.
    #[napi]
    pub fn replay(&self, consumer: String, positions: Option<Vec<String>>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let positions = parse_positions(positions)?;
                Ok(self.store.consumer_request_replay(ConsumerName::new(&consumer)?, positions))
            },
            |count| Some(count.to_string()),
        )
    }

    /// Deletes a consumer and what it parked.
    #[napi]
    pub fn delete_consumer(&self, name: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.consumer_delete(ConsumerName::new(&name)?)),
            |deleted| Some(deleted.to_string()),
        )
    }
}
