//! The minimum that storing needs: a loop that locks watermarks, COPYs rows and moves the
//! watermarks.
//!
//! The rows have the same columns and sizes as the persister's. They are encoded before the clock
//! starts, not read from anywhere, and not checked.

use std::time::Instant;

use runcast_common::protocol::event::{self, Kind};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use uuid::Uuid;

use crate::measure;

/// Rows of one transaction.
const BATCH_ROWS: usize = 5_000;

const COPY_STATEMENT: &str = "COPY events (run_id, epoch, seq, producer, producer_seq, kind, variation, level, \
     time, appended_at, body) FROM STDIN (FORMAT binary)";

const LOCK_STATEMENT: &str =
    "SELECT id, epoch, seq FROM runs WHERE id = ANY($1) ORDER BY id FOR UPDATE";

const UPDATE_STATEMENT: &str = "UPDATE runs SET epoch = $2, seq = $3, events = events + $4, bytes = bytes + $5 \
     WHERE id = ANY($1)";

/// Milliseconds from the Unix epoch to the epoch of Postgres, 2000-01-01.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// One transaction: its runs, their new last seq, the rows of each, and the rows in Postgres'
/// binary format.
struct Batch {
    runs: Vec<Uuid>,
    last: i64,
    share: i64,
    rows: Vec<u8>,
}

/// Stores this many events of each run, in transactions over several runs; returns the seconds from
/// the first statement to the last commit.
pub(crate) async fn store(
    connection: &mut PgConnection,
    runs: &[Uuid],
    events: usize,
    at_once: usize,
) -> f64 {
    let batches = prepare(runs, events, at_once);
    let epoch = signed(event::now_ms());
    let line = i64::try_from(measure::EVENT_BYTES - 1).expect("a length");
    let start = Instant::now();
    for batch in batches {
        let mut transaction = connection.begin().await.expect("a transaction");
        let locked = sqlx::query(LOCK_STATEMENT).bind(&batch.runs);
        let locked = transaction.fetch_all(locked).await.expect("locks");
        assert_eq!(locked.len(), batch.runs.len());
        let mut copy = transaction
            .copy_in_raw(COPY_STATEMENT)
            .await
            .expect("a COPY");
        copy.send(batch.rows).await.expect("COPY accepts the rows");
        copy.finish().await.expect("rows are stored");
        let moved = sqlx::query(UPDATE_STATEMENT)
            .bind(&batch.runs)
            .bind(epoch)
            .bind(batch.last)
            .bind(batch.share)
            .bind(batch.share * line);
        transaction.execute(moved).await.expect("watermarks move");
        transaction.commit().await.expect("a commit");
    }
    start.elapsed().as_secs_f64()
}

fn prepare(runs: &[Uuid], events: usize, at_once: usize) -> Vec<Batch> {
    let share = BATCH_ROWS / at_once;
    let texts = measure::texts();
    let lines = texts.iter().map(|text| measure::line(Kind::Output, text));
    let lines: Vec<Vec<u8>> = lines.collect();
    let mut lines = lines.iter().cycle();
    let mut batches = Vec::new();
    for first in (1..=events).step_by(share) {
        let last = (first + share - 1).min(events);
        for group in runs.chunks(at_once) {
            let mut rows = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
            for &run in group {
                for seq in first..=last {
                    let line = lines.next().expect("endless");
                    row(&mut rows, run, index(seq), &line[..line.len() - 1]);
                }
            }
            rows.extend_from_slice(&(-1i16).to_be_bytes());
            batches.push(Batch {
                runs: group.to_vec(),
                last: index(last),
                share: index(last + 1 - first),
                rows,
            });
        }
    }
    batches
}

fn row(rows: &mut Vec<u8>, run: Uuid, seq: i64, line: &[u8]) {
    let now = signed(event::now_ms());
    let moment = ((now - POSTGRES_EPOCH_MS) * 1000).to_be_bytes();
    let kind = Kind::Output.number().to_be_bytes();
    rows.extend_from_slice(&11i16.to_be_bytes());
    field(rows, run.as_bytes());
    field(rows, &1i64.to_be_bytes());
    field(rows, &seq.to_be_bytes());
    // The run's id serves as its producer's id.
    field(rows, run.as_bytes());
    field(rows, &seq.to_be_bytes());
    field(rows, &kind);
    field(rows, &0i16.to_be_bytes());
    rows.extend_from_slice(&(-1i32).to_be_bytes());
    field(rows, &moment);
    field(rows, &moment);
    field(rows, line);
}

fn field(rows: &mut Vec<u8>, value: &[u8]) {
    let length = i32::try_from(value.len()).expect("a short field");
    rows.extend_from_slice(&length.to_be_bytes());
    rows.extend_from_slice(value);
}

fn index(number: usize) -> i64 {
    i64::try_from(number).expect("a small number")
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a moment")
}
