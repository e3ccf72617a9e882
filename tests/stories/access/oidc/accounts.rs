//! Which user an account of the provider signs in as.

use reqwest::{Method, StatusCode};
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::oidc_browser::{OidcBrowser, redirect_target};
use runcast_tests::oidc_provider::Account;
use runcast_tests::oidc_provider::Algorithm;
use runcast_tests::stack::Service;
use serde_json::{Value, json};

use super::super::fixtures::{ask, operator, user};
use super::fixture::Scene;

impl Scene {
    /// Tries to sign in with an account that must be refused; returns the reason in the audit log.
    async fn refusal_reason(&self, account: &Account) -> String {
        self.provider.sign_in_as(account.clone());
        let browser = OidcBrowser::default();
        let response = self.try_sign_in(&browser).await;
        self.refused(&browser, response, StatusCode::FORBIDDEN)
            .await;
        let refused = self.audit("session.refused").await;
        let details = &refused[0]["details"];
        assert_eq!(details["subject"], account.subject.as_str(), "{details}");
        assert_eq!(details["issuer"], self.provider.url(), "{details}");
        details["reason"].as_str().expect("a reason").to_owned()
    }

    async fn sign_in_ok(&self, account: &Account) -> Value {
        self.provider.sign_in_as(account.clone());
        self.sign_in(&OidcBrowser::default()).await
    }
}

fn with_email(account: &Account, email: &str) -> Account {
    Account {
        email: Some(email.to_owned()),
        ..account.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_verified_email_links_to_a_user() {
    let scene = Scene::start(&[]).await;
    user(&scene.stack, "ada", &["admin"]).await;
    let ada = Account::new("ada");
    for (verified, email) in [
        (json!(false), ada.email.clone()),
        (json!("false"), ada.email.clone()),
        (json!(null), ada.email.clone()),
        (json!(true), None),
    ] {
        let account = Account {
            verified,
            email,
            ..ada.clone()
        };
        assert_eq!(
            scene.refusal_reason(&account).await,
            "unverified",
            "{account:?}"
        );
    }
    // A different letter whose lower case equals this one.
    user(&scene.stack, "kim", &["admin"]).await;
    let kelvin = with_email(&Account::new("eve"), "\u{212a}im@example.com");
    let reason = scene.refusal_reason(&kelvin).await;
    assert!(
        ["similar", "unknown"].contains(&reason.as_str()),
        "{reason}"
    );
    assert_eq!(
        scene.refusal_reason(&Account::new("nobody")).await,
        "unknown"
    );
    let upper = Account {
        // As some providers send it.
        verified: "true".into(),
        ..with_email(&ada, "ADA@Example.com")
    };
    assert_eq!(scene.sign_in_ok(&upper).await["name"], "ada");
    // The page shows the reason.
    scene.provider.sign_in_as(Account::new("nobody"));
    let browser = OidcBrowser::default();
    let back = scene.callback_url(&browser, "/v1/session/oidc").await;
    assert_eq!(
        redirect_target(browser.get_page(&back).await).await,
        "/#/?sign-in=unknown"
    );
    let users = "SELECT count(*) FROM users";
    assert_eq!(
        scene.stack.database.query_number(users).await,
        2,
        "no user was created"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linked_account_stays_linked_when_emails_change() {
    let scene = Scene::start(&[]).await;
    let api = scene.stack.api();
    user(&scene.stack, "ada", &["viewer"]).await;
    user(&scene.stack, "bob", &["admin"]).await;
    let ada = Account::new("ada");
    assert_eq!(scene.sign_in_ok(&ada).await["name"], "ada");
    // The address changes at the provider, even to that of another user here, or to none.
    assert_eq!(
        scene.sign_in_ok(&with_email(&ada, "bob@example.com")).await["name"],
        "ada"
    );
    let unverified = Account {
        verified: false.into(),
        ..ada.clone()
    };
    assert_eq!(scene.sign_in_ok(&unverified).await["name"], "ada");
    // The address changes here.
    let moved = json!({"email": "ada@elsewhere.example"});
    ask(&api, Method::PATCH, "/v1/users/ada", &moved, 200).await;
    assert_eq!(scene.sign_in_ok(&ada).await["name"], "ada");
    // An account that gets her old address is not her.
    let heir = with_email(&Account::new("heir"), "ada@elsewhere.example");
    assert_eq!(scene.refusal_reason(&heir).await, "linked");
    // Until an operator unlinks her, which ends her sessions.
    scene.provider.sign_in_as(ada.clone());
    let before = OidcBrowser::default();
    scene.sign_in(&before).await;
    let identities = "/v1/users/ada/identities";
    let linked = api.get(identities).await;
    assert_eq!(
        linked["identities"][0]["subject"],
        ada.subject.as_str(),
        "{linked}"
    );
    ask(&api, Method::DELETE, identities, &Value::Null, 204).await;
    assert_eq!(api.get(identities).await, json!({"identities": []}));
    let over = before.get(&scene.at("/v1/session")).await;
    assert_eq!(over.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(scene.audit("identity.unlinked").await.len(), 1);
    assert_eq!(scene.sign_in_ok(&heir).await["name"], "ada");
    assert_eq!(scene.refusal_reason(&ada).await, "unknown");
    // The same from the command line.
    let (succeeded, output) = operator(&scene.stack, &["user", "unlink", "ada"]).await;
    assert!(succeeded, "{output}");
    let sessions = "SELECT count(*) FROM sessions";
    assert_eq!(scene.stack.database.query_number(sessions).await, 0);
    let (succeeded, output) = operator(&scene.stack, &["user", "unlink", "bob"]).await;
    assert!(
        !succeeded && output.contains("no issuer knows bob"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrator_links_account_without_verified_email() {
    let scene = Scene::start(&[]).await;
    let api = scene.stack.api();
    user(&scene.stack, "ada", &["viewer"]).await;
    user(&scene.stack, "bob", &["viewer"]).await;
    let ada = Account {
        verified: Value::Null,
        ..Account::new("ada")
    };
    assert_eq!(scene.refusal_reason(&ada).await, "unverified");
    // The log names the account to link.
    let refused = scene.audit("session.refused").await;
    let link = json!({"subject": refused[0]["details"]["subject"]});
    let identities = |name: &str| format!("/v1/users/{name}/identities");
    let linked = ask(&api, Method::POST, &identities("ada"), &link, 201).await;
    assert_eq!(linked["identities"][0]["subject"], link["subject"]);
    assert_eq!(scene.sign_in_ok(&ada).await["name"], "ada");
    let entries = scene.audit("identity.linked").await;
    assert_ne!(
        entries[0]["actor_name"], "ada",
        "another session was ended: {entries:?}"
    );
    ask(&api, Method::POST, &identities("bob"), &link, 409).await;
    let other = json!({"subject": "another"});
    ask(&api, Method::POST, &identities("ada"), &other, 409).await;
    let none = json!({"subject": ""});
    ask(&api, Method::POST, &identities("bob"), &none, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_user_cannot_sign_in_with_oidc() {
    let scene = Scene::start(&[("RUNCAST_OIDC_CREATE", "on")]).await;
    let api = scene.stack.api();
    user(&scene.stack, "ada", &["viewer"]).await;
    user(&scene.stack, "bob", &["viewer"]).await;
    assert_eq!(scene.sign_in_ok(&Account::new("ada")).await["name"], "ada");
    for name in ["ada", "bob"] {
        let path = format!("/v1/users/{name}");
        ask(&api, Method::PATCH, &path, &json!({"disabled": true}), 200).await;
        assert_eq!(scene.refusal_reason(&Account::new(name)).await, "disabled");
        ask(&api, Method::PATCH, &path, &json!({"disabled": false}), 200).await;
        assert_eq!(scene.sign_in_ok(&Account::new(name)).await["name"], name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_account_creates_user_if_configured() {
    let scene = Scene::start(&[("RUNCAST_OIDC_CREATE", "on")]).await;
    user(&scene.stack, "ada", &["admin"]).await;
    let other = with_email(&Account::new("Ada"), "ada@other.example");
    let made = scene.sign_in_ok(&other).await;
    assert_eq!(made["name"], "Ada-2", "the name is in use");
    assert_eq!(made["scopes"], json!(["runs:read"]));
    assert_eq!(made["user"]["email"], "ada@other.example");
    assert_eq!(made["user"]["has_password"], false);
    let [created] = &scene.audit("user.created").await[..1] else {
        panic!("the audit log has an entry");
    };
    assert_eq!(created["actor"], made["user"]["id"], "{created}");
    assert_eq!(
        scene.sign_in_ok(&other).await["user"]["id"],
        made["user"]["id"]
    );
    let unverified = Account {
        verified: false.into(),
        ..Account::new("eve")
    };
    assert_eq!(scene.refusal_reason(&unverified).await, "unverified");
    let strange = Account {
        name: Some("\u{202e}Zoë <b> ".to_owned()),
        ..Account::new("zoe")
    };
    assert_eq!(scene.sign_in_ok(&strange).await["name"], "Zo---b");
    let unnamed = Account {
        name: None,
        ..Account::new("grace")
    };
    assert_eq!(scene.sign_in_ok(&unnamed).await["name"], "grace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_sign_ins_create_one_user() {
    let scene = Scene::start(&[
        ("RUNCAST_OIDC_CREATE", "on"),
        ("RUNCAST_OIDC_ROLE", "operator"),
    ])
    .await;
    scene.provider.sign_in_as(Account::new("new"));
    let windows: Vec<OidcBrowser> = (0..6).map(|_| OidcBrowser::default()).collect();
    let all = windows.iter().map(|window| scene.sign_in(window));
    let all = futures::future::join_all(all).await;
    for who in &all {
        assert_eq!(who["user"]["id"], all[0]["user"]["id"], "{who}");
        assert_eq!(who["user"]["roles"], json!(["operator"]), "{who}");
    }
    for table in ["users", "identities"] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(
            scene.stack.database.query_number(&count).await,
            1,
            "{table}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_default_role_creates_no_user() {
    let settings = [("RUNCAST_OIDC_CREATE", "on"), ("RUNCAST_OIDC_ROLE", "team")];
    let mut scene = Scene::prepare(Algorithm::Es256, &settings).await;
    // It is detected at the start,
    let mut process = scene
        .stack
        .service_spec(Service::Gateway)
        .start(scene.stack.folder());
    let status = process.wait_exit(WAIT_DEADLINE).await;
    assert_eq!(status.code(), Some(78), "{}", process.logs());
    let output = process.logs();
    assert!(
        output.contains("RUNCAST_OIDC_ROLE is not valid"),
        "{output}"
    );
    let make = "INSERT INTO roles (name) VALUES ('team')";
    scene.stack.database.execute(make).await;
    scene.stack.start_all().await;
    let output = scene.stack.check().await;
    let provider = scene.provider.url();
    let fit = format!("ok  RUNCAST_OIDC_ISSUER  {provider}");
    assert!(output.contains(&fit), "{output}");
    // and if the role is deleted later, no user is created without it.
    let (api, path) = (scene.stack.api(), "/v1/roles/team");
    ask(&api, Method::DELETE, path, &Value::Null, 204).await;
    assert_eq!(scene.refusal_reason(&Account::new("new")).await, "unfit");
    let users = "SELECT count(*) FROM users";
    assert_eq!(scene.stack.database.query_number(users).await, 0);
    let output = scene.stack.check().await;
    assert!(
        output.contains("RUNCAST_OIDC_ROLE is not valid"),
        "{output}"
    );
    scene.stack.unset(Service::Gateway, "RUNCAST_OIDC_ROLE");
    scene.provider.stop();
    let output = scene.stack.check().await;
    assert!(
        output.contains("runcastd: RUNCAST_OIDC_ISSUER: "),
        "{output}"
    );
}
