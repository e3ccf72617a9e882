//! Collapsible sections of GitLab, as docs.gitlab.com defines them ("Custom collapsible sections"):
//!
//! ```text
//! ESC[0K section_start:UNIX_TIMESTAMP:NAME[collapsed=true] CR ESC[0K HEADER
//! ESC[0K section_end:UNIX_TIMESTAMP:NAME CR ESC[0K
//! ```
//!
//! (without the spaces; the first `ESC[0K` is optional). A name consists of letters, digits, `_`,
//! `.` and `-`. A marker may stand anywhere on a line, and several may share one. The text behind a
//! start, up to the next marker or the end of the line, is the header.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use runcast_common::protocol::event::{Group, GroupState};

use super::title::title;

const ERASE_LINE: &[u8] = b"\x1b[0K";
const MARKER_WORD: &[u8] = b"section_";

/// Longest name, and longest list of options.
const MAX_NAME_BYTES: usize = 200;

/// A marker, and where it stands in its chunk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SectionMarker<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) group: Group<'a>,
}

impl SectionMarker<'_> {
    /// The marker in the text without its first `length` bytes.
    pub(super) fn without_prefix<'a>(self, length: usize) -> SectionMarker<'a> {
        SectionMarker {
            start: self.start.saturating_sub(length),
            end: self.end.saturating_sub(length),
            group: self.group.into_owned(),
        }
    }
}

/// Whether the text that follows this start of a line may complete a marker.
pub(super) fn may_continue(line: &[u8]) -> bool {
    let tail = &line[line.len().saturating_sub(2 * MAX_NAME_BYTES + 64)..];
    // A word that is cut in two counts too.
    let cut = (1..MARKER_WORD.len()).any(|length| tail.ends_with(&MARKER_WORD[..length]));
    cut || memmem::find(tail, MARKER_WORD).is_some()
}

/// All markers in a text.
pub(super) fn sections(text: &[u8]) -> Vec<SectionMarker<'_>> {
    let mut found: Vec<(Range<usize>, bool, &[u8], bool)> = Vec::new();
    for at in memmem::find_iter(text, MARKER_WORD) {
        let free_from = found.last().map_or(0, |(last, ..)| last.end);
        if at < free_from {
            continue;
        }
        if let Some((length, is_start, name, collapsed)) = marker(&text[at..]) {
            let start = match text[free_from..at].ends_with(ERASE_LINE) {
                true => at - ERASE_LINE.len(),
                false => at,
            };
            found.push((start..at + length, is_start, name, collapsed));
        }
    }
    let ends: Vec<usize> = found
        .iter()
        .skip(1)
        .map(|(range, ..)| range.start)
        .collect();
    let ends = ends.into_iter().chain([text.len()]);
    let sections = found.into_iter().zip(ends);
    sections
        .map(|((range, is_start, name, collapsed), until)| {
            let rest = text.get(range.end..until).unwrap_or_default();
            let header = rest.split(|byte| *byte == b'\n').next();
            let header = title(header.unwrap_or_default());
            SectionMarker {
                start: range.start,
                end: range.end,
                group: Group {
                    state: match is_start {
                        true => GroupState::Start,
                        false => GroupState::End,
                    },
                    id: String::from_utf8_lossy(name),
                    title: (is_start && !header.is_empty()).then_some(Cow::Owned(header)),
                    collapsed: is_start && collapsed,
                    muted: false,
                },
            }
        })
        .collect()
}

/// A marker at the start of a text: its length, whether it is a start, its name, and whether the
/// section is collapsed.
fn marker(text: &[u8]) -> Option<(usize, bool, &[u8], bool)> {
    let rest = text.strip_prefix(MARKER_WORD)?;
    let (is_start, rest) = match rest.strip_prefix(b"start:") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix(b"end:")?),
    };
    let (_time, rest) = take_while(rest, u8::is_ascii_digit)?;
    let rest = rest.strip_prefix(b":")?;
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let (name, mut rest) = take_while(rest, is_of_name)?;
    let mut collapsed = false;
    if let Some(options) = rest.strip_prefix(b"[") {
        let (options, behind) = take_while(options, |byte| !b"]\r\n\x1b".contains(byte))?;
        let mut options = options.split(|byte| *byte == b',');
        collapsed = options.any(|option| option.trim_ascii() == b"collapsed=true");
        rest = behind.strip_prefix(b"]")?;
    }
    let rest = rest.strip_prefix(b"\r")?.strip_prefix(ERASE_LINE)?;
    Some((text.len() - rest.len(), is_start, name, collapsed))
}

/// Splits off the longest matching prefix; none if it is empty or longer than a name may be.
fn take_while(text: &[u8], matches: impl Fn(&u8) -> bool) -> Option<(&[u8], &[u8])> {
    let length = text.iter().take_while(|byte| matches(byte)).count();
    (1..=MAX_NAME_BYTES)
        .contains(&length)
        .then(|| text.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &str) -> Vec<String> {
        let show = |section: SectionMarker<'_>| {
            let Group {
                state,
                id,
                title,
                collapsed,
                ..
            } = section.group;
            let state = if state == GroupState::Start {
                "start"
            } else {
                "end"
            };
            let collapsed = if collapsed { " collapsed" } else { "" };
            let title = title.map_or(String::new(), |title| format!(" {title}"));
            format!(
                "{}..{} {state} {id}{collapsed}{title}",
                section.start, section.end
            )
        };
        sections(text.as_bytes()).into_iter().map(show).collect()
    }

    #[test]
    fn markers_are_found_wherever_they_stand() {
        for (text, expected) in [
            (
                "\x1b[0Ksection_start:1560896352:my_first-1.0\r\x1b[0K\x1b[36mHeader\x1b[0m\n",
                &["0..46 start my_first-1.0 Header"][..],
            ),
            (
                "section_start:1:a[collapsed=true]\r\x1b[0KHidden\r\n",
                &["0..38 start a collapsed Hidden"],
            ),
            (
                "section_start:1:a[x=y,collapsed=true]\r\x1b[0K",
                &["0..42 start a collapsed"],
            ),
            (
                "done section_end:1:a\r\x1b[0Ksection_start:2:b\r\x1b[0KNext\n",
                &["5..25 end a", "25..47 start b Next"],
            ),
        ] {
            assert_eq!(summary(text), expected, "{text:?}");
        }
    }

    #[test]
    fn similar_text_is_not_a_marker() {
        for text in [
            "section_start:1:a\n",
            "section_start:1:a\r\n",
            "section_start:x:a\r\x1b[0K",
            "section_start::a\r\x1b[0K",
            "section_start:1:\r\x1b[0K",
            "section_start:1:a b\r\x1b[0K",
            "section_start:1:a[\r\x1b[0K",
            "section_middle:1:a\r\x1b[0K",
            "section_",
        ] {
            assert_eq!(summary(text), [""; 0], "{text:?}");
        }
    }
}
