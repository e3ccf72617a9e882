//! The policy of each route: who may call it and how it is counted, as its documentation says.
//!
//! What a route documents is what is enforced: the policy is read out of the OpenAPI document,
//! which the handlers write, so neither can be wrong alone. A handler states in the `security` of
//! its `#[utoipa::path]` who may call it, in one of four ways:
//!
//! - `security(())`: everyone;
//! - `security(("bearer" = []))`: every valid credential;
//! - `security(("bearer" = [Scope::Read]))`: a credential with the scope;
//! - `security(("bearer" = [Scope::Read]), ("ticket" = [Scope::Read]))`: the same, or a
//!   [ticket](runcast_access::stream_ticket) made by such a credential. For `GET` alone, so that a
//!   ticket never changes anything.
//!
//! Beside it, `extensions(("x-rate-class" = json!("read")))` states the [`RateClass`].
//!
//! An operation that states nothing, or something else, gets [`RouteAccess::Missing`]: every
//! request to it is refused.
//!
//! Data: one entry per path, built at start and read-only afterwards. [`find_policy`] looks a
//! request up once and leaves the [`RouteMatch`] in its extensions for the layers inside.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use super::rate_class::{RATE_CLASS_EXTENSION, RateClass};
use runcast_access::Scope;

/// The security scheme of tokens. A session is worth as much, see [`crate::routes::openapi`].
pub const BEARER_SCHEME: &str = "bearer";

/// The security scheme of tickets, which operations name beside [`BEARER_SCHEME`] where they open
/// streams.
pub const TICKET_SCHEME: &str = "ticket";

/// The policy of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Who may call it.
    pub access: RouteAccess,
    /// How its requests are counted.
    pub rate_class: RateClass,
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteAccess {
    /// Everyone, with or without a credential.
    Public,
    /// Every valid credential.
    SignedIn,
    /// Credentials with this scope.
    Holds(Scope),
    /// Credentials with [`Scope::Read`], and tickets.
    Stream,
    /// No one: the operation documents no policy that is understood.
    Missing,
}

/// What the document says about the route of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteMatch {
    /// The route exists and has this policy.
    Route(RoutePolicy),
    /// The path exists, but not with this method.
    OtherMethods {
        /// The methods that exist, for the `Allow` header.
        allow: HeaderValue,
        /// How the request is counted.
        rate_class: RateClass,
    },
    /// The router knows the path, the document does not.
    Undocumented,
}

/// The operations of one path.
#[derive(Debug)]
struct PathPolicies {
    operations: Vec<(Method, RoutePolicy)>,
    allow: HeaderValue,
}

/// The policies of all routes, by the path pattern of the router.
#[derive(Debug, Default)]
pub struct RoutePolicies(HashMap<String, PathPolicies>);

/// Middleware: looks up the policy of the route and leaves it in the request's extensions.
/// A request that matches no route gets none.
pub async fn find_policy(
    State(policies): State<Arc<RoutePolicies>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(path) = request.extensions().get::<MatchedPath>() {
        let found = policies.find(path.as_str(), request.method());
        request.extensions_mut().insert(found);
    }
    next.run(request).await
}

impl RouteMatch {
    /// How this request is counted. A request that matches no route is not.
    pub fn rate_class(request: &Request) -> RateClass {
        match request.extensions().get() {
            Some(Self::Route(policy)) => policy.rate_class,
            Some(Self::OtherMethods { rate_class, .. }) => *rate_class,
            Some(Self::Undocumented) => RateClass::Write,
            None => RateClass::Uncounted,
        }
    }
}

impl RoutePolicies {
    /// Reads the policies of an OpenAPI document.
    pub fn of(document: &Value) -> Self {
        let mut paths: HashMap<String, Vec<(Method, RoutePolicy)>> = HashMap::new();
        for (path, method, operation) in operations(document) {
            let policy = RoutePolicy::of(&method, operation);
            let operations = paths.entry(path.to_owned()).or_default();
            operations.push((method, policy));
        }
        let with_allow = |(path, operations): (String, Vec<(Method, RoutePolicy)>)| {
            let allow = allow(&operations);
            (path, PathPolicies { operations, allow })
        };
        Self(paths.into_iter().map(with_allow).collect())
    }

    /// The policy for a request whose route has this path pattern. `HEAD` counts as `GET`.
    pub fn find(&self, path: &str, method: &Method) -> RouteMatch {
        let Some(path) = self.0.get(path) else {
            return RouteMatch::Undocumented;
        };
        let method = match *method {
            Method::HEAD => &Method::GET,
            _ => method,
        };
        let mut operations = path.operations.iter();
        match operations.find(|(own, _)| own == method) {
            Some((_, policy)) => RouteMatch::Route(*policy),
            None => RouteMatch::OtherMethods {
                allow: path.allow.clone(),
                rate_class: path.rate_class_of_other(method),
            },
        }
    }
}

impl PathPolicies {
    /// The class of a method that the path does not have: that of its other reads or changes, if
    /// these agree.
    fn rate_class_of_other(&self, method: &Method) -> RateClass {
        let is_read = |method: &Method| *method == Method::GET;
        let all = self.operations.iter();
        let classes = |reads: bool| {
            all.clone()
                .filter(move |(own, _)| is_read(own) == reads)
                .map(|(_, policy)| policy.rate_class)
        };
        let mut own = classes(is_read(method));
        match own.next() {
            Some(first) if own.all(|class| class == first) => first,
            None if classes(!is_read(method)).all(|class| class == RateClass::Uncounted) => {
                RateClass::Uncounted
            }
            _ if is_read(method) => RateClass::Read,
            _ => RateClass::Write,
        }
    }
}

impl RoutePolicy {
    fn of(method: &Method, operation: &Value) -> Self {
        match RateClass::of_operation(operation) {
            Some(rate_class) => Self {
                access: RouteAccess::of(method, operation),
                rate_class,
            },
            None => Self {
                access: RouteAccess::Missing,
                rate_class: RateClass::Write,
            },
        }
    }
}

impl RouteAccess {
    fn of(method: &Method, operation: &Value) -> Self {
        let Some(alternatives) = operation["security"].as_array() else {
            return Self::Missing;
        };
        // Several schemes may be accepted, but each must grant the same.
        let mut accesses = alternatives.iter().map(Self::of_requirement);
        let access = match accesses.next() {
            Some(first) if accesses.all(|access| access == first) => first,
            _ => return Self::Missing,
        };
        let names = |name| alternatives.iter().any(|one| one.get(name).is_some());
        match (names(TICKET_SCHEME), access) {
            (false, access) => access,
            (true, Self::Holds(Scope::Read)) if *method == Method::GET && names(BEARER_SCHEME) => {
                Self::Stream
            }
            (true, _) => Self::Missing,
        }
    }

    fn of_requirement(requirement: &Value) -> Self {
        let Some(schemes) = requirement.as_object() else {
            return Self::Missing;
        };
        let mut scopes = schemes.values();
        let Some(first) = scopes.next() else {
            return Self::Public;
        };
        let scopes = match (scopes.next(), first.as_array()) {
            (None, Some(scopes)) => scopes.as_slice(),
            // No route requires two credentials at once.
            _ => return Self::Missing,
        };
        match scopes {
            [] => Self::SignedIn,
            [scope] => match scope.as_str().map(str::parse) {
                Some(Ok(scope)) => Self::Holds(scope),
                _ => Self::Missing,
            },
            _ => Self::Missing,
        }
    }
}

/// Removes the rate classes from a document: clients have no use for them.
pub fn remove_rate_classes(document: &mut Value) {
    let paths = document["paths"].as_object_mut();
    for item in paths.into_iter().flat_map(|paths| paths.values_mut()) {
        let members = item.as_object_mut();
        for operation in members.into_iter().flat_map(|item| item.values_mut()) {
            if let Some(operation) = operation.as_object_mut() {
                operation.remove(RATE_CLASS_EXTENSION);
            }
        }
    }
}

/// All operations of a document, with their path and method.
pub fn operations(document: &Value) -> impl Iterator<Item = (&str, Method, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let entries = item.as_object().into_iter().flatten();
        entries.filter_map(|(name, operation)| Some((path.as_str(), method(name)?, operation)))
    })
}

/// The method that a member of a path item stands for, if it is one.
pub fn method(name: &str) -> Option<Method> {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    known
        .into_iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(name))
}

fn allow(operations: &[(Method, RoutePolicy)]) -> HeaderValue {
    let mut names = BTreeSet::new();
    for (method, _) in operations {
        names.insert(method.as_str());
        if *method == Method::GET {
            names.insert("HEAD");
        }
    }
    let names: Vec<&str> = names.into_iter().collect();
    // Names of methods are ASCII.
    HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn access(security: &Value) -> RouteAccess {
        RouteAccess::of(&Method::GET, &json!({"security": security}))
    }

    #[test]
    fn the_four_spellings_are_read() {
        assert_eq!(access(&json!([{}])), RouteAccess::Public);
        assert_eq!(
            access(&json!([{"bearer": []}, {"session": []}])),
            RouteAccess::SignedIn
        );
        let read = json!([{"bearer": ["runs:read"]}, {"session": ["runs:read"]}]);
        assert_eq!(access(&read), RouteAccess::Holds(Scope::Read));
        let stream = json!([{"bearer": ["runs:read"]}, {"ticket": ["runs:read"]}]);
        assert_eq!(access(&stream), RouteAccess::Stream);
        let post = RouteAccess::of(&Method::POST, &json!({"security": stream}));
        assert_eq!(post, RouteAccess::Missing);
    }

    #[test]
    fn security_that_is_not_understood_refuses_every_request() {
        assert_eq!(
            RouteAccess::of(&Method::GET, &json!({})),
            RouteAccess::Missing
        );
        for security in [
            json!([]),
            json!({}),
            json!([[]]),
            json!([{"bearer": ["runs:reed"]}]),
            json!([{"bearer": ["runs:read", "admin"]}]),
            json!([{"bearer": [], "session": []}]),
            // Either of them would be a way around the other.
            json!([{"bearer": ["admin"]}, {}]),
            json!([{"bearer": ["admin"]}, {"session": ["runs:read"]}]),
            // A ticket only reads, and is worth no more than a token.
            json!([{"bearer": ["admin"]}, {"ticket": ["admin"]}]),
            json!([{"bearer": []}, {"ticket": []}]),
            json!([{"bearer": ["runs:read"]}, {"ticket": []}]),
            json!([{"ticket": ["runs:read"]}]),
        ] {
            assert_eq!(access(&security), RouteAccess::Missing, "{security}");
        }
    }

    #[test]
    fn a_route_without_a_rate_class_refuses_every_request() {
        for class in [json!(null), json!("reed"), json!(["read"])] {
            let operation = json!({"security": [{}], "x-rate-class": class});
            let policy = RoutePolicy::of(&Method::GET, &operation);
            assert_eq!(policy.access, RouteAccess::Missing, "{class}");
        }
    }

    #[test]
    fn a_request_finds_the_policy_of_its_route() {
        let policies = RoutePolicies::of(&json!({"paths": {"/a/{b}": {
            "get": {"security": [{}], "x-rate-class": "read"},
            "post": {"security": [{"bearer": ["admin"]}], "x-rate-class": "write"},
            "summary": "no method",
        }}}));
        let public = RouteMatch::Route(RoutePolicy {
            access: RouteAccess::Public,
            rate_class: RateClass::Read,
        });
        assert_eq!(policies.find("/a/{b}", &Method::GET), public);
        assert_eq!(policies.find("/a/{b}", &Method::HEAD), public);
        let admin = RouteMatch::Route(RoutePolicy {
            access: RouteAccess::Holds(Scope::Admin),
            rate_class: RateClass::Write,
        });
        assert_eq!(policies.find("/a/{b}", &Method::POST), admin);
        let others = RouteMatch::OtherMethods {
            allow: HeaderValue::from_static("GET, HEAD, POST"),
            rate_class: RateClass::Write,
        };
        assert_eq!(policies.find("/a/{b}", &Method::DELETE), others);
        assert_eq!(policies.find("/a/{b}", &Method::OPTIONS), others);
        assert_eq!(policies.find("/a", &Method::GET), RouteMatch::Undocumented);
    }

    #[test]
    fn a_method_that_does_not_exist_is_counted_like_its_neighbours() {
        let operation = |class: &str| json!({"security": [{}], "x-rate-class": class});
        let policies = RoutePolicies::of(&json!({"paths": {
            "/": {"get": operation("uncounted")},
            "/events": {"get": operation("read"), "post": operation("ingest")},
            "/session": {"get": operation("read"), "post": operation("sign-in"),
                "patch": operation("write")},
            "/tickets": {"post": operation("write")},
            "/watch": {"get": operation("stream")},
        }}));
        for (path, method, expected) in [
            ("/", Method::POST, RateClass::Uncounted),
            ("/events", Method::DELETE, RateClass::Ingest),
            ("/session", Method::PUT, RateClass::Write),
            ("/tickets", Method::GET, RateClass::Read),
            ("/watch", Method::POST, RateClass::Write),
        ] {
            let found = policies.find(path, &method);
            assert!(
                matches!(found, RouteMatch::OtherMethods { rate_class, .. } if rate_class == expected),
                "{method} {path}: {found:?}"
            );
        }
    }

    #[test]
    fn rate_classes_are_removed_from_the_document() {
        let mut document = json!({"paths": {"/": {
            "get": {"summary": "s", "x-rate-class": "read"}, "summary": "no method",
        }}});
        remove_rate_classes(&mut document);
        let expected = json!({"paths": {"/": {"get": {"summary": "s"}, "summary": "no method"}}});
        assert_eq!(document, expected);
    }
}
