//! Redis within its budget: the biggest run waits, small ones go on, and all is stored in the end.

use runcast_common::script::Outcome;
use runcast_tests::api::CreatedRun;
use runcast_tests::eventually::eventually;
use runcast_tests::lines::output;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Part, Stack};
use uuid::Uuid;

/// A line of 64 KiB that cannot be packed much.
fn noise() -> Vec<u8> {
    let text: String = std::iter::repeat_with(|| Uuid::new_v4().simple().to_string())
        .take(2048)
        .collect();
    output(&text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_budget_the_biggest_run_waits_and_small_ones_go_on() {
    let mut stack = Stack::without_services().await;
    let chaos = stack.chaos_before_postgres().await;
    let address = stack.database_url(chaos.port());
    stack.launch(Part::Gateway).await;
    stack.set(Part::Persister, "DATABASE_URL", address);
    stack.set(Part::Persister, "RUNCAST_REDIS_BUDGET", "12MiB");
    stack.launch(Part::Persister).await;
    let api = stack.api();
    let (big, small) = (api.create_run("big").await, api.create_run("small").await);
    let publisher = async |run: &CreatedRun| {
        Publisher::new(run.publisher_connection().await, stack.keys(), run.id)
    };
    let (mut much, mut little) = (publisher(&big).await, publisher(&small).await);
    chaos.refuse();
    eventually("the big run is told full", async || {
        for _ in 0..50 {
            if much.try_publish(&noise()).await == Outcome::Full {
                return Ok(());
            }
        }
        Err("it grows".to_owned())
    })
    .await;
    for number in 0..50 {
        let outcome = little
            .try_publish(&output(&format!("line {number}\n")))
            .await;
        assert!(matches!(outcome, Outcome::Stored { .. }), "{outcome:?}");
    }
    // The cap ends by itself, once what was unstored is stored and trimmed.
    chaos.forward();
    let last = eventually("the big run goes on", async || {
        match much.try_publish(&output("at last\n")).await {
            Outcome::Stored { stored } => Ok(stored),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stack.database.holds_events(big.id, last).await;
    stack.database.holds_events(small.id, 50).await;
}
