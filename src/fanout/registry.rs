//! The topic registry: finds the subscribers of a topic.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use super::Mailbox;
use super::patterns::PatternIndex;
use crate::sync::{read, write};
use crate::topic::is_pattern;

/// A subscriber of a topic or pattern.
pub struct Subscriber<T, M> {
    /// Unique in the process.
    pub id: u64,
    /// The topic or pattern as it was given.
    pub topic: Arc<str>,
    /// Queues its events.
    pub mailbox: Arc<Mailbox<T>>,
    /// Data of the registry's owner: a stream keeps the filter here, a store nothing.
    pub meta: M,
}

type Subscribers<T, M> = Vec<Arc<Subscriber<T, M>>>;

struct Routes<T, M> {
    exact: HashMap<Arc<str>, Subscribers<T, M>>,
    /// By text, so that a thousand subscribers of one pattern cost one match.
    patterns: PatternIndex<Subscribers<T, M>>,
}

/// The subscribers of all topics and patterns. Publishers match concurrently.
pub struct TopicRegistry<T, M = ()> {
    routes: RwLock<Routes<T, M>>,
}

impl<T, M> Default for TopicRegistry<T, M> {
    fn default() -> Self {
        Self { routes: RwLock::new(Routes { exact: HashMap::new(), patterns: PatternIndex::default() }) }
    }
}

impl<T, M> TopicRegistry<T, M> {
    /// Adds a subscriber. Returns whether it is the first of its topic or pattern.
    pub fn add(&self, subscriber: Arc<Subscriber<T, M>>) -> bool {
        let mut routes = write(&self.routes);
        let topic = subscriber.topic.clone();
        let list =
            if is_pattern(&topic) { routes.patterns.entry(&topic) } else { routes.exact.entry(topic).or_default() };
        list.push(subscriber);
        list.len() == 1
    }

    /// Removes a subscriber. Returns it, and whether it was the last of its topic or pattern; None if it is unknown.
    pub fn remove(&self, topic: &str, id: u64) -> Option<(Arc<Subscriber<T, M>>, bool)> {
        fn take<T, M>(list: &mut Subscribers<T, M>, id: u64) -> Option<(Arc<Subscriber<T, M>>, bool)> {
            let at = list.iter().position(|subscriber| subscriber.id == id)?;
            Some((list.remove(at), list.is_empty()))
        }
        let mut routes = write(&self.routes);
        if is_pattern(topic) {
            let removed = take(routes.patterns.get_mut(topic)?, id)?;
            if removed.1 {
                routes.patterns.remove(topic);
            }
            Some(removed)
        } else {
            let removed = take(routes.exact.get_mut(topic)?, id)?;
            if removed.1 {
                routes.exact.remove(topic);
            }
            Some(removed)
        }
    }

    /// Calls `each` for every subscriber of this topic, and of every pattern that matches it.
    pub fn for_each_match(&self, topic: &str, mut each: impl FnMut(&Arc<Subscriber<T, M>>)) {
        let routes = read(&self.routes);
        if let Some(list) = routes.exact.get(topic) {
            list.iter().for_each(&mut each);
        }
        routes.patterns.for_each_match(topic, |list| list.iter().for_each(&mut each));
    }

    /// Calls `each` for every subscriber.
    pub fn for_each(&self, each: impl FnMut(&Arc<Subscriber<T, M>>)) {
        let routes = read(&self.routes);
        routes.exact.values().chain(routes.patterns.iter().map(|(_, list)| list)).flatten().for_each(each);
    }

    /// Returns the topics and patterns that have subscribers, each once, sorted.
    pub fn topics(&self) -> Vec<Arc<str>> {
        let routes = read(&self.routes);
        let mut topics: Vec<_> =
            routes.exact.keys().chain(routes.patterns.iter().map(|(pattern, _)| pattern)).cloned().collect();
        topics.sort_unstable();
        topics
    }

    /// Returns the number of subscribers of exactly this topic or pattern.
    pub fn count(&self, topic: &str) -> usize {
        let routes = read(&self.routes);
        if is_pattern(topic) {
            routes.patterns.get(topic).map_or(0, Vec::len)
        } else {
            routes.exact.get(topic).map_or(0, Vec::len)
        }
    }

    /// Closes every mailbox and removes all subscribers.
    pub fn close(&self) {
        self.for_each(|subscriber| subscriber.mailbox.close());
        let mut routes = write(&self.routes);
        routes.exact.clear();
        routes.patterns.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::{Overflow, next_id};

    #[test]
    fn exact_topics_and_patterns_are_found_until_they_are_removed() {
        let registry: TopicRegistry<u32> = TopicRegistry::default();
        let subscribe = |topic: &str| {
            let mailbox = Arc::new(Mailbox::new(8, Overflow::DropOldest));
            let subscriber = Arc::new(Subscriber { id: next_id(), topic: topic.into(), mailbox, meta: () });
            (subscriber.id, registry.add(subscriber))
        };
        let (exact, first) = subscribe("a:b");
        let (glob, _) = subscribe("a:*");
        assert!(first && !subscribe("a:*").1);
        let matches = |topic: &str| {
            let mut n = 0;
            registry.for_each_match(topic, |_| n += 1);
            n
        };
        assert_eq!((matches("a:b"), matches("a:c"), matches("b")), (3, 2, 0));
        assert_eq!((registry.topics().len(), registry.count("a:*")), (2, 2));
        let remove = |topic: &str, id| registry.remove(topic, id).map(|(_, last)| last);
        assert_eq!(remove("a:b", exact), Some(true));
        assert_eq!(remove("a:*", glob), Some(false));
        assert_eq!(remove("a:*", glob), None);
    }
}
