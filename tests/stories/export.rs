//! `runcast-export` writes exactly what Postgres holds, byte for byte, in complete files only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::shell_exit_code;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::Stack;
use uuid::Uuid;

/// Runs the command in this folder; returns its exit code and output.
async fn export(stack: &Stack, folder: &Path, more: &[&str]) -> (i32, String) {
    let folder = folder.to_str().expect("UTF-8");
    let arguments = [&["--parquet", folder], more].concat();
    let mut process = stack.export_spec(&arguments).start(stack.folder());
    let code = shell_exit_code(process.wait_exit(WAIT_DEADLINE).await);
    (code, process.logs())
}

/// The files of a kind, sorted by name.
fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join(kind)).expect("a folder of an export");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

fn reader(path: &Path) -> SerializedFileReader<File> {
    let file = File::open(path).expect("a file of an export");
    SerializedFileReader::new(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Seq, producer, producer's seq and line of an event.
type Exported = (i64, String, i64, Vec<u8>);

/// All exported events by run, in the order of the files.
fn events(folder: &Path) -> BTreeMap<Uuid, Vec<Exported>> {
    let mut events: BTreeMap<Uuid, Vec<Exported>> = BTreeMap::new();
    for path in files(folder, "events") {
        for row in reader(&path).get_row_iter(None).expect("rows") {
            let row = row.expect("a row");
            let run = row.get_string(0).expect("a run").parse().expect("an id");
            let producer = row.get_string(3).expect("a producer").clone();
            let line = row.get_bytes(10).expect("a line").data().to_vec();
            let (seq, own) = (row.get_long(2), row.get_long(4));
            let event = (seq.expect("a seq"), producer, own.expect("a seq"), line);
            events.entry(run).or_default().push(event);
        }
    }
    events
}

/// The same events from Postgres.
async fn stored(stack: &Stack, run: Uuid) -> Vec<Exported> {
    let events = stack.database.events(run).await.into_iter();
    let signed = |number: u64| i64::try_from(number).expect("a small number");
    events
        .map(|event| {
            let (seq, own) = (signed(event.id.seq), signed(event.producer_seq));
            (seq, event.producer.to_string(), own, event.body)
        })
        .collect()
}

/// Moves a run into another hour, as if it had been created then.
async fn date_back(stack: &Stack, run: Uuid, hours: u64) -> Uuid {
    let ms = (run.as_u128() >> 80) - u128::from(hours) * 3_600_000;
    let id = Uuid::from_u128(run.as_u128() & (u128::MAX >> 48) | ms << 80);
    stack
        .database
        .execute(&format!(
            "INSERT INTO runs (id, name, labels, created_by, events, bytes)
             SELECT '{id}', name, '{{\"team\": \"old\"}}', 'story', events, bytes FROM runs WHERE id = '{run}';
             INSERT INTO events SELECT '{id}', epoch, seq, producer, producer_seq, kind, variation, level, time,
                    appended_at, body FROM events WHERE run_id = '{run}'"
        ))
        .await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_is_complete_and_resumes() {
    let mut stack = Stack::start().await;
    let script = r"i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf 'a\0b\377\n'; echo oops >&2";
    let created = stack.api().create_run("exported").await.id;
    let mut wrap = stack.wrap(created, &["sh", "-c", script]);
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    stack.database.wait_sealed(created).await;
    let open = stack.api().create_run("open").await;
    let mut publisher = Publisher::new(open.publisher_connection().await, stack.keys(), open.id);
    let last = publisher.publish(&numbered_lines("event", 1..=300)).await;
    stack.database.wait_stored(open.id, last).await;
    // Two hours ago may have been yesterday, which has a partition.
    let old = date_back(&stack, created, 2).await;

    let folder = stack.folder().join("export");
    let (code, output) = export(&stack, &folder, &[]).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("3 runs and"), "{output}");
    let exported = events(&folder);
    for run in [created, open.id, old] {
        assert!(exported[&run] == stored(&stack, run).await, "run {run}");
    }
    assert_eq!(exported.len(), 3);
    let mut rows = files(&folder, "runs").into_iter().flat_map(|path| {
        let reader = reader(&path);
        let rows = reader.get_row_iter(None).expect("rows");
        rows.collect::<Result<Vec<_>, _>>().expect("rows of runs")
    });
    let id = created.to_string();
    let row = rows.find(|row| row.get_string(0).is_ok_and(|one| *one == id));
    let row = row.expect("the row of the run");
    assert_eq!(row.get_string(1).expect("a name"), "exported");
    assert_eq!(row.get_string(3).expect("a status"), "succeeded");
    assert!(
        row.get_string(4)
            .expect("variations")
            .contains("\"exit_code\": 0")
    );
    assert!(row.get_bool(9).expect("sealed"));
    let count = row.get_long(10).expect("events");
    assert_eq!(usize::try_from(count).ok(), Some(exported[&created].len()));

    // Interrupted in its last hour: complete files stay, incomplete ones are written again.
    let runs = files(&folder, "runs");
    let (early, late) = (&runs[0], &runs[runs.len() - 1]);
    let modified = |path: &Path| {
        fs::metadata(path)
            .and_then(|file| file.modified())
            .expect("a time")
    };
    let before = modified(early);
    fs::rename(late, late.with_extension("parquet.part")).expect("renamed");
    let half = files(&folder, "events").pop().expect("a file");
    fs::write(half, b"PAR1, but cut").expect("written");
    let (code, output) = export(&stack, &folder, &[]).await;
    assert_eq!(code, 0, "{output}");
    let retained = format!("; {} hours were there already", runs.len() - 1);
    assert!(
        output.contains("of 1 hours written") && output.contains(&retained),
        "{output}"
    );
    assert_eq!(modified(early), before);
    assert!(events(&folder) == exported);
    assert!(
        files(&folder, "runs")
            .iter()
            .all(|path| path.extension().is_some_and(|end| end == "parquet"))
    );
    let (code, output) = export(&stack, &folder, &["--label", "team=old"]).await;
    assert_eq!(code, 1);
    assert!(output.contains("another selection"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_filters_by_time_label_and_run() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("chosen").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let last = publisher.publish(&numbered_lines("event", 1..=3)).await;
    stack.database.wait_stored(run.id, last).await;
    let old = date_back(&stack, run.id, 3).await;
    let hour_ago = "SELECT to_char(now() - interval '1 hour', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let hour_ago = stack.database.query_strings(hour_ago).await.remove(0);
    let chosen = run.id.to_string();
    let cases: [(&[&str], Vec<Uuid>); 6] = [
        (&["--from", &hour_ago], vec![run.id]),
        (&["--until", &hour_ago], vec![old]),
        (&["--label", "team=old"], vec![old]),
        (&["--label", "team=old", "--label", "team=new"], vec![]),
        (&["--run", &chosen], vec![run.id]),
        (&["--run", &chosen, "--label", "team=old"], vec![]),
    ];
    for (number, (arguments, expected)) in cases.into_iter().enumerate() {
        let folder = stack.folder().join(format!("export-{number}"));
        let (code, output) = export(&stack, &folder, arguments).await;
        assert_eq!(code, 0, "{output}");
        let exported: Vec<Uuid> = events(&folder).into_keys().collect();
        assert_eq!(exported, expected, "{arguments:?}");
    }
    let folder = stack.folder().join("refused");
    let (code, output) = export(&stack, &folder, &["--from", "yesterday"]).await;
    assert!(
        code == 2 && output.contains("expected a day"),
        "{code} {output}"
    );
}
