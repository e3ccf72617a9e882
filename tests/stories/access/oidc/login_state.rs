//! A callback is valid once, in time, and only in the browser that started the login.

use redis::AsyncCommands as _;
use reqwest::StatusCode;
use runcast_tests::oidc_browser::{OidcBrowser, redirect_target};
use runcast_tests::oidc_provider::Account;

use super::super::fixtures::user;
use super::fixture::{GATEWAY_HOST, LOGIN_COOKIE, Scene};

/// The URL with another `state`.
fn with_state(back: &str, state: &str) -> String {
    let mut url: reqwest::Url = back.parse().expect("a URL");
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let pairs = pairs.into_iter().filter(|(name, _)| name != "state");
    let pairs: Vec<_> = pairs.collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(pairs)
        .append_pair("state", state);
    url.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callback_is_valid_once_and_only_in_its_browser() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    let (ada, eve) = (OidcBrowser::default(), OidcBrowser::default());
    let back = scene.callback_url(&ada, "/v1/session/oidc").await;
    // Eve has an account as well. She wants Ada to sign in as Eve, or to sign in as Ada.
    scene.provider.sign_in_as(Account::new("eve"));
    let of_eve = scene.callback_url(&eve, "/v1/session/oidc").await;
    let nobody = OidcBrowser::default();
    for (browser, url) in [
        (&nobody, &back),
        (&nobody, &of_eve),
        (&eve, &back),
        (&ada, &of_eve),
        (&ada, &with_state(&back, "")),
        (
            &ada,
            &with_state(&back, "another-state-that-is-as-long-as-one"),
        ),
    ] {
        let response = browser.get(url).await;
        let why = scene
            .refused(browser, response, StatusCode::BAD_REQUEST)
            .await;
        assert!(why.contains("begin again"), "{why}");
    }
    // None of these attempts used up the login.
    let secret = ada.cookie(GATEWAY_HOST, LOGIN_COOKIE).expect("still");
    assert_eq!(redirect_target(ada.get(&back).await).await, "/");
    assert_eq!(scene.who(&ada).await["name"], "ada");
    // Again, also with the used cookie.
    let thief = OidcBrowser::default();
    thief.set_cookie(GATEWAY_HOST, LOGIN_COOKIE, &secret);
    let response = thief.get(&back).await;
    scene
        .refused(&thief, response, StatusCode::BAD_REQUEST)
        .await;
    assert_eq!(scene.who(&ada).await["name"], "ada");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callbacks_sign_in_once() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    let browser = OidcBrowser::default();
    let back = scene.callback_url(&browser, "/v1/session/oidc").await;
    let all = futures::future::join_all((0..8).map(|_| browser.get(&back))).await;
    let statuses: Vec<StatusCode> = all.iter().map(reqwest::Response::status).collect();
    let signed_in = statuses.iter().filter(|one| **one == StatusCode::SEE_OTHER);
    assert_eq!(signed_in.count(), 1, "{statuses:?}");
    let sessions = "SELECT count(*) FROM sessions";
    assert_eq!(scene.stack.database.query_number(sessions).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_state_expires_and_is_useless_to_redis_readers() {
    let scene = Scene::start(&[]).await;
    let browser = OidcBrowser::default();
    let back = scene.callback_url(&browser, "/v1/session/oidc").await;
    let secret = browser
        .cookie(GATEWAY_HOST, LOGIN_COOKIE)
        .expect("a secret");
    let mut redis = scene.stack.redis.connection().await;
    let pattern = format!("{}auth:attempt:*", scene.stack.keys().prefix());
    let keys: Vec<String> = redis.keys(&pattern).await.expect("keys");
    assert_eq!(keys.len(), 1, "{keys:?}");
    let life: i64 = redis.ttl(&keys[0]).await.expect("a life");
    assert!((500..=600).contains(&life), "{life}");
    let retained: String = redis.get(&keys[0]).await.expect("a login in progress");
    let state = back
        .split("state=")
        .nth(1)
        .and_then(|rest| rest.split('&').next());
    for hidden in [secret.as_str(), state.expect("a state")] {
        assert!(
            !retained.contains(hidden) && !keys[0].contains(hidden),
            "{retained}"
        );
    }
    // Ten minutes later.
    let gone: i64 = redis
        .del(&keys[0])
        .await
        .expect("the login state is deleted");
    assert_eq!(gone, 1);
    let response = browser.get(&back).await;
    scene
        .refused(&browser, response, StatusCode::BAD_REQUEST)
        .await;
    // A browser that requests a page is shown the page.
    assert_eq!(
        redirect_target(browser.get_page(&back).await).await,
        "/#/?sign-in=stale"
    );
}
