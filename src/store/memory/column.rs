//! A column of an index in memory: by entry, the value of one field as a number, so that a filter compares numbers.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::json::{self, Object};

/// The values at one path. Equal values have one number, which is used again when no entry has the value any more.
pub(super) struct Column {
    path: Box<str>,
    /// By slot.
    numbers: Vec<u32>,
    by_value: HashMap<Arc<[u8]>, u32>,
    /// By number: the canonical value, and how many slots have it.
    values: Vec<(Arc<[u8]>, usize)>,
    unused: Vec<u32>,
}

impl Column {
    /// Creates a column without slots.
    pub(super) fn new(path: &str) -> Self {
        Self {
            path: path.into(),
            numbers: Vec::new(),
            by_value: HashMap::new(),
            values: Vec::new(),
            unused: Vec::new(),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Sets the value of a slot from the metadata of its entry. A new slot is always the next one.
    pub(super) fn set(&mut self, slot: u32, metadata: &Object) {
        let number = self.number(json::at_path(metadata, &self.path).unwrap_or(&Value::Null));
        match self.numbers.get_mut(slot as usize) {
            Some(place) => {
                let old = std::mem::replace(place, number);
                self.release(old);
            }
            None => self.numbers.push(number),
        }
    }

    /// Returns the number of a slot's value.
    pub(super) fn at(&self, slot: u32) -> u32 {
        self.numbers.get(slot as usize).copied().unwrap_or(u32::MAX)
    }

    /// Returns the numbers of the values that a filter's condition matches: see [`json::Filter::matches`].
    pub(super) fn matching(&self, wanted: &Value) -> Vec<u32> {
        // An array is "one of", and what equals an array that is there.
        let one_of = wanted.as_array().map_or(&[][..], Vec::as_slice).iter().filter(|one| !one.is_array());
        one_of.chain([wanted]).filter_map(|value| self.by_value.get(&*canonical(value)).copied()).collect()
    }

    /// Returns the number of a value, for one more slot.
    fn number(&mut self, value: &Value) -> u32 {
        let value = canonical(value);
        if let Some(&number) = self.by_value.get(&*value) {
            if let Some((_, slots)) = self.values.get_mut(number as usize) {
                *slots += 1;
            }
            return number;
        }
        let value: Arc<[u8]> = value.into();
        let number = self.unused.pop().unwrap_or(self.values.len() as u32);
        match self.values.get_mut(number as usize) {
            Some(place) => *place = (value.clone(), 1),
            None => self.values.push((value.clone(), 1)),
        }
        self.by_value.insert(value, number);
        number
    }

    /// Counts one slot less with a value.
    fn release(&mut self, number: u32) {
        let Some((value, slots)) = self.values.get_mut(number as usize) else { return };
        *slots -= 1;
        if *slots == 0 {
            let value = std::mem::take(value);
            self.by_value.remove(&value);
            self.unused.push(number);
        }
    }
}

/// Returns bytes that are the same for two values if these are [`json::equal`].
fn canonical(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(value, &mut bytes);
    bytes
}

fn write(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Null => to.push(b'n'),
        Value::Bool(value) => to.extend_from_slice(if *value { b"t" } else { b"f" }),
        Value::Number(value) => {
            to.push(b'd');
            // 1 and 1.0 are equal, and so are 0 and -0.
            to.extend_from_slice(&(value.as_f64().unwrap_or(0.0) + 0.0).to_bits().to_le_bytes());
        }
        Value::String(value) => write_text(value, to),
        Value::Array(values) => {
            to.push(b'[');
            values.iter().for_each(|value| write(value, to));
            to.push(b']');
        }
        Value::Object(object) => {
            to.push(b'{');
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            for (key, value) in fields {
                write_text(key, to);
                write(value, to);
            }
            to.push(b'}');
        }
    }
}

/// Adds a text with its length, so that no text can be read as something else.
fn write_text(text: &str, to: &mut Vec<u8>) {
    to.push(b's');
    to.extend_from_slice(&text.len().to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_the_same_bytes_if_they_are_equal() {
        let values = [
            json!(null),
            json!(false),
            json!(true),
            json!(0),
            json!(-0.0),
            json!(1),
            json!(1.0),
            json!("1"),
            json!(""),
            json!([]),
            json!([1]),
            json!([1.0]),
            json!([[1]]),
            json!([[1], 2]),
            json!([[1, 2]]),
            json!([{"a": "b"}]),
            json!(["a", "b", {}]),
            json!({}),
            json!({"a": [1, null], "b": 2}),
            json!({"b": 2.0, "a": [1.0, null]}),
            json!({"a": [1], "b": null}),
            json!({"a": 1}),
            json!({"b": 1}),
            json!({"a": {"b": 1}, "c": 2}),
            json!({"a": {"b": 1, "c": 2}}),
            json!(18_446_744_073_709_551_615_u64),
            json!(18_446_744_073_709_551_615.0),
        ];
        for a in &values {
            for b in &values {
                assert_eq!(canonical(a) == canonical(b), json::equal(a, b), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_value_that_no_slot_has_any_more_is_forgotten() {
        let mut column = Column::new("n");
        let metadata = |n: u32| json!({"n": n}).as_object().cloned().unwrap_or_default();
        for n in 0..100 {
            column.set(0, &metadata(n));
            column.set(1, &metadata(n / 2));
        }
        assert_eq!((column.by_value.len(), column.values.len()), (2, 3));
        assert_eq!(column.matching(&json!([99, 3])), [column.at(0)]);
        assert_eq!(column.matching(&json!(0)), Vec::<u32>::new());
    }
}
