//! Writes event lines. A line is at most [`MAX_EVENT_BYTES`] long, without its newline.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::kind::Kind;
use super::line_separators;
use crate::protocol::limits::MAX_EVENT_BYTES;

/// Unix milliseconds by the clock of this machine; 0 if the clock is set before 1970.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// An event that cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    /// The line exceeds [`MAX_EVENT_BYTES`].
    #[error(
        "event of {size} bytes is over the limit of {MAX_EVENT_BYTES} bytes: split it into chunks"
    )]
    TooLarge {
        /// Bytes of the whole line.
        size: usize,
    },
    /// The payload is not a JSON object.
    #[error("payload of a {kind} event cannot be written as a JSON object: {reason}")]
    NotAnObject {
        /// Kind of the event.
        kind: Kind,
        /// The cause.
        reason: String,
    },
}

/// Appends one event line, with its newline, to `out`. After an error `out` is unchanged.
pub fn write_line(
    out: &mut Vec<u8>,
    kind: Kind,
    variation: u16,
    time_ms: u64,
    payload: &impl Serialize,
) -> Result<(), InvalidEvent> {
    let start = out.len();
    let result = write_unchecked(out, kind, variation, time_ms, payload);
    let size = out.len() - start;
    match result {
        Ok(()) if size <= MAX_EVENT_BYTES => {
            out.push(b'\n');
            Ok(())
        }
        Ok(()) => {
            out.truncate(start);
            Err(InvalidEvent::TooLarge { size })
        }
        Err(reason) => {
            out.truncate(start);
            Err(InvalidEvent::NotAnObject { kind, reason })
        }
    }
}

fn write_unchecked(
    out: &mut Vec<u8>,
    kind: Kind,
    variation: u16,
    time_ms: u64,
    payload: &impl Serialize,
) -> Result<(), String> {
    write!(
        out,
        r#"{{"kind":"{kind}","variation":{variation},"time":{time_ms}"#
    )
    .map_err(|error| error.to_string())?;
    // Join the payload's object to the head: its opening brace becomes a comma.
    let at = out.len();
    serde_json::to_writer(&mut *out, payload).map_err(|error| error.to_string())?;
    match &out[at..] {
        [b'{', b'}'] => {
            out.remove(at);
        }
        [b'{', ..] => out[at] = b',',
        _ => return Err("it is another kind of JSON value".into()),
    }
    // Where lines are stored as they are written, nothing must take a text for the end of one.
    if let Cow::Owned(escaped) = line_separators::escaped(&out[at..]) {
        out.truncate(at);
        out.extend_from_slice(&escaped);
    }
    Ok(())
}
