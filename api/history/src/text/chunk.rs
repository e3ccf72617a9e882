//! The text of one event, as bytes, and the stream that it belongs to.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memmem::Finder;
use runcast_common::protocol::event::{Channel, Kind};
use serde::Deserialize;

use crate::filter::Filter;
use crate::pages::HistoryItem;

/// One of these stands in the line of a chunk with something detected.
static MARKS: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| ["\"message\"", "\"group\""].map(Finder::new));

/// One chunk of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The stream of the variation that it belongs to.
    pub stream: Cow<'a, str>,
    /// The severity, if it has one.
    pub level: Option<Cow<'a, str>>,
    /// The producer's clock, Unix milliseconds.
    pub time: u64,
    /// The bytes that were written.
    pub bytes: Cow<'a, [u8]>,
    /// What a viewer shows in place of the bytes, if the producer has detected it.
    pub shown: Option<ShownRow<'a>>,
}

/// What a viewer shows in place of the bytes of a chunk: a row of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShownRow<'a> {
    /// The message of a log line, and its other fields if the bytes are one JSON object.
    Record {
        /// The message.
        message: Cow<'a, str>,
        /// The bytes are one JSON object.
        is_json: bool,
    },
    /// The marker of a group: its title at the start, nothing at the end.
    Group(Option<Cow<'a, str>>),
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(default, borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    level: Option<Cow<'a, str>>,
    #[serde(default)]
    time: u64,
    #[serde(default, borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    bytes: Option<Cow<'a, str>>,
}

/// What the producer has detected. It is read apart from the text, so that a field of another type
/// costs no more than what it says.
#[derive(Deserialize)]
struct Detected<'a> {
    #[serde(default, borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    format: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    group: Option<GroupMarker<'a>>,
}

#[derive(Deserialize)]
struct GroupMarker<'a> {
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default, borrow)]
    title: Option<Cow<'a, str>>,
}

impl<'a> Chunk<'a> {
    /// The chunk of an event; None if the event holds no text. A text that should be base64 and is
    /// not is kept as it is, rather than left out.
    pub fn of(item: &'a HistoryItem) -> Option<Self> {
        let default_stream = match item.kind {
            Kind::Output => "stdout",
            Kind::Log => "stderr",
            _ => return None,
        };
        let payload: Payload<'a> = serde_json::from_slice(&item.event.line).ok()?;
        let bytes = match (payload.text, payload.bytes) {
            (Some(Cow::Borrowed(text)), _) => Cow::Borrowed(text.as_bytes()),
            (Some(Cow::Owned(text)), _) => Cow::Owned(text.into_bytes()),
            (None, Some(encoded)) => match BASE64.decode(encoded.as_ref()) {
                Ok(bytes) => Cow::Owned(bytes),
                Err(_not_base64) => Cow::Owned(encoded.into_owned().into_bytes()),
            },
            (None, None) => Cow::Borrowed(&[][..]),
        };
        Some(Self {
            stream: payload.stream.unwrap_or(Cow::Borrowed(default_stream)),
            level: payload.level,
            time: payload.time,
            bytes,
            shown: ShownRow::of(&item.event.line),
        })
    }
}

impl<'a> ShownRow<'a> {
    /// The same, without the event.
    pub fn into_owned(self) -> ShownRow<'static> {
        match self {
            Self::Record { message, is_json } => ShownRow::Record {
                message: Cow::Owned(message.into_owned()),
                is_json,
            },
            Self::Group(title) => {
                ShownRow::Group(title.map(|title| Cow::Owned(title.into_owned())))
            }
        }
    }

    fn of(line: &'a [u8]) -> Option<Self> {
        // The cheap test comes first: most chunks are plain text.
        if MARKS.iter().all(|mark| mark.find(line).is_none()) {
            return None;
        }
        let detected: Detected<'a> = serde_json::from_slice(line).ok()?;
        match (detected.group, detected.message) {
            (Some(group), _) => Some(Self::Group(match group.state.as_ref() {
                "start" => Some(group.title.unwrap_or(group.id)),
                _ => None,
            })),
            (None, Some(message)) => Some(Self::Record {
                message,
                is_json: detected.format.as_deref() == Some("json"),
            }),
            (None, None) => None,
        }
    }
}

/// The text channels among the requested ones; all text channels if none are requested.
pub fn text_channels(requested: &Filter) -> Filter {
    if !requested.channels().is_empty() {
        return requested.clone();
    }
    let all = |kind| Channel {
        kind,
        variation: None,
    };
    Filter::new(vec![all(Kind::Output), all(Kind::Log)])
}
