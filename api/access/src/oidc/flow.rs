//! [`Oidc`]: the authorization code flow with PKCE.
//!
//! - [`Oidc::begin`] sends a browser to the issuer, and stores what the answer is verified against
//!   as a [`LoginState`].
//! - [`Oidc::finish`] turns what the browser brings back into a user. The library verifies the
//!   signature of the ID token, its audience, its nonce and its time; [`Accounts`] finds the user.
//!
//! The gateway then starts a session as after a password. The issuer is contacted only when a user
//! signs in with it: the gateway, and all other ways to sign in, work without it.
//!
//! [`Accounts`]: super::account::Accounts

use std::sync::Arc;

use http::HeaderMap;
use openidconnect::core::{CoreAuthenticationFlow, CoreIdTokenClaims};
use openidconnect::{
    ClaimsVerificationError, CsrfToken, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, Scope,
    SignatureVerificationError, TokenResponse as _,
};
use runcast_common::config::ConfigError;
use runcast_common::connect::RedisFailure;
use tracing::warn;
use url::Url;
use uuid::Uuid;

use super::account::{Account, Accounts};
use super::issuer::{Issuer, IssuerError, IssuerUnavailable, Provider, plain};
use super::login_state::{self, LoginKey, LoginState, LoginStates};
use super::settings::OidcSettings;
use crate::secret::{NoRandomness, Secret};
use runcast_store::StoreError;

/// What Runcast requests beside the subject.
const REQUESTED_SCOPES: [&str; 2] = ["email", "profile"];

/// Why a sign-in failed. Each text is for the user who tries it.
#[derive(Debug, thiserror::Error)]
pub enum SignInRefused {
    /// The path to return to is not one of this server.
    #[error("return_to: expected a path of this server, such as /#/runs/ID")]
    ReturnTo,
    /// There is no pending sign-in for this browser and `state`.
    #[error(
        "this sign-in was not started in this browser, is over, or took longer than ten minutes: \
         begin again"
    )]
    Stale,
    /// The answer names another issuer.
    #[error("this answer is not from the issuer of this installation")]
    OtherIssuer,
    /// The issuer refused.
    #[error("the issuer refused to sign you in")]
    Denied,
    /// The answer of the issuer does not pass verification.
    #[error("the answer of the issuer does not prove your identity: begin again")]
    InvalidAnswer,
    /// The account has no verified address, and no user is linked to it.
    #[error("the issuer has not verified your email address, and no user here is linked to you")]
    Unverified,
    /// The account has no user, or the user may not sign in.
    #[error("there is no user here that you may sign in as: ask an administrator")]
    Unknown,
    /// The issuer does not answer.
    #[error("the issuer does not answer at the moment; try again")]
    IssuerUnavailable,
    /// Redis, which stores pending sign-ins, did not answer.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// Postgres did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl From<IssuerUnavailable> for SignInRefused {
    fn from(_logged: IssuerUnavailable) -> Self {
        Self::IssuerUnavailable
    }
}

impl SignInRefused {
    /// The reason as one word, which the page turns into a message.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::ReturnTo | Self::Stale => "stale",
            Self::Denied => "denied",
            Self::OtherIssuer | Self::InvalidAnswer => "unproven",
            Self::Unverified => "unverified",
            Self::Unknown => "unknown",
            Self::IssuerUnavailable | Self::Redis(_) | Self::Store(_) | Self::Random(_) => {
                "unavailable"
            }
        }
    }

    /// The reason in the metric of denials, if it counts as one.
    pub const fn denial(&self) -> Option<&'static str> {
        match self {
            Self::ReturnTo | Self::Stale => Some("oidc_stale"),
            Self::Denied => Some("oidc_denied"),
            Self::OtherIssuer | Self::InvalidAnswer => Some("oidc_unproven"),
            Self::Unverified | Self::Unknown => Some("oidc_user"),
            Self::IssuerUnavailable => Some("oidc_away"),
            Self::Redis(_) | Self::Store(_) | Self::Random(_) => None,
        }
    }
}

/// A sign-in that has started.
#[derive(Debug)]
pub struct StartedLogin {
    /// The URL of the issuer to which the browser goes.
    pub to: Url,
    /// The `Set-Cookie` value with the browser's secret.
    pub cookie: String,
}

/// The parameters with which a browser comes back from the issuer.
#[derive(Debug, Clone, Default)]
pub struct CallbackParams {
    /// The `state` that the browser was sent with.
    pub state: String,
    /// The authorization code.
    pub code: Option<String>,
    /// The error code, in place of an authorization code.
    pub error: Option<String>,
    /// The description of the error.
    pub description: Option<String>,
    /// The issuer that answers, if it follows RFC 9207.
    pub issuer: Option<String>,
}

/// A completed sign-in.
#[derive(Debug)]
pub struct CompletedLogin {
    /// The user who signed in.
    pub user: Uuid,
    /// The path of this server to return to.
    pub return_to: String,
    /// The client that the session is for.
    pub client: Option<String>,
}

/// Sign-in with one issuer. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Oidc(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    issuer: Issuer,
    public_url: Url,
}

impl Oidc {
    /// Sign-in with these settings, for a gateway that browsers reach at `public_url`.
    pub fn new(settings: OidcSettings, public_url: Url) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(Parts {
            issuer: Issuer::new(settings, &public_url)?,
            public_url,
        })))
    }

    /// The name of the issuer on the page.
    pub fn name(&self) -> &str {
        &self.0.issuer.settings().name
    }

    /// The URL of the issuer, as it spells it.
    pub fn issuer(&self) -> &str {
        self.0.issuer.url().as_str()
    }

    /// Reads the discovery document: fails if the issuer does not answer, or names another issuer.
    pub async fn ping(&self) -> Result<(), String> {
        self.0.issuer.discover().await.map(drop)
    }

    /// Starts a sign-in for a client. Afterwards the browser returns to a path of this server.
    pub(crate) async fn begin(
        &self,
        login_states: &LoginStates,
        return_to: &str,
        client: Option<String>,
    ) -> Result<StartedLogin, SignInRefused> {
        let return_to = login_state::local_path(return_to, &self.0.public_url)
            .ok_or(SignInRefused::ReturnTo)?;
        // Build the request to the issuer, with a fresh state, nonce and PKCE challenge.
        let provider = self.0.issuer.provider().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let request = provider
            .client
            .authorize_url(flow, || CsrfToken::new_random_len(32), Nonce::new_random)
            .set_pkce_challenge(challenge)
            .add_scopes(REQUESTED_SCOPES.map(|scope| Scope::new(scope.to_owned())));
        let (to, state, nonce) = request.url();
        // Remember what its answer is verified against.
        let browser = Secret::generate("")?;
        let cookie = login_state::start(&browser, self.is_secure());
        let login_state = LoginState {
            nonce,
            verifier,
            return_to,
            client,
        };
        let key = LoginKey::new(browser, state);
        login_states.store(&key, &login_state).await?;
        Ok(StartedLogin { to, cookie })
    }

    /// Completes a sign-in: verifies what the browser brings back, and finds its user.
    pub(crate) async fn finish(
        &self,
        login_states: &LoginStates,
        accounts: &Accounts,
        headers: &HeaderMap,
        returned: CallbackParams,
    ) -> Result<CompletedLogin, SignInRefused> {
        // Take the login state that belongs to this browser and `state`.
        let key = LoginKey::from_request(headers, self.is_secure(), returned.state);
        let key = key.ok_or(SignInRefused::Stale)?;
        let login_state = login_states.take(&key).await?;
        let LoginState {
            nonce,
            verifier,
            return_to,
            client,
        } = login_state.ok_or(SignInRefused::Stale)?;
        if returned.issuer.is_some_and(|other| other != self.issuer()) {
            return Err(SignInRefused::OtherIssuer);
        }
        if let Some(error) = returned.error {
            return Err(issuer_refused(&error, returned.description.as_deref()));
        }
        let code = returned.code.ok_or(SignInRefused::InvalidAnswer)?;
        // Exchange the code for tokens, and verify the ID token.
        let provider = self.0.issuer.provider().await?;
        let tokens = self.0.issuer.exchange(&provider, code, verifier).await;
        let tokens = tokens.map_err(request_failed)?;
        let token = tokens
            .id_token()
            .ok_or_else(|| unproven("the answer has no ID token"))?;
        let renewed;
        let claims = match provider.verify(token, &nonce) {
            // The issuer may sign with a key that is newer than the cached ones.
            Err(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey,
            )) => {
                renewed = self.0.issuer.renewed(&provider).await?;
                renewed.verify(token, &nonce)
            }
            verified => verified,
        };
        let claims = claims.map_err(|error| unproven(&error.to_string()))?;
        // Find the user of the account.
        let access_token = tokens.access_token();
        let account = self.account(&provider, claims, access_token).await?;
        let role = self.0.issuer.settings().create.as_deref();
        Ok(CompletedLogin {
            user: accounts.user_of(&account, role).await?,
            return_to,
            client,
        })
    }

    /// The `Set-Cookie` value that makes a browser delete its secret.
    pub fn forget(&self) -> String {
        login_state::end(self.is_secure())
    }

    /// The account that the claims describe. Many issuers return addresses only as user info.
    async fn account(
        &self,
        provider: &Provider,
        claims: &CoreIdTokenClaims,
        token: &openidconnect::AccessToken,
    ) -> Result<Account, SignInRefused> {
        let issuer = &self.0.issuer;
        let subject = claims.subject();
        let account = Account::new(self.issuer(), subject.as_str());
        let account = account.ok_or_else(|| unproven("the subject is not valid"))?;
        let name = claims.preferred_username().map(|name| name.as_str());
        if let Some(email) = claims.email() {
            let is_verified = claims.email_verified() == Some(true);
            let email = Some(email.as_str()).filter(|_| is_verified);
            return Ok(account.with_email(email).with_name(name));
        }
        let user_info = issuer.user_info(provider, token, subject).await;
        let Some(user_info) = user_info.map_err(request_failed)? else {
            return Ok(account);
        };
        let is_verified = user_info.email_verified() == Some(true);
        let email = user_info.email().map(|email| email.as_str());
        let name = name.or(user_info.preferred_username().map(|name| name.as_str()));
        Ok(account
            .with_email(email.filter(|_| is_verified))
            .with_name(name))
    }

    fn is_secure(&self) -> bool {
        self.0.public_url.scheme() == "https"
    }
}

/// Maps an `error` in place of a code.
fn issuer_refused(error: &str, description: Option<&str>) -> SignInRefused {
    if error == "access_denied" {
        return SignInRefused::Denied;
    }
    let description = plain(description.unwrap_or_default());
    warn!(
        error = plain(error),
        description, "the OpenID Connect issuer refused a sign-in"
    );
    match error {
        "server_error" | "temporarily_unavailable" => SignInRefused::IssuerUnavailable,
        _ => SignInRefused::Denied,
    }
}

fn unproven(error: &str) -> SignInRefused {
    warn!(
        error = plain(error),
        "the answer of the OpenID Connect issuer does not pass verification"
    );
    SignInRefused::InvalidAnswer
}

fn request_failed(error: IssuerError) -> SignInRefused {
    match error {
        IssuerError::Rejected(error) => unproven(&error),
        IssuerError::Unavailable(error) => {
            warn!(
                error,
                "the OpenID Connect issuer did not answer; the sign-in failed"
            );
            SignInRefused::IssuerUnavailable
        }
    }
}
