//! The messages that a memory stream retains.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::config::Retain;
use crate::stream::Message;
use crate::topic::Glob;

/// Limit of retained topics. Beyond it the topic without a message for the longest time is removed.
const MAX_RETAINED_TOPICS: usize = 10_000;

struct Retained {
    sequence: u64,
    at_ms: u64,
    message: Message,
}

/// The retained messages of all topics.
pub(super) struct RetainedTopics {
    limits: Retain,
    sequence: u64,
    topics: HashMap<Arc<str>, VecDeque<Retained>>,
    /// Topics by the sequence number of their last message.
    by_last_message: BTreeMap<u64, Arc<str>>,
}

impl RetainedTopics {
    pub(super) fn new(limits: Retain) -> Self {
        Self { limits, sequence: 0, topics: HashMap::new(), by_last_message: BTreeMap::new() }
    }

    /// Returns the time before which nothing is retained.
    fn oldest(&self, now_ms: u64) -> u64 {
        self.limits.max_age_ms.map_or(0, |age| now_ms.saturating_sub(age))
    }

    /// Retains a message, and removes what is beyond the limits.
    pub(super) fn push(&mut self, message: &Message, now_ms: u64) {
        let oldest = self.oldest(now_ms);
        self.sequence += 1;
        let messages = self.topics.entry(message.topic().clone()).or_default();
        if let Some(last) = messages.back() {
            self.by_last_message.remove(&last.sequence);
        }
        messages.push_back(Retained { sequence: self.sequence, at_ms: now_ms, message: message.clone() });
        while messages.len() > self.limits.max_events.unwrap_or(usize::MAX).max(1)
            || messages.front().is_some_and(|first| first.at_ms < oldest)
        {
            messages.pop_front();
        }
        self.by_last_message.insert(self.sequence, message.topic().clone());
        // Topics whose last message has expired are removed as well, at most two per push.
        for _ in 0..2 {
            let Some((_, topic)) = self.by_last_message.first_key_value() else { break };
            let expired = self.topics.get(topic).and_then(VecDeque::back).is_some_and(|last| last.at_ms < oldest);
            if !expired && self.topics.len() <= MAX_RETAINED_TOPICS {
                break;
            }
            if let Some((_, topic)) = self.by_last_message.pop_first() {
                self.topics.remove(&topic);
            }
        }
    }

    /// Returns the retained messages of every topic that matches, in the order of publication.
    pub(super) fn matching(&self, pattern: &str, now_ms: u64) -> Vec<&Message> {
        let (glob, oldest) = (Glob::new(pattern), self.oldest(now_ms));
        let topics = self.topics.iter().filter(|(topic, _)| glob.matches(topic));
        let mut retained: Vec<_> = topics.flat_map(|(_, all)| all).filter(|one| one.at_ms >= oldest).collect();
        retained.sort_by_key(|one| one.sequence);
        retained.into_iter().map(|one| &one.message).collect()
    }

    /// Returns the number of retained messages.
    pub(super) fn len(&self) -> usize {
        self.topics.values().map(VecDeque::len).sum()
    }
}
