//! A rolling restart: two gateways behind one address are restarted in turn, while a thousand
//! viewers are connected.

use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::crowd::{Crowd, CrowdPlan};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually_within};
use runcast_tests::open_files::raise_limit;
use runcast_tests::process::{Process, ProcessSpec};
use runcast_tests::programs::loopback;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use runcast_tests::stamp::{Stamp, message, now_ns};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

const VIEWER_COUNT: usize = 1_000;

/// Each viewer has one socket here, two in the proxy, and one in its gateway.
const NEEDED_FILES: u64 = 4 * VIEWER_COUNT as u64 + 1_000;

/// Pause between two messages.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(50);

/// Longest wait for a thousand viewers, which the gateway spreads over seconds.
const CROWD_DEADLINE: Duration = Duration::from_secs(60);

/// A second gateway of the stack, on a port that it keeps across restarts.
struct Gateway {
    spec: ProcessSpec,
    process: Process,
    port: u16,
}

impl Gateway {
    async fn start(stack: &Stack, name: &str) -> Self {
        let mut spec = stack.service_spec(Service::Gateway);
        name.clone_into(&mut spec.name);
        let mut process = spec.start(stack.folder());
        let port = port_of(&mut process).await;
        let spec = spec.with_env([("RUNCAST_LISTEN", loopback(port).to_string())]);
        Self {
            spec,
            process,
            port,
        }
    }

    async fn restart(&mut self, stack: &Stack) {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait_exit(WAIT_DEADLINE).await;
        assert!(
            status.success(),
            "a gateway exited with {status} on SIGTERM"
        );
        self.process = self.spec.start(stack.folder());
        assert_eq!(port_of(&mut self.process).await, self.port);
    }
}

async fn port_of(process: &mut Process) -> u16 {
    let address = process
        .wait_for_line("Runcast is ready at ", WAIT_DEADLINE)
        .await;
    let port = address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    port.expect("a port")
}

/// Publishes until `stop` changes; returns the number of the last message.
fn publish(mut publisher: Publisher, mut stop: watch::Receiver<bool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut number = 0;
        while !*stop.borrow() {
            number += 1;
            let due_ns = now_ns();
            publisher
                .publish(&[message(Stamp { due_ns, number })])
                .await;
            // The sender lives as long as the story.
            drop(tokio::time::timeout(MESSAGE_INTERVAL, stop.changed()).await);
        }
        number
    })
}

fn watch_run(stack: &Stack, run: Uuid, chaos: &ChaosProxy) -> Crowd {
    let token = stack.token().to_owned();
    Crowd::start(CrowdPlan {
        viewers: VIEWER_COUNT / 2,
        address: loopback(chaos.port()),
        request: Box::new(move |_, cursor| {
            let cursor = cursor.map(|id| format!("Last-Event-ID: {id}\r\n"));
            let cursor = cursor.unwrap_or_default();
            format!(
                "GET /v1/runs/{run}/stream HTTP/1.1\r\nHost: runcast\r\nAuthorization: Bearer {token}\r\n{cursor}\r\n"
            )
        }),
        first: Box::new(|_| 1),
        reconnects: true,
        max_connecting: 64,
        record_all: false,
    })
}

/// Waits until all streams of both crowds are open.
async fn all_watch(crowds: &[Crowd]) {
    eventually_within(CROWD_DEADLINE, "all viewers are connected", async || {
        let open: u64 = crowds.iter().map(|crowd| crowd.counts().open).sum();
        (open == VIEWER_COUNT as u64)
            .then_some(())
            .ok_or_else(|| format!("{crowds:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_loses_no_event() {
    raise_limit(NEEDED_FILES);
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    stack.start_service(Service::Persister).await;
    let run = stack.api().create_run("rolling").await;
    stack.stop(Service::Gateway).await;
    stack.set(Service::Gateway, "RUNCAST_LISTEN", "127.0.0.1:0");
    let mut one = Gateway::start(&stack, "gateway-one").await;
    let mut other = Gateway::start(&stack, "gateway-other").await;

    let chaos = ChaosProxy::start(one.port).await;
    let first = watch_run(&stack, run.id, &chaos);
    eventually_within(CROWD_DEADLINE, "the first half is connected", async || {
        let open = first.counts().open;
        (open == VIEWER_COUNT as u64 / 2)
            .then_some(())
            .ok_or_else(|| format!("{first:?}"))
    })
    .await;
    chaos.redirect_to(other.port);
    let crowds = [first, watch_run(&stack, run.id, &chaos)];
    all_watch(&crowds).await;

    let connection = run.publisher_connection().await;
    let publisher = Publisher::new(connection, stack.keys(), run.id);
    let stop = watch::Sender::new(false);
    let publishing = publish(publisher, stop.subscribe());

    one.restart(&stack).await;
    all_watch(&crowds).await;
    chaos.redirect_to(one.port);
    other.restart(&stack).await;
    all_watch(&crowds).await;

    stop.send_replace(true);
    let last = publishing.await.expect("the publisher's task");
    for (crowd, moves) in crowds.iter().zip([2, 1]) {
        eventually_within(
            CROWD_DEADLINE,
            "all viewers have received everything",
            async || {
                let there = crowd.viewers_at(last);
                (there == VIEWER_COUNT / 2)
                    .then_some(())
                    .ok_or_else(|| format!("{there}: {crowd:?}"))
            },
        )
        .await;
        let sums = crowd.counts();
        assert_eq!(
            (sums.sequence_errors, sums.gaps),
            (0, 0),
            "{:?}",
            crowd.first_error()
        );
        let moved = moves * VIEWER_COUNT as u64 / 2;
        assert_eq!(
            (sums.closing, sums.ended),
            (moved, moved),
            "{:?}",
            crowd.first_error()
        );
    }
    drop(crowds);
    for gateway in [&mut one, &mut other] {
        gateway.process.signal(Signal::SIGTERM);
        assert!(gateway.process.wait_exit(WAIT_DEADLINE).await.success());
    }
}
