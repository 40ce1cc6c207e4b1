//! Events of a queue: who listens, and what is published after the commit.

use std::sync::Arc;

use super::{Effect, Engine};
use crate::error::Result;
use crate::fanout::Mailbox;
use crate::json::push_string;
use crate::queue::events::{EventKind, QueueEvent};
use crate::queue::job::{Job, State};

impl Engine {
    pub(in crate::queue) fn subscribe(
        &mut self,
        owner: u64,
        queue: &Arc<str>,
        kind: EventKind,
        mailbox: Arc<Mailbox<QueueEvent>>,
    ) -> u64 {
        self.listeners.add(owner, queue, kind, mailbox)
    }

    pub(in crate::queue) fn unsubscribe(&mut self, id: u64) {
        self.listeners.remove(id);
    }

    pub(super) fn emit(&mut self, index: usize, kind: EventKind, payload: impl FnOnce(&mut String)) {
        let queue = &self.queues[index].name;
        let mailboxes = self.listeners.of(queue, kind);
        if mailboxes.is_empty() {
            return;
        }
        let mut out = String::from("{");
        payload(&mut out);
        out.push('}');
        let event = QueueEvent { queue: queue.clone(), kind, payload: out.into() };
        self.effects.extend(mailboxes.into_iter().map(|mailbox| Effect::Event(mailbox, event.clone())));
    }

    pub(super) fn emit_about(&mut self, index: usize, kind: EventKind, job: &Job, more: impl FnOnce(&mut String)) {
        self.emit(index, kind, |out| {
            push_field(out, "jobId", |out| push_string(out, &job.id));
            push_field(out, "name", |out| push_string(out, &job.name));
            push_field(out, "attemptsMade", |out| out.push_str(&job.attempts_made.to_string()));
            more(out);
        });
    }

    /// Publishes that a job waits, or will after a delay, with the job itself.
    pub(super) fn emit_entered(&mut self, index: usize, job: &Job, delay: u64) -> Result<()> {
        let kind = if job.state == State::Delayed { EventKind::Delayed } else { EventKind::Waiting };
        if self.listeners.of(&self.queues[index].name, kind).is_empty() {
            return Ok(());
        }
        let data = self.db()?.data(job.seq)?;
        let json = job.to_json(&data, self.queues[index].paused());
        self.emit_about(index, kind, job, |out| {
            if kind == EventKind::Delayed {
                push_field(out, "delay", |out| out.push_str(&delay.to_string()));
            }
            push_field(out, "job", |out| out.push_str(&json));
        });
        Ok(())
    }
}

/// Adds a field to an object that is being written.
pub(super) fn push_field(out: &mut String, key: &str, value: impl FnOnce(&mut String)) {
    if out.len() > 1 {
        out.push(',');
    }
    push_string(out, key);
    out.push(':');
    value(out);
}
