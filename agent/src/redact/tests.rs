//! The redactor as a whole: each form, each way to cut a stream, ordinary text, and chance.

use std::time::Duration;

use tokio::time::Instant;

use super::*;

mod chance;

const SECRET: &str = "p@ss/w0rd \"with\" it's <all>&+é";

fn knowing(values: &[&str]) -> Redactor {
    let redactor = Redactor::new();
    assert_eq!(
        redactor.add_all(values.iter().map(|value| value.as_bytes())),
        []
    );
    redactor
}

fn pieces(redactor: &Redactor, pieces: &[&[u8]]) -> String {
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
    let forms = forms::forms(SECRET.as_bytes());
    assert!(forms.len() > 15, "{}", forms.len());
    for form in forms {
        // What makes the base64 forms whole would be masked neither.
        let text = [b"<<", &form[..], b">>\nnext"].concat();
        for cut in 0..=text.len() {
            let (one, two) = text.split_at(cut);
            assert_eq!(
                pieces(&redactor, &[one, two]),
                "<<[redacted]>>\nnext",
                "{cut}"
            );
        }
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(pieces(&redactor, &single), "<<[redacted]>>\nnext");
    }
}

#[test]
fn every_form_is_found_across_lines() {
    let redactor = knowing(&[SECRET]);
    for form in forms::forms(SECRET.as_bytes()) {
        for (cut, end) in (1..form.len()).flat_map(|cut| [(cut, &b"\n"[..]), (cut, b"\r\n")]) {
            let (one, two) = form.split_at(cut);
            let text = [b"<<", one, end, two, b">>\n"].concat();
            assert_eq!(pieces(&redactor, &[&text]), "<<[redacted]>>\n", "{cut}");
            let at = 2 + cut + end.len();
            let shown = pieces(&redactor, &[&text[..at], &text[at..]]);
            match cut {
                // So little before a line end does not wait for the next line.
                1 | 2 => {
                    let begun = String::from_utf8_lossy(&text[..at]).into_owned();
                    assert_eq!(shown, format!("{begun}[redacted]>>\n"));
                }
                _ => assert_eq!(shown, "<<[redacted]>>\n", "{cut}"),
            }
        }
        let wrapped: Vec<u8> = form.chunks(5).collect::<Vec<_>>().join(&b"\r\n"[..]);
        assert_eq!(pieces(&redactor, &[&wrapped]), "[redacted]");
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
            assert_eq!(pieces(&redactor, &all), text);
        }
    }
}

#[test]
fn what_is_harmless_goes_out_in_time_and_the_rest_of_the_secret_stays_masked() {
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
fn what_shows_too_much_is_masked_in_time() {
    let redactor = knowing(&["abcdefgh-secret"]);
    for (rest, shown) in [("-secret!", "[redacted]!"), ("-other!", "-other!")] {
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
            format!("> [redacted]\n{shown}")
        );
    }
    assert_eq!(pieces(&redactor, &[b"> abcdefgh"]), "> [redacted]");
    assert_eq!(redactor.text("> abcdefgh"), "> abcdefgh");
}

#[test]
fn a_line_end_behind_a_secret_does_not_wait() {
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
fn a_token_whose_prefix_was_given_out_is_still_found() {
    let redactor = Redactor::new();
    for (prefix, body) in [("ghp_", 36), ("sk-", 30)] {
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        let now = Instant::now();
        stream.push(&prefix.as_bytes()[..2], now, &mut out);
        let later = now + Duration::from_millis(100);
        stream.tick(later, &mut out);
        stream.push(&prefix.as_bytes()[2..], later, &mut out);
        stream.push(&vec![b'7'; body], later, &mut out);
        stream.finish(&mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("{}[redacted]", &prefix[..2])
        );
    }
}

#[test]
fn what_is_held_back_is_bounded() {
    let redactor = knowing(&["abcdefgh-secret"]);
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    stream.push(b"abcdefgh", Instant::now(), &mut out);
    assert_eq!(out, b"");
    let lines = "\n".repeat(10_000);
    stream.push(lines.as_bytes(), Instant::now(), &mut out);
    stream.push(b"-secret.", Instant::now(), &mut out);
    let shown = String::from_utf8_lossy(&out);
    assert_eq!(shown, format!("[redacted]{lines}[redacted]."));
}

#[test]
fn tokens_and_keys_are_known_by_their_shape() {
    let redactor = Redactor::new();
    let long = "a1B2c3D4e5".repeat(6);
    let tokens = [
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        format!("ghp_{}", &long[..36]),
        format!("github_pat_{long}"),
        format!("glpat-{}", &long[..20]),
        format!("xoxb-123456789012-{}", &long[..24]),
        format!("AIza{}", &long[..35]),
        format!("sk_live_{}", &long[..24]),
        format!("npm_{}", &long[..36]),
        format!("pypi-{long}"),
        format!("sk-ant-api03-{long}"),
        format!("sk-proj-{long}"),
        format!("eyJ{}.eyJ{}.{long}", &long[..20], &long[..20]),
        format!("rct_{}", &long[..43]),
    ];
    for token in &tokens {
        for text in [
            format!("a={token} b"),
            format!("\"\\n{token}\" b"),
            format!("{token}\nnext"),
        ] {
            let expected = text.replace(token.as_str(), "[redacted]");
            for size in [1, 3, 1000] {
                let all: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                assert_eq!(pieces(&redactor, &all), expected);
            }
        }
    }
    let body = format!("{long}AB/+\n").repeat(5);
    let key = format!("-----BEGIN RSA PRIVATE KEY-----\n{body}YQ==\n-----END RSA PRIVATE KEY-----");
    let expected = "a -----BEGIN RSA PRIVATE KEY-----[redacted]\nb";
    for key in [
        key.clone(),
        key.replace('\n', "\r\n"),
        key.replace('\n', "\\n"),
    ] {
        let text = format!("a {key}\nb");
        for size in [1, 7, 1000] {
            let all: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(pieces(&redactor, &all), expected);
        }
    }
}

#[test]
fn secrets_that_overlap_or_touch_are_one_mask() {
    let redactor = knowing(&["abcabcab", "cabcabXY"]);
    for (text, expected) in [
        ("-abcabcabcab-", "-[redacted]-"),
        ("-abcabcabXY-", "-[redacted]-"),
        ("-abcabcababcabcab-", "-[redacted]-"),
        ("-abcabcab abcabcab-", "-[redacted] [redacted]-"),
    ] {
        for size in [1, 3, 100] {
            let all: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(pieces(&redactor, &all), expected);
        }
    }
}

#[test]
fn a_value_that_is_added_later_is_found_from_then_on() {
    let redactor = Redactor::new();
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    stream.push(b"late-value ", Instant::now(), &mut out);
    redactor.add(b"late-value").expect("long enough");
    stream.push(b"late-value ", Instant::now(), &mut out);
    assert_eq!(out, b"late-value [redacted] ");
    assert_eq!(redactor.add(b"abc"), Err(Refused::Short));
}

#[test]
fn no_print_shows_a_secret() {
    let redactor = knowing(&["very-secret"]);
    let mut stream = redactor.stream();
    stream.push(b"very-secre", Instant::now(), &mut Vec::new());
    let shown = format!("{redactor:?} {stream:?}");
    assert!(
        !shown.contains("very") && shown.contains("patterns"),
        "{shown}"
    );
}

#[test]
fn the_texts_of_a_status_are_redacted() {
    use runcast_common::event::Status;
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
