//! Redis Cluster: runs are spread over all nodes, nodes die, and slots migrate.

use std::collections::HashSet;

use runcast_common::protocol::event::Kind;
use runcast_common::protocol::keys::Keys;
use runcast_tests::database::text;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::{Process, shell_exit_code};
use runcast_tests::redis_cluster::{MASTER_COUNT, RedisCluster};
use runcast_tests::redis_node::RedisDeployment;
use runcast_tests::stack::Stack;
use uuid::Uuid;

use crate::crashes::ticking;
use crate::viewer::{Viewer, assert_text, numbers};

async fn start(with_tls: bool) -> (Stack, RedisCluster) {
    let mut stack = Stack::without_services().await;
    let deployment = RedisDeployment::new(stack.folder(), with_tls);
    let redis = RedisCluster::start(deployment).await;
    stack.use_redis(redis.urls(), redis.deployment.ca().as_deref());
    stack.start_all().await;
    (stack, redis)
}

fn node_of(run: Uuid) -> usize {
    RedisCluster::master_of(Keys::slot(Keys::partition(run)))
}

/// A run whose slot is on this node.
async fn run_on(stack: &Stack, node: usize) -> Uuid {
    let api = stack.api();
    eventually("a run on a certain node", async || {
        let run = api.create_run("somewhere").await.id;
        if node_of(run) == node {
            Ok(run)
        } else {
            Err(format!("node {}", node_of(run)))
        }
    })
    .await
}

/// Checks that everything was published, stored once, and received.
async fn assert_whole(
    stack: &Stack,
    run: Uuid,
    wrap: &mut Process,
    viewer: Viewer,
    ticks: u32,
) -> Viewer {
    assert_eq!(
        shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        wrap.logs()
    );
    let output = numbers("tick", 1..=ticks.into());
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    let viewer = viewer.until_the_end().await;
    assert_text(&viewer.text("output"), &output);
    viewer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_spread_over_all_nodes() {
    const TICK_COUNT: u32 = 20;
    let (mut stack, redis) = start(true).await;
    let mut runs = Vec::new();
    for node in 0..MASTER_COUNT {
        runs.push(run_on(&stack, node).await);
    }
    while runs.len() < 20 {
        runs.push(stack.api().create_run("anywhere").await.id);
    }
    let command = ticking(TICK_COUNT, "0.05");
    let command = command.each_ref().map(String::as_str);
    let playing: Vec<_> = runs
        .iter()
        .map(|run| {
            let viewer = tokio::spawn(Viewer::new(stack.api(), *run).until_the_end());
            (*run, stack.wrap(*run, &command), viewer)
        })
        .collect();
    for (run, mut wrap, viewer) in playing {
        let viewer = viewer.await.expect("the viewer's task");
        let viewer = assert_whole(&stack, run, &mut wrap, viewer, TICK_COUNT).await;
        assert_eq!(viewer.gaps, Vec::<String>::new());
    }
    assert_eq!(
        runs.iter()
            .map(|run| node_of(*run))
            .collect::<HashSet<_>>()
            .len(),
        MASTER_COUNT
    );
    redis.wait_ready_queue_empty(stack.keys()).await;

    // Redis does not list a replica before it has synced.
    eventually("all nodes are listed", async || {
        let output = stack.check().await;
        let is_whole = output.contains("(cluster: 3 masters and 1 replicas");
        if is_whole { Ok(()) } else { Err(output) }
    })
    .await;
    // Every node is checked: one that would evict unstored data is refused.
    let () = redis.nodes[MASTER_COUNT]
        .query(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    let output = stack.check().await;
    let port = redis.nodes[MASTER_COUNT].port().to_string();
    assert!(
        output.contains("REDIS_URL") && output.contains("noeviction") && output.contains(&port),
        "{output}"
    );

    // A cluster node configured as a standalone server is detected.
    stack.use_redis(
        redis.deployment.urls(&redis.nodes[1]),
        redis.deployment.ca().as_deref(),
    );
    let output = stack.check().await;
    assert!(
        output.contains("REDIS_URL") && output.contains("redis+cluster://"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_replaces_a_killed_node() {
    const TICK_COUNT: u32 = 250;
    let (mut stack, mut redis) = start(false).await;
    let command = ticking(TICK_COUNT, "0.02");
    let command = command.each_ref().map(String::as_str);
    let (here, cross_site) = (run_on(&stack, 0).await, run_on(&stack, 1).await);
    let mut wraps = [here, cross_site].map(|run| stack.wrap(run, &command));
    let viewers =
        [here, cross_site].map(|run| tokio::spawn(Viewer::new(stack.api(), run).until_the_end()));
    stack.database.wait_stored_events(here, 50).await;
    redis.nodes[0].kill();
    for ((run, wrap), viewer) in [here, cross_site].into_iter().zip(&mut wraps).zip(viewers) {
        let viewer = viewer.await.expect("the viewer's task");
        let viewer = assert_whole(&stack, run, wrap, viewer, TICK_COUNT).await;
        let may_miss = run == here;
        let is_told = |reason: &String| may_miss && reason == "reborn";
        assert!(viewer.gaps.iter().all(is_told), "{:?}", viewer.gaps);
    }
    let info: String = redis.nodes[MASTER_COUNT]
        .query(&["INFO", "replication"])
        .await;
    assert!(info.contains("role:master"), "{info}");
    redis
        .wait_for_subscriber(MASTER_COUNT, &stack.keys().run(here).wakeups)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_migration_neither_loses_nor_duplicates_events() {
    const TICK_COUNT: u32 = 300;
    let (mut stack, redis) = start(false).await;
    let command = ticking(TICK_COUNT, "0.02");
    let command = command.each_ref().map(String::as_str);
    let run = run_on(&stack, 0).await;
    let keys = stack.keys().run(run);
    let mut wrap = stack.wrap(run, &command);
    let viewer = tokio::spawn(Viewer::new(stack.api(), run).until_the_end());
    stack.database.wait_stored_events(run, 50).await;

    // All masters know the user of the run; a new one does not.
    for node in &redis.nodes[..MASTER_COUNT] {
        let users: Vec<String> = node.query(&["ACL", "USERS"]).await;
        assert!(
            users.iter().any(|name| name.contains("publisher-")),
            "{users:?}"
        );
    }
    let users: Vec<String> = redis.nodes[2].query(&["ACL", "USERS"]).await;
    let of_runs = users.iter().filter(|name| name.contains("publisher-"));
    let forget: Vec<&str> = ["ACL", "DELUSER"]
        .into_iter()
        .chain(of_runs.map(String::as_str))
        .collect();
    let () = redis.nodes[2].query(&forget).await;

    // The keys of the run are spread over both nodes for a while; neither then runs scripts on
    // them.
    redis.begin_migration(keys.slot, 0, 2).await;
    redis.migrate_key(&keys.meta, 0, 2).await;
    let refused = redis.migration_errors(0).await;
    redis.wait_migration_errors(0, refused + 2).await;
    redis.migrate_key(&keys.stream, 0, 2).await;
    redis.wait_migration_errors(0, refused + 4).await;
    redis.finish_migration(keys.slot, 0, 2).await;

    redis.wait_for_subscriber(2, &keys.wakeups).await;
    let viewer = viewer.await.expect("the viewer's task");
    let viewer = assert_whole(&stack, run, &mut wrap, viewer, TICK_COUNT).await;
    assert_eq!(viewer.gaps, Vec::<String>::new());
    assert_eq!(
        viewer.repeated, 0,
        "nothing was lost, so there are no duplicates"
    );
    let length: u64 = redis.nodes[2].query(&["XLEN", &keys.stream]).await;
    assert!(length > 0, "the run is on its new node");
}
