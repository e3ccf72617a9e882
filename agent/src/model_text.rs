//! A model's answer on its way into the publisher, while it is being written.
//!
//! ```no_run
//! # async fn example(publisher: &runcast_agent::Publisher) -> Result<(), Box<dyn std::error::Error>> {
//! use runcast_agent::model_text::ModelText;
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
//! Models give a few bytes at a time, often a hundred times a second. As events they would cost more
//! in envelopes than in text, so they are put together: a delta after a quiet time of [`LINGER`] is
//! published at once, and so is everything up to a line end, or [`LARGE_BYTES`]; the rest no later
//! than [`LINGER`] after the last event. The chunks join to exactly the text; characters are never cut.
//!
//! Several texts at once in one variation are told apart by names ([`ModelText::named`]), which stand
//! in `stream` of each chunk: viewers join the chunks of one variation and stream.
//!
//! Data: what is not published yet. While the queue of the publisher is full this grows to
//! [`HELD_BYTES`]; then `push` waits, as [`Publisher::publish`] does. One task for each text publishes
//! what lingers; it ends with the text. A text that is dropped in the middle publishes what it had
//! right then, without waiting; should the queue be full, a `gap` counts what is missing.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, TryStreamExt as _};
use runcast_common::protocol::event::{Kind, Text};
use runcast_common::protocol::limits::MAX_NAME_BYTES;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::payload::chunks;
use crate::publisher::{PublishError, Publisher};

/// Longest time that a delta waits for more: hardly seen by an eye, and 25 events a second.
pub const LINGER: Duration = Duration::from_millis(40);

/// So much is published at once: a reader could not follow it anyway.
pub const LARGE_BYTES: usize = 4 * 1024;

/// What is held at most while the publisher's queue is full, and one delta more.
pub const HELD_BYTES: usize = 64 * 1024;

/// A name of a text that is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a text has {0} bytes: give it 1 to {MAX_NAME_BYTES}")]
pub struct UnusableName(usize);

/// Why a model's stream was not published to its end.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError<E> {
    /// The model's stream failed. What came before is published.
    #[error("the model's stream failed")]
    Source(#[source] E),
    /// The rest cannot be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// One text that is being written. To be ended by [`finish`](Self::finish) or
/// [`finish_line`](Self::finish_line); until then it must stay within the tokio runtime that it was
/// made in.
pub struct ModelText {
    text: Arc<Pending>,
    /// Publishes what lingers.
    _lingering: AbortOnDropHandle<()>,
}

/// What both sides of a text share.
struct Pending {
    publisher: Publisher,
    stream: Option<String>,
    held: Mutex<Held>,
    /// Something is held that was not before.
    arrived: Notify,
}

#[derive(Default)]
struct Held {
    text: String,
    /// When something was last published.
    published: Option<Instant>,
    /// The text so far ends a line, or is empty.
    at_line_start: bool,
    /// Why nothing is published any more, until somebody was told.
    failed: Option<PublishError>,
}

impl fmt::Debug for ModelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelText")
            .field("stream", &self.text.stream)
            .field("held_bytes", &self.text.lock().text.len())
            .finish_non_exhaustive()
    }
}

impl ModelText {
    /// A text of a variation that has no other at the same time. Must be called within a tokio
    /// runtime.
    #[must_use]
    pub fn new(publisher: &Publisher) -> Self {
        Self::of(publisher, None)
    }

    /// One of several texts at once, such as parallel answers. A name may be used again for a later
    /// text, which viewers see as going on.
    ///
    /// # Errors
    /// If the name is empty, or longer than [`MAX_NAME_BYTES`].
    pub fn named(publisher: &Publisher, name: &str) -> Result<Self, UnusableName> {
        match name.len() {
            1..=MAX_NAME_BYTES => Ok(Self::of(publisher, Some(name.to_owned()))),
            length => Err(UnusableName(length)),
        }
    }

    fn of(publisher: &Publisher, stream: Option<String>) -> Self {
        let text = Arc::new(Pending {
            publisher: publisher.clone(),
            stream,
            held: Mutex::new(Held {
                at_line_start: true,
                ..Held::default()
            }),
            arrived: Notify::new(),
        });
        let lingering = tokio::spawn(linger(Arc::clone(&text)));
        Self {
            text,
            _lingering: AbortOnDropHandle::new(lingering),
        }
    }

    /// Takes in what the model has written; waits only while too much is held, because the publisher's
    /// queue is full. A call that is given up has taken in all of it.
    ///
    /// # Errors
    /// [`PublishError`] if the publisher has ended, or an earlier part could not be published.
    pub async fn push(&mut self, delta: &str) -> Result<(), PublishError> {
        self.text.take_in(delta)?;
        self.text.drain(HELD_BYTES).await
    }

    /// Publishes everything that is held, without ending the text.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub async fn flush(&mut self) -> Result<(), PublishError> {
        self.text.lock().publish(&self.text)?;
        self.text.drain(0).await
    }

    /// Publishes the rest.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub async fn finish(mut self) -> Result<(), PublishError> {
        self.flush().await
    }

    /// Publishes the rest, and ends its line if the text did not.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub async fn finish_line(mut self) -> Result<(), PublishError> {
        if !self.text.lock().at_line_start {
            self.text.take_in("\n")?;
        }
        self.flush().await
    }

    /// Takes in all that a model's stream gives, and flushes. When this is given up in the middle, what
    /// came before is kept, and published with the text's end or a little later.
    ///
    /// # Errors
    /// [`ForwardError`], with what came before published if it was the model's stream that failed.
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
        let mut held = self.text.lock();
        // Whoever drops a text cannot be told; the stream is.
        drop(held.publish(&self.text));
        if !held.text.is_empty() {
            self.text.publisher.note_lost(1, held.text.len() as u64);
        }
    }
}

impl Pending {
    /// No state here is left half-changed by a panic, so poison means nothing.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a delta, and publishes if that is due.
    fn take_in(&self, delta: &str) -> Result<(), PublishError> {
        if delta.is_empty() {
            return Ok(());
        }
        let mut held = self.lock();
        held.check()?;
        let was_empty = held.text.is_empty();
        held.text.push_str(delta);
        held.at_line_start = delta.ends_with('\n');
        if held.due() <= Instant::now() || held.text.len() >= LARGE_BYTES {
            held.publish(self)?;
        } else if let Some(end) = memchr::memrchr(b'\n', delta.as_bytes()) {
            let rest = delta.len() - (end + 1);
            let lines = held.text.len() - rest;
            held.publish_some(self, lines)?;
        }
        if was_empty && !held.text.is_empty() {
            drop(held);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Publishes what has lingered for long enough. What fails is told to the next caller.
    fn publish_due(&self) -> Next {
        let mut held = self.lock();
        if held.text.is_empty() {
            return Next::Delta;
        }
        let due = held.due();
        if due > Instant::now() {
            return Next::Time(due);
        }
        if let Err(error) = held.publish(self) {
            held.failed = Some(error);
        }
        match held.text.is_empty() {
            true => Next::Delta,
            false => Next::Room,
        }
    }

    /// Publishes until no more than so many bytes are held.
    async fn drain(&self, limit: usize) -> Result<(), PublishError> {
        loop {
            {
                let mut held = self.lock();
                held.check()?;
                if held.text.len() <= limit {
                    return Ok(());
                }
                held.publish(self)?;
                if held.text.len() <= limit {
                    return Ok(());
                }
            }
            self.publisher.room_for(Kind::Output).await;
        }
    }
}

impl Held {
    /// When what is held is to be published.
    fn due(&self) -> Instant {
        let now = Instant::now();
        self.published.map_or(now, |published| published + LINGER)
    }

    fn check(&mut self) -> Result<(), PublishError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Publishes what is held, as far as there is room.
    fn publish(&mut self, of: &Pending) -> Result<(), PublishError> {
        self.publish_some(of, self.text.len())
    }

    /// Publishes so many bytes of what is held, as far as there is room.
    fn publish_some(&mut self, of: &Pending, length: usize) -> Result<(), PublishError> {
        let mut done = 0;
        let mut result = Ok(());
        for chunk in chunks(&self.text[..length]) {
            if chunk.is_empty() {
                break;
            }
            let payload = Text {
                stream: of.stream.as_deref(),
                text: Some(chunk),
                ..Text::default()
            };
            match of.publisher.try_publish(Kind::Output, &payload) {
                Ok(_seq) => done += chunk.len(),
                Err(PublishError::Full) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if result.is_err() {
            // Nothing more will ever be published.
            self.text.clear();
        } else if done > 0 {
            self.text.drain(..done);
            self.published = Some(Instant::now());
        }
        result
    }
}

/// What the task of a text waits for next.
enum Next {
    Delta,
    Time(Instant),
    Room,
}

/// Publishes what lingers, until the text has ended.
async fn linger(text: Arc<Pending>) {
    loop {
        match text.publish_due() {
            Next::Delta => text.arrived.notified().await,
            Next::Time(due) => sleep_until(due).await,
            Next::Room => text.publisher.room_for(Kind::Output).await,
        }
    }
}

#[cfg(test)]
mod tests;
