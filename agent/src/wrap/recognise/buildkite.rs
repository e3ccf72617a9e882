//! Buildkite's groups, as buildkite.com/docs has them under "Managing log output", and its agent
//! (`^(?:---|\+\+\+|~~~)\s(.+)?$` and `^(?:\^\^\^\s+\+\+\+)\s*$`, colours taken out before):
//!
//! - `--- TITLE`: a group, folded; `+++ TITLE`: open; `~~~ TITLE`: folded and of little interest;
//! - `^^^ +++`: opens the group that it stands in.
//!
//! A group ends where the next begins. The headers of unified diffs look the same, which is why these
//! are not looked for everywhere.

use std::borrow::Cow;

use runcast_common::protocol::event::{Group, GroupState};

use super::Notes;
use super::title::title;

/// All groups have it: one begins where another ends.
const ID: &str = "buildkite";

/// What a line says.
pub(super) fn read(line: &[u8]) -> Option<Notes<'static>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = without_colours(line.strip_suffix(b"\r").unwrap_or(line));
    if let Some(rest) = line.strip_prefix(b"^^^") {
        let is_open = rest.first().is_some_and(u8::is_ascii_whitespace);
        let group = Group {
            state: GroupState::Open,
            ..Group::ending(ID)
        };
        return (is_open && rest.trim_ascii() == b"+++").then(|| of(group));
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
    Some(of(Group {
        state: GroupState::Start,
        id: Cow::Borrowed(ID),
        title: (!title.is_empty()).then_some(Cow::Owned(title)),
        collapsed,
        muted,
    }))
}

const fn of(group: Group<'static>) -> Notes<'static> {
    Notes {
        level: None,
        message: None,
        is_json: false,
        group: Some(group),
    }
}

/// The line without `ESC [ ... m` and `ESC [ ... K`.
fn without_colours(line: &[u8]) -> Cow<'_, [u8]> {
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
    fn the_four_markers_are_read() {
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
    fn rulers_and_lists_are_none() {
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
