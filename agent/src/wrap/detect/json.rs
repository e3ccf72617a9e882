//! Log lines that are one JSON object.
//!
//! The level is `level`, `lvl`, `severity` or `levelname`: in words, as zap, slog, logrus, Python's
//! `logging` and Google Cloud write it, or as the numbers of pino and bunyan (10 to 69; syslog's 0
//! to 7 have too many other meanings). The message is `message`, `msg` or `event` (structlog). Both
//! must be present, or the line is ordinary text.
//!
//! Nested values are skipped without recursion, so their depth uses no stack. Only the two fields
//! are copied, if they contain escapes.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::detector::Annotations;

/// The relevant fields, unparsed.
#[derive(Deserialize)]
struct JsonFields<'a> {
    #[serde(borrow)]
    level: Option<&'a RawValue>,
    #[serde(borrow)]
    lvl: Option<&'a RawValue>,
    #[serde(borrow)]
    severity: Option<&'a RawValue>,
    #[serde(borrow)]
    levelname: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

/// A text, borrowed if possible.
#[derive(Deserialize)]
struct JsonText<'a>(#[serde(borrow)] Cow<'a, str>);

/// Parses a line that starts with `{`.
pub(super) fn read(line: &[u8]) -> Option<Annotations<'_>> {
    let text = std::str::from_utf8(line).ok()?;
    let fields: JsonFields<'_> = serde_json::from_str(text).ok()?;
    let levels = [fields.level, fields.lvl, fields.severity, fields.levelname];
    let level = levels.into_iter().flatten().find_map(level)?;
    let messages = [fields.message, fields.msg, fields.event];
    let message = messages.into_iter().flatten().find_map(word)?;
    Some(Annotations {
        level: Some(level),
        message: Some(message),
        is_json: true,
        group: None,
    })
}

fn word(value: &RawValue) -> Option<Cow<'_, str>> {
    let word: JsonText<'_> = serde_json::from_str(value.get()).ok()?;
    Some(word.0)
}

fn level(value: &RawValue) -> Option<&'static str> {
    if let Ok(number) = serde_json::from_str::<u8>(value.get()) {
        return match number {
            10..20 => Some("trace"),
            20..30 => Some("debug"),
            30..40 => Some("info"),
            40..50 => Some("warn"),
            50..60 => Some("error"),
            60..70 => Some("fatal"),
            _ => None,
        };
    }
    named(&word(value)?)
}

/// The level that a word means.
fn named(word: &str) -> Option<&'static str> {
    let all = [
        ("trace", &["trace", "verbose"][..]),
        ("debug", &["debug", "dbg"]),
        ("info", &["info", "information", "notice", "default"]),
        ("warn", &["warn", "warning"]),
        ("error", &["error", "err", "severe"]),
        (
            "fatal",
            &[
                "fatal",
                "critical",
                "crit",
                "alert",
                "emergency",
                "emerg",
                "panic",
                "dpanic",
            ],
        ),
    ];
    let is_one = |words: &&[&str]| words.iter().any(|one| one.eq_ignore_ascii_case(word));
    let found = all.iter().find(|(_, words)| is_one(words));
    found.map(|(level, _)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<(&'static str, String)> {
        let notes = read(line.as_bytes())?;
        assert!(notes.is_json);
        Some((notes.level?, notes.message?.into_owned()))
    }

    #[test]
    fn lines_of_common_libraries_are_detected() {
        for (line, level, message) in [
            (r#"{"level":"info","ts":1.5,"msg":"zap"}"#, "info", "zap"),
            (
                r#"{"time":"x","level":"WARN","msg":"slog","a":{"b":[1]}}"#,
                "warn",
                "slog",
            ),
            (
                r#"{"level":50,"time":1,"pid":2,"msg":"pino","v":1}"#,
                "error",
                "pino",
            ),
            (
                r#"{"severity":"CRITICAL","message":"cloud"}"#,
                "fatal",
                "cloud",
            ),
            (
                r#"{"levelname": "ERROR", "message": "py\nthon"}"#,
                "error",
                "py\nthon",
            ),
            (
                r#"{"event":"structlog","level":"warning"}"#,
                "warn",
                "structlog",
            ),
            (
                r#"{"level":35,"msg":"between","message":7}"#,
                "info",
                "between",
            ),
            ("{\"lvl\":\"dbg\",\"msg\":\"\"}\r\n", "debug", ""),
        ] {
            assert_eq!(of(line), Some((level, message.to_owned())), "{line}");
        }
    }

    #[test]
    fn any_other_line_is_text() {
        let deep = format!(
            r#"{{"level":"info","msg":{}1{}}}"#,
            "[".repeat(20_000),
            "]".repeat(20_000)
        );
        for line in [
            r#"{"level":"info"}"#,
            r#"{"msg":"no level"}"#,
            r#"{"level":"loud","msg":"a"}"#,
            r#"{"level":3,"msg":"syslog"}"#,
            r#"{"level":"info","msg":{"a":1}}"#,
            r#"{"level":"info","msg":"a"} {"level":"info","msg":"b"}"#,
            r#"{"level":"info","msg":"a""#,
            r#"{"level":"info","level":"warn","msg":"twice"}"#,
            "{}",
            "{",
            &deep,
        ] {
            assert_eq!(of(line), None, "{line:.60}");
        }
        assert_eq!(read(b"{\"level\":\"info\",\"msg\":\"\xff\"}"), None);
    }

    #[test]
    fn deeply_nested_fields_do_no_harm() {
        let deep = format!(
            r#"{{"a":{}{},"level":"info","msg":"deep"}}"#,
            "[".repeat(15_000),
            "]".repeat(15_000)
        );
        assert_eq!(of(&deep), Some(("info", "deep".to_owned())));
    }
}
