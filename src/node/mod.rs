//! What JavaScript can call. The only place that names napi, and thin: arguments in, core call, result out.
//!
//! JSON text crosses, not objects. What is done in the call returns its result; what takes longer returns an
//! operation's id (a number) and completes in a later batch. See `bridge` for how batches, deliveries and calls into JavaScript work.

mod bridge;
mod bus;
mod calendar;
mod consumer;
mod http;
mod metrics;
mod queue;
mod store;
mod stream;
mod wiring;

use std::sync::LazyLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// One runtime for all environments (the main thread and every worker) of the process. It lives as long as the
/// process and keeps nothing alive: its threads are ended with it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // One processor is JavaScript's. With more threads than processors a wake-up goes from thread to thread.
    let workers = std::thread::available_parallelism().map_or(1, |n| (n.get() - 1).clamp(1, 4));
    match Builder::new_multi_thread().worker_threads(workers).thread_name("nvent-native").enable_all().build() {
        Ok(runtime) => runtime,
        // The process cannot start a thread: there is nothing to go on with, and the caller's guard turns it into an error.
        Err(error) => panic!("cannot start threads: {error}"),
    }
});

fn runtime() -> Handle {
    RUNTIME.handle().clone()
}
