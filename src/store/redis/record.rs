//! Events as entries of a Redis stream: one field per field of the record, values as [`super::text`] has them.

use ::redis::Value;

use super::text;
use crate::error::{Error, Result};
use crate::event::{self, EventId, NewEvent};
use crate::json::{Json, push_string};
use crate::redis::reply;

/// Most top-level fields of a record: Lua's unpack passes at most about 8,000 arguments to one command.
const MAX_FIELDS: usize = 3_500;

/// The fields of an event that are strings by nvent's types.
const TEXT_FIELDS: [&str; 6] = ["runId", "flowName", "flowId", "stepName", "stepId", "triggerName"];

/// Returns the fields and texts of a new event, `ts` first.
pub(super) fn fields(event: &NewEvent, ts: u64) -> Result<Vec<(String, String)>> {
    let raw = event::fields(event.json())?;
    if raw.len() > MAX_FIELDS {
        return Err(Error::invalid(format!(
            "event: {} top-level fields are more than the {MAX_FIELDS} that Redis can take: put them into data",
            raw.len()
        )));
    }
    let mut fields = Vec::with_capacity(raw.len() + 1);
    fields.push(("ts".to_owned(), ts.to_string()));
    fields.extend(raw.into_iter().map(|(name, value)| (name, text::to_text(value.get()).into_owned())));
    Ok(fields)
}

/// Returns the id and fields of a stream's entry.
pub(super) fn entry(value: Value) -> Result<(EventId, Vec<(String, String)>)> {
    let mut parts = reply::list(value)?.into_iter();
    let (Some(id), Some(fields)) = (parts.next(), parts.next()) else {
        return Err(Error::corrupt("Redis sent a stream entry without id or fields"));
    };
    Ok((reply::text(id)?.parse()?, reply::pairs(fields)?))
}

/// Returns the record as JSON: `id` and `ts`, then the fields in the order of their writer.
pub(super) fn to_json(id: EventId, fields: &[(String, String)]) -> Json {
    let find = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, text)| text.as_str());
    // An entry of another writer without ts: the time of its id.
    let ts = find("ts").filter(|ts| ts.parse::<f64>().is_ok_and(f64::is_finite) && text::is_json(ts));
    let mut json = format!("{{\"id\":\"{id}\",\"ts\":{}", ts.map_or_else(|| id.ms.to_string(), str::to_owned));
    if find("type").is_none() {
        json.push_str(",\"type\":\"unknown\"");
    }
    // Native instances write `ts` first, and strings that look like something else as JSON strings.
    let is_native = fields.first().is_some_and(|(name, _)| name == "ts");
    for (name, value) in fields {
        match name.as_str() {
            "id" | "ts" => continue,
            // These are strings, also if they look like something else.
            name if (name == "type" || !is_native && TEXT_FIELDS.contains(&name)) && !value.starts_with('"') => {
                json.push(',');
                push_string(&mut json, name);
                json.push(':');
                push_string(&mut json, value);
            }
            name => {
                json.push(',');
                push_string(&mut json, name);
                json.push(':');
                text::push_json(&mut json, value);
            }
        }
    }
    json.push('}');
    json.into()
}

/// Converts a reply of XRANGE to the last id and the records.
pub(super) fn records(value: Value) -> Result<(Option<EventId>, Vec<Json>)> {
    let mut last = None;
    let record = |value| {
        let (id, fields) = entry(value)?;
        last = Some(id);
        Ok(to_json(id, &fields))
    };
    let records = reply::list(value)?.into_iter().map(record).collect::<Result<_>>()?;
    Ok((last, records))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(fields: &[(&str, &str)]) -> Value {
        let fields: Vec<_> = fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        serde_json::from_str(&to_json(EventId { ms: 7, seq: 1 }, &fields)).unwrap()
    }

    #[test]
    fn an_entry_of_another_writer_has_its_texts_and_the_time_of_its_id() {
        assert_eq!(
            record(&[("type", "12"), ("runId", "34"), ("n", "5"), ("data", r#"{"a":1}"#), ("id", "x")]),
            json!({ "id": "7-1", "ts": 7, "type": "12", "runId": "34", "n": 5, "data": { "a": 1 } })
        );
        assert_eq!(record(&[("n", "5")]), json!({ "id": "7-1", "ts": 7, "type": "unknown", "n": 5 }));
        for (ts, expected) in
            [("5.5", json!(5.5)), ("soon", json!(7)), ("inf", json!(7)), ("007", json!(7)), ("[]", json!(7))]
        {
            assert_eq!(record(&[("type", "t"), ("ts", ts)])["ts"], expected, "{ts}");
        }
    }

    #[test]
    fn an_entry_of_a_native_writer_is_the_record_that_was_written() {
        let event = NewEvent::parse(r#"{"type":"t","runId":"34","n":5,"flowName":null}"#).unwrap();
        let fields = fields(&event, 9).unwrap();
        let fields: Vec<_> = fields.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(fields, [("ts", "9"), ("type", "t"), ("runId", "\"34\""), ("n", "5"), ("flowName", "null")]);
        assert_eq!(
            record(&fields),
            json!({ "id": "7-1", "ts": 9, "type": "t", "runId": "34", "n": 5, "flowName": null })
        );
    }

    #[test]
    fn a_record_has_as_many_fields_as_one_command_takes() {
        let of = |count: usize| {
            let more: String = (1..count).map(|n| format!(",\"f{n}\":1")).collect();
            fields(&NewEvent::parse(&format!("{{\"type\":\"t\"{more}}}")).unwrap(), 1)
        };
        assert_eq!(of(MAX_FIELDS).unwrap().len(), MAX_FIELDS + 1);
        assert!(of(MAX_FIELDS + 1).unwrap_err().message().contains("3501 top-level fields"));
    }
}
