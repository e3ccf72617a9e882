//! Tokens and keys that are recognized without their value.

use std::time::Duration;

use tokio::time::Instant;

use super::redactor::redact_pieces;
use crate::Redactor;

#[test]
fn tokens_and_keys_are_recognized_by_their_format() {
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
                assert_eq!(redact_pieces(&redactor, &all), expected);
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
            assert_eq!(redact_pieces(&redactor, &all), expected);
        }
    }
}

#[test]
fn a_token_whose_prefix_was_released_is_still_found() {
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
fn a_value_that_is_added_within_a_token_or_a_key_does_not_end_it() {
    for begin in ["-----BEGIN PRIVATE KEY-----", "ghp_"] {
        let redactor = Redactor::new();
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        let now = Instant::now();
        stream.push(
            format!("{begin}{}", "A1".repeat(20)).as_bytes(),
            now,
            &mut out,
        );
        redactor.add(b"another-value").expect("long enough");
        stream.push("B2".repeat(20).as_bytes(), now, &mut out);
        stream.push(b" end another-value", now, &mut out);
        let redacted = String::from_utf8_lossy(&out).replace(begin, "");
        assert!(
            !redacted.contains("A1") && !redacted.contains("B2"),
            "{redacted}"
        );
        assert!(redacted.ends_with("[redacted]"), "{redacted}");
    }
}
