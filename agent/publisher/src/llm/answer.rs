//! [`ModelText`]: publishes a model's answer while it is written.
//!
//! ```no_run
//! # use runcast_publisher::Publisher;
//! # async fn example(publisher: &Publisher) -> Result<(), Box<dyn std::error::Error>> {
//! use runcast_publisher::llm::ModelText;
//!
//! let mut answer = ModelText::new(publisher);
//! for delta in ["Hel", "lo,", " world"] {
//!     answer.push(delta).await?;
//! }
//! answer.finish_line().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Models return a few bytes at a time, often a hundred times a second. As separate events they
//! would cost more in envelopes than in text, so they are combined: a delta after a pause of
//! [`LINGER`] is published at once, and so is everything up to a line end, or [`FLUSH_BYTES`]; the
//! rest at most [`LINGER`] after the last event. The chunks join to exactly the text; characters
//! are never split.
//!
//! Names distinguish several texts that are written at once in one variation
//! ([`ModelText::named`]). The name is the `stream` of each chunk: viewers join the chunks of one
//! variation and stream.
//!
//! Data: what is not published yet. While the publisher's queue is full this grows to
//! [`MAX_BUFFERED_BYTES`]; then `push` waits, as [`Publisher::publish`] does. One task per text
//! publishes what lingers, and ends with the text. Dropping a text publishes what it buffers,
//! without waiting; if the queue is full, a `gap` counts what is missing.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, TryStreamExt as _};
use runcast_common::protocol::event::{Kind, Text};
use runcast_common::protocol::limits::MAX_NAME_BYTES;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::error::PublishError;
use crate::publisher::Publisher;
use crate::queue::payload::chunks;

/// Longest time that a delta waits for more: hardly visible, and 25 events a second.
pub const LINGER: Duration = Duration::from_millis(40);

/// Text of this size is published at once: a person could not read along anyway.
pub const FLUSH_BYTES: usize = 4 * 1024;

/// Text that is buffered while the publisher's queue is full; one delta may exceed it.
pub const MAX_BUFFERED_BYTES: usize = 64 * 1024;

/// The name of a text is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a text has {0} bytes: give it 1 to {MAX_NAME_BYTES}")]
pub struct InvalidTextName(pub(super) usize);

/// Why a model's stream was not published to its end.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError<E> {
    /// The model's stream failed. The text before that is published.
    #[error("the model's stream failed")]
    Source(#[source] E),
    /// The text could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A text that is being written. End it with [`finish`](Self::finish) or
/// [`finish_line`](Self::finish_line). Until then, use it within the tokio runtime that created it.
pub struct ModelText {
    shared: Arc<SharedText>,
    /// Publishes text that has lingered.
    _lingering: AbortOnDropHandle<()>,
}

/// What the text and its task share.
struct SharedText {
    publisher: Publisher,
    stream: Option<String>,
    unpublished: Mutex<Unpublished>,
    /// The text was empty and no longer is.
    arrived: Notify,
}

#[derive(Default)]
struct Unpublished {
    text: String,
    /// When text was last published.
    published_at: Option<Instant>,
    /// Whether the text so far is empty or ends with a newline.
    at_line_start: bool,
    /// The task's error, until a caller receives it.
    error: Option<PublishError>,
}

impl fmt::Debug for ModelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelText")
            .field("stream", &self.shared.stream)
            .field("unpublished_bytes", &self.shared.lock().text.len())
            .finish_non_exhaustive()
    }
}

impl ModelText {
    /// The only text of its variation. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(publisher: &Publisher) -> Self {
        Self::with_stream(publisher, None)
    }

    /// One of several texts that are written at once, such as parallel answers. A later text may
    /// use the name again; viewers see it as the same text. A name has 1 to [`MAX_NAME_BYTES`]
    /// bytes.
    pub fn named(publisher: &Publisher, name: &str) -> Result<Self, InvalidTextName> {
        match name.len() {
            1..=MAX_NAME_BYTES => Ok(Self::with_stream(publisher, Some(name.to_owned()))),
            length => Err(InvalidTextName(length)),
        }
    }

    fn with_stream(publisher: &Publisher, stream: Option<String>) -> Self {
        let shared = Arc::new(SharedText {
            publisher: publisher.clone(),
            stream,
            unpublished: Mutex::new(Unpublished {
                at_line_start: true,
                ..Unpublished::default()
            }),
            arrived: Notify::new(),
        });
        let lingering = tokio::spawn(publish_lingering(Arc::clone(&shared)));
        Self {
            shared,
            _lingering: AbortOnDropHandle::new(lingering),
        }
    }

    /// Adds what the model has written. Waits only while too much is buffered because the
    /// publisher's queue is full. A cancelled call has added all of it.
    ///
    /// # Errors
    /// [`PublishError`] if the publisher has closed, or an earlier part could not be published.
    pub async fn push(&mut self, delta: &str) -> Result<(), PublishError> {
        self.shared.add(delta)?;
        self.shared.drain(MAX_BUFFERED_BYTES).await
    }

    /// Publishes everything that is buffered, without ending the text.
    pub async fn flush(&mut self) -> Result<(), PublishError> {
        self.shared.lock().publish(&self.shared)?;
        self.shared.drain(0).await
    }

    /// Publishes the rest and ends the text.
    pub async fn finish(mut self) -> Result<(), PublishError> {
        self.flush().await
    }

    /// Publishes the rest, with a newline if the last line has none, and ends the text.
    pub async fn finish_line(mut self) -> Result<(), PublishError> {
        if !self.shared.lock().at_line_start {
            self.shared.add("\n")?;
        }
        self.flush().await
    }

    /// Adds everything that a model's stream returns, and flushes. Text that was added before the
    /// call is cancelled stays, and is published within [`LINGER`] or with the end of the text.
    pub async fn forward<T, E>(
        &mut self,
        deltas: impl Stream<Item = Result<T, E>>,
    ) -> Result<(), ForwardError<E>>
    where
        T: AsRef<str>,
    {
        let mut deltas = std::pin::pin!(deltas);
        loop {
            match deltas.try_next().await {
                Ok(Some(delta)) => self.push(delta.as_ref()).await?,
                Ok(None) => return Ok(self.flush().await?),
                Err(error) => {
                    self.flush().await?;
                    return Err(ForwardError::Source(error));
                }
            }
        }
    }
}

impl Drop for ModelText {
    fn drop(&mut self) {
        let mut unpublished = self.shared.lock();
        // `drop` cannot return an error; the gap shows the loss to viewers.
        drop(unpublished.publish(&self.shared));
        if !unpublished.text.is_empty() {
            let publisher = &self.shared.publisher;
            publisher.note_lost(1, unpublished.text.len() as u64);
        }
    }
}

impl SharedText {
    /// A poisoned lock is fine: no panic leaves the state half changed.
    fn lock(&self) -> MutexGuard<'_, Unpublished> {
        self.unpublished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a delta, and publishes if that is due.
    fn add(&self, delta: &str) -> Result<(), PublishError> {
        if delta.is_empty() {
            return Ok(());
        }
        let mut unpublished = self.lock();
        unpublished.take_error()?;
        let was_empty = unpublished.text.is_empty();
        unpublished.text.push_str(delta);
        unpublished.at_line_start = delta.ends_with('\n');
        if unpublished.due_at() <= Instant::now() || unpublished.text.len() >= FLUSH_BYTES {
            unpublished.publish(self)?;
        } else if let Some(end) = memchr::memrchr(b'\n', delta.as_bytes()) {
            let rest = delta.len() - (end + 1);
            let lines = unpublished.text.len() - rest;
            unpublished.publish_front(self, lines)?;
        }
        if was_empty && !unpublished.text.is_empty() {
            drop(unpublished);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Publishes text that has lingered long enough. The next caller receives an error.
    fn publish_due(&self) -> NextWait {
        let mut unpublished = self.lock();
        if unpublished.text.is_empty() {
            return NextWait::Delta;
        }
        let due = unpublished.due_at();
        if due > Instant::now() {
            return NextWait::Time(due);
        }
        if let Err(error) = unpublished.publish(self) {
            unpublished.error = Some(error);
        }
        match unpublished.text.is_empty() {
            true => NextWait::Delta,
            false => NextWait::Room,
        }
    }

    /// Publishes until at most `max_bytes` are buffered.
    async fn drain(&self, max_bytes: usize) -> Result<(), PublishError> {
        loop {
            {
                let mut unpublished = self.lock();
                unpublished.take_error()?;
                if unpublished.text.len() <= max_bytes {
                    return Ok(());
                }
                unpublished.publish(self)?;
                if unpublished.text.len() <= max_bytes {
                    return Ok(());
                }
            }
            self.publisher.wait_for_room(Kind::Output).await;
        }
    }
}

impl Unpublished {
    /// When the text must be published.
    fn due_at(&self) -> Instant {
        let now = Instant::now();
        self.published_at.map_or(now, |at| at + LINGER)
    }

    /// Returns the error of the task, once.
    fn take_error(&mut self) -> Result<(), PublishError> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Publishes the text, as far as there is room.
    fn publish(&mut self, shared: &SharedText) -> Result<(), PublishError> {
        self.publish_front(shared, self.text.len())
    }

    /// Publishes the first `length` bytes of the text, as far as there is room.
    fn publish_front(&mut self, shared: &SharedText, length: usize) -> Result<(), PublishError> {
        let mut done = 0;
        let mut result = Ok(());
        for chunk in chunks(&self.text[..length]) {
            if chunk.is_empty() {
                break;
            }
            let payload = Text {
                stream: shared.stream.as_deref(),
                text: Some(chunk),
                ..Text::default()
            };
            match shared.publisher.try_publish(Kind::Output, &payload) {
                Ok(_seq) => done += chunk.len(),
                Err(PublishError::Full) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if result.is_err() {
            // Every later attempt would fail too.
            self.text.clear();
        } else if done > 0 {
            self.text.drain(..done);
            self.published_at = Some(Instant::now());
        }
        result
    }
}

/// What the task of a text waits for.
enum NextWait {
    Delta,
    Time(Instant),
    Room,
}

/// Publishes text that has lingered, until the text ends.
async fn publish_lingering(text: Arc<SharedText>) {
    loop {
        match text.publish_due() {
            NextWait::Delta => text.arrived.notified().await,
            NextWait::Time(due) => sleep_until(due).await,
            NextWait::Room => text.publisher.wait_for_room(Kind::Output).await,
        }
    }
}
