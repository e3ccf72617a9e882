//! Writes with a cookie are let through from the page itself alone.

use axum::http::{HeaderMap, Method};

use crate::problem::Problem;

/// A browser sends the cookie with every request, also with one that another site made it send; such
/// a request says so in `Sec-Fetch-Site`, or, in older browsers, by its `Origin`.
///
/// # Errors
/// 403 for a request from elsewhere.
pub fn same_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let same = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == text("host")
        }
        // No browser leaves both out; a program that sends the cookie by hand is not tricked.
        (None, None) => true,
    };
    if same {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "{method} with a session cookie must come from the page itself"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_from_elsewhere_are_refused() {
        let check = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().expect("a value"));
            }
            same_origin(&Method::POST, &map).is_ok()
        };
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(!check(&[("sec-fetch-site", "cross-site")]));
        assert!(!check(&[("sec-fetch-site", "same-site")]));
        assert!(check(&[("origin", "http://a:1"), ("host", "a:1")]));
        assert!(!check(&[("origin", "http://b:1"), ("host", "a:1")]));
        assert!(!check(&[("origin", "null"), ("host", "a:1")]));
        assert!(check(&[]));
    }
}
