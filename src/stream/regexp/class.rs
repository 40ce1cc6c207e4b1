//! Sets of characters as ECMAScript defines them.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::Flags;

/// Where the private characters of plane 16 begin that stand for the code units from 0.
const HALVES: u32 = 0x10_0000;

/// Returns the character that stands for half of a surrogate pair.
pub(super) fn half(unit: u16) -> char {
    char::from_u32(HALVES + u32::from(unit)).expect("plane 16")
}

/// Returns a set of these ranges of code points or, without the flag u, code units.
///
/// With it a surrogate is one without its other half, which no text of Rust's has: nothing matches it.
pub(super) fn ranges(flags: Flags, ranges: &[(u32, u32)]) -> ClassUnicode {
    let mut set = ClassUnicode::empty();
    let mut push = |from: u32, to: u32| {
        if let (true, Some(from), Some(to)) = (from <= to, char::from_u32(from), char::from_u32(to)) {
            set.push(ClassUnicodeRange::new(from, to));
        }
    };
    for &(from, to) in ranges {
        push(from, to.min(0xD7FF));
        if !flags.unicode {
            push(HALVES + from.max(0xD800), HALVES + to.min(0xDFFF));
        }
        push(from.max(0xE000), to);
    }
    set
}

/// Returns a set of one.
pub(super) fn one(flags: Flags, c: u32) -> ClassUnicode {
    ranges(flags, &[(c, c)])
}

/// Returns everything that a text can have.
pub(super) fn all(flags: Flags) -> ClassUnicode {
    ranges(flags, &[(0, if flags.unicode { 0x10_FFFF } else { 0xFFFF })])
}

/// Returns everything else.
pub(super) fn complement(flags: Flags, set: &ClassUnicode) -> ClassUnicode {
    let mut all = all(flags);
    all.difference(set);
    all
}

/// Returns the set with all that is the same without regard to case, if the flags say so.
pub(super) fn close(flags: Flags, mut set: ClassUnicode) -> ClassUnicode {
    if flags.ignore_case && flags.unicode {
        set.case_fold_simple();
    } else if flags.ignore_case {
        let mut more = Vec::new();
        for same in CASES.iter() {
            if same.iter().any(|c| contains(&set, *c)) {
                more.extend(same.iter().map(|&c| ClassUnicodeRange::new(c, c)));
            }
        }
        set.union(&ClassUnicode::new(more));
    }
    set
}

fn contains(set: &ClassUnicode, c: char) -> bool {
    let ranges = set.ranges();
    let after = ranges.partition_point(|range| range.start() <= c);
    after > 0 && ranges[after - 1].end() >= c
}

/// The code units that have the same upper case, where there is more than one. As ECMAScript says: an upper case of several
/// units does not count, nor one in ASCII of a unit that is not.
static CASES: LazyLock<Vec<Vec<char>>> = LazyLock::new(|| {
    let mut cases: HashMap<char, Vec<char>> = HashMap::new();
    for c in '\0'..='\u{FFFF}' {
        let mut upper = c.to_uppercase();
        let canonical = match (upper.next(), upper.next()) {
            (Some(upper), None) if upper <= '\u{FFFF}' && (c.is_ascii() || !upper.is_ascii()) => upper,
            _ => c,
        };
        cases.entry(canonical).or_default().push(c);
    }
    cases.into_values().filter(|same| same.len() > 1).collect()
});

/// Returns the class of `\d`, `\D`, `\s`, `\S`, `\w` or `\W`.
pub(super) fn escape(flags: Flags, letter: char) -> Option<ClassUnicode> {
    let set = match letter.to_ascii_lowercase() {
        'd' => ranges(flags, &[(0x30, 0x39)]),
        's' => ranges(flags, SPACES),
        'w' => {
            let set = ranges(flags, &[(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]);
            if flags.unicode { close(flags, set) } else { set }
        }
        _ => return None,
    };
    Some(finish(flags, set, letter.is_ascii_uppercase()))
}

const SPACES: &[(u32, u32)] = &[
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
];

/// Line terminators: what `.` leaves out, and where `^` and `$` match with the flag m.
const TERMINATORS: &[(u32, u32)] = &[(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)];

/// Returns the class of `.`.
pub(super) fn dot(flags: Flags) -> ClassUnicode {
    if flags.dot_all { all(flags) } else { complement(flags, &ranges(flags, TERMINATORS)) }
}

/// Returns whether a set has some line terminators and not the others.
pub(super) fn tells_terminators_apart(set: &ClassUnicode) -> bool {
    let count = ['\n', '\r', '\u{2028}', '\u{2029}'].iter().filter(|c| contains(set, **c)).count();
    count != 0 && count != 4
}

/// Returns the class of `\p{…}` or `\P{…}`, or nothing where the property is not known, or one of strings.
pub(super) fn property(flags: Flags, name: &str, negated: bool) -> Option<ClassUnicode> {
    let hir = regex_syntax::Parser::new().parse(&format!(r"\p{{{name}}}")).ok()?;
    let set = match hir.into_kind() {
        HirKind::Class(Class::Unicode(set)) => set,
        _ => return None,
    };
    Some(finish(flags, set, negated))
}

/// Negates a set, and closes it over case, in this order.
fn finish(flags: Flags, set: ClassUnicode, negated: bool) -> ClassUnicode {
    close(flags, if negated { complement(flags, &set) } else { set })
}
