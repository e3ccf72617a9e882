//! Workflow commands: commands that a program prints for the reader of its output, one per line, in
//! the syntax of GitHub:
//!
//! ```text
//! ::name property=value,property=value::data
//! ##[name property=value;property=value]data
//! ```
//!
//! The rules are those of "Workflow commands for GitHub Actions" (docs.github.com) and of its
//! runner (`ActionCommand.cs`, `ActionCommandManager.cs`): names ignore case, spaces before the
//! command are skipped, and data is escaped with `%0A`, `%0D`, `%25` (and `%3B`, `%5D` in the
//! syntax with brackets). Two rules differ: the syntax with brackets counts only at the start of a
//! line, since logs mention commands too; and commands that are stopped on one stream still work on
//! the other.

use std::borrow::Cow;

/// The command that disables all others until its token follows.
const STOP_COMMANDS: &[u8] = b"stop-commands";

/// One command. Properties are ignored, since nothing uses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowCommand<'a> {
    /// The name, as written.
    pub name: &'a [u8],
    /// The unescaped data.
    pub data: Cow<'a, [u8]>,
}

impl<'a> WorkflowCommand<'a> {
    /// Parses a line, with or without its line end.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.trim_ascii_start();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (syntax, start, end) = find_data(line)?;
        let info = &line[syntax.prefix().len()..start];
        let name = info.split(|byte| *byte == b' ').next()?;
        let data = unescape(&line[end..], syntax.escapes());
        (!name.is_empty()).then_some(Self { name, data })
    }

    /// Whether the command has this name, ignoring case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Where the data starts, if the line starts with a command of this name.
pub(crate) fn data_start(line: &[u8], name: &str) -> Option<usize> {
    let (syntax, start, end) = find_data(line)?;
    let info = &line[syntax.prefix().len()..start];
    let first = info.split(|byte| *byte == b' ').next()?;
    first.eq_ignore_ascii_case(name.as_bytes()).then_some(end)
}

#[derive(Debug, Clone, Copy)]
enum CommandSyntax {
    Colons,
    Brackets,
}

impl CommandSyntax {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Colons => b"::",
            Self::Brackets => b"##[",
        }
    }

    const fn separator(self) -> &'static [u8] {
        match self {
            Self::Colons => b"::",
            Self::Brackets => b"]",
        }
    }

    /// In the order in which the runner unescapes them: the percent sign last.
    const fn escapes(self) -> &'static [(&'static [u8; 3], u8)] {
        match self {
            Self::Colons => &[(b"%0D", b'\r'), (b"%0A", b'\n'), (b"%25", b'%')],
            Self::Brackets => &[
                (b"%3B", b';'),
                (b"%0D", b'\r'),
                (b"%0A", b'\n'),
                (b"%5D", b']'),
                (b"%25", b'%'),
            ],
        }
    }
}

/// The syntax of a command, where its name and properties end, and where its data starts.
fn find_data(line: &[u8]) -> Option<(CommandSyntax, usize, usize)> {
    let syntax = match line {
        [b':', b':', ..] => CommandSyntax::Colons,
        [b'#', b'#', b'[', ..] => CommandSyntax::Brackets,
        _ => return None,
    };
    let begin = syntax.prefix().len();
    let end = begin + memchr::memmem::find(&line[begin..], syntax.separator())?;
    Some((syntax, end, end + syntax.separator().len()))
}

fn unescape<'a>(data: &'a [u8], escapes: &[(&[u8; 3], u8)]) -> Cow<'a, [u8]> {
    if memchr::memchr(b'%', data).is_none() {
        return Cow::Borrowed(data);
    }
    // One pass has the same result as the runner's passes: it unescapes `%25` last, so that creates
    // no new escape.
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while let Some((first, more)) = rest.split_first() {
        match escapes.iter().find(|(escape, _)| rest.starts_with(*escape)) {
            Some((escape, byte)) => {
                out.push(*byte);
                rest = &rest[escape.len()..];
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    Cow::Owned(out)
}

/// Whether commands are disabled: `stop-commands` names a token and disables all commands until one
/// with the token as its name follows.
#[derive(Debug, Clone, Default)]
pub struct StopCommands {
    token: Option<Vec<u8>>,
}

impl StopCommands {
    /// Reads the next command. Returns whether it must be followed.
    pub fn accepts(&mut self, command: &WorkflowCommand<'_>) -> bool {
        if let Some(token) = &self.token {
            if command.name.eq_ignore_ascii_case(token) {
                self.token = None;
            }
            return false;
        }
        if command.name.eq_ignore_ascii_case(STOP_COMMANDS) {
            // Without a token nothing could enable commands again.
            self.token = (!command.data.is_empty()).then(|| command.data.to_vec());
            return false;
        }
        true
    }

    /// Whether commands are disabled at the moment.
    pub const fn is_stopped(&self) -> bool {
        self.token.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<(String, String)> {
        let command = WorkflowCommand::parse(line.as_bytes())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(command.name), text(&command.data)))
    }

    #[test]
    fn both_syntaxes_are_parsed_with_their_escapes() {
        for (line, expected) in [
            ("::group::A title\n", Some(("group", "A title"))),
            (
                "  ::Error file=a.js,line=1::a%0Ab%25\r\n",
                Some(("Error", "a\nb%")),
            ),
            ("::warning::%250A %5D", Some(("warning", "%0A %5D"))),
            ("##[endgroup]", Some(("endgroup", ""))),
            ("##[error]a%5D%3B", Some(("error", "a];"))),
            ("::notice::a::b", Some(("notice", "a::b"))),
            ("::not a command", None),
            ("::::x", None),
            ("see ::group::x", None),
            ("##[open", None),
            (":", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, data)| (name.to_owned(), data.to_owned()));
            assert_eq!(parsed(line), expected, "{line}");
        }
    }

    #[test]
    fn stop_commands_disables_commands_until_its_token() {
        let mut stop_commands = StopCommands::default();
        let mut accepts = |line: &str| {
            let command = WorkflowCommand::parse(line.as_bytes()).expect("a command");
            stop_commands.accepts(&command)
        };
        assert!(accepts("::group::a"));
        assert!(!accepts("::stop-commands::"));
        assert!(accepts("::group::a"));
        assert!(!accepts("::stop-commands::Some-Token"));
        assert!(!accepts("::group::b"));
        assert!(!accepts("::stop-commands::other"));
        assert!(!accepts("::some-token::"));
        assert!(accepts("::endgroup::"));
    }
}
