//! Real things for the parameters of paths, so that a request that gets through does not end at a 404 by chance.

use reqwest::{Method, RequestBuilder};
use runcast_tests::api::send;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Operation;

/// The labels of the run that paths name.
pub(crate) const LABELS: &str = r#"{"team": "matrix"}"#;

/// What there is in the stack.
#[derive(Debug)]
pub(crate) struct Places {
    run: Uuid,
    other_run: Uuid,
    webhook: String,
    delivery: String,
    job: String,
    asset: String,
    /// Somebody who does nothing themselves, with a session and a token.
    user: String,
    session: String,
    token: String,
}

impl Places {
    /// Makes one of each.
    pub(crate) async fn prepare(stack: &Stack) -> Self {
        let api = stack.api();
        let make = async |path: &str, body: Value| -> Value {
            let request = api.request(Method::POST, path).body(body.to_string());
            let answer = send(request).await;
            assert!(answer.status().is_success(), "{path}: {answer:?}");
            answer.json().await.expect("JSON")
        };
        // There is no such host: its delivery stays.
        let hook = json!({"url": "https://receiver.invalid/", "on": ["failed"]});
        let webhook = make("/v1/webhooks", hook).await["id"].clone();
        let webhook = webhook.as_str().expect("an id").to_owned();
        let test = format!("/v1/webhooks/{webhook}/test");
        let delivery = make(&test, json!({})).await["delivery"].clone();
        let job = "SELECT coalesce(min(id), 0)::text FROM tasks._private_jobs";
        let page = send(api.anonymous(Method::GET, "/")).await;
        let page = page.text().await.expect("the page");
        let asset = page.split("/assets/").nth(1);
        let asset = asset.and_then(|rest| rest.split('"').next());
        let labels: Value = serde_json::from_str(LABELS).expect("labels");
        make("/v1/roles", json!({"name": "target", "permissions": []})).await;
        let user = json!({"name": "target", "email": "target@example.com"});
        make("/v1/users", user).await;
        for (table, columns) in [
            (
                "sessions",
                "(hash, user_id, expires_at) SELECT 'x', id, now() + interval '1 hour'",
            ),
            (
                "tokens",
                "(id, hash, name, scopes, user_id) SELECT gen_random_uuid(), 'x', 'x', '{admin}', id",
            ),
        ] {
            let insert = format!("INSERT INTO {table} {columns} FROM users WHERE name = 'target'");
            stack.database.tamper(&insert).await;
        }
        let id = async |table: &str| {
            let query = format!("SELECT id::text FROM {table} WHERE hash = 'x'");
            stack.database.ask(&query).await.join("")
        };
        Self {
            user: "target".to_owned(),
            session: id("sessions").await,
            token: id("tokens").await,
            run: api
                .create(&json!({"name": "this", "labels": labels}))
                .await
                .id,
            other_run: api.create_run("other").await.id,
            webhook,
            delivery: delivery.as_str().expect("an id").to_owned(),
            job: stack.database.ask(job).await.join(""),
            asset: asset.expect("an asset of the page").to_owned(),
        }
    }

    /// The run that paths name.
    pub(crate) fn run(&self) -> Uuid {
        self.run
    }

    /// A run that they do not name.
    pub(super) fn other_run(&self) -> Uuid {
        self.other_run
    }

    /// A documented path with real things in it.
    pub(crate) fn path(&self, documented: &str) -> String {
        let mut path = documented.to_owned();
        let things = [
            ("{run}", self.run.to_string()),
            ("{webhook}", self.webhook.clone()),
            ("{delivery}", self.delivery.clone()),
            ("{job}", self.job.clone()),
            ("{file}", self.asset.clone()),
            ("{user}", self.user.clone()),
            ("{role}", "target".to_owned()),
            ("{session}", self.session.clone()),
            ("{token}", self.token.clone()),
        ];
        for (name, thing) in things {
            path = path.replace(name, &thing);
        }
        assert!(
            !path.contains('{'),
            "{documented}: say what stands there, in tests/stories/access_matrix/places.rs"
        );
        // Without which there is only a 400 to see.
        let query = match documented {
            "/v1/runs/{run}/search" => "?q=matrix",
            "/v1/watch" => "?label=team=matrix",
            _ => "",
        };
        path + query
    }

    /// Adds what the operation takes; one that is not known here gets an empty object.
    pub(super) fn with_body(
        &self,
        operation: &Operation,
        request: RequestBuilder,
    ) -> RequestBuilder {
        if [Method::GET, Method::DELETE].contains(&operation.method) {
            return request;
        }
        let body = match operation.path.as_str() {
            "/v1/runs" => json!({"name": "matrix"}),
            "/v1/runs/{run}/control" => json!({"command": "resume"}),
            "/v1/runs/{run}/events" => json!({"kind": "output", "data": {"text": "matrix"}}),
            _ => json!({}),
        };
        request.body(body.to_string())
    }
}
