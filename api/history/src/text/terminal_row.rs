//! The text of a row as a terminal shows it: what stands in its columns once everything that was
//! written to it has been applied.
//!
//! Carriage return, backspace, tab, and the sequences that move, erase, insert or delete within a
//! row are applied. A sequence that leaves the row (cursor up or down, a position on the screen)
//! ends it: what follows is another row. Wide characters take two columns, as in a terminal.
//!
//! Bounds: the text of the row, and [`MAX_COLUMNS`] for the column that a sequence may move to.

use std::collections::BTreeMap;

use anstyle_parse::{DefaultCharAccumulator, Params, Parser, Perform};
use unicode_width::UnicodeWidthChar as _;

/// The last column that a sequence can move to or erase up to. Text may go further.
const MAX_COLUMNS: usize = 4_096;

/// Columns from one tab stop to the next.
const TAB_COLUMNS: usize = 8;

/// A column that belongs to the wide character before it.
const CONTINUED: char = '\0';

/// Returns the rows that a text without line feeds shows.
pub(super) fn shown_rows(text: &str) -> Vec<String> {
    let mut screen = Screen::default();
    let mut parser = Parser::<DefaultCharAccumulator>::default();
    for byte in text.bytes() {
        parser.advance(&mut screen, byte);
    }
    screen.leave_row();
    screen.rows
}

/// The rows so far, and the one that is being written.
#[derive(Default)]
struct Screen {
    rows: Vec<String>,
    columns: Vec<char>,
    /// Characters without a width, by the column that they are written over.
    marks: BTreeMap<usize, String>,
    column: usize,
}

impl Screen {
    /// Ends the row. A row without text is none.
    fn leave_row(&mut self) {
        let mut text = String::with_capacity(self.columns.len());
        for (column, &character) in self.columns.iter().enumerate() {
            if character != CONTINUED {
                text.push(character);
            }
            if let Some(marks) = self.marks.get(&column) {
                text.push_str(marks);
            }
        }
        if !text.is_empty() {
            self.rows.push(text);
        }
        self.columns.clear();
        self.marks.clear();
        self.column = 0;
    }

    fn move_to(&mut self, column: usize) {
        self.column = column.min(MAX_COLUMNS.max(self.columns.len()));
    }

    /// Writes a character over what stands in its columns.
    fn write(&mut self, character: char, width: usize) {
        if self.columns.len() < self.column + width {
            self.columns.resize(self.column + width, ' ');
        }
        self.blank(self.column, self.column + width);
        self.columns[self.column] = character;
        self.columns[self.column + 1..self.column + width].fill(CONTINUED);
        self.column += width;
    }

    /// Replaces columns by blanks, with the rest of a wide character that is cut.
    fn blank(&mut self, from: usize, to: usize) {
        let (mut from, mut to) = (from, to.min(self.columns.len()));
        if from >= to {
            return;
        }
        while from > 0 && self.columns[from] == CONTINUED {
            from -= 1;
        }
        while to < self.columns.len() && self.columns[to] == CONTINUED {
            to += 1;
        }
        self.columns[from..to].fill(' ');
        let mut cut = self.marks.split_off(&from);
        self.marks.append(&mut cut.split_off(&to));
    }

    /// Removes columns; what stands after them moves to the left.
    fn delete(&mut self, count: usize) {
        let to = (self.column + count).min(self.columns.len());
        if self.column < to {
            self.blank(self.column, to);
            let removed = to - self.column;
            self.columns.drain(self.column..to);
            self.shift_marks(to, |column| column - removed);
        }
    }

    /// Inserts blanks; what stands there moves to the right.
    fn insert(&mut self, count: usize) {
        if self.column < self.columns.len() {
            let at = self.column;
            let count = count.min(MAX_COLUMNS);
            self.columns.splice(at..at, std::iter::repeat_n(' ', count));
            self.shift_marks(at, |column| column + count);
        }
    }

    fn shift_marks(&mut self, from: usize, to: impl Fn(usize) -> usize) {
        let moved = self.marks.split_off(&from);
        self.marks
            .extend(moved.into_iter().map(|(column, text)| (to(column), text)));
    }

    fn erase_in_row(&mut self, mode: usize) {
        match mode {
            0 => {
                self.blank(self.column, self.columns.len());
                self.columns.truncate(self.column);
            }
            1 => self.blank(0, self.column + 1),
            _ => {
                self.columns.clear();
                self.marks.clear();
            }
        }
    }
}

impl Perform for Screen {
    fn print(&mut self, character: char) {
        match character.width() {
            // C1 control characters.
            None => {}
            Some(0) => {
                if let Some(before) = self.column.checked_sub(1) {
                    self.marks.entry(before).or_default().push(character);
                }
            }
            Some(width) => self.write(character, width),
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            b'\t' => self.write('\t', TAB_COLUMNS - self.column % TAB_COLUMNS),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        let first = params.iter().next().and_then(|param| param.first());
        let value = first.map_or(0, |&value| usize::from(value));
        let count = value.max(1);
        match action {
            b'C' | b'a' => self.move_to(self.column + count),
            b'D' => self.column = self.column.saturating_sub(count),
            b'G' | b'`' => self.move_to(count - 1),
            b'K' => self.erase_in_row(value),
            b'J' if value == 0 => self.erase_in_row(0),
            b'X' => self.blank(self.column, self.column + count),
            b'P' => self.delete(count),
            b'@' => self.insert(count),
            b'A' | b'B' | b'E' | b'F' | b'H' | b'J' | b'd' | b'e' | b'f' => self.leave_row(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_a_terminal_shows() {
        for (written, shown) in [
            ("abcdef\rXYZ", &["XYZdef"][..]),
            ("100 of 200\r200 of 200", &["200 of 200"]),
            ("50%\x08\x08\x0860%", &["60%"]),
            ("a long line\r\x1b[Kshort", &["short"]),
            (
                "\x1b[31mred\x1b[0m and \x1b]0;title\x07plain",
                &["red and plain"],
            ),
            ("name\x1b[10Cvalue", &["name          value"]),
            ("10%\x1b[3D20%", &["20%"]),
            ("abcdef\x1b[4D\x1b[2Xgh", &["abghef"]),
            ("abcdef\x1b[1G\x1b[2P", &["cdef"]),
            ("cdef\r\x1b[2@ab", &["abcdef"]),
            ("ab\x1b[1Ecd", &["ab", "cd"]),
            ("errors: 0\x1b[H\x1b[2Jround 2", &["errors: 0", "round 2"]),
            ("漢字\rab", &["ab字"]),
            ("漢字\ra", &["a 字"]),
            ("e\u{301}te\u{301}\r\u{e9}", &["\u{e9}te\u{301}"]),
            ("a\tb\rXX", &["XX      b"]),
            ("a\u{85}b\x0cc\x0bd", &["abcd"]),
            (
                "end\x1b[99999Cx",
                &[&format!("end{}x", " ".repeat(MAX_COLUMNS - 3))],
            ),
            ("\r\r", &[]),
            ("cut \x1b[3", &["cut "]),
        ] {
            assert_eq!(shown_rows(written), shown, "{written:?}");
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 1_u64;
        let letters = b"ab\r\x08\t\x1b[0123;CDGKJXP@HABEm\xe6\xbc\xa2\xcc\x81";
        for _ in 0..20_000 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                letters[usize::try_from(state >> 40).expect("small") % letters.len()]
            })
            .take(40)
            .collect();
            shown_rows(&String::from_utf8_lossy(&bytes));
        }
    }
}
