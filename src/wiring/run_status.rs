//! Which events change the status of a run, for the channel that publishes only changes.

use std::collections::HashMap;

/// Runs that [`RunStatusTracker`] keeps at least; it keeps fewer than twice as many.
const MAX_RUNS: usize = 10_000;

/// Changes of a run that it keeps, so that an event that is routed again changes the same.
const MAX_CHANGES: usize = 8;

/// The last published statuses of each run, so that only changes are published. An evicted run is published again.
#[derive(Default)]
pub struct RunStatusTracker {
    recent: HashMap<Box<str>, Changes>,
    older: HashMap<Box<str>, Changes>,
}

/// The newest statuses of a run, each with the id of the event that changed it.
type Changes = Vec<(Box<str>, &'static str)>;

impl RunStatusTracker {
    /// Returns the status that this event changes the run to, if it changes it. The first terminal status is final
    /// unless a failed run is retried; a stalled run with a new step event is running again.
    pub(super) fn change(&mut self, run_id: &str, kind: &str, event_id: &str) -> Option<&'static str> {
        let changes = self.recent.get(run_id).or_else(|| self.older.get(run_id));
        // It is routed again.
        if let Some((_, status)) = changes.into_iter().flatten().find(|(id, _)| **id == *event_id) {
            return Some(status);
        }
        let last = changes.and_then(|changes| changes.last()).map(|(_, status)| *status);
        let status = match (kind, last) {
            ("flow.retry", None | Some("failed")) => "running",
            (_, Some("completed" | "failed" | "canceled")) => return None,
            ("flow.start", _) => "running",
            ("flow.completed", _) => "completed",
            ("flow.failed", _) => "failed",
            ("flow.cancel", _) => "canceled",
            ("flow.stalled", _) => "stalled",
            (kind, Some("stalled")) if kind == "emit" || kind.starts_with("step.") => "running",
            _ => return None,
        };
        if last == Some(status) {
            return None;
        }
        if self.recent.len() >= MAX_RUNS {
            self.older = std::mem::take(&mut self.recent);
        }
        let changes = self.recent.entry(run_id.into()).or_insert_with(|| self.older.remove(run_id).unwrap_or_default());
        if changes.len() == MAX_CHANGES {
            changes.remove(0);
        }
        changes.push((event_id.into(), status));
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_changes_as_its_run_does() {
        let (mut tracker, mut n) = (RunStatusTracker::default(), 0);
        for (kind, expected) in [
            ("step.started", None),
            ("flow.start", Some("running")),
            ("flow.start", None),
            ("flow.stalled", Some("stalled")),
            ("flow.progress", None),
            ("emit", Some("running")),
            ("flow.stalled", Some("stalled")),
            ("step.completed", Some("running")),
            ("flow.failed", Some("failed")),
            ("flow.completed", None),
            ("flow.retry", Some("running")),
            ("flow.retry", None),
            ("flow.completed", Some("completed")),
            ("flow.retry", None),
        ] {
            n += 1;
            assert_eq!(tracker.change("r", kind, &n.to_string()), expected, "{kind} as number {n}");
        }
        assert_eq!(tracker.change("cancelled", "flow.cancel", "1"), Some("canceled"));
        assert_eq!(tracker.change("cancelled", "flow.retry", "2"), None);
        assert_eq!(tracker.change("unknown", "flow.retry", "1"), Some("running"));
    }

    #[test]
    fn the_last_changes_of_a_run_are_made_again_by_the_events_that_made_them() {
        let mut tracker = RunStatusTracker::default();
        let kind = |n: usize| if n.is_multiple_of(2) { "flow.stalled" } else { "emit" };
        for n in 0..=MAX_CHANGES {
            assert!(tracker.change("r", kind(n), &n.to_string()).is_some());
        }
        assert_eq!(tracker.change("r", kind(1), "1"), Some("running"));
        assert_eq!(tracker.change("r", kind(0), "0"), None, "it is not kept, and changes nothing now");
    }

    #[test]
    fn the_statuses_of_the_newest_runs_are_kept() {
        let mut tracker = RunStatusTracker::default();
        tracker.change("r", "flow.start", "1");
        let mut others = 0..;
        let mut start_others = |tracker: &mut RunStatusTracker, count| {
            for n in others.by_ref().take(count) {
                tracker.change(&format!("other {n}"), "flow.start", "1");
            }
        };
        start_others(&mut tracker, MAX_RUNS);
        assert_eq!(tracker.change("r", "flow.start", "2"), None, "it runs already");
        assert_eq!(tracker.change("r", "flow.stalled", "3"), Some("stalled"));
        assert_eq!(tracker.change("r", "flow.start", "1"), Some("running"), "its changes came along");
        start_others(&mut tracker, 2 * MAX_RUNS);
        assert_eq!(tracker.change("r", "flow.stalled", "4"), Some("stalled"), "it is published again");
        assert!(tracker.recent.len() <= MAX_RUNS && tracker.older.len() <= MAX_RUNS);
    }
}
