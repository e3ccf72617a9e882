//! [`RuncastLayer`]: what a program traces with `tracing`, published as structured `log` events.
//!
//! ```no_run
//! # fn example(publisher: &runcast_agent::Publisher) {
//! use runcast_agent::layer::RuncastLayer;
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
//! {"kind":"log","variation":0,"time":1763700000000,"level":"warn","target":"shop::cart","message":"slow",
//!  "fields":{"ms":812,"error":"no answer: timed out"},"spans":[{"name":"order","fields":{"id":7}}],
//!  "text":"order{id=7}: slow ms=812 error=\"no answer: timed out\"\n"}
//! ```
//!
//! so a viewer that knows only `text` and `level` shows one readable line. Numbers and booleans stay
//! such; what is traced by `Debug` is a string, an error is one with its sources behind it.
//!
//! - `fields`: reads the fields of an event or a span, bounded and redacted;
//! - `line`: the payload, and how one that is too large is shortened.
//!
//! Guarantees: code that traces never waits. An event for which the publisher has no room is counted
//! in a `gap` at its place. Events of the publisher itself and of what carries it ([`OWN`]) are not
//! published, since each would cause the next. A value over [`MAX_VALUE_BYTES`](fields::MAX_VALUE_BYTES) is cut with a note of
//! how much is missing, and so is whatever makes an event larger than an event may be. After the
//! publisher's end nothing is published, and nobody is told. Lines of the `log` crate come through the
//! bridge of `tracing-log`, if the program installs it, under their own targets.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use runcast_common::protocol::event::Kind;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::publisher::{PublishError, Publisher};
use crate::redact::Redactor;

mod fields;
mod line;

use self::fields::{Fields, Values};
use self::line::{Line, Span};

/// Crates whose events are not published: the publisher, and what works below it whenever it does.
pub const OWN: [&str; 7] = [
    "runcast_agent",
    "runcast_common",
    "redis",
    "tokio",
    "tokio_util",
    "mio",
    "rustls",
];

thread_local! {
    /// This thread is publishing: whatever is traced below comes from that.
    static PUBLISHING: Cell<bool> = const { Cell::new(false) };
}

/// Publishes spans and events of `tracing` for one variation of a run.
///
/// It is composed with other layers, and filtered, like any layer. It holds a clone of the publisher,
/// which is to be ended by `close` or `finish` all the same.
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
    /// Publishes events through this publisher, as they are.
    #[must_use]
    pub fn new(publisher: &Publisher) -> Self {
        Self {
            publisher: publisher.clone(),
            redactor: None,
            span_closes: false,
        }
    }

    /// The same, publishing messages and values of fields without the secrets that `redactor` knows.
    /// Names, numbers and booleans are published as they are.
    #[must_use]
    pub fn with_redactor(self, redactor: &Redactor) -> Self {
        Self {
            redactor: Some(redactor.clone()),
            ..self
        }
    }

    /// The same, publishing the end of each span too, as an event `closed` of the span's level with its
    /// fields and `duration_ms`, the milliseconds since it was made.
    #[must_use]
    pub fn with_span_closes(self, published: bool) -> Self {
        Self {
            span_closes: published,
            ..self
        }
    }

    fn values(&self) -> Values<'_> {
        Values::new(self.redactor.as_ref())
    }

    fn publish(&self, mut line: Line<'_>) {
        let was_publishing = PUBLISHING.replace(true);
        line.write_text();
        let mut result = self.publisher.try_publish(Kind::Log, &line);
        while matches!(result, Err(PublishError::Invalid(_))) && line.shorten() {
            result = self.publisher.try_publish(Kind::Log, &line);
        }
        // Once the publisher has ended this does nothing either: there is no stream any more.
        if result.is_err() {
            self.publisher.note_lost(1, line.text.len() as u64);
        }
        PUBLISHING.set(was_publishing);
    }
}

/// What a span has in its extensions for this layer.
struct Seen {
    fields: Fields,
    since: Instant,
}

/// True if events of this target are not to be published.
fn is_own(target: &str) -> bool {
    let of = |name: &str| {
        let rest = target.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    PUBLISHING.get() || OWN.into_iter().any(of)
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
        let mut values = self.values();
        attributes.record(&mut values);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Seen {
                fields: values.fields,
                since: Instant::now(),
            });
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        // Formatting a value may trace; the extensions must not be locked then.
        let mut values = self.values();
        record.record(&mut values);
        if let Some(span) = context.span(id)
            && let Some(seen) = span.extensions_mut().get_mut::<Seen>()
        {
            seen.fields.extend(values.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if is_own(metadata.target()) {
            return;
        }
        let mut values = self.values();
        event.record(&mut values);
        let logged = values.fields.take_logged_target();
        let target = logged.as_deref().unwrap_or(metadata.target());
        if logged.is_some() && is_own(target) {
            return;
        }
        let scope = context.event_scope(event).into_iter();
        let spans = scope.flat_map(tracing_subscriber::registry::Scope::from_root);
        let spans = spans.filter_map(|span| {
            let extensions = span.extensions();
            let fields = extensions.get::<Seen>()?.fields.clone();
            Some(Span {
                name: span.name(),
                fields,
            })
        });
        self.publish(Line {
            level: level(metadata),
            target,
            message: values.message,
            fields: values.fields,
            spans: spans.collect(),
            ..Line::default()
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id).filter(|_span| self.span_closes) else {
            return;
        };
        let extensions = span.extensions();
        let Some(seen) = extensions.get::<Seen>() else {
            return;
        };
        let mut fields = Fields::default();
        let micros = seen.since.elapsed().as_micros();
        #[expect(clippy::cast_precision_loss, reason = "a duration of 285 years")]
        fields.insert("duration_ms", (micros as f64 / 1000.0).into());
        let own = Span {
            name: span.name(),
            fields: seen.fields.clone(),
        };
        drop(extensions);
        let parents = span.scope().skip(1).collect::<Vec<_>>();
        let parents = parents.iter().rev().filter_map(|span| {
            let extensions = span.extensions();
            let fields = extensions.get::<Seen>()?.fields.clone();
            Some(Span {
                name: span.name(),
                fields,
            })
        });
        self.publish(Line {
            level: level(span.metadata()),
            target: span.metadata().target(),
            message: "closed".to_owned(),
            fields,
            spans: parents.chain([own]).collect(),
            ..Line::default()
        });
    }
}
