//! Operations: from core results to what a native method returns, which is the result, an error, or the id of an operation
//! that completes later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::Either;

use super::notifier::Notifier;
use super::{BATCH_BYTES, MAX_TEXT_BYTES, Shared};
use crate::error::{Error, Result};
use crate::json::push_string;
use crate::node::runtime;
use crate::op::Op;
use crate::panic;
use crate::sync::lock;
use crate::wake::{self, DeferredWakes, Wake as _};

/// An operation that has completed: its id, whether it succeeded, and the JSON of its value or error.
struct Row {
    op_id: u32,
    ok: bool,
    json: String,
}

#[derive(Default)]
struct Completed {
    rows: VecDeque<Row>,
    /// The rows of the last batch, where there were several: one that is no JSON is found among them.
    last: Vec<Row>,
    closed: bool,
}

/// The operations of one environment.
pub(super) struct Operations {
    notifier: Arc<Notifier>,
    next_id: AtomicU32,
    completed: Mutex<Completed>,
}

impl Operations {
    pub(super) fn new(notifier: Arc<Notifier>) -> Self {
        Self { notifier, next_id: AtomicU32::new(1), completed: Mutex::default() }
    }

    /// Returns an id for an operation that completes later. Unique among those under way.
    fn next_id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Completes an operation.
    fn complete(&self, op_id: u32, result: Result<Option<String>>) {
        let row = match result.and_then(bounded) {
            Ok(value) => Row { op_id, ok: true, json: value.unwrap_or_else(|| "null".into()) },
            Err(error) => Row { op_id, ok: false, json: error_json(&error) },
        };
        let mut completed = lock(&self.completed);
        if completed.closed {
            return;
        }
        completed.rows.push_back(row);
        drop(completed);
        self.notifier.notify();
    }

    /// Takes a batch, `[op_id, ok, value or error, …]`. Notifies again where more is waiting.
    pub(super) fn take(&self) -> Option<String> {
        let mut completed = lock(&self.completed);
        let (mut count, mut bytes) = (0, 0);
        while let Some(row) = completed.rows.get(count)
            && (count == 0 || bytes + row.json.len() <= BATCH_BYTES)
        {
            bytes += row.json.len();
            count += 1;
        }
        let rows: Vec<_> = completed.rows.drain(..count).collect();
        if !completed.rows.is_empty() {
            self.notifier.notify();
        }
        completed.last.clear();
        if rows.is_empty() {
            return None;
        }
        let mut batch = String::with_capacity(bytes + count * 16);
        for Row { op_id, ok, json } in &rows {
            batch.push(if batch.is_empty() { '[' } else { ',' });
            batch.push_str(&format!("{op_id},{},", u8::from(*ok)));
            batch.push_str(json);
        }
        batch.push(']');
        if rows.len() > 1 {
            completed.last = rows;
        }
        Some(batch)
    }

    /// Returns the rows of the last batch, three texts each. Empty where that had one row only.
    pub(super) fn last(&self) -> Vec<String> {
        let rows = std::mem::take(&mut lock(&self.completed).last);
        rows.into_iter().flat_map(|row| [row.op_id.to_string(), u8::from(row.ok).to_string(), row.json]).collect()
    }

    pub(super) fn close(&self) {
        *lock(&self.completed) = Completed { closed: true, ..Completed::default() };
    }
}

/// Refuses a result that JavaScript cannot hold.
fn bounded(value: Option<String>) -> Result<Option<String>> {
    match &value {
        Some(text) if text.len() > MAX_TEXT_BYTES => Err(Error::invalid(format!(
            "the result has {} bytes, which is too large for a JavaScript string: read less at a time",
            text.len()
        ))),
        _ => Ok(value),
    }
}

/// JSON text (null for nothing), or the id of an operation that completes later. Methods return it in a
/// `napi::Result` that is spelt out: behind an alias the macro would return an error rather than throw it.
pub(in crate::node) type Reply = Option<Either<u32, String>>;

/// Returns an error as JSON, for the JavaScript face to make an `NventError` of.
fn error_json(error: &Error) -> String {
    let mut json = format!("{{\"code\":\"{}\",\"message\":", error.code());
    push_string(&mut json, error.message());
    json.push_str(&format!(",\"retryable\":{},\"maybeApplied\":{}", error.is_retryable(), error.is_maybe_applied()));
    if let Some(operation) = error.operation() {
        json.push_str(",\"operation\":");
        push_string(&mut json, operation);
    }
    if let Some(cause) = std::error::Error::source(error) {
        json.push_str(",\"cause\":");
        push_string(&mut json, &cause.to_string());
    }
    json.push('}');
    json
}

/// Returns an error to throw.
fn throw(error: &Error) -> napi::Error {
    napi::Error::from_reason(error_json(error))
}

/// Runs synchronous work; a panic becomes an error.
pub(in crate::node) fn guard<T>(work: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    panic::catch(work).map_err(|error| throw(&error))
}

/// Starts an operation and replies with its JSON, at once or later.
pub(in crate::node) fn reply<T: Send + 'static>(
    bridge: &Arc<Shared>,
    start: impl FnOnce() -> Result<Op<T>>,
    to_json: fn(T) -> Option<String>,
) -> napi::Result<Reply> {
    let (started, wakes) = wake::defer_wakes(|| guard(start));
    reply_with(bridge, started?, wakes, to_json)
}

/// Replies as [`reply`] does, for a call that may deliver something here, which JavaScript then takes at once rather than in a
/// turn of the event loop. The reply says so: it begins with a space, which JSON allows.
pub(in crate::node) fn reply_and_leave<T: Send + 'static>(
    bridge: &Arc<Shared>,
    start: impl FnOnce() -> Result<Op<T>>,
    to_json: fn(T) -> Option<String>,
) -> napi::Result<Reply> {
    let (started, wakes) = wake::defer_wakes(|| guard(start));
    match started? {
        started @ Op::Ready(_) => {
            let left = bridge.notifier.leave(wakes);
            let reply = reply_with(bridge, started, DeferredWakes::default(), to_json);
            if !left {
                return reply;
            }
            match reply {
                Ok(None) => Ok(Some(Either::B(" null".into()))),
                Ok(Some(Either::B(json))) => Ok(Some(Either::B(format!(" {json}")))),
                other => {
                    // JavaScript does not read this one.
                    bridge.notifier.wake();
                    other
                }
            }
        }
        started => reply_with(bridge, started, wakes, to_json),
    }
}

fn reply_with<T: Send + 'static>(
    bridge: &Arc<Shared>,
    started: Op<T>,
    wakes: DeferredWakes,
    to_json: fn(T) -> Option<String>,
) -> napi::Result<Reply> {
    match started {
        Op::Ready(result) => guard(|| bounded(to_json(result?))).map(|json| json.map(Either::B)),
        Op::Completion(completion) => {
            let op_id = bridge.operations.next_id();
            bridge.notifier.defer(wakes);
            let bridge = bridge.clone();
            completion.on_complete(move |result| {
                bridge.operations.complete(op_id, panic::catch(|| result.map(to_json)));
            });
            Ok(Some(Either::A(op_id)))
        }
        Op::Pending(future) => {
            let op_id = bridge.operations.next_id();
            let bridge = bridge.clone();
            runtime().spawn(async move {
                let json = panic::catch_async(async { future.await.map(to_json) }).await;
                bridge.operations.complete(op_id, json);
            });
            Ok(Some(Either::A(op_id)))
        }
    }
}
