//! Parses the entries of ready streams out of Redis' replies. An entry names one run: `run <id>`.
//! Others are left out here, and removed by [`crate::ready_guard`].

use std::collections::HashMap;

use redis::Value;
use runcast_common::redis;
use uuid::Uuid;

/// A run that has unstored events, as far as the ready queue knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadyRun {
    pub(crate) run: Uuid,
    /// Its ready entries, acknowledged when the run is settled.
    pub(crate) ready_ids: Vec<String>,
}

/// Id of a ready entry, and the run that it names.
pub(crate) type ReadyEntry = (String, Uuid);

/// The runs that a reply of `XRANGE` names.
pub(crate) fn runs(reply: Value) -> Vec<Uuid> {
    entries(reply).into_iter().map(|(_, run)| run).collect()
}

/// The entries in a reply of `XREADGROUP`, of all streams.
pub(crate) fn read_entries(reply: Value) -> Vec<ReadyEntry> {
    let streams: Vec<Value> = match reply {
        Value::Map(pairs) => pairs.into_iter().map(|(_, entries)| entries).collect(),
        _ => Vec::new(),
    };
    streams.into_iter().flat_map(entries).collect()
}

/// The entries in a reply of `XAUTOCLAIM`, which is: next cursor, entries, ids that were deleted.
pub(crate) fn claimed_entries(reply: Value) -> Vec<ReadyEntry> {
    match reply {
        Value::Array(parts) => parts.into_iter().nth(1).map(entries).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// One item per run, in the order of its first entry.
pub(crate) fn group_by_run(entries: Vec<ReadyEntry>) -> Vec<ReadyRun> {
    let mut runs: Vec<ReadyRun> = Vec::new();
    let mut indexes: HashMap<Uuid, usize> = HashMap::new();
    for (id, run) in entries {
        let index = *indexes.entry(run).or_insert_with(|| {
            runs.push(ReadyRun {
                run,
                ready_ids: Vec::new(),
            });
            runs.len() - 1
        });
        runs[index].ready_ids.push(id);
    }
    runs
}

fn entries(list: Value) -> Vec<ReadyEntry> {
    let Value::Array(list) = list else {
        return Vec::new();
    };
    list.into_iter().filter_map(entry).collect()
}

/// An entry that was deleted has no fields, and is left out, like one that names no run.
fn entry(value: Value) -> Option<ReadyEntry> {
    let (id, fields): (String, Option<Vec<String>>) = redis::from_redis_value(value).ok()?;
    match fields.as_deref() {
        Some([name, run, ..]) if name == "run" => Some((id, Uuid::try_parse(run).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_are_grouped_by_run() {
        let run = Uuid::now_v7();
        let entry = |id: &str| {
            Value::Array(vec![
                bulk(id),
                Value::Array(vec![bulk("run"), bulk(&run.to_string())]),
            ])
        };
        let deleted = Value::Array(vec![bulk("3-0"), Value::Nil]);
        let list = Value::Array(vec![entry("1-0"), deleted, entry("2-0")]);
        let read = Value::Map(vec![(bulk("stream"), list.clone())]);
        let expected = vec![ReadyRun {
            run,
            ready_ids: vec!["1-0".into(), "2-0".into()],
        }];
        assert_eq!(group_by_run(read_entries(read)), expected);
        let claimed = Value::Array(vec![bulk("0-0"), list, Value::Array(vec![])]);
        assert_eq!(group_by_run(claimed_entries(claimed)), expected);
        assert_eq!(group_by_run(read_entries(Value::Nil)), vec![]);
    }
}
