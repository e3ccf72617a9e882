//! An ID token is accepted only if the provider issued it, for us, for this login, and recently.

use reqwest::StatusCode;
use runcast_tests::eventually::eventually;
use runcast_tests::oidc_browser::{OidcBrowser, redirect_target};
use runcast_tests::oidc_provider::{Account, TokenFault};
use runcast_tests::programs::{free_port, loopback};
use runcast_tests::stack::Service;

use super::super::fixtures::user;
use super::fixture::{GATEWAY_HOST, LOGIN_COOKIE, SESSION_COOKIE, Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_id_tokens_are_refused() {
    let metrics = loopback(free_port()).to_string();
    let settings = [
        ("RUNCAST_OIDC_CREATE", "on"),
        ("RUNCAST_METRICS_LISTEN", metrics.as_str()),
    ];
    let scene = Scene::start(&settings).await;
    user(&scene.stack, "ada", &["admin"]).await;
    for fault in TokenFault::ALL {
        scene.provider.set_token_fault(Some(fault));
        let browser = OidcBrowser::default();
        let response = scene.try_sign_in(&browser).await;
        let status = response.status();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{fault:?}");
        scene.refused(&browser, response, status).await;
        assert_eq!(
            browser.cookie(GATEWAY_HOST, LOGIN_COOKIE),
            None,
            "{fault:?}: the login is used up"
        );
    }
    for table in ["sessions", "identities"] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(
            scene.stack.database.query_number(&count).await,
            0,
            "{table}"
        );
    }
    let counted = format!("http://{metrics}/metrics");
    let counted = OidcBrowser::default().get(&counted).await.text().await;
    let counted = counted.expect("metrics");
    let denials = "runcast_access_denials_total{reason=\"oidc_unproven\"}";
    let denials = format!("{denials} {}", TokenFault::ALL.len());
    assert!(counted.contains(&denials), "{counted}");
    let page = OidcBrowser::default();
    let back = scene.callback_url(&page, "/v1/session/oidc").await;
    assert_eq!(
        redirect_target(page.get_page(&back).await).await,
        "/#/?sign-in=unproven"
    );
    // The faults were refused, not the login.
    scene.provider.set_token_fault(None);
    assert_eq!(scene.sign_in(&OidcBrowser::default()).await["name"], "ada");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_codes_are_refused() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    let (ada, eve) = (OidcBrowser::default(), OidcBrowser::default());
    let back = scene.callback_url(&ada, "/v1/session/oidc").await;
    let of_eve = scene.callback_url(&eve, "/v1/session/oidc").await;
    let code = |url: &str| {
        let code = url
            .split("code=")
            .nth(1)
            .and_then(|rest| rest.split('&').next());
        code.expect("a code").to_owned()
    };
    // The code of another login: its verifier does not match.
    let crossed = of_eve.replace(&code(&of_eve), &code(&back));
    let response = eve.get(&crossed).await;
    scene
        .refused(&eve, response, StatusCode::UNAUTHORIZED)
        .await;
    for (from, to) in [
        ("code=", "kode="),
        ("iss=", "iss=https%3A%2F%2Fissuer.invalid&x="),
    ] {
        let browser = OidcBrowser::default();
        let back = scene.callback_url(&browser, "/v1/session/oidc").await;
        let response = browser.get(&back.replace(from, to)).await;
        assert!(response.status().is_client_error(), "{}", response.status());
        assert_eq!(browser.cookie(GATEWAY_HOST, SESSION_COOKIE), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provider_may_rotate_its_key() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    scene.sign_in(&OidcBrowser::default()).await;
    scene.provider.rotate_key();
    // The keys are not requested for every login.
    eventually("the new key is known", async || {
        let browser = OidcBrowser::default();
        match scene.try_sign_in(&browser).await.status() {
            StatusCode::SEE_OTHER => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(scene.provider.discovery_count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn email_may_come_only_from_userinfo() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["viewer"]).await;
    scene.provider.profile_only_in_userinfo();
    scene.provider.sign_in_as(Account {
        verified: false.into(),
        ..Account::new("ada")
    });
    let browser = OidcBrowser::default();
    let response = scene.try_sign_in(&browser).await;
    scene
        .refused(&browser, response, StatusCode::FORBIDDEN)
        .await;
    scene.provider.sign_in_as(Account::new("ada"));
    assert_eq!(scene.sign_in(&browser).await["name"], "ada");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provider_error_appears_only_in_the_log() {
    let scene = Scene::start(&[]).await;
    let browser = OidcBrowser::default();
    scene
        .provider
        .set_authorization_error(Some(("access_denied", "<b>no</b>")));
    let response = scene.try_sign_in(&browser).await;
    let why = scene
        .refused(&browser, response, StatusCode::FORBIDDEN)
        .await;
    assert!(!why.contains("<b>"), "{why}");
    let back = scene.callback_url(&browser, "/v1/session/oidc").await;
    assert_eq!(
        redirect_target(browser.get_page(&back).await).await,
        "/#/?sign-in=denied"
    );
    let novel = format!("line\nERROR forged \u{1b}[31m {}", "x".repeat(5000));
    scene
        .provider
        .set_authorization_error(Some(("server_error", &novel)));
    let response = scene.try_sign_in(&browser).await;
    let why = scene
        .refused(&browser, response, StatusCode::SERVICE_UNAVAILABLE)
        .await;
    assert!(!why.contains("forged"), "{why}");
    let logs = scene.stack.logs(Service::Gateway);
    let line = logs.lines().find(|line| line.contains("forged"));
    let line = line.expect("the log has the reason");
    assert!(
        line.contains("server_error") && line.contains("line ERROR"),
        "{line}"
    );
    assert!(line.len() < 800 && !line.contains('\u{1b}'), "{line}");
}
