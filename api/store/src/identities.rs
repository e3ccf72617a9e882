//! Identities: which subject of an OpenID Connect issuer is which user. Unique indexes decide if
//! two requests link the same identity at once.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::{StoreError, UserError};
use super::store::{Store, without_nul};
use super::users::{self, NewUser};

/// A subject of an issuer.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The issuer, as it calls itself.
    pub issuer: &'a str,
    /// The issuer's id for the person, which never changes: 1 to 255 characters without NUL.
    pub subject: &'a str,
    /// The email by which the user was found or created.
    pub email: &'a str,
}

/// The user of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// Their id.
    pub id: Uuid,
    /// Their name.
    pub name: String,
    /// Their email here.
    pub email: String,
    /// True if they are disabled.
    pub disabled: bool,
}

from_row!(Identified {
    id,
    name,
    email,
    disabled
});

/// An identity, as lists return it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Identity)]
pub struct Linked {
    /// The issuer.
    pub issuer: String,
    /// The issuer's id for the person.
    pub subject: String,
    /// The email by which the user was found or created.
    pub email: String,
    /// When it was linked.
    pub created_at: DateTime<Utc>,
}

from_row!(Linked {
    issuer,
    subject,
    email,
    created_at
});

const USER_COLUMNS: &str = "u.id, u.name, u.email, u.disabled_at IS NOT NULL AS disabled";

impl Store {
    /// The user with this identity.
    pub async fn identified(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<Identified>, StoreError> {
        let query = format!(
            "SELECT {USER_COLUMNS} FROM identities i JOIN users u ON u.id = i.user_id
              WHERE i.issuer = $1 AND i.subject = $2"
        );
        let user = sqlx::query_as(&query).bind(issuer).bind(subject);
        Ok(user.fetch_optional(&self.pool).await?)
    }

    /// The user with this email, in any case.
    pub async fn addressed(&self, email: &str) -> Result<Option<Identified>, StoreError> {
        let query = format!("SELECT {USER_COLUMNS} FROM users u WHERE lower(u.email) = lower($1)");
        let user = sqlx::query_as(&query).bind(without_nul(email));
        Ok(user.fetch_optional(&self.pool).await?)
    }

    /// Links an identity to a user. Returns false, and does nothing, if it is linked to a user
    /// already, or if the user has another identity of this issuer.
    pub async fn link_identity(
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

    /// Creates a user for an identity. The audit log names the user as the actor. Returns none, and
    /// does nothing, if the identity is linked to a user already.
    pub async fn create_identified(
        &self,
        identity: &Identity<'_>,
        new: &NewUser<'_>,
    ) -> Result<Option<Uuid>, UserError> {
        let id = Uuid::now_v7();
        let actor = Actor {
            id: Some(id),
            name: new.name.to_owned(),
            address: None,
        };
        let mut transaction = self.pool.begin().await?;
        users::create(&mut transaction, &actor, id, new).await?;
        if !link(&mut transaction, &actor, identity, id).await? {
            return Ok(None);
        }
        transaction.commit().await?;
        Ok(Some(id))
    }

    /// The identities of a user, by issuer.
    pub async fn identities_of(&self, user: Uuid) -> Result<Vec<Linked>, StoreError> {
        let identities = sqlx::query_as(
            "SELECT issuer, subject, email, created_at FROM identities WHERE user_id = $1 ORDER BY issuer",
        );
        Ok(identities.bind(user).fetch_all(&self.pool).await?)
    }

    /// Removes all identities of a user and ends their sessions. Returns how many identities were
    /// removed.
    pub async fn unlink_identities(&self, actor: &Actor, user: Uuid) -> Result<u64, StoreError> {
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
            audit::record(
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
    audit::record(connection, actor, "identity.linked", &target, details).await?;
    Ok(true)
}
