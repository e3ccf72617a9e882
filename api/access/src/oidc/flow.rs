//! Signing in by OpenID Connect: the authorization code flow with PKCE, of one issuer that the operator names.
//!
//! - [`Oidc::begin`] sends a browser to the issuer, and remembers what its answer is held against ([`attempt`]).
//! - [`Oidc::finish`] turns what the browser brings back into a user ([`person`]). The signature of the issuer, that it is
//!   meant for us and for this attempt, and its time are checked by the library.
//! - [`settings`]: what an operator says; [`issuer`]: what the issuer says.
//!
//! The session is none of its business: that is started as after a password. A gateway runs without the issuer, and so do
//! all other ways to sign in; it is asked when somebody wants to sign in by it.

use std::sync::Arc;

use http::HeaderMap;
use openidconnect::core::{CoreAuthenticationFlow, CoreIdTokenClaims};
use openidconnect::{
    ClaimsVerificationError, CsrfToken, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, Scope,
    SignatureVerificationError, TokenResponse as _,
};
use runcast_common::connect::RedisFailure;
use tracing::warn;
use url::Url;
use uuid::Uuid;

use crate::access::Access;
use crate::oidc::account::Account;
use crate::oidc::issuer::{Away, Issuer, NoProof, Provider, plain};
use crate::oidc::login_state::{LoginState, Way};
use crate::oidc::settings::OidcSettings;
use crate::secret::{NoRandomness, Secret};
use runcast_store::StoreError;

/// What the issuer is asked for beside who it is.
const SCOPES: [&str; 2] = ["email", "profile"];

/// Why nobody is signed in. Each text is for who tries to.
#[derive(Debug, thiserror::Error)]
pub enum SignInRefused {
    /// It could lead anywhere.
    #[error("return_to: expected a path of this server, such as /#/runs/ID")]
    ReturnTo,
    /// There is no such attempt.
    #[error(
        "this sign-in was not begun in this browser, is over, or has taken longer than ten minutes: begin again"
    )]
    Stale,
    /// It is said to be of somebody else.
    #[error("this answer is not from the issuer that was asked")]
    OtherIssuer,
    /// The issuer lets them not.
    #[error("the issuer has not let you sign in")]
    Denied,
    /// What the issuer sent is not good for it.
    #[error("what the issuer has sent does not prove who you are: begin again")]
    Unproven,
    /// Nobody vouches for their address.
    #[error("the issuer vouches for no address of yours, and no user here is linked to you")]
    Unverified,
    /// There is no user, or one who may not.
    #[error("no user here is yours to sign in as: ask an administrator")]
    Unknown,
    /// The issuer cannot be asked.
    #[error("the issuer cannot be asked at the moment; try again")]
    Away,
    /// There is nothing to remember it by.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// Nobody can say who that is.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no secret to be had.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl From<Away> for SignInRefused {
    fn from(_logged: Away) -> Self {
        Self::Away
    }
}

impl SignInRefused {
    /// One word for the page, which knows what to say.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::ReturnTo | Self::Stale => "stale",
            Self::Denied => "denied",
            Self::OtherIssuer | Self::Unproven => "unproven",
            Self::Unverified => "unverified",
            Self::Unknown => "unknown",
            Self::Away | Self::Redis(_) | Self::Store(_) | Self::Random(_) => "unavailable",
        }
    }

    /// The reason of a denial for metrics, if it is one.
    #[must_use]
    pub const fn denial(&self) -> Option<&'static str> {
        match self {
            Self::ReturnTo | Self::Stale => Some("oidc_stale"),
            Self::Denied => Some("oidc_denied"),
            Self::OtherIssuer | Self::Unproven => Some("oidc_unproven"),
            Self::Unverified | Self::Unknown => Some("oidc_user"),
            Self::Away => Some("oidc_away"),
            Self::Redis(_) | Self::Store(_) | Self::Random(_) => None,
        }
    }
}

/// A sign-in that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser has to go.
    pub to: Url,
    /// The header by which it can be known again.
    pub cookie: String,
}

/// What a browser brings back from the issuer.
#[derive(Debug, Clone, Default)]
pub struct Returned {
    /// What it was sent with.
    pub state: String,
    /// What the issuer gives tokens for.
    pub code: Option<String>,
    /// Why it gives none.
    pub error: Option<String>,
    /// The same in words.
    pub description: Option<String>,
    /// Who says so, where the issuer does as RFC 9207 wants.
    pub issuer: Option<String>,
}

/// Who has signed in, and what they wanted.
#[derive(Debug)]
pub struct Finished {
    /// Who.
    pub user: Uuid,
    /// The path to go on to.
    pub return_to: String,
    /// The client that the session is for.
    pub client: Option<String>,
}

/// An issuer by which one can sign in. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Oidc(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    issuer: Issuer,
    public_url: Url,
}

impl Oidc {
    /// By these settings, for a gateway that browsers reach there.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(settings: OidcSettings, public_url: Url) -> Result<Self, reqwest::Error> {
        Ok(Self(Arc::new(Parts {
            issuer: Issuer::new(settings, &public_url)?,
            public_url,
        })))
    }

    /// What the page calls the issuer.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.issuer.settings().name
    }

    /// How the issuer calls itself.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.0.issuer.url().as_str()
    }

    /// Asks the issuer what it is.
    ///
    /// # Errors
    /// In words, if it does not answer, or as another one.
    pub async fn ping(&self) -> Result<(), String> {
        self.0.issuer.discover().await.map(drop)
    }

    /// Begins a sign-in for a client, after which the browser goes on to a path of this server.
    ///
    /// # Errors
    /// [`SignInRefused`].
    pub async fn begin(
        &self,
        access: &Access,
        return_to: &str,
        client: Option<String>,
    ) -> Result<Begun, SignInRefused> {
        let return_to = crate::oidc::login_state::local(return_to, &self.0.public_url)
            .ok_or(SignInRefused::ReturnTo)?;
        let provider = self.0.issuer.provider().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let asking = provider
            .client
            .authorize_url(flow, || CsrfToken::new_random_len(32), Nonce::new_random)
            .set_pkce_challenge(challenge)
            .add_scopes(SCOPES.map(|scope| Scope::new(scope.to_owned())));
        let (to, state, nonce) = asking.url();
        let browser = Secret::generate("")?;
        let cookie = crate::oidc::login_state::start(&browser, self.is_secure());
        let attempt = LoginState {
            nonce,
            verifier,
            return_to,
            client,
        };
        let way = Way::new(browser, state);
        access.keep_attempt(&way, &attempt).await?;
        Ok(Begun { to, cookie })
    }

    /// Ends a sign-in. Whoever comes with what belongs to none ends none.
    ///
    /// # Errors
    /// [`SignInRefused`].
    pub async fn finish(
        &self,
        access: &Access,
        headers: &HeaderMap,
        returned: Returned,
    ) -> Result<Finished, SignInRefused> {
        let way = Way::claimed(headers, self.is_secure(), returned.state);
        let way = way.ok_or(SignInRefused::Stale)?;
        let attempt = access
            .take_attempt(&way)
            .await?
            .ok_or(SignInRefused::Stale)?;
        if returned.issuer.is_some_and(|other| other != self.issuer()) {
            return Err(SignInRefused::OtherIssuer);
        }
        if let Some(error) = returned.error {
            return Err(said_no(&error, returned.description.as_deref()));
        }
        let code = returned.code.ok_or(SignInRefused::Unproven)?;
        let LoginState {
            nonce,
            verifier,
            return_to,
            client,
        } = attempt;
        let provider = self.0.issuer.provider().await?;
        let tokens = self.0.issuer.exchange(&provider, code, verifier).await;
        let tokens = tokens.map_err(no_proof)?;
        let token = tokens
            .id_token()
            .ok_or_else(|| unproven("there is no ID token"))?;
        let renewed;
        let claims = match provider.verify(token, &nonce) {
            // It may sign by a key that was not there an hour ago.
            Err(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey,
            )) => {
                renewed = self.0.issuer.renewed(&provider).await?;
                renewed.verify(token, &nonce)
            }
            verified => verified,
        };
        let claims = claims.map_err(|error| unproven(&error.to_string()))?;
        let person = self
            .person(&provider, claims, tokens.access_token())
            .await?;
        let role = self.0.issuer.settings().create.as_deref();
        Ok(Finished {
            user: access.user_of(&person, role).await?,
            return_to,
            client,
        })
    }

    /// The header that makes a browser forget its part of an attempt.
    #[must_use]
    pub fn forget(&self) -> String {
        crate::oidc::login_state::end(self.is_secure())
    }

    /// Who these claims are about. Many issuers tell addresses only to who asks once more.
    async fn person(
        &self,
        provider: &Provider,
        claims: &CoreIdTokenClaims,
        token: &openidconnect::AccessToken,
    ) -> Result<Account, SignInRefused> {
        let issuer = &self.0.issuer;
        let subject = claims.subject();
        let person = Account::new(self.issuer(), subject.as_str());
        let person = person.ok_or_else(|| unproven("it has no subject that could be one"))?;
        let name = claims.preferred_username().map(|name| name.as_str());
        if let Some(email) = claims.email() {
            let is_verified = claims.email_verified() == Some(true);
            let email = Some(email.as_str()).filter(|_| is_verified);
            return Ok(person.with_email(email).with_name(name));
        }
        let more = issuer.user_info(provider, token, subject).await;
        let Some(more) = more.map_err(no_proof)? else {
            return Ok(person);
        };
        let is_verified = more.email_verified() == Some(true);
        let email = more.email().map(|email| email.as_str());
        let name = name.or(more.preferred_username().map(|name| name.as_str()));
        Ok(person
            .with_email(email.filter(|_| is_verified))
            .with_name(name))
    }

    fn is_secure(&self) -> bool {
        self.0.public_url.scheme() == "https"
    }
}

/// What an `error` in place of a code means.
fn said_no(error: &str, description: Option<&str>) -> SignInRefused {
    if error == "access_denied" {
        return SignInRefused::Denied;
    }
    let description = plain(description.unwrap_or_default());
    warn!(
        error = plain(error),
        description, "the issuer lets nobody sign in"
    );
    match error {
        "server_error" | "temporarily_unavailable" => SignInRefused::Away,
        _ => SignInRefused::Denied,
    }
}

fn unproven(why: &str) -> SignInRefused {
    warn!(
        error = plain(why),
        "the issuer has sent no proof of who signs in"
    );
    SignInRefused::Unproven
}

fn no_proof(why: NoProof) -> SignInRefused {
    match why {
        NoProof::Refused(why) => unproven(&why),
        NoProof::Away(why) => {
            warn!(error = why, "the issuer cannot be asked who signs in");
            SignInRefused::Away
        }
    }
}
