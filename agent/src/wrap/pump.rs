//! Moves one stream of the wrapped command: to our own stream first, unchanged and at once, then
//! redacted and cut into lines into the publisher.
//!
//! Data: one read buffer of [`READ_BYTES`], what is redacted of it, and what the redaction and
//! [`Lines`] hold. Time: a partial line is published after [`PARTIAL`]; what may be the beginning of
//! a secret is held back as [`crate::redact`] says, at the same time as that; after the command's end the stream is read for as long as the given
//! deadline allows, since a descendant may hold it open for ever.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::feed::{Dropped, Feed};
use super::lines::Lines;
use crate::redact::Stream;
use crate::say;

/// Bytes of one read: what a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;

/// After so long a line without its end is shown as far as it is: a prompt, a progress bar.
const PARTIAL: Duration = Duration::from_millis(100);

/// What is still read after the deadline, if it is there already: the most that a pipe can hold
/// unless root made it larger.
const PIPE_BYTES: usize = 1024 * 1024;

/// Moves everything until the stream's end, or until `deadline` has come and nothing is left to
/// read; gives what could not be published.
pub(crate) async fn pump(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    mut redact: Stream,
    mut feed: Feed,
    mut deadline: watch::Receiver<Option<Instant>>,
) -> Dropped {
    let mut buffer = vec![0; READ_BYTES];
    let mut clear = Vec::new();
    let mut lines = Lines::default();
    let mut to = Some(to);
    let mut flush_at: Option<Instant> = None;
    let mut late_bytes = 0;
    loop {
        let until = *deadline.borrow_and_update();
        let held_until = redact.deadline();
        let far = Instant::now() + PARTIAL;
        tokio::select! {
            biased;
            read = from.read(&mut buffer) => {
                let length = match read {
                    Ok(0) => break,
                    Ok(length) => length,
                    Err(error) => {
                        tracing::warn!(%error, "the command's output cannot be read any more");
                        break;
                    }
                };
                let delivered = pass_through(&mut to, &buffer[..length]).await;
                clear.clear();
                redact.push(&buffer[..length], Instant::now(), &mut clear);
                lines.push(&clear);
                while let Some(line) = lines.next_line() {
                    feed.publish(line).await;
                    flush_at = None;
                }
                if !delivered {
                    // Nobody reads our output: the command shall find its own closed as well.
                    break;
                }
                if lines.has_partial() {
                    flush_at = flush_at.or_else(|| Some(Instant::now() + PARTIAL));
                }
                if until.is_some_and(|until| until <= Instant::now()) {
                    late_bytes += length;
                    if late_bytes >= PIPE_BYTES {
                        break;
                    }
                }
            }
            () = sleep_until(flush_at.unwrap_or(far)), if flush_at.is_some() => {
                if let Some(chunk) = lines.partial() {
                    feed.publish(chunk).await;
                }
                flush_at = None;
            }
            () = sleep_until(held_until.unwrap_or(far)), if held_until.is_some() => {
                clear.clear();
                redact.tick(Instant::now(), &mut clear);
                lines.push(&clear);
                while let Some(line) = lines.next_line() {
                    feed.publish(line).await;
                }
                // It has waited already.
                if let Some(chunk) = lines.partial() {
                    feed.publish(chunk).await;
                }
                flush_at = None;
            }
            () = sleep_until(until.unwrap_or(far)), if until.is_some() => break,
            changed = deadline.changed(), if until.is_none() => if changed.is_err() { break },
        }
    }
    drop(from);
    clear.clear();
    redact.finish(&mut clear);
    lines.push(&clear);
    while let Some(line) = lines.next_line() {
        feed.publish(line).await;
    }
    if let Some(rest) = lines.rest() {
        feed.publish(rest).await;
    }
    feed.finish()
}

/// Writes to our own stream; false if its reader has gone.
async fn pass_through(to: &mut Option<impl AsyncWrite + Unpin>, bytes: &[u8]) -> bool {
    let Some(stream) = to else { return true };
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    match written.await {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
        Err(error) => {
            say(format_args!("the output cannot be passed through: {error}"));
            *to = None;
            true
        }
    }
}
