//! The master of a Sentinel setup is killed in the middle of a run.

use runcast_common::protocol::event::Kind;
use runcast_tests::database::text;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::shell_exit_code;
use runcast_tests::redis_node::RedisDeployment;
use runcast_tests::redis_sentinel::RedisSentinels;
use runcast_tests::stack::{Service, Stack};

use crate::crashes::ticking;
use crate::viewer::{Viewer, assert_text, numbers};

async fn lose_the_master(with_tls: bool) {
    const TICK_COUNT: u32 = 250;
    let mut stack = Stack::without_services().await;
    let deployment = RedisDeployment::new(stack.folder(), with_tls);
    let mut redis = RedisSentinels::start(deployment).await;
    stack.use_redis(redis.urls(), redis.deployment.ca().as_deref());
    stack.start_all().await;
    let output = stack.check().await;
    assert!(
        output.contains("(Sentinel: a master and 1 replicas"),
        "{output}"
    );

    let run = stack.api().create_run("failed over").await.id;
    let command = ticking(TICK_COUNT, "0.02");
    let settings = [("RUNCAST_TRANSPORT", if with_tls { "redis" } else { "auto" })];
    let command = command.each_ref().map(String::as_str);
    let mut wrap = stack.wrap_with(run, &command, &settings);
    let viewer = tokio::spawn(Viewer::new(stack.api(), run).until_the_end());
    stack.database.wait_stored_events(run, 50).await;
    // The replica knows the user of the run already. If not, the agent asks the gateway anew.
    let users: Vec<String> = redis.replica.query(&["ACL", "USERS"]).await;
    let mut of_run = users.iter().filter(|name| name.contains("publisher-"));
    let user = of_run.next().unwrap_or_else(|| panic!("{users:?}"));
    if with_tls {
        let () = redis.replica.query(&["ACL", "DELUSER", user]).await;
    }
    redis.master.kill();

    assert_eq!(
        shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        wrap.logs()
    );
    let output = numbers("tick", 1..=TICK_COUNT.into());
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    let viewer = viewer.await.expect("the viewer's task");
    assert_text(&viewer.text("output"), &output);
    // Only what the replica had not received yet may be missing.
    assert!(
        viewer.gaps.iter().all(|reason| reason == "reborn"),
        "{:?}",
        viewer.gaps
    );
    // Sentinels cut all connections of a server that they promote.
    eventually("the replica is the master", async || {
        let info: String = redis.replica.try_query(&["INFO", "replication"]).await?;
        if info.contains("role:master") {
            Ok(())
        } else {
            Err(info)
        }
    })
    .await;

    // A service that starts now finds the new master, too.
    stack.stop(Service::Persister).await;
    stack.start_service(Service::Persister).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_replaces_a_killed_master() {
    lose_the_master(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_replaces_a_killed_master_with_tls() {
    lose_the_master(true).await;
}
