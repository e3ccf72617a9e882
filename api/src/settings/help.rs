//! Settings as text for a terminal: in `runcastd --help`, in the help of each service, and by
//! `runcastd settings`.

use std::fmt::Write as _;

use super::setting::{DefaultValue, Entry, Program};
use super::table::{GROUPS, Group};

/// Widest line.
const MAX_LINE_COLUMNS: usize = 100;

/// Where the text beside the names begins; the longest name is 27 columns wide.
const TEXT_COLUMN: usize = 31;

/// What agents alone read is in `runcast --help`.
const OF_SERVICES: [Program; 4] = [
    Program::Gateway,
    Program::Persister,
    Program::Worker,
    Program::Dev,
];

/// The settings of all services, for `runcastd --help`.
pub fn of_services() -> String {
    let mut text = String::from("Settings (environment variables) [default]:\n");
    text.push_str(&list(&OF_SERVICES));
    text
}

/// The settings that one service reads.
pub fn of(program: Program) -> String {
    let mut text = format!(
        "Settings that the {} reads (environment variables) [default]:\n",
        program.name()
    );
    text.push_str(&list(&[program]));
    text
}

/// All settings, those of agents too.
pub fn of_all() -> String {
    let mut readers = OF_SERVICES.to_vec();
    readers.push(Program::Agent);
    list(&readers)
}

fn list(readers: &[Program]) -> String {
    let mut text = String::new();
    for Group { title, entries } in &GROUPS {
        let read = |entry: &&Entry| entry.readers.iter().any(|reader| readers.contains(reader));
        let mut entries = entries.iter().copied().filter(read).peekable();
        if entries.peek().is_none() {
            continue;
        }
        text.push('\n');
        text.push_str(title);
        text.push('\n');
        for entry in entries {
            text.push_str(&lines(entry));
        }
    }
    text
}

fn lines(entry: &Entry) -> String {
    let default = match entry.default {
        DefaultValue::Unset => String::new(),
        default => format!(" [{}]", default.text()),
    };
    let words = format!("{}{default}", entry.help);
    let mut text = String::new();
    let mut label = entry.name;
    for line in wrapped(&words, MAX_LINE_COLUMNS - TEXT_COLUMN) {
        // A String takes all that is written to it.
        _ = writeln!(text, "  {label:<width$}{line}", width = TEXT_COLUMN - 2);
        label = "";
    }
    text
}

/// The words in lines of at most `width` columns. A word that is too long for a line breaks after a
/// comma, if it has one.
fn wrapped(words: &str, width: usize) -> Vec<String> {
    let columns = |text: &str| text.trim_end().chars().count();
    let pieces = words.split_inclusive(' ').flat_map(|word| {
        if columns(word) > width {
            word.split_inclusive(',').collect()
        } else {
            vec![word]
        }
    });
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in pieces {
        if !line.is_empty() && columns(&format!("{line}{piece}")) > width {
            lines.push(line.trim_end().to_owned());
            line.clear();
        }
        line.push_str(piece);
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::super::table::entries;
    use super::*;

    #[test]
    fn help_names_all_settings_in_lines_of_at_most_100_columns() {
        let all = of_all();
        for entry in entries() {
            let label = format!("  {} ", entry.name);
            assert!(all.contains(&label), "{}", entry.name);
        }
        for line in all.lines() {
            assert!(line.chars().count() <= MAX_LINE_COLUMNS, "{line}");
        }
    }

    #[test]
    fn a_service_lists_what_it_reads_alone() {
        let worker = of(Program::Worker);
        assert!(worker.contains("RUNCAST_LOST_AFTER"), "{worker}");
        assert!(worker.contains("DATABASE_URL"), "{worker}");
        assert!(!worker.contains("RUNCAST_VIEWER_TIMEOUT"), "{worker}");
        assert!(!of_services().contains("RUNCAST_SPOOL"));
    }

    #[test]
    fn words_are_wrapped_at_spaces_and_longer_ones_after_commas() {
        assert_eq!(
            wrapped("one two three four", 9),
            ["one two", "three", "four"]
        );
        assert_eq!(
            wrapped("a one,two,three b", 8),
            ["a one,", "two,", "three b"]
        );
        assert_eq!(wrapped("verylongword a", 4), ["verylongword", "a"]);
    }
}
