//! Whatever is not a valid event becomes a dead letter with its bytes, and the run continues.

use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::limits::MAX_EVENT_BYTES;
use runcast_tests::database::{StoredEvent, text};
use runcast_tests::event_lines::{numbered_lines, output_line};
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::Sse;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_entry_becomes_dead_letter_and_stream_continues() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("damaged").await;
    let keys = stack.keys().run(run.id);
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut viewer = stack.api().watch(run.id, None).await;
    let last = publisher.publish(&numbered_lines("before", 1..=3)).await;

    // No producer can write such an entry, but a client with an operator's rights can.
    let mut redis = stack.redis.connection().await;
    let broken = EventId::new(last.epoch, last.seq + 1);
    let () = redis::pipe()
        .atomic()
        .cmd("XADD")
        .arg(&keys.stream)
        .arg(broken.to_string())
        .arg(&[("what", "is this \u{0}\u{1}")])
        .cmd("HSET")
        .arg(&keys.meta)
        .arg("seq")
        .arg(broken.seq)
        .query_async(&mut redis)
        .await
        .expect("Redis accepts a broken entry");
    let last = publisher.publish(&numbered_lines("after", 1..=3)).await;
    stack.database.wait_stored(run.id, last).await;

    let letters = stack.database.dead_letters(run.id).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].id, broken);
    let body = String::from_utf8(letters[0].body.clone()).expect("text");
    assert!(
        body.contains("what") && body.contains("is this \u{0}\u{1}"),
        "{body:?}"
    );
    assert!(!letters[0].reason.is_empty());
    // A gap event takes its place.
    let stored = stack.database.events(run.id).await;
    let seqs: Vec<_> = stored.iter().map(|event| event.id.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(stored[3].kind, Kind::Gap.number());
    assert_note(&stored[3]);

    // A viewer that was connected, and one that comes when it is history.
    assert_gap_in_place(&mut viewer, broken).await;
    let mut late = stack.api().watch(run.id, None).await;
    assert_gap_in_place(&mut late, broken).await;
}

/// Checks that a stored gap stands for exactly one missing event.
fn assert_note(note: &StoredEvent) {
    let EventId { epoch, seq } = note.id;
    let gap: Value = serde_json::from_slice(&note.body).expect("JSON");
    assert_eq!(
        (&gap["count"], &gap["reason"]),
        (&json!(1), &json!("unreadable"))
    );
    assert_eq!(
        gap["after"],
        EventId::new(epoch, seq - 1).to_string(),
        "{gap} at {}",
        note.id
    );
    assert_eq!(
        gap["next"],
        EventId::new(epoch, seq + 1).to_string(),
        "{gap} at {}",
        note.id
    );
}

/// Checks that a viewer receives events 1 to 7 except the broken one, and a gap for that.
async fn assert_gap_in_place(stream: &mut Sse, broken: EventId) {
    let (mut seqs, mut gaps) = (Vec::new(), Vec::new());
    while seqs.last() != Some(&7) {
        let frame = stream.next().await;
        match frame.event.as_str() {
            "gap" => gaps.push(frame.json()),
            "ready" => {}
            _ => seqs.push(frame.id.seq),
        }
    }
    assert_eq!(seqs, [1, 2, 3, 5, 6, 7]);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["reason"], "unreadable");
    let before = EventId::new(broken.epoch, broken.seq - 1);
    assert_eq!(gaps[0]["after"], before.to_string(), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_line_becomes_a_dead_letter_alone() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("bad lines").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let oversized = output_line(&"x".repeat(MAX_EVENT_BYTES - 100));
    let oversized = [
        &oversized[..oversized.len() - 1],
        br#","more":""#,
        &[b'y'; 200],
        br#""}"#,
    ]
    .concat();
    assert!(oversized.len() > MAX_EVENT_BYTES);
    let lines = [
        output_line("first\n"),
        b"this is no JSON".to_vec(),
        output_line("second\n"),
        oversized.clone(),
        output_line("third\n"),
    ];
    let last = publisher.publish(&lines).await;
    stack.database.wait_stored(run.id, last).await;

    let events = stack.database.events(run.id).await;
    assert_eq!(text(&events, Kind::Output), b"first\nsecond\nthird\n");
    let notes: Vec<_> = events
        .iter()
        .filter(|event| event.kind == Kind::Gap.number())
        .collect();
    assert_eq!(notes.len(), 2);
    notes.into_iter().for_each(assert_note);
    let letters = stack.database.dead_letters(run.id).await;
    assert_eq!(
        letters.len(),
        2,
        "{:?}",
        letters
            .iter()
            .map(|letter| &letter.reason)
            .collect::<Vec<_>>()
    );
    assert_eq!(letters[0].body, b"this is no JSON");
    assert_eq!(letters[1].body, oversized);
    let reason = &letters[1].reason;
    for number in [oversized.len(), MAX_EVENT_BYTES] {
        assert!(
            reason.contains(&number.to_string()),
            "size and limit: {reason}"
        );
    }

    // Its producer published them, so they count as stored: the next append has no gap.
    publisher.publish(&[output_line("fourth\n")]).await;
    let mut frames = stack.api().watch(run.id, None).await;
    let displayed = frames.read_until("ready").await;
    let texts: Vec<_> = displayed
        .iter()
        .filter(|frame| frame.event == "output")
        .collect();
    assert_eq!(texts.len(), 4);
    let gaps = displayed
        .iter()
        .filter(|frame| frame.event == "gap")
        .count();
    assert_eq!(gaps, 2);
}

/// The output of `runcastd dead-letter` with these arguments, and whether it succeeded.
async fn dead_letter(stack: &Stack, arguments: &[&str]) -> (bool, String) {
    let arguments = [&["dead-letter"], arguments].concat();
    let mut process = stack.operator_spec(&arguments).start(stack.folder());
    let status = process.wait_exit(WAIT_DEADLINE).await;
    let output = [process.stdout(), process.stderr()].concat();
    (
        status.success(),
        String::from_utf8(output).expect("the output is text"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_lists_replays_and_drops_dead_letters() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("operator").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let lines = [
        output_line("first\n"),
        b"no \x1b[2JJSON \xff".to_vec(),
        output_line("third\n"),
        b"nor this".to_vec(),
    ];
    let last = publisher.publish(&lines).await;
    stack.database.wait_stored(run.id, last).await;

    let (_, list) = dead_letter(&stack, &["list", "--json"]).await;
    let letters: Vec<Value> = list
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(letters.len(), 2, "{list}");
    let place = |seq| EventId::new(last.epoch, seq).to_string();
    // Newest first.
    let [late, early] = [&letters[0], &letters[1]];
    assert_eq!(early["place"], place(2), "{early}");
    assert_eq!(
        (&early["producer"], &early["producer_seq"]),
        (&json!(publisher.producer), &json!(2))
    );
    let (early, late) = (early["id"].to_string(), late["id"].to_string());
    let (_, table) = dead_letter(&stack, &["list", "--run", &run.id.to_string()]).await;
    assert_eq!(table.lines().count(), 3, "{table}");
    let (_, displayed) = dead_letter(&stack, &["show", &early]).await;
    assert!(displayed.contains(r"no \x1b[2JJSON \xff"), "{displayed}");
    let mut raw = stack
        .operator_spec(&["dead-letter", "show", &early, "--raw"])
        .start(stack.folder());
    raw.wait_exit(WAIT_DEADLINE).await;
    assert_eq!(raw.stdout(), lines[1]);

    // Unchanged it is no event; as a later version might parse it, it is.
    let (replayed, why) = dead_letter(&stack, &["replay", &early]).await;
    assert!(!replayed && why.contains("still no event"), "{why}");
    let line = String::from_utf8(output_line("second\n")).expect("text");
    let tamper = format!("UPDATE dead_letters SET body = '{line}'::text::bytea WHERE id = {early}");
    stack.database.execute(&tamper.replace(r"\n", r"\\n")).await;
    let (replayed, output) = dead_letter(&stack, &["replay", &early]).await;
    assert!(replayed, "{output}");
    let events = stack.database.events(run.id).await;
    assert_eq!(text(&events, Kind::Output), b"first\nsecond\nthird\n");
    assert_eq!(
        (events[1].producer, events[1].producer_seq),
        (publisher.producer, 2)
    );
    assert_eq!(stack.database.run(run.id).await.events, 4);

    let (dropped, why) = dead_letter(&stack, &["drop", &late]).await;
    assert!(!dropped && why.contains("--yes"), "{why}");
    let (dropped, _) = dead_letter(&stack, &["drop", &late, "--yes"]).await;
    assert!(dropped);
    let (_, list) = dead_letter(&stack, &["list"]).await;
    assert_eq!(list, "no dead letters\n");
    let (displayed, why) = dead_letter(&stack, &["show", &late]).await;
    assert!(!displayed && why.contains(&late), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_entry_is_replayed_into_its_hole() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("entry").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let last = publisher.publish(&numbered_lines("event", 1..=3)).await;
    stack.database.wait_stored(run.id, last).await;
    let producer = Uuid::now_v7();
    let lines =
        [output_line("a\n"), output_line("b\n")].map(|line| String::from_utf8(line).expect("text"));
    let dump = format!(
        "p\n{producer}\nn\n1\nc\n2\nt\n9\no\n9\nb\n{}\n\n",
        lines.join("\n")
    );
    // A dead letter of a version that could not parse it: its place holds a hole and a gap event.
    let put_aside = async |seq: u64| {
        let statement = format!(
            "INSERT INTO dead_letters (run_id, epoch, seq, reason, body) VALUES ('{}', {}, {seq}, 'new',
                convert_to($dump${dump}$dump$, 'UTF8'))",
            run.id, last.epoch
        );
        stack.database.execute(&statement).await;
        let newest = "SELECT max(id)::text FROM dead_letters";
        stack.database.query_strings(newest).await.remove(0)
    };
    let collected = put_aside(last.seq).await;
    let (replayed, why) = dead_letter(&stack, &["replay", &collected]).await;
    assert!(!replayed && why.contains("not free"), "{why}");
    assert_eq!(stack.database.events(run.id).await.len(), 3);

    let free = put_aside(last.seq + 2).await;
    let (replayed, output) = dead_letter(&stack, &["replay", &free]).await;
    assert!(replayed && output.contains("2 events"), "{output}");
    let events = stack.database.events(run.id).await;
    assert_eq!(events.len(), 5);
    assert_eq!(events[4].producer_seq, 2);
    assert_eq!(events[4].body, lines[1].as_bytes());
    // A second replay of the same is recognised.
    let again = put_aside(last.seq + 4).await;
    let (replayed, why) = dead_letter(&stack, &["replay", &again]).await;
    assert!(!replayed && why.contains("published again"), "{why}");
}
