//! [`HostCookie`]: cookies with a secret that only the browser returns, to this host.
//!
//! They are `HttpOnly`, so that no script reads them; `SameSite=Lax`, so that other sites cannot
//! write with them; and where the page is served by https, `Secure` and bound to the host by the
//! prefix `__Host-`.

use std::time::Duration;

use cookie::{Cookie, SameSite};
use http::{HeaderMap, header};

use crate::secret::Secret;

/// A kind of cookie, whose value is a secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostCookie {
    /// Its name where the page is not served by https.
    pub(super) plain: &'static str,
    /// Its name where the page is served by https; it begins with `__Host-`.
    pub(super) secure: &'static str,
}

impl HostCookie {
    /// The value in a request, under the one name that this server sets. Where that name is bound
    /// to the host, another party has set a cookie of the other name, such as another host of the
    /// same domain.
    pub(super) fn read(self, headers: &HeaderMap, secure: bool) -> Option<Secret> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(Cookie::split_parse)
            .filter_map(Result::ok)
            .find(|cookie| cookie.name() == self.name(secure))
            .map(|cookie| Secret::from_text(cookie.value()))
    }

    /// The `Set-Cookie` value that stores `value` in the browser, for `life`.
    pub(super) fn set(self, value: &Secret, life: Duration, secure: bool) -> String {
        self.build(value.expose(), life, secure)
    }

    /// The `Set-Cookie` value that makes a browser delete it.
    pub(super) fn end(self, secure: bool) -> String {
        self.build("", Duration::ZERO, secure)
    }

    const fn name(self, secure: bool) -> &'static str {
        match secure {
            true => self.secure,
            false => self.plain,
        }
    }

    fn build(self, value: &str, life: Duration, secure: bool) -> String {
        let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        Cookie::build((self.name(secure), value.to_owned()))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(secure)
            .max_age(cookie::time::Duration::seconds(life))
            .build()
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_COOKIE: HostCookie = HostCookie {
        plain: "test",
        secure: "__Host-test",
    };

    #[test]
    fn a_cookie_survives_a_round_trip_through_a_browser() {
        let value = Secret::from_text("abc-_123");
        for secure in [false, true] {
            let set = TEST_COOKIE.set(&value, Duration::from_secs(60), secure);
            for word in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=60"] {
                assert!(set.contains(word), "{set}");
            }
            assert_eq!(set.contains("Secure"), secure);
            let mut headers = HeaderMap::new();
            let pair = set.split(';').next().expect("name and value");
            headers.insert(
                header::COOKIE,
                format!("a=b; {pair}").parse().expect("a value"),
            );
            let found = TEST_COOKIE.read(&headers, secure).expect("a value");
            assert_eq!(found.expose(), "abc-_123");
            assert!(TEST_COOKIE.read(&headers, !secure).is_none(), "{pair}");
        }
        assert!(TEST_COOKIE.end(true).contains("Max-Age=0"));
        assert!(TEST_COOKIE.read(&HeaderMap::new(), true).is_none());
    }
}
