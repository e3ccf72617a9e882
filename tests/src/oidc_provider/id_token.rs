//! The ID tokens of the provider, with the faults that a story asks for.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::provider::{Account, Authorization, CLIENT_ID, CLIENT_SECRET, ProviderState};
use super::signing_key::{SigningKey, signing_input};

/// What is wrong with an ID token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// The nonce of another login.
    WrongNonce,
    /// No nonce.
    MissingNonce,
    /// Issued for another client.
    WrongAudience,
    /// Issued for another client as well.
    TwoAudiences,
    /// Issued by another provider.
    WrongIssuer,
    /// Expired a minute ago.
    Expired,
    /// Signed by another provider with a key of the same name.
    WrongKey,
    /// Not signed.
    Unsigned,
    /// Issued for another subject, and changed after signing.
    ChangedClaims,
    /// Signed with the client secret, which the provider shares with the client.
    ClientSecretSignature,
    /// There is no ID token.
    MissingToken,
}

impl TokenFault {
    /// All faults.
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

/// Adds the profile claims of an account.
pub(super) fn add_profile(claims: &mut Value, account: &Account) {
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

impl ProviderState {
    pub(super) fn id_token(&self, authorization: &Authorization) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("a time after 1970").as_secs();
        let mut claims = json!({
            "iss": self.url,
            "sub": authorization.account.subject,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 60,
            "nonce": authorization.nonce,
        });
        if !self.profile_only_in_userinfo {
            add_profile(&mut claims, &authorization.account);
        }
        match self.fault {
            Some(TokenFault::WrongNonce) => claims["nonce"] = Uuid::new_v4().to_string().into(),
            Some(TokenFault::MissingNonce) => {
                let claims = claims.as_object_mut().expect("an object of claims");
                claims.remove("nonce");
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
                claims["sub"] = "another subject".into();
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

/// HMAC-SHA-256, by its definition.
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
