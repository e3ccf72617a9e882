//! Tests of event lines: what [`write_line`] writes, and what [`Head::parse`] accepts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::{Group, Head, Kind, Status, StatusChange, Text, write_line};
use crate::protocol::limits::{MAX_CHUNK_BYTES, MAX_EVENT_BYTES};
use crate::protocol::seal::Seal;

fn line(kind: Kind, payload: &impl Serialize) -> String {
    let mut out = Vec::new();
    write_line(&mut out, kind, 2, 5, payload).expect("writable");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn a_line_starts_with_its_head_and_ends_with_a_newline() {
    let text = Text::from_chunk(Some("stdout"), b"a\r\tb\0\n");
    assert_eq!(
        line(Kind::Output, &text),
        "{\"kind\":\"output\",\"variation\":2,\"time\":5,\"stream\":\"stdout\",\"text\":\"a\\r\\tb\\u0000\\n\"}\n"
    );
    assert_eq!(
        line(Kind::Heartbeat, &serde_json::json!({})),
        "{\"kind\":\"heartbeat\",\"variation\":2,\"time\":5}\n"
    );
}

#[test]
fn detected_fields_precede_the_text() {
    let text = Text {
        level: Some("warn"),
        format: Some("json"),
        message: Some("m"),
        group: Some(Group::ending("a")),
        ..Text::from_chunk(Some("stderr"), b"{}\n")
    };
    assert_eq!(
        line(Kind::Log, &text),
        "{\"kind\":\"log\",\"variation\":2,\"time\":5,\"stream\":\"stderr\",\"level\":\"warn\",\"format\":\"json\",\"message\":\"m\",\"group\":{\"state\":\"end\",\"id\":\"a\"},\"text\":\"{}\\n\"}\n"
    );
}

#[test]
fn bytes_that_are_not_utf8_travel_as_base64() {
    let written = line(Kind::Output, &Text::from_chunk(None, &[0xff, 0x00, b'\n']));
    let value: serde_json::Value = serde_json::from_str(&written).expect("JSON");
    let bytes = BASE64
        .decode(value["bytes"].as_str().expect("bytes"))
        .expect("base64");
    assert_eq!(bytes, [0xff, 0x00, b'\n']);
}

#[test]
fn failed_write_leaves_the_buffer_unchanged() {
    let mut out = b"before".to_vec();
    let huge = "x".repeat(MAX_EVENT_BYTES);
    let error = write_line(
        &mut out,
        Kind::Log,
        0,
        0,
        &Text {
            text: Some(&huge),
            ..Text::default()
        },
    )
    .expect_err("too large");
    assert!(error.to_string().contains("262144"), "{error}");
    write_line(&mut out, Kind::Log, 0, 0, &3).expect_err("not an object");
    assert_eq!(out, b"before");
}

#[test]
fn largest_chunk_fits_into_one_event_with_any_content() {
    for byte in [0u8, b'"', 0xff] {
        let chunk = vec![byte; MAX_CHUNK_BYTES];
        let mut out = Vec::new();
        write_line(
            &mut out,
            Kind::Output,
            255,
            u64::MAX,
            &Text::from_chunk(Some("stderr"), &chunk),
        )
        .expect("fits");
    }
}

#[test]
fn head_is_parsed_in_any_order_of_fields() {
    let head = Head::parse(br#"{"text":"x","level":"warn","kind":"log","variation":3}"#)
        .expect("an event");
    assert_eq!(head.kind, Kind::Log);
    assert_eq!((head.variation, head.time), (3, 0));
    assert_eq!(head.level.as_deref(), Some("warn"));
}

#[test]
fn lines_that_are_not_events_are_rejected() {
    for bad in [
        &b""[..],
        b"{",
        b"[]",
        b"{}",
        b"{\"kind\":\"nonsense\"}",
        b"{\"kind\":\"log\"}x",
        b"{\"kind\":\"log\",\"variation\":256}",
        b"{\"kind\":\"log\",\"variation\":-1}",
        b"{\"kind\":\"log\",\r\"time\":1}",
        b"{\"kind\":\"log\",\"text\":\"\xff\"}",
        b"[\"log\",0,0,null]",
        b"{\"kind\":\"log\",\"kind\":\"log\"}",
    ] {
        assert!(
            Head::parse(bad).is_err(),
            "{:?}",
            String::from_utf8_lossy(bad)
        );
    }
}

#[test]
fn status_change_round_trips_with_its_seal() {
    let seal = Seal::default();
    let change = StatusChange {
        exit_code: Some(3),
        seal: Some(seal),
        ..StatusChange::to(Status::Failed)
    };
    let written = line(Kind::Status, &change);
    assert_eq!(
        serde_json::from_str::<StatusChange>(&written).expect("a change"),
        change
    );
    let bare: StatusChange = serde_json::from_str(r#"{"status":"running"}"#).expect("a change");
    assert_eq!(bare, StatusChange::to(Status::Running));
}
