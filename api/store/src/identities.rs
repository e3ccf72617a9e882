//! Identities: whom an OpenID Connect issuer knows, and which user that is here. Who comes first is decided by the indexes.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::store::{Store, StoreError};
use super::users::{self, NewUser, UserError};

/// Whom an issuer knows.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The issuer, as it calls itself.
    pub issuer: &'a str,
    /// Its name for them, which never changes: 1 to 255 characters without NUL.
    pub subject: &'a str,
    /// The address by which the user was found or made.
    pub email: &'a str,
}

/// The user behind an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// Who.
    pub id: Uuid,
    /// Their name.
    pub name: String,
    /// Their address here.
    pub email: String,
    /// They may do nothing.
    pub disabled: bool,
}

from_row!(Identified {
    id,
    name,
    email,
    disabled
});

/// An identity as it is shown.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Identity)]
pub struct Linked {
    /// The issuer.
    pub issuer: String,
    /// Its name for them.
    pub subject: String,
    /// The address by which they were found or made.
    pub email: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

from_row!(Linked {
    issuer,
    subject,
    email,
    created_at
});

const COLUMNS: &str = "u.id, u.name, u.email, u.disabled_at IS NOT NULL AS disabled";

impl Store {
    /// The user that an issuer knows by this subject.
    pub async fn identified(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<Identified>, StoreError> {
        let query = format!(
            "SELECT {COLUMNS} FROM identities i JOIN users u ON u.id = i.user_id
              WHERE i.issuer = $1 AND i.subject = $2"
        );
        let user = sqlx::query_as(&query).bind(issuer).bind(subject);
        Ok(user.fetch_optional(&self.pool).await?)
    }

    /// The user with this address, whatever its case.
    pub async fn addressed(&self, email: &str) -> Result<Option<Identified>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM users u WHERE lower(u.email) = lower($1)");
        let user = sqlx::query_as(&query).bind(super::store::without_nul(email));
        Ok(user.fetch_optional(&self.pool).await?)
    }

    /// Lets whom an issuer knows be this user from now on. False, and nothing is done, if the identity is somebody's
    /// already, or the user has another one of this issuer.
    pub async fn link(
        &self,
        actor: &Actor,
        identity: &Identity<'_>,
        user: Uuid,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let linked = link(&mut transaction, actor, identity, user).await?;
        transaction.commit().await?;
        Ok(linked)
    }

    /// Makes a user for whom an issuer knows, as done by themselves. None, and nothing is done, if the identity is
    /// somebody's already.
    pub async fn create_identified(
        &self,
        identity: &Identity<'_>,
        new: &NewUser<'_>,
    ) -> Result<Option<Uuid>, UserError> {
        let id = Uuid::now_v7();
        let actor = Actor {
            id: Some(id),
            name: new.name.to_owned(),
        };
        let mut transaction = self.pool.begin().await?;
        users::create(&mut transaction, &actor, id, new).await?;
        if !link(&mut transaction, &actor, identity, id).await? {
            return Ok(None);
        }
        transaction.commit().await?;
        Ok(Some(id))
    }

    /// Whom issuers know as this user, by issuer.
    pub async fn identities_of(&self, user: Uuid) -> Result<Vec<Linked>, StoreError> {
        let identities = sqlx::query_as(
            "SELECT issuer, subject, email, created_at FROM identities WHERE user_id = $1 ORDER BY issuer",
        );
        Ok(identities.bind(user).fetch_all(&self.pool).await?)
    }

    /// Lets no issuer know a user any more, and ends their sessions; says how many did.
    pub async fn unlink(&self, actor: &Actor, user: Uuid) -> Result<u64, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query("DELETE FROM identities WHERE user_id = $1")
            .bind(user)
            .execute(&mut *transaction)
            .await?;
        let unlinked = done.rows_affected();
        if unlinked > 0 {
            sqlx::query("DELETE FROM sessions WHERE user_id = $1")
                .bind(user)
                .execute(&mut *transaction)
                .await?;
            let (target, details) = (user.to_string(), json!({"unlinked": unlinked}));
            audit::note(
                &mut transaction,
                actor,
                "identity.unlinked",
                &target,
                details,
            )
            .await?;
        }
        transaction.commit().await?;
        Ok(unlinked)
    }
}

async fn link(
    connection: &mut PgConnection,
    actor: &Actor,
    identity: &Identity<'_>,
    user: Uuid,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO identities (issuer, subject, user_id, email) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(identity.issuer)
    .bind(identity.subject)
    .bind(user)
    .bind(identity.email)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    let details = json!({
        "issuer": identity.issuer,
        "subject": identity.subject,
        "email": identity.email,
    });
    let target = user.to_string();
    audit::note(connection, actor, "identity.linked", &target, details).await?;
    Ok(true)
}
