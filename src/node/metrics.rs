//! The series of the process, as JavaScript reads them.

use napi_derive::napi;
use serde_json::Map;

use crate::json::to_json;
use crate::metrics::{Value, samples};
use crate::node::bridge::{Bridge, guard};

#[napi]
impl Bridge {
    /// Reads the series of the process: `[[name, { label: value }, number, null or buckets], …]`. A histogram's number is
    /// its sum in seconds, and its buckets are cumulative: `[[upper bound in seconds, null for infinity; count], …]`.
    #[napi]
    pub fn metrics(&self) -> napi::Result<String> {
        guard(|| {
            let version = Map::from_iter([("version".to_owned(), env!("CARGO_PKG_VERSION").into())]);
            let mut rows = vec![("nvent_build_info", version, 1.0, None)];
            rows.extend(samples().into_iter().map(|sample| {
                let labels =
                    sample.labels.into_iter().map(|(name, value)| (name.to_owned(), String::from(value).into()));
                match sample.value {
                    Value::Number(number) => (sample.name, labels.collect(), number, None),
                    // JSON has no infinity: that bound is null.
                    Value::Histogram { buckets, sum } => (sample.name, labels.collect(), sum, Some(buckets)),
                }
            }));
            Ok(to_json(&rows).to_string())
        })
    }
}
