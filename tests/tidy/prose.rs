//! Rules about prose: how wide comments are, which words they avoid, how long the README is.

use runcast_tests::programs::repository;

use crate::rust::rust_files;
use crate::sources::{none, sources};

/// Widest line of a comment, in characters.
const MAX_COMMENT_COLUMNS: usize = 100;

/// Longest README, in lines.
const MAX_README_LINES: usize = 150;

/// Longest README, in words.
const MAX_README_WORDS: usize = 1200;

/// Words that make a sentence stiff, or hide who does what. In two parts, so that this file does
/// not hold them.
const STIFF: [&str; 8] = [
    concat!("who", "ever"),
    concat!("who", "m"),
    concat!("some", "body"),
    concat!("no", "body"),
    concat!("such a ", "one"),
    concat!("le", "st"),
    concat!("all the ", "same"),
    concat!("for ", "good"),
];

/// The stiff words of a line, each as a whole word.
fn stiff_words(line: &str) -> Vec<&'static str> {
    let lower = line.trim().to_lowercase();
    STIFF
        .into_iter()
        .filter(|words| has(&lower, words))
        .collect()
}

/// Whether a text in lower case holds these words as whole words.
fn has(lower: &str, words: &str) -> bool {
    lower.match_indices(words).any(|(at, _)| {
        let is_letter = |one: Option<char>| one.is_some_and(char::is_alphanumeric);
        !is_letter(lower[..at].chars().next_back())
            && !is_letter(lower[at + words.len()..].chars().next())
    })
}

#[test]
fn comments_are_narrow_and_plain() {
    let mut findings = Vec::new();
    for file in rust_files(&["agent", "api", "common", "tests"]) {
        for (number, line) in (1..).zip(file.comments.lines()) {
            let width = line.trim_end().chars().count();
            if width > MAX_COMMENT_COLUMNS {
                findings.push(format!(
                    "{}:{number}: {width} columns, {MAX_COMMENT_COLUMNS} at most",
                    file.path
                ));
            }
            findings.extend(
                stiff_words(line)
                    .into_iter()
                    .map(|words| format!("{}:{number}: {words}", file.path)),
            );
        }
    }
    for source in sources(&["api/web/src", "common/src"], &["ts", "tsx", "lua"]) {
        for (number, line) in (1..).zip(source.text.lines()) {
            findings.extend(
                stiff_words(line)
                    .into_iter()
                    .map(|words| format!("{}:{number}: {words}", source.path)),
            );
        }
    }
    none(
        &findings,
        "Say who does what, in plain words and short sentences.",
    );
}

#[test]
fn the_readme_is_short() {
    let text = std::fs::read_to_string(repository().join("README.md")).expect("the README");
    let mut findings = Vec::new();
    let (lines, words) = (text.lines().count(), text.split_whitespace().count());
    if lines > MAX_README_LINES {
        findings.push(format!("{lines} lines, {MAX_README_LINES} at most"));
    }
    if words > MAX_README_WORDS {
        findings.push(format!("{words} words, {MAX_README_WORDS} at most"));
    }
    // What is needed to try it out; all others are told by `runcastd --help` and deploy/README.md.
    let known = ["RUNCAST_URL", "RUNCAST_TOKEN"];
    for word in text.split(|one: char| !(one.is_ascii_uppercase() || one == '_')) {
        if word.starts_with("RUNCAST_") && !known.contains(&word) {
            findings.push(format!("the setting {word}"));
        }
    }
    none(
        &findings,
        "Move details to the module docs, to --help, or to deploy/README.md.",
    );
}
