//! Store subscriptions: live while their mailbox has room, and read from the feed while they are behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::errors::writer_died;
use super::feed;
use super::open_store::OpenStore;
use super::shared::{Behind, Following};
use super::view::Budget;
use crate::error::{Code, Result};
use crate::event::Event;
use crate::fanout::{Push, Subscriber};
use crate::store::{FeedPage, FeedQuery, Stored};
use crate::sync::lock;
use crate::topic::Glob;

/// Events that one read returns at most, and their bytes.
const PAGE_LIMIT: usize = 1_000;
const MAX_PAGE_BYTES: usize = 8 << 20;

/// Pause after the feed could not be read.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Delivers an event, which was stored with this number, or remembers that it is still to be read from the feed.
pub(super) fn deliver(
    store: &Arc<OpenStore>,
    runtime: &Handle,
    subscriber: &Arc<Subscriber<Stored, Following>>,
    stored: impl FnOnce() -> Stored,
    number: u64,
) {
    let mut behind = lock(&subscriber.meta);
    if let Some(behind) = behind.as_mut() {
        behind.newest = number;
    } else if subscriber.mailbox.len() < subscriber.mailbox.capacity() {
        subscriber.mailbox.push(stored());
    } else {
        *behind = Some(Behind { after: number - 1, newest: number });
        runtime.spawn(catch_up(store.clone(), runtime.clone(), subscriber.clone()));
    }
}

/// Reads from the feed what a subscription has not got, until it is live again.
async fn catch_up(store: Arc<OpenStore>, runtime: Handle, subscriber: Arc<Subscriber<Stored, Following>>) {
    loop {
        subscriber.mailbox.wait_for_capacity().await;
        let Some(Behind { after, .. }) = *lock(&subscriber.meta) else { return };
        let (reading, pattern) = (store.clone(), subscriber.topic.clone());
        let limit = PAGE_LIMIT.min(subscriber.mailbox.capacity());
        let page = runtime.spawn_blocking(move || read(&reading, &pattern, after, limit)).await;
        let page = page.unwrap_or_else(|_| Err(writer_died()));
        let page = match page {
            Ok(page) => page,
            Err(error) if error.code() == Code::Closed => return,
            Err(error) => {
                tracing::warn!(code = "NVENT_SUBSCRIPTION", "a subscription cannot read the feed: {error}");
                sleep(RETRY_DELAY).await;
                continue;
            }
        };
        for record in page.records {
            // A record that is no event was changed from outside; verification reports it.
            let Ok(event) = Event::parse(&record.event) else { continue };
            while subscriber.mailbox.len() >= subscriber.mailbox.capacity() {
                subscriber.mailbox.wait_for_capacity().await;
            }
            if matches!(subscriber.mailbox.push(Stored { subject: record.subject, event }), Push::Closed) {
                return;
            }
        }
        let end = page.end.and_then(|end| end.number().ok()).unwrap_or(after);
        let mut behind = lock(&subscriber.meta);
        match behind.as_mut() {
            Some(state) if state.newest > end => state.after = end,
            _ => {
                *behind = None;
                return;
            }
        }
    }
}

fn read(store: &OpenStore, pattern: &str, after: u64, limit: usize) -> Result<FeedPage> {
    let reader = store.readers.get()?;
    let query = FeedQuery {
        after: Some(after.into()),
        limit,
        subjects: vec![Glob::new(pattern)],
        max_bytes: Some(MAX_PAGE_BYTES),
        ..FeedQuery::default()
    };
    feed::read(&store.view(reader.conn()?), &query, Budget::unlimited())?.ok_or_else(writer_died)
}
