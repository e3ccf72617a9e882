//! Rules about files: their size, their first line, their names, and what lies at the top.

use std::path::Path;

use runcast_tests::programs::repository;

use crate::sources::{none, sources};

/// Longest file, in lines. Beyond it a file has two subjects.
const MAX_LINES: usize = 500;

/// Longest `main.rs`.
const MAX_MAIN_LINES: usize = 100;

const EVERYWHERE: [&str; 6] = ["agent", "api", "common", "deploy", "migrations", "tests"];

#[test]
fn files_are_short() {
    let written = sources(&EVERYWHERE, &["rs", "ts", "tsx", "lua", "sql", "css", "sh"]);
    assert!(
        !written.is_empty(),
        "no sources found below {}",
        repository().display()
    );
    let mut findings = Vec::new();
    for source in &written {
        // Unit tests stand beside what they test; they may take the file over the limit.
        let is_test = |line: &&str| line.trim() == "#[cfg(test)]";
        let lines = source
            .text
            .lines()
            .take_while(|line| !is_test(line))
            .count();
        let is_main = source.path.ends_with("src/main.rs");
        let limit = if is_main {
            MAX_MAIN_LINES - 1
        } else {
            MAX_LINES
        };
        if lines > limit {
            findings.push(format!("{}: {lines} lines, {limit} at most", source.path));
        }
    }
    none(
        &findings,
        "Split by subject; a main.rs only reads arguments, starts the library and maps its end to an exit code.",
    );
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    let rust = sources(&EVERYWHERE, &["rs"]);
    let silent = rust
        .iter()
        .filter(|source| !source.text.starts_with("//! "));
    let findings: Vec<_> = silent.map(|source| source.path.clone()).collect();
    none(
        &findings,
        "Open the file with `//! `: what it is for, then its data structures and time limits.",
    );
}

#[test]
fn no_module_is_a_drawer() {
    let drawers = [
        "util",
        "utils",
        "helper",
        "helpers",
        "types",
        "misc",
        "common_utils",
        "shared",
    ];
    let mut findings = Vec::new();
    for source in sources(&EVERYWHERE, &["rs", "ts", "tsx"]) {
        let path = Path::new(&source.path);
        let folders = path.parent().into_iter().flat_map(Path::iter);
        let names = folders.chain(path.file_stem());
        if names
            .into_iter()
            .any(|name| drawers.iter().any(|drawer| name == *drawer))
        {
            findings.push(source.path);
        }
    }
    none(
        &findings,
        "Name the module after what it does, or move each item to where it is used.",
    );
}

#[test]
fn the_top_of_the_repository_stays_small() {
    let known = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "agent",
        "api",
        "common",
        "migrations",
        "deploy",
        "tests",
        "target",
    ];
    let entries = std::fs::read_dir(repository()).expect("the repository");
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let stray = |name: &String| !name.starts_with('.') && !known.contains(&name.as_str());
    let findings: Vec<_> = names.filter(stray).collect();
    none(
        &findings,
        "Move it into the folder whose subject it is; the top holds only the map.",
    );
}
