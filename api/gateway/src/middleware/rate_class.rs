//! The rate class of a route: by which limits its requests are counted.
//!
//! A handler states the class beside `security` in its `#[utoipa::path]`, as an extension of the
//! operation: `extensions(("x-rate-class" = json!("read")))`. [`route_policy`](super::route_policy)
//! reads it once, at start, and removes it from the document that is served.

use axum::http::Uri;
use serde_json::Value;

use crate::extract::query::Query;
use runcast_access::rate_limit::policy::Policy;

/// The extension of an operation that names its class.
pub const RATE_CLASS_EXTENSION: &str = "x-rate-class";

/// By which limits a request is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateClass {
    /// By none: health checks, the page and its assets, which cost less than counting.
    Uncounted,
    /// A read.
    Read,
    /// A stream of server-sent events.
    Stream,
    /// Text of a run. With `?follow` it holds a stream permit, as a stream does.
    Text,
    /// A search.
    Search,
    /// A change.
    Write,
    /// Publishing events.
    Ingest,
    /// Calls of the publisher library. Their handlers count them for the run, not for the
    /// principal, which may publish to thousands of runs.
    Publish,
    /// Signing in.
    SignIn,
}

impl RateClass {
    /// The class that an operation states, if it states one that exists.
    pub fn of_operation(operation: &Value) -> Option<Self> {
        match operation[RATE_CLASS_EXTENSION].as_str()? {
            "uncounted" => Some(Self::Uncounted),
            "read" => Some(Self::Read),
            "stream" => Some(Self::Stream),
            "text" => Some(Self::Text),
            "search" => Some(Self::Search),
            "write" => Some(Self::Write),
            "ingest" => Some(Self::Ingest),
            "publish" => Some(Self::Publish),
            "sign-in" => Some(Self::SignIn),
            _ => None,
        }
    }

    /// The policies that count a request of this class.
    pub(super) const fn policies(self) -> &'static [Policy] {
        match self {
            Self::Uncounted | Self::Publish => &[],
            Self::Read | Self::Stream | Self::Text => &[Policy::Read],
            Self::Search => &[Policy::Read, Policy::Search],
            Self::Write => &[Policy::Write],
            Self::Ingest => &[Policy::Ingest],
            Self::SignIn => &[Policy::SignIn],
        }
    }

    /// Whether the answer is a stream, which holds a stream permit until it ends.
    pub(super) fn opens_stream(self, uri: &Uri) -> bool {
        match self {
            Self::Stream => true,
            Self::Text => Query::of(uri).flag("follow").unwrap_or(false),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_opens_a_stream_only_if_it_is_followed() {
        let opens = |class: RateClass, uri: &str| class.opens_stream(&uri.parse().expect("a URI"));
        assert!(opens(RateClass::Text, "/text?follow"));
        assert!(opens(RateClass::Text, "/text?follow=1"));
        assert!(!opens(RateClass::Text, "/text"));
        assert!(!opens(RateClass::Text, "/text?follow=0"));
        assert!(opens(RateClass::Stream, "/stream"));
        assert!(!opens(RateClass::Read, "/runs?follow"));
    }

    #[test]
    fn an_unknown_class_is_none() {
        let class = |name: &str| RateClass::of_operation(&json!({"x-rate-class": name}));
        assert_eq!(class("sign-in"), Some(RateClass::SignIn));
        assert_eq!(class("reed"), None);
        assert_eq!(RateClass::of_operation(&json!({})), None);
    }
}
