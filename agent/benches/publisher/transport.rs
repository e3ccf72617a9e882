//! The two ways out of a publisher beside each other: to Redis directly, and through the gateway.
//!
//! Both publish to the same Redis, with a spool and in memory, in turn. No persister runs; instead
//! everything is declared stored and trimmed, so that the figures are those of publishing alone.
//! Processor time is that of the gateway, per event.

use std::collections::HashMap;
use std::time::Instant;

use runcast_publisher::gateway_client::{GatewayClient, NewRun};
use runcast_publisher::{Publisher, Target};
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

use crate::latency::{acknowledgements, print};
use crate::measure::{self, EVENT_BYTES, cpu, median, say, spread};
use crate::server::{PATIENCE, keep_settled, options, spool_folder};
use crate::throughput::{ROUND_EVENTS, TOTAL_ROUNDS};

/// Transport and spool, in the order in which they are measured.
const WAYS: [(&str, bool); 4] = [
    ("redis", false),
    ("redis", true),
    ("gateway", false),
    ("gateway", true),
];

/// What the rounds of one way have shown.
#[derive(Default)]
struct Rounds {
    thousand_events_per_second: Vec<f64>,
    own_us: Vec<f64>,
    gateway_us: Vec<f64>,
}

pub(crate) async fn run() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    let mut rounds: [Rounds; WAYS.len()] = Default::default();
    for (transport, with_spool) in WAYS {
        throughput(&stack, transport, with_spool, &mut Rounds::default()).await;
    }
    for _ in 0..TOTAL_ROUNDS {
        for ((transport, with_spool), rounds) in WAYS.into_iter().zip(&mut rounds) {
            throughput(&stack, transport, with_spool, rounds).await;
        }
    }
    say(format_args!(
        "\nTransports: {ROUND_EVENTS} events of {EVENT_BYTES} B a round, {TOTAL_ROUNDS} rounds in turn, median (least .. most)\n\n\
         | | thousand events/s | own CPU us/event | CPU us/event of the gateway |\n|---|---|---|---|"
    ));
    for (way, rounds) in WAYS.into_iter().zip(&rounds) {
        say(format_args!(
            "| {} | {} | {:.2} | {:.2} |",
            name(way),
            spread(&rounds.thousand_events_per_second, 0),
            median(&rounds.own_us),
            median(&rounds.gateway_us),
        ));
    }
    say(format_args!(
        "\nLatency to the acknowledgement, 100 events a second at random moments, ms\n\n\
         | | p50 | p99 | most |\n|---|---|---|---|"
    ));
    for way in WAYS {
        print(&name(way), &latency(&stack, way).await);
    }
}

fn name((transport, with_spool): (&str, bool)) -> String {
    let spool = if with_spool { "spool" } else { "in memory" };
    format!("{transport}, {spool}")
}

/// A new run, to be published to in this way.
async fn target(stack: &Stack, transport: &str) -> Target {
    let (api, transport) = (stack.api(), transport.to_owned());
    let env = HashMap::from([
        ("RUNCAST_URL", api.base()),
        ("RUNCAST_TOKEN", api.token()),
        ("RUNCAST_TRANSPORT", &transport),
    ]);
    let client = GatewayClient::from_env(&env).expect("a client");
    let session = client
        .create_run(&NewRun::named("bench"), Uuid::new_v4())
        .await;
    session.expect("a run").target(0)
}

async fn throughput(stack: &Stack, transport: &str, with_spool: bool, rounds: &mut Rounds) {
    let folder = with_spool.then(spool_folder);
    let target = target(stack, transport).await;
    let publisher = Publisher::start(&target, options(folder.as_ref())).expect("started");
    publisher.connected(PATIENCE).await.expect("connected");
    let settling = settling(stack, &target, &publisher);
    let (texts, gateway) = (measure::texts(), stack.process_id(Service::Gateway));

    let (start, own, served) = (Instant::now(), cpu(std::process::id()), cpu(gateway));
    for (_, text) in (0..ROUND_EVENTS).zip(texts.iter().cycle()) {
        publisher.output(text).await.expect("published");
    }
    publisher.flush(PATIENCE).await.expect("flushed");
    let (events, wall) = (ROUND_EVENTS as f64, start.elapsed().as_secs_f64());
    let us = |from: std::time::Duration, process| (cpu(process) - from).as_secs_f64() * 1e6;
    rounds.thousand_events_per_second.push(events / wall / 1e3);
    rounds.own_us.push(us(own, std::process::id()) / events);
    rounds.gateway_us.push(us(served, gateway) / events);

    let closed = publisher.close(PATIENCE).await.expect("closed");
    assert_eq!((closed.stored, closed.unsent), (ROUND_EVENTS, 0));
    settling.abort();
}

async fn latency(stack: &Stack, (transport, with_spool): (&str, bool)) -> Vec<f64> {
    let folder = with_spool.then(spool_folder);
    let target = target(stack, transport).await;
    let publisher = Publisher::start(&target, options(folder.as_ref())).expect("started");
    publisher.connected(PATIENCE).await.expect("connected");
    let settling = settling(stack, &target, &publisher);
    let waits = acknowledgements(&publisher, false).await;
    publisher.close(PATIENCE).await.expect("closed");
    settling.abort();
    waits
}

/// The effects of a persister on this run.
fn settling(stack: &Stack, target: &Target, publisher: &Publisher) -> tokio::task::JoinHandle<()> {
    let url = stack.redis.url(stack.redis.port());
    let redis = runcast_common::connect::Redis::new(&url.parse().expect("a URL"));
    let keys = stack.keys().run(target.run);
    keep_settled(redis.expect("a client"), keys, publisher.producer().0)
}
