//! Walks over the hours of an export, and writes the Parquet files of each.
//!
//! An export is a folder with `export.json` ([`crate::manifest`]) and two files for every hour in
//! which a selected run was created: `events/<hour>.parquet` and `runs/<hour>.parquet`, written in
//! this order from one snapshot. A file gets its name only when it is complete
//! ([`crate::parquet_file`]), so the file of runs proves that its hour is done. The same command in
//! the same folder continues after it, whatever interrupted the export.
//!
//! Bounds: one connection, the rows of one fetch ([`runcast_store::export`]) and of one row group.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use uuid::Uuid;

use crate::args::ExportArgs;
use crate::columns::{EVENT_LINE_COLUMN, EVENT_SCHEMA, RUN_SCHEMA, event_cells, run_cells};
use crate::manifest::Manifest;
use crate::parquet_file::ParquetFile;
use crate::progress::{ProgressLine, Summary};
use runcast_store::Store;
use runcast_store::audit::Actor;
use runcast_store::export::{HourSpan, Snapshot};

/// Exports, and returns a summary of one line. After a failure, what is complete stays, and the
/// next call continues.
///
/// # Errors
/// In words for a person.
pub async fn export(args: &ExportArgs, store: &Store) -> anyhow::Result<String> {
    for folder in ["runs", "events"] {
        let folder = args.parquet.join(folder);
        let created = fs::create_dir_all(&folder);
        created.with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let manifest = Manifest::open(args)?;
    let selection = manifest.selection();
    record(&manifest, store).await?;
    let mut left = HourSpan {
        from: manifest.from.unwrap_or_default(),
        until: manifest.until,
    };
    let mut summary = Summary::default();
    let mut progress = ProgressLine::new();
    // Go from each hour with selected runs to the next one.
    while let Some(first) = store.first_selected(&selection, left).await? {
        let hour = hour_of(first)?;
        let span = HourSpan {
            from: hour.max(left.from),
            until: (hour + TimeDelta::hours(1)).min(left.until),
        };
        let name = format!("{}.parquet", hour.format("%Y-%m-%dT%HZ"));
        let runs = args.parquet.join("runs").join(&name);
        if runs.is_file() {
            summary.skipped_hours += 1;
        } else {
            // The runs last: their file proves that the hour is done.
            let events = args.parquet.join("events").join(&name);
            let mut snapshot = store.snapshot(&selection, span).await?;
            write_events(&mut snapshot, &events, &mut summary, &mut progress).await?;
            write_runs(&mut snapshot, &runs, &mut summary).await?;
            summary.hours += 1;
        }
        left.from = span.until;
    }
    progress.clear();
    Ok(summary.to_string())
}

/// Records the export in the audit log, before anything is read.
async fn record(manifest: &Manifest, store: &Store) -> anyhow::Result<()> {
    let exporter = Actor {
        id: None,
        name: "runcast-export".to_owned(),
        address: None,
    };
    let details = serde_json::to_value(manifest)?;
    let recorded = store.audit(&exporter, "runs.exported", "runs", details);
    recorded.await.context(
        "the export cannot be recorded in the audit log; DATABASE_URL must lead to a server that \
         accepts writes",
    )
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
    let moment = moment.context("a run id whose time is in no calendar")?;
    Ok(moment.duration_trunc(TimeDelta::hours(1))?)
}

async fn write_events(
    snapshot: &mut Snapshot,
    path: &Path,
    summary: &mut Summary,
    progress: &mut ProgressLine,
) -> anyhow::Result<()> {
    let mut file = ParquetFile::create(path, EVENT_SCHEMA, Some(EVENT_LINE_COLUMN))?;
    loop {
        let events = snapshot.events().await?;
        if events.is_empty() {
            summary.bytes += file.finish()?;
            return Ok(());
        }
        summary.events += events.len() as u64;
        progress.update(path, summary);
        for event in events {
            file.push(event_cells(event))?;
        }
    }
}

async fn write_runs(
    snapshot: &mut Snapshot,
    path: &Path,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut file = ParquetFile::create(path, RUN_SCHEMA, None)?;
    loop {
        let runs = snapshot.runs().await?;
        if runs.is_empty() {
            summary.bytes += file.finish()?;
            return Ok(());
        }
        summary.runs += runs.len() as u64;
        for run in runs {
            file.push(run_cells(run))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
