//! The chunks of the wrapped command's streams on their way into the publisher: what they say beyond
//! their text is recognised, what is over the limit is kept for the end, and the rest goes out.
//!
//! - `recognise`: what a chunk says;
//! - `cap`: how much of a command that prints without end is published;
//! - `reporter`: how far the work has come;
//! - `outlet`: what happens while the queue is full.
//!
//! Time: [`Feed::publish`] waits as long as the outlet does. [`Feeds::finish`] publishes the tail, at
//! most 8 MiB, within the same limit.

use std::sync::Arc;

use runcast_common::protocol::event::{Kind, Text};
use tokio::task::JoinHandle;

use super::cap::{Admitted, Cap, in_words};
pub(crate) use super::outlet::Dropped;
use super::outlet::Outlet;
use super::recognise::Recogniser;
use super::recognise::markers::Markers;
use super::reporter::Reporter;
use crate::publisher::Publisher;

/// The stream of what we say ourselves.
const OWN: &str = "runcast";

/// Which stream it is, and how its chunks are published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
}

/// The command's standard output.
pub(crate) const STDOUT: Source = Source {
    kind: Kind::Output,
    name: "stdout",
};

/// The command's standard error.
pub(crate) const STDERR: Source = Source {
    kind: Kind::Log,
    name: "stderr",
};

/// What the streams of one command share.
#[derive(Debug)]
pub(crate) struct Feeds {
    publisher: Option<Publisher>,
    markers: Markers,
    cap: Arc<Cap>,
    reporter: Option<(Reporter, JoinHandle<()>)>,
}

impl Feeds {
    /// The streams of a command of this name, of which so many bytes are published (0: all). Must be
    /// called within a tokio runtime.
    pub(crate) fn new(
        publisher: Option<Publisher>,
        markers: Markers,
        max_output: u64,
        command: &str,
    ) -> Self {
        let start = |publisher: &Publisher| Reporter::start(publisher.clone(), command.to_owned());
        Self {
            reporter: publisher.as_ref().filter(|_| markers.any()).map(start),
            publisher,
            markers,
            cap: Arc::new(Cap::new(max_output)),
        }
    }

    /// The way of one stream.
    pub(crate) fn feed(&self, source: Source) -> Feed {
        Feed {
            outlet: Outlet::new(self.publisher.clone(), source.name),
            source,
            recogniser: Recogniser::new(self.markers),
            cap: Arc::clone(&self.cap),
            reporter: self.reporter.as_ref().map(|(reporter, _)| reporter.clone()),
        }
    }

    /// Publishes what was kept for the end, when all streams have ended; gives what could not be
    /// published, and what the limit left out.
    pub(crate) async fn finish(self) -> (Dropped, Dropped) {
        let (left_out, tail) = self.cap.finish();
        let mut outlet = Outlet::new(self.publisher, "the end of the output");
        if left_out.events > 0 {
            outlet.put(Kind::Gap, &left_out.gap("cap"), 0).await;
        }
        for kept in tail {
            outlet.put(kept.kind, &kept.payload, kept.bytes).await;
        }
        if let Some((reporter, task)) = self.reporter {
            reporter.finish(task).await;
        }
        (outlet.finish(), left_out)
    }
}

/// One stream on its way into the publisher; without a publisher it leads nowhere.
#[derive(Debug)]
pub(crate) struct Feed {
    outlet: Outlet,
    source: Source,
    recogniser: Recogniser,
    cap: Arc<Cap>,
    reporter: Option<Reporter>,
}

impl Feed {
    /// Publishes a chunk, or keeps it for the end, or counts it as dropped.
    pub(crate) async fn publish(&mut self, chunk: &[u8]) {
        if !self.outlet.is_open() {
            return;
        }
        let reporter = self.reporter.as_ref();
        let pieces = self.recogniser.read(chunk, |mark| {
            if let Some(reporter) = reporter {
                reporter.tell(mark);
            }
        });
        let Source { kind, name } = self.source;
        for piece in pieces {
            let payload = piece.payload(name);
            let bytes = piece.bytes.len();
            match self.cap.admit(kind, &payload, bytes) {
                Admitted::Now => self.outlet.put(kind, &payload, bytes).await,
                Admitted::Later => {}
                Admitted::First { head, tail } => {
                    let text = format!(
                        "runcast: {} of output are published, from here on only its last {} are, at its end (--max-output)\n",
                        in_words(head),
                        in_words(tail)
                    );
                    let warning = Text {
                        level: Some("warn"),
                        ..Text::from_chunk(Some(OWN), text.as_bytes())
                    };
                    self.outlet.put(Kind::Log, &warning, 0).await;
                }
            }
        }
    }

    /// Tells what is missing, and gives what could not be told.
    pub(crate) fn finish(self) -> Dropped {
        self.outlet.finish()
    }
}
