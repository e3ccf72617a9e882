//! One event is one JSON object on one line.
//!
//! ```text
//! {"kind":"output","variation":0,"time":1763700000000,"text":"hello\n"}
//! ```
//!
//! A producer writes the line once; from there to Redis, Postgres and every browser its bytes stay
//! as they are. `kind`, `variation` and `time` (producer's clock, Unix milliseconds) come first,
//! the rest depends on the kind and is described by the payload types below. A reader ignores
//! fields that it does not know.
//!
//! `text` of `output` and `log` is a *chunk*: a finished line ends with `\n`, a partial one does
//! not, and a viewer joins the chunks of one variation and stream. Bytes that are not UTF-8 travel
//! as base64 in `bytes` instead, so nothing is lost or replaced. What a producer has recognised in a
//! chunk (a level, a message, a group) stands beside it and never instead of it.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::protocol::event_id::EventId;
use crate::protocol::limits::{MAX_EVENT_BYTES, MAX_VARIATIONS};

mod control;
mod text;

pub use self::control::{Action, Control, ControlState, UnknownAction};
pub use self::text::{Group, GroupState, Text};

/// What an event is about. The number is how Postgres stores it and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum Kind {
    /// What the run produces: a command's stdout, an agent's answer.
    Output = 0,
    /// Diagnostics: a command's stderr, structured log lines.
    Log = 1,
    /// The state of a variation changed; the last one carries the producer's [`Seal`](crate::seal::Seal).
    Status = 2,
    /// How far the work has come.
    Progress = 3,
    /// Named numbers, such as tokens used.
    Metric = 4,
    /// A sign of life that is worth keeping.
    Heartbeat = 5,
    /// A command to the run, and what became of it.
    Control = 6,
    /// Events that could not be kept, counted, so that nothing is lost in silence.
    Gap = 7,
}

impl Kind {
    /// All kinds, by their number.
    pub const ALL: [Self; 8] = [
        Self::Output,
        Self::Log,
        Self::Status,
        Self::Progress,
        Self::Metric,
        Self::Heartbeat,
        Self::Control,
        Self::Gap,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Log => "log",
            Self::Status => "status",
            Self::Progress => "progress",
            Self::Metric => "metric",
            Self::Heartbeat => "heartbeat",
            Self::Control => "control",
            Self::Gap => "gap",
        }
    }

    /// The number in Postgres.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no kind, or a channel that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown channel {0:?}: expected output, log, status, progress, metric, heartbeat or control, optionally with :<variation>, such as output:0"
)]
pub struct UnknownChannel(String);

impl FromStr for Kind {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Self, UnknownChannel> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownChannel(text.chars().take(64).collect()))
    }
}

/// A named view of a run stream: a kind, of one variation or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// The kind that it shows.
    pub kind: Kind,
    /// The variation that it shows; all of them if absent.
    pub variation: Option<u16>,
}

impl Channel {
    /// True if an event of this kind and variation belongs to the channel.
    #[must_use]
    pub fn contains(&self, kind: Kind, variation: u16) -> bool {
        self.kind == kind && self.variation.is_none_or(|one| one == variation)
    }
}

impl FromStr for Channel {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Self, UnknownChannel> {
        let (kind, variation) = match text.split_once(':') {
            None => (text, None),
            Some((kind, number)) => match number.parse::<u16>() {
                Ok(number) if number < MAX_VARIATIONS => (kind, Some(number)),
                _ => return Err(UnknownChannel(text.chars().take(64).collect())),
            },
        };
        let kind = kind.parse()?;
        Ok(Self { kind, variation })
    }
}

/// Where the state of a run or a variation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Created, nothing heard yet.
    Pending,
    /// At work.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
    /// Silent for too long; it may come back.
    Lost,
}

impl Status {
    /// True if nothing more is expected after it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name on the wire and in Postgres.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// Payload of `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusChange {
    /// The new state.
    pub status: Status,
    /// What runs, at the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Where it runs, at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its process id there, at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How a process ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Which signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the producer has published before this event; with a final status only.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub seal: Option<crate::protocol::seal::Seal>,
}

impl StatusChange {
    /// A bare change to `status`.
    #[must_use]
    pub const fn to(status: Status) -> Self {
        Self {
            status,
            command: Vec::new(),
            host: None,
            pid: None,
            exit_code: None,
            signal: None,
            message: None,
            seal: None,
        }
    }
}

/// Payload of `progress`.
#[derive(Debug, Clone, Serialize)]
pub struct Progress<'a> {
    /// What progresses.
    pub label: &'a str,
    /// How much is done, in the same unit as `total`.
    pub current: u64,
    /// How much there is to do, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// `error`, `paused`, `busy` (how much is done is not known) or `cleared` (it is not shown any
    /// more); absent while the work just goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'a str>,
}

/// Payload of `gap`: events that could not be kept.
#[derive(Debug, Clone, Serialize)]
pub struct Gap<'a> {
    /// How many events are missing, if that is known.
    pub count: Option<u64>,
    /// How many bytes of them are known to be missing.
    pub bytes: u64,
    /// Why, in one word.
    pub reason: &'a str,
    /// Last event before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<EventId>,
    /// First event behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<EventId>,
}

/// Unix milliseconds of this machine's clock; 0 if the clock stands before 1970.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// An event that cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    /// Longer than a line may be.
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
        /// The kind that it was meant for.
        kind: Kind,
        /// What went wrong.
        reason: String,
    },
}

/// Appends one event line, with its newline, to `out`; on an error `out` is as it was before.
///
/// # Errors
/// [`InvalidEvent`] if the line would be over [`MAX_EVENT_BYTES`] or `payload` is not an object.
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
    let at = out.len();
    serde_json::to_writer(&mut *out, payload).map_err(|error| error.to_string())?;
    match &out[at..] {
        [b'{', b'}'] => {
            out.remove(at);
            Ok(())
        }
        [b'{', ..] => {
            out[at] = b',';
            Ok(())
        }
        _ => Err("it is another JSON value".into()),
    }
}

/// What every reader must know of a line; parsing it proves that the whole line is one JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head<'a> {
    /// What the event is about.
    pub kind: Kind,
    /// Which attempt it belongs to.
    #[serde(default)]
    pub variation: u16,
    /// The producer's clock, Unix milliseconds.
    #[serde(default)]
    pub time: u64,
    /// Severity, where the producer gave one.
    #[serde(default, borrow)]
    pub level: Option<Cow<'a, str>>,
}

/// Why a line is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableLine {
    /// Longer than [`MAX_EVENT_BYTES`].
    #[error("line of {0} bytes is over the limit of {MAX_EVENT_BYTES} bytes")]
    TooLarge(usize),
    /// A carriage return between JSON tokens would break SSE framing.
    #[error("line holds a raw carriage return")]
    CarriageReturn,
    /// Not JSON, not an object, or without a known kind.
    #[error("line is not a JSON event: {0}")]
    NotAnEvent(String),
    /// The variation is beyond [`MAX_VARIATIONS`].
    #[error("variation {0} is not below the limit of {MAX_VARIATIONS}")]
    Variation(u16),
}

impl<'a> Head<'a> {
    /// Reads the head of a line and checks the line as a whole.
    ///
    /// # Errors
    /// [`UnreadableLine`] says what is wrong; the line must then not be shown, only kept aside.
    pub fn parse(line: &'a [u8]) -> Result<Self, UnreadableLine> {
        if line.len() > MAX_EVENT_BYTES {
            return Err(UnreadableLine::TooLarge(line.len()));
        }
        if memchr::memchr(b'\r', line).is_some() {
            return Err(UnreadableLine::CarriageReturn);
        }
        // Without the check for the brace an array of fields would be taken for the object.
        if line.first() != Some(&b'{') || line.last() != Some(&b'}') {
            return Err(UnreadableLine::NotAnEvent("it is no JSON object".into()));
        }
        // The JSON parser skips strings that it does not need without looking at their UTF-8.
        let text = std::str::from_utf8(line)
            .map_err(|error| UnreadableLine::NotAnEvent(error.to_string()))?;
        let head: Self = serde_json::from_str(text)
            .map_err(|error| UnreadableLine::NotAnEvent(error.to_string()))?;
        if head.variation >= MAX_VARIATIONS {
            return Err(UnreadableLine::Variation(head.variation));
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests;
