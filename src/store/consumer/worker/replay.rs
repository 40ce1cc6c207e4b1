//! Parked events that are delivered again, and who waits for that.

use std::collections::HashMap;

use crate::op::Completer;
use crate::store::feed::Position;

/// Replays that are under way.
#[derive(Default)]
pub(super) struct Replays {
    next: u64,
    pub(super) under_way: HashMap<Position, u64>,
    waiting: HashMap<u64, (usize, u64, Completer<u64>)>,
}

impl Replays {
    /// Returns whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Notes positions that are delivered again; `reply` completes with their number when all have ended.
    pub(super) fn begin(&mut self, positions: impl ExactSizeIterator<Item = Position>, reply: Completer<u64>) {
        let count = positions.len();
        if count == 0 {
            reply.complete(Ok(0));
            return;
        }
        self.next += 1;
        self.waiting.insert(self.next, (count, count as u64, reply));
        self.under_way.extend(positions.map(|position| (position, self.next)));
    }

    /// Notes that the event at a position was handled, or parked again.
    pub(super) fn end(&mut self, position: &Position) {
        let Some(id) = self.under_way.remove(position) else { return };
        let Some((left, ..)) = self.waiting.get_mut(&id) else { return };
        *left -= 1;
        if *left == 0
            && let Some((_, count, reply)) = self.waiting.remove(&id)
        {
            reply.complete(Ok(count));
        }
    }
}
