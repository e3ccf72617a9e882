//! The store of `tower-sessions` over ours: a record is a row of `sessions`, read through its copy in Redis.
//!
//! Known data are columns: [`USER`] or [`TOKEN`], whose session it is, one of both; [`CLIENT`] and [`AGENT`]. [`NAME`] and
//! [`BY`] are written down when somebody signs in. Everything else is kept as it is. A record gets its id here, whatever it brings: an id that somebody else has chosen never
//! becomes that of a session.

use std::future::Future;
use std::pin::Pin;

use chrono::DateTime;
use sha2::{Digest as _, Sha256};
use tower_sessions::SessionStore;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};
use uuid::Uuid;

use super::super::access::Access;
use runcast_store::StoreError;
use runcast_store::audit::Actor;
use runcast_store::sessions::{NewSession, Owner, SessionRow};

/// The id of the user whose session it is.
pub const USER: &str = "user";
/// The id of the token whose session it is.
pub const TOKEN: &str = "token";
/// The client that it is for.
pub const CLIENT: &str = "client";
/// What the client calls itself.
pub const AGENT: &str = "agent";
/// The name of who signs in.
pub const NAME: &str = "name";
/// How they do: `password`, `token` or `oidc`.
pub const BY: &str = "by";

/// Ids that are tried: two that are alike will not happen in the life of this universe.
const TRIES: usize = 3;

/// What is stored of a session's id.
#[must_use]
pub fn hash(id: &Id) -> [u8; 32] {
    Sha256::digest(id.to_string().as_bytes()).into()
}

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

// By hand what the macro `async_trait` would write.
impl SessionStore for Access {
    fn create<'a, 'b, 'c>(&'a self, record: &'b mut Record) -> Later<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            for _ in 0..TRIES {
                record.id = Id::default();
                if self.create_record(record).await? {
                    return Ok(());
                }
            }
            Err(Error::Backend("every id is taken".to_owned()))
        })
    }

    fn save<'a, 'b, 'c>(&'a self, record: &'b Record) -> Later<'c, ()>
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
            let kept = self.store().keep_with_session(hash, &data);
            if !kept.await.map_err(failed)? {
                return Err(Error::Backend("the session has ended".to_owned()));
            }
            self.forget(hash).await
        })
    }

    fn load<'a, 'b, 'c>(&'a self, id: &'b Id) -> Later<'c, Option<Record>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let row = self.session(hash(id)).await.map_err(failed)?;
            Ok(row.map(|row| record_of(*id, row)))
        })
    }

    fn delete<'a, 'b, 'c>(&'a self, id: &'b Id) -> Later<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let hash = hash(id);
            self.store().end_session(hash).await.map_err(failed)?;
            self.forget(hash).await
        })
    }
}

impl Access {
    async fn create_record(&self, record: &Record) -> Result<bool> {
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
        };
        let session = NewSession {
            hash: hash(&record.id),
            owner,
            client: client.as_deref(),
            user_agent: user_agent.as_deref(),
            by: by.as_deref(),
            data: &data,
        };
        let made = self.store().create_session(&actor, &session, self.lives());
        made.await.map_err(failed)
    }

    /// Deletes the copy; what Redis does not answer is told again by the list of changes.
    async fn forget(&self, hash: [u8; 32]) -> Result<()> {
        let key = self.keys().session(&hash);
        if let Err(failed) = self.mirror().delete(&[key]).await {
            tracing::debug!(error = %failed, "the copy of a session is deleted later");
        }
        Ok(())
    }
}

/// The way back of [`Access::create_record`].
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
