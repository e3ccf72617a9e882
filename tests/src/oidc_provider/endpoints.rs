//! The HTTP endpoints of the provider: metadata, keys, authorization, token and userinfo.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

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

use super::id_token::add_profile;
use super::provider::{Authorization, CLIENT_ID, CLIENT_SECRET, ProviderState, lock};
use crate::eventually::eventually;

type Parameters = HashMap<String, String>;
type SharedState = State<Arc<Mutex<ProviderState>>>;

pub(super) async fn serve(
    address: SocketAddr,
    shared: &Arc<Mutex<ProviderState>>,
) -> (SocketAddr, AbortHandle) {
    // The previous socket may take a moment to close.
    let listener = eventually("the OpenID provider listens", async || {
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

/// Never returns while the provider hangs.
async fn wait_if_hanging(shared: &Mutex<ProviderState>) {
    let hangs = lock(shared).hangs;
    if hangs {
        std::future::pending::<()>().await;
    }
}

fn invalid_request(what: &str) -> Response {
    let response = json!({"error": "invalid_request", "error_description": what});
    (StatusCode::BAD_REQUEST, Json(response)).into_response()
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
        // The provider offers signatures by the client secret as well; Runcast must not accept
        // them.
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

async fn authorize(State(shared): SharedState, Query(request): Query<Parameters>) -> Response {
    let mut shared = lock(&shared);
    let text = |name: &str| request.get(name).cloned().unwrap_or_default();
    for (name, expected) in [
        ("client_id", CLIENT_ID),
        ("redirect_uri", &shared.callback),
        ("response_type", "code"),
        ("code_challenge_method", "S256"),
        ("scope", "openid email profile"),
    ] {
        if text(name) != expected {
            return invalid_request(&format!(
                "{name} is {:?} instead of {expected:?}",
                text(name)
            ));
        }
    }
    for name in ["state", "nonce", "code_challenge"] {
        if text(name).len() < 20 {
            return invalid_request(&format!(
                "{name} is too short to be random: {:?}",
                text(name)
            ));
        }
    }
    let mut response = vec![("state", text("state")), ("iss", shared.url.clone())];
    if let Some((error, words)) = shared.authorization_error.clone() {
        response.extend([("error", error), ("error_description", words)]);
    } else {
        let code = Uuid::new_v4().to_string();
        let authorization = Authorization {
            nonce: text("nonce"),
            challenge: text("code_challenge"),
            account: shared.account.clone(),
        };
        shared.codes.insert(code.clone(), authorization);
        shared.secrets.extend([code.clone(), text("state")]);
        response.push(("code", code));
    }
    let to = reqwest::Url::parse_with_params(&shared.callback, response).expect("a URL");
    (StatusCode::FOUND, [(header::LOCATION, to.to_string())]).into_response()
}

async fn token(
    State(shared): SharedState,
    headers: HeaderMap,
    Form(request): Form<Parameters>,
) -> Response {
    wait_if_hanging(&shared).await;
    let mut shared = lock(&shared);
    let text = |name: &str| request.get(name).cloned().unwrap_or_default();
    let credentials = headers.get(header::AUTHORIZATION);
    let credentials = credentials.and_then(|value| value.to_str().ok());
    if credentials != Some(&basic_credentials()) {
        let response = json!({"error": "invalid_client"});
        return (StatusCode::UNAUTHORIZED, Json(response)).into_response();
    }
    if text("grant_type") != "authorization_code" || text("redirect_uri") != shared.callback {
        return invalid_request("unexpected grant type or redirect URI");
    }
    let verifier = text("code_verifier");
    shared.secrets.insert(verifier.clone());
    // A code is valid once.
    let authorization = shared.codes.remove(&text("code"));
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let Some(authorization) = authorization.filter(|known| known.challenge == challenge) else {
        let response = json!({"error": "invalid_grant", "error_description": "no such code"});
        return (StatusCode::BAD_REQUEST, Json(response)).into_response();
    };
    let access = Uuid::new_v4().to_string();
    let mut response = json!({"access_token": access, "token_type": "Bearer", "expires_in": 60});
    if let Some(token) = shared.id_token(&authorization) {
        shared.secrets.insert(token.clone());
        response["id_token"] = token.into();
    }
    shared.secrets.insert(access.clone());
    shared.tokens.insert(access, authorization.account);
    ([(header::CACHE_CONTROL, "no-store")], Json(response)).into_response()
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

/// The client's `Authorization` header. RFC 6749 wants each part form-encoded.
fn basic_credentials() -> String {
    let encoded = |text: &str| -> String {
        let pairs = reqwest::Url::parse_with_params("http://x", [("", text)]);
        let pairs = pairs.expect("a URL");
        pairs.query().expect("a query")[1..].to_owned()
    };
    let both = format!("{}:{}", encoded(CLIENT_ID), encoded(CLIENT_SECRET));
    format!("Basic {}", STANDARD.encode(both))
}
