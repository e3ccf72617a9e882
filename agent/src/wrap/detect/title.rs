//! The readable part of a marker line: short, without escape sequences and control characters.

/// Longest title in bytes: a line of a screen.
const MAX_TITLE_BYTES: usize = 200;

/// The title in these bytes; empty if nothing in them is readable.
pub(super) fn title(bytes: &[u8]) -> String {
    let mut out = String::new();
    let text = String::from_utf8_lossy(bytes);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' => match letters.next() {
                Some('[') => skip(&mut letters, |letter| matches!(letter, '\x40'..='\x7e')),
                // Ends with the bell or `ESC \`, whose second half never belongs to a title.
                Some(']') => {
                    skip(&mut letters, |letter| matches!(letter, '\x07' | '\x1b'));
                    letters.next_if_eq(&'\\');
                }
                _ => {}
            },
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
        if out.len() > MAX_TITLE_BYTES {
            break;
        }
    }
    let end = out.floor_char_boundary(MAX_TITLE_BYTES);
    out.truncate(end);
    out.trim().to_owned()
}

/// Skips everything up to and including the end of a sequence.
fn skip(letters: &mut impl Iterator<Item = char>, is_end: impl Fn(char) -> bool) {
    letters.take_while(|letter| !is_end(*letter)).for_each(drop);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_plain_and_short() {
        assert_eq!(
            title(b"Running \x1b[33mspecs\x1b[0m :cow:\r\n"),
            "Running specs :cow:"
        );
        assert_eq!(title(b"\x1b]0;window\x07a\x1b]8;;x\x1b\\b\x1b"), "ab");
        assert_eq!(title(b"\x1b[31"), "");
        assert_eq!(title("é".repeat(200).as_bytes()).len(), MAX_TITLE_BYTES);
    }
}
