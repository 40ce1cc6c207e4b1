//! JavaScript's regular expressions, matched in linear time.
//!
//! A pattern is parsed as ECMAScript says, with Annex B, and becomes a regex-syntax expression whose character classes are
//! spelt out. Nothing of the regex crate's own syntax is involved, so nothing can mean something else than in JavaScript. What
//! has no equivalent (look-around, back-references, modifiers, classes of strings) is refused.
//!
//! Three things are not in the expression but in the text that is matched:
//!
//! - Without the flags u and v, JavaScript matches UTF-16 code units. Surrogates are no characters of Rust's, so half of a
//!   pair is written as a private one of plane 16, which no code unit is: see [`class::half`].
//! - With i and u, `\b` takes U+017F and U+212A for the letters s and k, and so does everything else: they are replaced.
//! - With m, `^` and `$` look for four line terminators, the engine for one. A pattern that cannot distinguish them is matched
//!   with all four as `\n`; one that can is refused.

mod class;
mod parse;

use std::borrow::Cow;

use regex_automata::meta::{Config, Regex};
use regex_syntax::hir::{Hir, Look};

use crate::error::{Error, Result};

/// Bounds what a pattern compiles to, and so what a match costs for each character.
const MAX_PROGRAM_BYTES: usize = 10 * 1024 * 1024;

/// Longest pattern, in UTF-16 code units.
const MAX_PATTERN_LENGTH: usize = 10_000;

/// What the flags of a RegExp change.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    multiline: bool,
    dot_all: bool,
    /// u or v: code points instead of code units.
    unicode: bool,
    /// v: set operations in classes.
    sets: bool,
    sticky: bool,
}

impl Flags {
    fn parse(flags: &str) -> std::result::Result<Self, String> {
        let mut parsed = Self::default();
        for flag in flags.chars() {
            match flag {
                'i' => parsed.ignore_case = true,
                'm' => parsed.multiline = true,
                's' => parsed.dot_all = true,
                'u' => parsed.unicode = true,
                'v' => (parsed.unicode, parsed.sets) = (true, true),
                'y' => parsed.sticky = true,
                // Global and indices change nothing for a test from the start.
                'g' | 'd' => {}
                other => return Err(format!("the flag {other:?} is not known")),
            }
        }
        if parsed.sets && parsed.ignore_case {
            // What a negated class means then differs from engine to engine, and from one version of V8 to the next.
            return Err("the flags i and v together are not supported; i and u are".into());
        }
        Ok(parsed)
    }
}

/// A compiled expression: `test` of a RegExp whose `lastIndex` is 0.
#[derive(Debug, Clone)]
pub(super) struct RegExp {
    regex: Regex,
    flags: Flags,
    /// `^` or `$` look for line terminators.
    by_line: bool,
}

impl RegExp {
    /// Compiles the `source` and `flags` of a JavaScript RegExp. Fails with [`crate::error::Code::Invalid`], naming the part
    /// that cannot be matched.
    pub(super) fn new(source: &str, flags: &str) -> Result<Self> {
        Self::compile(source, flags).map_err(|what| {
            let shown: String = source.chars().take(100).collect();
            let rest = if shown.len() < source.len() { "…" } else { "" };
            Error::invalid(format!(
                "options.filter: /{shown}{rest}/{flags} cannot be matched natively: {what}. Without a filter the handler can test the type itself"
            ))
        })
    }

    fn compile(source: &str, flags: &str) -> std::result::Result<Self, String> {
        let flags = Flags::parse(flags)?;
        let length = source.encode_utf16().count();
        if length > MAX_PATTERN_LENGTH {
            return Err(format!("it has {length} characters; {MAX_PATTERN_LENGTH} are allowed"));
        }
        let parsed = parse::parse(source, flags)?;
        let hir = if flags.sticky { Hir::concat(vec![Hir::look(Look::Start), parsed.hir]) } else { parsed.hir };
        let config = Config::new().nfa_size_limit(Some(MAX_PROGRAM_BYTES));
        let regex = Regex::builder().configure(config).build_from_hir(&hir).map_err(|_| {
            format!(
                "it compiles to more than {} MB (large repetition counts multiply)",
                MAX_PROGRAM_BYTES / 1024 / 1024
            )
        })?;
        Ok(Self { regex, flags, by_line: parsed.by_line })
    }

    /// Returns whether it is found in a text.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(&*self.prepared(text))
    }

    /// Returns the text that the expression was compiled for.
    fn prepared<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if text.is_ascii() && !(self.by_line && text.contains('\r')) {
            return text.into();
        }
        let fold = self.flags.ignore_case && self.flags.unicode;
        let mut prepared = String::with_capacity(text.len() + 8);
        for c in text.chars() {
            match c {
                '\r' | '\u{2028}' | '\u{2029}' if self.by_line => prepared.push('\n'),
                '\u{17F}' if fold => prepared.push('s'),
                '\u{212A}' if fold => prepared.push('k'),
                '\u{10000}'.. if !self.flags.unicode => {
                    prepared.extend(c.encode_utf16(&mut [0; 2]).iter().map(|&half| class::half(half)));
                }
                _ => prepared.push(c),
            }
        }
        prepared.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RegExp;

    /// JavaScript throws a SyntaxError for these sources, so only Rust callers can pass them.
    #[test]
    fn refuses_what_is_no_pattern() {
        for (source, flags, why) in [
            ("a)", "", "a ) without its ("),
            ("(a", "", "a ( without its )"),
            ("*", "", "repeats nothing"),
            ("a|+", "", "repeats nothing"),
            ("(?", "", "modifiers"),
            ("(?<n", "", "ends too early"),
            ("{1}", "", "repeats nothing"),
            ("{", "u", "repeats nothing"),
            ("a{", "u", "must be escaped"),
            ("a{2,1}", "", "out of order"),
            ("[b-a]", "", "range out of order"),
            (r"[\d-z]", "u", "a range of classes"),
            ("[a", "", "ends too early"),
            ("\\", "", "ends too early"),
            (r"\x", "u", r"\x has no number"),
            (r"\u{110000}", "u", r"\u has no number"),
            (r"\u{1g}", "u", r"\u has no number"),
            (r"\c", "u", r"\c has no letter"),
            (r"\p", "u", r"\p has no name"),
            ("a", "x", "flag 'x' is not known"),
        ] {
            let message = RegExp::new(source, flags).expect_err(source).to_string();
            assert!(message.contains(why), "/{source}/{flags}: {message}");
        }
    }

    proptest! {
        /// Checks that what is no pattern is refused, or means something: it never panics.
        #[test]
        fn takes_any_text_for_a_pattern(
            source in r"([a-z0-9\\\[\]\(\)\{\}\?\*\+\|\^\$,<>=!:&-]|\\[a-zA-Z0-9]|\\u\{?[0-9a-f]{1,6}\}?|.){0,40}",
            flags in "[imsuvy]{0,3}",
            text in ".{0,20}",
        ) {
            if let Ok(regexp) = RegExp::new(&source, &flags) {
                regexp.is_match(&text);
            }
        }
    }
}
