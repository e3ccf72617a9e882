//! A request that changes something by a session cookie must come from the gateway's own page.
//!
//! A browser sends the cookie with every request, also with one that another site triggered. Such a
//! request is marked by `Sec-Fetch-Site` or, in older browsers, by its `Origin`.

use axum::http::{HeaderMap, Method};

use crate::problem::Problem;

/// Refuses a request of another site with 403.
pub fn same_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_same = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == text("host")
        }
        // No browser omits both. A program that sends the cookie was not tricked into it.
        (None, None) => true,
    };
    if is_same {
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
    fn requests_of_other_sites_are_refused() {
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
