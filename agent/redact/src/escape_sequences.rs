//! Which bytes of a stream a terminal does not show as text: escape sequences (ECMA-48), and
//! characters that a backspace deletes.
//!
//! Programs put colours, links and cursor movements anywhere, also in the middle of a secret. So a
//! search for secrets must also see the text as a terminal shows it, see [`super::cursor`].
//!
//! Data: the state of the parser, which is one enum. Nothing is buffered, so a sequence that never
//! ends costs nothing; its bytes are hidden until the end of its line.

use memchr::memchr2;

use super::held_back::HeldBack;

const ESCAPE: u8 = 0x1b;
const BACKSPACE: u8 = 0x08;
const BELL: u8 = 0x07;
const CANCEL: [u8; 2] = [0x18, 0x1a];

/// Last bytes of control sequences that move the cursor, or text under it: what follows does not
/// continue the word before.
const MOVES: &[u8] = b"ABCDEFGHIJLMPSTXZ`@adefrsu";

/// Last bytes of two-byte sequences that do so.
const SHORT_MOVES: &[u8] = b"78DEMc";

/// Where in a sequence the stream is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum EscapeParser {
    #[default]
    Text,
    /// Behind an escape.
    Escape,
    /// Behind an escape and intermediate bytes.
    Intermediate,
    /// In the parameters of a control sequence.
    Control,
    /// In a string: a link, a title, an image.
    String,
    /// Behind an escape in a string, which ends it.
    StringEscape,
}

/// What a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteKind {
    Text,
    /// In a sequence that goes on.
    Inside,
    /// The last byte of a sequence, and whether that moves the cursor.
    Last {
        moves: bool,
    },
}

impl EscapeParser {
    /// Marks what is hidden among the bytes from the index `from` on. Returns whether earlier text
    /// is hidden now.
    pub(super) fn mark_hidden(&mut self, held_back: &mut HeldBack, from: usize) -> bool {
        let mut hides_earlier = false;
        let mut at = from;
        while at < held_back.bytes().len() {
            if *self == Self::Text {
                match memchr2(ESCAPE, BACKSPACE, &held_back.bytes()[at..]) {
                    Some(offset) => at += offset,
                    None => break,
                }
                if held_back.bytes()[at] == BACKSPACE {
                    hides_earlier |= held_back.hide_deleted(at) < from;
                    at += 1;
                    continue;
                }
            }
            let start = at;
            let continues = *self != Self::Text;
            let mut moves = false;
            while let Some(byte) = held_back.bytes().get(at) {
                match self.next(*byte) {
                    ByteKind::Text => break,
                    ByteKind::Inside => at += 1,
                    ByteKind::Last { moves: last } => {
                        moves = last;
                        at += 1;
                        break;
                    }
                }
            }
            held_back.hide(start, at, moves, continues);
        }
        hides_earlier
    }

    fn next(&mut self, byte: u8) -> ByteKind {
        let (state, kind) = match self {
            Self::String => self.in_string(byte),
            Self::StringEscape if byte == b'\\' => (Self::Text, ByteKind::Last { moves: false }),
            _ if byte == ESCAPE => (Self::Escape, ByteKind::Inside),
            Self::Text => (Self::Text, ByteKind::Text),
            // An escape that does not end the string starts another sequence.
            Self::Escape | Self::StringEscape => match byte {
                b'[' => (Self::Control, ByteKind::Inside),
                b']' | b'P' | b'X' | b'^' | b'_' => (Self::String, ByteKind::Inside),
                b' '..=b'/' => (Self::Intermediate, ByteKind::Inside),
                b'0'..=b'~' => Self::last(SHORT_MOVES.contains(&byte)),
                _ => (Self::Text, ByteKind::Text),
            },
            Self::Intermediate => match byte {
                b' '..=b'/' => (Self::Intermediate, ByteKind::Inside),
                b'0'..=b'~' => Self::last(false),
                _ => (Self::Text, ByteKind::Text),
            },
            Self::Control => match byte {
                b' '..=b'?' => (Self::Control, ByteKind::Inside),
                b'@'..=b'~' => Self::last(MOVES.contains(&byte)),
                _ => (Self::Text, ByteKind::Text),
            },
        };
        *self = state;
        kind
    }

    fn in_string(self, byte: u8) -> (Self, ByteKind) {
        match byte {
            BELL => Self::last(false),
            ESCAPE => (Self::StringEscape, ByteKind::Inside),
            b'\n' => (Self::Text, ByteKind::Text),
            byte if CANCEL.contains(&byte) => Self::last(false),
            _ => (Self::String, ByteKind::Inside),
        }
    }

    const fn last(moves: bool) -> (Self, ByteKind) {
        (Self::Text, ByteKind::Last { moves })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text without what is hidden, read in pieces of this size.
    fn visible(text: &[u8], size: usize) -> String {
        let (mut parser, mut held_back) = (EscapeParser::default(), HeldBack::new());
        for piece in text.chunks(size) {
            let from = held_back.bytes().len();
            held_back.push(piece);
            parser.mark_hidden(&mut held_back, from);
        }
        String::from_utf8_lossy(&held_back.visible_bytes()).into_owned()
    }

    #[test]
    fn sequences_and_deleted_characters_are_hidden_wherever_the_stream_is_cut() {
        for (text, expected) in [
            ("a\x1b[01;31m\x1b[Kb\x1b[m\x1b[Kc", "abc"),
            ("a\x1b[38;2;1;2;3mb\x1b[?25lc\x1b[10;20Hd", "abcd"),
            ("a\x1b]8;;https://x/y?z\x1b\\b\x1b]8;;\x07c", "abc"),
            ("a\x1b(B\x1b[mb\x1b7c\x1bMd", "abcd"),
            ("a\x1bPq#0;1;2\x1b\\b", "ab"),
            ("a\x1b]0;never ends\nb", "a\nb"),
            ("a\x1b[12\nb\x1b\x1b[1mc", "a\nbc"),
            ("a\x1b]0;t\x1b[1mb", "ab"),
            ("p\x08pa\x08as_\x08s", "pass"),
            ("abc\x08\x08\x08xyz", "xyz"),
            ("\u{e9}\x08\u{e9}a\x1b[1m\x08b", "\u{e9}b"),
            ("\x08a", "a"),
        ] {
            for size in 1..text.len() + 1 {
                assert_eq!(visible(text.as_bytes(), size), expected, "{text:?} {size}");
            }
        }
    }
}
