//! [`Issuer`]: requests to the issuer: discovery, the exchange of codes for tokens, and user info.
//!
//! The discovery document and the keys are read when they are first needed, and used for
//! [`PROVIDER_TTL`]. If a key is missing meanwhile, they are read again, at most once in
//! [`RENEW_PAUSE`]. After the issuer did not answer, it is left alone for [`RETRY_PAUSE`], so that
//! many concurrent sign-ins do not wait for it one after the other.
//!
//! Limits: [`REQUEST_TIMEOUT`] for a request, [`DISCOVERY_DEADLINE`] for the discovery including
//! the wait for one that is running, [`MAX_RESPONSE_BYTES`] of a response, no redirects, and only
//! https if the URL of the issuer is https.

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
use reqwest::{Certificate, redirect};
use runcast_common::config::ConfigError;
use runcast_common::connect::Authorities;
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::warn;
use url::Url;

use super::settings::OidcSettings;

/// How long the discovery document and the keys are used.
const PROVIDER_TTL: Duration = Duration::from_secs(3600);

/// How long they are not read again when a key is missing.
const RENEW_PAUSE: Duration = Duration::from_secs(10);

/// How long the issuer is left alone after it did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Longest time of a request; a discovery takes two of them.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest time of a discovery.
const DISCOVERY_DEADLINE: Duration = Duration::from_secs(10);

/// Longest response: a set of keys with their certificates has some ten thousand bytes.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// Longest text of an issuer in a log line.
const MAX_LOGGED_CHARS: usize = 300;

/// The path to which the issuer sends browsers back.
pub const CALLBACK_PATH: &str = "/v1/session/oidc/callback";

/// Accepted signature algorithms: those with a private key, which only the issuer has.
const SIGNATURE_ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
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

/// The issuer does not answer, or its answer is invalid. The reason was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IssuerUnavailable;

/// Why a request to the issuer failed.
#[derive(Debug)]
pub(super) enum IssuerError {
    /// It does not answer, or its answer is invalid.
    Unavailable(String),
    /// It rejected the code.
    Rejected(String),
}

/// The endpoints and keys of an issuer, from its discovery document.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) client: Client,
    read_at: Instant,
}

impl Provider {
    /// Verifies an ID token: that the issuer signed it, for this installation and this sign-in, and
    /// that it has not expired. Returns its claims.
    pub(super) fn verify<'a>(
        &self,
        token: &'a CoreIdToken,
        nonce: &Nonce,
    ) -> Result<&'a CoreIdTokenClaims, ClaimsVerificationError> {
        let verifier = self.client.id_token_verifier();
        token.claims(&verifier.set_allowed_algs(SIGNATURE_ALGORITHMS), nonce)
    }
}

#[derive(Debug, Default)]
struct CachedProvider {
    provider: Option<Arc<Provider>>,
    failed_at: Option<Instant>,
}

/// The issuer, with its discovery document once that was read.
#[derive(Debug)]
pub(super) struct Issuer {
    settings: OidcSettings,
    callback: RedirectUrl,
    http: reqwest::Client,
    cached: Mutex<CachedProvider>,
}

impl Issuer {
    /// An issuer that sends browsers back to `public_url`. It sends no request yet. It fails if the
    /// certificate authorities to trust cannot be read.
    pub(super) fn new(settings: OidcSettings, public_url: &Url) -> Result<Self, ConfigError> {
        let mut callback = public_url.clone();
        callback.set_path(CALLBACK_PATH);
        callback.set_query(None);
        callback.set_fragment(None);
        let is_https = settings.issuer.url().scheme() == "https";
        let authorities = match Authorities::load() {
            Ok(authorities) => Some(authorities),
            Err(error) if is_https => return Err(error),
            Err(_not_needed) => None,
        };
        let certificates = authorities.iter().flat_map(Authorities::certificates);
        let http = reqwest::Client::builder()
            .tls_certs_only(certificates.flat_map(Certificate::from_der))
            .user_agent(concat!("runcast/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .https_only(is_https)
            .build()
            .map_err(|error| ConfigError::Invalid {
                name: "RUNCAST_OIDC_ISSUER",
                reason: error.to_string(),
            })?;
        Ok(Self {
            settings,
            callback: RedirectUrl::from_url(callback),
            http,
            cached: Mutex::default(),
        })
    }

    /// Its URL, as it spells it.
    pub(super) const fn url(&self) -> &IssuerUrl {
        &self.settings.issuer
    }

    /// Its settings.
    pub(super) const fn settings(&self) -> &OidcSettings {
        &self.settings
    }

    /// The provider, at most [`PROVIDER_TTL`] old.
    pub(super) async fn provider(&self) -> Result<Arc<Provider>, IssuerUnavailable> {
        self.cached(|provider| provider.read_at.elapsed() < PROVIDER_TTL)
            .await
    }

    /// A provider that was read after `old`, unless `old` was read within [`RENEW_PAUSE`].
    pub(super) async fn renewed(&self, old: &Provider) -> Result<Arc<Provider>, IssuerUnavailable> {
        let is_new = |provider: &Provider| {
            provider.read_at > old.read_at || provider.read_at.elapsed() < RENEW_PAUSE
        };
        self.cached(is_new).await
    }

    /// The cached provider if it `is_usable`, else a new one.
    async fn cached(
        &self,
        is_usable: impl Fn(&Provider) -> bool,
    ) -> Result<Arc<Provider>, IssuerUnavailable> {
        let reading = async {
            let mut cached = self.cached.lock().await;
            if let Some(provider) = cached.provider.as_ref().filter(|one| is_usable(one)) {
                return Ok(Arc::clone(provider));
            }
            if cached
                .failed_at
                .is_some_and(|at| at.elapsed() < RETRY_PAUSE)
            {
                return Err(IssuerUnavailable);
            }
            match self.discover().await {
                Ok(provider) => {
                    let provider = Arc::new(provider);
                    *cached = CachedProvider {
                        provider: Some(Arc::clone(&provider)),
                        failed_at: None,
                    };
                    Ok(provider)
                }
                Err(error) => {
                    warn!(
                        issuer = %self.url().as_str(),
                        error,
                        "the OpenID Connect issuer is unavailable; users cannot sign in with it"
                    );
                    cached.failed_at = Some(Instant::now());
                    Err(IssuerUnavailable)
                }
            }
        };
        timeout(DISCOVERY_DEADLINE, reading)
            .await
            .unwrap_or(Err(IssuerUnavailable))
    }

    /// Reads the discovery document and the keys. The error is for a log line.
    pub(super) async fn discover(&self) -> Result<Provider, String> {
        let http = self.http();
        let metadata = CoreProviderMetadata::discover_async(self.url().clone(), &http);
        let metadata = metadata.await.map_err(|error| describe(&error))?;
        let methods = metadata.token_endpoint_auth_methods_supported();
        let supports = |method| methods.is_none_or(|methods| methods.contains(&method));
        // An issuer that does not state its methods supports basic authentication.
        let auth = match supports(CoreClientAuthMethod::ClientSecretBasic) {
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
            read_at: Instant::now(),
        })
    }

    /// Exchanges the code that a browser brought for tokens.
    pub(super) async fn exchange(
        &self,
        provider: &Provider,
        code: String,
        verifier: PkceCodeVerifier,
    ) -> Result<CoreTokenResponse, IssuerError> {
        let exchange = provider.client.exchange_code(AuthorizationCode::new(code));
        let exchange = exchange.map_err(|error| IssuerError::Unavailable(describe(&error)))?;
        let http = self.http();
        let exchange = exchange.set_pkce_verifier(verifier).request_async(&http);
        exchange.await.map_err(|error| match error {
            RequestTokenError::ServerResponse(_) => IssuerError::Rejected(describe(&error)),
            // The error contains the response, and that may contain a token.
            RequestTokenError::Parse(..) => {
                IssuerError::Unavailable("the answer to the token request is invalid".to_owned())
            }
            error => IssuerError::Unavailable(describe(&error)),
        })
    }

    /// The user info of a subject; none if the issuer does not offer it.
    pub(super) async fn user_info(
        &self,
        provider: &Provider,
        token: &AccessToken,
        subject: &SubjectIdentifier,
    ) -> Result<Option<CoreUserInfoClaims>, IssuerError> {
        // The library does not check that the token fits into a header.
        let is_plain = token.secret().bytes().all(|byte| byte.is_ascii_graphic());
        let request = provider
            .client
            .user_info(token.clone(), Some(subject.clone()));
        let Some(request) = request.ok().filter(|_| is_plain) else {
            return Ok(None);
        };
        let http = self.http();
        let claims = request.request_async(&http).await;
        claims
            .map(Some)
            .map_err(|error| IssuerError::Unavailable(describe(&error)))
    }

    /// The HTTP client in the form that the library takes.
    fn http(&self) -> impl Fn(HttpRequest) -> ResponseFuture {
        let client = self.http.clone();
        move |request| Box::pin(send(client.clone(), request))
    }
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpFailure>> + Send>>;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
enum HttpFailure {
    #[error("{0}")]
    Failed(#[from] reqwest::Error),
    #[error("the response has more than {MAX_RESPONSE_BYTES} bytes")]
    TooLong,
}

async fn send(client: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
    let mut response = client.execute(request.try_into()?).await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err(HttpFailure::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    let mut buffered = HttpResponse::new(body);
    *buffered.status_mut() = response.status();
    *buffered.headers_mut() = std::mem::take(response.headers_mut());
    Ok(buffered)
}

/// An error with its causes, for a log line: bounded, and without control characters.
fn describe(error: &dyn Error) -> String {
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

/// A text of another party, for a log line: bounded, and without control characters.
pub(super) fn plain(text: &str) -> String {
    let plain = |char: char| match char.is_control() {
        true => ' ',
        false => char,
    };
    text.chars().take(MAX_LOGGED_CHARS).map(plain).collect()
}
