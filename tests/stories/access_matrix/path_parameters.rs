//! Real values for the parameters of paths, so that an accepted request does not end with 404 by
//! chance.

use reqwest::{Method, RequestBuilder};
use runcast_tests::api::send;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use uuid::Uuid;

use super::matrix::Operation;
use crate::access::fixtures::{USER_PASSWORD, ask, sign_in, user};

/// The label of the run in the paths, and of no other run.
pub(super) const RUN_LABEL: (&str, &str) = ("team", "matrix");

/// Ids of the objects in the stack.
#[derive(Debug)]
pub(crate) struct PathParameters {
    run: Uuid,
    other_run: Uuid,
    webhook: String,
    delivery: String,
    job: String,
    asset: String,
    user: String,
    role: String,
    session: String,
    token: String,
}

impl PathParameters {
    /// Creates one of each.
    pub(crate) async fn prepare(stack: &Stack) -> Self {
        let api = stack.api();
        let make = async |path: &str, body: Value| -> Value {
            let request = api.request(Method::POST, path).body(body.to_string());
            let response = send(request).await;
            assert!(response.status().is_success(), "{path}: {response:?}");
            response.json().await.expect("JSON")
        };
        // There is no such host, so its delivery stays pending.
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
        let role = json!({"name": "spare", "permissions": ["runs:read"]});
        ask(&api, Method::POST, "/v1/roles", &role, 201).await;
        let user = user(stack, "spare", &["viewer"]).await;
        let browser = sign_in(&api, "spare").await;
        let session = browser.get("/v1/session").await["session"].clone();
        let token = json!({"name": "spare", "scopes": ["runs:read"]});
        let token = ask(&api, Method::POST, "/v1/tokens", &token, 201).await["id"].clone();
        let run = json!({"name": "this", "labels": {RUN_LABEL.0: RUN_LABEL.1}});
        let run = api.create(&run).await.id;
        let hold = format!("/v1/runs/{run}/hold");
        let reason = json!({"reason": "the matrix needs it"});
        ask(&api, Method::PUT, &hold, &reason, 204).await;
        Self {
            user,
            role: "spare".to_owned(),
            session: session.as_str().expect("an id").to_owned(),
            token: token.as_str().expect("an id").to_owned(),
            run,
            other_run: api.create_run("other").await.id,
            webhook,
            delivery: delivery.as_str().expect("an id").to_owned(),
            job: stack.database.query_strings(job).await.join(""),
            asset: asset.expect("an asset of the page").to_owned(),
        }
    }

    /// The run in the paths.
    pub(crate) fn run(&self) -> Uuid {
        self.run
    }

    /// A run that is not in the paths.
    pub(super) fn other_run(&self) -> Uuid {
        self.other_run
    }

    /// The value of each path parameter.
    pub(crate) fn things(&self) -> [(&'static str, String); 10] {
        [
            ("run", self.run.to_string()),
            ("webhook", self.webhook.clone()),
            ("delivery", self.delivery.clone()),
            ("job", self.job.clone()),
            ("file", self.asset.clone()),
            ("user", self.user.clone()),
            ("role", self.role.clone()),
            ("session", self.session.clone()),
            ("token", self.token.clone()),
            // A command that is gone already.
            ("entry", "1-0".to_owned()),
        ]
    }

    /// A documented path with real values.
    pub(crate) fn path(&self, documented: &str) -> String {
        let mut path = documented.to_owned();
        for (name, thing) in self.things() {
            path = path.replace(&format!("{{{name}}}"), &thing);
        }
        assert!(
            !path.contains('{'),
            "{documented}: add its value to tests/stories/access_matrix/path_parameters.rs"
        );
        // Without this query the response would only be 400.
        let query = match documented {
            "/v1/runs/{run}/search" => "?q=matrix",
            "/v1/watch" => "?label=team=other",
            _ => "",
        };
        path + query
    }

    /// Adds the body that the operation takes; an empty object for operations not listed here.
    pub(super) fn with_body(
        &self,
        operation: &Operation,
        request: RequestBuilder,
    ) -> RequestBuilder {
        if [Method::GET, Method::DELETE].contains(&operation.method) {
            return request;
        }
        let body = match (operation.method.as_str(), operation.path.as_str()) {
            (_, "/v1/runs") => json!({"name": "matrix", "labels": {RUN_LABEL.0: RUN_LABEL.1}}),
            (_, "/v1/runs/{run}/control") => json!({"command": "resume"}),
            (_, "/v1/runs/{run}/hold") => json!({"reason": "matrix"}),
            (_, "/v1/runs/{run}/redactions") => json!({"text": "matrix"}),
            (_, "/v1/runs/{run}/events") => json!({"kind": "output", "data": {"text": "matrix"}}),
            (_, "/v1/tokens") => json!({"name": "matrix", "scopes": ["runs:read"]}),
            ("PATCH", "/v1/session") => json!({"preferences": {}}),
            (_, "/v1/session/password") => {
                json!({"password": USER_PASSWORD, "new_password": USER_PASSWORD})
            }
            _ => json!({}),
        };
        request.body(body.to_string())
    }
}
