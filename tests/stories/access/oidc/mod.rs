//! Signing in by OpenID Connect, at an issuer of one's own: the whole way, by HTTP, with a browser's cookies.

mod attempts;
mod outages;
mod people;
mod proof;
mod way;

use reqwest::{Response, StatusCode};
use runcast_tests::api::problem;
use runcast_tests::issuer::{CLIENT_ID, CLIENT_SECRET, Issuer};
use runcast_tests::jwt::Algorithm;
use runcast_tests::programs::{free_port, loopback};
use runcast_tests::stack::{Part, Stack};
use runcast_tests::visitor::{Visitor, leads_to};
use serde_json::Value;

use super::people::json_of;

/// The host of every gateway.
const HOST: &str = "127.0.0.1";

/// The cookie of a session.
const SESSION: &str = "runcast_session";

/// The cookie of a sign-in that goes on.
const ATTEMPT: &str = "runcast_oidc";

/// An installation and its issuer.
pub(crate) struct Scene {
    pub(crate) stack: Stack,
    pub(crate) issuer: Issuer,
}

impl Scene {
    /// Everything, with these settings of the gateway beside those of the issuer.
    async fn start(settings: &[(&'static str, &str)]) -> Self {
        let mut scene = Self::prepare(Algorithm::Es256, settings).await;
        scene.stack.launch_all().await;
        scene
    }

    /// The same, with services still to be launched.
    pub(crate) async fn prepare(algorithm: Algorithm, settings: &[(&'static str, &str)]) -> Self {
        let mut stack = Stack::without_services().await;
        let address = loopback(free_port());
        let url = format!("http://{address}");
        let issuer = Issuer::start(&url, algorithm).await;
        let mut set = |name, value: &str| stack.set(Part::Gateway, name, value);
        set("RUNCAST_LISTEN", &address.to_string());
        set("RUNCAST_PUBLIC_URL", &url);
        set("RUNCAST_OIDC_ISSUER", &issuer.url());
        set("RUNCAST_OIDC_CLIENT_ID", CLIENT_ID);
        set("RUNCAST_OIDC_CLIENT_SECRET", CLIENT_SECRET);
        // The issuer is on this machine.
        set("NO_PROXY", "localhost,127.0.0.1");
        for (name, value) in settings {
            set(name, value);
        }
        Self { stack, issuer }
    }

    /// An address of the gateway.
    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.stack.api().base())
    }

    /// Goes to the issuer and back, and stops before the gateway: with where it is sent.
    async fn come_back(&self, visitor: &Visitor, path: &str) -> String {
        let issuer = leads_to(visitor.get(&self.at(path)).await).await;
        assert!(issuer.starts_with(&self.issuer.url()), "{issuer}");
        leads_to(visitor.get(&issuer).await).await
    }

    /// Signs in, as far as that goes: with the last answer of the gateway.
    async fn try_sign_in(&self, visitor: &Visitor) -> Response {
        let back = self.come_back(visitor, "/v1/session/oidc").await;
        visitor.get(&back).await
    }

    /// Signs in, and gives who one is then.
    async fn sign_in(&self, visitor: &Visitor) -> Value {
        let to = leads_to(self.try_sign_in(visitor).await).await;
        assert_eq!(to, "/");
        self.who(visitor).await
    }

    /// Who has signed in.
    async fn who(&self, visitor: &Visitor) -> Value {
        let answer = visitor.get(&self.at("/v1/session")).await;
        json_of(answer, StatusCode::OK).await
    }

    /// Checks that nobody is signed in by an answer, and gives why.
    async fn refused(&self, visitor: &Visitor, answer: Response, status: StatusCode) -> String {
        let why = problem(answer, status).await;
        assert_eq!(visitor.cookie(HOST, SESSION), None, "{why}");
        why
    }

    /// Entries of the audit log of this action, newest first.
    async fn audit(&self, action: &str) -> Vec<Value> {
        let api = self.stack.api();
        let page = api.get(&format!("/v1/audit?action={action}")).await;
        page["entries"].as_array().expect("a list").clone()
    }
}
