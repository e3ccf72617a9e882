//! The session cookie: it carries the id of a session, which the server ends; so it lives as long as any session may.
//!
//! `HttpOnly`, so that no script reads it; `SameSite=Lax`, so that other sites cannot write with it;
//! and where the page is served by https, `Secure` and bound to the host by the prefix `__Host-`.

use axum::http::{HeaderMap, header};
use cookie::{Cookie, SameSite};

use super::super::secret::Secret;
use super::MOST_LIFE;

/// The name of the cookie where the page is not served by https.
pub const PLAIN_NAME: &str = "runcast_session";
const SECURE_NAME: &str = "__Host-runcast_session";

/// The session that a request carries, by the one name that is given out: where that is bound to the host, a cookie of the
/// other name was put there by somebody else, such as another host of the same domain.
#[must_use]
pub fn from_headers(headers: &HeaderMap, secure: bool) -> Option<Secret> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == name(secure))
        .map(|cookie| Secret::claimed(cookie.value()))
}

/// The header that starts a session.
#[must_use]
pub fn start(session: &Secret, secure: bool) -> String {
    let life = i64::try_from(MOST_LIFE.as_secs()).unwrap_or(i64::MAX);
    let mut cookie = cookie(session.expose(), secure);
    cookie.set_max_age(cookie::time::Duration::seconds(life));
    cookie.to_string()
}

/// The header that makes a browser forget its session.
#[must_use]
pub fn end(secure: bool) -> String {
    let mut cookie = cookie("", secure);
    cookie.set_max_age(cookie::time::Duration::ZERO);
    cookie.to_string()
}

const fn name(secure: bool) -> &'static str {
    match secure {
        true => SECURE_NAME,
        false => PLAIN_NAME,
    }
}

fn cookie(value: &str, secure: bool) -> Cookie<'static> {
    Cookie::build((name(secure), value.to_owned()))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(secure)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_survives_the_way_through_a_browser() {
        let session = Secret::claimed("abc-_123");
        for secure in [false, true] {
            let set = start(&session, secure);
            assert!(
                set.contains("HttpOnly") && set.contains("SameSite=Lax"),
                "{set}"
            );
            assert_eq!(set.contains("Secure"), secure);
            let mut headers = HeaderMap::new();
            let pair = set.split(';').next().expect("name and value");
            headers.insert(
                header::COOKIE,
                format!("a=b; {pair}").parse().expect("a value"),
            );
            let found = from_headers(&headers, secure).expect("a session");
            assert_eq!(found.expose(), "abc-_123");
            assert!(from_headers(&headers, !secure).is_none(), "{pair}");
        }
        assert!(end(true).contains("Max-Age=0"));
        assert!(from_headers(&HeaderMap::new(), true).is_none());
    }
}
