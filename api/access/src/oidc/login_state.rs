//! Sign-ins that have begun: what the issuer is asked, and what its answer is held against.
//!
//! An attempt lies in Redis for [`LIFE`] under the SHA-256 of two secrets: one that only the browser has, as a cookie, and
//! the `state` that it brings back from the issuer. So it is found by whoever has both and by nobody else, at any gateway,
//! and taken by `GETDEL`, once. A sealed cookie would need no Redis, but a key that all gateways share, and it could be
//! used again. Who comes back with another state takes nothing away from an attempt that goes on.

use std::time::Duration;

use http::HeaderMap;
use openidconnect::{CsrfToken, Nonce, PkceCodeVerifier};
use runcast_common::connect::RedisFailure;
use runcast_common::protocol::keys::Slot;
use serde::{Deserialize, Serialize};
use tracing::error;
use url::{Position, Url};

use super::super::access::Access;
use super::super::cookie::HostCookie;
use super::super::secret::Secret;

/// How long somebody may take at the issuer.
const LIFE: Duration = Duration::from_secs(600);

/// Longest path to go on to, in bytes.
const MOST_RETURN_TO: usize = 2048;

/// Lax and not strict: it has to come along when the issuer sends the browser back.
const COOKIE: HostCookie = HostCookie {
    plain: "runcast_oidc",
    secure: "__Host-runcast_oidc",
};

/// What is remembered of a sign-in until the browser comes back. Its secrets do not print themselves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LoginState {
    pub(super) nonce: Nonce,
    pub(super) verifier: PkceCodeVerifier,
    /// A path of this server.
    pub(super) return_to: String,
    /// The client that the session will be for.
    pub(super) client: Option<String>,
}

/// The two secrets that lead to an attempt.
#[derive(Debug)]
pub(super) struct Way {
    browser: Secret,
    state: CsrfToken,
}

impl Way {
    pub(super) const fn new(browser: Secret, state: CsrfToken) -> Self {
        Self { browser, state }
    }

    /// The way that a request claims to know.
    pub(super) fn claimed(headers: &HeaderMap, secure: bool, state: String) -> Option<Self> {
        let browser = COOKIE.read(headers, secure)?;
        Some(Self::new(browser, CsrfToken::new(state)))
    }

    /// Neither secret holds a dot that we have made, and with others there is nothing to be found.
    fn hash(&self) -> [u8; 32] {
        let both = format!("{}.{}", self.browser.expose(), self.state.secret());
        Secret::claimed(&both).hash()
    }
}

/// The header that gives a browser its secret.
pub(super) fn start(browser: &Secret, secure: bool) -> String {
    COOKIE.set(browser, LIFE, secure)
}

/// The header that makes a browser forget it.
pub(super) fn end(secure: bool) -> String {
    COOKIE.end(secure)
}

impl Access {
    /// Keeps an attempt, for [`LIFE`].
    ///
    /// # Errors
    /// If Redis does not answer.
    pub(super) async fn keep_attempt(
        &self,
        way: &Way,
        attempt: &LoginState,
    ) -> Result<(), RedisFailure> {
        let key = self.keys().attempt(&way.hash());
        let mut command = redis::cmd("SET");
        let text = serde_json::json!(attempt).to_string();
        command.arg(&key).arg(text).arg("EX").arg(LIFE.as_secs());
        self.redis().query(Slot::of(&key), &command).await
    }

    /// Takes an attempt: nobody finds it again.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub(super) async fn take_attempt(&self, way: &Way) -> Result<Option<LoginState>, RedisFailure> {
        let key = self.keys().attempt(&way.hash());
        let mut command = redis::cmd("GETDEL");
        command.arg(&key);
        let text: Option<String> = self.redis().query(Slot::of(&key), &command).await?;
        let read = |text: String| {
            let attempt = serde_json::from_str(&text);
            attempt
                .inspect_err(
                    |failed| error!(error = %failed, "a sign-in was kept by another version"),
                )
                .ok()
        };
        Ok(text.and_then(read))
    }
}

/// The path, query and fragment of a text that leads to this server; none if it leads, or could be read to lead, elsewhere.
pub(super) fn local(text: &str, public_url: &Url) -> Option<String> {
    if !text.starts_with('/') || text.len() > MOST_RETURN_TO {
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
    fn one_is_sent_to_this_server_and_nowhere_else() {
        let public_url = Url::parse("https://runcast.example.com/").expect("a URL");
        let local = |text: &str| local(text, &public_url);
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
            &format!("/{}", "x".repeat(MOST_RETURN_TO)),
        ] {
            assert_eq!(local(elsewhere), None, "{elsewhere}");
        }
        let line = local("/a\r\nSet-Cookie: b").expect("a path");
        assert!(!line.contains(['\r', '\n', ' ']), "{line}");
    }

    #[test]
    fn both_secrets_lead_to_an_attempt_and_neither_alone() {
        let way = |browser: &str, state: &str| {
            let state = CsrfToken::new(state.to_owned());
            Way::new(Secret::claimed(browser), state).hash()
        };
        assert_eq!(way("a", "b"), way("a", "b"));
        assert_ne!(way("a", "b"), way("a", "c"));
        assert_ne!(way("a", "b"), way("c", "b"));
        assert_ne!(way("a", "b"), way("ab", ""));
    }
}
