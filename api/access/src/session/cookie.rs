//! The session cookie. It carries the id of a session. The server ends the session, so the cookie
//! lives as long as any session may.

use http::HeaderMap;

use super::lifetime::MAX_SESSION_LIFE;
use crate::cookie::HostCookie;
use crate::secret::Secret;

/// The name of the cookie where the page is not served by https.
pub const PLAIN_NAME: &str = "runcast_session";

const SESSION_COOKIE: HostCookie = HostCookie {
    plain: PLAIN_NAME,
    secure: "__Host-runcast_session",
};

/// The session id that a request carries.
pub fn from_headers(headers: &HeaderMap, secure: bool) -> Option<Secret> {
    SESSION_COOKIE.read(headers, secure)
}

/// The `Set-Cookie` value that starts a session.
pub fn start(session: &Secret, secure: bool) -> String {
    SESSION_COOKIE.set(session, MAX_SESSION_LIFE, secure)
}

/// The `Set-Cookie` value that makes a browser delete its session cookie.
pub fn end(secure: bool) -> String {
    SESSION_COOKIE.end(secure)
}
