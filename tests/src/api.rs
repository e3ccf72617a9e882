//! The HTTP API of a stack, as a client uses it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use reqwest::header::ACCEPT;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::redis_server;
use crate::sse::Sse;

/// Longest wait for a response to begin.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A client with an admin token.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    token: String,
    client: Client,
}

/// A run that was just created.
#[derive(Debug, Clone)]
pub struct CreatedRun {
    /// Its id.
    pub id: Uuid,
    /// What its agents authenticate with.
    pub token: String,
    /// The Redis that its agents publish to directly; empty if there is none.
    pub redis_url: String,
}

impl CreatedRun {
    /// A connection with exactly the rights that agents of this run are given.
    pub async fn publisher_connection(&self) -> MultiplexedConnection {
        redis_server::connect(&self.redis_url).await
    }
}

impl Api {
    /// A client of the gateway at `base`.
    pub fn new(base: &str, token: &str) -> Self {
        runcast_common::connect::install_tls_provider();
        // All servers are on this machine; a proxy from the environment must not intervene.
        let client = Client::builder()
            .no_proxy()
            .read_timeout(ANSWER_DEADLINE)
            .build();
        Self {
            base: base.to_owned(),
            token: token.to_owned(),
            client: client.expect("an HTTP client"),
        }
    }

    /// The URL of the gateway.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.token)
    }

    /// A request without the token.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// The JSON at this path. The response must be 200.
    pub async fn get(&self, path: &str) -> Value {
        let response = send(self.request(Method::GET, path)).await;
        let (status, body) = (response.status(), response.text().await);
        let body = body.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(status, StatusCode::OK, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("GET {path}: {error}: {body}"))
    }

    /// Creates a run with one variation. The response must hold all that an agent needs.
    pub async fn create_run(&self, name: &str) -> CreatedRun {
        self.create_run_of(name, 1).await
    }

    /// Creates a run with several variations.
    pub async fn create_run_of(&self, name: &str, variations: usize) -> CreatedRun {
        self.create(&json!({"name": name, "variations": variations}))
            .await
    }

    /// Creates a run with this request body.
    pub async fn create(&self, body: &Value) -> CreatedRun {
        let request = self.request(Method::POST, "/v1/runs");
        let response = send(
            request
                .header("content-type", "application/json")
                .body(body.to_string()),
        )
        .await;
        let (status, text) = (response.status(), response.text().await);
        let text = text.expect("the response to creating a run");
        assert_eq!(status, StatusCode::CREATED, "creating a run: {text}");
        let created: Value = serde_json::from_str(&text).expect("JSON");
        let field = |pointer: &str| {
            let value = created.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_else(|| panic!("no {pointer} in {created}"))
        };
        let redis_url = created.pointer("/redis/url").and_then(Value::as_str);
        CreatedRun {
            id: field("/run/id").parse().expect("a run id"),
            token: field("/token").to_owned(),
            redis_url: redis_url.unwrap_or_default().to_owned(),
        }
    }

    /// One run.
    pub async fn run(&self, run: Uuid) -> Value {
        self.get(&format!("/v1/runs/{run}")).await
    }

    /// The response to a request for the stream of a run; `query` starts with `?` or is empty.
    pub async fn stream(&self, run: Uuid, last_event_id: Option<&str>, query: &str) -> Response {
        let path = format!("/v1/runs/{run}/stream{query}");
        let mut request = self
            .request(Method::GET, &path)
            .header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        send(request).await
    }

    /// Opens the stream of a run after this event id.
    pub async fn watch(&self, run: Uuid, last_event_id: Option<&str>) -> Sse {
        Sse::from_response(self.stream(run, last_event_id, "").await).await
    }
}

/// Sends a request.
pub async fn send(request: RequestBuilder) -> Response {
    let response = request.send().await;
    response.unwrap_or_else(|error| panic!("no response from the gateway: {error:?}"))
}

/// Checks that a response is a problem document with this status, and returns its detail.
pub async fn problem(response: Response, expected: StatusCode) -> String {
    let status = response.status();
    let kind = response.headers().get("content-type").cloned();
    let body = response.text().await.expect("the body of a response");
    assert_eq!(status, expected, "{body}");
    let kind = kind.as_ref().and_then(|kind| kind.to_str().ok());
    assert_eq!(kind, Some("application/problem+json"), "{body}");
    let problem: Value = serde_json::from_str(&body).expect("a problem document");
    assert_eq!(problem["status"], expected.as_u16(), "{body}");
    for field in ["type", "title", "detail"] {
        assert!(problem[field].is_string(), "no {field} in {body}");
    }
    problem["detail"].as_str().unwrap_or_default().to_owned()
}
