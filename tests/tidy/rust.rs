//! Rust files as the rules see them: code without comments and strings, and comments without code.
//!
//! The reader knows comments, strings, raw strings and characters, which is all that these rules
//! need; the compiler has read the files before.

use std::collections::BTreeMap;

use crate::sources::sources;

/// One file in two copies of equal length, so that lines and columns stay: `code` has blanks for
/// comments and the inside of strings, `comments` has blanks for everything else.
pub(crate) struct Rust {
    pub(crate) path: String,
    pub(crate) code: String,
    pub(crate) comments: String,
}

impl Rust {
    fn read(path: String, text: &str) -> Self {
        let (code, comments) = split(text);
        Self {
            path,
            code,
            comments,
        }
    }

    /// Whether the file lies in this folder or is this file.
    pub(crate) fn is_in(&self, place: &str) -> bool {
        let rest = self.path.strip_prefix(place);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Numbered lines of code, up to the unit tests at the end of the file.
    pub(crate) fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let before_tests = |(_, line): &(usize, &str)| line.trim() != "#[cfg(test)]";
        (1..).zip(self.code.lines()).take_while(before_tests)
    }

    /// The file or folder directly below `src` that this file is or lies in; none for `lib.rs` and
    /// `main.rs`.
    pub(crate) fn part(&self, folder: &str) -> Option<String> {
        let rest = self.path.strip_prefix(folder)?.strip_prefix('/')?;
        let first = rest.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main"].contains(&first)).then(|| first.to_owned())
    }

    /// The parts of its own crate that the shipped code names: by `crate::part` or by a name that
    /// `lib.rs` re-exports.
    pub(crate) fn uses_of_own_crate(
        &self,
        folder: &str,
        exports: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let depth = self.path[folder.len()..].matches('/').count();
        let is_mod = self.path.ends_with("/mod.rs");
        // `super::` reaches the root of the crate from this depth.
        let up = "super::".repeat(if is_mod { depth - 1 } else { depth });
        let code: String = self
            .shipped_lines()
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        let mut parts = Vec::new();
        for root in ["crate::", up.as_str()] {
            if root.is_empty() {
                continue;
            }
            for (at, _) in code.match_indices(root) {
                let before = code[..at].chars().next_back();
                if before.is_some_and(|one| one.is_alphanumeric() || one == '_' || one == ':') {
                    continue;
                }
                parts.extend(first_names(&code[at + root.len()..]));
            }
        }
        let resolve = |name: String| exports.get(&name).cloned().unwrap_or(name);
        let parts = parts.into_iter().map(resolve);
        parts
            .filter(|name| name.starts_with(char::is_lowercase))
            .collect()
    }
}

/// The first names behind `crate::`: one, or those of a group in braces.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let taken = text
            .chars()
            .take_while(|one| one.is_alphanumeric() || *one == '_');
        taken.collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let (mut depth, mut at_start, mut names) = (0_usize, true, Vec::new());
    for (at, one) in group.char_indices() {
        match one {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            one if at_start && !one.is_whitespace() => {
                names.push(name(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

/// The Rust files below these folders.
pub(crate) fn rust_files(folders: &[&str]) -> Vec<Rust> {
    let found = sources(folders, &["rs"]).into_iter();
    found
        .map(|source| Rust::read(source.path, &source.text))
        .collect()
}

/// The source files of every crate that ships, by the `src` folder of the crate.
pub(crate) fn crates() -> BTreeMap<String, Vec<Rust>> {
    let mut crates: BTreeMap<String, Vec<Rust>> = BTreeMap::new();
    for file in rust_files(&["agent", "api", "common"]) {
        if let Some((folder, _)) = file.path.split_once("/src/") {
            crates
                .entry(format!("{folder}/src"))
                .or_default()
                .push(file);
        }
    }
    crates
}

/// Code and comments of a text, each with blanks for the other.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut code, mut comments) = (bytes.to_vec(), bytes.to_vec());
    let blank = |copy: &mut [u8]| {
        for byte in copy.iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
    };
    let (mut at, mut code_from) = (0, 0);
    while at < bytes.len() {
        let (end, is_comment) = match piece(&bytes[at..]) {
            Some((length, is_comment)) => (at + length, is_comment),
            None => {
                at += 1;
                continue;
            }
        };
        blank(&mut comments[code_from..at]);
        if is_comment {
            blank(&mut code[at..end]);
        } else {
            // The quotes stay, so that an empty string is still one.
            blank(&mut code[at + 1..end - 1]);
            blank(&mut comments[at..end]);
        }
        (at, code_from) = (end, end);
    }
    blank(&mut comments[code_from..]);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(code), text(comments))
}

/// The length of a comment, string or character that begins here, and whether it is a comment.
fn piece(bytes: &[u8]) -> Option<(usize, bool)> {
    let find = |needle: &[u8], from: usize| {
        let found = bytes[from..]
            .windows(needle.len())
            .position(|part| part == needle);
        found.map_or(bytes.len(), |at| from + at + needle.len())
    };
    match bytes {
        [b'/', b'/', ..] => {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            Some((end.unwrap_or(bytes.len()), true))
        }
        [b'/', b'*', ..] => Some((find(b"*/", 2), true)),
        [b'r', rest @ ..] => {
            let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
            if rest.get(hashes) != Some(&b'"') {
                return None;
            }
            let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            Some((find(&end, hashes + 2), false))
        }
        [b'"', ..] => {
            let mut at = 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            Some(((at + 1).min(bytes.len()), false))
        }
        // A character, and not a lifetime.
        [b'\'', b'\\', _, ..] => Some((find(b"'", 3), false)),
        [b'\'', _, b'\'', ..] => Some((3, false)),
        _ => None,
    }
}

#[test]
fn code_and_comments_are_told_apart() {
    let (code, comments) = split("let a = \"// no\"; // yes: \"b\"\nlet r = r#\"x\"y\"#; '\"'; 'a");
    assert_eq!(
        code,
        "let a = \"     \"; \u{20}          \nlet r = r      #; ' '; 'a"
    );
    assert_eq!(comments.trim(), "// yes: \"b\"");
}
