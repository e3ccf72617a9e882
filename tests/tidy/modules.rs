//! Rules about modules and functions: what `mod.rs` holds, how wide a program's root is, how long a
//! function may be.

use std::collections::BTreeMap;
use std::path::Path;

use runcast_tests::programs::repository;

use crate::rust::{Rust, crates, rust_files};
use crate::sources::none;

/// Longest function, in lines from its signature to its brace.
const MAX_FUNCTION_LINES: usize = 80;

/// Files directly in the `src` of a program.
const MAX_ROOT_FILES: usize = 8;

#[test]
fn lib_rs_and_mod_rs_only_declare() {
    let mut findings = Vec::new();
    for file in rust_files(&["agent", "api", "common", "tests/src"]) {
        let name = Path::new(&file.path)
            .file_name()
            .and_then(|name| name.to_str());
        if !matches!(name, Some("mod.rs" | "lib.rs")) || file.path.contains("/tests/") {
            continue;
        }
        let code: String = file
            .shipped_lines()
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        for statement in code.split(';') {
            let statement = without_attributes(statement.trim());
            let words = statement
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ");
            let words = words.trim_start_matches("pub ");
            if !words.is_empty() && !words.starts_with("mod ") && !words.starts_with("use ") {
                let first = statement.lines().next().unwrap_or_default();
                findings.push(format!("{}: {first}", file.path));
            }
        }
    }
    none(
        &findings,
        "Move it into a file with a name; lib.rs and mod.rs hold docs, `mod` and `pub use` alone.",
    );
}

/// A statement without the attributes in front of it.
fn without_attributes(statement: &str) -> &str {
    let mut rest = statement.trim_start();
    while rest.starts_with("#[") || rest.starts_with("#![") {
        let Some((_, behind)) = rest.split_once(']') else {
            return rest;
        };
        rest = behind.trim_start();
    }
    rest
}

#[test]
fn a_module_is_one_file_or_one_folder() {
    let mut findings = Vec::new();
    for file in rust_files(&["agent", "api", "common", "tests"]) {
        let Some(folder) = file.path.strip_suffix(".rs") else {
            continue;
        };
        let is_root = ["/lib", "/main", "/mod"]
            .iter()
            .any(|name| folder.ends_with(name));
        // Unit tests may lie below the file that they test.
        let children = || {
            std::fs::read_dir(repository().join(folder))
                .into_iter()
                .flatten()
                .flatten()
        };
        let is_beside =
            children().any(|child| child.file_name() != "tests.rs" && child.file_name() != "tests");
        if !is_root && is_beside {
            findings.push(format!("{} beside {folder}/", file.path));
        }
    }
    none(
        &findings,
        "Make it x/mod.rs with a named file beside it, not x.rs beside x/.",
    );
}

#[test]
fn the_root_of_a_program_stays_small() {
    let mut findings = Vec::new();
    for folder in ["agent/src", "api/src"] {
        let entries = std::fs::read_dir(repository().join(folder)).expect("a folder");
        let files = entries
            .flatten()
            .filter(|entry| entry.path().is_file())
            .count();
        if files > MAX_ROOT_FILES {
            findings.push(format!("{folder}: {files} files, {MAX_ROOT_FILES} at most"));
        }
    }
    none(&findings, "Put the file into the folder of its subject.");
}

#[test]
fn functions_are_short() {
    let mut findings = Vec::new();
    for file in rust_files(&["agent", "api", "common", "tests"]) {
        for (name, line, length) in functions(&file) {
            if length > MAX_FUNCTION_LINES {
                findings.push(format!(
                    "{}:{line}: {name}, {length} lines, {MAX_FUNCTION_LINES} at most",
                    file.path
                ));
            }
        }
    }
    none(
        &findings,
        "Divide it along its meaning: each step a function that its name explains.",
    );
}

/// The name of each function with a body, its first line, and how many lines it has.
fn functions(file: &Rust) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = file.code.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(start) = keyword(line) else {
            continue;
        };
        let name: String = line[start..]
            .chars()
            .take_while(|one| one.is_alphanumeric() || *one == '_')
            .collect();
        if name.is_empty() {
            continue;
        }
        // A signature ends in `;` without a body, or in the brace that opens it.
        let (mut depth, mut opened) = (0_usize, false);
        'body: for (below, text) in lines[at..].iter().enumerate() {
            for one in text.chars() {
                match one {
                    '{' => (depth, opened) = (depth + 1, true),
                    '}' => depth = depth.saturating_sub(1),
                    ';' if !opened => break 'body,
                    _ => {}
                }
                if opened && depth == 0 {
                    found.push((name.clone(), at + 1, below + 1));
                    break 'body;
                }
            }
        }
    }
    found
}

/// Where the name of the function stands that a line declares, if it does.
fn keyword(line: &str) -> Option<usize> {
    let at = line.find("fn ")?;
    let before = line[..at].trim();
    let is_declared = before.split_whitespace().all(|word| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "extern")
            || word.starts_with("pub(")
            || word.ends_with(')')
    });
    is_declared.then_some(at + 3)
}

#[test]
fn types_have_names_of_their_own() {
    /// Everyday words that say nothing about what a type is.
    const NOT_NAMES: [&str; 11] = [
        "Meter", "Line", "Wanted", "Place", "Found", "Taken", "Held", "Told", "Look", "Shown",
        "Kept",
    ];
    let mut findings = Vec::new();
    for (folder, files) in crates() {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in &files {
            for (number, line) in file.shipped_lines() {
                let Some((name, is_public)) = type_name(line) else {
                    continue;
                };
                if NOT_NAMES.contains(&name.as_str()) {
                    findings.push(format!(
                        "{}:{number}: {name} says nothing about the type",
                        file.path
                    ));
                }
                if is_public {
                    places
                        .entry(name)
                        .or_default()
                        .push(format!("{}:{number}", file.path));
                }
            }
        }
        for (name, places) in places.into_iter().filter(|(_, places)| places.len() > 1) {
            // Each part of a service counts for itself, and its module says of what.
            if name != "Metrics" {
                findings.push(format!("{folder}: {name} at {}", places.join(" and ")));
            }
        }
    }
    none(
        &findings,
        "Name it by what it is, so that it can be told from others without its path.",
    );
}

/// The name of the type that a line declares, and whether other modules see it.
fn type_name(line: &str) -> Option<(String, bool)> {
    let words = line.trim_start();
    if words.len() != line.len() {
        return None;
    }
    let bare = words
        .trim_start_matches("pub(crate) ")
        .trim_start_matches("pub(super) ")
        .trim_start_matches("pub ");
    let rest = ["struct ", "enum ", "trait "]
        .iter()
        .find_map(|kind| bare.strip_prefix(kind))?;
    let name: String = rest
        .chars()
        .take_while(|one| one.is_alphanumeric())
        .collect();
    Some((name, bare.len() != words.len()))
}

#[test]
fn constants_say_their_unit_and_bound() {
    let mut findings = Vec::new();
    for file in rust_files(&["agent", "api", "common"]) {
        let mut single = Vec::new();
        for (number, line) in file.shipped_lines() {
            // Those of a type or function are read beside it.
            let bare = line
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ")
                .trim_start_matches("pub ");
            let Some((name, rest)) = bare
                .strip_prefix("const ")
                .and_then(|rest| rest.split_once(": "))
            else {
                continue;
            };
            if !name
                .chars()
                .all(|one| one.is_ascii_uppercase() || one.is_ascii_digit() || one == '_')
            {
                continue;
            }
            let place = format!("{}:{number}: {name}", file.path);
            if name.split('_').any(|word| matches!(word, "MOST" | "LEAST")) {
                findings.push(format!("{place} (MAX_ or MIN_)"));
            }
            let numbers = ["usize", "u64", "u32", "u16", "i64", "i32"];
            let kind = rest.split([' ', '=']).next().unwrap_or_default();
            if numbers.contains(&kind) && !name.contains('_') {
                findings.push(format!("{place} (a number of what?)"));
            }
            if kind == "Duration" && !name.contains('_') {
                single.push(place);
            }
        }
        if single.len() > 1 {
            findings.extend(
                single
                    .into_iter()
                    .map(|place| format!("{place} (one of several times of this file)")),
            );
        }
    }
    none(
        &findings,
        "MAX_ and MIN_ for bounds, the unit at the end (_BYTES, _EVENTS), or a Duration that its name explains.",
    );
}
