//! Payload of `output` and `log`: one chunk of text, and what was recognised in it.
//!
//! ```text
//! {..,"stream":"stdout","level":"info","format":"json","message":"ready","text":"{\"level\":30,\"msg\":\"ready\"}\n"}
//! {..,"stream":"stdout","group":{"state":"start","id":"build","title":"Build","collapsed":true},"text":"..."}
//! ```
//!
//! Groups of one variation form a stack. `start` begins a group within those that are open; if one of
//! the same id is open, that one ends first, with all in it. `end` ends the group of its id, with all in
//! it; if there is none it says nothing. Where the variation ends all groups do.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

/// Payload of `output` and `log`: one chunk of text.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Text<'a> {
    /// Which of the variation's texts it belongs to, where there are several at once: `stdout` or `stderr` of a
    /// process; `tty`, where that runs under a terminal, which does not tell them apart; or the name of one of
    /// several answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<&'a str>,
    /// Severity of a log line: `trace`, `debug`, `info`, `warn`, `error` or `fatal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<&'a str>,
    /// `json` if the chunk is one JSON object on a line of its own, whose other fields a reader can
    /// show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'a str>,
    /// What the line says, without all that stands around it in the chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    /// The group that begins or ends here: the chunk is its marker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Group<'a>>,
    /// The chunk, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<&'a str>,
    /// The chunk in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
}

impl<'a> Text<'a> {
    /// The chunk as it came: text where it is UTF-8, else base64.
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

/// Lines that belong together, and can be folded under a title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group<'a> {
    /// What happens to it here.
    pub state: GroupState,
    /// Which group it is, among those that are open.
    pub id: Cow<'a, str>,
    /// What is shown in place of its lines, at its start; one line without control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Cow<'a, str>>,
    /// It is to be shown folded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub collapsed: bool,
    /// It is of little interest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub muted: bool,
}

/// What happens to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupState {
    /// It begins.
    Start,
    /// It was to be shown folded and is not any more.
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

    /// The same with texts of its own.
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
