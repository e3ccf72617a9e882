//! Arbitrary chunks: the pieces always join to the text, and markers are found wherever chunks are
//! cut.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use runcast_common::protocol::event::{GroupState, Kind, write_line};
use runcast_common::protocol::limits::MAX_CHUNK_BYTES;

use super::detector::{Annotations, Detector, Piece};
use super::markers::Markers;
use crate::wrap::line_splitter::LineSplitter;

const ALL: Markers = Markers {
    gitlab: true,
    github: true,
    buildkite: true,
};

/// What is found in a text that is read in these parts, each followed by a pause; and the text.
fn read(parts: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    let mut detector = Detector::new(ALL);
    let mut lines = LineSplitter::default();
    let (mut found, mut text) = (Vec::new(), Vec::new());
    for (index, part) in parts.iter().enumerate() {
        lines.push(part);
        let mut chunks = Vec::new();
        while let Some(line) = lines.next_line() {
            chunks.push(line.to_vec());
        }
        let rest = match index + 1 == parts.len() {
            true => lines.rest(),
            false => lines.partial(),
        };
        chunks.extend(rest.map(<[u8]>::to_vec));
        for chunk in chunks {
            let mut marks = Vec::new();
            let pieces: Vec<_> = detector.read(&chunk, |mark| marks.push(mark)).collect();
            assert!(pieces.iter().all(|piece| !piece.bytes.is_empty()));
            found.extend(
                marks
                    .iter()
                    .map(|mark| format!("{:?} {:?}", mark.percent, mark.state)),
            );
            for piece in pieces {
                text.extend_from_slice(piece.bytes);
                let Annotations {
                    level,
                    message,
                    is_json,
                    group,
                } = &piece.annotations;
                if let Some(group) = group {
                    let title = match group.state {
                        // How much of a header is read with its marker depends on the cut.
                        GroupState::Start => "",
                        _ => group.title.as_deref().unwrap_or_default(),
                    };
                    found.push(format!("{:?} {}{title}", group.state, group.id));
                } else if level.is_some() {
                    let message = message.as_deref().unwrap_or_default();
                    found.push(format!("{} {message} {is_json}", level.unwrap_or_default()));
                }
            }
        }
    }
    (found, text)
}

#[test]
fn complete_lines_are_annotated() {
    let (found, _) = read(&[
        b"{\"level\":\"info\",\"msg\":\"a\"}\n{\"level\":\"info\",\"msg\":\"b\"}x\n ::error::c\n\n   \n",
        b"##vso[task.setprogress value=5;]x\n--- d\n",
    ]);
    assert_eq!(
        found,
        [
            "info a true",
            "error c false",
            "Some(5) None",
            "Start buildkite"
        ]
    );
    // A JSON line in two chunks is text: no event contains all of it.
    let (found, _) = read(&[b"{\"level\":\"info\",", b"\"msg\":\"a\"}\n"]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn only_requested_markers_are_detected() {
    let mut detector = Detector::new(Markers::default());
    let text = b"::group::a\n";
    let pieces: Vec<_> = detector
        .read(text, |_| panic!("no marker was requested"))
        .collect();
    let annotations = Annotations::default();
    assert_eq!(
        pieces,
        [Piece {
            bytes: text,
            annotations
        }]
    );
}

#[test]
fn markers_are_found_wherever_the_chunks_are_cut() {
    let text = b"one\nx \x1b[0Ksection_start:1:a[collapsed=true]\r\x1b[0KHead\n::group::two\n\
        y section_end:2:a\r\x1b[0Ksection_start:2:b\r\x1b[0Kz\n::warning::w\n+++ open\n^^^ +++\n\
        \x1b]9;4;1;50\x07##[endgroup]\n##[endgroup]\nsection_end:3:b\r\x1b[0K\n";
    let (expected, all) = read(&[text]);
    assert_eq!(all, text);
    assert_eq!(
        expected,
        [
            "Start a",
            "Start github",
            "End a",
            "Start b",
            "warn w false",
            "Start buildkite",
            "Open buildkite",
            "Some(50) None",
            "End github",
            "End b"
        ]
    );
    for one in 0..=text.len() {
        for two in (one..=text.len()).step_by(5) {
            let (found, all) = read(&[&text[..one], &text[one..two], &text[two..]]);
            assert_eq!(found, expected, "{one} {two}");
            assert_eq!(all, text);
        }
    }
}

#[test]
fn the_largest_chunk_fits_an_event_with_its_annotations() {
    let of = |begin: &str, letter: &str, end: &str| {
        let room = MAX_CHUNK_BYTES - begin.len() - end.len();
        format!("{begin}{}{end}", letter.repeat(room / letter.len())).into_bytes()
    };
    let json = "{\"level\":\"info\",\"msg\":\"";
    for chunk in [
        of("::error::", "\u{1}", "\n"),
        of("::group::", "\u{1}", "\n"),
        of("##[warning]", "\"", "\n"),
        of(json, "\\\"", "\"}\n"),
        of(json, "\\u0001", "\"}\n"),
        of(json, "é", "\"}\n"),
    ] {
        let mut detector = Detector::new(ALL);
        for piece in detector.read(&chunk, |_| {}) {
            assert_ne!(piece.annotations, Annotations::default());
            let mut line = Vec::new();
            let payload = piece.payload("stderr");
            write_line(&mut line, Kind::Log, 255, u64::MAX, &payload).expect("fits");
        }
    }
}

#[test]
fn a_byte_order_mark_hides_nothing() {
    let bom = "\u{feff}";
    let text = format!(
        "{bom}{{\"level\":\"error\",\"msg\":\"x\"}}\n{bom}::group::g\n{bom}::warning::w\n{bom}::endgroup::\n"
    );
    let whole = read(&[text.as_bytes()]);
    assert_eq!(whole.0.len(), 4, "{:?}", whole.0);
    assert_eq!(whole.1, text.as_bytes());
    // A marker is found also where the mark came by itself.
    let (found, _) = read(&[bom.as_bytes(), b"::group::g\n"]);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn random_text_never_panics_or_changes() {
    let words: [&[u8]; 24] = [
        b"::",
        b"group",
        b"##[",
        b"]",
        b"stop-commands",
        b"error",
        b"section_",
        b"start:1:a",
        b"end:1:a",
        b"[collapsed=true]",
        b"\r",
        b"\x1b[0K",
        b"\n",
        b"--- ",
        b"^^^ +++",
        b"\x1b]9;4;",
        b"1;50\x07",
        b"{\"level\":30,",
        b"\"msg\":\"m\"}",
        b"\xff\xfe",
        b"%0A",
        "é".as_bytes(),
        b" ",
        b"##vso[task.setprogress value=",
    ];
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..3000 {
        let mut text = Vec::new();
        for _ in 0..random.random_range(0..40) {
            match random.random_range(0..8) {
                0 => text.push(random.random()),
                _ => text.extend_from_slice(words[random.random_range(0..words.len())]),
            }
        }
        let mut parts = Vec::new();
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let (part, more) = rest.split_at(random.random_range(1..=rest.len()));
            parts.push(part);
            rest = more;
        }
        let (_, all) = read(&parts);
        assert_eq!(all, text);
    }
}
