//! A page of history costs what it holds, also in a partition that Postgres knows nothing of yet.

use runcast_tests::eventually::eventually;
use runcast_tests::stack::Stack;

/// Events of the run; far above those of a page.
const EVENTS: i64 = 100_000;

/// Index entries that pages may read: several pages, of a thousand events each.
const MAX_READ: i64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reads_no_more_than_its_own_rows_before_the_first_analyze() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("new").await.id;
    let fill = format!(
        "INSERT INTO events (run_id, epoch, seq, producer, producer_seq, kind, variation, time, appended_at, body)
         SELECT '{run}', 7, seq, '{run}', seq, 0, 0, now(), now(), '{{\"kind\":\"output\",\"text\":\"line\"}}'::bytea
           FROM generate_series(1, {EVENTS}) AS seq"
    );
    stack.database.execute(&fill).await;
    let stored =
        format!("UPDATE runs SET epoch = 7, seq = {EVENTS}, events = {EVENTS} WHERE id = '{run}'");
    stack.database.execute(&stored).await;
    let read = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE relname LIKE 'events%'";
    let before = stack.database.query_number(read).await;

    for query in [
        "after=7-50000",
        "before=7-50000",
        "before=end",
        "after=7-50000&channel=output:0",
    ] {
        let page = stack
            .api()
            .get(&format!("/v1/runs/{run}/events?limit=1000&{query}"))
            .await;
        assert_eq!(
            page["events"].as_array().map(Vec::len),
            Some(1_000),
            "{query}"
        );
    }
    // Sessions report what they have read after a moment.
    let reported = eventually("the pages are counted", async || {
        let read = stack.database.query_number(read).await - before;
        (read >= 4_000)
            .then_some(read)
            .ok_or_else(|| format!("{read} so far"))
    });
    let reported = reported.await;
    assert!(
        reported <= MAX_READ,
        "{reported} index entries for four pages"
    );
}
