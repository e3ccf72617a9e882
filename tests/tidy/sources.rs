//! The source files of the repository, and the part of a Rust file that ships.

use std::fs;
use std::path::{Path, PathBuf};

use runcast_tests::programs::repository;

/// Folders that hold nothing written by hand.
const NOT_OURS: [&str; 5] = [
    "target",
    "node_modules",
    "dist",
    "test-results",
    "playwright-report",
];

/// One file: its path within the repository, with `/`, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Numbered lines of Rust without comments, up to the unit tests at the end of the file.
    pub(crate) fn shipped_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let before_tests = |(_, line): &(usize, &str)| line.trim() != "#[cfg(test)]";
        let lines = (1..).zip(self.text.lines()).take_while(before_tests);
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// True if the file lies in this folder or is this file.
    pub(crate) fn is_in(&self, place: &str) -> bool {
        let rest = self.path.strip_prefix(place);
        rest.is_some_and(|rest| rest.is_empty() || place.ends_with('/') || rest.starts_with('/'))
    }
}

/// All files with one of these endings below these folders of the repository.
pub(crate) fn sources(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&repository().join(folder), endings, &mut found);
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// The Rust files of the crates that ship.
pub(crate) fn shipped_rust() -> Vec<Source> {
    sources(&["agent", "api", "common"], &["rs"])
}

fn collect(folder: &Path, endings: &[&str], found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or_default();
        if path.is_dir() {
            if !NOT_OURS.contains(&name) && !name.starts_with('.') {
                collect(&path, endings, found);
            }
        } else if path
            .extension()
            .is_some_and(|end| endings.iter().any(|one| end == *one))
        {
            found.push(read(&path));
        }
    }
}

fn read(path: &PathBuf) -> Source {
    let text = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{} is no text: {error}", path.display()));
    let within = path.strip_prefix(repository()).unwrap_or(path);
    Source {
        path: within.to_string_lossy().replace('\\', "/"),
        text,
    }
}

/// Fails with all findings at once.
pub(crate) fn none(findings: &[String], what_to_do: &str) {
    assert!(
        findings.is_empty(),
        "\n{}\n{what_to_do}\n",
        findings.join("\n")
    );
}
