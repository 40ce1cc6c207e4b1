//! The task that follows the feed and delivers it, and those that let a subscription catch up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Shared;
use super::state::Tailer;
use crate::error::Result;
use crate::event::{Event, EventId};
use crate::fanout::{Gap, GapReason};
use crate::store::redis::feed::{ADOPT_INTERVAL, ADOPT_STEP_DELAY, Adoption, Entry, Found, Page, Start};
use crate::store::{Origin, Stored};

/// Time between two reads of the feed while announcements do not arrive: an ACL may forbid channels.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Delay after a failed read. Errors are outages here: the client waits for the connection.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Entries of the feed per read.
const PAGE: usize = 1_000;
/// Entries handled at a time.
const BATCH: usize = 500;

/// Delivers what is new, until the store is closed.
pub(super) async fn follow(shared: Arc<Shared>, runtime: Handle) {
    let mut next_adoption = Instant::now() + ADOPT_STEP_DELAY;
    let mut next_poll = Instant::now() + POLL_INTERVAL;
    while !shared.is_closed() {
        if !shared.is_followed() {
            shared.changed.notified().await;
            continue;
        }
        let delivered = match notify_watchers(&shared).await {
            Ok(()) => deliver_next(&shared, &runtime).await,
            Err(error) => Err(error),
        };
        match delivered {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "store subscriptions: the feed was not read");
                {
                    let mut state = shared.state();
                    (state.stale, state.check_head) = (true, true);
                }
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
        }
        let live = shared.state().live;
        let wait = if live { next_adoption } else { next_adoption.min(next_poll) };
        if tokio::time::timeout_at(wait, shared.changed.notified()).await.is_ok() {
            continue;
        }
        if !live && Instant::now() >= next_poll {
            next_poll = Instant::now() + POLL_INTERVAL;
            shared.read_feed();
        }
        if Instant::now() >= next_adoption {
            let adoption = shared.feed.adopt(shared.max_entries).await;
            let unfinished = matches!(adoption, Ok(Adoption::Unfinished));
            next_adoption = Instant::now() + if unfinished { ADOPT_STEP_DELAY } else { ADOPT_INTERVAL };
        }
    }
}

/// Notifies watchers of the end of the feed, where announcements may be missing.
async fn notify_watchers(shared: &Shared) -> Result<()> {
    let is_due = std::mem::take(&mut shared.state().check_head);
    if is_due && shared.news.receiver_count() > 0 {
        let mut head = shared.feed.head().into_future().await?.position.seq;
        if head < *shared.news.borrow() {
            // Announced while the head was read, or the server has lost writes: what is read now says which.
            head = shared.feed.head().into_future().await?.position.seq;
        }
        shared.news.send_if_modified(|newest| std::mem::replace(newest, head) != head);
        let mut state = shared.state();
        state.news = state.news.max(Some(head));
        shared.notify_followers(state);
    }
    Ok(())
}

/// Delivers one batch. Returns whether there may be more.
async fn deliver_next(shared: &Arc<Shared>, runtime: &Handle) -> Result<bool> {
    let (announced, cursor) = {
        let mut state = shared.state();
        let Some(cursor) = state.cursor else {
            state.stale = false;
            return Ok(false);
        };
        let count = state.ready().min(BATCH);
        if count == 0 && (!state.announced.is_empty() || !std::mem::take(&mut state.stale)) {
            return Ok(false);
        }
        let batch: Vec<_> = state.announced.drain(..count).collect();
        state.reading = batch.last().map(|entry| entry.position);
        (batch, cursor)
    };
    let result = if announced.is_empty() {
        read_page(shared, cursor, runtime).await
    } else {
        let last = announced.last().map(|entry| entry.position);
        deliver(shared, Page { entries: announced, last, missed: 0, full: true }, runtime).await.map(|()| true)
    };
    let mut state = shared.state();
    state.reading = None;
    if result.is_err() {
        // Read again, from the cursor.
        state.announced.clear();
    }
    result
}

/// Reads the feed after a position and delivers it. Returns whether there may be more.
async fn read_page(shared: &Arc<Shared>, cursor: EventId, runtime: &Handle) -> Result<bool> {
    let page = shared.feed.entries(cursor, PAGE).await?;
    let Some(last) = page.last else {
        return reset_if_behind_cursor(shared, cursor).await;
    };
    {
        let mut state = shared.state();
        state.reading = Some(last);
        // Announced meanwhile: what follows the page is kept.
        while state.announced.front().is_some_and(|entry| entry.position <= last) {
            state.announced.pop_front();
        }
        if state.announced.front().is_some_and(|entry| entry.position.seq != last.seq + 1) {
            state.announced.clear();
            state.stale = true;
        }
        if page.full {
            state.stale = true;
        }
    }
    let full = page.full;
    deliver(shared, page, runtime).await?;
    Ok(full)
}

/// Goes back to the end of the feed where that is before the cursor: a server that lost writes (a failover, a restart
/// without persistence) counts from an earlier position again.
async fn reset_if_behind_cursor(shared: &Arc<Shared>, cursor: EventId) -> Result<bool> {
    let head = shared.feed.head().into_future().await?;
    let mut state = shared.state();
    if head.position >= cursor || state.cursor != Some(cursor) {
        return Ok(false);
    }
    state.cursor = Some(head.position);
    state.announced.clear();
    for tailer in state.tailers.values_mut().filter(|tailer| tailer.behind.is_none()) {
        tailer.start = head;
        tailer.mailbox.note_gap(Gap { reason: GapReason::Reconnect, missed: None });
    }
    Ok(true)
}

/// Reads the events of entries and delivers them.
async fn deliver(shared: &Arc<Shared>, page: Page, runtime: &Handle) -> Result<()> {
    let Some(last) = page.last else { return Ok(()) };
    // Tailers that start meanwhile begin at or after `last`, or read by themselves.
    let (mut wanted, mut found, mut unread, mut batch) =
        (Vec::new(), Vec::new(), Vec::new(), HashMap::<_, EventId>::new());
    {
        let mut state = shared.state();
        state.foreign |= page.entries.iter().any(|entry| entry.origin == Origin::OtherWriter);
        for entry in page.entries {
            let known = batch.get(&entry.subject).or_else(|| state.known.get(&entry.subject));
            // Delivered with a later event of its subject already.
            let is_delivered = entry.origin == Origin::OtherWriter && known.is_some_and(|last| entry.id <= *last);
            let is_wanted = || state.tailers.values().any(|tailer| tailer.behind.is_none() && tailer.receives(&entry));
            if !is_delivered && is_wanted() {
                let recent = state.recent(&entry).filter(|_| !state.foreign);
                if recent.is_none() {
                    unread.push((wanted.len(), state.start_of(&entry, &batch)));
                }
                found.push(Found::Events(recent.map(|event| (entry.id, event)).into_iter().collect()));
                let last = batch.entry(entry.subject.clone()).or_insert(entry.id);
                *last = entry.id.max(*last);
                wanted.push(entry);
            }
        }
    }
    let asked: Vec<_> = unread.iter().map(|(at, start)| (&wanted[*at], *start)).collect();
    for ((at, _), read) in unread.iter().zip(shared.feed.events(&asked).await?) {
        found[*at] = read;
    }
    let mut late = Vec::new();
    {
        let mut state = shared.state();
        let Some(cursor) = state.cursor else { return Ok(()) };
        for (id, tailer) in state.tailers.iter_mut().filter(|(_, tailer)| tailer.behind.is_none()) {
            if page.missed > 0 && tailer.start.position <= cursor {
                tailer.mailbox.note_gap(Gap { reason: GapReason::Trimmed, missed: Some(page.missed) });
            }
            if let Some(reached) = push_all(tailer, cursor, &wanted, &found) {
                tailer.behind = Some(reached);
                late.push(*id);
            }
        }
        state.cursor = Some(last);
        state.note_delivered(batch);
        state.forget_delivered();
    }
    for id in late {
        runtime.spawn(catch_up(shared.clone(), id));
    }
    Ok(())
}

/// Pushes events to a tailer. Some: its mailbox is full, and it has got what is up to this position.
fn push_all(tailer: &Tailer, after: EventId, entries: &[Entry], found: &[Found]) -> Option<EventId> {
    let mut reached = after;
    for (entry, found) in entries.iter().zip(found).filter(|(entry, _)| tailer.receives(entry)) {
        match found {
            Found::Trimmed => tailer.mailbox.note_gap(Gap { reason: GapReason::Trimmed, missed: Some(1) }),
            Found::Events(events) => {
                for (id, event) in events {
                    if *id != entry.id && tailer.start.now > id.ms {
                        continue;
                    }
                    if tailer.mailbox.len() >= tailer.mailbox.capacity() {
                        return Some(reached);
                    }
                    _ = tailer.mailbox.push(Stored { subject: entry.subject.clone(), event: event.clone() });
                }
            }
        }
        reached = entry.position;
    }
    None
}

/// Delivers to a tailer by itself, as its mailbox has room, until it has reached the others.
pub(super) async fn catch_up(shared: Arc<Shared>, id: u64) {
    loop {
        let (mailbox, after) = {
            let state = shared.state();
            let Some(tailer) = state.tailers.get(&id) else { return };
            let Some(after) = tailer.behind else { return };
            (tailer.mailbox.clone(), after)
        };
        mailbox.wait_for_capacity().await;
        if shared.is_closed() {
            return;
        }
        if let Err(error) = catch_up_page(&shared, id, after).await {
            tracing::debug!(%error, "store subscriptions: the feed was not read");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

async fn catch_up_page(shared: &Shared, id: u64, after: EventId) -> Result<()> {
    let page = shared.feed.entries(after, PAGE).await?;
    let wanted: Vec<Entry> = {
        let state = shared.state();
        let Some(tailer) = state.tailers.get(&id) else { return Ok(()) };
        let room = tailer.mailbox.capacity().saturating_sub(tailer.mailbox.len()).clamp(1, BATCH);
        page.entries.iter().filter(|entry| tailer.receives(entry)).take(room).cloned().collect()
    };
    let recent: Vec<_> = {
        let state = shared.state();
        wanted.iter().map(|entry| state.recent(entry)).collect()
    };
    let unread: Vec<_> = wanted.iter().zip(&recent).filter(|(_, recent)| recent.is_none()).collect();
    let asked: Vec<_> = unread.into_iter().map(|(entry, _)| (entry, Start::At(entry.id))).collect();
    let mut read = shared.feed.events(&asked).await?.into_iter();
    let of_entry = |(entry, recent): (&Entry, Option<Event>)| match recent {
        Some(event) => Found::Events(vec![(entry.id, event)]),
        None => read.next().unwrap_or(Found::Events(Vec::new())),
    };
    let found: Vec<_> = wanted.iter().zip(recent).map(of_entry).collect();
    let mut state = shared.state();
    let goal = state.reading.or(state.cursor).unwrap_or_default();
    let Some(tailer) = state.tailers.get_mut(&id) else { return Ok(()) };
    if page.missed > 0 {
        tailer.mailbox.note_gap(Gap { reason: GapReason::Trimmed, missed: Some(page.missed) });
    }
    let reached = push_all(tailer, after, &wanted, &found).unwrap_or_else(|| {
        let unselected = page.entries.iter().filter(|entry| tailer.receives(entry)).nth(wanted.len());
        match (unselected, wanted.last()) {
            (Some(_), Some(last)) => last.position,
            _ => page.last.unwrap_or(goal),
        }
    });
    tailer.behind = (reached < goal).then_some(reached);
    if tailer.behind.is_none() {
        // The others may still get some of what it has.
        tailer.start.position = reached;
    }
    state.forget_delivered();
    Ok(())
}
