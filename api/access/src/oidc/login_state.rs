//! [`LoginStates`]: pending sign-ins, with what the answer of the issuer is verified against.
//!
//! A login state lies in Redis for [`LOGIN_TTL`], under the SHA-256 of two secrets: a cookie that
//! only the browser has, and the `state` that it brings back from the issuer. So only a browser
//! with both finds it, at any gateway, and `GETDEL` takes it once. A sealed cookie would need no
//! Redis, but would need a key that all gateways share, and could be used again. A browser that
//! comes back with another `state` leaves the pending login as it is.

use std::time::Duration;

use http::HeaderMap;
use openidconnect::{CsrfToken, Nonce, PkceCodeVerifier};
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, Slot};
use serde::{Deserialize, Serialize};
use tracing::error;
use url::{Position, Url};

use crate::cookie::HostCookie;
use crate::secret::Secret;

/// Longest time between the start of a sign-in and the return from the issuer.
const LOGIN_TTL: Duration = Duration::from_secs(600);

/// Longest path to return to.
const MAX_RETURN_TO_BYTES: usize = 2048;

/// `SameSite=Lax` and not `Strict`: the browser must send it when the issuer sends it back.
const LOGIN_COOKIE: HostCookie = HostCookie {
    plain: "runcast_oidc",
    secure: "__Host-runcast_oidc",
};

/// What is stored of a sign-in until the browser comes back. Its secrets do not appear in `Debug`
/// output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LoginState {
    pub(super) nonce: Nonce,
    pub(super) verifier: PkceCodeVerifier,
    /// The path of this server to return to.
    pub(super) return_to: String,
    /// The client that the session is for.
    pub(super) client: Option<String>,
}

/// The two secrets that identify a login state.
#[derive(Debug)]
pub(super) struct LoginKey {
    browser: Secret,
    state: CsrfToken,
}

impl LoginKey {
    pub(super) const fn new(browser: Secret, state: CsrfToken) -> Self {
        Self { browser, state }
    }

    /// The secrets in a request that returns from the issuer; none without the cookie.
    pub(super) fn from_request(headers: &HeaderMap, secure: bool, state: String) -> Option<Self> {
        let browser = LOGIN_COOKIE.read(headers, secure)?;
        Some(Self::new(browser, CsrfToken::new(state)))
    }

    /// Generated secrets contain no dot, so the joined text is unambiguous; other secrets match no
    /// key.
    fn hash(&self) -> [u8; 32] {
        let joined = format!("{}.{}", self.browser.expose(), self.state.secret());
        Secret::from_text(&joined).hash()
    }
}

/// The `Set-Cookie` value that stores the browser's secret.
pub(super) fn start(browser: &Secret, secure: bool) -> String {
    LOGIN_COOKIE.set(browser, LOGIN_TTL, secure)
}

/// The `Set-Cookie` value that makes a browser delete it.
pub(super) fn end(secure: bool) -> String {
    LOGIN_COOKIE.end(secure)
}

/// Stores pending sign-ins.
#[derive(Debug)]
pub(crate) struct LoginStates {
    redis: Redis,
    keys: Keys,
}

impl LoginStates {
    pub(crate) const fn new(redis: Redis, keys: Keys) -> Self {
        Self { redis, keys }
    }

    /// Stores a login state, for [`LOGIN_TTL`].
    pub(super) async fn store(
        &self,
        key: &LoginKey,
        state: &LoginState,
    ) -> Result<(), RedisFailure> {
        let key = self.keys.attempt(&key.hash());
        let mut set = redis::cmd("SET");
        let text = serde_json::json!(state).to_string();
        set.arg(&key).arg(text).arg("EX").arg(LOGIN_TTL.as_secs());
        self.redis.query(Slot::of(&key), &set).await
    }

    /// Takes a login state: it cannot be found again.
    pub(super) async fn take(&self, key: &LoginKey) -> Result<Option<LoginState>, RedisFailure> {
        let key = self.keys.attempt(&key.hash());
        let mut get_del = redis::cmd("GETDEL");
        get_del.arg(&key);
        let text: Option<String> = self.redis.query(Slot::of(&key), &get_del).await?;
        let decode = |text: String| {
            serde_json::from_str(&text)
                .inspect_err(|failed| {
                    error!(
                        error = %failed,
                        "cannot read a pending sign-in: another version stored it"
                    );
                })
                .ok()
        };
        Ok(text.and_then(decode))
    }
}

/// The path, query and fragment of a text that leads to this server; none if it leads elsewhere, or
/// if a browser could read it so.
pub(super) fn local_path(text: &str, public_url: &Url) -> Option<String> {
    if !text.starts_with('/') || text.len() > MAX_RETURN_TO_BYTES {
        return None;
    }
    let url = public_url.join(text).ok()?;
    let path = &url[Position::BeforePath..];
    // A path that begins with two slashes would be read as a host.
    let is_local = url.origin() == public_url.origin() && !path.starts_with("//");
    is_local.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_to_accepts_only_paths_of_this_server() {
        let public_url = Url::parse("https://runcast.example.com/").expect("a URL");
        let local = |text: &str| local_path(text, &public_url);
        for path in ["/", "/#/runs/0190", "/?a=b#/runs/0190?c=d"] {
            assert_eq!(local(path).as_deref(), Some(path));
        }
        assert_eq!(local("/a/../b").as_deref(), Some("/b"));
        for elsewhere in [
            "",
            "runs",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/.//evil.example",
            "/a/..//evil.example",
            "https://evil.example/",
            "https:evil.example",
            "javascript:alert(1)",
            &format!("/{}", "x".repeat(MAX_RETURN_TO_BYTES)),
        ] {
            assert_eq!(local(elsewhere), None, "{elsewhere}");
        }
        let line = local("/a\r\nSet-Cookie: b").expect("a path");
        assert!(!line.contains(['\r', '\n', ' ']), "{line}");
    }

    #[test]
    fn a_login_state_is_found_only_with_both_secrets() {
        let key = |browser: &str, state: &str| {
            let state = CsrfToken::new(state.to_owned());
            LoginKey::new(Secret::from_text(browser), state).hash()
        };
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_ne!(key("a", "b"), key("a", "c"));
        assert_ne!(key("a", "b"), key("c", "b"));
        assert_ne!(key("a", "b"), key("ab", ""));
    }
}
