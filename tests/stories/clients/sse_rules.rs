//! Every rule of server-sent events that we learnt from clients, tested with those clients.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::protocol::event_id::EventId;
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::programs::free_port;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

use crate::clients::client::{Client, ClientKind, Saw};

/// The default retry pause of EventSource in Chromium and in npm's package.
const USUAL_RETRY_MS: u64 = 3_000;

/// A run with a publisher of lines.
struct Run {
    id: Uuid,
    publisher: Publisher,
    /// The count of published lines.
    lines: u64,
    epoch: u64,
}

impl Run {
    async fn new(stack: &Stack) -> Self {
        let run = stack.api().create_run("clients").await;
        let connection = run.publisher_connection().await;
        Self {
            id: run.id,
            publisher: Publisher::new(connection, stack.keys(), run.id),
            lines: 0,
            epoch: 0,
        }
    }

    /// Publishes this many more lines in one entry.
    async fn publish(&mut self, count: u64) {
        let lines = numbered_lines("line", self.lines + 1..=self.lines + count);
        let last = self.publisher.publish(&lines).await;
        self.lines += count;
        assert_eq!(
            last.seq, self.lines,
            "only this producer publishes to the run"
        );
        self.epoch = last.epoch;
    }

    /// Checks that a client has received all lines from `first` on, each once, in order, with their
    /// ids.
    fn assert_seen(&self, client: &Client, first: u64) {
        let seen = client.named("output");
        for (event, number) in seen.iter().zip(first..) {
            assert_eq!(
                event.line(),
                format!("line {number}\n"),
                "{:?}",
                client.kind
            );
            assert_eq!(event.id, EventId::new(self.epoch, number).to_string());
            assert_eq!(event.data["id"], event.id, "{:?}", client.kind);
        }
        let expected = self.lines + 1 - first;
        assert_eq!(seen.len() as u64, expected, "{:?}", client.kind);
    }
}

fn gateway_port(stack: &Stack) -> u16 {
    let api = stack.api();
    let port = api.base().rsplit(':').next();
    port.and_then(|port| port.parse().ok()).expect("a port")
}

/// Starts all clients, each behind a proxy that `tell` has configured.
async fn start_all(stack: &Stack, run: &Run, tell: impl Fn(&ChaosProxy)) -> Vec<Client> {
    let mut clients = Vec::new();
    for kind in ClientKind::ALL {
        let chaos = Arc::new(ChaosProxy::start(gateway_port(stack)).await);
        tell(&chaos);
        clients.push(Client::start(stack, kind, chaos, run.id, ("", None)));
    }
    clients
}

async fn all_have_lines(clients: &mut [Client], count: u64) {
    for client in clients {
        client
            .until_lines(usize::try_from(count).expect("few"))
            .await;
    }
}

/// Milliseconds from each cut until the stream was open again.
fn absences(client: &Client) -> Vec<u64> {
    let (mut cut, mut absences) = (None, Vec::new());
    for saw in client.saw() {
        if saw.is("cut") {
            cut.get_or_insert(saw.at());
        } else if saw.is("open")
            && let Some(cut) = cut.take()
        {
            absences.push(saw.at().saturating_sub(cut));
        }
    }
    absences
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_resume_at_a_cut_frame() {
    let stack = Stack::start().await;
    let mut run = Run::new(&stack).await;
    run.publish(20).await;

    // In the data, while history is read.
    let mut clients = start_all(&stack, &run, |chaos| chaos.cut_after(b"line 7")).await;
    all_have_lines(&mut clients, run.lines).await;
    assert!(clients.iter().all(|client| client.chaos.has_cut()));

    // In an id, where a prefix of it would be another valid id; then in the name of an event.
    let half_an_id = format!("\nid: {}-3", run.epoch);
    for pattern in [half_an_id.as_bytes(), b"event: outp"] {
        for client in &clients {
            client.chaos.cut_after(pattern);
        }
        run.publish(20).await;
        all_have_lines(&mut clients, run.lines).await;
        assert!(clients.iter().all(|client| client.chaos.has_cut()));
    }

    // Between two frames, with new events meanwhile.
    for client in &clients {
        client.chaos.cut();
    }
    run.publish(20).await;
    all_have_lines(&mut clients, run.lines).await;

    let first = stack.api().watch(run.id, None).await.next().await;
    let retry = first.retry.expect("the first frame has a retry pause");
    for client in &clients {
        run.assert_seen(client, 1);
        // Browser clocks are coarse. The fastest reconnect is the one without other delays.
        let absences = absences(client);
        assert_eq!(absences.len(), 4, "{:?}", client.saw());
        let quickest = absences.iter().min().copied().unwrap_or_default();
        assert!(
            absences.iter().all(|ms| ms + 50 >= retry),
            "{:?} reconnected too soon: {absences:?}",
            client.kind
        );
        assert!(
            retry >= USUAL_RETRY_MS || quickest < USUAL_RETRY_MS,
            "{:?} ignored retry: {absences:?}",
            client.kind
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_ignore_keep_alives() {
    let stack = Stack::start().await;
    let mut run = Run::new(&stack).await;
    run.publish(1).await;
    let mut clients = start_all(&stack, &run, |_| {}).await;
    for client in &mut clients {
        client
            .until("the ready frame", |client| {
                !client.named("ready").is_empty()
            })
            .await;
    }
    // It connected last, so all others have received their keep-alive when it has.
    let mut witness = stack.api().watch(run.id, None).await;
    witness.read_until("ready").await;
    let retained = witness.expect_keep_alive(Duration::from_secs(20)).await;
    assert!(retained.is_ok(), "a keep-alive every 15 s");
    run.publish(1).await;
    all_have_lines(&mut clients, 2).await;
    for client in &clients {
        run.assert_seen(client, 1);
        let names: Vec<_> = client
            .events()
            .into_iter()
            .map(|event| event.name)
            .collect();
        assert_eq!(names, ["output", "ready", "output"], "{:?}", client.kind);
        assert_eq!(absences(client).len(), 0, "{:?}", client.kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stop_when_a_run_has_ended() {
    let mut stack = Stack::start().await;
    let run = Run::new(&stack).await;
    let mut clients = start_all(&stack, &run, |_| {}).await;
    for client in &mut clients {
        client
            .until("the ready frame", |client| {
                !client.named("ready").is_empty()
            })
            .await;
    }
    let mut wrap = stack.wrap(run.id, &["echo", "all there is"]);
    assert!(wrap.wait_exit(WAIT_DEADLINE).await.success());
    for client in &mut clients {
        // No client is closed by us; 204 stops them.
        let status = client.until_stopped().await;
        // A browser does not reveal the status that EventSource got.
        let known = client.kind != ClientKind::Chromium;
        assert_eq!(status, known.then_some(204), "{:?}", client.kind);
        let [line] = &client.named("output")[..] else {
            panic!("{:?} saw {:?}", client.kind, client.events());
        };
        assert_eq!(line.line(), "all there is\n");
        let [end] = &client.named("end")[..] else {
            panic!("{:?} saw {:?}", client.kind, client.events());
        };
        assert_eq!(end.data["status"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_receive_gaps_in_order() {
    let mut stack = Stack::without_services().await;
    // Without a persister nothing is stored, so what Redis loses is lost.
    stack.start_service(Service::Gateway).await;
    let mut run = Run::new(&stack).await;
    for _ in 0..4 {
        run.publish(5).await;
    }
    let stream = stack.keys().run(run.id).stream;
    let mut redis = stack.redis.connection().await;
    let mut command = redis::cmd("XDEL");
    command.arg(&[&stream, &format!("{}-10", run.epoch)]);
    let deleted: u64 = command.query_async(&mut redis).await.expect("a response");
    assert_eq!(deleted, 1);

    let mut clients = start_all(&stack, &run, |_| {}).await;
    for client in &mut clients {
        client
            .until("the ready frame", |client| {
                !client.named("ready").is_empty()
            })
            .await;
        let mut events = client.events();
        events.retain(|event| event.name != "ready");
        let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
        let expected = [vec!["output"; 5], vec!["gap"], vec!["output"; 10]].concat();
        assert_eq!(names, expected, "{:?}", client.kind);
        let gap = &events[5];
        let id = |seq| EventId::new(run.epoch, seq).to_string();
        assert_eq!(gap.data["after"], id(5), "{gap:?}");
        assert_eq!(gap.data["next"], id(11), "{gap:?}");
        assert_eq!(gap.data["count"], 5, "{gap:?}");
        assert!(gap.data["reason"].is_string(), "{gap:?}");
        assert_eq!(events[6].line(), "line 11\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_start_at_their_cursor_or_stop() {
    let stack = Stack::start().await;
    let mut run = Run::new(&stack).await;
    run.publish(10).await;
    let chaos = Arc::new(ChaosProxy::start(gateway_port(&stack)).await);
    let epoch = run.epoch;
    let padded = format!("{epoch:016}_{:016}", 6);
    let plain = format!("{epoch}-6");
    // The cursor, and the first line that is received; none if the cursor is refused.
    let cases = [
        (plain.as_str(), Some(7)),
        (&padded, Some(7)),
        ("", Some(1)),
        ("yesterday", None),
    ];
    for (cursor, first) in cases {
        let mut clients: Vec<Client> = Vec::new();
        for kind in ClientKind::ALL {
            let query = format!("?after={cursor}");
            let how = match kind.is_standard() {
                true => (query.as_str(), None),
                false => ("", Some(cursor)),
            };
            clients.push(Client::start(&stack, kind, Arc::clone(&chaos), run.id, how));
        }
        for client in &mut clients {
            let Some(first) = first else {
                let status = client.until_stopped().await;
                let known = client.kind != ClientKind::Chromium;
                assert_eq!(status, known.then_some(400), "{:?}", client.kind);
                assert_eq!(client.events(), [], "{:?}", client.kind);
                continue;
            };
            client
                .until("the ready frame", |client| {
                    !client.named("ready").is_empty()
                })
                .await;
            run.assert_seen(client, first);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_reconnect_to_another_gateway() {
    let mut stack = Stack::start().await;
    let mut run = Run::new(&stack).await;
    run.publish(10).await;
    let mut clients = start_all(&stack, &run, |_| {}).await;
    all_have_lines(&mut clients, run.lines).await;

    let spec = stack
        .service_spec(Service::Gateway)
        .with_env([("RUNCAST_LISTEN", "127.0.0.1:0")]);
    let mut other = spec.start(stack.folder());
    let address = other
        .wait_for_line("Runcast is ready at ", WAIT_DEADLINE)
        .await;
    let port = address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    let port = port.expect("a port");
    for client in &clients {
        client.chaos.redirect_to(port);
    }
    stack.stop(Service::Gateway).await;
    run.publish(10).await;
    all_have_lines(&mut clients, run.lines).await;
    for client in &clients {
        run.assert_seen(client, 1);
        let closing = client.named("closing");
        assert_eq!(closing.len(), 1, "{:?} saw {:?}", client.kind, client.saw());
        assert_eq!(absences(client).len(), 1, "{:?}", client.kind);
    }
    drop(clients);
    other.signal(Signal::SIGTERM);
    assert!(other.wait_exit(WAIT_DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cross_origin_page_follows_with_tickets() {
    let mut stack = Stack::without_services().await;
    // To a browser another port is another origin.
    let origin = format!("http://127.0.0.1:{}", free_port());
    stack.set(Service::Gateway, "RUNCAST_CORS_ORIGINS", origin.as_str());
    stack.start_all().await;
    let mut run = Run::new(&stack).await;
    run.publish(5).await;
    let chaos = Arc::new(ChaosProxy::start(gateway_port(&stack)).await);
    let setting = Some(("CLIENT_ORIGIN", origin));
    let kind = ClientKind::CrossOrigin;
    let mut page = Client::start_with(&stack, kind, chaos, run.id, ("", None), setting);
    page.until_lines(5).await;
    // It reconnects with its used ticket. Only 204 keeps it from retrying for ever.
    page.chaos.cut();
    let opened = |page: &Client| page.saw().iter().filter(|saw| saw.is("open")).count();
    page.until("that it stops", |page| {
        page.saw().iter().any(|saw| saw.is("over")) && opened(page) == 2
    })
    .await;
    run.publish(5).await;
    page.until_lines(10).await;
    run.assert_seen(&page, 1);
    let saw = page.saw();
    let story = saw.iter().filter(|saw| !saw.is("event"));
    let story: Vec<_> = story.map(Saw::what).collect();
    assert_eq!(story, ["open", "cut", "over", "open"], "{saw:?}");
}
