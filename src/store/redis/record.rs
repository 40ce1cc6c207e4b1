//! Events as entries of a Redis stream: one field per field of the record, values as [`super::text`] has them.

use ::redis::Value;

use super::text;
use crate::error::{Error, Result};
use crate::event::{EventId, NewEvent};
use crate::json::{Json, push_string};
use crate::redis::reply;

/// Most top-level fields of a record: Lua's unpack passes at most about 8,000 arguments to one command.
const MAX_FIELDS: usize = 3_500;

/// The fields of an event that are strings by nvent's types.
const TEXT_FIELDS: [&str; 6] = ["runId", "flowName", "flowId", "stepName", "stepId", "triggerName"];

/// Returns the fields and texts of a new event, `ts` first.
pub(super) fn fields(event: &NewEvent, ts: u64) -> Result<Vec<(String, String)>> {
    let raw = text::fields(event.json())?;
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
