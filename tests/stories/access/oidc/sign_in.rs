//! The whole flow: to the provider and back, at one gateway or two, and what it leaves behind.

use reqwest::header::SET_COOKIE;
use reqwest::{Method, StatusCode, Url};
use runcast_tests::api::{problem, send};
use runcast_tests::oidc_browser::{OidcBrowser, redirect_target};
use runcast_tests::oidc_provider::Algorithm;
use runcast_tests::oidc_provider::TokenFault;
use runcast_tests::stack::{Service, Stack};
use serde_json::json;

use super::super::fixtures::{USER_PASSWORD, json_of, second_gateway, sign_in_with, user};
use super::fixture::{GATEWAY_HOST, LOGIN_COOKIE, SESSION_COOKIE, Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_signs_in_and_returns_to_the_requested_page() {
    // With RSA, as most providers use; all other stories use ECDSA.
    let mut scene = Scene::prepare(Algorithm::Rs256, &[("RUNCAST_OIDC_NAME", "Example")]).await;
    scene.stack.start_all().await;
    let id = user(&scene.stack, "ada", &["operator"]).await;
    let browser = OidcBrowser::default();
    let ways = browser.get(&scene.at("/v1/session/ways")).await;
    let ways = json_of(ways, StatusCode::OK).await;
    assert_eq!(ways, json!({"oidc": {"name": "Example"}}));
    // A session never continues a cookie that was set before.
    browser.set_cookie(GATEWAY_HOST, SESSION_COOKIE, "AAAAAAAAAAAAAAAAAAAAAA");
    let begin = "/v1/session/oidc?return_to=%2F%23%2Fruns%2F0190&client=laptop";
    let begun = browser.get(&scene.at(begin)).await;
    assert_eq!(begun.status(), StatusCode::SEE_OTHER);
    let set = begun.headers().get(SET_COOKIE).expect("a cookie").clone();
    let set = set.to_str().expect("text").to_owned();
    for word in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"] {
        assert!(set.contains(word), "{set}");
    }
    let to = redirect_target(begun).await;
    let secret = browser
        .cookie(GATEWAY_HOST, LOGIN_COOKIE)
        .expect("a secret");
    assert!(!to.contains(&secret), "it stays in the browser: {to}");
    let back = redirect_target(browser.get(&to).await).await;
    assert_eq!(
        redirect_target(browser.get(&back).await).await,
        "/#/runs/0190"
    );
    let who = scene.who(&browser).await;
    assert_eq!(who["user"]["id"].as_str(), Some(id.as_str()), "{who}");
    assert_eq!(
        browser.cookie(GATEWAY_HOST, LOGIN_COOKIE),
        None,
        "it is over"
    );
    let [linked] = &scene.audit("identity.linked").await[..] else {
        panic!("linked once");
    };
    assert_eq!(linked["actor_name"], "ada");
    assert_eq!(linked["details"]["subject"], "subject of ada");
    let [created] = &scene.audit("session.created").await[..] else {
        panic!("signed in once");
    };
    assert_eq!(created["details"]["by"], "oidc", "{created}");

    // The same client again, by password: it replaces the session, and the two ways are
    // distinguished.
    let body = json!({"user": "ada", "password": USER_PASSWORD, "client": "laptop"});
    sign_in_with(&scene.stack.api(), &body).await;
    let over = browser.get(&scene.at("/v1/session")).await;
    assert_eq!(over.status(), StatusCode::UNAUTHORIZED);
    let created = scene.audit("session.created").await;
    assert_eq!(created[0]["details"]["by"], "password", "{created:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_in_ends_the_previous_session() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    let browser = OidcBrowser::default();
    scene.sign_in(&browser).await;
    let before = browser
        .cookie(GATEWAY_HOST, SESSION_COOKIE)
        .expect("a session");
    scene.sign_in(&browser).await;
    let after = browser
        .cookie(GATEWAY_HOST, SESSION_COOKIE)
        .expect("a session");
    assert_ne!(before, after);
    let other = OidcBrowser::default();
    other.set_cookie(GATEWAY_HOST, SESSION_COOKIE, &before);
    let response = other.get(&scene.at("/v1/session")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(scene.audit("identity.linked").await.len(), 1);
    assert_eq!(scene.provider.discovery_count(), 1, "the session is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_may_start_and_end_at_different_gateways() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    // Both have the same address, as browsers see it.
    let other = second_gateway(&scene.stack, &[]).await;
    let bases = [
        scene.stack.api().base().to_owned(),
        other.api.base().to_owned(),
    ];
    for (begins, ends) in [(0, 1), (1, 0)] {
        let browser = OidcBrowser::default();
        let begin = format!("{}/v1/session/oidc", bases[begins]);
        let provider = redirect_target(browser.get(&begin).await).await;
        let back = redirect_target(browser.get(&provider).await).await;
        let back = back.replace(&bases[0], &bases[ends]);
        assert_eq!(redirect_target(browser.get(&back).await).await, "/");
        assert_eq!(scene.who(&browser).await["name"], "ada");
        // The login is over at both.
        for base in &bases {
            let again = back.replace(&bases[ends], base);
            problem(browser.get(&again).await, StatusCode::BAD_REQUEST).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_redirect_leaves_the_gateway() {
    let scene = Scene::start(&[]).await;
    let browser = OidcBrowser::default();
    for to in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/.//evil.example",
        "javascript:alert(1)",
        "runs",
    ] {
        let mut url: Url = scene.at("/v1/session/oidc").parse().expect("a URL");
        url.query_pairs_mut().append_pair("return_to", to);
        let response = browser.get(url.as_str()).await;
        let why = problem(response, StatusCode::BAD_REQUEST).await;
        assert!(why.starts_with("return_to"), "{why}");
    }
    assert_eq!(browser.cookie(GATEWAY_HOST, LOGIN_COOKIE), None);
    // Other sites cannot redirect a browser either.
    let request = scene.stack.api().anonymous(Method::GET, "/v1/session/oidc");
    let response = send(request.header("sec-fetch-site", "cross-site")).await;
    problem(response, StatusCode::FORBIDDEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oidc_is_optional_and_incomplete_settings_are_refused() {
    let mut scene = Scene::prepare(Algorithm::Es256, &[]).await;
    for name in [
        "RUNCAST_OIDC_ISSUER",
        "RUNCAST_OIDC_CLIENT_ID",
        "RUNCAST_OIDC_CLIENT_SECRET",
        "RUNCAST_PUBLIC_URL",
    ] {
        let mut spec = scene.stack.service_spec(Service::Gateway);
        spec.environment.retain(|(known, _)| known != name);
        let mut process = spec.start(scene.stack.folder());
        let status = process
            .wait_exit(runcast_tests::eventually::WAIT_DEADLINE)
            .await;
        assert_eq!(status.code(), Some(78), "{}", process.logs());
        let output = process.logs();
        assert!(output.contains(&format!("{name} is not set")), "{output}");
    }
    for name in [
        "RUNCAST_OIDC_ISSUER",
        "RUNCAST_OIDC_CLIENT_ID",
        "RUNCAST_OIDC_CLIENT_SECRET",
    ] {
        scene.stack.unset(Service::Gateway, name);
    }
    scene.stack.start_all().await;
    let api = scene.stack.api();
    assert_eq!(api.get("/v1/session/ways").await, json!({}));
    for path in [
        "/v1/session/oidc",
        "/v1/session/oidc/callback?state=a&code=b",
    ] {
        let response = send(api.anonymous(Method::GET, path)).await;
        problem(response, StatusCode::NOT_FOUND).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oidc_sign_in_shares_the_sign_in_limit() {
    let scene = Scene::start(&[("RUNCAST_LIMITS", "sign-in=3/min")]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    let browser = OidcBrowser::default();
    for _ in 0..3 {
        scene.sign_in(&browser).await;
    }
    let response = browser.get(&scene.at("/v1/session/oidc")).await;
    assert!(response.headers().contains_key("retry-after"));
    let why = problem(response, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(why.contains("sign in"), "{why}");
    assert_eq!(scene.who(&browser).await["name"], "ada", "still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_cookies_have_the_host_prefix() {
    let mut scene = Scene::prepare(Algorithm::Es256, &[]).await;
    let url = "https://runcast.example.com";
    scene.stack.set(Service::Gateway, "RUNCAST_PUBLIC_URL", url);
    scene.stack.start_all().await;
    let browser = OidcBrowser::default();
    let begun = browser.get(&scene.at("/v1/session/oidc")).await;
    let set = begun.headers().get(SET_COOKIE).expect("a cookie").clone();
    let set = set.to_str().expect("text").to_owned();
    assert!(set.starts_with("__Host-runcast_oidc="), "{set}");
    assert!(set.contains("Secure") && set.contains("Path=/"), "{set}");
    let to: Url = redirect_target(begun).await.parse().expect("a URL");
    let callback = to.query_pairs().find(|(name, _)| name == "redirect_uri");
    let callback = callback.expect("a return address").1;
    assert_eq!(callback, format!("{url}/v1/session/oidc/callback"));
    // The cookie without the prefix was set by another host.
    let secret = browser.cookie(GATEWAY_HOST, "__Host-runcast_oidc");
    let other = OidcBrowser::default();
    other.set_cookie(GATEWAY_HOST, LOGIN_COOKIE, &secret.expect("a secret"));
    let state = to.query_pairs().find(|(name, _)| name == "state");
    let state = state.expect("a state").1;
    let back = scene.at(&format!("/v1/session/oidc/callback?code=c&state={state}"));
    problem(other.get(&back).await, StatusCode::BAD_REQUEST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_neither_stored_nor_returned() {
    let mut scene = Scene::prepare(Algorithm::Es256, &[("RUNCAST_LOG", "debug")]).await;
    scene.stack.start_all().await;
    user(&scene.stack, "ada", &["viewer"]).await;
    let mut secrets = Vec::new();
    let mut received = Vec::new();
    for fault in [None, Some(TokenFault::WrongAudience)] {
        scene.provider.set_token_fault(fault);
        let browser = OidcBrowser::default();
        let back = scene.callback_url(&browser, "/v1/session/oidc").await;
        secrets.extend(browser.cookie(GATEWAY_HOST, LOGIN_COOKIE));
        for _ in 0..2 {
            let response = browser.get(&back).await;
            received.push(response.text().await.expect("a body"));
        }
        secrets.extend(browser.cookie(GATEWAY_HOST, SESSION_COOKIE));
    }
    secrets.extend(scene.provider.secrets());
    assert!(secrets.len() >= 10, "{}", secrets.len());
    received.push(scene.stack.logs(Service::Gateway));
    received.push(rows(&scene.stack).await);
    for text in received {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

async fn rows(stack: &Stack) -> String {
    let mut text = String::new();
    for table in ["audit_log", "identities", "sessions", "users"] {
        let rows = format!("SELECT t::text FROM {table} t");
        text += &stack.database.query_strings(&rows).await.join("\n");
    }
    text
}
