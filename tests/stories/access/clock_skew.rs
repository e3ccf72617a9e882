//! A gateway with a wrong clock: the clocks of Postgres and Redis decide who has access, and until
//! when.

use std::path::Path;

use reqwest::Method;
use runcast_tests::api::Api;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::Process;
use runcast_tests::stack::{Service, Stack};
use serde_json::json;

use super::fixtures::{ask, sign_in, status_with, user};

/// Debian's path; `tests/run` installs the package.
const LIBRARY_FOLDER: &str = "/usr/lib";
const FAKETIME_LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The library that fakes the clock.
fn library() -> String {
    let parameters = std::fs::read_dir(LIBRARY_FOLDER).expect("a folder of libraries");
    let found = parameters
        .filter_map(|entry| Some(entry.ok()?.path().join(FAKETIME_LIBRARY)))
        .find(|path| Path::exists(path));
    let path = found.expect("libfaketime is missing: call tests/run, which installs it");
    path.display().to_string()
}

/// A gateway whose clock is off by this much, such as `+1h`, and runs at normal speed.
async fn gateway(stack: &Stack, off: &str) -> (Process, Api) {
    let mut spec = stack.service_spec(Service::Gateway);
    spec.name = format!("gateway{off}");
    let spec = spec.with_env([
        ("RUNCAST_LISTEN", "127.0.0.1:0"),
        ("LD_PRELOAD", &library()),
        ("FAKETIME", off),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    let mut process = spec.start(stack.folder());
    let url = process
        .wait_for_line("Runcast is ready at ", WAIT_DEADLINE)
        .await;
    let api = Api::new(&url, stack.token());
    (process, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_with_wrong_clock_accepts_the_same_credentials() {
    let stack = Stack::start().await;
    let right = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    for off in ["+1h", "-1h"] {
        let (_process, wrong) = gateway(&stack, off).await;
        // Its clock is indeed wrong.
        let response = wrong.anonymous(Method::GET, "/healthz").send().await;
        let date = response.expect("a response").headers()["date"].clone();
        let own = right.anonymous(Method::GET, "/healthz").send().await;
        assert_ne!(
            date.as_bytes()[..22],
            own.expect("a response").headers()["date"].as_bytes()[..22]
        );
        // Valid for half an hour by the clock of Postgres: still valid here. Expired there: expired
        // here.
        for (interval, expected) in [("30 minutes", 200), ("-1 second", 401)] {
            let body = json!({"name": "short", "scopes": ["runs:read"]});
            let created = ask(&right, Method::POST, "/v1/tokens", &body, 201).await;
            let (id, token) = (
                created["id"].as_str().expect("an id"),
                created["token"].as_str(),
            );
            let end = format!(
                "UPDATE tokens SET expires_at = now() + interval '{interval}' WHERE id = '{id}'"
            );
            stack.database.execute(&end).await;
            stack
                .database
                .wait_for_number("SELECT count(*) FROM access_changes", 0)
                .await;
            for api in [&wrong, &right] {
                let status = status_with(api, token.expect("a token"), "/v1/runs").await;
                assert_eq!(status, expected, "{off}, {interval}");
            }
        }
        // A session of either gateway is valid at both; an ended one at neither.
        for (at, other) in [(&wrong, &right), (&right, &wrong)] {
            let ada = sign_in(at, "ada").await;
            assert_eq!(ada.at(other).status(Method::GET, "/v1/session").await, 200);
            let life =
                "SELECT count(*) FROM sessions WHERE expires_at > now() + interval '23 hours'
                           AND expires_at <= now() + interval '24 hours'";
            assert!(stack.database.query_number(life).await > 0, "{off}");
            let end = "UPDATE sessions SET expires_at = now() - interval '1 second'";
            stack.database.execute(end).await;
            stack
                .database
                .wait_for_number("SELECT count(*) FROM access_changes", 0)
                .await;
            for api in [at, other] {
                assert_eq!(
                    ada.at(api).status(Method::GET, "/v1/session").await,
                    401,
                    "{off}"
                );
            }
        }
    }
}

/// An active session is prolonged, without a write per request, whichever clock is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_session_is_prolonged_by_gateway_with_wrong_clock() {
    let stack = Stack::start().await;
    user(&stack, "ada", &["viewer"]).await;
    for off in ["+1h", "-1h"] {
        let (_process, wrong) = gateway(&stack, off).await;
        let ada = sign_in(&wrong, "ada").await;
        // As if it had begun a while ago.
        let age = "UPDATE sessions SET last_seen_at = now() - interval '5 minutes',
                          expires_at = now() + interval '10 hours'";
        stack.database.execute(age).await;
        stack
            .database
            .wait_for_number("SELECT count(*) FROM access_changes", 0)
            .await;
        assert_eq!(ada.status(Method::GET, "/v1/session").await, 200);
        let moved = "SELECT count(*) FROM sessions WHERE expires_at > now() + interval '23 hours'";
        stack.database.wait_for_number(moved, 1).await;
        let version = "SELECT xmin::text FROM sessions";
        let before = stack.database.query_strings(version).await;
        for _ in 0..20 {
            assert_eq!(ada.status(Method::GET, "/v1/session").await, 200);
        }
        assert_eq!(
            stack.database.query_strings(version).await,
            before,
            "{off}: one write, not twenty"
        );
        stack.database.execute("DELETE FROM sessions").await;
    }
}
