//! Commands that a program gives to whoever reads its output, one on a line, as GitHub has them:
//!
//! ```text
//! ::name property=value,property=value::data
//! ##[name property=value;property=value]data
//! ```
//!
//! The rules are those of "Workflow commands for GitHub Actions" (docs.github.com) and of its runner
//! (`ActionCommand.cs`, `ActionCommandManager.cs`): letter case of a name does not count, spaces before
//! the command are passed over, and data is escaped by `%0A`, `%0D`, `%25` (and `%3B`, `%5D` in the
//! form with brackets). Two things differ: the form with brackets counts only where a line begins with
//! it, since logs speak of commands too; and what is stopped on one stream goes on on the other.

use std::borrow::Cow;

/// The name of the command that stops all others until its token is given.
const STOP: &[u8] = b"stop-commands";

/// One command. Properties are passed over: nothing here has a use for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command<'a> {
    pub(crate) name: &'a [u8],
    /// Without escapes.
    pub(crate) data: Cow<'a, [u8]>,
}

impl<'a> Command<'a> {
    /// The command on a line, which may have its end.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.trim_ascii_start();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (form, start, end) = place_of_data(line)?;
        let info = &line[form.begin().len()..start];
        let name = info.split(|byte| *byte == b' ').next()?;
        let data = unescape(&line[end..], form.escapes());
        (!name.is_empty()).then_some(Self { name, data })
    }

    /// True if the command has this name, which is given in small letters.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Where the data of a command begins, if these first bytes of a line are all there must be of it, and
/// its name is this one.
pub(crate) fn data_of(line: &[u8], name: &str) -> Option<usize> {
    let (form, start, end) = place_of_data(line)?;
    let info = &line[form.begin().len()..start];
    let first = info.split(|byte| *byte == b' ').next()?;
    first.eq_ignore_ascii_case(name.as_bytes()).then_some(end)
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Colons,
    Brackets,
}

impl Form {
    const fn begin(self) -> &'static [u8] {
        match self {
            Self::Colons => b"::",
            Self::Brackets => b"##[",
        }
    }

    const fn end(self) -> &'static [u8] {
        match self {
            Self::Colons => b"::",
            Self::Brackets => b"]",
        }
    }

    /// In the order in which the runner undoes them: the percent sign last.
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

/// The form of a command, and where its name and properties and where its data begins.
fn place_of_data(line: &[u8]) -> Option<(Form, usize, usize)> {
    let form = match line {
        [b':', b':', ..] => Form::Colons,
        [b'#', b'#', b'[', ..] => Form::Brackets,
        _ => return None,
    };
    let begin = form.begin().len();
    let end = begin + memchr::memmem::find(&line[begin..], form.end())?;
    Some((form, end, end + form.end().len()))
}

fn unescape<'a>(data: &'a [u8], escapes: &[(&[u8; 3], u8)]) -> Cow<'a, [u8]> {
    if memchr::memchr(b'%', data).is_none() {
        return Cow::Borrowed(data);
    }
    // One pass gives what the runner's passes give: `%25` is undone last, so it makes no new escape.
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

/// Whether commands count at the moment: `stop-commands` gives a token, and until a command of that
/// name comes no other does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stops {
    token: Option<Vec<u8>>,
}

impl Stops {
    /// Takes in a command, and says whether it is to be obeyed.
    pub(crate) fn obeys(&mut self, command: &Command<'_>) -> bool {
        if let Some(token) = &self.token {
            if command.name.eq_ignore_ascii_case(token) {
                self.token = None;
            }
            return false;
        }
        if command.name.eq_ignore_ascii_case(STOP) {
            // Without a token nothing could undo it.
            self.token = (!command.data.is_empty()).then(|| command.data.to_vec());
            return false;
        }
        true
    }

    pub(crate) const fn are_stopped(&self) -> bool {
        self.token.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<(String, String)> {
        let command = Command::parse(line.as_bytes())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(command.name), text(&command.data)))
    }

    #[test]
    fn both_forms_are_read_with_their_escapes() {
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
    fn commands_stop_until_their_token() {
        let mut stops = Stops::default();
        let mut obeys = |line: &str| {
            let command = Command::parse(line.as_bytes()).expect("a command");
            stops.obeys(&command)
        };
        assert!(obeys("::group::a"));
        assert!(!obeys("::stop-commands::"));
        assert!(obeys("::group::a"));
        assert!(!obeys("::stop-commands::Some-Token"));
        assert!(!obeys("::group::b"));
        assert!(!obeys("::stop-commands::other"));
        assert!(!obeys("::some-token::"));
        assert!(obeys("::endgroup::"));
    }
}
