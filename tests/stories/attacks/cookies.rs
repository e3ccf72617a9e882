//! Planted cookies, and other sites that make a browser send requests.

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Method, RequestBuilder, StatusCode};
use runcast_tests::api::{Api, problem, send};
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};

use super::super::access::fixtures::{Browser, USER_PASSWORD, sign_in, user};
use super::super::access_matrix::path_parameters::PathParameters;
use super::fixtures::{assert_calm, operations};

/// Signing in creates a new secret session, whatever cookies the browser was made to send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_session_cookie_is_never_adopted() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "eve", &["viewer"]).await;
    user(&stack, "ada", &["operator"]).await;
    // A valid session of the attacker; one in the server's format; one in no valid format; two at
    // once.
    let eve = sign_in(&api, "eve").await;
    let invented = "runcast_session=AAAAAAAAAAAAAAAAAAAAAA".to_owned();
    let both = format!("{invented}; {}", eve.cookie);
    for planted in [
        invented.clone(),
        "runcast_session=x".to_owned(),
        both,
        eve.cookie.clone(),
    ] {
        let body = json!({"user": "ada", "password": USER_PASSWORD});
        let request = api.anonymous(Method::POST, "/v1/session").json(&body);
        let response = send(request.header(COOKIE, &planted)).await;
        assert_eq!(response.status(), StatusCode::OK, "{planted}");
        let set = response.headers()[SET_COOKIE].to_str().expect("text");
        let fresh = set.split(';').next().expect("a pair").to_owned();
        assert!(!planted.contains(&fresh), "{planted} became {fresh}");
        let who = json_with(&api, &fresh).await;
        assert_eq!(who["name"], "ada");
        // A planted cookie is worth nothing, or the same as before; it never gives access to Ada's
        // data.
        let request = api.anonymous(Method::GET, "/v1/session");
        let response = send(request.header(COOKIE, &planted)).await;
        if response.status() == StatusCode::OK {
            let who: Value = response.json().await.expect("JSON");
            assert_eq!(who["name"], "eve", "{planted}");
        }
    }
    // No response except that of signing in sets a cookie.
    for path in ["/", "/v1/session", "/v1/runs", "/healthz"] {
        let response = send(api.anonymous(Method::GET, path).header(COOKIE, &invented)).await;
        assert!(!response.headers().contains_key(SET_COOKIE), "{path}");
    }
    assert_calm(&stack);
}

/// Another host of the same domain can set a cookie for this one, but none with the prefix
/// `__Host-`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_accepts_only_host_prefixed_cookies() {
    let mut stack = Stack::without_services().await;
    let url = "https://runcast.example.com";
    stack.set(Service::Gateway, "RUNCAST_PUBLIC_URL", url);
    stack.start_all().await;
    let api = stack.api();
    user(&stack, "eve", &["viewer"]).await;
    let eve = sign_in(&api, "eve").await;
    let value = eve.cookie.strip_prefix("__Host-runcast_session=");
    let tossed = format!("runcast_session={}", value.expect("its name"));
    let status = async |cookie: &str| {
        let request = api.anonymous(Method::GET, "/v1/session");
        send(request.header(COOKIE, cookie)).await.status()
    };
    assert_eq!(status(&eve.cookie).await, StatusCode::OK);
    assert_eq!(status(&tossed).await, StatusCode::UNAUTHORIZED);
}

async fn json_with(api: &Api, cookie: &str) -> Value {
    let request = api.anonymous(Method::GET, "/v1/session");
    let response = send(request.header(COOKIE, cookie)).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.expect("JSON")
}

/// Headers that a browser sends with a request made by another site.
const CROSS_SITE_HEADERS: [&[(&str, &str)]; 6] = [
    &[("sec-fetch-site", "cross-site")],
    // Another host of the same domain, or another port of the same host.
    &[("sec-fetch-site", "same-site")],
    &[("sec-fetch-site", "nonsense")],
    // Older browsers.
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    // One good header does not outweigh a bad one.
    &[
        ("sec-fetch-site", "cross-site"),
        ("origin", "http://127.0.0.1"),
    ],
];

fn with_headers(request: RequestBuilder, headers: &[(&str, &str)]) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cross_site_requests_cannot_write() {
    let stack = Stack::start().await;
    let api = stack.api();
    let parameters = PathParameters::prepare(&stack).await;
    user(&stack, "ada", &["admin"]).await;
    let ada = sign_in(&api, "ada").await;
    let audit = "SELECT count(*) FROM audit_log";
    let before = stack.database.query_number(audit).await;
    let mut refused = 0;
    for (method, path) in operations(&stack).await {
        if method == Method::GET {
            continue;
        }
        let real = parameters.path(&path);
        for headers in CROSS_SITE_HEADERS {
            // A content type that a form can send, and one that it cannot.
            for kind in ["text/plain", "application/json"] {
                let request = api.anonymous(method.clone(), &real);
                let request = request
                    .header(COOKIE, &ada.cookie)
                    .header("content-type", kind);
                let response = send(with_headers(request, headers).body("{}")).await;
                let words = problem(response, StatusCode::FORBIDDEN).await;
                assert!(words.contains("page itself"), "{method} {path}: {words}");
                refused += 1;
            }
        }
    }
    assert!(refused > 200, "{refused}");
    assert_eq!(
        stack.database.query_number(audit).await,
        before,
        "nothing was written"
    );
    assert_still_works(&ada).await;
    assert_calm(&stack);
}

/// The session is unaffected.
async fn assert_still_works(browser: &Browser) {
    let likes = json!({"preferences": {"clock": true}});
    browser
        .send(Method::PATCH, "/v1/session", &likes, 200)
        .await;
}
