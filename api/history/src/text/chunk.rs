//! The text of one event, as bytes, and the stream that it belongs to.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use runcast_common::protocol::event::{Channel, Kind};
use serde::Deserialize;

use crate::filter::Filter;
use crate::pages::HistoryItem;

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
        })
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
