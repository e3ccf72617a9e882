//! How streams reach viewers: many at once, and over every kind of connection.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use runcast_common::protocol::event_id::EventId;
use runcast_tests::api::{CreatedRun, problem, send};
use runcast_tests::certificate_authority::CertificateAuthority;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, within};
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::Sse;
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use tokio::time::sleep;

use crate::viewer::Viewer;

pub(crate) async fn publisher(stack: &Stack, run: &CreatedRun) -> Publisher {
    Publisher::new(run.publisher_connection().await, stack.keys(), run.id)
}

/// The last line of a run, which ends it.
pub(crate) fn last_line(variation: u16) -> Vec<u8> {
    format!(r#"{{"kind":"status","variation":{variation},"time":1,"status":"succeeded"}}"#)
        .into_bytes()
}

/// Event name, data and id of whole frames, without heartbeats.
pub(crate) fn frames(text: &str) -> Vec<(String, Value, String)> {
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let frames = whole.split("\n\n").filter_map(|frame| {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
        let data = serde_json::from_str(field("data: ")?).expect("JSON");
        Some((
            field("event: ")?.to_owned(),
            data,
            field("id: ")?.to_owned(),
        ))
    });
    frames
        .filter(|(event, _, _)| event != "heartbeat")
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reconnecting_viewers_get_the_rest() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("storm").await;
    let mut publisher = publisher(&stack, &run).await;
    const LINE_COUNT: u64 = 20_000;
    let mut last = EventId::ZERO;
    for first in (1..=LINE_COUNT).step_by(500) {
        last = publisher
            .publish(&numbered_lines("line", first..=first + 499))
            .await;
    }
    stack.database.wait_stored(run.id, last).await;
    let viewers = (0..200_u64).map(|number| {
        let (api, run) = (stack.api(), run.id);
        tokio::spawn(async move {
            let after = (number * 97) % LINE_COUNT;
            let cursor = EventId::new(last.epoch, after).to_string();
            let mut stream = api.watch(run, Some(&cursor)).await;
            let frames = stream.read_until("ready").await;
            let seqs = frames.iter().filter(|frame| frame.event == "output");
            let seqs: Vec<u64> = seqs.map(|frame| frame.id.seq).collect();
            assert!(
                seqs.iter().copied().eq(after + 1..=LINE_COUNT),
                "behind {after}"
            );
        })
    });
    for viewer in viewers.collect::<Vec<_>>() {
        within(WAIT_DEADLINE * 3, "a viewer catches up", viewer)
            .await
            .expect("whole");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_wakeups_lose_no_event() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("bells").await;
    let mut publisher = publisher(&stack, &run).await;
    let viewer = tokio::spawn(Viewer::new(stack.api(), run.id).until_the_end());
    let mut redis = stack.redis.connection().await;
    for round in 0..20_u64 {
        let mut kill = redis::cmd("CLIENT");
        kill.arg(&["KILL", "TYPE", "pubsub"]);
        kill.query_async::<u64>(&mut redis).await.expect("killed");
        publisher
            .publish(&numbered_lines("line", round * 10 + 1..=round * 10 + 10))
            .await;
        sleep(Duration::from_millis(20)).await;
    }
    publisher.publish(&[last_line(0)]).await;
    let seen = viewer.await.expect("whole");
    assert_eq!((seen.events.len(), seen.repeated), (201, 0));
    assert_eq!(seen.connections, 1, "no viewer reconnected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_run_ends_its_streams() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("deleted").await;
    let last = publisher(&stack, &run)
        .await
        .publish(&numbered_lines("line", 1..=3))
        .await;
    stack.database.wait_stored(run.id, last).await;
    let mut stream = stack.api().watch(run.id, None).await;
    stream.read_until("ready").await;
    stack.database.delete(run.id).await;
    let mut redis = stack.redis.connection().await;
    redis::cmd("FLUSHALL")
        .query_async::<()>(&mut redis)
        .await
        .expect("flushed");
    let end = stream.read_until("end").await.pop().expect("a frame");
    assert_eq!(end.json()["status"], "deleted");
    let response = stack.api().stream(run.id, None, "").await;
    problem(response, StatusCode::NOT_FOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_accepts_sixty_four_channels() {
    let stack = Stack::start().await;
    let run = stack.api().create_run_of("channels", 66).await;
    let mut publisher = publisher(&stack, &run).await;
    let line = |variation: u16| {
        format!(r#"{{"kind":"output","variation":{variation},"time":1,"text":"v{variation}\n"}}"#)
    };
    let all: Vec<Vec<u8>> = (0..66).map(|one| line(one).into_bytes()).collect();
    publisher.publish(&all).await;
    let query = |count: u16| -> String {
        let channels = (0..count).map(|one| format!("channel=output:{one}"));
        format!("?{}", channels.collect::<Vec<_>>().join("&"))
    };
    let mut stream = Sse::from_response(stack.api().stream(run.id, None, &query(64)).await).await;
    let seen = stream.read_until("ready").await;
    let variations = seen
        .iter()
        .filter_map(|frame| frame.json()["variation"].as_u64());
    assert!(variations.eq(0..64));
    let refused = stack.api().stream(run.id, None, &query(65)).await;
    let detail = problem(refused, StatusCode::BAD_REQUEST).await;
    assert!(detail.contains("limit of 64"), "{detail}");
}

/// The output of a client that reads a stream to its end.
async fn curl(arguments: &[&str], token: &str) -> String {
    let mut command = tokio::process::Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--no-buffer",
            "--noproxy",
            "*",
            "--max-time",
            "30",
        ])
        .args(["--write-out", "HTTP/%{http_version} %{http_code}\n"])
        .args(["--header", &format!("authorization: Bearer {token}")])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within(WAIT_DEADLINE * 2, "curl ends", command.output())
        .await
        .expect("curl runs");
    let received = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{received}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_work_over_every_kind_of_connection() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("connections").await;
    let mut publisher = publisher(&stack, &run).await;
    publisher.publish(&numbered_lines("line", 1..=1000)).await;
    publisher.publish(&[last_line(0)]).await;
    let authority = CertificateAuthority::new(stack.folder());
    let tls = stack.service_spec(Service::Gateway).with_env([
        (
            "RUNCAST_TLS_CERT",
            authority.certificate().display().to_string(),
        ),
        ("RUNCAST_TLS_KEY", authority.key().display().to_string()),
        ("RUNCAST_LISTEN", "127.0.0.1:0".to_owned()),
    ]);
    let mut tls = tls.start(stack.folder());
    let secure = tls
        .wait_for_line(Service::Gateway.ready_line(), WAIT_DEADLINE)
        .await;
    assert!(secure.starts_with("https://"), "{secure}");
    let ca = authority.ca();
    let ca = ca.to_str().expect("UTF-8");
    let plain = stack.api();
    let path = format!("v1/runs/{}/stream", run.id);
    for (version, base, arguments) in [
        ("HTTP/1.1 200", plain.base(), &["--http1.1"][..]),
        ("HTTP/2 200", plain.base(), &["--http2-prior-knowledge"]),
        ("HTTP/1.1 200", &secure, &["--http1.1", "--cacert", ca]),
        ("HTTP/2 200", &secure, &["--http2", "--cacert", ca]),
    ] {
        let url = format!("{}/{path}", base.trim_end_matches('/'));
        let mut arguments = arguments.to_vec();
        arguments.push(&url);
        let displayed = curl(&arguments, stack.token()).await;
        assert!(
            displayed.ends_with(&format!("{version}\n")),
            "{version}: {displayed:.300}"
        );
        let events = frames(&displayed);
        let outputs = events.iter().filter(|(event, _, _)| event == "output");
        let seqs = outputs.filter_map(|(_, data, _)| data["seq"].as_u64());
        assert!(seqs.eq(1..=1000), "{version}");
        assert_eq!(events.last().expect("a frame").0, "end");
    }
    tls.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificate_is_used_without_a_restart() {
    let stack = Stack::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [old, new] = [stack.folder(), folder.path()].map(CertificateAuthority::new);
    let tls = stack.service_spec(Service::Gateway).with_env([
        ("RUNCAST_TLS_CERT", old.certificate().display().to_string()),
        ("RUNCAST_TLS_KEY", old.key().display().to_string()),
        ("RUNCAST_LISTEN", "127.0.0.1:0".to_owned()),
    ]);
    let mut tls = tls.start(stack.folder());
    let secure = tls
        .wait_for_line(Service::Gateway.ready_line(), WAIT_DEADLINE)
        .await;
    let url = format!("{}/healthz", secure.trim_end_matches('/'));
    let ca = old.ca();
    let healthz = ["--cacert", ca.to_str().expect("UTF-8"), url.as_str()];
    assert!(curl(&healthz, stack.token()).await.contains("200"));
    // A signal that means "read again" to other services ends nothing.
    tls.signal(Signal::SIGHUP);
    std::fs::copy(new.certificate(), old.certificate()).expect("a new certificate");
    std::fs::copy(new.key(), old.key()).expect("its key");
    let ca = new.ca();
    eventually("the new certificate is used", async || {
        let mut command = tokio::process::Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--max-time", "5", "--cacert"]);
        command
            .arg(&ca)
            .arg(&url)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let status = command.output().await.expect("curl runs").status;
        status.success().then_some(()).ok_or(status.to_string())
    })
    .await;
    let logs = tls.logs();
    assert!(logs.contains("SIGHUP: going on"), "{logs}");
    tls.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cors_allows_only_listed_origins() {
    let mut stack = Stack::start().await;
    stack.stop(Service::Gateway).await;
    stack.set(
        Service::Gateway,
        "RUNCAST_CORS_ORIGINS",
        "https://app.example",
    );
    stack.start_service(Service::Gateway).await;
    let run = stack.api().create_run("origins").await;
    let path = format!("/v1/runs/{}/stream", run.id);
    for (origin, allowed) in [
        ("https://app.example", true),
        ("https://evil.example", false),
    ] {
        let ask = stack.api().anonymous(Method::OPTIONS, &path);
        let ask = ask
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header(
                "access-control-request-headers",
                "authorization,last-event-id",
            );
        let requested = send(ask).await;
        let stream = stack
            .api()
            .request(Method::GET, &path)
            .header("origin", origin);
        for response in [requested, send(stream).await] {
            let named = response.headers().get("access-control-allow-origin");
            assert_eq!(
                named.is_some_and(|named| named == origin),
                allowed,
                "{origin}"
            );
            assert!(
                response
                    .headers()
                    .get("access-control-allow-credentials")
                    .is_none()
            );
        }
    }
}
