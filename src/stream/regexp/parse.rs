//! ECMAScript's grammar of patterns, with Annex B where neither of the flags u and v is set.
//!
//! A RegExp object has a valid source already. What is not valid is refused all the same, but not every rule is checked.

use regex_syntax::hir::{Class, ClassUnicode, Hir, Look, Repetition};

use super::{Flags, class};

type Result<T> = std::result::Result<T, String>;

/// Deepest nesting of groups and classes.
const MAX_DEPTH: usize = 100;

/// Highest count of a repetition.
const MAX_COUNT: u32 = 10_000;

/// A parsed pattern.
pub(super) struct Parsed {
    pub(super) hir: Hir,
    /// `^` or `$` look for line terminators.
    pub(super) by_line: bool,
}

/// Parses a pattern.
pub(super) fn parse(source: &str, flags: Flags) -> Result<Parsed> {
    let input: Vec<u32> = if flags.unicode {
        source.chars().map(u32::from).collect()
    } else {
        source.encode_utf16().map(u32::from).collect()
    };
    let mut parser =
        Parser { input, at: 0, flags, groups: 0, named: false, depth: 0, by_line: false, tells_apart: false };
    parser.count_groups();
    let hir = parser.disjunction()?;
    if parser.at < parser.input.len() {
        return Err("it has a ) without its (".into());
    }
    if parser.by_line && parser.tells_apart {
        return Err(
            "with the flag m, a pattern with ^ or $ that distinguishes line terminators is not supported".into()
        );
    }
    Ok(Parsed { hir, by_line: parser.by_line })
}

struct Parser {
    /// Code points with the flag u, otherwise code units.
    input: Vec<u32>,
    at: usize,
    flags: Flags,
    /// How many groups capture.
    groups: u32,
    /// Whether one of them has a name.
    named: bool,
    depth: usize,
    by_line: bool,
    tells_apart: bool,
}

/// A member of a class: a character, which may begin a range, or a set.
enum Member {
    Char(u32),
    Set(ClassUnicode),
}

impl Parser {
    /// Returns the character at an offset from here, or `\0`, which nothing looks for, where it is none of ASCII.
    fn ahead(&self, offset: usize) -> char {
        self.input.get(self.at + offset).filter(|c| **c < 0x80).and_then(|c| char::from_u32(*c)).unwrap_or('\0')
    }

    fn peek(&self) -> char {
        self.ahead(0)
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.input.len()
    }

    fn eat(&mut self, text: &str) -> bool {
        let is_here = text.chars().enumerate().all(|(offset, c)| self.ahead(offset) == c);
        if is_here {
            self.at += text.len();
        }
        is_here
    }

    fn next(&mut self) -> Result<u32> {
        let c = self.input.get(self.at).copied().ok_or("it ends too early")?;
        self.at += 1;
        Ok(c)
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(format!("it nests deeper than {MAX_DEPTH}")) } else { Ok(()) }
    }

    /// Counts the groups that capture: they decide what `\1` and `\k` mean.
    fn count_groups(&mut self) {
        let mut class_depth = 0;
        while !self.is_at_end() {
            match self.peek() {
                '\\' => self.at += 1,
                '[' if class_depth == 0 || self.flags.sets => class_depth += 1,
                ']' if class_depth > 0 => class_depth -= 1,
                '(' if class_depth == 0 => {
                    let named = self.ahead(1) == '?' && self.ahead(2) == '<' && !matches!(self.ahead(3), '=' | '!');
                    self.named |= named;
                    self.groups += u32::from(named || self.ahead(1) != '?');
                }
                _ => {}
            }
            self.at += 1;
        }
        self.at = 0;
    }

    fn disjunction(&mut self) -> Result<Hir> {
        self.enter()?;
        let mut alternatives = vec![self.alternative()?];
        while self.eat("|") {
            alternatives.push(self.alternative()?);
        }
        self.depth -= 1;
        Ok(Hir::alternation(alternatives))
    }

    fn alternative(&mut self) -> Result<Hir> {
        let mut terms = Vec::new();
        while !self.is_at_end() && !matches!(self.peek(), '|' | ')') {
            terms.push(self.term()?);
        }
        Ok(Hir::concat(terms))
    }

    fn term(&mut self) -> Result<Hir> {
        if let Some(look) = self.assertion() {
            return Ok(Hir::look(look));
        }
        let atom = match self.peek() {
            '(' => self.group()?,
            '[' => {
                let set = self.class()?;
                self.set(set)
            }
            '\\' => {
                let set = match self.escape(false)? {
                    Member::Char(c) => class::close(self.flags, class::one(self.flags, c)),
                    Member::Set(set) => set,
                };
                self.set(set)
            }
            '*' | '+' | '?' => return Err("it repeats nothing".into()),
            '{' if self.flags.unicode || self.counts()?.is_some() => return Err("it repeats nothing".into()),
            '.' => {
                self.at += 1;
                self.set(class::dot(self.flags))
            }
            _ => {
                let c = self.next()?;
                self.set(class::close(self.flags, class::one(self.flags, c)))
            }
        };
        let Some((min, max)) = self.quantifier()? else { return Ok(atom) };
        // Which of several matches is found makes no difference to a test.
        _ = self.eat("?");
        Ok(Hir::repetition(Repetition { min, max, greedy: true, sub: Box::new(atom) }))
    }

    fn set(&mut self, set: ClassUnicode) -> Hir {
        self.tells_apart |= class::tells_terminators_apart(&set);
        Hir::class(Class::Unicode(set))
    }

    fn assertion(&mut self) -> Option<Look> {
        let by_line = self.flags.multiline;
        let (look, length) = match (self.peek(), self.ahead(1)) {
            ('^', _) => (if by_line { Look::StartLF } else { Look::Start }, 1),
            ('$', _) => (if by_line { Look::EndLF } else { Look::End }, 1),
            ('\\', 'b') => (Look::WordAscii, 2),
            ('\\', 'B') => (Look::WordAsciiNegate, 2),
            _ => return None,
        };
        self.by_line |= by_line && length == 1;
        self.at += length;
        Some(look)
    }

    /// Reads a quantifier, if there is one.
    fn quantifier(&mut self) -> Result<Option<(u32, Option<u32>)>> {
        let counts = match self.peek() {
            '*' => (0, None),
            '+' => (1, None),
            '?' => (0, Some(1)),
            '{' => match self.counts()? {
                Some((counts, length)) => {
                    self.at += length;
                    return Ok(Some(counts));
                }
                None if self.flags.unicode => return Err("it has a { that must be escaped".into()),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(counts))
    }

    /// Returns `{n}`, `{n,}` or `{n,m}` and its length. Without the flag u anything else is text.
    #[expect(clippy::type_complexity, reason = "used twice, here")]
    fn counts(&self) -> Result<Option<((u32, Option<u32>), usize)>> {
        let text: String =
            (1..).map(|offset| self.ahead(offset)).take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        if self.ahead(text.len() + 1) != '}' {
            return Ok(None);
        }
        let (min, max) = text.split_once(',').map_or((&*text, None), |(min, max)| (min, Some(max)));
        if min.is_empty() || max.is_some_and(|max| max.contains(',')) {
            return Ok(None);
        }
        let number = |digits: &str| match digits.parse() {
            Ok(count) if count <= MAX_COUNT => Ok(count),
            _ => Err(format!("{{{text}}} repeats more than {MAX_COUNT} times")),
        };
        let min = number(min)?;
        let max = match max {
            None => Some(min),
            Some("") => None,
            Some(max) => Some(number(max)?),
        };
        if max.is_some_and(|max| max < min) {
            return Err(format!("{{{text}}} is out of order"));
        }
        Ok(Some(((min, max), text.len() + 2)))
    }

    fn group(&mut self) -> Result<Hir> {
        self.at += 1;
        if self.eat("?") {
            match (self.peek(), self.ahead(1)) {
                (':', _) => self.at += 1,
                ('=' | '!', _) => return Err(format!("a lookahead, (?{}…), is not supported", self.peek())),
                ('<', '=' | '!') => return Err(format!("a lookbehind, (?<{}…), is not supported", self.ahead(1))),
                ('<', _) => while self.next()? != u32::from('>') {},
                (other, _) => return Err(format!("a group with modifiers, (?{other}…), is not supported")),
            }
        }
        let hir = self.disjunction()?;
        if self.eat(")") { Ok(hir) } else { Err("it has a ( without its )".into()) }
    }

    /// Reads an escape, which is at its backslash.
    fn escape(&mut self, in_class: bool) -> Result<Member> {
        self.at += 1;
        let unicode = self.flags.unicode;
        let letter = self.peek();
        if let Some(set) = class::escape(self.flags, letter) {
            self.at += 1;
            return Ok(Member::Set(set));
        }
        let (digits, digit_count) = self.decimal();
        if !in_class && letter != '0' && digit_count > 0 && (unicode || digits <= self.groups) {
            return Err(format!("a back-reference, \\{digits}, is not supported"));
        }
        let c = match letter {
            'p' | 'P' if unicode => return self.property(),
            'k' if unicode || self.named => return Err("a back-reference, \\k, is not supported".into()),
            'q' if self.flags.sets && in_class => return Err("a class of strings, \\q, is not supported".into()),
            // Outside of a class it is an assertion.
            'b' => 0x08,
            't' => 0x09,
            'n' => 0x0A,
            'v' => 0x0B,
            'f' => 0x0C,
            'r' => 0x0D,
            '0'..='7' => return Ok(Member::Char(self.octal())),
            'c' => return self.control(in_class),
            'x' | 'u' => {
                self.at += 1;
                let number = if letter == 'x' { self.hex(2) } else { self.code_unit() };
                return match number {
                    Some(c) => Ok(Member::Char(c)),
                    None if unicode => Err(format!("\\{letter} has no number")),
                    None => Ok(Member::Char(letter.into())),
                };
            }
            // Every other escape is of the character itself.
            _ => return Ok(Member::Char(self.next()?)),
        };
        self.at += 1;
        Ok(Member::Char(c))
    }

    /// Returns the decimal number that is here, and how many digits it has.
    fn decimal(&self) -> (u32, usize) {
        let digits: Vec<u32> = (0..).map_while(|offset| self.ahead(offset).to_digit(10)).collect();
        (digits.iter().fold(0, |number: u32, digit| number.saturating_mul(10).saturating_add(*digit)), digits.len())
    }

    /// Reads up to three octal digits, not more than 0o377.
    fn octal(&mut self) -> u32 {
        let mut number = 0;
        for _ in 0..3 {
            match self.peek().to_digit(8) {
                Some(digit) if number * 8 + digit <= 0o377 => number = number * 8 + digit,
                _ => break,
            }
            self.at += 1;
        }
        number
    }

    /// Reads this many hexadecimal digits, or nothing.
    fn hex(&mut self, count: usize) -> Option<u32> {
        let number = (0..count).try_fold(0, |number, offset| Some(number * 16 + self.ahead(offset).to_digit(16)?))?;
        self.at += count;
        Some(number)
    }

    /// Reads what follows `\u`.
    fn code_unit(&mut self) -> Option<u32> {
        if self.flags.unicode && self.eat("{") {
            let mut number: u32 = 0;
            while let Some(digit) = self.peek().to_digit(16) {
                number = number.checked_mul(16)?.checked_add(digit)?;
                self.at += 1;
            }
            return (number <= 0x10_FFFF && self.eat("}")).then_some(number);
        }
        let first = self.hex(4)?;
        if self.flags.unicode && (0xD800..0xDC00).contains(&first) {
            let before = self.at;
            if self.eat("\\u")
                && let Some(second @ 0xDC00..=0xDFFF) = self.hex(4)
            {
                return Some(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00));
            }
            self.at = before;
        }
        Some(first)
    }

    /// Reads `\cA`. Without a letter the backslash is text, and so is the c.
    fn control(&mut self, in_class: bool) -> Result<Member> {
        let letter = self.ahead(1);
        if letter.is_ascii_alphabetic() || in_class && !self.flags.unicode && (letter.is_ascii_digit() || letter == '_')
        {
            self.at += 2;
            return Ok(Member::Char(u32::from(letter) % 32));
        }
        if self.flags.unicode { Err("\\c has no letter".into()) } else { Ok(Member::Char('\\'.into())) }
    }

    fn property(&mut self) -> Result<Member> {
        let negated = self.peek() == 'P';
        self.at += 1;
        let name: String = (1..)
            .map(|offset| self.ahead(offset))
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '='))
            .collect();
        let whole = format!("{{{name}}}");
        if !self.eat(&whole) {
            return Err("\\p has no name".into());
        }
        let set = class::property(self.flags, &name, negated);
        set.map(Member::Set).ok_or_else(|| format!("the property \\p{whole} is not supported"))
    }

    /// Reads a class, which is at its `[`.
    fn class(&mut self) -> Result<ClassUnicode> {
        self.enter()?;
        self.at += 1;
        let negated = self.eat("^");
        let set = if self.flags.sets { self.set_expression()? } else { self.union()? };
        self.depth -= 1;
        let set = class::close(self.flags, set);
        Ok(if negated { class::complement(self.flags, &set) } else { set })
    }

    /// Reads members and ranges up to the `]`.
    fn union(&mut self) -> Result<ClassUnicode> {
        let mut union = ClassUnicode::empty();
        while !self.eat("]") {
            let first = self.member()?;
            if self.peek() == '-' && self.ahead(1) != ']' {
                self.at += 1;
                let last = self.member()?;
                self.add_range(&mut union, first, last)?;
            } else {
                self.add(&mut union, first);
            }
        }
        Ok(union)
    }

    fn add(&self, union: &mut ClassUnicode, member: Member) {
        match member {
            Member::Char(c) => union.union(&class::one(self.flags, c)),
            Member::Set(set) => union.union(&set),
        }
    }

    fn add_range(&self, union: &mut ClassUnicode, first: Member, last: Member) -> Result<()> {
        match (first, last) {
            (Member::Char(first), Member::Char(last)) if first > last => Err("it has a range out of order".into()),
            (Member::Char(first), Member::Char(last)) => {
                union.union(&class::ranges(self.flags, &[(first, last)]));
                Ok(())
            }
            _ if self.flags.unicode => Err("it has a range of classes".into()),
            // Beside a class the hyphen is one.
            (first, last) => {
                for member in [first, Member::Char('-'.into()), last] {
                    self.add(union, member);
                }
                Ok(())
            }
        }
    }

    fn member(&mut self) -> Result<Member> {
        match self.peek() {
            '\\' => self.escape(true),
            '[' if self.flags.sets => Ok(Member::Set(self.class()?)),
            _ => Ok(Member::Char(self.next()?)),
        }
    }

    /// Reads the inside of a class with the flag v, up to the `]`: a union, an intersection or a difference.
    fn set_expression(&mut self) -> Result<ClassUnicode> {
        let mut set = ClassUnicode::empty();
        while !self.eat("]") {
            let is_intersection = self.eat("&&");
            if is_intersection || self.eat("--") {
                let operand = self.member()?;
                let mut other = ClassUnicode::empty();
                self.add(&mut other, operand);
                if is_intersection {
                    set.intersect(&other)
                } else {
                    set.difference(&other)
                }
                continue;
            }
            let first = self.member()?;
            if self.peek() == '-' && self.ahead(1) != '-' {
                self.at += 1;
                let last = self.member()?;
                self.add_range(&mut set, first, last)?;
            } else {
                self.add(&mut set, first);
            }
        }
        Ok(set)
    }
}
