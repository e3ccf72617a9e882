//! The session cookie: it carries the id of a session, which the server ends; so it lives as long as any session may.

use http::HeaderMap;

use super::super::cookie::HostCookie;
use super::super::secret::Secret;
use super::lifetime::MOST_LIFE;

/// The name of the cookie where the page is not served by https.
pub const PLAIN_NAME: &str = "runcast_session";

const COOKIE: HostCookie = HostCookie {
    plain: PLAIN_NAME,
    secure: "__Host-runcast_session",
};

/// The session that a request carries.
#[must_use]
pub fn from_headers(headers: &HeaderMap, secure: bool) -> Option<Secret> {
    COOKIE.read(headers, secure)
}

/// The header that starts a session.
#[must_use]
pub fn start(session: &Secret, secure: bool) -> String {
    COOKIE.set(session, MOST_LIFE, secure)
}

/// The header that makes a browser forget its session.
#[must_use]
pub fn end(secure: bool) -> String {
    COOKIE.end(secure)
}
