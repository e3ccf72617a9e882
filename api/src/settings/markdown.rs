//! Settings as Markdown, for `deploy/README.md`: the text between two marks there is written by
//! `runcastd settings --update deploy/README.md`, and a unit test holds that it is up to date.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::setting::{DefaultValue, Entry};
use super::table::GROUPS;

const BEGIN_MARK: &str =
    "<!-- settings: written by `runcastd settings --update deploy/README.md` -->\n";
const END_MARK: &str = "<!-- end of settings -->\n";

/// The tables of all settings.
pub fn tables() -> String {
    let mut text = String::new();
    for group in &GROUPS {
        // A String takes all that is written to it.
        _ = write!(
            text,
            "\n### {}\n\n| setting | what it does | default | read by |\n|---|---|---|---|\n",
            group.title
        );
        for entry in group.entries {
            text.push_str(&row(entry));
        }
    }
    text.push('\n');
    text
}

/// Replaces the tables in a file.
pub fn update(path: &Path) -> anyhow::Result<()> {
    let cannot = |what: &str| format!("cannot {what} {}", path.display());
    let before = std::fs::read_to_string(path).with_context(|| cannot("read"))?;
    let after = with_tables(&before).with_context(|| {
        format!(
            "{} lacks the line {}",
            path.display(),
            BEGIN_MARK.trim_end()
        )
    })?;
    std::fs::write(path, after).with_context(|| cannot("write"))
}

/// The text with the tables between the two marks; none if a mark is missing.
fn with_tables(text: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN_MARK)?;
    let (_old, after) = rest.split_once(END_MARK)?;
    Some(format!("{before}{BEGIN_MARK}{}{END_MARK}{after}", tables()))
}

fn row(entry: &Entry) -> String {
    let default = match entry.default {
        DefaultValue::Value(text) => format!("`{text}`"),
        default => default.text().to_owned(),
    };
    let readers: Vec<&str> = entry.readers.iter().map(|reader| reader.name()).collect();
    format!(
        "| `{}` | {} | {default} | {} |\n",
        entry.name,
        entry.help.replace('|', "\\|"),
        readers.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deploy_readme_lists_the_settings_of_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/README.md");
        let text = std::fs::read_to_string(&path).expect("deploy/README.md");
        assert!(
            with_tables(&text).as_ref() == Some(&text),
            "deploy/README.md is not up to date: run \
             `cargo run -p runcast-api --bin runcastd -- settings --update deploy/README.md`"
        );
    }

    #[test]
    fn only_what_lies_between_the_marks_is_replaced() {
        let text = format!("# Before\n{BEGIN_MARK}outdated row\n{END_MARK}after\n");
        let updated = with_tables(&text).expect("both marks");
        assert!(updated.starts_with("# Before\n") && updated.ends_with("after\n"));
        assert!(updated.contains("`RUNCAST_LISTEN`") && !updated.contains("outdated row"));
        assert_eq!(with_tables("no marks"), None);
    }
}
