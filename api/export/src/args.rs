//! The arguments and the help of `runcast-export`.

use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;
use uuid::Uuid;

/// What `--help` prints after the arguments.
pub const HELP: &str = "\
Files: DIR/runs/<hour>.parquet and DIR/events/<hour>.parquet, one of each for every hour (UTC) in which a
selected run was created, compressed with zstd. A file gets its name only when it is complete. If an export
is interrupted, the same command continues with the missing hours; DIR/export.json keeps the selection. A
run is exported as it is when its hour is read. A run that has not ended may get more events later: export
it again into another folder.

Columns of runs:    run_id, name, labels (JSON), status, variations (JSON: status, exit_code, missing...),
                    created_by, created_at, started_at, ended_at, sealed, events, bytes
Columns of events:  run_id, epoch, seq (together the id of an event, `<epoch>-<seq>`), producer,
                    producer_seq, kind, variation, level, time (the producer's clock), appended_at
                    (the clock of Redis), line (bytes: the JSON line as it was published)
Within a file events are ordered by run and id. Times are in microseconds, UTC.

Examples:
  runcast-export --parquet /data/november --from 2026-11-01 --until 2026-12-01
  runcast-export --parquet /data/search --label team=search --label branch=main
  runcast-export --parquet /data/one --run 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b

  duckdb -c \"select r.name, e.kind, count(*) as events, sum(octet_length(e.line)) as bytes
               from '/data/november/events/*.parquet' e
               join '/data/november/runs/*.parquet' r using (run_id) group by all order by bytes desc\"
  duckdb -c \"select time, decode(line)::json->>'text' as text
               from '/data/november/events/*.parquet' where level = 'error' order by time\"";

/// What to export, and where to.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Folder for the Parquet files; created if it does not exist
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) parquet: PathBuf,
    /// Only runs created at or after this moment: 2026-11-01 (UTC), or 2026-11-01T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) from: Option<DateTime<Utc>>,
    /// Only runs created before this moment [default: now]
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) until: Option<DateTime<Utc>>,
    /// Only runs with this label; if repeated, only runs with all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Only this run; may be repeated
    #[arg(long = "run", value_name = "ID")]
    pub(crate) runs: Vec<Uuid>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_labels_are_parsed() {
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
}
