//! Who gets through where: every operation that the gateway documents, asked by everybody there is.
//!
//! What is expected of a cell is only what the operation's `security` says, together with the rule about whoever is bound to
//! some runs, by id or by labels: they are let through on paths of such a run, and to what [shows them those
//! alone](NARROWED); and with [what is one's own](OWN). An operation without a rule, and one that forgets this, fails
//! here without anybody adding it. Callers are listed in [`callers`].

mod callers;
pub(crate) mod places;

use std::fmt;

use reqwest::{Method, StatusCode};
use runcast_tests::api::send;
use runcast_tests::stack::Stack;
use serde_json::Value;

use callers::{Caller, Is, callers};
use places::Places;

/// Operations that are about no run in their path and still answer whoever is bound to some, by those alone.
const NARROWED: [(&str, &str); 4] = [
    ("GET", "/v1/runs"),
    ("GET", "/v1/agents"),
    ("GET", "/v1/feed"),
    ("GET", "/v1/watch"),
];

/// Operations on what is one's own: nobody finds there what belongs to somebody else, but where administrators do.
const OWN: [(&str, &str, bool); 2] = [
    ("DELETE", "/v1/tokens/{token}", true),
    ("DELETE", "/v1/sessions/{session}", false),
];

/// Who may call an operation, as its document says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Public,
    SignedIn,
    Holds(String),
}

/// An operation of the document.
#[derive(Debug)]
struct Operation {
    method: Method,
    path: String,
    rule: Rule,
}

/// What an answer is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Neither 401 nor 403, and no failure.
    Through,
    Refused(StatusCode),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Rule {
    /// What the security of an operation says; every alternative has to say the same.
    fn of(operation: &Value) -> Result<Self, String> {
        let security = operation["security"].as_array().ok_or("no rule at all")?;
        let mut rules = security.iter().map(Self::of_requirement);
        let first = rules.next().ok_or("an empty rule")??;
        for rule in rules {
            if rule? != first {
                return Err(format!("one credential is worth more: {security:?}"));
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
    /// All that are documented.
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
                    let rule = Rule::of(operation);
                    operations.push(Self {
                        method: method.clone(),
                        path: path.clone(),
                        rule: rule.unwrap_or_else(|error| panic!("{method} {path}: {error}")),
                    });
                }
            }
        }
        // What takes things away comes last: first from others, and who signs out has no session afterwards.
        operations.sort_by_key(|one| {
            let path = one.path.as_str();
            let ends_all = path == "/v1/sessions";
            (
                one.method == Method::DELETE,
                path == "/v1/session",
                ends_all,
            )
        });
        operations
    }

    /// What this caller is to be answered.
    fn expects(&self, caller: &Caller) -> Expected {
        if self.rule == Rule::Public {
            return Expected::Through;
        }
        let Is::Somebody {
            scopes,
            bound,
            is_user,
        } = &caller.is
        else {
            return Expected::Refused(StatusCode::UNAUTHORIZED);
        };
        let name = (self.method.as_str(), self.path.as_str());
        // Within bounds nobody administers.
        let is_admin = scopes.contains(&"admin") && bound.is_none();
        if let Some((_, _, for_admins)) = OWN
            .iter()
            .find(|(method, path, _)| (*method, *path) == name)
        {
            return match *for_admins && is_admin {
                true => Expected::Through,
                false => Expected::Refused(StatusCode::NOT_FOUND),
            };
        }
        let may = match &self.rule {
            Rule::Public => true,
            // A token that no user has made is in no list of one's own.
            Rule::SignedIn => name != ("GET", "/v1/tokens") || *is_user || is_admin,
            Rule::Holds(scope) => {
                let holds = scopes.iter().any(|held| held == scope || *held == "admin");
                let within = bound.is_none_or(|bound| match self.path.contains("{run}") {
                    true => bound.is_ours,
                    false => NARROWED.contains(&name),
                });
                holds && within
            }
        };
        match may {
            true => Expected::Through,
            false => Expected::Refused(StatusCode::FORBIDDEN),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_through_exactly_where_the_document_says() {
    let stack = Stack::start().await;
    let api = stack.api();
    let document = api.get("/openapi.json").await;
    let operations = Operation::all(&document);
    let places = Places::prepare(&stack).await;
    let callers = callers(&stack, &places).await;
    let mut wrong = Vec::new();
    for operation in &operations {
        for caller in &callers {
            let path = places.path(&operation.path);
            let request = api.anonymous(operation.method.clone(), &path);
            let request = caller.credential.show(request);
            // Streams are only opened: whether they are is told by their head.
            let answer = send(places.with_body(operation, request)).await;
            let (status, expected) = (answer.status(), operation.expects(caller));
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_control_a_run_writes_nothing() {
    let stack = Stack::start().await;
    let api = stack.api();
    let places = Places::prepare(&stack).await;
    let control = format!("/v1/runs/{}/control", places.run());
    for caller in callers(&stack, &places).await {
        let may = match &caller.is {
            Is::Nobody => false,
            Is::Somebody { scopes, bound, .. } => {
                let held = scopes
                    .iter()
                    .any(|one| ["admin", "runs:control"].contains(one));
                held && bound.is_none_or(|bound| bound.is_ours)
            }
        };
        if may {
            continue;
        }
        let request = api.anonymous(Method::POST, &control);
        let request = caller.credential.show(request);
        let status = send(request.body(r#"{"command":"cancel"}"#)).await.status();
        assert!(status.is_client_error(), "{}: {status}", caller.name);
    }
    let keys = stack.keys().run(places.run());
    let mut redis = stack.redis.connection().await;
    let mut exist = redis::cmd("EXISTS");
    exist.arg(&[&keys.control, &keys.stream]);
    let there: u64 = exist.query_async(&mut redis).await.expect("an answer");
    assert_eq!(
        there, 0,
        "a command was written although nobody might give one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_for_everybody_and_known_by_its_tag() {
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
