//! [`CredentialCache`]: tokens, and the permissions of users, read [through](crate::read_through)
//! Redis from Postgres.
//!
//! | what | key of the copy | fresh for | expires after |
//! |---|---|---|---|
//! | token | `auth:token:<sha256>` | [`TOKEN_FRESH_FOR`] | [`MAX_COPY_LIFE`], or with the token |
//! | token of a run | the same | [`RUN_TOKEN_FRESH_FOR`] | the same |
//! | permissions | `auth:perm:<user>` | [`PERMISSIONS_FRESH_FOR`] | [`MAX_COPY_LIFE`] |
//!
//! A run that is sealed changes no token, and nothing announces it: the copies of its tokens are
//! renewed often enough to learn of it within the time that the tokens live on
//! ([`SEAL_GRACE`](runcast_store::tokens::SEAL_GRACE)), and then expire with them.
//!
//! Sessions are read the same way, by [`crate::session::lifetime::Sessions`].

use std::time::Duration;

use runcast_common::protocol::keys::Keys;
use runcast_store::roles::Permissions;
use runcast_store::tokens::TokenRow;
use runcast_store::{Store, StoreError};
use uuid::Uuid;

use crate::metrics::CachedKind;
use crate::read_through::{CacheLookup, CopyLife, MAX_COPY_LIFE, ReadThrough, remaining};

/// How long the copy of a token is used without reading Postgres again.
pub(crate) const TOKEN_FRESH_FOR: Duration = Duration::from_secs(3600);

/// The same for a token of a run, which ends with its run: less than the time that it lives on
/// after the run was sealed.
pub(crate) const RUN_TOKEN_FRESH_FOR: Duration = Duration::from_secs(300);

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
                let life = CopyLife {
                    fresh_for: match row.of_run {
                        true => RUN_TOKEN_FRESH_FOR,
                        false => TOKEN_FRESH_FOR,
                    },
                    expires_after: remaining(row.left_ms, MAX_COPY_LIFE),
                };
                (row, life)
            }))
        };
        let key = self.keys.token(&hash);
        let lookup = CacheLookup {
            kind: CachedKind::Token,
            key: &key,
        };
        Ok(self.read_through.get(lookup, read).await?.value)
    }

    /// The permissions of a user; none if there is no such user.
    pub(crate) async fn permissions(&self, user: Uuid) -> Result<Option<Permissions>, StoreError> {
        let read = async {
            let permissions = self.store.permissions(user).await?;
            let life = CopyLife {
                fresh_for: PERMISSIONS_FRESH_FOR,
                expires_after: MAX_COPY_LIFE,
            };
            Ok(permissions.map(|permissions| (permissions, life)))
        };
        let key = self.keys.permissions(user);
        let lookup = CacheLookup {
            kind: CachedKind::Permissions,
            key: &key,
        };
        Ok(self.read_through.get(lookup, read).await?.value)
    }
}
