//! An issuer that is away, or Redis, keeps nobody from signing in by another way.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use runcast_tests::api::{problem, send};
use runcast_tests::eventually::eventually;
use runcast_tests::jwt::Algorithm;
use runcast_tests::stack::Part;
use runcast_tests::visitor::{Visitor, leads_to};

use super::super::people::{sign_in, user};
use super::{ATTEMPT, HOST, SESSION, Scene};

/// Longest time in which a sign-in may find out that the issuer does not answer.
const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_issuer_everything_else_works() {
    let mut scene = Scene::prepare(Algorithm::Es256, &[]).await;
    scene.issuer.leave();
    scene.stack.launch_all().await;
    let api = scene.stack.api();
    user(&scene.stack, "ada", &["viewer"]).await;
    let visitor = Visitor::default();
    for _ in 0..3 {
        let answer = visitor.get(&scene.at("/v1/session/oidc")).await;
        assert!(answer.headers().contains_key("retry-after"));
        problem(answer, StatusCode::SERVICE_UNAVAILABLE).await;
    }
    let page = visitor.look(&scene.at("/v1/session/oidc")).await;
    assert_eq!(leads_to(page).await, "/#/?sign-in=unavailable");
    assert_eq!(visitor.cookie(HOST, ATTEMPT), None);
    let by_password = sign_in(&api, "ada").await;
    assert_eq!(by_password.status(Method::GET, "/v1/runs").await, 200);
    let ready = send(api.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(ready.status(), StatusCode::OK, "others than it are needed");
    // What many asked in vain is told once in a while.
    let logs = scene.stack.logs(Part::Gateway);
    let lines = logs
        .lines()
        .filter(|line| line.contains("nobody can sign in by OpenID"));
    assert!((1..=3).contains(&lines.count()), "{logs}");

    scene.issuer.come_back().await;
    let begun = eventually("the issuer is asked again", async || {
        let answer = visitor.get(&scene.at("/v1/session/oidc")).await;
        match answer.status() {
            StatusCode::SEE_OTHER => Ok(answer),
            status => Err(status.to_string()),
        }
    })
    .await;
    let back = leads_to(visitor.get(&leads_to(begun).await).await).await;
    // It leaves while somebody is there.
    scene.issuer.leave();
    let answer = visitor.get(&back).await;
    scene
        .refused(&visitor, answer, StatusCode::SERVICE_UNAVAILABLE)
        .await;
    scene.issuer.come_back().await;
    assert_eq!(scene.sign_in(&visitor).await["name"], "ada");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_says_nothing_is_waited_for_only_so_long() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    scene.issuer.hangs(true);
    let began = Instant::now();
    let visitors: Vec<Visitor> = (0..10).map(|_| Visitor::default()).collect();
    let url = scene.at("/v1/session/oidc");
    let all = visitors.iter().map(|visitor| visitor.get(&url));
    for answer in futures::future::join_all(all).await {
        problem(answer, StatusCode::SERVICE_UNAVAILABLE).await;
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    scene.issuer.hangs(false);
    let visitor = &visitors[0];
    let begun = eventually("the issuer is asked again", async || {
        let answer = visitor.get(&url).await;
        match answer.status() {
            StatusCode::SEE_OTHER => Ok(answer),
            status => Err(status.to_string()),
        }
    })
    .await;
    let back = leads_to(visitor.get(&leads_to(begun).await).await).await;
    scene.issuer.hangs(true);
    let began = Instant::now();
    let answer = visitor.get(&back).await;
    scene
        .refused(visitor, answer, StatusCode::SERVICE_UNAVAILABLE)
        .await;
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_one_signs_in_by_a_password() {
    let mut scene = Scene::start(&[]).await;
    scene.stack.redis.persist().await;
    user(&scene.stack, "ada", &["viewer"]).await;
    let visitor = Visitor::default();
    let back = scene.come_back(&visitor, "/v1/session/oidc").await;
    scene.stack.redis.kill();
    let other = Visitor::default();
    let answer = other.get(&scene.at("/v1/session/oidc")).await;
    problem(answer, StatusCode::SERVICE_UNAVAILABLE).await;
    let answer = visitor.get(&back).await;
    scene
        .refused(&visitor, answer, StatusCode::SERVICE_UNAVAILABLE)
        .await;
    let by_password = sign_in(&scene.stack.api(), "ada").await;
    assert_eq!(by_password.status(Method::GET, "/v1/runs").await, 200);
    // The attempt goes on when Redis is back: nothing was taken.
    scene.stack.redis.restart().await;
    eventually("Redis is asked again", async || {
        let answer = visitor.get(&back).await;
        match answer.status() {
            StatusCode::SEE_OTHER => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert!(visitor.cookie(HOST, SESSION).is_some());
}
