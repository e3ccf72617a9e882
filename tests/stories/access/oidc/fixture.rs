//! A stack with an OpenID Connect provider, and the steps of signing in.

use reqwest::{Response, StatusCode};
use runcast_tests::api::problem;
use runcast_tests::oidc_browser::{OidcBrowser, redirect_target};
use runcast_tests::oidc_provider::Algorithm;
use runcast_tests::oidc_provider::{CLIENT_ID, CLIENT_SECRET, OidcProvider};
use runcast_tests::programs::{free_port, loopback};
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;

use super::super::fixtures::json_of;

/// The host of every gateway.
pub(super) const GATEWAY_HOST: &str = "127.0.0.1";

/// The session cookie.
pub(super) const SESSION_COOKIE: &str = "runcast_session";

/// The cookie of a login in progress.
pub(super) const LOGIN_COOKIE: &str = "runcast_oidc";

/// An installation and its provider.
pub(crate) struct Scene {
    pub(crate) stack: Stack,
    pub(crate) provider: OidcProvider,
}

impl Scene {
    /// Starts everything, with these settings of the gateway in addition to those of the provider.
    pub(super) async fn start(settings: &[(&'static str, &str)]) -> Self {
        let mut scene = Self::prepare(Algorithm::Es256, settings).await;
        scene.stack.start_all().await;
        scene
    }

    /// The same without services.
    pub(crate) async fn prepare(algorithm: Algorithm, settings: &[(&'static str, &str)]) -> Self {
        let mut stack = Stack::without_services().await;
        let address = loopback(free_port());
        let url = format!("http://{address}");
        let provider = OidcProvider::start(&url, algorithm).await;
        let mut set = |name, value: &str| stack.set(Service::Gateway, name, value);
        set("RUNCAST_LISTEN", &address.to_string());
        set("RUNCAST_PUBLIC_URL", &url);
        set("RUNCAST_OIDC_ISSUER", &provider.url());
        set("RUNCAST_OIDC_CLIENT_ID", CLIENT_ID);
        set("RUNCAST_OIDC_CLIENT_SECRET", CLIENT_SECRET);
        // The provider is on this machine.
        set("NO_PROXY", "localhost,127.0.0.1");
        for (name, value) in settings {
            set(name, value);
        }
        Self { stack, provider }
    }

    /// A URL of the gateway.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.stack.api().base())
    }

    /// Goes to the provider and back; returns the callback URL without requesting it.
    pub(super) async fn callback_url(&self, browser: &OidcBrowser, path: &str) -> String {
        let provider = redirect_target(browser.get(&self.at(path)).await).await;
        assert!(provider.starts_with(&self.provider.url()), "{provider}");
        redirect_target(browser.get(&provider).await).await
    }

    /// Signs in; returns the gateway's last response, whatever it is.
    pub(super) async fn try_sign_in(&self, browser: &OidcBrowser) -> Response {
        let back = self.callback_url(browser, "/v1/session/oidc").await;
        browser.get(&back).await
    }

    /// Signs in; returns the session.
    pub(super) async fn sign_in(&self, browser: &OidcBrowser) -> Value {
        let to = redirect_target(self.try_sign_in(browser).await).await;
        assert_eq!(to, "/");
        self.who(browser).await
    }

    /// The current session.
    pub(super) async fn who(&self, browser: &OidcBrowser) -> Value {
        let response = browser.get(&self.at("/v1/session")).await;
        json_of(response, StatusCode::OK).await
    }

    /// Checks that a response signs no user in, and returns the reason.
    pub(super) async fn refused(
        &self,
        browser: &OidcBrowser,
        response: Response,
        status: StatusCode,
    ) -> String {
        let why = problem(response, status).await;
        assert_eq!(browser.cookie(GATEWAY_HOST, SESSION_COOKIE), None, "{why}");
        why
    }

    /// Entries of the audit log with this action, newest first.
    pub(super) async fn audit(&self, action: &str) -> Vec<Value> {
        let api = self.stack.api();
        let page = api.get(&format!("/v1/audit?action={action}")).await;
        page["entries"].as_array().expect("a list").clone()
    }
}
