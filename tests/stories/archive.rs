//! Old runs move to the archive and read the same from there. Whatever dies in between, either the
//! rows or a valid object exist.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::limits::MAX_CHUNK_BYTES;
use runcast_tests::api::{problem, send};
use runcast_tests::database::text;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, eventually_within};
use runcast_tests::s3_server;
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use uuid::Uuid;

/// Failed jobs are retried after 3 s, 7 s, 20 s and so on.
pub(crate) const AFTER_FAILURES: Duration = Duration::from_secs(120);

pub(crate) const KEPT_QUERY: &str = "SELECT count(*) FROM archives WHERE state = 'kept'";
const ROWS_DELETED_QUERY: &str = "SELECT count(*) FROM archives WHERE rows_gone_at IS NOT NULL";
pub(crate) const ROWS_QUERY: &str = "SELECT count(*) FROM events";
pub(crate) const JOBS_QUERY: &str = "SELECT count(*) FROM tasks.jobs";

/// A stack with a folder as its archive. Its worker is not started yet.
pub(crate) async fn with_folder() -> (Stack, PathBuf) {
    let mut stack = Stack::without_services().await;
    let folder = stack.folder().join("archive");
    fs::create_dir(&folder).expect("a folder");
    let address = format!("file://{}", folder.display());
    for service in [Service::Gateway, Service::Worker] {
        stack.set(service, "RUNCAST_ARCHIVE", address.clone());
    }
    stack.set(Service::Worker, "RUNCAST_ARCHIVE_AFTER", "1s");
    for service in [Service::Gateway, Service::Persister] {
        stack.start_service(service).await;
    }
    (stack, folder)
}

/// Configures a bucket as the archive of a stack, reached through `port`.
pub(crate) async fn with_bucket(stack: &mut Stack, port: u16) {
    for service in [Service::Gateway, Service::Worker] {
        for (name, value) in s3_server::settings(port) {
            stack.set(service, name, value);
        }
    }
    stack.set(Service::Worker, "RUNCAST_ARCHIVE_AFTER", "1s");
    for service in [Service::Gateway, Service::Persister] {
        stack.start_service(service).await;
    }
}

/// A run of a command that was sealed long enough ago to be archived, and is gone from Redis.
pub(crate) async fn sealed_run(stack: &mut Stack, script: &str) -> Uuid {
    let run = stack.api().create_run("old").await.id;
    let mut wrap = stack.wrap(run, &["sh", "-c", script]);
    wrap.wait_exit(WAIT_DEADLINE).await;
    stack.database.wait_sealed(run).await;
    make_old(stack, run).await;
    run
}

/// Makes a sealed run look sealed an hour ago, and removes it from Redis.
async fn make_old(stack: &Stack, run: Uuid) {
    let older =
        format!("UPDATE runs SET sealed_at = sealed_at - interval '1 hour' WHERE id = '{run}'");
    stack.database.execute(&older).await;
    remove_from_redis(stack, run).await;
}

/// Removes a run from Redis, as its expiry does after a quarter of an hour.
pub(crate) async fn remove_from_redis(stack: &Stack, run: Uuid) {
    let keys = stack.keys().run(run);
    let mut redis = stack.redis.connection().await;
    let mut delete = redis::cmd("DEL");
    delete.arg(&[keys.stream, keys.meta]);
    delete.exec_async(&mut redis).await.expect("forgotten");
}

/// Everything that the API returns for a run: history in both formats, from both ends, with a
/// filter, by line, as text, search results, and the stream from the beginning and from the middle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunSnapshot {
    ndjson: String,
    pub(crate) backwards: Vec<String>,
    status: Vec<String>,
    text: Vec<u8>,
    found: String,
    line: String,
    stream: Vec<(String, String, EventId)>,
    resumed: Vec<(String, String, EventId)>,
}

pub(crate) async fn snapshot(stack: &Stack, run: Uuid) -> RunSnapshot {
    let (mut ndjson, mut after) = (String::new(), Some("0-0".to_owned()));
    while let Some(from) = after {
        let path = format!("/v1/runs/{run}/events?limit=97&after={from}");
        let request = stack.api().request(Method::GET, &path);
        let page = send(request.header("accept", "application/x-ndjson")).await;
        assert_eq!(page.status(), StatusCode::OK);
        let page = page.text().await.expect("a page");
        // The last line holds the cursors.
        let events = page.trim_end().rfind('\n').map_or(0, |end| end + 1);
        let cursors: Value = serde_json::from_str(&page[events..]).expect("JSON");
        assert_eq!(cursors["kind"], "page");
        let newer = cursors["newer"].as_str().expect("a cursor").to_owned();
        after = (cursors["more"] == true).then_some(newer);
        ndjson += &page[..events];
    }
    let (mut backwards, mut before) = (Vec::new(), "end".to_owned());
    loop {
        let page = stack
            .api()
            .get(&format!("/v1/runs/{run}/events?limit=101&before={before}"))
            .await;
        let events = page["events"].as_array().expect("events");
        backwards.extend(events.iter().rev().map(Value::to_string));
        match page["older"].as_str() {
            Some(older) => older.clone_into(&mut before),
            None => break,
        }
    }
    backwards.reverse();
    let page = stack
        .api()
        .get(&format!("/v1/runs/{run}/events?channel=status"))
        .await;
    let status = page["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(Value::to_string)
        .collect();
    let requested = stack
        .api()
        .request(Method::GET, &format!("/v1/runs/{run}/text"));
    let text = send(requested)
        .await
        .bytes()
        .await
        .expect("a text")
        .to_vec();
    let found = format!("/v1/runs/{run}/search?regex=%5E1?999$&before=end");
    let found = stack.api().get(&found).await["matches"].to_string();
    let line = format!("/v1/runs/{run}/events?line=700&limit=1");
    let line = stack.api().get(&line).await["events"].to_string();
    let stream = frames(stack, run, None).await;
    let middle = stream[stream.len() / 2].2.to_string();
    let resumed = frames(stack, run, Some(&middle)).await;
    RunSnapshot {
        ndjson,
        backwards,
        status,
        text,
        found,
        line,
        stream,
        resumed,
    }
}

/// The events of an ended run, from its stream.
async fn frames(stack: &Stack, run: Uuid, after: Option<&str>) -> Vec<(String, String, EventId)> {
    let mut stream = stack.api().watch(run, after).await;
    let frames = stream.read_until("end").await;
    let events = frames
        .into_iter()
        .filter(|frame| !frame.is_connection_notice());
    events
        .map(|frame| (frame.event, frame.data, frame.id))
        .collect()
}

/// Waits until a run is archived and its rows are deleted.
pub(crate) async fn wait_archived(stack: &Stack, objects: i64) {
    for count in [KEPT_QUERY, ROWS_DELETED_QUERY] {
        eventually_within(AFTER_FAILURES, count, async || {
            let number = stack.database.query_number(count).await;
            (number == objects).then_some(()).ok_or(format!("{number}"))
        })
        .await;
    }
}

/// The files below a folder.
fn files(folder: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// Diverse output: many lines, NUL, invalid UTF-8, a line of 1 MiB, an empty line.
const DIVERSE_OUTPUT: &str = r"seq 1 3000; printf 'nul \000 and \377\376 \n'; head -c 1048576 /dev/zero | tr '\0' x; echo;
    head -c 1048576 /dev/urandom; echo; echo; echo last >&2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_run_reads_byte_for_byte_the_same() {
    let (mut stack, folder) = with_folder().await;
    let run = sealed_run(&mut stack, DIVERSE_OUTPUT).await;
    let stored = stack.database.events(run).await;
    assert!(
        text(&stored, Kind::Output).len() > 2 * 1024 * 1024
            && stored.len() > 2 * 1024 * 1024 / MAX_CHUNK_BYTES
    );
    let before = snapshot(&stack, run).await;
    assert!(
        before.found.contains("1999") && before.found.contains("999"),
        "{}",
        before.found
    );
    let young = stack.api().create_run("young").await.id;
    let mut wrap = stack.wrap(young, &["echo", "here"]);
    wrap.wait_exit(WAIT_DEADLINE).await;
    stack.database.wait_sealed(young).await;
    let keep =
        format!("UPDATE runs SET sealed_at = now() + interval '1 hour' WHERE id = '{young}'");
    stack.database.execute(&keep).await;

    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 1).await;
    assert_eq!(stack.database.events(run).await, [], "its rows are deleted");
    assert!(
        !stack.database.events(young).await.is_empty(),
        "other rows remain"
    );
    let described = stack.api().run(run).await;
    assert!(described["archived_at"].is_string(), "{described}");
    assert!(stack.api().run(young).await["archived_at"].is_null());

    assert_eq!(snapshot(&stack, run).await, before);
    // A gateway with an empty cache, and the agent's own viewer.
    stack.stop(Service::Gateway).await;
    stack.start_service(Service::Gateway).await;
    assert_eq!(snapshot(&stack, run).await, before);
    let mut tail = stack.runcast(&["tail", &run.to_string()], &[]);
    assert!(
        tail.wait_exit(WAIT_DEADLINE).await.success(),
        "{}",
        tail.logs()
    );
    assert!(tail.logs().contains("last"), "{}", tail.logs());

    // The object is self-describing.
    let [object] = &files(&folder)[..] else {
        panic!("one object: {:?}", files(&folder))
    };
    let unpacked = std::process::Command::new("zstd")
        .arg("-dcq")
        .arg(object)
        .output();
    if let Ok(unpacked) = unpacked {
        assert_eq!(unpacked.stdout, before.ndjson.as_bytes());
    }
    assert!(stack.check().await.contains("ok  RUNCAST_ARCHIVE"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continued_archived_run_reads_without_gap() {
    let (mut stack, _folder) = with_folder().await;
    let run = sealed_run(&mut stack, "seq 1 500").await;
    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 1).await;
    stack.stop(Service::Worker).await;
    // A later attempt: its events are rows that follow those in the archive.
    let mut wrap = stack.wrap(run, &["seq", "501", "700"]);
    wrap.wait_exit(WAIT_DEADLINE).await;
    eventually("the run is sealed again", async || {
        let state = stack.database.run(run).await;
        let whole = state.sealed && state.events > 701;
        whole.then_some(()).ok_or(format!("{state:?}"))
    })
    .await;
    make_old(&stack, run).await;
    let joined = snapshot(&stack, run).await;
    assert!(
        joined.ndjson.contains("\"500\\n") && joined.ndjson.contains("\"700\\n"),
        "both parts"
    );
    // Pages announce the new epoch as well.
    let published = |event: &&String| event.contains(r#""producer":"#);
    let backwards = joined.backwards.iter().filter(published).count();
    assert_eq!(joined.stream.len(), backwards);

    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 2).await;
    assert_eq!(stack.database.query_number(ROWS_QUERY).await, 0);
    assert_eq!(snapshot(&stack, run).await, joined);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_killed_before_commit_leaves_the_rows() {
    let (mut stack, folder) = with_folder().await;
    let run = sealed_run(&mut stack, "seq 1 2000").await;
    let (rows, before) = (
        stack.database.events(run).await,
        snapshot(&stack, run).await,
    );
    // The object is written, read back and compared.
    let point = "UPDATE ON archives FOR EACH ROW";
    let barrier = stack
        .database
        .barrier("keeping", point, "NEW.state = 'kept'")
        .await;
    stack.start_service(Service::Worker).await;
    barrier.wait_reached().await;
    let [half] = &files(&folder)[..] else {
        panic!("one object")
    };
    stack.kill(Service::Worker);
    barrier.terminate_waiters().await;
    assert_eq!(stack.database.events(run).await, rows);
    assert_eq!(stack.database.query_number(KEPT_QUERY).await, 0);
    assert_eq!(snapshot(&stack, run).await, before);

    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 1).await;
    assert_eq!(snapshot(&stack, run).await, before);
    // What the dead worker left is known, and removed at the next attempt.
    let left = "SELECT count(*) FROM archives WHERE state = 'leaving'";
    assert_eq!(stack.database.query_number(left).await, 1);
    stack.stop(Service::Worker).await;
    stack.start_service(Service::Worker).await;
    eventually("the object of the dead attempt is gone", async || {
        (!half.exists())
            .then_some(())
            .ok_or(format!("{half:?} is there"))
    })
    .await;
    assert_eq!(snapshot(&stack, run).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_killed_while_deleting_rows_leaves_run_readable() {
    let (mut stack, _folder) = with_folder().await;
    let run = sealed_run(&mut stack, "seq 1 2000").await;
    let before = snapshot(&stack, run).await;
    let barrier = stack
        .database
        .barrier(
            "dropping",
            "DELETE ON events FOR EACH ROW",
            "OLD.seq = 1000",
        )
        .await;
    stack.start_service(Service::Worker).await;
    barrier.wait_reached().await;
    assert_eq!(
        snapshot(&stack, run).await,
        before,
        "while rows are deleted"
    );
    stack.kill(Service::Worker);
    barrier.terminate_waiters().await;
    assert_eq!(snapshot(&stack, run).await, before, "after its death");
    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 1).await;
    assert_eq!(stack.database.query_number(ROWS_QUERY).await, 0);
    assert_eq!(snapshot(&stack, run).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_object_is_detected_before_rows_are_deleted() {
    let (mut stack, folder) = with_folder().await;
    let run = sealed_run(&mut stack, "seq 1 2000").await;
    let (rows, before) = (
        stack.database.events(run).await,
        snapshot(&stack, run).await,
    );
    // One barrier per attempt: the object is complete, but not compared yet.
    let point = "UPDATE ON archives FOR EACH ROW";
    let attempt = |number: u8| {
        format!(
            "NEW.state = 'writing' AND NEW.written_at IS DISTINCT FROM OLD.written_at AND (SELECT count(*) FROM archives) = {number}"
        )
    };
    let first = stack.database.barrier("first", point, &attempt(1)).await;
    let second = stack.database.barrier("second", point, &attempt(2)).await;
    stack.start_service(Service::Worker).await;
    for (barrier, damage) in [(first, flip_a_bit as fn(&PathBuf)), (second, cut_short)] {
        barrier.wait_reached().await;
        files(&folder).iter().for_each(damage);
        assert_eq!(stack.database.query_number(KEPT_QUERY).await, 0);
        assert_eq!(stack.database.events(run).await, rows);
        barrier.release().await;
        let received = "SELECT count(*) FROM tasks.jobs WHERE task_identifier = 'archive_run'
                        AND last_error LIKE '%was written and is damaged%'";
        stack.database.wait_for_number(received, 1).await;
    }
    wait_archived(&stack, 1).await;
    assert_eq!(snapshot(&stack, run).await, before);
}

fn flip_a_bit(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("an object");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}

fn cut_short(path: &PathBuf) {
    let bytes = fs::read(path).expect("an object");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_told_of_damaged_and_missing_objects() {
    let (mut stack, folder) = with_folder().await;
    let run = sealed_run(&mut stack, "seq 1 2000").await;
    let before = snapshot(&stack, run).await;
    stack.start_service(Service::Worker).await;
    wait_archived(&stack, 1).await;
    // The gateway still caches what it has returned before.
    stack.stop(Service::Gateway).await;
    stack.start_service(Service::Gateway).await;
    let away = stack.folder().join("away");
    fs::rename(&folder, &away).expect("the archive is unreachable");
    let path = format!("/v1/runs/{run}/events");
    let requested = send(stack.api().request(Method::GET, &path)).await;
    let detail = problem(requested, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(detail.contains("the archive at file://"), "{detail}");
    let mut stream = stack.api().watch(run, None).await;
    let degraded = stream.next().await;
    assert_eq!(
        (degraded.event.as_str(), &degraded.json()["what"]),
        ("degraded", &Value::from("archive"))
    );
    fs::rename(&away, &folder).expect("the archive is reachable again");
    let frames = stream.read_until("end").await;
    assert_eq!(
        frames
            .iter()
            .filter(|frame| !frame.is_connection_notice())
            .count(),
        before.stream.len()
    );

    // A new gateway has cached nothing of it.
    stack.stop(Service::Gateway).await;
    stack.start_service(Service::Gateway).await;
    files(&folder).iter().for_each(flip_a_bit);
    let requested = send(stack.api().request(Method::GET, &path)).await;
    let detail = problem(requested, StatusCode::INTERNAL_SERVER_ERROR).await;
    assert!(
        detail.contains("damaged") && detail.contains(&run.to_string()),
        "{detail}"
    );
    let mut stream = stack.api().watch(run, None).await;
    assert!(stream.next().await.data.contains("damaged"));

    // A gateway without an archive configured.
    stack.stop(Service::Gateway).await;
    stack.unset(Service::Gateway, "RUNCAST_ARCHIVE");
    stack.start_service(Service::Gateway).await;
    let requested = send(stack.api().request(Method::GET, &path)).await;
    let detail = problem(requested, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(detail.contains("RUNCAST_ARCHIVE"), "{detail}");
    assert!(stack.check().await.contains("RUNCAST_ARCHIVE"));
}
