//! Background work: the lease, jobs, retention, orphaned keys.

use std::time::Duration;

use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use runcast_common::connect::Redis;
use runcast_common::presence::liveness::{self, LivenessThresholds};
use runcast_tests::api::{problem, send};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually_within};
use runcast_tests::process::{Process, ProcessSpec};
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use uuid::Uuid;

/// More than the time until the jobs of a dead worker are reassigned.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(90);

/// What a worker logs when it acquires the lease.
const LEASE_LOG_LINE: &str = "this worker watches agents now";

/// A worker beside the stack's own.
fn another_worker(stack: &Stack) -> Process {
    let spec = ProcessSpec {
        name: "worker-2".to_owned(),
        ..stack.service_spec(Service::Worker)
    };
    spec.start(stack.folder())
}

async fn logs(process: &Process, words: &str) {
    let what = format!("{} logs {words:?}", process.name());
    eventually_within(WAIT_DEADLINE, &what, async || {
        let logs = process.logs();
        logs.contains(words).then_some(()).ok_or(logs)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_worker_takes_over_from_a_killed_one() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Worker).await;
    let token = "SELECT coalesce(max(token), 0) FROM leases WHERE name = 'worker'";
    stack.database.wait_for_number(token, 1).await;
    let mut other = another_worker(&stack);
    other
        .wait_for_line("Runcast worker is ready", WAIT_DEADLINE)
        .await;
    stack.kill(Service::Worker);
    logs(&other, LEASE_LOG_LINE).await;
    assert_eq!(stack.database.query_number(token).await, 2);
    other.signal(Signal::SIGTERM);
    assert!(other.wait_exit(WAIT_DEADLINE).await.success());
    let contained = "SELECT count(*) FROM leases WHERE name = 'worker' AND expires_at > now()";
    assert_eq!(stack.database.query_number(contained).await, 0, "released");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_worker_detects_its_lost_lease() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Worker).await;
    let token = "SELECT coalesce(max(token), 0) FROM leases WHERE name = 'worker'";
    stack.database.wait_for_number(token, 1).await;
    let mut paused = another_worker(&stack);
    paused
        .wait_for_line("Runcast worker is ready", WAIT_DEADLINE)
        .await;
    stack.stop(Service::Worker).await;
    logs(&paused, LEASE_LOG_LINE).await;
    paused.signal(Signal::SIGSTOP);
    stack.start_service(Service::Worker).await;
    stack.database.wait_for_number(token, 3).await;
    paused.signal(Signal::SIGCONT);
    // It notices at its next renewal, by the transaction in which it was paused, or because a wait
    // has expired. Then it restarts its work without the lease.
    let what = "the paused worker detects that it lost the lease";
    eventually_within(WAIT_DEADLINE, what, async || {
        let logs = paused.logs();
        let received = [
            "another worker watches agents now",
            "has passed to another",
            "watching agents failed",
        ];
        received
            .iter()
            .any(|words| logs.contains(words))
            .then_some(())
            .ok_or(logs)
    })
    .await;
    assert_eq!(stack.database.query_number(token).await, 3);
    paused.signal(Signal::SIGTERM);
    assert!(paused.wait_exit(WAIT_DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_fencing_token_changes_nothing() {
    let mut stack = Stack::without_services().await;
    // A worker that takes the lease loses it before it can act, as if it had been paused in
    // between.
    stack
        .database
        .execute(
            "CREATE FUNCTION steal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 UPDATE leases SET token = token + 1, holder = gen_random_uuid();
                 RETURN NULL;
             END $$;
             CREATE TRIGGER steal AFTER INSERT ON leases FOR EACH ROW EXECUTE FUNCTION steal();",
        )
        .await;
    stack.start_service(Service::Worker).await;
    let stolen = "SELECT count(*) FROM leases WHERE token = 2";
    stack.database.wait_for_number(stolen, 1).await;
    stack.stop(Service::Worker).await;
    let jobs = "SELECT count(*) FROM tasks.jobs";
    assert_eq!(
        stack.database.query_number(jobs).await,
        0,
        "nothing was scheduled"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_job_is_retried() {
    let mut stack = Stack::without_services().await;
    stack
        .database
        .execute("ALTER FUNCTION make_events_partition(date) RENAME TO broken")
        .await;
    stack.start_service(Service::Worker).await;
    let failed = "SELECT count(*) FROM tasks.jobs WHERE task_identifier = 'partitions'
                     AND attempts > 0 AND last_error LIKE '%make_events_partition%'";
    stack.database.wait_for_number(failed, 1).await;
    stack
        .database
        .execute("ALTER FUNCTION broken(date) RENAME TO make_events_partition")
        .await;
    let left = "SELECT count(*) FROM tasks.jobs";
    stack.database.wait_for_number(left, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_lists_jobs_and_restarts_a_dead_one() {
    let mut stack = Stack::without_services().await;
    stack
        .database
        .execute("ALTER FUNCTION make_events_partition(date) RENAME TO broken")
        .await;
    stack.start_service(Service::Gateway).await;
    stack.start_service(Service::Worker).await;
    let failed = "SELECT count(*) FROM tasks.jobs
                   WHERE task_identifier = 'partitions' AND attempts > 0 AND locked_at IS NULL";
    stack.database.wait_for_number(failed, 1).await;
    // As after the last attempt, some minutes later.
    let die = "UPDATE tasks._private_jobs SET attempts = max_attempts WHERE key = 'partitions' AND locked_at IS NULL";
    let dead =
        "SELECT count(*) FROM tasks.jobs WHERE attempts >= max_attempts AND locked_at IS NULL";
    eventually_within(WAIT_DEADLINE, "the job is dead", async || {
        stack.database.execute(die).await;
        let count = stack.database.query_number(dead).await;
        (count == 1).then_some(()).ok_or("it still runs".to_owned())
    })
    .await;
    let jobs = stack.api().get("/v1/jobs").await;
    let [job] = &jobs["dead"].as_array().expect("a list")[..] else {
        panic!("one dead job: {jobs}")
    };
    assert_eq!(job["kind"], "partitions");
    let error = job["last_error"].as_str().expect("words");
    assert!(error.contains("make_events_partition"), "{error}");
    assert_eq!(jobs["leases"][0]["held"], true, "{jobs}");
    let kind = |jobs: &Value, name: &str| {
        let kinds = jobs["kinds"].as_array().expect("a list");
        let found = kinds.iter().find(|kind| kind["kind"] == name);
        found.unwrap_or_else(|| panic!("{name}: {jobs}")).clone()
    };
    assert_eq!(kind(&jobs, "partitions")["dead"], 1);
    assert!(
        kind(&jobs, "retention")["next_run_at"].is_string(),
        "{jobs}"
    );
    let mut table = stack.operator_spec(&["jobs"]).start(stack.folder());
    assert!(table.wait_exit(WAIT_DEADLINE).await.success());
    let output = String::from_utf8(table.stdout()).expect("text");
    assert!(
        output.contains("DEAD JOB") && output.contains("make_events_partition"),
        "{output}"
    );

    // Only administrators may.
    let run = stack.api().create_run("agent").await;
    let theirs = stack.api().anonymous(reqwest::Method::GET, "/v1/jobs");
    let refused = send(theirs.bearer_auth(&run.token)).await;
    problem(refused, reqwest::StatusCode::FORBIDDEN).await;

    let repair = "ALTER FUNCTION broken(date) RENAME TO make_events_partition";
    stack.database.execute(repair).await;
    let post = |path: String| stack.api().request(reqwest::Method::POST, &path);
    let retried = send(post(format!("/v1/jobs/{}/retry", job["id"]))).await;
    assert_eq!(retried.status(), reqwest::StatusCode::NO_CONTENT);
    stack
        .database
        .wait_for_number("SELECT count(*) FROM tasks.jobs", 0)
        .await;
    let jobs = stack.api().get("/v1/jobs").await;
    let done = kind(&jobs, "partitions");
    assert!(
        done["last_run_at"].is_string() && done["last_run_error"].is_null(),
        "{done}"
    );
    let again = send(post(format!("/v1/jobs/{}/retry", job["id"]))).await;
    problem(again, reqwest::StatusCode::NOT_FOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_job_is_reassigned() {
    let mut stack = Stack::without_services().await;
    let partitions = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION make_events_partition(day date) RETURNS boolean LANGUAGE sql
                 AS $$ {body} $$"
        )
    };
    let slow = partitions("SELECT pg_sleep(20) IS NULL");
    stack.database.execute(&slow).await;
    stack.start_service(Service::Worker).await;
    let begun = "SELECT count(*) FROM tasks.jobs
                  WHERE task_identifier = 'partitions' AND locked_by IS NOT NULL";
    stack.database.wait_for_number(begun, 1).await;
    stack.kill(Service::Worker);
    stack.database.execute(&partitions("SELECT false")).await;
    let mut other = another_worker(&stack);
    eventually_within(RECOVERY_DEADLINE, "all jobs are done", async || {
        let left = stack
            .database
            .query_number("SELECT count(*) FROM tasks.jobs")
            .await;
        (left == 0).then_some(()).ok_or(format!("{left} remain"))
    })
    .await;
    other.signal(Signal::SIGTERM);
    assert!(other.wait_exit(WAIT_DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_days_are_deleted() {
    let mut stack = Stack::without_services().await;
    // A day with a run, one that was removed by half, and one with a live run.
    stack
        .database
        .execute(
            "SELECT make_events_partition(day) FROM unnest('{2020-01-03,2020-01-05,2020-01-07}'::date[]) AS day;
             ALTER TABLE events DETACH PARTITION events_20200103;
             INSERT INTO runs (id, name, created_by)
                 SELECT uuid_v7_floor((day || ' 10:00+00')::timestamptz), day, 'story'
                   FROM unnest('{2020-01-05,2020-01-07}'::text[]) AS day;
             INSERT INTO variations (run_id, variation) SELECT id, 0 FROM runs;
             INSERT INTO agents (agent, run_id, variation, host, pid, version, started_at, health)
                 SELECT gen_random_uuid(), id, 0, 'host', 1, '0', now(), 'alive' FROM runs WHERE name = '2020-01-07';
             INSERT INTO events SELECT id, 1, 1, id, 1, 0, 0, NULL, now(), now(), 'x' FROM runs;
             INSERT INTO dead_letters (run_id, epoch, seq, reason, body) SELECT id, 1, 1, 'story', 'x' FROM runs;",
        )
        .await;
    let today = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    let before = stack.database.query_number(today).await;
    stack.set(Service::Worker, "RUNCAST_RETENTION", "30d");
    stack.start_service(Service::Worker).await;
    let jobs = "SELECT count(*) FROM tasks.jobs";
    let gone =
        "SELECT count(*) FROM pg_class WHERE relname IN ('events_20200103', 'events_20200105')";
    stack.database.wait_for_number(gone, 0).await;
    stack.database.wait_for_number(jobs, 0).await;
    assert_eq!(stack.database.query_number(today).await, before - 1);
    for table in ["runs", "events", "dead_letters", "variations"] {
        let count = format!("SELECT count(*) FROM {table}");
        let left = stack.database.query_number(&count).await;
        assert_eq!(left, 1, "only live runs remain in {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_entries_are_deleted_after_a_year() {
    let mut stack = Stack::without_services().await;
    // Several batches beside younger entries; some of those have the smallest ids.
    let entries = |name: &str, days: u32, count: u32| {
        format!(
            "INSERT INTO audit_log (at, actor_name, action)
                SELECT now() - interval '{days} days', '{name}', 'story' FROM generate_series(1, {count});"
        )
    };
    let all = [("young", 360, 5), ("old", 370, 2500), ("young", 1, 5)];
    let all = all.map(|(name, days, count)| entries(name, days, count));
    stack.database.execute(&all.concat()).await;
    let left = |name: &str| format!("SELECT count(*) FROM audit_log WHERE actor_name = '{name}'");
    let jobs = "SELECT count(*) FROM tasks.jobs";
    stack.start_service(Service::Worker).await;
    stack.database.wait_for_number(&left("old"), 0).await;
    stack.database.wait_for_number(jobs, 0).await;
    assert_eq!(stack.database.query_number(&left("young")).await, 10);
}

/// Makes a key look unused for two hours.
async fn age(redis: &mut MultiplexedConnection, key: &str) {
    let mut dump = redis::cmd("DUMP");
    let value: Vec<u8> = dump.arg(key).query_async(redis).await.expect("a key");
    let mut restore = redis::cmd("RESTORE");
    restore.arg(key).arg(0).arg(value);
    restore.arg("REPLACE").arg("IDLETIME").arg(7200);
    restore.exec_async(redis).await.expect("restored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaned_keys_are_deleted() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    let live = stack.api().create_run("live").await.id;
    // One id of 2020, one of today.
    let old =
        |last: u8| Uuid::from_u128(0x016f_75c6_2c00_7000_8000_0000_0000_0000 + u128::from(last));
    let (unused, used, young) = (old(1), old(2), Uuid::now_v7());
    let mut redis = stack.redis.connection().await;
    for run in [live, unused, used, young] {
        let keys = stack.keys().run(run);
        let mut add = redis::cmd("XADD");
        add.arg(&keys.stream).arg("1-1").arg("b").arg("x");
        add.exec_async(&mut redis).await.expect("an entry");
        let mut set = redis::cmd("HSET");
        set.arg(&keys.meta).arg("epoch").arg(1).arg("seq").arg(1);
        set.exec_async(&mut redis).await.expect("a field");
        if run != used {
            age(&mut redis, &keys.stream).await;
            age(&mut redis, &keys.meta).await;
        }
    }
    let (agent, beating) = (stack.keys().agent(old(3)), stack.keys().agent(old(4)));
    // In the places of a run's and an agent's key, without an id.
    let stream = stack.keys().run(live).stream;
    let invalid = [
        stream.replace(&live.to_string(), "nonsense"),
        agent.replace(&old(3).to_string(), "nonsense"),
    ];
    for key in [&agent, &beating, &invalid[0], &invalid[1]] {
        let mut set = redis::cmd("HSET");
        set.arg(key).arg("run").arg(live.to_string());
        set.exec_async(&mut redis).await.expect("a field");
        age(&mut redis, key).await;
    }
    let mut expire = redis::cmd("EXPIRE");
    let expire = expire.arg(&beating).arg(300);
    expire.exec_async(&mut redis).await.expect("a life");
    stack.start_service(Service::Worker).await;
    let mut there = async |key: &str| -> bool {
        let mut exists = redis::cmd("EXISTS");
        exists
            .arg(key)
            .query_async(&mut redis)
            .await
            .expect("a response")
    };
    eventually_within(WAIT_DEADLINE, "the old keys are deleted", async || {
        let left = there(&stack.keys().run(unused).stream).await;
        (!left).then_some(()).ok_or("a stream remains".to_owned())
    })
    .await;
    let jobs = "SELECT count(*) FROM tasks.jobs";
    stack.database.wait_for_number(jobs, 0).await;
    for (run, stays) in [(live, true), (unused, false), (used, true), (young, true)] {
        let keys = stack.keys().run(run);
        assert_eq!(there(&keys.stream).await, stays, "stream of {run}");
        assert_eq!(there(&keys.meta).await, stays, "meta of {run}");
    }
    assert!(there(&beating).await);
    for key in [&agent, &invalid[0], &invalid[1]] {
        assert!(!there(key).await, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_counts_only_while_watched() {
    let stack = Stack::without_services().await;
    let url = stack.redis.url(stack.redis.port()).parse().expect("a URL");
    let shared = Redis::new(&url).expect("a Redis");
    let keys = stack.keys().heartbeat_keys(0);
    let agent = Uuid::now_v7();
    let now = liveness::find_silent(&shared, &keys, &LivenessThresholds::default())
        .await
        .expect("a look")
        .now;
    let ago = |seconds: u64| now - seconds * 1000;
    liveness::assume_alive(&shared, &keys, &[agent], ago(40))
        .await
        .expect("an agent");
    let lookup = async |since: u64, last: u64| {
        let mut redis = stack.redis.connection().await;
        let mut set = redis::cmd("HSET");
        set.arg(&keys.watch);
        set.arg("since").arg(since).arg("last").arg(last);
        set.exec_async(&mut redis).await.expect("a field");
        liveness::find_silent(&shared, &keys, &LivenessThresholds::default())
            .await
            .expect("a look")
            .silent
    };
    assert_eq!(lookup(ago(20), ago(3)).await, [], "not watched for long");
    assert_eq!(lookup(ago(90), ago(25)).await, [], "after an outage");
    let silent = lookup(ago(90), ago(3)).await;
    assert_eq!(silent, [(agent, ago(40))]);
    // It sent a heartbeat in the meantime, so it stays.
    liveness::remove_unchanged(&shared, &keys.last_heartbeats, &[(agent, ago(39))])
        .await
        .expect("a response");
    assert_eq!(lookup(ago(90), ago(3)).await, silent);
    liveness::remove_unchanged(&shared, &keys.last_heartbeats, &silent)
        .await
        .expect("a response");
    assert_eq!(lookup(ago(90), ago(3)).await, []);
}
