//! [`RuncastLayer`]: publishes `tracing` events as structured `log` events.
//!
//! ```no_run
//! # fn example(publisher: &runcast_publisher::Publisher) {
//! use runcast_publisher::tracing_layer::RuncastLayer;
//! use tracing_subscriber::{filter::LevelFilter, prelude::*};
//!
//! tracing_subscriber::registry()
//!     .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
//!     .with(RuncastLayer::new(publisher).with_filter(LevelFilter::INFO))
//!     .init();
//! # }
//! ```
//!
//! An event of `tracing` becomes one event of the run:
//!
//! ```text
//! {"kind":"log","variation":0,"time":1763700000000,"level":"warn","target":"shop::cart",
//!  "message":"slow","fields":{"ms":812,"error":"no answer: timed out"},
//!  "spans":[{"name":"order","fields":{"id":7}}],
//!  "text":"order{id=7}: slow ms=812 error=\"no answer: timed out\"\n"}
//! ```
//!
//! So a viewer that knows only `text` and `level` shows one readable line. Numbers and booleans
//! stay numbers and booleans; values recorded with `Debug` become strings, and errors become
//! strings with their sources.
//!
//! Guarantees: code that traces never waits. An event for which the publisher has no room is
//! counted in a `gap` at its place. Events of the publisher itself and of the crates below it
//! ([`OWN_TARGETS`]) are not published, since each would cause the next. A value over
//! [`MAX_VALUE_BYTES`](super::fields::MAX_VALUE_BYTES) is cut, with a note of how much is missing;
//! so is whatever makes an event larger than the limit for events. After the publisher has closed,
//! events are dropped silently. If the program installs the bridge of `tracing-log`, lines of the
//! `log` crate are published under their own targets.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use runcast_common::protocol::event::Kind;
use runcast_redact::Redactor;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::fields::{FieldVisitor, Fields};
use super::payload::{LogPayload, SpanPayload};
use crate::error::PublishError;
use crate::publisher::Publisher;

/// Crates whose events are not published: the publisher and what it uses, and the `runcast`
/// program.
pub const OWN_TARGETS: [&str; 9] = [
    "runcast_agent",
    "runcast_publisher",
    "runcast_redact",
    "runcast_common",
    "redis",
    "tokio",
    "tokio_util",
    "mio",
    "rustls",
];

thread_local! {
    /// Whether this thread is publishing, so that what it traces comes from the publisher.
    static PUBLISHING: Cell<bool> = const { Cell::new(false) };
}

/// Publishes spans and events of `tracing` for one variation of a run.
///
/// Compose and filter it like any other layer. It holds a clone of the publisher; the program must
/// still end that with `close` or `finish`.
pub struct RuncastLayer {
    publisher: Publisher,
    redactor: Option<Redactor>,
    span_closes: bool,
}

impl fmt::Debug for RuncastLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuncastLayer")
            .field("redactor", &self.redactor)
            .field("span_closes", &self.span_closes)
            .finish_non_exhaustive()
    }
}

impl RuncastLayer {
    /// A layer that publishes events unchanged.
    #[must_use]
    pub fn new(publisher: &Publisher) -> Self {
        Self {
            publisher: publisher.clone(),
            redactor: None,
            span_closes: false,
        }
    }

    /// Masks the secrets that `redactor` knows in messages and field values. Names, numbers and
    /// booleans are published unchanged.
    #[must_use]
    pub fn with_redactor(self, redactor: &Redactor) -> Self {
        Self {
            redactor: Some(redactor.clone()),
            ..self
        }
    }

    /// Sets whether the end of each span is published: as an event `closed` of the span's level,
    /// with its fields and `duration_ms`, the milliseconds since the span was created.
    #[must_use]
    pub fn with_span_closes(self, published: bool) -> Self {
        Self {
            span_closes: published,
            ..self
        }
    }

    fn visitor(&self) -> FieldVisitor<'_> {
        FieldVisitor::new(self.redactor.as_ref())
    }

    fn publish(&self, mut payload: LogPayload<'_>) {
        let was_publishing = PUBLISHING.replace(true);
        payload.write_text();
        let mut result = self.publisher.try_publish(Kind::Log, &payload);
        while matches!(result, Err(PublishError::Invalid(_))) && payload.shorten() {
            result = self.publisher.try_publish(Kind::Log, &payload);
        }
        // After the publisher has closed this does nothing, since the stream has ended.
        if result.is_err() {
            self.publisher.note_lost(1, payload.text.len() as u64);
        }
        PUBLISHING.set(was_publishing);
    }
}

/// What this layer stores in the extensions of a span.
struct SpanData {
    fields: Fields,
    created_at: Instant,
}

/// Whether an event of this target comes from the publisher itself.
fn is_own(target: &str) -> bool {
    let is_of = |name: &str| {
        let rest = target.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    PUBLISHING.get() || OWN_TARGETS.into_iter().any(is_of)
}

fn level(metadata: &Metadata<'_>) -> &'static str {
    match *metadata.level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

impl<S> Layer<S> for RuncastLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if is_own(attributes.metadata().target()) {
            return;
        }
        let mut visitor = self.visitor();
        attributes.record(&mut visitor);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanData {
                fields: visitor.fields,
                created_at: Instant::now(),
            });
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        // Read the fields first: formatting a value may trace, and the extensions must not be
        // locked then.
        let mut visitor = self.visitor();
        record.record(&mut visitor);
        if let Some(span) = context.span(id)
            && let Some(data) = span.extensions_mut().get_mut::<SpanData>()
        {
            data.fields.extend(visitor.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if is_own(metadata.target()) {
            return;
        }
        let mut visitor = self.visitor();
        event.record(&mut visitor);
        let logged = visitor.fields.take_logged_target();
        let target = logged.as_deref().unwrap_or(metadata.target());
        if logged.is_some() && is_own(target) {
            return;
        }
        let scope = context.event_scope(event).into_iter();
        let spans = scope.flat_map(tracing_subscriber::registry::Scope::from_root);
        let spans = spans.filter_map(|span| {
            let extensions = span.extensions();
            let fields = extensions.get::<SpanData>()?.fields.clone();
            Some(SpanPayload {
                name: span.name(),
                fields,
            })
        });
        self.publish(LogPayload {
            level: level(metadata),
            target,
            message: visitor.message,
            fields: visitor.fields,
            spans: spans.collect(),
            ..LogPayload::default()
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id).filter(|_span| self.span_closes) else {
            return;
        };
        let extensions = span.extensions();
        let Some(data) = extensions.get::<SpanData>() else {
            return;
        };
        let mut fields = Fields::default();
        let micros = data.created_at.elapsed().as_micros();
        #[expect(clippy::cast_precision_loss, reason = "a duration of 285 years")]
        fields.insert("duration_ms", (micros as f64 / 1000.0).into());
        let own = SpanPayload {
            name: span.name(),
            fields: data.fields.clone(),
        };
        drop(extensions);
        let parents = span.scope().skip(1).collect::<Vec<_>>();
        let parents = parents.iter().rev().filter_map(|span| {
            let extensions = span.extensions();
            let fields = extensions.get::<SpanData>()?.fields.clone();
            Some(SpanPayload {
                name: span.name(),
                fields,
            })
        });
        self.publish(LogPayload {
            level: level(span.metadata()),
            target: span.metadata().target(),
            message: "closed".to_owned(),
            fields,
            spans: parents.chain([own]).collect(),
            ..LogPayload::default()
        });
    }
}
