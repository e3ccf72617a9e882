//! A publisher that talks to Redis with a client of its own, by the user that the gateway has given
//! it: it reaches nothing but its own run, and its user ends with its token.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use reqwest::{Method, StatusCode};
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::run_users::RunUser;
use runcast_common::scripts::{Append, AppendAs, Cap};
use runcast_tests::api::{Api, CreatedRun, problem, send};
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, within};
use runcast_tests::process::shell_exit_code;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::fixtures::assert_calm;
use super::hostile_publisher::{Witness, command, log_lines};

/// Scripts of the services, which Redis holds by their SHA-1.
const SCRIPTS: [(&str, &str); 12] = [
    (
        "settle",
        include_str!("../../../common/src/scripts/settle.lua"),
    ),
    (
        "rebirth",
        include_str!("../../../common/src/scripts/rebirth.lua"),
    ),
    (
        "repair",
        include_str!("../../../common/src/scripts/repair.lua"),
    ),
    ("read", include_str!("../../../common/src/scripts/read.lua")),
    (
        "delete_run",
        include_str!("../../../common/src/scripts/delete_run.lua"),
    ),
    (
        "check_ready",
        include_str!("../../../common/src/scripts/check_ready.lua"),
    ),
    (
        "enqueue",
        include_str!("../../../common/src/scripts/enqueue.lua"),
    ),
    (
        "due_users",
        include_str!("../../../common/src/scripts/due_users.lua"),
    ),
    (
        "heartbeat",
        include_str!("../../../common/src/scripts/heartbeat.lua"),
    ),
    (
        "find_silent",
        include_str!("../../../common/src/scripts/find_silent.lua"),
    ),
    (
        "list_producers",
        include_str!("../../../common/src/scripts/list_producers.lua"),
    ),
    (
        "rate_limit",
        include_str!("../../../common/src/scripts/rate_limit.lua"),
    ),
];

async fn try_command(
    redis: &mut MultiplexedConnection,
    words: &[&str],
) -> Result<Value, RedisError> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(redis).await
}

/// A run whose keys share a slot with those of another one.
async fn run_beside(stack: &Stack, partition: usize) -> CreatedRun {
    eventually("a run of the partition", async || {
        let run = stack.api().create_run("beside").await;
        let found = Keys::partition(run.id);
        (found == partition).then_some(run).ok_or(found.to_string())
    })
    .await
}

/// Commands on what is not of the own run, and those that no publisher needs.
fn foreign_commands(keys: &Keys, own: &RunKeys, other: &RunKeys) -> Vec<String> {
    let agent = Uuid::now_v7();
    let (about, pulse) = (keys.agent(agent), keys.heartbeat(agent));
    let (updates, access) = (keys.updates(), keys.access_changes());
    let RunKeys { stream, meta, .. } = other;
    let mut commands = vec![
        format!("XADD {stream} * a b"),
        format!("XADD {stream} MAXLEN 0 * a b"),
        format!("HSET {meta} seq 9007199254740993"),
        format!("HMGET {meta} seq"),
        format!("HDEL {meta} epoch seq"),
        format!("PERSIST {meta}"),
        format!("XLEN {stream}"),
        format!("SPUBLISH {} 9-9", other.wakeups),
        format!("XREAD STREAMS {} 0", other.control),
        format!("XDEL {} 1-1", other.control),
        format!("HSET {} run x", other.wake),
        format!("XADD {} * run x", own.ready),
        format!("XADD {} MAXLEN 0 * run x", own.ready),
        format!("ZADD {} 1 garbage", own.heartbeat_keys.last_heartbeats),
        format!("ZADD {} 1 garbage", own.heartbeat_keys.returned),
        format!("HSET {} since 1", own.heartbeat_keys.watch),
        format!("ZADD {} 0 garbage", own.users),
        format!("ZREM {} garbage", own.users),
        format!("HSET {about} run x"),
        format!("SET {pulse} x"),
        format!("PUBLISH {updates} x"),
        format!("PUBLISH {access} x"),
        format!("PUBLISH {} x", own.wakeups),
        format!("SPUBLISH {} x", own.heartbeats),
        format!("SPUBLISH {} x", own.updates),
        format!("SPUBLISH {} x", own.notices),
        format!("SSUBSCRIBE {}", own.wakeups),
        format!("PSUBSCRIBE {}*", keys.prefix()),
        format!("XRANGE {} - +", own.stream),
        format!("XREAD STREAMS {} 0", own.stream),
        format!("DEL {}", own.stream),
        format!("RESTORE {} 0 x", own.stream),
        format!("SET {} x", own.meta),
        format!("EXPIRE {} 1", own.meta),
        format!("XADD {} * id x", own.control),
        format!("MIGRATE 127.0.0.1 1 {} 0 1", own.stream),
    ];
    let administration = "KEYS *|SCAN 0|RANDOMKEY|DBSIZE|FLUSHALL|FLUSHDB|SWAPDB 0 1|SELECT 1|CONFIG GET *|\
        CONFIG SET maxmemory 1|SHUTDOWN NOSAVE|SAVE|BGREWRITEAOF|REPLICAOF NO ONE|FAILOVER|\
        CLIENT LIST|CLIENT KILL TYPE normal|CLIENT PAUSE 1000|CLIENT TRACKING ON BCAST|CLIENT NO-EVICT ON|\
        MONITOR|SYNC|PSYNC ? -1|ACL LIST|ACL USERS|ACL WHOAMI|ACL SETUSER x on|ACL DELUSER default|ACL LOG RESET|\
        SCRIPT LOAD x|SCRIPT FLUSH|SCRIPT KILL|SCRIPT EXISTS x|FUNCTION FLUSH|FUNCTION LOAD x|FCALL x 0|\
        LATENCY RESET|SLOWLOG GET|MEMORY PURGE|INFO|ROLE|LASTSAVE|CLUSTER RESET|CLUSTER MEET 127.0.0.1 1|\
        PUBSUB CHANNELS|WAIT 1 1000|OBJECT FREQ x|SORT x|BLPOP x 1|MULTI";
    commands.extend(administration.split('|').map(str::to_owned));
    commands
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_of_a_run_reaches_nothing_else() {
    let stack = Stack::start().await;
    let witness = Witness::start(&stack).await;
    let run = run_beside(&stack, witness.partition()).await;
    let (own, other) = (stack.keys().run(run.id), stack.keys().run(witness.run()));
    let mut redis = run.publisher_connection().await;
    for words in foreign_commands(stack.keys(), &own, &other) {
        let words: Vec<&str> = words.split(' ').collect();
        let refused = try_command(&mut redis, &words).await;
        let refused = refused.expect_err(&format!("{words:?}"));
        assert_eq!(refused.code(), Some("NOPERM"), "{words:?}: {refused}");
    }

    // Scripts: none of its own, and those of the services do nothing that it may not do itself.
    let eval = ["EVAL", "while true do end", "0"];
    let refused = try_command(&mut redis, &eval).await.expect_err("EVAL");
    assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    let mut admin = stack.redis.connection().await;
    let id = run.id.to_string();
    for (name, source) in SCRIPTS {
        let loaded = command(&mut admin, &["SCRIPT", "LOAD", source]).await;
        let hash: String = redis::from_redis_value(loaded).expect("a hash");
        let key_lists: [&[&str]; 3] = [
            &[&own.stream, &own.meta, &own.wakeups, &own.wake],
            &[
                &own.meta, &own.meta, &own.meta, &own.meta, &own.meta, &own.meta, &own.meta,
                &own.wake,
            ],
            &[&other.stream, &other.meta, &other.wakeups, &own.ready],
        ];
        for keys in key_lists {
            for argument in [id.as_str(), "1", "-9007199254740993", "1e308"] {
                let count = keys.len().to_string();
                let mut words = vec!["EVALSHA", &hash, &count];
                words.extend_from_slice(keys);
                words.extend([argument; 12]);
                // None of them runs for long.
                let done = within(WAIT_DEADLINE, name, try_command(&mut redis, &words)).await;
                if keys.contains(&other.stream.as_str()) {
                    let refused = done.expect_err(name);
                    assert_eq!(refused.code(), Some("NOPERM"), "{name}: {refused}");
                }
            }
        }
    }
    // Its own append script with keys of others.
    for (index, key) in [
        (3, &other.stream),
        (4, &other.meta),
        (5, &other.wakeups),
        (6, &own.ready),
    ] {
        let mut words = append_words(&run, &own);
        words[index] = key.clone();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let refused = try_command(&mut redis, &words).await.expect_err("refused");
        assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    }
    witness.assert_unharmed(&stack).await;
    assert_calm(&stack);
}

/// A call of the append script without an event, as words.
fn append_words(run: &CreatedRun, keys: &RunKeys) -> Vec<String> {
    let append = Append {
        producer: run.id,
        producer_epoch: 1,
        base: 0,
        acked: 0,
        first: 1,
        count: 0,
        body: Body::Plain(b""),
        cap: Cap::default(),
    };
    let command = append.command(keys, AppendAs::RunUser);
    let words = command.args_iter().map(|word| match word {
        redis::Arg::Simple(word) => String::from_utf8(word.to_vec()).expect("text"),
        _ => panic!("no cursor"),
    });
    words.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_and_garbage_of_a_run_harm_itself_alone() {
    let stack = Stack::start().await;
    let witness = Witness::start(&stack).await;
    let run = run_beside(&stack, witness.partition()).await;
    let own = stack.keys().run(run.id);
    let mut redis = run.publisher_connection().await;
    redis.set_response_timeout(WAIT_DEADLINE);
    let huge = "x".repeat(48 * 1024 * 1024);
    // Each of them would end a subscription of Redis, were it sent to it.
    for _ in 0..3 {
        command(&mut redis, &["HSET", &own.wake, "run", &huge]).await;
    }
    for words in [
        &["HSET", &own.meta, "dirty", &huge, "queued", &huge][..],
        &[
            "HSET",
            &own.meta,
            "epoch",
            "18446744073709551615",
            "seq",
            "9007199254740993",
        ],
        &[
            "XADD",
            &own.stream,
            "MAXLEN",
            "0",
            "18446744073709551615-9007199254740993",
            "a",
            "b",
        ],
        &["HSET", &own.wake, "run", "x"],
        &["HSET", &own.meta, "dirty", "1", "queued", "1"],
        &["HSET", &own.wake, "run", "y"],
    ] {
        command(&mut redis, words).await;
    }
    for _ in 0..100 {
        let mut flood = redis::pipe();
        for number in 0..1000 {
            let set = flood.cmd("HSET").arg(&own.wake).arg("run");
            set.arg(number).ignore();
        }
        let () = flood.exec_async(&mut redis).await.expect("a flood");
    }
    witness.assert_unharmed(&stack).await;
    let missed = log_lines(&stack, Service::Persister, "wake-ups of agents");
    assert_eq!(missed, 0, "the persister is not cut off");
    assert_calm(&stack);
}

/// The names of all Redis users.
async fn users(redis: &mut MultiplexedConnection) -> Vec<String> {
    let listed = command(redis, &["ACL", "USERS"]).await;
    redis::from_redis_value(listed).expect("names")
}

fn user_of(keys: &Keys, run: &CreatedRun) -> String {
    let user = RunUser::new(run.id, &Sha256::digest(&run.token).into());
    keys.user(user.run, user.token)
}

async fn wait_gone(redis: &mut MultiplexedConnection, name: &str, what: &str) {
    eventually(what, async || {
        let names = users(redis).await;
        let is_there = names.iter().any(|one| one == name);
        (!is_there).then_some(()).ok_or_else(|| names.join(" "))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_end_with_their_token_and_its_parent() {
    let stack = Stack::start().await;
    let (api, names) = (stack.api(), stack.keys());
    let mut admin = stack.redis.connection().await;

    // The token, or its parent, is revoked: the user is gone before the answer.
    let parent = json!({"name": "parent", "scopes": ["runs:publish", "runs:read"]});
    let made = send(api.request(Method::POST, "/v1/tokens").json(&parent)).await;
    let made: serde_json::Value = made.json().await.expect("JSON");
    let service = Api::new(api.base(), made["token"].as_str().expect("a token"));
    for path in [
        String::new(),
        format!("/v1/tokens/{}", made["id"].as_str().expect("an id")),
    ] {
        let run = service.create_run("revoked").await;
        let mut publisher = Publisher::new(run.publisher_connection().await, names, run.id);
        publisher.publish(&numbered_lines("line", 1..=2)).await;
        let path = match path.is_empty() {
            true => format!("/v1/tokens?run={}", run.id),
            false => path,
        };
        let revoked = send(api.request(Method::DELETE, &path)).await;
        assert!(
            revoked.status().is_success(),
            "{path}: {}",
            revoked.status()
        );
        let name = user_of(names, &run);
        assert!(!users(&mut admin).await.contains(&name), "{path}");
        let appended = publisher
            .publish_if_room(&numbered_lines("line", 3..=3))
            .await;
        appended.expect_err("its connection is closed");
        let again = redis::Client::open(run.redis_url.as_str()).expect("a URL");
        let refused = again.get_multiplexed_async_connection().await;
        refused.expect_err("it cannot sign in");
    }

    assert_calm(&stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_end_with_their_run_and_by_themselves() {
    let stack = Stack::start().await;
    let (api, names) = (stack.api(), stack.keys());
    let mut admin = stack.redis.connection().await;

    // The run is deleted.
    let run = api.create_run("deleted").await;
    let name = user_of(names, &run);
    assert!(users(&mut admin).await.contains(&name));
    let path = format!("/v1/runs/{}", run.id);
    let deleted = send(api.request(Method::DELETE, &path)).await;
    assert!(deleted.status().is_success(), "{}", deleted.status());
    wait_gone(&mut admin, &name, "the user of a deleted run is gone").await;

    // The run is sealed, and a token expires: a worker looks from time to time, here at once.
    let (sealed, expired) = (
        api.create_run("sealed").await,
        api.create_run("expired").await,
    );
    let open = api.create_run("open").await;
    for (run, change) in [
        (
            &sealed,
            "UPDATE runs SET ended_at = now(), sealed_at = now() - interval '1 min' WHERE id = ",
        ),
        (
            &expired,
            "UPDATE tokens SET renewed_at = now(), expires_at = now() WHERE run_id = ",
        ),
    ] {
        stack
            .database
            .execute(&format!("{change}'{}'", run.id))
            .await;
    }
    let renewed = "UPDATE tokens SET renewed_at = now() - interval '2 min' WHERE run_id = ";
    stack
        .database
        .execute(&format!("{renewed}'{}'", sealed.id))
        .await;
    for run in [&sealed, &expired, &open] {
        let run_keys = names.run(run.id);
        let member = user_of(names, run);
        command(&mut admin, &["ZADD", &run_keys.users, "XX", "0", &member]).await;
    }
    for run in [&sealed, &expired] {
        wait_gone(&mut admin, &user_of(names, run), "an ended user is gone").await;
    }
    assert!(users(&mut admin).await.contains(&user_of(names, &open)));
    assert_calm(&stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_without_a_token_are_swept() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    let run = stack.api().create_run("known").await;
    let mut admin = stack.redis.connection().await;
    let lost = stack.keys().user(Uuid::now_v7(), [0xab; 8]);
    for name in [lost.as_str(), "analytics", "publisher-other"] {
        command(&mut admin, &["ACL", "SETUSER", name, "on", ">x"]).await;
    }
    // The hourly jobs run when a worker starts.
    stack.start_service(Service::Worker).await;
    wait_gone(&mut admin, &lost, "the user of no token is gone").await;
    let mut names = users(&mut admin).await;
    names.sort();
    let known = user_of(stack.keys(), &run);
    let mut expected = vec!["default", "analytics", "publisher-other", &known];
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_manage_users_agents_get_no_address_of_redis() {
    let mut stack = Stack::without_services().await;
    let mut admin = stack.redis.connection().await;
    let service = [
        "ACL", "SETUSER", "service", "reset", "on", ">secret", "~*", "&*", "+@all", "-acl",
    ];
    command(&mut admin, &service).await;
    let url = format!("redis://service:secret@127.0.0.1:{}/0", stack.redis.port());
    for service in Service::ALL {
        stack.set(service, "REDIS_URL", url.clone());
    }
    stack.start_all().await;
    let run = stack.api().create_run("by the gateway").await;
    assert_eq!(run.redis_url, "");
    let settings = [("RUNCAST_TRANSPORT", "auto")];
    let mut wrap = stack.wrap_with(run.id, &["echo", "works"], &settings);
    let code = shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await);
    assert_eq!(code, 0, "{}", wrap.logs());
    stack.database.wait_sealed(run.id).await;
    let path = format!("/v1/tokens?run={}", run.id);
    let revoked = send(stack.api().request(Method::DELETE, &path)).await;
    assert!(revoked.status().is_success(), "{}", revoked.status());
    let answer = stack.api().anonymous(Method::GET, "/v1/session");
    problem(
        send(answer.bearer_auth(&run.token)).await,
        StatusCode::UNAUTHORIZED,
    )
    .await;
    let warned = log_lines(&stack, Service::Gateway, "may not manage users");
    assert_eq!(warned, 1, "{}", stack.logs(Service::Gateway));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_ups_that_no_persister_heard_are_found_again() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("unheard").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let last = publisher.publish(&numbered_lines("line", 1..=2)).await;
    stack.database.wait_stored(run.id, last).await;

    // No persister listens.
    stack.kill(Service::Persister);
    let last = publisher.publish(&numbered_lines("line", 3..=4)).await;
    stack.start_service(Service::Persister).await;
    stack.database.wait_stored(run.id, last).await;

    // The connection breaks at any moment. The publisher itself does not wake again.
    let mut admin = stack.redis.connection().await;
    for number in 5..=20 {
        for id in tracking_clients(&mut admin).await {
            // It may just have ended.
            let _killed = try_command(&mut admin, &["CLIENT", "KILL", "ID", &id]).await;
        }
        let last = publisher
            .publish(&numbered_lines("line", number..=number))
            .await;
        stack.database.wait_stored(run.id, last).await;
    }
}

/// The ids of the connections to which Redis reports changed keys.
async fn tracking_clients(redis: &mut MultiplexedConnection) -> Vec<String> {
    let listed = command(redis, &["CLIENT", "LIST"]).await;
    let listed: String = redis::from_redis_value(listed).expect("text");
    let tracking = listed.lines().filter(|line| {
        let flags = line
            .split(' ')
            .find_map(|field| field.strip_prefix("flags="));
        flags.is_some_and(|flags| flags.contains('B'))
    });
    let ids = tracking.filter_map(|line| line.split(' ').next()?.strip_prefix("id="));
    ids.map(str::to_owned).collect()
}
