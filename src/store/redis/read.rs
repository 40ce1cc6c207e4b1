//! Reading the events of a subject.

use std::ops::ControlFlow::{Break, Continue};

use ::redis::{Value, cmd};

use super::backend::RedisStore;
use super::calls::{MAX_ROWS, MAX_SCANNED, decimal};
use super::{record, scripts, text};
use crate::error::Result;
use crate::event::EventId;
use crate::json::{Json, to_json};
use crate::name::Subject;
use crate::op::Op;
use crate::redis::{Request, reply};
use crate::store::EventQuery;

/// A read of a subject by one call after the other.
struct EventScan {
    subject: String,
    /// The range that is left, as XRANGE takes it.
    first: String,
    last: String,
    query: EventQuery,
    found: Vec<Json>,
}

impl EventScan {
    fn new(subject: &Subject, query: EventQuery) -> Self {
        let first = query.after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let last = query.before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        Self { subject: subject.as_str().to_owned(), first, last, query, found: Vec::new() }
    }

    fn is_filtered(&self) -> bool {
        self.query.types.is_some() || self.query.from.is_some() || self.query.to.is_some()
    }

    /// Returns how many events are still to be read.
    fn left(&self) -> usize {
        self.query.limit.unwrap_or(usize::MAX) - self.found.len()
    }

    /// Returns the next call.
    fn request(&self) -> Request {
        let limit = self.left().min(i32::MAX as usize);
        if !self.is_filtered() {
            let mut range = match self.query.descending {
                true => cmd("XREVRANGE").arg(&self.subject).arg(&self.last).arg(&self.first).take(),
                false => cmd("XRANGE").arg(&self.subject).arg(&self.first).arg(&self.last).take(),
            };
            return Request::read("read", range.arg("COUNT").arg(limit.min(MAX_ROWS)).take());
        }
        let bound = |bound: Option<f64>| bound.map_or_else(String::new, decimal);
        let mut call = scripts::READ.call(&[&self.subject]);
        call.arg(&self.first).arg(&self.last).arg(limit).arg(if self.query.descending { "desc" } else { "asc" });
        call.arg(MAX_SCANNED).arg(MAX_ROWS).arg(bound(self.query.from)).arg(bound(self.query.to));
        for kind in self.query.types.iter().flatten() {
            // As this store writes it, and as other writers do.
            call.arg(&*text::to_text(&to_json(kind))).arg(kind);
        }
        Request::read("read", call).of(&scripts::READ)
    }

    /// Takes a reply. Returns whether there is another call to make.
    fn take(&mut self, reply: Value) -> Result<bool> {
        let stopped_at: Option<EventId>;
        if self.is_filtered() {
            let mut reply = reply::list(reply)?.into_iter();
            self.found.extend(reply.next().map(record::records).transpose()?.unwrap_or_default().1);
            let id = reply.next().map(reply::text).transpose()?.filter(|id| !id.is_empty());
            stopped_at = id.map(|id| id.parse()).transpose()?;
        } else {
            let asked = self.left().min(MAX_ROWS);
            let (last, events) = record::records(reply)?;
            stopped_at = last.filter(|_| events.len() == asked);
            self.found.extend(events);
        }
        let Some(id) = stopped_at else { return Ok(false) };
        let end = if self.query.descending { &mut self.last } else { &mut self.first };
        *end = format!("({id}");
        Ok(self.left() > 0)
    }
}

impl RedisStore {
    /// Reads events.
    pub(super) fn events(&self, subject: &Subject, query: EventQuery) -> Op<Vec<Json>> {
        if query.types.as_ref().is_some_and(|types| types.is_empty()) {
            return Op::ok(Vec::new());
        }
        let mut scan = EventScan::new(subject, query);
        self.calls.read_pages(scan.request(), move |reply| {
            Ok(if scan.take(reply)? { Continue(scan.request()) } else { Break(std::mem::take(&mut scan.found)) })
        })
    }
}
