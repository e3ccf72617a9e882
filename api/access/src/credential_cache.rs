//! [`CredentialCache`]: tokens, and the permissions of users, read [through](crate::read_through)
//! Redis from Postgres.
//!
//! | what | key of the copy | fresh for | expires after |
//! |---|---|---|---|
//! | token | `auth:token:<sha256>` | [`TOKEN_FRESH_FOR`] | [`MAX_COPY_LIFE`], or with the token |
//! | permissions | `auth:perm:<user>` | [`PERMISSIONS_FRESH_FOR`] | [`MAX_COPY_LIFE`] |
//!
//! Sessions are read the same way, by [`crate::session::lifetime::Sessions`].

use std::time::Duration;

use runcast_common::protocol::keys::Keys;
use runcast_store::roles::Permissions;
use runcast_store::tokens::TokenRow;
use runcast_store::{Store, StoreError};
use uuid::Uuid;

use crate::metrics::CachedKind;
use crate::read_through::{CacheLookup, MAX_COPY_LIFE, ReadThrough, remaining};

/// How long the copy of a token is used without reading Postgres again.
pub(crate) const TOKEN_FRESH_FOR: Duration = Duration::from_secs(3600);

/// How long the copy of a user's permissions is used without reading Postgres again.
pub(crate) const PERMISSIONS_FRESH_FOR: Duration = Duration::from_secs(300);

/// Tokens and permissions, cached in Redis.
#[derive(Debug)]
pub(crate) struct CredentialCache {
    store: Store,
    keys: Keys,
    read_through: ReadThrough,
}

impl CredentialCache {
    pub(crate) const fn new(store: Store, keys: Keys, read_through: ReadThrough) -> Self {
        Self {
            store,
            keys,
            read_through,
        }
    }

    /// The token with this hash, unless it is expired or revoked.
    pub(crate) async fn token(&self, hash: [u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let read = async {
            let row = self.store.token(hash).await?;
            Ok(row.map(|row| {
                let life = remaining(row.left_ms, MAX_COPY_LIFE);
                (row, life)
            }))
        };
        let key = self.keys.token(&hash);
        let lookup = CacheLookup {
            kind: CachedKind::Token,
            key: &key,
            fresh_for: TOKEN_FRESH_FOR,
        };
        Ok(self.read_through.get(lookup, read).await?.value)
    }

    /// The permissions of a user; none if there is no such user.
    pub(crate) async fn permissions(&self, user: Uuid) -> Result<Option<Permissions>, StoreError> {
        let read = async {
            let permissions = self.store.permissions(user).await?;
            Ok(permissions.map(|permissions| (permissions, MAX_COPY_LIFE)))
        };
        let key = self.keys.permissions(user);
        let lookup = CacheLookup {
            kind: CachedKind::Permissions,
            key: &key,
            fresh_for: PERMISSIONS_FRESH_FOR,
        };
        Ok(self.read_through.get(lookup, read).await?.value)
    }
}
