//! The issuer: what it says of itself, and what it is asked when somebody comes back from it.
//!
//! Its discovery document is read when it is first needed, with its keys, and kept for [`KEPT`]; keys that have changed
//! meanwhile are read when one is missed, at most once in [`RENEW_PAUSE`]. An issuer that did not answer is not asked again
//! for [`AWAY_PAUSE`], so that many who want to sign in do not wait for it one after the other.
//!
//! Limits: [`TIMEOUT`] for a request, [`DEADLINE`] for the discovery with the wait for one that goes on, [`MOST_ANSWER`]
//! bytes of an answer, no redirects, and https alone where the issuer's own address is https.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreClient, CoreClientAuthMethod, CoreIdToken, CoreIdTokenClaims, CoreJwsSigningAlgorithm,
    CoreProviderMetadata, CoreTokenResponse, CoreUserInfoClaims,
};
use openidconnect::{
    AccessToken, AuthType, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce,
    PkceCodeVerifier, RedirectUrl, RequestTokenError, SubjectIdentifier,
};
use reqwest::redirect;
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::warn;
use url::Url;

use super::settings::OidcSettings;

/// How long the discovery document and the keys are taken as they are.
const KEPT: Duration = Duration::from_secs(3600);

/// How long they are not read again when a key is missed.
const RENEW_PAUSE: Duration = Duration::from_secs(10);

/// How long an issuer that did not answer is not asked again.
const AWAY_PAUSE: Duration = Duration::from_secs(2);

/// Longest wait for an answer of the issuer; two of them make a discovery.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Longest wait for the discovery.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longest answer: a set of keys with their certificates has some ten thousand bytes.
const MOST_ANSWER: usize = 1 << 20;

/// Characters that are shown of what an issuer says.
const MOST_WORDS: usize = 300;

/// Where Runcast waits for browsers that come back.
pub const CALLBACK: &str = "/v1/session/oidc/callback";

/// Signatures that count: those that only the issuer can make.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// The issuer does not answer, or nothing that makes sense; it was logged why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Away;

/// Why the issuer gives no proof.
#[derive(Debug)]
pub(super) enum NoProof {
    /// It cannot be asked.
    Away(String),
    /// It has said no: the code is none of its.
    Refused(String),
}

/// What an issuer says of itself.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) client: Client,
    read: Instant,
}

impl Provider {
    /// What a token claims, if the issuer has signed it for us, for this sign-in, and lately.
    ///
    /// # Errors
    /// Says what does not hold.
    pub(super) fn verify<'a>(
        &self,
        token: &'a CoreIdToken,
        nonce: &Nonce,
    ) -> Result<&'a CoreIdTokenClaims, ClaimsVerificationError> {
        let verifier = self.client.id_token_verifier();
        token.claims(&verifier.set_allowed_algs(ALGORITHMS), nonce)
    }
}

#[derive(Debug, Default)]
struct Known {
    provider: Option<Arc<Provider>>,
    failed: Option<Instant>,
}

/// An issuer, and what is known of it.
#[derive(Debug)]
pub(super) struct Issuer {
    settings: OidcSettings,
    callback: RedirectUrl,
    http: reqwest::Client,
    known: Mutex<Known>,
}

impl Issuer {
    /// An issuer that sends browsers back to this address. Nothing is asked yet.
    ///
    /// # Errors
    /// If no client can be made, such as without any authority to trust.
    pub(super) fn new(settings: OidcSettings, public_url: &Url) -> Result<Self, reqwest::Error> {
        let mut callback = public_url.clone();
        callback.set_path(CALLBACK);
        callback.set_query(None);
        callback.set_fragment(None);
        let http = reqwest::Client::builder()
            .user_agent(concat!("runcast/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .https_only(settings.issuer.url().scheme() == "https")
            .build()?;
        Ok(Self {
            settings,
            callback: RedirectUrl::from_url(callback),
            http,
            known: Mutex::default(),
        })
    }

    /// How it calls itself.
    pub(super) const fn url(&self) -> &IssuerUrl {
        &self.settings.issuer
    }

    /// What was set for it.
    pub(super) const fn settings(&self) -> &OidcSettings {
        &self.settings
    }

    /// What it says of itself, as of an hour ago at most.
    pub(super) async fn provider(&self) -> Result<Arc<Provider>, Away> {
        self.known(|provider| provider.read.elapsed() < KEPT).await
    }

    /// The same, read after `old` was, unless that was a moment ago.
    pub(super) async fn renewed(&self, old: &Provider) -> Result<Arc<Provider>, Away> {
        let is_new =
            |provider: &Provider| provider.read > old.read || provider.read.elapsed() < RENEW_PAUSE;
        self.known(is_new).await
    }

    /// What is known, if it will do; else what the issuer says now.
    async fn known(&self, will_do: impl Fn(&Provider) -> bool) -> Result<Arc<Provider>, Away> {
        let reading = async {
            let mut known = self.known.lock().await;
            if let Some(provider) = known.provider.as_ref().filter(|known| will_do(known)) {
                return Ok(Arc::clone(provider));
            }
            if known.failed.is_some_and(|at| at.elapsed() < AWAY_PAUSE) {
                return Err(Away);
            }
            match self.discover().await {
                Ok(provider) => {
                    let provider = Arc::new(provider);
                    *known = Known {
                        provider: Some(Arc::clone(&provider)),
                        failed: None,
                    };
                    Ok(provider)
                }
                Err(why) => {
                    warn!(issuer = %self.url().as_str(), error = why, "nobody can sign in by OpenID Connect");
                    known.failed = Some(Instant::now());
                    Err(Away)
                }
            }
        };
        timeout(DEADLINE, reading).await.unwrap_or(Err(Away))
    }

    /// What it says of itself now, or why it cannot be asked.
    pub(super) async fn discover(&self) -> Result<Provider, String> {
        let http = self.http();
        let metadata = CoreProviderMetadata::discover_async(self.url().clone(), &http);
        let metadata = metadata.await.map_err(|error| words(&error))?;
        let methods = metadata.token_endpoint_auth_methods_supported();
        let takes = |method| methods.is_none_or(|methods| methods.contains(&method));
        // Basic is what every issuer takes that does not say otherwise.
        let auth = match takes(CoreClientAuthMethod::ClientSecretBasic) {
            true => AuthType::BasicAuth,
            false => AuthType::RequestBody,
        };
        let secret = self.settings.client_secret.expose_secret();
        let client = CoreClient::from_provider_metadata(
            metadata,
            ClientId::new(self.settings.client_id.clone()),
            Some(ClientSecret::new(secret.to_owned())),
        );
        Ok(Provider {
            client: client
                .set_redirect_uri(self.callback.clone())
                .set_auth_type(auth),
            read: Instant::now(),
        })
    }

    /// Turns the code that a browser has brought into tokens.
    pub(super) async fn exchange(
        &self,
        provider: &Provider,
        code: String,
        verifier: PkceCodeVerifier,
    ) -> Result<CoreTokenResponse, NoProof> {
        let exchange = provider.client.exchange_code(AuthorizationCode::new(code));
        let exchange = exchange.map_err(|error| NoProof::Away(words(&error)))?;
        let http = self.http();
        let exchange = exchange.set_pkce_verifier(verifier).request_async(&http);
        exchange.await.map_err(|error| match error {
            RequestTokenError::ServerResponse(_) => NoProof::Refused(words(&error)),
            // What it could not be read as may hold a token.
            RequestTokenError::Parse(..) => {
                NoProof::Away("the answer to a code makes no sense".to_owned())
            }
            error => NoProof::Away(words(&error)),
        })
    }

    /// What else the issuer tells of a subject; none if it does not tell more.
    pub(super) async fn user_info(
        &self,
        provider: &Provider,
        token: &AccessToken,
        subject: &SubjectIdentifier,
    ) -> Result<Option<CoreUserInfoClaims>, NoProof> {
        // The library takes any text for a header.
        let is_plain = token.secret().bytes().all(|byte| byte.is_ascii_graphic());
        let asking = provider
            .client
            .user_info(token.clone(), Some(subject.clone()));
        let Some(asking) = asking.ok().filter(|_| is_plain) else {
            return Ok(None);
        };
        let http = self.http();
        let claims = asking.request_async(&http).await;
        claims
            .map(Some)
            .map_err(|error| NoProof::Away(words(&error)))
    }

    /// What the library asks by.
    fn http(&self) -> impl Fn(HttpRequest) -> Answering {
        let client = self.http.clone();
        move |request| Box::pin(send(client.clone(), request))
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpFailure>> + Send>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum HttpFailure {
    #[error("{0}")]
    Failed(#[from] reqwest::Error),
    #[error("the answer has more than {MOST_ANSWER} bytes")]
    TooLong,
}

async fn send(client: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
    let mut response = client.execute(request.try_into()?).await?;
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > MOST_ANSWER {
            return Err(HttpFailure::TooLong);
        }
        body.extend_from_slice(&piece);
    }
    let mut answer = HttpResponse::new(body);
    *answer.status_mut() = response.status();
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    Ok(answer)
}

/// An error with its causes, for a line of a log: bounded, and without anything that could end the line.
fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    plain(&text)
}

/// What somebody else has written, for a line of a log.
pub(super) fn plain(text: &str) -> String {
    let plain = |char: char| match char.is_control() {
        true => ' ',
        false => char,
    };
    text.chars().take(MOST_WORDS).map(plain).collect()
}
