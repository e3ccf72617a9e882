//! What a user sees with `psql`.

use runcast_tests::event_lines::output_line;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::Stack;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_readable_in_sql() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("for psql").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let lines = [
        output_line("plain text\n"),
        br#"{"kind":"log","level":"error","text":"a NUL \u0000 and a lone \ud800"}"#.to_vec(),
        br#"{"kind":"log","text":"a NUL \u0000 inside"}"#.to_vec(),
        br#"{"kind":"output","bytes":"/wBB"}"#.to_vec(),
        br#"{"kind":"metric","tokens":3}"#.to_vec(),
    ];
    let last = publisher.publish(&lines).await;
    stack.database.wait_stored(run.id, last).await;
    let ask = async |column: &str| {
        let id = run.id;
        let query = format!(
            "SELECT coalesce({column}, '-') FROM events_readable WHERE run_id = '{id}' ORDER BY epoch, seq"
        );
        stack.database.query_strings(&query).await
    };
    assert_eq!(
        ask("kind").await,
        ["output", "log", "log", "output", "metric"]
    );
    assert_eq!(ask("level").await, ["-", "error", "-", "-", "-"]);
    assert_eq!(ask("run").await[0], "for psql");
    let texts = ask("text").await;
    assert_eq!(texts[0], "plain text\n");
    assert!(texts[1].contains("lone"), "{texts:?}");
    assert_eq!(texts[2], "a NUL \u{fffd} inside");
    assert_eq!(texts[3], r"\377\000A");
    assert_eq!(texts[4], "-");
    assert_eq!(ask("preview").await, texts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_partitions_compress_bodies_with_lz4() {
    let stack = Stack::without_services().await;
    let packed = stack
        .database
        .query_strings(
            "SELECT format('%s %s', c.oid::regclass, a.attcompression)
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'body'
              WHERE c.relname ~ '^events(_[0-9]{8})?$' AND c.relkind IN ('r', 'p')",
        )
        .await;
    assert!(packed.len() > 1, "{packed:?}");
    assert!(packed.iter().all(|one| one.ends_with(" l")), "{packed:?}");
}
