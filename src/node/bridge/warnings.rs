//! Warnings of native code, for `process.emitWarning`. With `NODE_DEBUG=nvent` everything else that native code reports, too.

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, LazyLock, Mutex, Once, Weak};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::notifier::Notifier;
use crate::json::push_string;
use crate::sync::lock;

/// Reports that may wait for JavaScript. Further ones are dropped.
const MAX_WAITING: usize = 256;

/// Code of a warning that has none of its own.
const DEFAULT_CODE: &str = "NVENT_WARNING";

static INSTALLED: Once = Once::new();

/// The environments of the process. A report goes to the oldest one, which usually is the main thread.
static ENVIRONMENTS: Mutex<Vec<Weak<Warnings>>> = Mutex::new(Vec::new());

/// Whether `NODE_DEBUG` names this package.
static IS_DEBUG: LazyLock<bool> = LazyLock::new(|| {
    let names = std::env::var("NODE_DEBUG").unwrap_or_default().to_lowercase();
    names.split(',').any(|name| name.trim() == "nvent")
});

/// Reports that wait for one environment.
pub(super) struct Warnings {
    notifier: Arc<Notifier>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    rows: VecDeque<String>,
    /// Reports dropped since the last batch.
    dropped: u64,
}

impl Warnings {
    /// Creates the reports of an environment, and installs the subscriber of the process.
    pub(super) fn new(notifier: Arc<Notifier>) -> Arc<Self> {
        let warnings = Arc::new(Self { notifier, waiting: Mutex::default() });
        let mut environments = lock(&ENVIRONMENTS);
        environments.retain(|environment| environment.strong_count() > 0);
        environments.push(Arc::downgrade(&warnings));
        drop(environments);
        INSTALLED.call_once(|| {
            // Fails where the process has a subscriber already, which then gets the reports.
            _ = tracing::subscriber::set_global_default(ToJavaScript);
        });
        warnings
    }

    /// Takes the reports as `[[is a warning, code, message], …]`.
    pub(super) fn take(&self) -> Option<String> {
        let Waiting { mut rows, dropped } = std::mem::take(&mut *lock(&self.waiting));
        if dropped > 0 {
            rows.push_back(format!(
                "[true,\"{DEFAULT_CODE}\",\"{dropped} reports were left out: too many came at a time\"]"
            ));
        }
        if rows.is_empty() {
            return None;
        }
        Some(format!("[{}]", Vec::from(rows).join(",")))
    }
}

struct ToJavaScript;

/// The fields of a report as text.
#[derive(Default)]
struct Fields {
    code: Option<String>,
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "code" => self.code = Some(value.into()),
            "message" => self.message = value.into(),
            name => _ = write!(self.rest, ", {name}: {value}"),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "code" => self.code = Some(format!("{value:?}")),
            "message" => self.message = format!("{value:?}"),
            name => _ = write!(self.rest, ", {name}: {value:?}"),
        }
    }
}

impl Subscriber for ToJavaScript {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && metadata.target().starts_with("nvent_native")
            && (*metadata.level() <= Level::WARN || *IS_DEBUG)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if *IS_DEBUG { LevelFilter::TRACE } else { LevelFilter::WARN })
    }

    fn event(&self, event: &Event<'_>) {
        let Some(environment) = lock(&ENVIRONMENTS).iter().find_map(Weak::upgrade) else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut row = format!("[{},", *event.metadata().level() <= Level::WARN);
        push_string(&mut row, fields.code.as_deref().unwrap_or(DEFAULT_CODE));
        row.push(',');
        let rest = fields.rest.strip_prefix(", ").map_or_else(String::new, |rest| format!(" ({rest})"));
        push_string(&mut row, &(fields.message + &rest));
        row.push(']');
        let mut waiting = lock(&environment.waiting);
        if waiting.rows.len() < MAX_WAITING {
            waiting.rows.push_back(row);
        } else {
            waiting.dropped += 1;
        }
        drop(waiting);
        environment.notifier.notify();
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
