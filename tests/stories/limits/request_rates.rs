//! Requests over a limit are refused with the time to retry; other requests are not.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, problem, send};
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::stack::Service;
use serde_json::{Value, json};

use super::fixtures::{from, header, limited, list, metric, non_admin};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_client_gets_remaining_quota_and_retry_time() {
    let stack = limited("read=3/h,write=2/h").await;
    let (one, other) = (
        non_admin(&stack, "runs:read").await,
        non_admin(&stack, "runs:read").await,
    );
    for left in [2, 1, 0] {
        let answer = list(&one).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(header(&answer, "ratelimit-policy"), "\"read\";q=3;w=3600");
        let says = header(&answer, "ratelimit").to_owned();
        assert!(says.starts_with(&format!("\"read\";r={left};t=")), "{says}");
    }
    let answer = list(&one).await;
    let wait: u64 = header(&answer, "retry-after").parse().expect("seconds");
    assert!(
        (1100..=1200).contains(&wait),
        "one permit refills in 20 min: {wait}"
    );
    assert!(header(&answer, "ratelimit").starts_with("\"read\";r=0;t="));
    let detail = problem(answer, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(detail.contains("limit read"), "{detail}");
    // Other classes, other clients and free operations continue.
    let write = one
        .request(Method::POST, "/v1/runs")
        .json(&json!({"name": "x"}));
    problem(send(write).await, StatusCode::FORBIDDEN).await;
    assert_eq!(list(&other).await.status(), StatusCode::OK);
    for path in ["/healthz", "/readyz", "/"] {
        for _ in 0..5 {
            let answer = send(one.anonymous(Method::GET, path)).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            assert!(answer.headers().get("ratelimit").is_none(), "{path}");
        }
    }
    let admin = stack.api();
    for _ in 0..5 {
        assert_eq!(list(&admin).await.status(), StatusCode::OK);
    }
    let limited = r#"runcast_limits_limited_total{policy="read",source="redis"}"#;
    assert_eq!(metric(&stack, limited).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unauthorized_requests_count() {
    let stack = limited("read=3/h,write=3/h").await;
    let one = non_admin(&stack, "runs:publish").await;
    let ask = async |method: Method, path: &str| send(one.request(method, path)).await;
    // Without the scope: a valid token may send as many requests as with it, and no more.
    for left in [2, 1, 0] {
        let answer = ask(Method::GET, "/v1/users").await;
        assert!(header(&answer, "ratelimit").starts_with(&format!("\"read\";r={left};t=")));
        problem(answer, StatusCode::FORBIDDEN).await;
    }
    let answer = ask(Method::GET, "/v1/users").await;
    assert!(header(&answer, "ratelimit").starts_with("\"read\";r=0;t="));
    problem(answer, StatusCode::TOO_MANY_REQUESTS).await;
    problem(
        ask(Method::GET, "/v1/runs").await,
        StatusCode::TOO_MANY_REQUESTS,
    )
    .await;
    // By a method that the path does not support, before authentication: counted by address.
    for status in [405, 405, 405, 429] {
        let request = from(one.request(Method::DELETE, "/v1/runs"), "203.0.113.1");
        assert_eq!(send(request).await.status(), status);
    }
    let cross_site = from(one.request(Method::DELETE, "/v1/runs"), "203.0.113.2");
    assert_eq!(send(cross_site).await.status(), 405);
    let admin = stack.api();
    for _ in 0..5 {
        assert_eq!(list(&admin).await.status(), StatusCode::OK);
    }
}

/// With a stolen session one guesses the user's password no faster by changing it than by signing
/// in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_change_attempts_are_limited() {
    let stack = limited("sign-in=3/h").await;
    let api = stack.api();
    let password = "correct horse battery";
    let new =
        json!({"name": "ada", "email": "a@example.com", "password": password, "roles": ["admin"]});
    let created_token = send(api.request(Method::POST, "/v1/users").json(&new)).await;
    assert_eq!(created_token.status(), StatusCode::CREATED);
    let body = json!({"user": "ada", "password": password});
    let signed_in = send(api.anonymous(Method::POST, "/v1/session").json(&body)).await;
    let cookie = signed_in.headers()["set-cookie"].clone();
    let guess = async |number: usize| {
        let body =
            json!({"password": format!("guess {number}"), "new_password": "another horse battery"});
        let request = api.anonymous(Method::PUT, "/v1/session/password");
        send(request.header("cookie", &cookie).json(&body)).await
    };
    for number in 0..2 {
        problem(guess(number).await, StatusCode::FORBIDDEN).await;
    }
    let detail = problem(guess(2).await, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(detail.contains("sign-in"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_refills_and_is_shared_by_all_gateways() {
    let stack = limited("read=2/s").await;
    let mut second = stack
        .service_spec(Service::Gateway)
        .with_env([
            ("RUNCAST_LISTEN", "127.0.0.1:0"),
            ("RUNCAST_METRICS_LISTEN", "127.0.0.1:0"),
        ])
        .start(stack.folder());
    let base = second
        .wait_for_line(Service::Gateway.ready_line(), WAIT_DEADLINE)
        .await;
    let token = stack.create_token("runs:read").await;
    let gateways = [
        Api::new(stack.api().base(), &token),
        Api::new(&base, &token),
    ];
    let began = std::time::Instant::now();
    let (mut served, mut refused) = (0, 0);
    while began.elapsed() < Duration::from_secs(4) {
        for gateway in &gateways {
            let answer = list(gateway).await;
            match answer.status() {
                StatusCode::OK => served += 1,
                StatusCode::TOO_MANY_REQUESTS => {
                    assert_eq!(header(&answer, "retry-after"), "1");
                    refused += 1;
                }
                status => panic!("{status}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let most = 2 + 2 * (began.elapsed().as_secs() + 1);
    assert!((6..=most).contains(&served), "{served} of {most} at most");
    assert!(refused > 0);
    second.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(second.wait_exit(WAIT_DEADLINE).await.success());
}

/// A thousand runs are not a thousand quotas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_runs_share_the_quota_of_their_parent() {
    let stack = limited("read=10/h").await;
    let body = json!({"name": "service", "scopes": ["runs:publish", "runs:read"]});
    let created = send(stack.api().request(Method::POST, "/v1/tokens").json(&body)).await;
    let created: Value = created.json().await.expect("JSON");
    let token = created["token"].as_str().expect("a token");
    let service = Api::new(stack.api().base(), token);
    let mut served = 0;
    for creator in [&service, &stack.api()] {
        let mut clients = vec![];
        for number in 0..4 {
            let run = creator.create_run(&format!("run {number}")).await;
            clients.push(Api::new(service.base(), &run.token));
        }
        for client in clients.iter().cycle().take(20) {
            served += u32::from(list(client).await.status() == StatusCode::OK);
        }
    }
    assert_eq!(
        served, 20,
        "ten for each creator, whatever the number of runs"
    );
    assert_eq!(list(&service).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        list(&stack.api()).await.status(),
        StatusCode::OK,
        "an administrator has no limit"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_count_in_a_window_and_as_reads() {
    let stack = limited("read=100/h,search=2/h").await;
    let run = stack.api().create_run("searched").await.id;
    let reader = non_admin(&stack, "runs:read").await;
    let path = format!("/v1/runs/{run}/search?q=x");
    for left in [1, 0] {
        let answer = send(reader.request(Method::GET, &path)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let policies = "\"read\";q=100;w=3600, \"search\";q=2;w=3600";
        assert_eq!(header(&answer, "ratelimit-policy"), policies);
        let says = header(&answer, "ratelimit").to_owned();
        assert!(says.contains(&format!("\"search\";r={left};t=")), "{says}");
    }
    let answer = send(reader.request(Method::GET, &path)).await;
    let says = header(&answer, "ratelimit").to_owned();
    assert!(
        says.starts_with("\"read\";r=98;"),
        "a refused request takes no quota: {says}"
    );
    let wait: u64 = header(&answer, "retry-after").parse().expect("seconds");
    assert!((1..=7200).contains(&wait), "{wait}");
    let detail = problem(answer, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(detail.contains("limit search"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_in_is_limited_by_address_and_principal() {
    let stack = limited("sign-in=3/h").await;
    let api = stack.api();
    let sign_in = async |token: &str, address: &str| {
        let body = json!({"token": token});
        let request = api.anonymous(Method::POST, "/v1/session").json(&body);
        send(from(request, address)).await.status()
    };
    // The admin as well.
    for _ in 0..3 {
        assert_eq!(sign_in(stack.token(), "192.0.2.1").await, StatusCode::OK);
    }
    let too_many = StatusCode::TOO_MANY_REQUESTS;
    let other = stack.create_token("runs:read").await;
    assert_eq!(sign_in(&other, "192.0.2.1").await, too_many, "the address");
    assert_eq!(
        sign_in(stack.token(), "192.0.2.2").await,
        too_many,
        "the token"
    );
    assert_eq!(sign_in(&other, "192.0.2.2").await, StatusCode::OK);
    // A customer has a whole network of IPv6 addresses.
    let mut statuses = Vec::new();
    for last in 1..=4 {
        statuses.push(sign_in("rct_wrong", &format!("2001:db8:0:1::{last}")).await);
    }
    let wrong = StatusCode::UNAUTHORIZED;
    assert_eq!(statuses, [wrong, wrong, wrong, too_many]);
    assert_eq!(sign_in("rct_wrong", "2001:db8:0:2::1").await, wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_trusted_proxies_set_the_client_address() {
    let mut stack = runcast_tests::stack::Stack::without_services().await;
    stack.set(Service::Gateway, "RUNCAST_LIMITS", "sign-in=3/h");
    stack.start_all().await;
    let api = stack.api();
    let mut statuses = Vec::new();
    for last in 1..=5 {
        let body = json!({"token": "rct_wrong"});
        let request = api.anonymous(Method::POST, "/v1/session").json(&body);
        let forged = from(request, &format!("192.0.2.{last}")).header("forwarded", "for=192.0.2.9");
        statuses.push(send(forged).await.status().as_u16());
    }
    assert_eq!(
        statuses,
        [401, 401, 401, 429, 429],
        "forged addresses change nothing"
    );
    let logs = stack.logs(Service::Gateway);
    let received = logs.matches("list it in RUNCAST_TRUSTED_PROXIES").count();
    assert_eq!(received, 1, "once: {logs}");
    // With the proxy listed, addresses that a client adds before its own change nothing either.
    stack.stop(Service::Gateway).await;
    stack.set(Service::Gateway, "RUNCAST_TRUSTED_PROXIES", "127.0.0.1");
    stack.start_service(Service::Gateway).await;
    let mut statuses = Vec::new();
    for last in 1..=4 {
        let body = json!({"token": "rct_wrong"});
        let request = api.anonymous(Method::POST, "/v1/session").json(&body);
        let forged = from(request, &format!("192.0.2.{last}, 198.51.100.1"));
        statuses.push(send(forged).await.status().as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 429]);
}
