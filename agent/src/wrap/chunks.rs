//! Publishes the chunks of the command's streams: structure in them is detected, output over the
//! limit is stored for the end, and everything else is published at once.
//!
//! - `detect`: what is known of a chunk beyond its text;
//! - `output_limit`: how much of an endless output is published;
//! - `progress`: how far the work has come;
//! - `event_sink`: what happens while the queue is full.
//!
//! Time: [`ChunkSink::publish`] waits as long as the event sink does. [`ChunkSinks::finish`]
//! publishes the tail, at most 8 MiB, within the same limit.

use std::sync::Arc;

use runcast_common::protocol::event::{Kind, Text};
use runcast_publisher::Publisher;
use tokio::task::JoinHandle;

use super::detect::{Detector, Markers};
use super::event_sink::{DroppedEvents, EventSink};
use super::output_limit::{Admission, OutputLimit, format_bytes};
use super::progress::ProgressReporter;

/// The stream of messages from `runcast` itself.
const OWN_STREAM: &str = "runcast";

/// A stream, and how its chunks are published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamSource {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
}

/// The command's standard output.
pub(crate) const STDOUT: StreamSource = StreamSource {
    kind: Kind::Output,
    name: "stdout",
};

/// The command's standard error.
pub(crate) const STDERR: StreamSource = StreamSource {
    kind: Kind::Log,
    name: "stderr",
};

/// What the streams of one command share.
#[derive(Debug)]
pub(crate) struct ChunkSinks {
    publisher: Option<Publisher>,
    markers: Markers,
    limit: Arc<OutputLimit>,
    reporter: Option<(ProgressReporter, JoinHandle<()>)>,
}

impl ChunkSinks {
    /// The streams of a command with this name, of which `max_output_bytes` are published (0: no
    /// limit). Must be called within a tokio runtime.
    pub(crate) fn new(
        publisher: Option<Publisher>,
        markers: Markers,
        max_output_bytes: u64,
        command: &str,
    ) -> Self {
        let start =
            |publisher: &Publisher| ProgressReporter::start(publisher.clone(), command.to_owned());
        Self {
            reporter: publisher.as_ref().filter(|_| markers.any()).map(start),
            publisher,
            markers,
            limit: Arc::new(OutputLimit::new(max_output_bytes)),
        }
    }

    /// The sink for one stream.
    pub(crate) fn sink(&self, source: StreamSource) -> ChunkSink {
        ChunkSink {
            sink: EventSink::new(self.publisher.clone(), source.name),
            source,
            detector: Detector::new(self.markers),
            limit: Arc::clone(&self.limit),
            reporter: self.reporter.as_ref().map(|(reporter, _)| reporter.clone()),
        }
    }

    /// Publishes the tail once no stream is read any more, and then a word of `runcast` itself.
    /// Returns what could not be published, and what the limit left out.
    pub(crate) async fn finish(self, word: Option<&str>) -> (DroppedEvents, DroppedEvents) {
        let (left_out, tail) = self.limit.finish();
        let mut sink = EventSink::new(self.publisher, "the end of the output");
        if left_out.events > 0 {
            sink.publish(Kind::Gap, &left_out.gap("cap"), 0).await;
        }
        for event in tail {
            sink.publish(event.kind, &event.payload, event.bytes).await;
        }
        if let Some(word) = word {
            publish_warning(&mut sink, word).await;
        }
        if let Some((reporter, task)) = self.reporter {
            reporter.finish(task).await;
        }
        (sink.finish(), left_out)
    }
}

/// Publishes a warning of `runcast` itself.
async fn publish_warning(sink: &mut EventSink, word: &str) {
    let text = format!("runcast: {word}\n");
    let warning = Text {
        level: Some("warn"),
        ..Text::from_chunk(Some(OWN_STREAM), text.as_bytes())
    };
    sink.publish(Kind::Log, &warning, 0).await;
}

/// Publishes the chunks of one stream; without a publisher it discards them.
#[derive(Debug)]
pub(crate) struct ChunkSink {
    sink: EventSink,
    source: StreamSource,
    detector: Detector,
    limit: Arc<OutputLimit>,
    reporter: Option<ProgressReporter>,
}

impl ChunkSink {
    /// Publishes a chunk, keeps it for the end, or counts it as dropped.
    pub(crate) async fn publish(&mut self, chunk: &[u8]) {
        if !self.sink.is_open() {
            return;
        }
        let reporter = self.reporter.as_ref();
        let pieces = self.detector.read(chunk, |mark| {
            if let Some(reporter) = reporter {
                reporter.report(mark);
            }
        });
        let StreamSource { kind, name } = self.source;
        for piece in pieces {
            let payload = piece.payload(name);
            let bytes = piece.bytes.len();
            match self.limit.admit(kind, &payload, bytes) {
                Admission::Now => self.sink.publish(kind, &payload, bytes).await,
                Admission::InTail => {}
                Admission::FirstInTail { head, tail } => {
                    let word = format!(
                        "{} of output are published; of the rest only the last {} will be, at the end (--max-output)",
                        format_bytes(head),
                        format_bytes(tail)
                    );
                    publish_warning(&mut self.sink, &word).await;
                }
            }
        }
    }

    /// Publishes the gap that is left, and returns what could not be published.
    pub(crate) fn finish(self) -> DroppedEvents {
        self.sink.finish()
    }
}
