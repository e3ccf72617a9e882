//! Viewers that read slowly or not at all, and a gateway with too little memory for all of them.

use reqwest::Method;
use runcast_common::protocol::event_id::EventId;
use runcast_tests::api::{Api, send};
use runcast_tests::event_lines::{numbered_lines, output_line};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, within};
use runcast_tests::process::{Process, ProcessSpec};
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use crate::fanout::{frames, last_line, publisher};
use crate::viewer::Viewer;

/// A viewer's connection with a small receive buffer, so that frames are cut anywhere.
async fn connect(base: &str, token: &str, run: Uuid) -> TcpStream {
    connect_to(base, token, &format!("/v1/runs/{run}/stream")).await
}

async fn connect_to(base: &str, token: &str, path: &str) -> TcpStream {
    let address = base.strip_prefix("http://").expect("a URL");
    let address = address.trim_end_matches('/').parse().expect("a URL");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut stream = socket.connect(address).await.expect("connected");
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    stream
}

/// One more gateway with these settings: its process, its metrics URL and a client.
async fn gateway(stack: &Stack, settings: &[(&str, &str)]) -> (Process, String, Api) {
    let listens = [
        ("RUNCAST_LISTEN", "127.0.0.1:0"),
        ("RUNCAST_METRICS_LISTEN", "127.0.0.1:0"),
    ];
    let settings = settings.iter().copied().chain(listens);
    let gateway = stack.service_spec(Service::Gateway).with_env(settings);
    let mut gateway = gateway.start(stack.folder());
    let base = gateway
        .wait_for_line(Service::Gateway.ready_line(), WAIT_DEADLINE)
        .await;
    let metrics = gateway.wait_for_line("metrics at ", WAIT_DEADLINE).await;
    let metrics = Api::new(metrics.trim_end_matches("/metrics"), "");
    (gateway, base, metrics)
}

/// A whole run, twice what the buffers of kernel and gateway hold together, so that a viewer that
/// does not read gets stuck in the middle.
async fn fill_run(publisher: &mut Publisher) -> EventId {
    let filler = "x".repeat(1000);
    for entry in 0..160_u64 {
        let lines: Vec<Vec<u8>> = (0..100)
            .map(|line| output_line(&format!("{} {filler}", entry * 100 + line)))
            .collect();
        publisher.publish(&lines).await;
    }
    publisher.publish(&[last_line(0)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_viewer_misses_nothing_and_delays_none() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("slow").await;
    let mut publisher = publisher(&stack, &run).await;
    let mut slow = connect(stack.api().base(), stack.token(), run.id).await;
    let mut seen = Vec::new();
    let mut buffer = vec![0; 3000];
    let mut quick = stack.api().watch(run.id, None).await;
    quick.read_until("ready").await;
    // 24 MiB: far more than the ring and the socket buffers hold.
    const ENTRY_COUNT: u64 = 240;
    const LINES_PER_ENTRY: u64 = 100;
    let filler = "x".repeat(1000);
    for entry in 0..ENTRY_COUNT {
        let lines: Vec<Vec<u8>> = (0..LINES_PER_ENTRY)
            .map(|line| output_line(&format!("{} {filler}", entry * LINES_PER_ENTRY + line)))
            .collect();
        publisher.publish(&lines).await;
        let length = within(WAIT_DEADLINE, "some bytes", slow.read(&mut buffer))
            .await
            .expect("read");
        seen.extend_from_slice(&buffer[..length]);
    }
    let last = publisher.publish(&[last_line(0)]).await;
    let end = within(
        WAIT_DEADLINE * 2,
        "the fast viewer receives the end",
        quick.read_until("end"),
    )
    .await;
    assert_eq!(end.last().expect("a frame").id, last);
    // The slow viewer reads on; events evicted from the ring come from Redis or Postgres.
    buffer.resize(64 * 1024, 0);
    within(
        WAIT_DEADLINE * 3,
        "the slow viewer receives the end",
        async {
            loop {
                match slow.read(&mut buffer).await.expect("read") {
                    0 => break,
                    length => seen.extend_from_slice(&buffer[..length]),
                }
            }
        },
    )
    .await;
    let text = String::from_utf8(seen).expect("text");
    let events = frames(&text);
    let outputs = events.iter().filter(|(event, _, _)| event == "output");
    let mut expected = 1;
    for (_, data, id) in outputs {
        assert_eq!(data["seq"], expected, "each once and in order");
        assert_eq!(data["id"], id.as_str());
        expected += 1;
    }
    assert_eq!(expected, ENTRY_COUNT * LINES_PER_ENTRY + 1);
    assert_eq!(events.last().expect("a frame").0, "end");
    assert!(!text.contains("event: gap"), "nothing was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_viewer_is_closed_and_resumes() {
    let stack = Stack::start().await;
    let (_gateway, base, metrics) = gateway(&stack, &[("RUNCAST_VIEWER_TIMEOUT", "1s")]).await;
    let run = stack.api().create_run("stalled").await;
    let mut publisher = publisher(&stack, &run).await;
    let mut stalled = connect(&base, stack.token(), run.id).await;
    let last = fill_run(&mut publisher).await;
    eventually("the gateway closes it", async || {
        let scrape = send(metrics.anonymous(Method::GET, "/metrics")).await;
        let text = scrape.text().await.expect("text");
        let closed = r#"runcast_viewers_closed_total{reason="stalled"} 1"#;
        text.contains(closed).then_some(()).ok_or(text)
    })
    .await;
    let mut seen = Vec::new();
    // The connection ends, possibly by a reset.
    drop(
        within(
            WAIT_DEADLINE,
            "the bytes in kernel buffers",
            stalled.read_to_end(&mut seen),
        )
        .await,
    );
    let seen = String::from_utf8_lossy(&seen).into_owned();
    let displayed = frames(&seen);
    let (_, _, id) = displayed.last().expect("a frame");
    let cursor: EventId = id.parse().expect("an id");
    assert!(cursor < last, "it was closed in the middle");
    let mut rest = stack.api().watch(run.id, Some(id)).await;
    let rest = rest.read_until("end").await;
    let seqs = rest
        .iter()
        .filter(|frame| frame.event == "output")
        .map(|frame| frame.id.seq);
    assert!(seqs.eq(cursor.seq + 1..last.seq));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_http_client_is_disconnected() {
    let stack = Stack::start().await;
    let (_gateway, base, metrics) = gateway(&stack, &[("RUNCAST_VIEWER_TIMEOUT", "1s")]).await;
    let open = async |count: u32| {
        eventually("the count of connections is right", async || {
            let scrape = send(metrics.anonymous(Method::GET, "/metrics")).await;
            let text = scrape.text().await.expect("text");
            let line = format!("\nruncast_connections_open {count}\n");
            text.contains(&line).then_some(()).ok_or(text)
        })
        .await;
    };
    let run = stack.api().create_run("unread").await;
    let path = format!("/v1/watch?run={}", run.id);
    let mut unread = connect_to(&base, stack.token(), &path).await;
    open(1).await;
    let mut publisher = publisher(&stack, &run).await;
    fill_run(&mut publisher).await;
    open(0).await;
    let mut seen = Vec::new();
    // The connection ends, possibly by a reset.
    let rest = unread.read_to_end(&mut seen);
    drop(within(WAIT_DEADLINE, "the bytes in kernel buffers", rest).await);
    assert!(!String::from_utf8_lossy(&seen).contains("event: end"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_without_memory_sheds_viewers_who_resume() {
    let mut stack = Stack::start().await;
    stack.stop(Service::Gateway).await;
    // Less than any process uses.
    stack.set(Service::Gateway, "RUNCAST_MEMORY_LIMIT", "1MiB");
    stack.start_service(Service::Gateway).await;
    let run = stack.api().create_run("little memory").await;
    let mut publisher = publisher(&stack, &run).await;
    let viewers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(Viewer::new(stack.api(), run.id).until_the_end()))
        .collect();
    let mut closing = stack.api().watch(run.id, None).await;
    let closed = tokio::spawn(async move {
        loop {
            let frame = closing.next().await;
            if frame.event == "closing" {
                break frame;
            }
        }
    });
    let mut first = 1;
    // An entry that was started is completed: the publisher counts what it has sent.
    eventually("a viewer is shed", async || {
        publisher
            .publish(&numbered_lines("line", first..=first + 9))
            .await;
        first += 10;
        let is_closed = closed.is_finished().then_some(());
        is_closed.ok_or_else(|| format!("{first} lines are published"))
    })
    .await;
    let closed = closed.await.expect("a frame");
    assert!(closed.retry.is_some());
    assert!(closed.data.contains("too little memory"), "{closed:?}");
    publisher.publish(&[last_line(0)]).await;
    for viewer in viewers {
        let seen = viewer.await.expect("whole");
        assert!(seen.gaps.is_empty());
        assert_eq!(seen.repeated, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_library_streams_are_shed_too() {
    let mut stack = Stack::start().await;
    stack.stop(Service::Gateway).await;
    stack.set(Service::Gateway, "RUNCAST_MEMORY_LIMIT", "1MiB");
    stack.start_service(Service::Gateway).await;
    let run = stack.api().create_run("carried").await;
    let bearer = format!("authorization: Bearer {}", stack.token());
    let api = stack.api();
    let base = api.base().trim_end_matches('/');
    for path in [
        format!("v1/runs/{}/stream", run.id),
        format!("v1/watch?run={}", run.id),
        "v1/feed".to_owned(),
    ] {
        // One in twenty goes every second.
        let url = format!("{base}/{path}");
        let mut arguments = vec!["-sNZ", "--parallel-immediate", "-H", &bearer];
        arguments.push("--http2-prior-knowledge");
        arguments.resize(arguments.len() + 20, &url);
        let spec = ProcessSpec::new("curl", "curl", &arguments, stack.folder());
        let mut viewers = spec.start(stack.folder());
        eventually("viewers are connected, and some are shed", async || {
            let seen = String::from_utf8(viewers.stdout()).expect("text");
            let came = seen.matches("event: ready").count();
            let closed = seen.contains("too little memory") && seen.contains("event: closing");
            (came > 10 && closed).then_some(()).ok_or(seen)
        })
        .await;
        viewers.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_stalled_clients_are_disconnected_soon() {
    let stack = Stack::start().await;
    let (_gateway, base, metrics) = gateway(
        &stack,
        &[
            ("RUNCAST_MEMORY_LIMIT", "1MiB"),
            ("RUNCAST_VIEWER_TIMEOUT", "10m"),
        ],
    )
    .await;
    let run = stack.api().create_run("unread").await;
    let path = format!("/v1/runs/{}/text", run.id);
    let mut publisher = publisher(&stack, &run).await;
    let last = fill_run(&mut publisher).await;
    stack.database.wait_stored(run.id, last).await;
    let unread = connect_to(&base, stack.token(), &path).await;
    eventually("it is disconnected", async || {
        let scrape = send(metrics.anonymous(Method::GET, "/metrics")).await;
        let text = scrape.text().await.expect("text");
        let closed = text.contains(r#"runcast_viewers_closed_total{reason="memory"} 1"#);
        closed.then_some(()).ok_or(text)
    })
    .await;
    drop(unread);
}
