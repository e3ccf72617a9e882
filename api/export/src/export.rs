//! `runcast-export`: runs and their events as Parquet files, for DuckDB and the like. Nothing reads them back.
//!
//! An export is a folder with `export.json`, which says what was selected, and two files for every hour in which
//! a selected run was created: `events/<hour>.parquet` and `runs/<hour>.parquet`, in this order and of one
//! snapshot. A file has its name only when it is whole ([`table`]), so the file of the runs says that its hour is
//! done: the same command in the same folder goes on behind it, whatever it was that cut the export off.
//!
//! Bounds: one connection, the rows of one fetch ([`runcast_store::export`]) and of one row group.

use std::fmt;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use chrono::{DateTime, DurationRound as _, NaiveDate, TimeDelta, Utc};
use clap::Args;
use runcast_common::protocol::event::Kind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::table::{Cell, Table};
use runcast_store::Store;
use runcast_store::export::{EventRecord, HourSpan, RunRecord, Selection, Snapshot};

/// What `--help` says behind the arguments.
pub const HELP: &str = "\
Files: DIR/runs/<hour>.parquet and DIR/events/<hour>.parquet, one of each for every hour (UTC) in which a
selected run was created, packed with zstd. A file has its name only when it is whole. If an export is
cut off, the same command goes on with the hours that are missing; what was selected is kept in
DIR/export.json. A run is exported as it stands when its hour is read: one that has not ended may have
more events later, which a further export into another folder shows.

Columns of runs:    run_id, name, labels (JSON), status, variations (JSON: status, exit_code, missing...),
                    created_by, created_at, started_at, ended_at, sealed, events, bytes
Columns of events:  run_id, epoch, seq (together the id of an event, `<epoch>-<seq>`), producer,
                    producer_seq, kind, variation, level, time (the producer's clock), appended_at
                    (Redis' clock), line (bytes: the JSON line as it was published)
Within a file events are ordered by run and id; times are in microseconds, UTC.

Examples:
  runcast-export --parquet /data/november --from 2026-11-01 --until 2026-12-01
  runcast-export --parquet /data/search --label team=search --label branch=main
  runcast-export --parquet /data/one --run 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b

  duckdb -c \"select r.name, e.kind, count(*) as events, sum(octet_length(e.line)) as bytes
               from '/data/november/events/*.parquet' e
               join '/data/november/runs/*.parquet' r using (run_id) group by all order by bytes desc\"
  duckdb -c \"select time, decode(line)::json->>'text' as text
               from '/data/november/events/*.parquet' where level = 'error' order by time\"";

const RUNS: &str = "message run {
    required binary run_id (STRING);
    required binary name (STRING);
    required binary labels (JSON);
    required binary status (STRING);
    required binary variations (JSON);
    required binary created_by (STRING);
    required int64 created_at (TIMESTAMP(MICROS,true));
    optional int64 started_at (TIMESTAMP(MICROS,true));
    optional int64 ended_at (TIMESTAMP(MICROS,true));
    required boolean sealed;
    required int64 events;
    required int64 bytes;
}";

const EVENTS: &str = "message event {
    required binary run_id (STRING);
    required int64 epoch;
    required int64 seq;
    required binary producer (STRING);
    required int64 producer_seq;
    required binary kind (STRING);
    required int32 variation;
    optional binary level (STRING);
    required int64 time (TIMESTAMP(MICROS,true));
    required int64 appended_at (TIMESTAMP(MICROS,true));
    required binary line;
}";

/// Between two messages about the progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What is exported, and where to.
#[derive(Debug, Args)]
pub struct Export {
    /// Folder for the Parquet files; made if it is missing
    #[arg(long, value_name = "DIR", required = true)]
    parquet: PathBuf,
    /// Only runs that were created at or after this moment: 2026-11-01 (UTC), or 2026-11-01T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    from: Option<DateTime<Utc>>,
    /// Only runs that were created before this moment [default: now]
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<DateTime<Utc>>,
    /// Only runs with this label; can be given several times, then with all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only this run; can be given several times
    #[arg(long = "run", value_name = "ID")]
    runs: Vec<Uuid>,
}

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let day = text.parse::<NaiveDate>().ok();
    let midnight = day.and_then(|day| day.and_hms_opt(0, 0, 0));
    let exact = || text.parse::<DateTime<Utc>>().ok();
    let moment = midnight.map(|moment| moment.and_utc()).or_else(exact);
    moment
        // Run ids hold the milliseconds since 1970 in 48 bits.
        .filter(|moment| (0..1 << 48).contains(&moment.timestamp_millis()))
        .ok_or_else(|| "expected a day, 2026-11-01, or a moment, 2026-11-01T12:00:00Z".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or("expected KEY=VALUE, such as team=search")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What `export.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    from: Option<DateTime<Utc>>,
    until: DateTime<Utc>,
    labels: Vec<(String, String)>,
    runs: Vec<Uuid>,
}

/// What has been written.
#[derive(Debug, Default)]
struct Written {
    hours: u64,
    kept: u64,
    runs: u64,
    events: u64,
    bytes: u64,
}

impl Export {
    /// Exports, and says in one line what it has written.
    ///
    /// # Errors
    /// In words for a person. What is written then stays, and the next call goes on.
    pub async fn run(self, store: &Store) -> anyhow::Result<String> {
        for folder in ["runs", "events"] {
            let folder = self.parquet.join(folder);
            let made = fs::create_dir_all(&folder);
            made.with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        let manifest = self.manifest()?;
        let selection = Selection {
            runs: manifest.runs.clone(),
            labels: manifest
                .labels
                .iter()
                .cloned()
                .map(|(key, value)| (key, value.into()))
                .collect(),
        };
        let mut left = HourSpan {
            from: manifest.from.unwrap_or_default(),
            until: manifest.until,
        };
        let mut written = Written::default();
        let mut progress = Progress::new();
        while let Some(first) = store.first_selected(&selection, left).await? {
            let hour = hour_of(first)?;
            let span = HourSpan {
                from: hour.max(left.from),
                until: (hour + TimeDelta::hours(1)).min(left.until),
            };
            let name = format!("{}.parquet", hour.format("%Y-%m-%dT%HZ"));
            let runs = self.parquet.join("runs").join(&name);
            if runs.is_file() {
                written.kept += 1;
            } else {
                let events = self.parquet.join("events").join(&name);
                let mut snapshot = store.snapshot(&selection, span).await?;
                // The runs last: their file says that the hour is done.
                written.bytes +=
                    write_events(&mut snapshot, &events, &mut written, &mut progress).await?;
                written.bytes += write_runs(&mut snapshot, &runs, &mut written).await?;
                written.hours += 1;
            }
            left.from = span.until;
        }
        progress.end();
        Ok(written.to_string())
    }

    /// What this export is about, as it was when it began.
    fn manifest(&self) -> anyhow::Result<Manifest> {
        let path = self.parquet.join("export.json");
        let mut asked = Manifest {
            from: self.from,
            until: self.until.unwrap_or_else(Utc::now),
            labels: self.labels.clone(),
            runs: self.runs.clone(),
        };
        if path.is_file() {
            let text =
                fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            let begun: Manifest = serde_json::from_slice(&text)
                .with_context(|| format!("{} is no description of an export", path.display()))?;
            asked.until = self.until.unwrap_or(begun.until);
            if asked != begun {
                bail!(
                    "{} holds an export of another selection, see export.json there: take another folder, \
                     or the same --from, --until, --label and --run",
                    self.parquet.display()
                );
            }
            return Ok(begun);
        }
        let part = self.parquet.join("export.json.part");
        let text = serde_json::to_vec_pretty(&asked)?;
        let written = fs::write(&part, text).and_then(|()| fs::File::open(&part)?.sync_all());
        written.with_context(|| format!("{} cannot be written", part.display()))?;
        crate::table::publish(&part, &path)?;
        Ok(asked)
    }
}

/// The hour in which a run was created.
fn hour_of(run: Uuid) -> anyhow::Result<DateTime<Utc>> {
    let (seconds, nanos) = run
        .get_timestamp()
        .context("a run id without a time")?
        .to_unix();
    let moment = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, nanos));
    let moment = moment.context("a run id of no calendar's time")?;
    Ok(moment.duration_trunc(TimeDelta::hours(1))?)
}

async fn write_events(
    snapshot: &mut Snapshot,
    path: &Path,
    written: &mut Written,
    progress: &mut Progress,
) -> anyhow::Result<u64> {
    let mut table = Table::create(path, EVENTS, Some("line"))?;
    loop {
        let rows = snapshot.events().await?;
        if rows.is_empty() {
            return table.finish();
        }
        written.events += rows.len() as u64;
        progress.tell(path, written);
        for row in rows {
            table.push(event_cells(row))?;
        }
    }
}

async fn write_runs(
    snapshot: &mut Snapshot,
    path: &Path,
    written: &mut Written,
) -> anyhow::Result<u64> {
    let mut table = Table::create(path, RUNS, None)?;
    loop {
        let rows = snapshot.runs().await?;
        if rows.is_empty() {
            return table.finish();
        }
        written.runs += rows.len() as u64;
        for row in rows {
            table.push(run_cells(row))?;
        }
    }
}

fn run_cells(run: RunRecord) -> [Cell; 12] {
    [
        run.id.to_string().into(),
        run.name.into(),
        run.labels.into(),
        run.status.into(),
        run.variations.into(),
        run.created_by.into(),
        run.created_at.into(),
        run.started_at.into(),
        run.ended_at.into(),
        Cell::Flag(run.sealed),
        Cell::Long(run.events),
        Cell::Long(run.bytes),
    ]
}

fn event_cells(event: EventRecord) -> [Cell; 11] {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.number() == event.kind);
    // A kind of a later version has no name here.
    let kind = kind.map_or_else(|| event.kind.to_string(), |kind| kind.name().to_owned());
    [
        event.run_id.to_string().into(),
        Cell::Long(event.epoch),
        Cell::Long(event.seq),
        event.producer.to_string().into(),
        Cell::Long(event.producer_seq),
        kind.into(),
        Cell::Int(event.variation.into()),
        event.level.into(),
        event.time.into(),
        event.appended_at.into(),
        Cell::Bytes(event.body),
    ]
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hours,
            kept,
            runs,
            events,
            bytes,
        } = self;
        write!(
            f,
            "{runs} runs and {events} events of {hours} hours written, {bytes} bytes"
        )?;
        if *kept > 0 {
            write!(f, "; {kept} hours were there already")?;
        }
        Ok(())
    }
}

/// What a person at a terminal sees meanwhile: one line that changes.
struct Progress {
    shown: bool,
    told: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            told: None,
        }
    }

    fn tell(&mut self, path: &Path, written: &Written) {
        if !self.shown
            || self
                .told
                .is_some_and(|told| told.elapsed() < PROGRESS_EVERY)
        {
            return;
        }
        self.told = Some(Instant::now());
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let Written { runs, events, .. } = written;
        self.print(&format!("\r\x1b[K{name}: {runs} runs, {events} events"));
    }

    fn end(&mut self) {
        if self.told.is_some() {
            self.print("\r\x1b[K");
        }
    }

    /// A terminal that is gone shows nothing more.
    fn print(&mut self, text: &str) {
        let mut out = std::io::stderr().lock();
        self.shown = out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_labels_are_read() {
        let day = moment("2026-11-01").expect("a day");
        assert_eq!(moment("2026-11-01T00:00:00Z"), Ok(day));
        assert_eq!(moment("2026-11-01T01:30:00+01:30"), Ok(day));
        for text in [
            "",
            "now",
            "2026-13-01",
            "2026-11-01 12:00",
            "1969-12-31",
            "+99999-01-01",
        ] {
            assert!(moment(text).is_err(), "{text}");
        }
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(label("a="), Ok(("a".into(), String::new())));
        assert!(label("a").is_err() && label("=a").is_err());
    }

    #[test]
    fn a_run_belongs_to_the_hour_of_its_id() {
        let run = "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b"
            .parse()
            .expect("an id");
        let hour = hour_of(run).expect("an hour");
        assert_eq!(hour.to_rfc3339(), "2024-12-07T15:00:00+00:00");
        assert!(hour_of(Uuid::from_u128(7)).is_err());
    }
}
