//! Templates of names: `flow:event:{runId}`.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::topic::check_name;

/// A name in which `{field}` is replaced by the value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Field(Box<str>),
}

impl Template {
    /// Parses a template. `what` names the option in errors.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`] where the text is no usable name or has unbalanced braces.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        check_name(what, text)?;
        let unbalanced = || {
            Error::invalid(format!(
                "{what}: {text:?} has an unbalanced brace: a field is written {{name}}, as in flow:{{runId}}"
            ))
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (field, after) = after.split_once('}').ok_or_else(unbalanced)?;
            if before.contains('}') || field.is_empty() || field.contains('{') {
                return Err(unbalanced());
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(Part::Field(field.into()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(unbalanced());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// Returns a glob that matches every name it renders.
    pub fn glob(&self) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Field(_) => out.push('*'),
                Part::Text(text) => text.chars().for_each(|c| {
                    if matches!(c, '*' | '?' | '[' | ']' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }),
            }
        }
        out
    }

    /// Returns the names in braces.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(&**field),
            Part::Text(_) => None,
        })
    }

    /// Returns the value of the template's only field in a rendered name.
    pub fn extract<'a>(&self, name: &'a str) -> Option<&'a str> {
        let (before, after) = match &*self.parts {
            [Part::Field(_)] => ("", ""),
            [Part::Text(before), Part::Field(_)] => (&**before, ""),
            [Part::Field(_), Part::Text(after)] => ("", &**after),
            [Part::Text(before), Part::Field(_), Part::Text(after)] => (&**before, &**after),
            _ => return None,
        };
        name.strip_prefix(before)?.strip_suffix(after).filter(|value| !value.is_empty())
    }

    /// Renders the name. Returns None where a field has no value, or the name is too long.
    pub fn render<'a>(&self, mut value: impl FnMut(&str) -> Option<Cow<'a, str>>) -> Option<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(field) => out.push_str(&value(field).filter(|value| !value.is_empty())?),
            }
        }
        check_name("topic", &out).is_ok().then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Option<String> {
        Template::parse("topic", template).unwrap().render(|field| match field {
            "runId" => Some("r-1".into()),
            "empty" => Some("".into()),
            _ => None,
        })
    }

    #[test]
    fn fields_are_replaced_and_a_missing_or_empty_one_leaves_no_name() {
        assert_eq!(render("flow:event:{runId}").as_deref(), Some("flow:event:r-1"));
        assert_eq!(render("{runId}{runId}:x").as_deref(), Some("r-1r-1:x"));
        assert_eq!(render("plain").as_deref(), Some("plain"));
        assert_eq!((render("a:{other}"), render("a:{empty}")), (None, None));
    }

    #[test]
    fn the_glob_of_a_template_matches_what_it_renders_and_nothing_for_its_text() {
        let glob = |template: &str| Template::parse("topic", template).unwrap().glob();
        assert_eq!(glob("flow:event:{runId}"), "flow:event:*");
        assert_eq!(glob("a*b:{x}:[c]"), r"a\*b:*:\[c\]");
    }

    #[test]
    fn the_value_of_the_only_field_is_read_back() {
        let extract = |template: &str| {
            let name = "nq:flow:r:1:log";
            Template::parse("subjects.run", template).unwrap().extract(name).map(str::to_owned)
        };
        assert_eq!(extract("nq:flow:{runId}:log").as_deref(), Some("r:1"));
        assert_eq!(extract("nq:{runId}").as_deref(), Some("flow:r:1:log"));
        assert_eq!(extract("{runId}:log").as_deref(), Some("nq:flow:r:1"));
        assert_eq!(extract("{runId}").as_deref(), Some("nq:flow:r:1:log"));
        assert_eq!((extract("x:{runId}"), extract("nq:flow:r:1:log{runId}"), extract("{a}:{b}")), (None, None, None));
    }

    #[test]
    fn unbalanced_braces_are_refused() {
        for bad in ["", "a:{", "a:{runId", "a:}", "{}", "{{runId}}", "}a{runId}"] {
            assert!(Template::parse("channels[0].topic", bad).is_err(), "{bad:?}");
        }
    }
}
