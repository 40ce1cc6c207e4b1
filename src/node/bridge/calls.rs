//! Calls of methods of JavaScript objects: an application's own store, stream or queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use tokio::sync::oneshot;

use super::notifier::Notifier;
use crate::error::{Code, Error, Result};
use crate::sync::lock;

/// Whether the caller reads what a method returns. What is not read is not serialised, so it may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Returns {
    /// The JSON of its value.
    Value,
    /// Only whether it succeeded.
    Nothing,
}

struct Call {
    id: u32,
    target: u32,
    method: &'static str,
    args: String,
    returns: Returns,
}

struct PendingCall {
    method: &'static str,
    result: oneshot::Sender<Result<String>>,
}

/// The calls of one environment.
pub(super) struct Calls {
    notifier: Arc<Notifier>,
    next_id: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queued: Vec<Call>,
    pending: HashMap<u32, PendingCall>,
    closed: bool,
}

/// An error as JavaScript describes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    code: String,
    message: String,
    retryable: bool,
    maybe_applied: bool,
}

/// Returns the error of a method that threw or rejected. An `NventError` keeps its code.
fn failure(method: &'static str, text: &str) -> Error {
    let error = match serde_json::from_str::<Failure>(text) {
        Ok(failure) => {
            let code = CODES.into_iter().find(|code| code.as_str() == failure.code).unwrap_or(Code::Unavailable);
            let error = Error::new(code, failure.message);
            let error = if failure.retryable { error } else { error.permanent() };
            if failure.maybe_applied { error.maybe_applied() } else { error }
        }
        Err(_) => Error::internal(format!("{method}() failed, and its error could not be read")),
    };
    error.with_operation(method)
}

const CODES: [Code; 10] = [
    Code::Invalid,
    Code::Type,
    Code::NotFound,
    Code::Conflict,
    Code::Closed,
    Code::Locked,
    Code::Corrupt,
    Code::Unavailable,
    Code::Io,
    Code::Internal,
];

impl Calls {
    pub(super) fn new(notifier: Arc<Notifier>) -> Self {
        Self { notifier, next_id: AtomicU32::new(1), state: Mutex::default() }
    }

    /// Queues a call; resolves with the JSON of what the method returned (`null` where that is not read). `args` is a JSON
    /// array.
    pub(super) fn invoke(
        &self,
        target: u32,
        method: &'static str,
        args: String,
        returns: Returns,
    ) -> impl Future<Output = Result<String>> + Send + use<> {
        let (result, receiver) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut state = lock(&self.state);
        if !state.closed {
            state.pending.insert(id, PendingCall { method, result });
            state.queued.push(Call { id, target, method, args, returns });
            drop(state);
            self.notifier.notify();
        }
        async move {
            receiver.await.unwrap_or_else(|_| Err(Error::closed("the JavaScript environment that the call was for")))
        }
    }

    /// Takes the queued calls as `[[id, target, method, [arguments], returns a value], …]`.
    pub(super) fn take(&self) -> Option<String> {
        let mut state = lock(&self.state);
        let (mut count, mut bytes) = (0, 0);
        while let Some(call) = state.queued.get(count)
            && (count == 0 || bytes + call.args.len() <= super::BATCH_BYTES)
        {
            bytes += call.args.len();
            count += 1;
        }
        let calls: Vec<_> = state.queued.drain(..count).collect();
        let more = !state.queued.is_empty();
        drop(state);
        if more {
            self.notifier.notify();
        }
        if calls.is_empty() {
            return None;
        }
        let rows: Vec<_> = calls
            .into_iter()
            .map(|call| {
                let reads = call.returns == Returns::Value;
                format!("[{},{},\"{}\",{},{reads}]", call.id, call.target, call.method, call.args)
            })
            .collect();
        Some(format!("[{}]", rows.join(",")))
    }

    /// Completes a call with the JSON of its value, or of its error.
    pub(super) fn complete(&self, id: u32, ok: bool, text: String) {
        let pending = lock(&self.state).pending.remove(&id);
        if let Some(PendingCall { method, result }) = pending {
            // The caller may have stopped waiting.
            _ = result.send(if ok { Ok(text) } else { Err(failure(method, &text)) });
        }
    }

    /// Fails every pending call and refuses further ones.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        let pending = std::mem::take(&mut state.pending);
        state.queued.clear();
        state.closed = true;
        drop(state);
        drop(pending);
    }
}
