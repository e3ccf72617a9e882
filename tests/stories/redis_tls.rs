//! Redis speaks TLS with a certificate of a private authority.

use runcast_common::protocol::event::Kind;
use runcast_tests::database::text;
use runcast_tests::eventually::SOON;
use runcast_tests::process::shell_code;
use runcast_tests::redis_node::Fleet;
use runcast_tests::stack::{Part, Stack};

use crate::crashes::ticking;
use crate::viewer::{Viewer, assert_text, numbers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_is_named_once_and_agents_are_told_of_it() {
    let mut stack = Stack::without_services().await;
    let fleet = Fleet::new(stack.folder(), stack.keys(), true);
    let node = fleet.start("tls", |_port| String::new()).await;
    let urls = fleet.urls(&node);
    stack.use_redis(urls, fleet.ca().as_deref());

    // Whom the platform does not trust, we do not trust.
    let alone = stack
        .recipe(Part::Persister)
        .with([("RUNCAST_REDIS_CA", "")]);
    let mut alone = alone.start(stack.folder());
    assert_eq!(alone.ended(SOON).await.code(), Some(1));
    let said = String::from_utf8_lossy(&alone.stderr()).into_owned();
    assert!(
        said.contains("REDIS_URL") && said.contains("UnknownIssuer"),
        "{said}"
    );

    stack.launch_all().await;
    let run = stack.api().create_run("encrypted").await.id;
    let command = ticking(50, "0.01");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    assert_eq!(shell_code(wrap.ended(SOON).await), 0, "{}", wrap.logs());
    let events = stack.database.sealed(run).await;
    assert_text(&text(&events, Kind::Output), &numbers("tick", 1..=50));
    let viewer = Viewer::new(stack.api(), run).until_the_end().await;
    assert_text(&viewer.text("output"), &numbers("tick", 1..=50));
    assert_eq!(viewer.gaps, Vec::<String>::new());
}
