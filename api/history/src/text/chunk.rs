//! The bytes of one event of text, and where they belong.

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
    /// Which of the variation's texts it belongs to.
    pub stream: Cow<'a, str>,
    /// Severity, where it has one.
    pub level: Option<Cow<'a, str>>,
    /// The producer's clock, Unix milliseconds.
    pub time: u64,
    /// What was written.
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
    /// The chunk of an event; none if it is no text. What claims to be base64 and is not is taken as
    /// it stands, rather than left out.
    #[must_use]
    pub fn of(item: &'a HistoryItem) -> Option<Self> {
        let usual = match item.kind {
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
            stream: payload.stream.unwrap_or(Cow::Borrowed(usual)),
            level: payload.level,
            time: payload.time,
            bytes,
        })
    }
}

/// The channels of text among those that are asked for; all of text if none are.
#[must_use]
pub fn text_channels(asked: &Filter) -> Filter {
    if !asked.channels().is_empty() {
        return asked.clone();
    }
    let all = |kind| Channel {
        kind,
        variation: None,
    };
    Filter::new(vec![all(Kind::Output), all(Kind::Log)])
}
