//! Each form, each way to cut a stream, ordinary text, and time limits.

use std::time::Duration;

use runcast_common::protocol::event::{Status, StatusChange};
use tokio::time::Instant;

use crate::encodings::forms;
use crate::{InvalidSecretValue, Redactor};

const SECRET: &str = "p@ss/w0rd \"with\" it's <all>&+é";

pub(super) fn knowing(values: &[&str]) -> Redactor {
    let redactor = Redactor::new();
    assert_eq!(
        redactor.add_all(values.iter().map(|value| value.as_bytes())),
        []
    );
    redactor
}

pub(super) fn redact_pieces(redactor: &Redactor, pieces: &[&[u8]]) -> String {
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    let now = Instant::now();
    for piece in pieces {
        stream.push(piece, now, &mut out);
    }
    stream.finish(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn every_form_is_found_wherever_it_is_cut_in_two() {
    let redactor = knowing(&[SECRET]);
    let forms = forms(SECRET.as_bytes());
    assert!(forms.len() > 15, "{}", forms.len());
    for form in forms {
        // The characters around a base64 form would not be masked either.
        let text = [b"<<", &form[..], b">>\nnext"].concat();
        for cut in 0..=text.len() {
            let (one, two) = text.split_at(cut);
            assert_eq!(
                redact_pieces(&redactor, &[one, two]),
                "<<[redacted]>>\nnext",
                "{cut}"
            );
        }
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(redact_pieces(&redactor, &single), "<<[redacted]>>\nnext");
    }
}

#[test]
fn every_form_is_found_across_lines() {
    let redactor = knowing(&[SECRET]);
    for form in forms(SECRET.as_bytes()) {
        for (cut, end) in (1..form.len()).flat_map(|cut| [(cut, &b"\n"[..]), (cut, b"\r\n")]) {
            let (one, two) = form.split_at(cut);
            let text = [b"<<", one, end, two, b">>\n"].concat();
            assert_eq!(
                redact_pieces(&redactor, &[&text]),
                "<<[redacted]>>\n",
                "{cut}"
            );
            let at = 2 + cut + end.len();
            let redacted = redact_pieces(&redactor, &[&text[..at], &text[at..]]);
            match cut {
                // One or two bytes before a line end are not held back.
                1 | 2 => {
                    let released = String::from_utf8_lossy(&text[..at]).into_owned();
                    assert_eq!(redacted, format!("{released}[redacted]>>\n"));
                }
                _ => assert_eq!(redacted, "<<[redacted]>>\n", "{cut}"),
            }
        }
        let wrapped: Vec<u8> = form.chunks(5).collect::<Vec<_>>().join(&b"\r\n"[..]);
        assert_eq!(redact_pieces(&redactor, &[&wrapped]), "[redacted]");
    }
}

#[test]
fn text_that_only_begins_like_a_secret_is_unchanged() {
    let redactor = knowing(&["abcdefgh-secret", "ghp-other-value"]);
    for text in [
        "abcdefgh-secre\nabcdefgh secret, abcdefgh-",
        "task-management-system-with-1-long-name sk-short AKIA ghp_",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9 without dots",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "xoxb-\nnext npm_config_registry=https://registry.example/npm_config_registry_and_more\n",
        "a\rb\r\n\n\u{1b}[31mred\u{1b}[0m",
    ] {
        let text = format!("{text} end.");
        for size in [1, 2, 7, 1000] {
            let all: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(redact_pieces(&redactor, &all), text);
        }
    }
}

#[test]
fn harmless_text_is_released_in_time_and_the_rest_of_the_secret_is_masked() {
    let redactor = knowing(&["abcdefgh-secret"]);
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    let now = Instant::now();
    stream.push(b"> abcdefg", now, &mut out);
    assert_eq!(out, b"> ");
    let at = stream.deadline().expect("held back");
    assert_eq!(at, now + Duration::from_millis(100));
    stream.tick(at, &mut out);
    assert_eq!((&out[..], stream.deadline()), (&b"> abcdefg"[..], None));
    stream.push(b"h-secret!", at, &mut out);
    assert_eq!(out, b"> abcdefg[redacted]!");
}

#[test]
fn text_that_reveals_too_much_is_masked_in_time() {
    let redactor = knowing(&["abcdefgh-secret"]);
    for (rest, redacted) in [("-secret!", "[redacted]!"), ("-other!", "-other!")] {
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        let now = Instant::now();
        stream.push(b"> abcdefgh\n", now, &mut out);
        stream.tick(now + Duration::from_millis(100), &mut out);
        assert_eq!(out, b"> ");
        let at = stream.deadline().expect("held back");
        assert_eq!(at, now + Duration::from_secs(1));
        stream.tick(at, &mut out);
        assert_eq!(
            (&out[..], stream.deadline()),
            (&b"> [redacted]\n"[..], None)
        );
        stream.push(rest.as_bytes(), at, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("> [redacted]\n{redacted}")
        );
    }
    assert_eq!(redact_pieces(&redactor, &[b"> abcdefgh"]), "> [redacted]");
    assert_eq!(redactor.text("> abcdefgh"), "> abcdefgh");
}

#[test]
fn the_harmless_start_of_one_secret_may_end_with_too_much_of_another() {
    let redactor = knowing(&["qqqabcxxxxxxxxxxxxxxx!", "abcdef"]);
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    let now = Instant::now();
    stream.push(b"qqqabc", now, &mut out);
    stream.tick(now + Duration::from_millis(100), &mut out);
    assert_eq!(out, b"qqq");
    stream.tick(now + Duration::from_secs(1), &mut out);
    assert_eq!(out, b"qqq[redacted]");
}

#[test]
fn a_line_end_after_a_secret_is_not_held_back() {
    let redactor = knowing(&["first line of it\nsecond line of it"]);
    for (text, waits) in [
        ("second line of it\n", false),
        ("first line of it\n", true),
        (&format!("AKIA{}\n", "A1".repeat(8)), false),
    ] {
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        let now = Instant::now();
        stream.push(text.as_bytes(), now, &mut out);
        assert_eq!(stream.deadline().is_some(), waits, "{text}");
        stream.tick(now + Duration::from_millis(100), &mut out);
        assert_eq!((&out[..], stream.deadline()), (&b"[redacted]\n"[..], None));
    }
}

#[test]
fn held_text_is_bounded() {
    let redactor = knowing(&["abcdefgh-secret"]);
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    stream.push(b"abcdefgh", Instant::now(), &mut out);
    assert_eq!(out, b"");
    let lines = "\n".repeat(10_000);
    stream.push(lines.as_bytes(), Instant::now(), &mut out);
    stream.push(b"-secret.", Instant::now(), &mut out);
    let redacted = String::from_utf8_lossy(&out);
    assert_eq!(redacted, format!("[redacted]{lines}[redacted]."));
}

#[test]
fn overlapping_and_adjacent_secrets_become_one_mask() {
    let redactor = knowing(&["abcabcab", "cabcabXY"]);
    for (text, expected) in [
        ("-abcabcabcab-", "-[redacted]-"),
        ("-abcabcabXY-", "-[redacted]-"),
        ("-abcabcababcabcab-", "-[redacted]-"),
        ("-abcabcab abcabcab-", "-[redacted] [redacted]-"),
    ] {
        for size in [1, 3, 100] {
            let all: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(redact_pieces(&redactor, &all), expected);
        }
    }
}

#[test]
fn a_value_is_redacted_from_when_it_is_added() {
    let redactor = Redactor::new();
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    stream.push(b"late-value ", Instant::now(), &mut out);
    redactor.add(b"late-value").expect("long enough");
    stream.push(b"late-value ", Instant::now(), &mut out);
    assert_eq!(out, b"late-value [redacted] ");
    // Text that is held back for one value is searched again for another.
    out.clear();
    stream.push(b"late-", Instant::now(), &mut out);
    redactor.add(b"late-again").expect("long enough");
    stream.push(b"again ", Instant::now(), &mut out);
    assert_eq!(out, b"[redacted] ");
    assert_eq!(redactor.add(b"abc"), Err(InvalidSecretValue::TooShort));
}

#[test]
fn debug_output_contains_no_secret() {
    let redactor = knowing(&["very-secret"]);
    let mut stream = redactor.stream();
    stream.push(b"very-secre", Instant::now(), &mut Vec::new());
    let redacted = format!("{redactor:?} {stream:?}");
    assert!(
        !redacted.contains("very") && redacted.contains("patterns"),
        "{redacted}"
    );
}

#[test]
fn texts_of_a_status_are_redacted() {
    let change = StatusChange {
        command: vec!["sh".into(), "--password=very-secret".into()],
        message: Some("very-secret: command not found".into()),
        ..StatusChange::to(Status::Failed)
    };
    let change = knowing(&["very-secret"]).status(change);
    assert_eq!(change.command, ["sh", "--password=[redacted]"]);
    assert_eq!(
        change.message.as_deref(),
        Some("[redacted]: command not found")
    );
}

#[test]
fn an_add_mask_value_is_redacted_from_there_on_in_all_streams() {
    let text = "before hidden-value\n::add-mask::hidden-value\nhidden-value aGlkZGVuLXZhbHVl\n\
                ::add-mask::abc\nabc\n";
    let expected = "before hidden-value\n::add-mask::[redacted]\n[redacted] [redacted]\n\
                    ::add-mask::[redacted]\nabc\n";
    for cut in 0..=text.len() {
        let redactor = Redactor::new();
        let (mut stream, mut out) = (redactor.stream().with_mask_commands(), Vec::new());
        let now = Instant::now();
        let (one, two) = text.as_bytes().split_at(cut);
        stream.push(one, now, &mut out);
        stream.push(two, now, &mut out);
        stream.finish(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected, "{cut}");
        assert_eq!(redact_pieces(&redactor, &[b"hidden-value"]), "[redacted]");
    }
    assert_eq!(redact_pieces(&Redactor::new(), &[text.as_bytes()]), text);
}
