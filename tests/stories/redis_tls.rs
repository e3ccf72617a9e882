//! Redis with TLS, with a certificate of a private authority.

use runcast_common::protocol::event::Kind;
use runcast_tests::database::text;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::shell_exit_code;
use runcast_tests::redis_node::RedisDeployment;
use runcast_tests::stack::{Service, Stack};

use crate::crashes::ticking;
use crate::viewer::{Viewer, assert_text, numbers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_authority_is_configured_once_and_passed_to_agents() {
    let mut stack = Stack::without_services().await;
    let deployment = RedisDeployment::new(stack.folder(), true);
    let node = deployment.start_node("tls", |_port| String::new()).await;
    let urls = deployment.urls(&node);
    stack.use_redis(urls, deployment.ca().as_deref());

    // A certificate that the platform does not trust is refused.
    let alone = stack
        .service_spec(Service::Persister)
        .with_env([("RUNCAST_REDIS_CA", "")]);
    let mut alone = alone.start(stack.folder());
    assert_eq!(alone.wait_exit(WAIT_DEADLINE).await.code(), Some(1));
    let output = String::from_utf8_lossy(&alone.stderr()).into_owned();
    assert!(
        output.contains("REDIS_URL") && output.contains("UnknownIssuer"),
        "{output}"
    );

    stack.start_all().await;
    let run = stack.api().create_run("encrypted").await.id;
    let command = ticking(50, "0.01");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    assert_eq!(
        shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        wrap.logs()
    );
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &numbers("tick", 1..=50));
    let viewer = Viewer::new(stack.api(), run).until_the_end().await;
    assert_text(&viewer.text("output"), &numbers("tick", 1..=50));
    assert_eq!(viewer.gaps, Vec::<String>::new());
}
