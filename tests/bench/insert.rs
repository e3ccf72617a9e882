//! The usual way to write a consumer: one connection, `XREADGROUP` per run with a group of its own,
//! one `INSERT_STATEMENT ... SELECT unnest(...) ON CONFLICT DO NOTHING` per reply, and `XACK`.
//!
//! It reads the same entries and stores the same columns, but keeps no watermark, informs no
//! producer, and trims nothing.

use std::time::Instant;

use runcast_common::protocol::entry::Entry;
use runcast_common::protocol::event::Head;
use runcast_tests::stack::Stack;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

/// Entries of one reply: 5,120 events if entries are full.
const ENTRIES_PER_READ: usize = 10;

const GROUP_NAME: &str = "insert";

const INSERT_STATEMENT: &str = "INSERT INTO events (run_id, epoch, seq, producer, producer_seq, kind, variation, time,
        appended_at, body)
     SELECT $1, epoch, seq, $2, producer_seq, kind, 0, to_timestamp(time / 1000.0), to_timestamp(at / 1000.0), body
       FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[], $7::bigint[], $8::bigint[], $9::bytea[])
            AS e(epoch, seq, producer_seq, kind, time, at, body)
     ON CONFLICT DO NOTHING";

/// Stores all events in the streams of these runs; returns the seconds.
pub(crate) async fn store(stack: &Stack, connection: &mut PgConnection, runs: &[Uuid]) -> f64 {
    let mut redis = stack.redis.connection().await;
    for &run in runs {
        let mut command = redis::cmd("XGROUP");
        command.arg(&["CREATE", &stack.keys().run(run).stream, GROUP_NAME, "0"]);
        let () = command.query_async(&mut redis).await.expect("a group");
    }
    let start = Instant::now();
    let mut rest = runs.to_vec();
    while !rest.is_empty() {
        let mut more = Vec::new();
        for run in rest {
            if turn(stack, &mut redis, connection, run).await {
                more.push(run);
            }
        }
        rest = more;
    }
    start.elapsed().as_secs_f64()
}

/// Stores one reply of one run; false if the stream is empty.
async fn turn(
    stack: &Stack,
    redis: &mut redis::aio::MultiplexedConnection,
    connection: &mut PgConnection,
    run: Uuid,
) -> bool {
    let stream = stack.keys().run(run).stream;
    let mut command = redis::cmd("XREADGROUP");
    command
        .arg(&["GROUP", GROUP_NAME, "me", "COUNT"])
        .arg(ENTRIES_PER_READ);
    command.arg(&["STREAMS", &stream, ">"]);
    let reply: redis::Value = command.query_async(redis).await.expect("a reply");
    let entries = match reply {
        redis::Value::Map(mut streams) => streams.remove(0).1,
        redis::Value::Array(mut streams) => match streams.remove(0) {
            redis::Value::Array(mut pair) => pair.remove(1),
            other => panic!("{other:?}"),
        },
        _ => return false,
    };
    let entries: Vec<Entry> = Entry::parse_range(entries)
        .expect("entries")
        .into_iter()
        .map(|entry| entry.expect("readable"))
        .collect();
    let (mut epochs, mut seqs, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut kinds, mut times, mut moments) = (Vec::new(), Vec::new(), Vec::new());
    let mut bodies = Vec::new();
    for entry in &entries {
        for event in entry.events() {
            let head = Head::parse(&event.line).expect("an event");
            epochs.push(signed(event.id.epoch));
            seqs.push(signed(event.id.seq));
            numbers.push(signed(event.producer_seq));
            kinds.push(head.kind.number());
            times.push(signed(head.time));
            moments.push(signed(entry.appended_ms));
            bodies.push(event.line.to_vec());
        }
    }
    let inserted = sqlx::query(INSERT_STATEMENT)
        .bind(run)
        .bind(entries[0].producer)
        .bind(epochs)
        .bind(seqs)
        .bind(numbers)
        .bind(kinds)
        .bind(times)
        .bind(moments)
        .bind(bodies);
    inserted.execute(connection).await.expect("rows");
    let mut command = redis::cmd("XACK");
    command.arg(&[&stream, GROUP_NAME]);
    command.arg(
        entries
            .iter()
            .map(|entry| entry.last.to_string())
            .collect::<Vec<_>>(),
    );
    let _acknowledged: u64 = command.query_async(redis).await.expect("a response");
    true
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a small number")
}
