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

#[cfg(test)]
mod tests {
    use super::*;

    fn push(topics: &mut RetainedTopics, topic: &str, n: usize, now_ms: u64) {
        topics.push(&Message::new(topic, "t", n.to_string().into()), now_ms);
    }

    fn matching(topics: &RetainedTopics, pattern: &str, now_ms: u64) -> Vec<usize> {
        topics.matching(pattern, now_ms).iter().map(|message| message.json().parse().unwrap()).collect()
    }

    #[test]
    fn the_newest_messages_of_each_topic_are_retained_in_the_order_of_their_publication() {
        let mut topics = RetainedTopics::new(Retain { max_events: Some(2), max_age_ms: None });
        for (n, topic) in ["a", "b", "a", "a", "b"].into_iter().enumerate() {
            push(&mut topics, topic, n, 0);
        }
        assert_eq!((matching(&topics, "a", 0), matching(&topics, "*", 0)), (vec![2, 3], vec![1, 2, 3, 4]));
        assert_eq!(topics.len(), 4);
        let mut last = RetainedTopics::new(Retain { max_events: Some(0), max_age_ms: None });
        (0..3).for_each(|n| push(&mut last, "a", n, 0));
        assert_eq!(matching(&last, "a", 0), [2], "the last is always retained");
    }

    #[test]
    fn messages_are_retained_only_so_long_and_expired_topics_are_removed() {
        let mut topics = RetainedTopics::new(Retain { max_events: None, max_age_ms: Some(10) });
        for (n, now_ms) in [(0, 100), (1, 105)] {
            push(&mut topics, "a", n, now_ms);
        }
        assert_eq!((matching(&topics, "a", 110), matching(&topics, "a", 111)), (vec![0, 1], vec![1]));
        push(&mut topics, "a", 2, 110);
        assert_eq!(topics.len(), 3);
        push(&mut topics, "a", 3, 111);
        assert_eq!(topics.len(), 3, "the first is removed");
        for topic in ["b", "c"] {
            push(&mut topics, topic, 0, 115);
        }
        push(&mut topics, "d", 0, 121);
        assert_eq!((topics.len(), topics.topics.contains_key("a")), (6, true));
        // Two at a time.
        push(&mut topics, "d", 1, 200);
        assert!(!topics.topics.contains_key("a") && !topics.topics.contains_key("b"));
        assert!(topics.topics.contains_key("c"));
        push(&mut topics, "d", 2, 200);
        assert_eq!((topics.len(), topics.by_last_message.len()), (2, 1));
    }

    #[test]
    fn beyond_the_limit_the_topic_without_a_message_for_the_longest_time_is_removed() {
        let mut topics = RetainedTopics::new(Retain::default());
        for n in 0..MAX_RETAINED_TOPICS {
            push(&mut topics, &n.to_string(), n, 0);
        }
        push(&mut topics, "0", 0, 0);
        assert_eq!(topics.topics.len(), MAX_RETAINED_TOPICS);
        push(&mut topics, "one more", 0, 0);
        assert_eq!(topics.topics.len(), MAX_RETAINED_TOPICS);
        assert!(topics.topics.contains_key("0") && !topics.topics.contains_key("1"));
    }
}
