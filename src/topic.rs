//! Topics and patterns: the glob of Redis, byte for byte, so that every backend agrees with a real server.
//!
//! `*` is any run of bytes (colons too), `?` one byte, `[a-c]` and `[^a]` one of a class, `\` takes the next byte as it is.

use crate::error::{Error, Result};

/// Longest subject, topic, key or id, in bytes.
pub const MAX_NAME_BYTES: usize = 8 * 1024;

/// Checks a subject, topic, key, id or collection name: not empty, not absurdly long. `what` names it in the error.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("{what}: expected a non-empty string")));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::invalid(format!(
            "{what}: {} bytes are too long, at most {MAX_NAME_BYTES} are allowed",
            name.len()
        )));
    }
    Ok(())
}

/// Whether this text is a pattern rather than the name of one topic.
pub fn is_pattern(text: &str) -> bool {
    text.bytes().any(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'))
}

/// A compiled pattern. Cheap to match where the pattern is a name, a prefix and `*`, or a name between two stars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: Box<str>,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Literal,
    /// `text*`: the length of what stands before the star.
    Prefix(usize),
    General,
}

impl Glob {
    /// Compiles a pattern. Every text is a pattern: an unclosed class or a final `\` means what it means to Redis.
    pub fn new(pattern: &str) -> Self {
        let shape = if !is_pattern(pattern) {
            Shape::Literal
        } else if let Some(prefix) = pattern.strip_suffix('*').filter(|p| !is_pattern(p)) {
            Shape::Prefix(prefix.len())
        } else {
            Shape::General
        };
        Self { text: pattern.into(), shape }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether only one topic matches, the one that is spelt like the pattern.
    pub fn is_literal(&self) -> bool {
        self.shape == Shape::Literal
    }

    /// What every matching topic begins with.
    pub fn literal_prefix(&self) -> &str {
        match self.shape {
            Shape::Literal => &self.text,
            Shape::Prefix(len) => &self.text[..len],
            Shape::General => {
                let end = self.text.bytes().position(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'));
                &self.text[..end.unwrap_or(self.text.len())]
            }
        }
    }

    /// Returns whether every topic that `other` matches is matched by this pattern. False for a few pairs of patterns of
    /// which it is true, but never true for others.
    pub fn covers(&self, other: &Self) -> bool {
        covers(&tokens(self.text.as_bytes()), &tokens(other.text.as_bytes()))
    }

    /// Returns whether the topic matches.
    pub fn matches(&self, topic: &str) -> bool {
        match self.shape {
            Shape::Literal => *self.text == *topic,
            // Redis matches nothing against an empty topic, and there is none: `check_name`.
            Shape::Prefix(len) => topic.as_bytes().starts_with(&self.text.as_bytes()[..len]),
            Shape::General => matches(self.text.as_bytes(), topic.as_bytes()),
        }
    }
}

/// The matcher of Redis (`stringmatchlen`) without recursion: only the last `*` ever needs to be tried again.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if t == text.len() {
            return pattern[p..].iter().all(|&b| b == b'*') || text.is_empty() && pattern.is_empty();
        }
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if let Some(next) = (p < pattern.len()).then(|| match_one(pattern, p, text[t])).flatten() {
            p = next;
            t += 1;
            continue;
        }
        match retry {
            Some((after_star, from)) => {
                p = after_star;
                t = from + 1;
                retry = Some((after_star, t));
            }
            None => return false,
        }
    }
}

/// Matches one byte against what stands at `p`: where the pattern goes on, or nothing.
fn match_one(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    match pattern[p] {
        b'?' => Some(p + 1),
        b'[' => {
            p += 1;
            let negated = pattern.get(p) == Some(&b'^');
            if negated {
                p += 1;
            }
            let mut found = false;
            loop {
                let rest = &pattern[p.min(pattern.len())..];
                match rest {
                    // An unclosed class ends with the pattern.
                    [] => break,
                    [b'\\', escaped, ..] => {
                        found |= *escaped == byte;
                        p += 2;
                    }
                    [b']', ..] => {
                        p += 1;
                        break;
                    }
                    [from, b'-', to, ..] => {
                        // Redis compares `char`, which is signed on the platforms that we build for.
                        let (from, to, c) = (*from as i8, *to as i8, byte as i8);
                        found |= (from.min(to)..=from.max(to)).contains(&c);
                        p += 3;
                    }
                    [one, ..] => {
                        found |= *one == byte;
                        p += 1;
                    }
                }
            }
            (found != negated).then_some(p)
        }
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

/// A part of a pattern.
enum Token {
    /// Any run of bytes.
    Star,
    /// One byte of this set.
    Byte(Box<[bool; 256]>),
}

/// Splits a pattern into its parts.
fn tokens(pattern: &[u8]) -> Vec<Token> {
    let (mut tokens, mut p) = (Vec::new(), 0);
    while p < pattern.len() {
        if pattern[p] == b'*' {
            if !matches!(tokens.last(), Some(Token::Star)) {
                tokens.push(Token::Star);
            }
            p += 1;
            continue;
        }
        let (mut set, mut next) = ([false; 256], p + 1);
        for byte in 0..=u8::MAX {
            if let Some(after) = match_one(pattern, p, byte) {
                set[usize::from(byte)] = true;
                next = after;
            }
        }
        if !set.contains(&true) {
            // Nothing can match here, so nothing matches what follows.
            tokens.push(Token::Byte(Box::new(set)));
            return tokens;
        }
        tokens.push(Token::Byte(Box::new(set)));
        p = next;
    }
    tokens
}

/// Simulates `outer` on the parts of `inner`: a star of `inner` can only be covered by a star.
fn covers(outer: &[Token], inner: &[Token]) -> bool {
    // The positions in `outer` that the parts of `inner` so far can reach.
    let mut reached = vec![false; outer.len() + 1];
    reached[0] = true;
    let skip_stars = |reached: &mut Vec<bool>| {
        for at in 0..outer.len() {
            reached[at + 1] |= reached[at] && matches!(outer[at], Token::Star);
        }
    };
    skip_stars(&mut reached);
    for token in inner {
        let mut next = vec![false; outer.len() + 1];
        for at in (0..outer.len()).filter(|at| reached[*at]) {
            match (&outer[at], token) {
                (Token::Star, _) => next[at] = true,
                (Token::Byte(outer), Token::Byte(inner)) => {
                    next[at + 1] |= outer.iter().zip(inner.iter()).all(|(outer, inner)| *outer || !inner);
                }
                (Token::Byte(_), Token::Star) => {}
            }
        }
        skip_stars(&mut next);
        reached = next;
    }
    reached[outer.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_redis_on_its_own_examples_and_oddities() {
        for (pattern, topic, expected) in [
            ("store-sync:append:*", "store-sync:append:nq:flow:abc", true),
            ("flow:*", "flow:", true),
            ("flow:*", "flo", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hxllo", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("*:*:*", "a:b:c", true),
            ("[abc", "a", true),
            ("[abc", "d", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("**", "x", true),
            ("?", "é", false),
            ("??", "é", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(topic), expected, "{pattern} on {topic}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_exponential_time() {
        let pattern = format!("{}b", "a*".repeat(200));
        assert!(!Glob::new(&pattern).matches(&"a".repeat(2_000)));
    }

    #[test]
    fn prefix_is_what_every_match_begins_with() {
        assert_eq!(Glob::new("flow:event:*").literal_prefix(), "flow:event:");
        assert_eq!(Glob::new("flow:?vent").literal_prefix(), "flow:");
        assert_eq!(Glob::new("flow").literal_prefix(), "flow");
    }

    #[test]
    fn a_pattern_covers_another_only_if_it_matches_all_its_topics() {
        for (outer, inner) in [
            ("job:?", "job:?"),
            ("job:?", "job:1"),
            ("job:?", "job:[12]"),
            ("*", "a*b?"),
            ("job:*", "job:*:x"),
            ("*:x", "a:*:x"),
            ("a*", "a**"),
            ("[a-c]*", "b*"),
            ("a\\*", "a\\*"),
            ("**", "*"),
            ("[^x]", "[a-c]"),
        ] {
            assert!(Glob::new(outer).covers(&Glob::new(inner)), "{outer} covers {inner}");
        }
        for (outer, inner) in [
            ("job:?", "job:*"),
            ("job:?", "job:??"),
            ("a*", "*"),
            ("[ab]", "?"),
            ("a\\*", "a*"),
            ("a?*", "a*"),
            ("a", "b"),
            ("a", "a*"),
            ("*b", "b*"),
        ] {
            assert!(!Glob::new(outer).covers(&Glob::new(inner)), "{outer} does not cover {inner}");
        }
    }

    #[test]
    fn a_covered_pattern_matches_no_topic_that_the_other_does_not() {
        let pattern = "[ab*?\\[\\]^-]{0,5}";
        proptest::proptest!(|(outer in pattern, inner in pattern, topic in "[ab-]{1,4}")| {
            let (outer, inner) = (Glob::new(&outer), Glob::new(&inner));
            if outer.covers(&inner) && inner.matches(&topic) {
                proptest::prop_assert!(outer.matches(&topic));
            }
        });
    }
}
