//! Everything that a producer, or a client with its rights, can write into a stream. Valid events
//! are stored unchanged, everything else becomes a dead letter with its bytes, and neither the
//! neighbouring events nor the run are affected.

use runcast_common::protocol::encoding::{Body, MAX_BODY_BYTES};
use runcast_common::protocol::event::{self, Kind, Status, StatusChange};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::seal::Seal;
use runcast_tests::database::{StoredEvent, text};
use runcast_tests::event_lines::output_line;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::Stack;
use serde_json::Value;
use uuid::Uuid;

const HOUR_MS: u64 = 3_600_000;

/// An `output` line of a producer whose clock shows this time.
fn at(time_ms: u64, text: &str) -> Vec<u8> {
    format!(r#"{{"kind":"output","variation":0,"time":{time_ms},"text":"{text}"}}"#).into_bytes()
}

/// The final status of a producer that has published these lines.
fn end_of(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut seal = Seal::default();
    lines.iter().for_each(|line| seal.add(line));
    let change = StatusChange {
        seal: Some(seal),
        ..StatusChange::to(Status::Succeeded)
    };
    let mut line = Vec::new();
    event::write_line(&mut line, Kind::Status, 0, event::now_ms(), &change).expect("a line");
    line.pop();
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_lines_become_dead_letters_and_run_is_sealed() {
    let mebibyte = [
        br#"{"kind":"output","text":""#,
        &[b'x'; 1 << 20][..],
        br#""}"#,
    ]
    .concat();
    let bad: [(&[u8], &str); 15] = [
        (b"", "not a JSON object"),
        (br#"{"kind":"shout","text":"x"}"#, "unknown variant `shout`"),
        (br#"{"kind":7,"text":"x"}"#, "not a JSON event"),
        (br#"{"text":"x"}"#, "missing field `kind`"),
        (br#"["output",0,5,"x"]"#, "not a JSON object"),
        (
            b"{\"kind\":\"output\",\"text\":\"a\0b\"}",
            "not a JSON event",
        ),
        (b"{\"kind\":\"output\",\"text\":\"\xff\xfe\"}", "utf-8"),
        (b"{\"kind\":\"output\",\r\"text\":\"x\"}", "carriage return"),
        (br#"{"kind":"output","text":"x""#, "not a JSON object"),
        (br#"{"kind":"output","variation":256}"#, "variation 256"),
        (br#"{"kind":"output","variation":-1}"#, "not a JSON event"),
        (br#"{"kind":"output","time":-3600000}"#, "not a JSON event"),
        (br#"{"kind":"output","time":1e300}"#, "not a JSON event"),
        (br#"{"kind":"output"}{"kind":"output"}"#, "not a JSON event"),
        (&mebibyte, "1048603 bytes"),
    ];
    let stack = Stack::start().await;
    let run = stack.api().create_run("bad lines").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut lines = vec![output_line("first\n")];
    for (number, (line, _)) in bad.iter().enumerate() {
        lines.push(line.to_vec());
        lines.push(output_line(&format!("behind {number}\n")));
    }
    lines.push(end_of(&lines));
    let last = publisher.publish(&lines).await;
    stack.database.wait_stored(run.id, last).await;
    let state = stack.database.run(run.id).await;
    assert!(state.sealed, "{state:?}");

    let events = stack.database.events(run.id).await;
    assert_eq!(
        events.len(),
        lines.len(),
        "a gap stands for each invalid line"
    );
    let behind: String = (0..bad.len()).map(|n| format!("behind {n}\n")).collect();
    let stored = text(&events, Kind::Output);
    assert_eq!(String::from_utf8_lossy(&stored), format!("first\n{behind}"));
    let letters = stack.database.dead_letters(run.id).await;
    assert_eq!(letters.len(), bad.len());
    for (letter, (line, reason)) in letters.iter().zip(bad) {
        let displayed = String::from_utf8_lossy(&line[..line.len().min(60)]);
        assert!(letter.body == line, "{displayed} is stored unchanged");
        assert!(
            letter.reason.contains(reason),
            "{displayed}: {}",
            letter.reason
        );
    }
    // A viewer receives the valid ones, and gaps for the others.
    let frames = stack
        .api()
        .watch(run.id, None)
        .await
        .read_until("end")
        .await;
    let count = |kind: &str| frames.iter().filter(|frame| frame.event == kind).count();
    assert_eq!((count("output"), count("gap")), (bad.len() + 1, bad.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusual_events_are_stored_and_clock_jumps_keep_order() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("odd lines").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    // Clearly not the time of Redis.
    let now = event::now_ms() - 10_000;
    let times = [now, now - HOUR_MS, now + 1, 0, u64::MAX, now + 2];
    let mut lines: Vec<_> = times.iter().map(|time| at(*time, "tick\\n")).collect();
    // Deep nesting, NUL, half a surrogate, a duplicate field, and an unknown field.
    let deep = format!(
        r#"{{"kind":"log","x":{}1{}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    lines.extend([
        br#"{"kind":"log","level":"a\u0000b","text":"NUL \u0000 and \ud800"}"#.to_vec(),
        br#"{"kind":"progress","label":null,"current":-1e308}"#.to_vec(),
        br#"{"kind":"status","status":"sleeping","message":"\u0000"}"#.to_vec(),
        br#"{"kind":"status","status":"running","message":"a\u0000b","exit_code":-2147483648}"#
            .to_vec(),
        deep.into_bytes(),
    ]);
    lines.push(end_of(&lines));
    for line in &lines {
        publisher.publish(std::slice::from_ref(line)).await;
    }
    let events = stack.database.wait_sealed(run.id).await;
    let stored: Vec<&[u8]> = events.iter().map(|event| event.body.as_slice()).collect();
    assert_eq!(stored, lines, "unchanged and in order of arrival");
    // Only the unknown status is also a dead letter, besides being delivered.
    let letters = stack.database.dead_letters(run.id).await;
    let reasons: Vec<_> = letters.iter().map(|letter| &letter.reason).collect();
    assert_eq!(letters.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains("sleeping"), "{reasons:?}");

    // The producer's time is returned but not used for ordering; without one it is the time of
    // Redis.
    let query = format!(
        "SELECT CASE WHEN time = appended_at THEN 'redis' ELSE extract(epoch FROM time)::numeric(20, 3)::text END
           FROM events WHERE run_id = '{}' ORDER BY epoch, seq LIMIT 6",
        run.id
    );
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let mut expected = times.map(seconds);
    expected[3] = "redis".to_owned();
    expected[4] = "253402300799.999".to_owned();
    assert_eq!(stack.database.query_strings(&query).await, expected);
    let frames = stack
        .api()
        .watch(run.id, None)
        .await
        .read_until("end")
        .await;
    let ticks = frames.iter().filter(|frame| frame.event == "output");
    let displayed: Vec<_> = ticks.map(|frame| frame.json()["time"].as_u64()).collect();
    assert_eq!(displayed, times.map(Some));
}

/// The fields of an entry in a stream.
type Fields = Vec<(&'static str, Vec<u8>)>;

/// A valid entry of one line by a new producer, except for the given fields.
fn entry(changed: &[(&'static str, &[u8])]) -> Fields {
    let producer = Uuid::now_v7().to_string().into_bytes();
    let line = [output_line("somebody else's\n"), b"\n".to_vec()].concat();
    let mut fields: Fields = vec![
        ("p", producer),
        ("n", b"1".to_vec()),
        ("c", b"1".to_vec()),
        ("t", b"9".to_vec()),
        ("o", b"9".to_vec()),
        ("b", line),
    ];
    for (name, value) in changed {
        fields.retain(|(known, _)| known != name);
        if *name == "z" {
            fields.retain(|(known, _)| *known != "b");
        }
        fields.push((*name, value.to_vec()));
    }
    fields
}

/// A zstd frame that claims this length, of blocks that each repeat one byte 128 Ki times.
fn bomb(claimed: u64, blocks: usize) -> Vec<u8> {
    // The magic number, then a descriptor: a length of eight bytes follows, after a window byte.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1100_0000, 0x38];
    frame.extend(claimed.to_le_bytes());
    for block in 1..=blocks {
        let header = (128 * 1024) << 3 | 1 << 1 | usize::from(block == blocks);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(b'\n');
    }
    frame
}

/// Checks that each unreadable entry has a gap, and the hole before the last id has one.
fn assert_gaps(events: &[StoredEvent], unreadable: usize) {
    let gaps = events
        .iter()
        .filter(|event| event.kind == Kind::Gap.number());
    let gaps: Vec<Value> = gaps
        .map(|gap| serde_json::from_slice(&gap.body).expect("JSON"))
        .collect();
    assert_eq!(gaps.len(), unreadable + 1, "{gaps:?}");
    assert_eq!(gaps[unreadable]["count"], (1_u64 << 50) - 1);
    assert_eq!(gaps[unreadable]["reason"], "lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_entries_become_dead_letters_and_run_continues() {
    let lines = [output_line(&"the same again\n".repeat(500)), b"\n".to_vec()].concat();
    let packed = Body::compress(&lines);
    assert_eq!(packed.field(), "z");
    let (cut, mut altered) = (&packed.bytes()[..40], packed.bytes().to_vec());
    altered[20] ^= 0xff;
    let claimed = bomb(1 << 40, 1);
    let hidden = bomb(100, 4096);
    let longest = bomb(MAX_BODY_BYTES as u64, 4096);
    let bad: [(&'static str, &[u8], &str); 15] = [
        ("p", b"nobody", "not a producer id"),
        ("p", b"\xff\0", "not a producer id"),
        ("n", b"0", "does not fit"),
        ("n", b"-1", "field n"),
        ("n", b"9007199254740992", "field n"),
        ("c", b"0", "does not fit"),
        ("c", b"2", "lines, not 2"),
        ("c", b"9007199254740991", "does not fit"),
        ("t", b"now", "field t"),
        ("b", b"no end", "0 lines"),
        ("z", cut, "compressed body"),
        ("z", &altered, "compressed body"),
        ("z", &claimed, "over the limit"),
        ("z", &hidden, "compressed body"),
        ("z", &longest, "compressed body"),
    ];
    let stack = Stack::start().await;
    let run = stack.api().create_run("bad entries").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut good = vec![output_line("first\n")];
    let mut last = publisher.publish(&good).await;
    for (number, (name, value, _)) in bad.iter().enumerate() {
        append(&stack, run.id, &mut last, 1, &entry(&[(name, value)])).await;
        good.push(output_line(&format!("behind {number}\n")));
        last = publisher.publish(&good[number + 1..]).await;
    }
    // Readable entries are stored, even with numbers that no producer uses: a seq near the maximum,
    // an id far after the previous one.
    let absurd = entry(&[("n", b"9007199254740991"), ("t", b"9007199254740991")]);
    append(&stack, run.id, &mut last, 1, &absurd).await;
    append(&stack, run.id, &mut last, 1 << 50, &entry(&[])).await;
    good.push(output_line("behind all\n"));
    publisher.publish(&good[good.len() - 1..]).await;
    good.push(end_of(&good));
    let last = publisher.publish(&good[good.len() - 1..]).await;
    stack.database.wait_stored(run.id, last).await;

    let state = stack.database.run(run.id).await;
    assert!(state.sealed, "{state:?}");
    let events = stack.database.events(run.id).await;
    let own = events
        .iter()
        .filter(|event| event.producer == publisher.producer);
    let own: Vec<&[u8]> = own.map(|event| event.body.as_slice()).collect();
    assert_eq!(own, good);
    let letters = stack.database.dead_letters(run.id).await;
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| letter.reason.as_str())
        .collect();
    assert_eq!(letters.len(), bad.len(), "{reasons:?}");
    for (letter, (name, value, reason)) in letters.iter().zip(bad) {
        assert!(letter.reason.contains(reason), "{name}: {}", letter.reason);
        let retained = letter.body.windows(value.len()).any(|part| part == value);
        assert!(retained, "{name}: its bytes are stored");
    }
    assert_gaps(&events, bad.len());
    let known = [publisher.producer, Uuid::nil()];
    let strangers = events
        .iter()
        .filter(|event| !known.contains(&event.producer));
    assert_eq!(strangers.count(), 2);
}

/// Appends an entry as no producer can: its id is `step` after the last one.
async fn append(stack: &Stack, run: Uuid, last: &mut EventId, step: u64, fields: &Fields) {
    let keys = stack.keys().run(run);
    let mut redis = stack.redis.connection().await;
    last.seq += step;
    let mut add = redis::cmd("XADD");
    add.arg(&keys.stream).arg(last.to_string());
    for (name, value) in fields {
        add.arg(name).arg(value.as_slice());
    }
    let mut note = redis::cmd("HSET");
    note.arg(&keys.meta).arg("seq").arg(last.seq);
    let mut both = redis::pipe();
    both.atomic().add_command(add).add_command(note);
    let () = both
        .query_async(&mut redis)
        .await
        .expect("Redis accepts it");
}
