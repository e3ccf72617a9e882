//! Secrets that are interrupted by colours, links and cursor movements, or stand within them.

use std::time::Duration;

use tokio::time::Instant;

use super::redactor::{knowing, redact_pieces};
use crate::Redactor;

/// The result, wherever the text is cut in two, and for single bytes.
fn assert_redacted(redactor: &Redactor, text: &str, expected: &str) {
    for cut in 0..=text.len() {
        let (one, two) = text.as_bytes().split_at(cut);
        let redacted = redact_pieces(redactor, &[one, two]);
        assert_eq!(redacted, expected, "{text:?} {cut}");
    }
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert_eq!(redact_pieces(redactor, &bytes), expected, "{text:?}");
}

#[test]
fn a_value_is_found_across_sequences_and_colours_are_kept() {
    let redactor = knowing(&["tok-abc123def456"]);
    for (text, expected) in [
        // grep --color, ls, ripgrep.
        (
            "a tok-abc\x1b[01;31m\x1b[K123\x1b[m\x1b[Kdef456 b",
            "a [redacted]\x1b[01;31m\x1b[m b",
        ),
        (
            "\x1b[1mtok-abc123def456\x1b[0m b",
            "\x1b[1m[redacted]\x1b[0m b",
        ),
        (
            "\x1b[31mtok-abc\x1b[0m123def456",
            "\x1b[31m[redacted]\x1b[0m",
        ),
        // tput sgr0, cursor, erasing, a saved position, a link.
        ("tok-\x1b(B\x1b[mabc123\x1b[5Cdef456.", "[redacted]\x1b[m."),
        ("tok-\x1b7abc\x1b[2K123\x1b8\x1b[?25ldef456.", "[redacted]."),
        (
            "tok-\x1b]8;;https://x/\x1b\\abc123\x1b]8;;\x07def456.",
            "[redacted].",
        ),
        (
            "tok-abc\x1b[1m\r\n\x1b[2m123def456.",
            "[redacted]\x1b[1m\x1b[2m.",
        ),
        // Bold as typewriters did it; the first character is visible twice at most.
        ("to\x08ok\x08k-\x08-abc123def456.", "[redacted]."),
        // Within a sequence.
        (
            "\x1b]8;;https://x/?t=tok-abc123def456\x1b\\link\x1b]8;;\x1b\\",
            "\x1b]8;;https://x/?t=[redacted]\x1b\\link\x1b]8;;\x1b\\",
        ),
        ("\x1b]0;tok-abc123def456\x07.", "\x1b]0;[redacted]\x07."),
        // The first character of the value ends a sequence that a program began by mistake.
        ("\x1b[tok-abc123def456.", "\x1b[[redacted]."),
        ("\x1btok-abc123def456.", "\x1b[redacted]."),
    ] {
        assert_redacted(&redactor, text, expected);
    }
}

#[test]
fn an_underlined_value_is_found_in_one_piece() {
    // If a piece ends between `_` and its backspace, what stands before it is released already.
    let redacted = knowing(&["tok-abc123def456"])
        .text("tok-_\x08a_\x08bc123def456.")
        .into_owned();
    assert_eq!(redacted, "[redacted].");
}

#[test]
fn a_token_is_found_behind_and_across_sequences() {
    let redactor = Redactor::new();
    let key = "sk-aaaaaaaaaaaaaaaaaaaa1";
    for (before, after) in [
        ("\x1b[32m", "\x1b[0m\n"),
        ("key\x1b[1;32m ", "\x1b[0m\n"),
        ("name\x1b[20G", "\n"),
        (r"\u001b[32m", r"\u001b[0m"),
        (r"\x1b[38;5;10m", r"\x1b[0m"),
        ("%3D", "%26"),
        (r"\u003d", r"\u0026"),
        ("&quot;", "&quot;"),
    ] {
        let text = format!("{before}{key}{after}");
        assert_redacted(&redactor, &text, &text.replace(key, "[redacted]"));
    }
    let text = "sk-aaaaaaaaaaa\x1b[01;31m\x1b[Kaaaa\x1b[m\x1b[Kaaaaaa1 b";
    assert_redacted(&redactor, text, "[redacted]\x1b[01;31m\x1b[m b");
    // A cursor movement ends the token, as a line end does.
    let text = "sk-aaaaaaaaaaaaaaaaaaaa1\x1b[3;1Hname";
    assert_redacted(&redactor, text, "[redacted]\x1b[3;1Hname");
    for ordinary in [
        "ta\x1b[1msk-\x1b[0mmanagement-system-with-1-long-name ",
        "\x1b[1mtask-management-system-with-1-long-name ",
        "\x1b[1;32mPassword:\x1b[0m ",
    ] {
        assert_redacted(&redactor, ordinary, ordinary);
    }
}

#[test]
fn a_coloured_private_key_is_one_mask() {
    let line = "\x1b[32mMIIEowIBAAKCAQEAz8Zx0Lh7vB6Qm1Yk0n3o4p5q6r7s8t9u0vABCDEFGHIJKLMN\x1b[0m\n";
    let text = format!(
        "\x1b[1m-----BEGIN RSA PRIVATE KEY-----\x1b[0m\n{}-----END RSA PRIVATE KEY-----.",
        line.repeat(3)
    );
    let expected = format!(
        "\x1b[1m-----BEGIN RSA PRIVATE KEY-----\x1b[0m[redacted]{}.",
        "\x1b[32m\x1b[0m".repeat(3)
    );
    for size in [1, 7, 1000] {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let redacted = redact_pieces(&Redactor::new(), &pieces);
        assert_eq!(redacted.replace('\n', ""), expected.replace('\n', ""));
    }
}

#[test]
fn a_secret_that_is_not_continued_is_masked_without_its_colours() {
    let redactor = knowing(&["tok-abc123def456"]);
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    let now = Instant::now();
    stream.push(b"> tok-\x1b[1mabc123\x1b[0m", now, &mut out);
    stream.tick(now + Duration::from_millis(100), &mut out);
    assert_eq!(out, b"> ");
    stream.tick(now + Duration::from_secs(1), &mut out);
    assert_eq!(out, b"> [redacted]\x1b[1m\x1b[0m");
    assert_eq!(stream.deadline(), None);
}

#[test]
fn a_prompt_between_sequences_is_not_held_back() {
    let redactor = knowing(&["tok-abc123def456"]);
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    for prompt in [
        "\x1b[1;32mPassword:\x1b[0m ",
        "\x1b[?2004h$ ",
        "\x1b]0;title\x07# ",
    ] {
        out.clear();
        stream.push(prompt.as_bytes(), Instant::now(), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), prompt);
        assert_eq!(stream.deadline(), None);
    }
}

#[test]
fn a_sequence_that_never_ends_is_released_and_bounded() {
    let redactor = knowing(&["tok-abc123def456"]);
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    let image = format!("tok-\x1b]1337;File=:{}", "QUJD".repeat(100_000));
    for piece in image.as_bytes().chunks(4096) {
        stream.push(piece, Instant::now(), &mut out);
    }
    assert!(out.len() + 8192 > image.len(), "{}", out.len());
    stream.push(b"\x07abc123def456.", Instant::now(), &mut out);
    stream.finish(&mut out);
    assert!(out.ends_with(b"[redacted]."));
}
