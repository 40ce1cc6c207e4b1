//! Appends and imports: one script each, which checks the end of the subject, adds the event and its entry in the feed, and
//! announces both.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ::redis::Value;

use super::backend::RedisStore;
use super::{record, scripts};
use crate::error::Error;
use crate::event::{Event, EventId, NewEvent};
use crate::name::Subject;
use crate::op::Op;
use crate::redis::{Request, reply};
use crate::store::{Announce, Expected, out_of_order};
use crate::sync::read;

/// A subject of a run that is not over keeps this many times as many events as others.
const MAX_RUN_FACTOR: u64 = 10;

/// Returns how an append treats its subject when it is trimmed: what `append.lua` takes.
fn role_of(event: &NewEvent) -> &'static str {
    match event.kind() {
        // A run that has failed can be retried, which needs its beginning.
        "flow.completed" | "flow.cancel" => "end",
        _ if event.run_id().is_some() => "run",
        _ => "",
    }
}

impl RedisStore {
    /// Appends an event. `announce` is called before the append resolves.
    pub(super) fn append_event(
        &self,
        subject: &Subject,
        event: NewEvent,
        expected: Option<Expected>,
        announce: Option<Announce>,
    ) -> Op<Event> {
        if let Err(error) = self.keys.check("subject", subject) {
            return Op::err(error);
        }
        self.calls.counters.appends.fetch_add(1, Ordering::Relaxed);
        let ts = self.clock.now_ms();
        let (subject, keys, trim) = (Arc::<str>::from(subject), self.keys.clone(), self.trim);
        let (to, new, feed_max_len) = (subject.clone(), event.clone(), self.feed_max_len);
        let instance = read(&self.instance).clone();
        let appended_by = instance.clone();
        let request = Request::write_built("append", move || {
            let mut call = scripts::APPEND.call(&[&to, &keys.deleted(&to), &keys.feed(), &keys.feed_state()]);
            call.arg(match expected {
                None => String::new(),
                Some(Expected::Empty) => "empty".into(),
                Some(Expected::Last(id)) => id.to_string(),
            });
            call.arg(trim.max_len.map_or_else(String::new, |n| n.to_string()));
            call.arg(if trim.approx { "~" } else { "=" }).arg(keys.appended());
            call.arg(feed_max_len).arg(new.kind()).arg(role_of(&new));
            call.arg(trim.max_len.unwrap_or_default().saturating_mul(MAX_RUN_FACTOR))
                .arg(instance.as_deref().unwrap_or(""));
            for (name, text) in record::fields(&new, ts)? {
                call.arg(name).arg(text);
            }
            Ok(call)
        });
        // Runs where replies are read, one after the other: in the order of storage, before the append resolves.
        let (to, own) = (subject.clone(), self.tailers.own_append());
        let (append_seconds, started) = (self.append_seconds.clone(), Instant::now());
        let stored = move |text: String| {
            let (id, position) = text.split_once(' ').unwrap_or((&text, ""));
            let (event, position) = (event.persist(id.parse()?, ts), position.parse()?);
            own.stored(position, &to, &event);
            if let Some(announce) = announce {
                announce(&to, &event);
            }
            own.offer(position, &to, &event, appended_by.as_ref());
            append_seconds.observe_since(started);
            Ok(event)
        };
        let convert = move |value| match value {
            Value::Array(mut values) if values.len() == 2 => {
                tracing::warn!(
                    code = "NVENT_RUN_TRIMMED",
                    subject = &*subject,
                    "a run has more events than are kept: its first events were trimmed, and it may not end"
                );
                stored(reply::text(values.swap_remove(0))?)
            }
            Value::Array(last) => {
                let last = last.into_iter().next().map(reply::text).transpose()?.filter(|last| !last.is_empty());
                let last = last.map(|last| last.parse()).transpose()?;
                expected.unwrap_or(Expected::Empty).check(&subject, last)?;
                Err(Error::corrupt("Redis reported a conflict where the subject ends as expected"))
            }
            id => stored(reply::text(id)?),
        };
        self.calls.send(request.of(&scripts::APPEND), convert)
    }

    /// Appends an event that has an id. Resolves to whether it was new.
    pub(super) fn import(&self, subject: &Subject, event: Event) -> Op<bool> {
        if let Err(error) = self.keys.check("subject", subject) {
            return Op::err(error);
        }
        let import = || {
            let id: EventId = event.id().parse()?;
            let ts = event.ts().map_or(id.ms, |ts| ts as u64);
            let (keys, new) = (&self.keys, NewEvent::parse(event.json())?);
            let mut call = scripts::IMPORT.call(&[subject, &keys.feed(), &keys.feed_state()]);
            call.arg(id.to_string()).arg(self.feed_max_len).arg(keys.appended()).arg(new.kind());
            for (name, text) in record::fields(&new, ts)? {
                call.arg(name).arg(text);
            }
            Ok((id, Request::write("import", call).of(&scripts::IMPORT)))
        };
        let (id, request) = match import() {
            Ok(import) => import,
            Err(error) => return Op::err(error),
        };
        let subject = Arc::<str>::from(subject);
        self.client.call(request, move |value| match value {
            Value::Int(added) => Ok(added == 1),
            last => {
                let last: EventId = reply::text(last)?.parse()?;
                Err(out_of_order(&subject, id, last))
            }
        })
    }
}
