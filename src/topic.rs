//! Topics and patterns: the glob of Redis, byte for byte, so that every backend agrees with a real server.
//!
//! `*` is any run of bytes (colons too), `?` one byte, `[a-c]` and `[^a]` one of a class, `\` takes the next byte as it is.

use std::sync::OnceLock;

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

/// Returns whether this text is a pattern rather than the name of one topic.
pub fn is_pattern(text: &str) -> bool {
    text.bytes().any(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'))
}

/// A compiled pattern. Cheap to match where the pattern is a name, a prefix and `*`, or a name between two stars.
///
/// ```
/// use nvent_native::topic::Glob;
///
/// let orders = Glob::new("order:*:[a-c]?");
/// assert!(orders.matches("order:2026:a1"));
/// assert!(orders.matches("order:2026:07:b2"), "a star crosses colons");
/// assert!(!orders.matches("order:2026:d4"));
/// assert!(Glob::new(r"order\*").matches("order*"), "a backslash escapes");
/// assert_eq!(orders.literal_prefix(), "order:");
/// ```
#[derive(Debug, Clone)]
pub struct Glob {
    text: Box<str>,
    shape: Shape,
    /// Built when a topic has cost more than its share.
    automaton: OnceLock<Box<Automaton>>,
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
        Self { text: pattern.into(), shape, automaton: OnceLock::new() }
    }

    /// Returns what every matching topic begins with.
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
    /// which it is true, such as very long ones with hundreds of stars, but never true for others.
    pub fn covers(&self, other: &Self) -> bool {
        covers(&tokens(self.text.as_bytes()), &tokens(other.text.as_bytes()))
    }

    /// Returns whether the topic matches.
    pub fn matches(&self, topic: &str) -> bool {
        match self.shape {
            Shape::Literal => *self.text == *topic,
            // Redis matches nothing against an empty topic, and there is none: `check_name`.
            Shape::Prefix(len) => topic.as_bytes().starts_with(&self.text.as_bytes()[..len]),
            Shape::General => {
                let (pattern, topic) = (self.text.as_bytes(), topic.as_bytes());
                matches(pattern, topic, STEPS_PER_BYTE * (pattern.len() + topic.len())).unwrap_or_else(|| {
                    self.automaton.get_or_init(|| Box::new(Automaton::new(&tokens(pattern)))).matches(topic)
                })
            }
        }
    }
}

/// Steps of the matcher for each byte of pattern and topic before the automaton takes over. Ordinary patterns take one or
/// two; `*aaa…b` on `aaa…` would take the product of both lengths.
const STEPS_PER_BYTE: usize = 16;
/// What one look at a class counts for, at most.
const MAX_CLASS_STEPS: usize = 64;

/// Matches as Redis does (`stringmatchlen`) without recursion: only the last `*` ever needs to be tried again. Returns None
/// if that takes more than `budget` steps.
fn matches(pattern: &[u8], text: &[u8], mut budget: usize) -> Option<bool> {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if t == text.len() {
            return Some(pattern[p..].iter().all(|&b| b == b'*'));
        }
        let steps = if pattern.get(p) == Some(&b'[') { (pattern.len() - p).min(MAX_CLASS_STEPS) } else { 1 };
        budget = budget.checked_sub(steps)?;
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
            None => return Some(false),
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
                match &pattern[p..] {
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
        // Where no byte matches, nothing matches the whole, whatever follows.
        let (mut set, mut next) = ([false; 256], p + 1);
        for byte in 0..=u8::MAX {
            if let Some(after) = match_one(pattern, p, byte) {
                set[usize::from(byte)] = true;
                next = after;
            }
        }
        tokens.push(Token::Byte(Box::new(set)));
        p = next;
    }
    tokens
}

/// A pattern as a set of positions, 64 to a word, that is moved on by each byte: the time is the product of the topic's
/// length and the pattern's, divided by 64, whatever they contain.
#[derive(Debug, Clone)]
struct Automaton {
    words: usize,
    /// The position after the last byte of the pattern.
    end: usize,
    /// The positions at which a star stands.
    stars: Box<[u64]>,
    /// For each byte, the positions from which it leads to the next.
    steps: Box<[u64]>,
}

impl Automaton {
    fn new(tokens: &[Token]) -> Self {
        let end = tokens.iter().filter(|token| matches!(token, Token::Byte(_))).count();
        let words = end / 64 + 1;
        let mut stars = vec![0; words].into_boxed_slice();
        let mut steps = vec![0; 256 * words].into_boxed_slice();
        let mut position = 0;
        for token in tokens {
            match token {
                Token::Star => stars[position / 64] |= 1 << (position % 64),
                Token::Byte(set) => {
                    for byte in (0..256).filter(|byte| set[*byte]) {
                        steps[byte * words + position / 64] |= 1 << (position % 64);
                    }
                    position += 1;
                }
            }
        }
        Self { words, end, stars, steps }
    }

    fn matches(&self, text: &[u8]) -> bool {
        let mut reached = vec![0u64; self.words];
        reached[0] = 1;
        for byte in text {
            let steps = &self.steps[usize::from(*byte) * self.words..][..self.words];
            let mut carry = 0;
            for ((reached, step), star) in reached.iter_mut().zip(steps).zip(&self.stars) {
                let moved = *reached & step;
                *reached = moved << 1 | carry | *reached & star;
                carry = moved >> 63;
            }
        }
        reached[self.end / 64] >> (self.end % 64) & 1 == 1
    }
}

/// Comparisons of two parts of patterns that `covers` makes before it returns false.
const MAX_COMPARISONS: usize = 100_000;

/// Simulates `outer` on the parts of `inner`: a star of `inner` can only be covered by a star.
fn covers(outer: &[Token], inner: &[Token]) -> bool {
    // The positions in `outer` that the parts of `inner` so far can reach, ascending.
    let mut reached = Vec::new();
    let reach = |reached: &mut Vec<usize>, mut at: usize| {
        loop {
            if reached.last().is_none_or(|last| *last < at) {
                reached.push(at);
            }
            if !matches!(outer.get(at), Some(Token::Star)) {
                break;
            }
            at += 1;
        }
    };
    reach(&mut reached, 0);
    let mut budget = MAX_COMPARISONS;
    for token in inner {
        let Some(left) = budget.checked_sub(reached.len()) else { return false };
        budget = left;
        let mut next = Vec::new();
        for at in reached {
            match (outer.get(at), token) {
                (Some(Token::Star), _) => reach(&mut next, at),
                (Some(Token::Byte(outer)), Token::Byte(inner))
                    if outer.iter().zip(inner.iter()).all(|(outer, inner)| *outer || !inner) =>
                {
                    reach(&mut next, at + 1);
                }
                _ => {}
            }
        }
        reached = next;
    }
    reached.last() == Some(&outer.len())
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
            ("[\\]a]b", "ab", true),
            ("[^e]", "^", true),
            ("[a-c-e]", "d", false),
            ("[a-c-e]", "-", true),
            ("[]*", "x", false),
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
    fn a_pattern_that_would_take_the_product_of_both_lengths_is_left_to_the_automaton() {
        let long = "a".repeat(4_000);
        let topic = "a".repeat(8_000);
        for pattern in [
            format!("*{long}b"),
            format!("*{long}b*"),
            format!("*{}b", "?".repeat(4_000)),
            format!("*{}c*", "[ab]".repeat(1_000)),
            format!("*{}b*", "a?".repeat(2_000)),
        ] {
            let budget = STEPS_PER_BYTE * (pattern.len() + topic.len());
            assert_eq!(matches(pattern.as_bytes(), topic.as_bytes(), budget), None, "{}", &pattern[..8]);
            let glob = Glob::new(&pattern);
            assert!(!glob.matches(&topic));
            assert!(glob.matches(&format!("{topic}{}", if pattern.contains('c') { 'c' } else { 'b' })));
        }
    }

    #[test]
    fn matcher_and_automaton_agree() {
        let pattern = "[ab*?\\[\\]^\\\\-]{0,9}";
        proptest::proptest!(|(pattern in pattern, topic in "[ab*?^\\[\\]\\\\-]{1,12}")| {
            let found = Automaton::new(&tokens(pattern.as_bytes())).matches(topic.as_bytes());
            proptest::prop_assert_eq!(Some(found), matches(pattern.as_bytes(), topic.as_bytes(), usize::MAX));
        });
    }

    #[test]
    fn an_automaton_knows_every_byte_and_keeps_the_stars_of_each_word() {
        let found = |pattern: &str, topic: &str| Automaton::new(&tokens(pattern.as_bytes())).matches(topic.as_bytes());
        assert!(found("?", "\0") && found("??", "é") && !found("?", "é"));
        for length in [62, 63, 64, 65, 130] {
            let a = "a".repeat(length);
            let pattern = format!("{a}*b*c");
            for (rest, expected) in [("xxbxxc", true), ("bc", true), ("xxbxxd", false), ("xxc", false)] {
                assert_eq!(found(&pattern, &format!("{a}{rest}")), expected, "{length} and {rest}");
            }
        }
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
    fn gives_up_on_what_takes_too_long_to_compare() {
        let stars = "*a".repeat(2_000);
        assert!(!Glob::new(&stars).covers(&Glob::new(&stars)));
        // Long alone is no reason.
        let (long, name) = (format!("{}*", "a".repeat(4_000)), "a".repeat(8_000));
        assert!(Glob::new(&long).covers(&Glob::new(&name)));
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
