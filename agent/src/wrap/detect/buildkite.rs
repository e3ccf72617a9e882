//! Groups of Buildkite, as buildkite.com/docs ("Managing log output") and its agent define them
//! (`^(?:---|\+\+\+|~~~)\s(.+)?$` and `^(?:\^\^\^\s+\+\+\+)\s*$`, after removing colors):
//!
//! - `--- TITLE`: a collapsed group; `+++ TITLE`: an open one; `~~~ TITLE`: collapsed and of little
//!   interest;
//! - `^^^ +++`: opens the group that contains it.
//!
//! A group ends where the next one starts. Headers of unified diffs look the same, so these markers
//! are not detected by default.

use std::borrow::Cow;

use runcast_common::protocol::event::{Group, GroupState};

use super::detector::Annotations;
use super::title::title;

/// The id of all groups: one starts where another ends.
const GROUP_ID: &str = "buildkite";

/// Parses a line.
pub(super) fn read(line: &[u8]) -> Option<Annotations<'static>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = without_colors(line.strip_suffix(b"\r").unwrap_or(line));
    if let Some(rest) = line.strip_prefix(b"^^^") {
        let is_open = rest.first().is_some_and(u8::is_ascii_whitespace);
        let group = Group {
            state: GroupState::Open,
            ..Group::ending(GROUP_ID)
        };
        return (is_open && rest.trim_ascii() == b"+++").then(|| with_group(group));
    }
    let (begin, rest) = line.split_at_checked(3)?;
    let (collapsed, muted) = match begin {
        b"---" => (true, false),
        b"+++" => (false, false),
        b"~~~" => (true, true),
        _ => return None,
    };
    rest.first().filter(|byte| byte.is_ascii_whitespace())?;
    let title = title(rest);
    Some(with_group(Group {
        state: GroupState::Start,
        id: Cow::Borrowed(GROUP_ID),
        title: (!title.is_empty()).then_some(Cow::Owned(title)),
        collapsed,
        muted,
    }))
}

const fn with_group(group: Group<'static>) -> Annotations<'static> {
    Annotations {
        level: None,
        message: None,
        is_json: false,
        group: Some(group),
    }
}

/// The line without `ESC [ ... m` and `ESC [ ... K`.
fn without_colors(line: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(0x1b, line).is_none() {
        return Cow::Borrowed(line);
    }
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((first, more)) = rest.split_first() {
        let escape = more.strip_prefix(b"[").filter(|_| *first == 0x1b);
        let end = escape.and_then(|escape| {
            let digits = |byte: &&u8| byte.is_ascii_digit() || **byte == b';';
            let length = escape.iter().take_while(digits).count();
            let end = escape.get(length..)?;
            matches!(end, [b'm' | b'K', ..]).then(|| &end[1..])
        });
        match end {
            Some(end) => rest = end,
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(line: &str) -> Option<Group<'static>> {
        read(line.as_bytes())?.group
    }

    #[test]
    fn all_four_markers_are_parsed() {
        for (line, title, collapsed, muted) in [
            ("--- Bundling\n", Some("Bundling"), true, false),
            (
                "+++ Running \x1b[33mspecs\x1b[0m :cow:\r\n",
                Some("Running specs :cow:"),
                false,
                false,
            ),
            (
                "\x1b[0K\x1b[90m~~~ Preparing\x1b[0m\n",
                Some("Preparing"),
                true,
                true,
            ),
            ("+++ \n", None, false, false),
        ] {
            let group = group(line).expect("a group");
            let found = (group.title.as_deref(), group.collapsed, group.muted);
            assert_eq!(group.state, GroupState::Start);
            assert_eq!(found, (title, collapsed, muted), "{line:?}");
        }
        assert_eq!(group("^^^ +++\n").expect("a group").state, GroupState::Open);
    }

    #[test]
    fn rulers_and_lists_are_not_groups() {
        for line in [
            "---\n",
            "----- a\n",
            "--x\n",
            "^^^\n",
            "^^^+++\n",
            "^^^ +++ a\n",
            " --- a\n",
            "-\n",
            "",
        ] {
            assert_eq!(group(line), None, "{line:?}");
        }
    }
}
