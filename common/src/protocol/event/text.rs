//! Payload of `output` and `log`: one chunk of text, and what the producer detected in it.
//!
//! ```text
//! {..,"stream":"stdout","level":"info","format":"json","message":"up","text":"{\"msg\":\"up\"}\n"}
//! {..,"stream":"stdout","group":{"state":"start","id":"a","title":"Build"},"text":"..."}
//! ```
//!
//! The groups of a variation form a stack. `start` opens a group inside those that are open; an
//! open group with the same id ends first, with all groups in it. `end` ends the group with its id,
//! with all groups in it, and has no effect if there is none. The end of the variation ends all
//! groups.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

/// Payload of `output` and `log`: one chunk of text.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Text<'a> {
    /// Which of several concurrent texts of the variation it belongs to: `stdout` or `stderr` of a
    /// process; `tty` of a process under a terminal, which does not separate the two; or the name
    /// of one of several answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<&'a str>,
    /// Severity of a log line: `trace`, `debug`, `info`, `warn`, `error` or `fatal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<&'a str>,
    /// `json` if the chunk is a single line with one JSON object, whose other fields a viewer can
    /// show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'a str>,
    /// The message of the line, without the rest of the chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    /// The group that starts or ends here: the chunk is its marker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Group<'a>>,
    /// The chunk, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<&'a str>,
    /// The chunk as base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
}

impl<'a> Text<'a> {
    /// A chunk, as text if it is UTF-8 and as base64 otherwise.
    #[must_use]
    pub fn from_chunk(stream: Option<&'a str>, chunk: &'a [u8]) -> Self {
        match std::str::from_utf8(chunk) {
            Ok(text) => Self {
                stream,
                text: Some(text),
                ..Self::default()
            },
            Err(_not_utf8) => Self {
                stream,
                bytes: Some(BASE64.encode(chunk)),
                ..Self::default()
            },
        }
    }
}

/// A marker of a group: lines that a viewer can fold under a title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group<'a> {
    /// What happens to the group here.
    pub state: GroupState,
    /// Id of the group, unique among the open ones.
    pub id: Cow<'a, str>,
    /// Title, at the start only: one line without control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Cow<'a, str>>,
    /// Whether viewers show it folded at first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub collapsed: bool,
    /// Whether it is of little interest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub muted: bool,
}

/// What happens to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupState {
    /// It starts.
    Start,
    /// It unfolds, after `collapsed` at its start.
    Open,
    /// It ends.
    End,
}

impl<'a> Group<'a> {
    /// The end of a group.
    #[must_use]
    pub const fn ending(id: &'a str) -> Self {
        Self {
            state: GroupState::End,
            id: Cow::Borrowed(id),
            title: None,
            collapsed: false,
            muted: false,
        }
    }

    /// The same, with owned strings.
    #[must_use]
    pub fn into_owned<'b>(self) -> Group<'b> {
        Group {
            state: self.state,
            id: Cow::Owned(self.id.into_owned()),
            title: self.title.map(|title| Cow::Owned(title.into_owned())),
            collapsed: self.collapsed,
            muted: self.muted,
        }
    }
}
