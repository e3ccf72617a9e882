//! The rule of each route, as its documentation says it.
//!
//! A handler states who may call it in the `security` of its `#[utoipa::path]`, in one of four ways:
//!
//! - `security(())`: everybody;
//! - `security(("bearer" = []))`: whoever has signed in, or shows a token;
//! - `security(("bearer" = [Scope::Read]))`: of those, who holds the scope;
//! - `security(("bearer" = [Scope::Read]), ("ticket" = [Scope::Read]))`: and whoever shows a [ticket](runcast_access::stream_ticket) of theirs.
//!   For reading with `GET` alone, so that a ticket never makes anything.
//!
//! [`RoutePolicies`] are read out of the finished document, so what is told and what is enforced are one thing. An operation
//! that says nothing, or something else, is [`RoutePolicy::Missing`]: nobody gets through.

use std::collections::{BTreeMap, HashMap};

use axum::http::{HeaderValue, Method};
use serde_json::Value;

use runcast_access::Scope;

/// The credential that operations name: a token. A session is worth as much, see [`crate::routes::openapi`].
pub const BEARER: &str = "bearer";

/// The credential that operations name beside it where they open streams: a ticket.
pub const TICKET: &str = "ticket";

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutePolicy {
    /// Everybody, known or not.
    Public,
    /// Whoever is known.
    SignedIn,
    /// Whoever holds this scope.
    Holds(Scope),
    /// Whoever holds [`Scope::Read`], and whoever shows a ticket of theirs.
    Stream,
    /// Nobody: nothing is documented that could be understood.
    Missing,
}

/// What there is at a path.
#[derive(Debug)]
struct RoutePattern {
    rules: Vec<(Method, RoutePolicy)>,
    /// The methods, for the header of that name.
    allow: HeaderValue,
}

/// What the rules say about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteMatch {
    /// There is a route, with this rule.
    Route(RoutePolicy),
    /// The path takes other methods: these.
    OtherMethods(HeaderValue),
    /// The document knows no such path, although the router does.
    Undocumented,
}

/// The rules of all routes, by path as the router has it and method. Read once, then only looked at.
#[derive(Debug, Default)]
pub struct RoutePolicies(HashMap<String, RoutePattern>);

impl RoutePolicies {
    /// The rules that an OpenAPI document states.
    #[must_use]
    pub fn of(document: &Value) -> Self {
        let mut places = HashMap::new();
        for (path, method, operation) in operations(document) {
            let place = places.entry(path.to_owned()).or_insert_with(Vec::new);
            let rule = RoutePolicy::of(&method, operation);
            place.push((method, rule));
        }
        let place = |rules: Vec<(Method, RoutePolicy)>| RoutePattern {
            allow: allow(&rules),
            rules,
        };
        let places = places.into_iter();
        Self(places.map(|(path, rules)| (path, place(rules))).collect())
    }

    /// What they say of a request whose route has this path. `HEAD` is as `GET`.
    #[must_use]
    pub fn find(&self, path: &str, method: &Method) -> RouteMatch {
        let Some(place) = self.0.get(path) else {
            return RouteMatch::Undocumented;
        };
        let method = match *method {
            Method::HEAD => &Method::GET,
            _ => method,
        };
        let rule = place.rules.iter().find(|(own, _)| own == method);
        rule.map_or_else(
            || RouteMatch::OtherMethods(place.allow.clone()),
            |(_, rule)| RouteMatch::Route(*rule),
        )
    }
}

impl RoutePolicy {
    fn of(method: &Method, operation: &Value) -> Self {
        let Some(alternatives) = operation["security"].as_array() else {
            return Self::Missing;
        };
        let mut rules = alternatives.iter().map(Self::of_requirement);
        // Several credentials may do, but each must mean the same.
        let rule = match rules.next() {
            Some(first) if rules.all(|rule| rule == first) => first,
            _ => return Self::Missing,
        };
        let names = |name| alternatives.iter().any(|one| one.get(name).is_some());
        match (names(TICKET), rule) {
            (false, rule) => rule,
            (true, Self::Holds(Scope::Read)) if *method == Method::GET && names(BEARER) => {
                Self::Stream
            }
            (true, _) => Self::Missing,
        }
    }

    fn of_requirement(requirement: &Value) -> Self {
        let Some(credentials) = requirement.as_object() else {
            return Self::Missing;
        };
        let mut scopes = credentials.values();
        let Some(first) = scopes.next() else {
            return Self::Public;
        };
        let scopes = match (scopes.next(), first.as_array()) {
            (None, Some(scopes)) => scopes.as_slice(),
            // Two credentials at once are asked for nowhere.
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

/// All operations of a document: path, method, and what is said of them.
pub fn operations(document: &Value) -> impl Iterator<Item = (&str, Method, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let entries = item.as_object().into_iter().flatten();
        entries.filter_map(|(name, operation)| Some((path.as_str(), method(name)?, operation)))
    })
}

/// The method that a member of a path item stands for, if it is one.
#[must_use]
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

fn allow(rules: &[(Method, RoutePolicy)]) -> HeaderValue {
    let names: BTreeMap<&str, ()> = rules
        .iter()
        .flat_map(|(method, _)| match *method {
            Method::GET => vec!["GET", "HEAD"],
            _ => vec![method.as_str()],
        })
        .map(|name| (name, ()))
        .collect();
    let names: Vec<&str> = names.into_keys().collect();
    // Names of methods are ASCII.
    HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(security: &Value) -> RoutePolicy {
        RoutePolicy::of(&Method::GET, &json!({"security": security}))
    }

    #[test]
    fn the_four_spellings_are_read() {
        assert_eq!(rule(&json!([{}])), RoutePolicy::Public);
        assert_eq!(
            rule(&json!([{"bearer": []}, {"session": []}])),
            RoutePolicy::SignedIn
        );
        let read = json!([{"bearer": ["runs:read"]}, {"session": ["runs:read"]}]);
        assert_eq!(rule(&read), RoutePolicy::Holds(Scope::Read));
        let stream = json!([{"bearer": ["runs:read"]}, {"ticket": ["runs:read"]}]);
        assert_eq!(rule(&stream), RoutePolicy::Stream);
        let post = RoutePolicy::of(&Method::POST, &json!({"security": stream}));
        assert_eq!(post, RoutePolicy::Missing);
    }

    #[test]
    fn whatever_is_not_understood_lets_nobody_through() {
        assert_eq!(
            RoutePolicy::of(&Method::GET, &json!({})),
            RoutePolicy::Missing
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
            assert_eq!(rule(&security), RoutePolicy::Missing, "{security}");
        }
    }

    #[test]
    fn a_request_finds_the_rule_of_its_route() {
        let rules = RoutePolicies::of(&json!({"paths": {"/a/{b}": {
            "get": {"security": [{}]},
            "post": {"security": [{"bearer": ["admin"]}]},
            "summary": "no method",
        }}}));
        let public = RouteMatch::Route(RoutePolicy::Public);
        assert_eq!(rules.find("/a/{b}", &Method::GET), public);
        assert_eq!(rules.find("/a/{b}", &Method::HEAD), public);
        let admin = RouteMatch::Route(RoutePolicy::Holds(Scope::Admin));
        assert_eq!(rules.find("/a/{b}", &Method::POST), admin);
        let others = RouteMatch::OtherMethods(HeaderValue::from_static("GET, HEAD, POST"));
        assert_eq!(rules.find("/a/{b}", &Method::DELETE), others);
        assert_eq!(rules.find("/a/{b}", &Method::OPTIONS), others);
        assert_eq!(rules.find("/a", &Method::GET), RouteMatch::Undocumented);
    }
}
