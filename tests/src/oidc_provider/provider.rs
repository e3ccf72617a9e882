//! The handle of the provider: its state, and what a story may change while it runs.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::task::AbortHandle;

use super::endpoints::serve;
use super::id_token::TokenFault;
use super::signing_key::{Algorithm, SigningKey};
use crate::programs::loopback;

/// The client id of Runcast.
pub const CLIENT_ID: &str = "runcast-of-a-story";
/// The client secret of Runcast.
pub const CLIENT_SECRET: &str = "a secret: of+the/client%of a story";

/// The account that the provider signs in.
#[derive(Debug, Clone)]
pub struct Account {
    /// `sub`.
    pub subject: String,
    /// `email`.
    pub email: Option<String>,
    /// `email_verified`; null leaves it out.
    pub verified: Value,
    /// `preferred_username`.
    pub name: Option<String>,
}

impl Account {
    /// An account with a verified address at `example.com`.
    pub fn new(name: &str) -> Self {
        Self {
            subject: format!("subject of {name}"),
            email: Some(format!("{name}@example.com")),
            verified: true.into(),
            name: Some(name.to_owned()),
        }
    }
}

/// The authorization request that a code was issued for.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    pub(super) nonce: String,
    pub(super) challenge: String,
    pub(super) account: Account,
}

#[derive(Debug)]
pub(super) struct ProviderState {
    pub(super) url: String,
    /// The only redirect URI that it accepts.
    pub(super) callback: String,
    pub(super) key: Arc<SigningKey>,
    pub(super) account: Account,
    pub(super) fault: Option<TokenFault>,
    /// The error and description to return instead of a code.
    pub(super) authorization_error: Option<(String, String)>,
    /// The email is only in the userinfo response, not in the ID token.
    pub(super) profile_only_in_userinfo: bool,
    /// Requests get no response while their connection lasts.
    pub(super) hangs: bool,
    pub(super) codes: HashMap<String, Authorization>,
    pub(super) tokens: HashMap<String, Account>,
    /// All secrets that it has received or issued.
    pub(super) secrets: HashSet<String>,
    pub(super) discoveries: usize,
}

/// A running provider; it ends when dropped.
#[derive(Debug)]
pub struct OidcProvider {
    address: SocketAddr,
    shared: Arc<Mutex<ProviderState>>,
    server: AbortHandle,
}

impl OidcProvider {
    /// Starts one that redirects browsers back to this gateway.
    pub async fn start(gateway: &str, algorithm: Algorithm) -> Self {
        let shared = Arc::new(Mutex::new(ProviderState {
            url: String::new(),
            callback: format!("{gateway}/v1/session/oidc/callback"),
            key: Arc::new(SigningKey::new("first", algorithm)),
            account: Account::new("ada"),
            fault: None,
            authorization_error: None,
            profile_only_in_userinfo: false,
            hangs: false,
            codes: HashMap::new(),
            tokens: HashMap::new(),
            secrets: HashSet::from([CLIENT_SECRET.to_owned()]),
            discoveries: 0,
        }));
        let (address, server) = serve(loopback(0), &shared).await;
        lock(&shared).url = format!("http://localhost:{}", address.port());
        Self {
            address,
            shared,
            server,
        }
    }

    /// Its issuer URL.
    pub fn url(&self) -> String {
        self.lock().url.clone()
    }

    /// Sets the account that it signs in from now on.
    pub fn sign_in_as(&self, account: Account) {
        self.lock().account = account;
    }

    /// Sets the fault of ID tokens from now on, or none.
    pub fn set_token_fault(&self, fault: Option<TokenFault>) {
        self.lock().fault = fault;
    }

    /// Sets the error that it returns instead of codes from now on, or none.
    pub fn set_authorization_error(&self, authorization_error: Option<(&str, &str)>) {
        let owned = |(error, words): (&str, &str)| (error.to_owned(), words.to_owned());
        self.lock().authorization_error = authorization_error.map(owned);
    }

    /// Leaves the email out of ID tokens from now on; only the userinfo endpoint returns it.
    pub fn profile_only_in_userinfo(&self) {
        self.lock().profile_only_in_userinfo = true;
    }

    /// Stops or resumes responding.
    pub fn set_hanging(&self, hangs: bool) {
        self.lock().hangs = hangs;
    }

    /// Signs with a new key from now on, and publishes only that.
    pub fn rotate_key(&self) {
        let mut shared = self.lock();
        shared.key = Arc::new(SigningKey::new("second", shared.key.algorithm()));
    }

    /// How often its metadata was requested.
    pub fn discovery_count(&self) -> usize {
        self.lock().discoveries
    }

    /// All secrets that it has received or issued.
    pub fn secrets(&self) -> Vec<String> {
        self.lock().secrets.iter().cloned().collect()
    }

    /// Refuses connections from now on.
    pub fn stop(&self) {
        self.server.abort();
    }

    /// Listens again at the same address.
    pub async fn restart(&mut self) {
        self.server = serve(self.address, &self.shared).await.1;
    }

    fn lock(&self) -> MutexGuard<'_, ProviderState> {
        lock(&self.shared)
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(super) fn lock(shared: &Mutex<ProviderState>) -> MutexGuard<'_, ProviderState> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
