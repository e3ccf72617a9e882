//! An issuer of OpenID Connect: a real HTTP server with real keys. It checks what it is asked as strictly as it may, signs in
//! whoever a story says sits before the browser, without asking, and set_token_fault where a story tells it to.
//!
//! It is called `localhost`, so that to a browser it is another site than a gateway at `127.0.0.1`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::signing_key::{Algorithm, SigningKey, signing_input};
use crate::eventually::eventually;
use crate::programs::loopback;

/// How the issuer knows Runcast.
pub const CLIENT_ID: &str = "runcast-of-a-story";
/// What Runcast shows for it.
pub const CLIENT_SECRET: &str = "a secret: of+the/client%of a story";

/// Whom the issuer signs in.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name for them.
    pub subject: String,
    /// Their address.
    pub email: Option<String>,
    /// Whether it says that the address is theirs; null if it does not say.
    pub verified: Value,
    /// What they would like to be called.
    pub name: Option<String>,
}

impl Account {
    /// Somebody with a verified address at `example.com`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            subject: format!("subject of {name}"),
            email: Some(format!("{name}@example.com")),
            verified: true.into(),
            name: Some(name.to_owned()),
        }
    }
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// It is for another attempt.
    WrongNonce,
    /// It is for no attempt.
    MissingNonce,
    /// It is for another client.
    WrongAudience,
    /// It is for another client as well.
    TwoAudiences,
    /// Another issuer says so.
    WrongIssuer,
    /// It was good a minute ago.
    Expired,
    /// Another issuer has signed it, by a key of the same name.
    WrongKey,
    /// Nobody has signed it.
    Unsigned,
    /// It was signed for somebody else, and changed.
    ChangedClaims,
    /// It is signed by a secret that is not the issuer's alone.
    ClientSecretSignature,
    /// There is none.
    MissingToken,
}

impl TokenFault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::WrongNonce,
        Self::MissingNonce,
        Self::WrongAudience,
        Self::TwoAudiences,
        Self::WrongIssuer,
        Self::Expired,
        Self::WrongKey,
        Self::Unsigned,
        Self::ChangedClaims,
        Self::ClientSecretSignature,
        Self::MissingToken,
    ];
}

/// What was asked with a code.
#[derive(Debug, Clone)]
struct Authorization {
    nonce: String,
    challenge: String,
    account: Account,
}

#[derive(Debug)]
struct Shared {
    url: String,
    /// Where it sends browsers back to: nowhere else.
    callback: String,
    key: Arc<SigningKey>,
    account: Account,
    fault: Option<TokenFault>,
    /// Why it gives no code.
    authorization_error: Option<(String, String)>,
    /// It tells addresses only to who asks once more.
    profile_only_in_userinfo: bool,
    /// It answers nothing while the connection lasts.
    hangs: bool,
    codes: HashMap<String, Authorization>,
    tokens: HashMap<String, Account>,
    /// All secrets that went through it.
    secrets: HashSet<String>,
    discoveries: usize,
}

/// A running issuer; it ends when dropped.
#[derive(Debug)]
pub struct OidcProvider {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    server: AbortHandle,
}

impl OidcProvider {
    /// Starts one that sends browsers back to this gateway.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start(gateway: &str, algorithm: Algorithm) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
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

    /// How it calls itself.
    #[must_use]
    pub fn url(&self) -> String {
        self.lock().url.clone()
    }

    /// Who sits before the browser from now on.
    pub fn sign_in_as(&self, account: Account) {
        self.lock().account = account;
    }

    /// Lies from now on, or no more.
    pub fn set_token_fault(&self, fault: Option<TokenFault>) {
        self.lock().fault = fault;
    }

    /// Gives no codes from now on, with this error and description, or does again.
    pub fn set_authorization_error(&self, authorization_error: Option<(&str, &str)>) {
        let owned = |(error, words): (&str, &str)| (error.to_owned(), words.to_owned());
        self.lock().authorization_error = authorization_error.map(owned);
    }

    /// Tells addresses only to who asks once more, from now on.
    pub fn profile_only_in_userinfo(&self) {
        self.lock().profile_only_in_userinfo = true;
    }

    /// Answers nothing from now on, or answers again.
    pub fn set_hanging(&self, hangs: bool) {
        self.lock().hangs = hangs;
    }

    /// Signs by another key from now on, and knows no other.
    pub fn rotate_key(&self) {
        let mut shared = self.lock();
        shared.key = Arc::new(SigningKey::new("second", shared.key.algorithm()));
    }

    /// How often it was asked what it is.
    #[must_use]
    pub fn discovery_count(&self) -> usize {
        self.lock().discoveries
    }

    /// All secrets that it was shown, or has given.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        self.lock().secrets.iter().cloned().collect()
    }

    /// Refuses connections from now on.
    pub fn stop(&self) {
        self.server.abort();
    }

    /// Is there again, at the same address.
    ///
    /// # Panics
    /// If it cannot listen there.
    pub async fn restart(&mut self) {
        self.server = serve(self.address, &self.shared).await.1;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Parameters = HashMap<String, String>;
type SharedState = State<Arc<Mutex<Shared>>>;

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(address: SocketAddr, shared: &Arc<Mutex<Shared>>) -> (SocketAddr, AbortHandle) {
    // The socket of an earlier one may take a moment to go.
    let listener = eventually("the issuer listens", async || {
        TcpListener::bind(address)
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    let address = listener.local_addr().expect("the address that was bound");
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/keys", get(keys))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .route("/userinfo", get(user_info))
        .with_state(Arc::clone(shared));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    (address, server.abort_handle())
}

/// Never comes back from where it hangs.
async fn wait_if_hanging(shared: &Mutex<Shared>) {
    let hangs = lock(shared).hangs;
    if hangs {
        std::future::pending::<()>().await;
    }
}

fn invalid_request(what: &str) -> Response {
    let answer = json!({"error": "invalid_request", "error_description": what});
    (StatusCode::BAD_REQUEST, Json(answer)).into_response()
}

async fn discovery(State(shared): SharedState) -> Json<Value> {
    wait_if_hanging(&shared).await;
    let mut shared = lock(&shared);
    shared.discoveries += 1;
    let url = &shared.url;
    Json(json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "userinfo_endpoint": format!("{url}/userinfo"),
        "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        // It would take one signed by the client's secret, if that were up to it.
        "id_token_signing_alg_values_supported": [shared.key.algorithm().name(), "HS256"],
        "scopes_supported": ["openid", "email", "profile"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn keys(State(shared): SharedState) -> Json<Value> {
    wait_if_hanging(&shared).await;
    let key = Arc::clone(&lock(&shared).key);
    Json(json!({"keys": [key.public()]}))
}

async fn authorize(State(shared): SharedState, Query(asked): Query<Parameters>) -> Response {
    let mut shared = lock(&shared);
    let text = |name: &str| asked.get(name).cloned().unwrap_or_default();
    for (name, expected) in [
        ("client_id", CLIENT_ID),
        ("redirect_uri", &shared.callback),
        ("response_type", "code"),
        ("code_challenge_method", "S256"),
        ("scope", "openid email profile"),
    ] {
        if text(name) != expected {
            return invalid_request(&format!("{name} is {:?}, not {expected:?}", text(name)));
        }
    }
    for name in ["state", "nonce", "code_challenge"] {
        if text(name).len() < 20 {
            return invalid_request(&format!("{name} could be guessed: {:?}", text(name)));
        }
    }
    let mut answer = vec![("state", text("state")), ("iss", shared.url.clone())];
    if let Some((error, words)) = shared.authorization_error.clone() {
        answer.extend([("error", error), ("error_description", words)]);
    } else {
        let code = Uuid::new_v4().to_string();
        let asked = Authorization {
            nonce: text("nonce"),
            challenge: text("code_challenge"),
            account: shared.account.clone(),
        };
        shared.codes.insert(code.clone(), asked);
        shared.secrets.extend([code.clone(), text("state")]);
        answer.push(("code", code));
    }
    let to = reqwest::Url::parse_with_params(&shared.callback, answer).expect("an address");
    (StatusCode::FOUND, [(header::LOCATION, to.to_string())]).into_response()
}

async fn token(
    State(shared): SharedState,
    headers: HeaderMap,
    Form(asked): Form<Parameters>,
) -> Response {
    wait_if_hanging(&shared).await;
    let mut shared = lock(&shared);
    let text = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    if authorization != Some(&basic_credentials()) {
        let answer = json!({"error": "invalid_client"});
        return (StatusCode::UNAUTHORIZED, Json(answer)).into_response();
    }
    if text("grant_type") != "authorization_code" || text("redirect_uri") != shared.callback {
        return invalid_request("another grant, or another redirect URI");
    }
    let verifier = text("code_verifier");
    shared.secrets.insert(verifier.clone());
    // A code is good once.
    let asked = shared.codes.remove(&text("code"));
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let Some(asked) = asked.filter(|asked| asked.challenge == challenge) else {
        let answer = json!({"error": "invalid_grant", "error_description": "no such code"});
        return (StatusCode::BAD_REQUEST, Json(answer)).into_response();
    };
    let access = Uuid::new_v4().to_string();
    let mut answer = json!({"access_token": access, "token_type": "Bearer", "expires_in": 60});
    if let Some(token) = shared.id_token(&asked) {
        shared.secrets.insert(token.clone());
        answer["id_token"] = token.into();
    }
    shared.secrets.insert(access.clone());
    shared.tokens.insert(access, asked.account);
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

async fn user_info(State(shared): SharedState, headers: HeaderMap) -> Response {
    wait_if_hanging(&shared).await;
    let shared = lock(&shared);
    let authorization = headers.get(header::AUTHORIZATION);
    let token = authorization.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(account) = token.and_then(|token| shared.tokens.get(token)) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let mut claims = json!({"sub": account.subject});
    add_profile(&mut claims, account);
    Json(claims).into_response()
}

/// `Authorization` of the client: each part is encoded as in a form, by RFC 6749.
fn basic_credentials() -> String {
    let encoded = |text: &str| -> String {
        let pairs = reqwest::Url::parse_with_params("http://x", [("", text)]);
        let pairs = pairs.expect("an address");
        pairs.query().expect("a query")[1..].to_owned()
    };
    let both = format!("{}:{}", encoded(CLIENT_ID), encoded(CLIENT_SECRET));
    format!("Basic {}", STANDARD.encode(both))
}

/// Adds what is known of a account.
fn add_profile(claims: &mut Value, account: &Account) {
    if let Some(email) = &account.email {
        claims["email"] = email.clone().into();
    }
    if !account.verified.is_null() {
        claims["email_verified"] = account.verified.clone();
    }
    if let Some(name) = &account.name {
        claims["preferred_username"] = name.clone().into();
    }
}

impl Shared {
    fn id_token(&self, asked: &Authorization) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("a time after 1970").as_secs();
        let mut claims = json!({
            "iss": self.url,
            "sub": asked.account.subject,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 60,
            "nonce": asked.nonce,
        });
        if !self.profile_only_in_userinfo {
            add_profile(&mut claims, &asked.account);
        }
        match self.fault {
            Some(TokenFault::WrongNonce) => claims["nonce"] = Uuid::new_v4().to_string().into(),
            Some(TokenFault::MissingNonce) => {
                drop(claims.as_object_mut().map(|claims| claims.remove("nonce")))
            }
            Some(TokenFault::WrongAudience) => claims["aud"] = "another client".into(),
            Some(TokenFault::TwoAudiences) => claims["aud"] = json!([CLIENT_ID, "another client"]),
            Some(TokenFault::WrongIssuer) => claims["iss"] = "https://issuer.invalid".into(),
            Some(TokenFault::Expired) => {
                claims["iat"] = (now - 120).into();
                claims["exp"] = (now - 60).into();
            }
            Some(TokenFault::WrongKey) => {
                return Some(SigningKey::new("first", self.key.algorithm()).sign(&claims));
            }
            Some(TokenFault::Unsigned) => {
                return Some(signing_input(&json!({"alg": "none", "typ": "JWT"}), &claims) + ".");
            }
            Some(TokenFault::ChangedClaims) => {
                let token = self.key.sign(&claims);
                let parts: Vec<&str> = token.split('.').collect();
                claims["sub"] = "somebody else".into();
                let changed = URL_SAFE_NO_PAD.encode(claims.to_string());
                return Some([parts[0], &changed, parts[2]].join("."));
            }
            Some(TokenFault::ClientSecretSignature) => {
                let text = signing_input(&json!({"alg": "HS256", "typ": "JWT"}), &claims);
                return Some(format!("{text}.{}", hmac(CLIENT_SECRET, &text)));
            }
            Some(TokenFault::MissingToken) => return None,
            None => {}
        }
        Some(self.key.sign(&claims))
    }
}

/// HMAC with SHA-256, by its definition.
fn hmac(key: &str, text: &str) -> String {
    let pad = |byte: u8| -> Vec<u8> {
        let mut key = key.as_bytes().to_vec();
        key.resize(64, 0);
        key.iter().map(|one| one ^ byte).collect()
    };
    let inner = Sha256::digest([pad(0x36), text.as_bytes().to_vec()].concat());
    let outer = Sha256::digest([pad(0x5c), inner.to_vec()].concat());
    URL_SAFE_NO_PAD.encode(outer)
}
