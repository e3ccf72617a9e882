//! Which caller gets through to which operation: every documented operation, requested by every
//! caller.
//!
//! The expected result follows from the operation's `security` and from the run. Scopes for some
//! runs permit paths of those runs, and operations that [return only visible
//! runs](BOUNDED_OPERATIONS). The few operations about the caller itself have [rules of their
//! own](Operation::of_oneself). An operation without a policy, or one that ignores bounds, fails
//! here without a new test. [`callers`] lists the callers.

use std::fmt;

use reqwest::{Method, StatusCode};
use runcast_tests::api::send;
use runcast_tests::stack::Stack;
use serde_json::Value;

use crate::access_matrix::callers::{Caller, Identity, IdentityKind, Reach, callers};
use crate::access_matrix::path_parameters::PathParameters;

/// Operations without a run in their path that still answer a bounded caller, with the visible runs
/// only.
const BOUNDED_OPERATIONS: [(&str, &str); 5] = [
    ("GET", "/v1/agents"),
    ("GET", "/v1/feed"),
    ("GET", "/v1/runs"),
    ("GET", "/v1/watch"),
    // A ticket for the visible runs.
    ("POST", "/v1/stream-tickets"),
];

/// Which callers an operation permits, by its document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Policy {
    Public,
    SignedIn,
    Holds(String),
}

/// A documented operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: String,
    rule: Policy,
    /// Whether it accepts tickets.
    accepts_tickets: bool,
}

/// The expected response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Neither 401 nor 403, nor a server error.
    Through,
    Refused(StatusCode),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Policy {
    /// The policy in the security of an operation. All alternatives must agree.
    fn of(operation: &Value) -> Result<Self, String> {
        let security = operation["security"].as_array().ok_or("no security")?;
        let mut rules = security.iter().map(Self::of_requirement);
        let first = rules.next().ok_or("empty security")??;
        for rule in rules {
            if rule? != first {
                return Err(format!("the alternatives differ: {security:?}"));
            }
        }
        Ok(first)
    }

    fn of_requirement(requirement: &Value) -> Result<Self, String> {
        let credentials = requirement.as_object().ok_or("no requirement")?;
        let scopes: Vec<_> = credentials.values().filter_map(Value::as_array).collect();
        match scopes[..] {
            [] => Ok(Self::Public),
            [scopes] => match &scopes[..] {
                [] => Ok(Self::SignedIn),
                [Value::String(scope)] => Ok(Self::Holds(scope.clone())),
                _ => Err(format!("not one scope: {scopes:?}")),
            },
            _ => Err("two credentials at once".to_owned()),
        }
    }
}

impl Operation {
    /// All documented operations.
    fn all(document: &Value) -> Vec<Self> {
        let methods = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ];
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for method in &methods {
                let operation = &item[method.as_str().to_lowercase()];
                if operation.is_object() {
                    let rule = Policy::of(operation);
                    let security = operation["security"].as_array().into_iter().flatten();
                    let mut names = security.filter_map(Value::as_object);
                    operations.push(Self {
                        method: method.clone(),
                        path: path.clone(),
                        rule: rule.unwrap_or_else(|error| panic!("{method} {path}: {error}")),
                        accepts_tickets: names.any(|names| names.contains_key("ticket")),
                    });
                }
            }
        }
        // Operations that remove something come last, and signing out after all others. The run is
        // on hold, so deleting it is admitted and answered 409, until its hold is released.
        operations.sort_by_key(|one| match (one.method.as_str(), one.path.as_str()) {
            ("DELETE", "/v1/runs/{run}") => 0,
            ("DELETE", "/v1/session") => 3,
            ("DELETE", "/v1/sessions") => 2,
            ("DELETE", _) => 1,
            _ => 0,
        });
        operations
    }

    fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }

    /// The expected response to this caller.
    fn expects(&self, caller: &Caller) -> Expected {
        let permits = match (&self.rule, &caller.is) {
            (Policy::Public, _) => true,
            (_, None) => return Expected::Refused(StatusCode::UNAUTHORIZED),
            _ if caller.has_tickets() && !self.accepts_tickets => {
                return Expected::Refused(StatusCode::UNAUTHORIZED);
            }
            (Policy::SignedIn, Some(who)) => self.of_oneself(who),
            (Policy::Holds(scope), Some(who)) => who.holds(scope) && self.is_within(scope, who),
        };
        match permits {
            true => Expected::Through,
            false => Expected::Refused(StatusCode::FORBIDDEN),
        }
    }

    /// Whether the bounds of a caller permit the operation.
    fn is_within(&self, scope: &str, who: &Identity) -> bool {
        let is_narrowed = BOUNDED_OPERATIONS
            .iter()
            .any(|(method, path)| self.is(method, path));
        match who.reach {
            Reach::All => true,
            // It concerns all runs, so a bounded caller is refused.
            _ if scope == "admin" => false,
            _ if self.path.contains("{run}") => who.may(scope),
            // The created run has our label.
            Reach::Labelled { is_ours } if self.is("POST", "/v1/runs") => is_ours,
            _ => is_narrowed,
        }
    }

    /// Whether an authenticated caller may use an operation about itself.
    fn of_oneself(&self, who: &Identity) -> bool {
        match (self.method.as_str(), self.path.as_str()) {
            ("GET", "/v1/tokens") => who.kind != IdentityKind::Token || who.administrates(),
            // The requested token may read.
            ("POST", "/v1/tokens") if who.kind == IdentityKind::User => who.holds("runs:read"),
            ("POST", "/v1/tokens") => who.administrates(),
            ("PATCH", "/v1/session") | ("PUT", "/v1/session/password") => {
                who.kind == IdentityKind::User
            }
            _ => true,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_admitted_as_documented() {
    let stack = Stack::start().await;
    let api = stack.api();
    let document = api.get("/openapi.json").await;
    let operations = Operation::all(&document);
    let parameters = PathParameters::prepare(&stack).await;
    let callers = callers(&stack, &parameters).await;
    let mut wrong = Vec::new();
    for operation in &operations {
        for caller in &callers {
            let path = parameters.path(&operation.path);
            let request = caller.asks(&api, &operation.method, &path).await;
            // Streams are only opened; the response head tells the result.
            let response = send(parameters.with_body(operation, request)).await;
            let (status, expected) = (response.status(), operation.expects(caller));
            let is_as_expected = match expected {
                Expected::Refused(refused) => status == refused,
                Expected::Through => {
                    let refusals = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                    !refusals.contains(&status) && !status.is_server_error()
                }
            };
            if !is_as_expected {
                let name = &caller.name;
                wrong.push(format!("{operation} by {name}: {status}, not {expected:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cells are wrong:\n{}",
        wrong.len(),
        operations.len() * callers.len(),
        wrong.join("\n")
    );
    assert!(operations.len() > 20, "{operations:?}");
    let by_ticket = operations.iter().filter(|one| one.accepts_tickets);
    assert_eq!(by_ticket.count(), 3, "streams, and nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_commands_write_nothing() {
    let stack = Stack::start().await;
    let api = stack.api();
    let parameters = PathParameters::prepare(&stack).await;
    let control = format!("/v1/runs/{}/control", parameters.run());
    for caller in callers(&stack, &parameters).await {
        if caller
            .is
            .as_ref()
            .is_some_and(|who| who.may("runs:control"))
        {
            continue;
        }
        let request = caller.asks(&api, &Method::POST, &control).await;
        let status = send(request.body(r#"{"command":"cancel"}"#)).await.status();
        assert!(status.is_client_error(), "{}: {status}", caller.name);
    }
    let keys = stack.keys().run(parameters.run());
    let mut redis = stack.redis.connection().await;
    let mut exist = redis::cmd("EXISTS");
    exist.arg(&[&keys.control, &keys.stream]);
    let there: u64 = exist.query_async(&mut redis).await.expect("a response");
    assert_eq!(there, 0, "a refused command was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openapi_document_is_public_and_has_an_etag() {
    let stack = Stack::start().await;
    let api = stack.api();
    let first = send(api.anonymous(Method::GET, "/openapi.json")).await;
    assert_eq!(first.status(), StatusCode::OK);
    let tag = first.headers().get("etag").cloned().expect("a tag");
    let document: Value = first.json().await.expect("JSON");
    assert_eq!(document["info"]["title"], "Runcast", "{document}");
    let again = api.anonymous(Method::GET, "/openapi.json");
    let again = send(again.header("if-none-match", tag)).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let head = send(api.anonymous(Method::HEAD, "/v1/runs")).await;
    assert_eq!(head.status(), StatusCode::UNAUTHORIZED, "HEAD is as GET");
}
