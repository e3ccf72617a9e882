//! Joining events to lines, and what is shown of them.

use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Group, GroupState, Kind, Text, write_line};
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use super::lines::{TextLine, extend_lines, join_lines, leaves_line_open};
use crate::pages::HistoryItem;

/// A chunk of output.
pub(in crate::text) fn item(seq: u64, stream: &str, bytes: &[u8]) -> HistoryItem {
    of_payload(seq, &Text::from_chunk(Some(stream), bytes))
}

fn of_payload(seq: u64, payload: &Text<'_>) -> HistoryItem {
    let mut line = Vec::new();
    write_line(&mut line, Kind::Output, 0, seq, payload).expect("a line");
    line.pop();
    HistoryItem {
        kind: Kind::Output,
        variation: 0,
        event: Event {
            id: EventId::new(1, seq),
            producer: Uuid::from_u128(1),
            producer_seq: seq,
            line: line.into(),
        },
    }
}

fn gap(seq: u64) -> HistoryItem {
    let mut gap = item(seq, "stdout", b"");
    gap.kind = Kind::Gap;
    gap
}

fn record(seq: u64, message: &str, text: &str) -> HistoryItem {
    let payload = Text {
        message: Some(message),
        format: Some("json"),
        ..Text::from_chunk(Some("stdout"), text.as_bytes())
    };
    of_payload(seq, &payload)
}

fn texts(items: &[HistoryItem]) -> Vec<(u64, String, bool)> {
    join_lines(items, true)
        .iter()
        .map(|line| (line.id.seq, line.text(), line.is_open))
        .collect()
}

fn owned<const N: usize>(lines: [(u64, &str, bool); N]) -> Vec<(u64, String, bool)> {
    lines
        .map(|(seq, text, open)| (seq, text.to_owned(), open))
        .into()
}

#[test]
fn chunks_are_joined_per_stream() {
    let items = [
        item(1, "stdout", b"the \x1b[1man"),
        item(2, "stderr", b"warning\nand"),
        item(3, "stdout", b"swer\x1b[0m\r\n\nis"),
        item(4, "stderr", b" \xff\0more\n"),
    ];
    let expected = owned([
        (1, "the answer", false),
        (2, "warning", false),
        (2, "and \u{fffd}more", false),
        (3, "", false),
        (3, "is", true),
    ]);
    assert_eq!(texts(&items), expected);
}

#[test]
fn a_line_is_joined_however_many_events_of_another_stream_lie_between() {
    let mut items = vec![item(1, "stdout", b"conn")];
    items.extend((2..=1_000).map(|seq| item(seq, "stderr", b"line\n")));
    items.push(item(1_001, "stdout", b"ected\n"));
    let lines = texts(&items);
    assert_eq!(lines[0], (1, "connected".to_owned(), false));
    assert_eq!(lines.len(), 1_000);
    assert!(lines.is_sorted_by_key(|line| line.0));
}

#[test]
fn lines_end_at_a_gap_a_record_and_the_longest_length() {
    let mut items: Vec<HistoryItem> = (1..=100)
        .map(|seq| item(seq, "stdout", &[b'x'; 1_000]))
        .collect();
    items.push(gap(101));
    items.push(item(102, "stdout", b"after"));
    items.push(record(
        103,
        "a message",
        "{\"msg\":\"a message\",\"n\":1}\n",
    ));
    items.push(item(104, "stdout", b"end"));
    let lines = texts(&items);
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0].1.len() + lines[1].1.len(), 100_000);
    let expected = owned([
        (102, "after", false),
        (103, "a message n=1", false),
        (104, "end", true),
    ]);
    assert_eq!(lines[2..], expected);
}

#[test]
fn a_group_is_its_title_and_its_line_end_is_no_line() {
    let marker = |seq, state, title| {
        let group = Group {
            state,
            id: "g".into(),
            title,
            collapsed: false,
            muted: false,
        };
        let payload = Text {
            group: Some(group),
            ..Text::from_chunk(Some("stdout"), b"::marker::")
        };
        of_payload(seq, &payload)
    };
    let items = [
        marker(1, GroupState::Start, Some("Build".into())),
        item(2, "stdout", b"\r\ninside\n"),
        marker(3, GroupState::End, None),
        item(4, "stdout", b"\n"),
    ];
    let expected = owned([(1, "Build", false), (2, "inside", false), (3, "", false)]);
    assert_eq!(texts(&items), expected);
}

#[test]
fn lines_that_the_events_cut_say_so_and_can_be_extended() {
    let items = [
        item(10, "stdout", b"rest\nhead"),
        item(11, "stderr", b"whole\n"),
    ];
    let mut lines = join_lines(&items, false);
    let cut = |line: &TextLine| (line.may_continue, line.is_open);
    assert_eq!(
        lines.iter().map(cut).collect::<Vec<_>>(),
        [(true, false), (false, true), (true, false)]
    );
    assert!(extend_lines(
        &mut lines,
        &[item(12, "stderr", b"x\n"), item(13, "stdout", b" and")]
    ));
    assert!(!extend_lines(
        &mut lines,
        &[item(14, "stdout", b" tail\nnext\n")]
    ));
    assert_eq!(lines[1].text(), "head and tail");
    // What was before the first line of a stream.
    let before = |item: &HistoryItem| leaves_line_open(item, 0, "stdout");
    assert_eq!(before(&item(9, "stdout", b"x")), Some(true));
    assert_eq!(before(&item(9, "stdout", b"x\n")), Some(false));
    assert_eq!(before(&item(9, "stdout", b"")), None);
    assert_eq!(before(&item(9, "stderr", b"x")), None);
    assert_eq!(before(&gap(9)), Some(false));
    assert_eq!(before(&record(9, "a", "{}")), Some(false));
}

#[test]
fn a_line_is_searched_as_it_is_shown_and_as_it_was_written() {
    let versions = |item: HistoryItem| -> Vec<String> {
        let lines = join_lines([&item], true);
        lines[0].versions().into_iter().map(Into::into).collect()
    };
    for (text, expected) in [
        ("plain\r\n", &["plain"][..]),
        ("abcdef\rXYZ\n", &["XYZdef", "abcdef\rXYZ"]),
        ("\x1b[31mred\x1b[0m\n", &["red"]),
        ("cafe\u{301}\n", &["caf\u{e9}"]),
        ("\u{feff}first\n", &["first", "\u{feff}first"]),
        ("a\x1b[Hb\n", &["a", "b", "ab"]),
        (
            "{\"text\": \"caf\\u00e9\"}\n",
            &["{\"text\": \"caf\\u00e9\"}", "{\"text\":\"caf\u{e9}\"}"],
        ),
    ] {
        assert_eq!(
            versions(item(1, "stdout", text.as_bytes())),
            expected,
            "{text:?}"
        );
    }
    let json = "{\"level\":\"info\",\"msg\":\"caf\\u00e9\",\"status\":500}";
    assert_eq!(
        versions(record(1, "caf\u{e9}", json)),
        [
            "caf\u{e9} status=500",
            json,
            "{\"level\":\"info\",\"msg\":\"caf\u{e9}\",\"status\":500}"
        ]
    );
}

#[test]
fn fields_of_another_type_cost_no_text() {
    let mut odd = item(1, "stdout", b"");
    odd.event.line =
        br#"{"kind":"output","text":"a\n","message":7,"group":"x","message":"twice"}"#[..].into();
    assert_eq!(texts(&[odd]), owned([(1, "a", false)]));
}
