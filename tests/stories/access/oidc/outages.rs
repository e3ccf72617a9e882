//! When the provider or Redis is unreachable, other ways to sign in still work.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use runcast_tests::api::{problem, send};
use runcast_tests::eventually::eventually;
use runcast_tests::oidc_browser::{OidcBrowser, redirect_target};
use runcast_tests::oidc_provider::Algorithm;
use runcast_tests::stack::Service;

use super::super::fixtures::{sign_in, user};
use super::fixture::{GATEWAY_HOST, LOGIN_COOKIE, SESSION_COOKIE, Scene};

/// Longest time for a login to detect that the provider does not answer.
const LOGIN_DEADLINE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_provider_affects_only_oidc_sign_in() {
    let mut scene = Scene::prepare(Algorithm::Es256, &[]).await;
    scene.provider.stop();
    scene.stack.start_all().await;
    let api = scene.stack.api();
    user(&scene.stack, "ada", &["viewer"]).await;
    let browser = OidcBrowser::default();
    for _ in 0..3 {
        let response = browser.get(&scene.at("/v1/session/oidc")).await;
        assert!(response.headers().contains_key("retry-after"));
        problem(response, StatusCode::SERVICE_UNAVAILABLE).await;
    }
    let page = browser.get_page(&scene.at("/v1/session/oidc")).await;
    assert_eq!(redirect_target(page).await, "/#/?sign-in=unavailable");
    assert_eq!(browser.cookie(GATEWAY_HOST, LOGIN_COOKIE), None);
    let by_password = sign_in(&api, "ada").await;
    assert_eq!(by_password.status(Method::GET, "/v1/runs").await, 200);
    let ready = send(api.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(
        ready.status(),
        StatusCode::OK,
        "readiness does not depend on the provider"
    );
    // Repeated failures are logged once in a while.
    let logs = scene.stack.logs(Service::Gateway);
    let lines = logs
        .lines()
        .filter(|line| line.contains("the OpenID Connect issuer is unavailable"));
    assert!((1..=3).contains(&lines.count()), "{logs}");

    scene.provider.restart().await;
    let begun = eventually("the provider is requested again", async || {
        let response = browser.get(&scene.at("/v1/session/oidc")).await;
        match response.status() {
            StatusCode::SEE_OTHER => Ok(response),
            status => Err(status.to_string()),
        }
    })
    .await;
    let back = redirect_target(browser.get(&redirect_target(begun).await).await).await;
    // It stops while a user is at the provider.
    scene.provider.stop();
    let response = browser.get(&back).await;
    scene
        .refused(&browser, response, StatusCode::SERVICE_UNAVAILABLE)
        .await;
    scene.provider.restart().await;
    assert_eq!(scene.sign_in(&browser).await["name"], "ada");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_provider_times_out() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    scene.provider.set_hanging(true);
    let began = Instant::now();
    let browsers: Vec<OidcBrowser> = (0..10).map(|_| OidcBrowser::default()).collect();
    let url = scene.at("/v1/session/oidc");
    let all = browsers.iter().map(|browser| browser.get(&url));
    for response in futures::future::join_all(all).await {
        problem(response, StatusCode::SERVICE_UNAVAILABLE).await;
    }
    assert!(began.elapsed() < LOGIN_DEADLINE, "{:?}", began.elapsed());
    scene.provider.set_hanging(false);
    let browser = &browsers[0];
    let begun = eventually("the provider is requested again", async || {
        let response = browser.get(&url).await;
        match response.status() {
            StatusCode::SEE_OTHER => Ok(response),
            status => Err(status.to_string()),
        }
    })
    .await;
    let back = redirect_target(browser.get(&redirect_target(begun).await).await).await;
    scene.provider.set_hanging(true);
    let began = Instant::now();
    let response = browser.get(&back).await;
    scene
        .refused(browser, response, StatusCode::SERVICE_UNAVAILABLE)
        .await;
    assert!(began.elapsed() < LOGIN_DEADLINE, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_password_sign_in_works() {
    let mut scene = Scene::start(&[]).await;
    scene.stack.redis.enable_append_only_file().await;
    user(&scene.stack, "ada", &["viewer"]).await;
    let browser = OidcBrowser::default();
    let back = scene.callback_url(&browser, "/v1/session/oidc").await;
    scene.stack.redis.kill();
    let other = OidcBrowser::default();
    let response = other.get(&scene.at("/v1/session/oidc")).await;
    problem(response, StatusCode::SERVICE_UNAVAILABLE).await;
    let response = browser.get(&back).await;
    scene
        .refused(&browser, response, StatusCode::SERVICE_UNAVAILABLE)
        .await;
    let by_password = sign_in(&scene.stack.api(), "ada").await;
    assert_eq!(by_password.status(Method::GET, "/v1/runs").await, 200);
    // The login continues when Redis is back: its state was not used up.
    scene.stack.redis.restart().await;
    eventually("Redis is used again", async || {
        let response = browser.get(&back).await;
        match response.status() {
            StatusCode::SEE_OTHER => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert!(browser.cookie(GATEWAY_HOST, SESSION_COOKIE).is_some());
}
