//! The store of `tower-sessions` over Postgres: a record is a row of `sessions`, read through its
//! copy in Redis.
//!
//! Known data are columns: [`USER`] or [`TOKEN`], the owner of the session, exactly one of them;
//! [`CLIENT`] and [`AGENT`]. [`NAME`] and [`BY`] go to the audit log at sign-in. All other data is
//! stored as it is. The store chooses the id of a new record, whatever id the record brings: an id
//! that another party chose never becomes the id of a session.

use std::future::Future;
use std::pin::Pin;

use chrono::DateTime;
use sha2::{Digest as _, Sha256};
use tower_sessions::SessionStore;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};
use uuid::Uuid;

use super::lifetime::Sessions;
use runcast_store::StoreError;
use runcast_store::audit::Actor;
use runcast_store::sessions::{NewSession, Owner, SessionRow};

/// The id of the user who owns the session.
pub const USER: &str = "user";
/// The id of the token that owns the session.
pub const TOKEN: &str = "token";
/// The client that the session is for.
pub const CLIENT: &str = "client";
/// The `User-Agent` of the client.
pub const AGENT: &str = "agent";
/// The name of the user or token that signs in.
pub const NAME: &str = "name";
/// How it signs in: `password`, `token` or `oidc`.
pub const BY: &str = "by";

/// Ids to try for a new session. In practice no two random ids are equal.
const MAX_ID_ATTEMPTS: usize = 3;

/// The hash of a session's id, which is stored in its place.
pub fn hash(id: &Id) -> [u8; 32] {
    Sha256::digest(id.to_string().as_bytes()).into()
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

// The signatures are those that the macro `async_trait` generates for the trait.
impl SessionStore for Sessions {
    fn create<'a, 'b, 'c>(&'a self, record: &'b mut Record) -> BoxFuture<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            for _ in 0..MAX_ID_ATTEMPTS {
                record.id = Id::default();
                if self.store_new(record).await? {
                    return Ok(());
                }
            }
            Err(Error::Backend(
                "all generated session ids exist already".to_owned(),
            ))
        })
    }

    fn save<'a, 'b, 'c>(&'a self, record: &'b Record) -> BoxFuture<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let (hash, mut data) = (hash(&record.id), record.data.clone());
            for known in [USER, TOKEN, CLIENT, AGENT, NAME, BY] {
                data.remove(known);
            }
            let data = data.into_iter().collect();
            let saved = self.store.keep_with_session(hash, &data);
            if !saved.await.map_err(failed)? {
                return Err(Error::Backend("the session has ended".to_owned()));
            }
            self.delete_copy(hash).await;
            Ok(())
        })
    }

    fn load<'a, 'b, 'c>(&'a self, id: &'b Id) -> BoxFuture<'c, Option<Record>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let row = self.get(hash(id)).await.map_err(failed)?;
            Ok(row.map(|row| record_of(*id, row)))
        })
    }

    fn delete<'a, 'b, 'c>(&'a self, id: &'b Id) -> BoxFuture<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let hash = hash(id);
            self.store.end_session(hash).await.map_err(failed)?;
            self.delete_copy(hash).await;
            Ok(())
        })
    }
}

impl Sessions {
    /// Stores a new session; false if its id exists already.
    async fn store_new(&self, record: &Record) -> Result<bool> {
        let mut data: serde_json::Map<_, _> = record.data.clone().into_iter().collect();
        let mut text = |name| match data.remove(name) {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        };
        let id = |text: Option<String>| text.and_then(|text| Uuid::try_parse(&text).ok());
        let owner = match (id(text(USER)), id(text(TOKEN))) {
            (Some(user), None) => Owner::User(user),
            (None, Some(token)) => Owner::Token(token),
            _ => {
                let why = "a session belongs to a user or to a token";
                return Err(Error::Encode(why.to_owned()));
            }
        };
        let (client, user_agent) = (text(CLIENT), text(AGENT));
        let (name, by) = (text(NAME), text(BY));
        let (Owner::User(actor) | Owner::Token(actor)) = owner;
        let actor = Actor {
            id: Some(actor),
            name: name.unwrap_or_default(),
            address: None,
        };
        let session = NewSession {
            hash: hash(&record.id),
            owner,
            client: client.as_deref(),
            user_agent: user_agent.as_deref(),
            by: by.as_deref(),
            data: &data,
        };
        let created = self.store.create_session(&actor, &session, self.lives());
        created.await.map_err(failed)
    }
}

/// The record of a stored session: the reverse of [`Sessions::create`].
fn record_of(id: Id, row: SessionRow) -> Record {
    let mut data: std::collections::HashMap<_, _> = row.data.into_iter().collect();
    let known = [
        (USER, row.user_id.map(|user| user.to_string())),
        (CLIENT, row.client),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            data.insert(name.to_owned(), value.into());
        }
    }
    let seconds = DateTime::timestamp(&row.expires_at);
    Record {
        id,
        data,
        expiry_date: OffsetDateTime::from_unix_timestamp(seconds)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is for map_err")]
fn failed(error: StoreError) -> Error {
    Error::Backend(error.to_string())
}
