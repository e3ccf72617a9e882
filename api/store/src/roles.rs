//! Roles: what they permit, for which runs, who has them, and what a user may do by all of theirs.

use crate::from_row::from_row;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::store::{Store, StoreError};
use super::users::UserError;

/// A role as it is shown and made.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// It comes with Runcast and stays as it is.
    pub built_in: bool,
    /// Only for runs with all of these labels; for all runs if absent.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub labels: Option<Map<String, Value>>,
    /// What it permits.
    pub permissions: Vec<String>,
}

from_row!(Role {
    name,
    description,
    built_in,
    labels: nullable_json,
    permissions
});

/// What to change of a role; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct RoleChange {
    /// Another description.
    pub description: Option<String>,
    /// Other permissions, all of them.
    pub permissions: Option<Vec<String>>,
    /// For other runs; `None` within: for all.
    pub labels: Option<Option<Map<String, Value>>>,
}

/// What a user may do, by all their roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Their name.
    pub name: String,
    /// They may do nothing.
    pub disabled: bool,
    /// What each role permits.
    pub grants: Vec<RoleGrant>,
}

/// What one role permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleGrant {
    /// Names of permissions.
    pub scopes: Vec<String>,
    /// Only for runs with all of these labels.
    pub labels: Option<Map<String, Value>>,
}

/// Why a role cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// There is one.
    #[error("there is a role {0} already")]
    Taken(String),
    /// It cannot be a name.
    #[error(
        "role {0:?}: expected 1 to 64 small letters, digits and . _ -, a letter or digit first"
    )]
    Name(String),
    /// It stays as it is.
    #[error("the role {0} comes with Runcast and stays as it is: make one of your own beside it")]
    BuiltIn(String),
    /// There is no such one.
    #[error("there is no role {0}")]
    Unknown(String),
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RoleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

const COLUMNS: &str = "r.name, r.description, r.built_in, r.labels,
    ARRAY(SELECT permission FROM role_permissions WHERE role = r.name ORDER BY permission) AS permissions";

/// Gives a user a role within a transaction.
pub(super) async fn grant(
    connection: &mut PgConnection,
    user: Uuid,
    role: &str,
) -> Result<bool, UserError> {
    let done = sqlx::query(
        "INSERT INTO user_roles (user_id, role) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(user)
    .bind(super::store::without_nul(role))
    .execute(connection)
    .await;
    match done {
        Ok(done) => Ok(done.rows_affected() > 0),
        Err(error)
            if error
                .as_database_error()
                .is_some_and(|error| error.is_foreign_key_violation()) =>
        {
            Err(UserError::Role(role.chars().take(80).collect()))
        }
        Err(error) => Err(error.into()),
    }
}

impl Store {
    /// What a user may do; none if there is no such user.
    pub async fn permissions(&self, user: Uuid) -> Result<Option<Permissions>, StoreError> {
        let row = sqlx::query(
            "SELECT u.name, u.disabled_at IS NOT NULL AS disabled, coalesce((
                    SELECT jsonb_agg(jsonb_build_object('labels', r.labels, 'scopes', ARRAY(
                               SELECT permission FROM role_permissions p WHERE p.role = r.name)))
                      FROM user_roles h JOIN roles r ON r.name = h.role WHERE h.user_id = u.id), '[]') AS grants
               FROM users u WHERE u.id = $1",
        )
        .bind(user)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let Json(grants) = row.try_get("grants")?;
        Ok(Some(Permissions {
            name: row.try_get("name")?,
            disabled: row.try_get("disabled")?,
            grants,
        }))
    }

    /// All roles, by name.
    pub async fn roles(&self) -> Result<Vec<Role>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM roles r ORDER BY r.name");
        Ok(sqlx::query_as(&query).fetch_all(&self.pool).await?)
    }

    /// One role, if there is such a one.
    pub async fn role(&self, name: &str) -> Result<Option<Role>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM roles r WHERE r.name = $1");
        let role = sqlx::query_as(&query).bind(super::store::without_nul(name));
        Ok(role.fetch_optional(&self.pool).await?)
    }

    /// Makes a role; its permissions must exist.
    pub async fn create_role(&self, actor: &Actor, role: &Role) -> Result<(), RoleError> {
        let mut transaction = self.pool.begin().await?;
        let made = sqlx::query("INSERT INTO roles (name, description, labels) VALUES ($1, $2, $3)")
            .bind(super::store::without_nul(&role.name))
            .bind(super::store::without_nul(&role.description))
            .bind(role.labels.as_ref().map(Json))
            .execute(&mut *transaction)
            .await;
        made.map_err(|error| {
            let constraint = error
                .as_database_error()
                .and_then(|error| error.constraint());
            match constraint {
                Some("roles_pkey") => RoleError::Taken(role.name.clone()),
                Some("roles_name_check") => RoleError::Name(role.name.chars().take(80).collect()),
                _ => error.into(),
            }
        })?;
        permit(&mut transaction, &role.name, &role.permissions).await?;
        let details = json!({"permissions": role.permissions, "labels": role.labels});
        audit::note(&mut transaction, actor, "role.created", &role.name, details).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Changes a role of one's own making, for all who have it.
    ///
    /// # Errors
    /// [`RoleError`] if there is no such role, or it is built in.
    pub async fn change_role(
        &self,
        actor: &Actor,
        name: &str,
        change: &RoleChange,
    ) -> Result<(), RoleError> {
        let mut transaction = self.pool.begin().await?;
        own(&mut transaction, name).await?;
        sqlx::query(
            "UPDATE roles SET description = coalesce($2, description),
                    labels = CASE WHEN $3 THEN $4 ELSE labels END WHERE name = $1",
        )
        .bind(name)
        .bind(change.description.as_deref().map(super::store::without_nul))
        .bind(change.labels.is_some())
        .bind(change.labels.as_ref().and_then(Option::as_ref).map(Json))
        .execute(&mut *transaction)
        .await?;
        if let Some(permissions) = &change.permissions {
            sqlx::query("DELETE FROM role_permissions WHERE role = $1 AND permission <> ALL($2)")
                .bind(name)
                .bind(permissions)
                .execute(&mut *transaction)
                .await?;
            permit(&mut transaction, name, permissions).await?;
        }
        let details = json!({"permissions": change.permissions, "labels": change.labels});
        audit::note(&mut transaction, actor, "role.changed", name, details).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Deletes a role of one's own making; whoever had it has it no more.
    ///
    /// # Errors
    /// [`RoleError`] if there is no such role, or it is built in.
    pub async fn delete_role(&self, actor: &Actor, name: &str) -> Result<(), RoleError> {
        let mut transaction = self.pool.begin().await?;
        own(&mut transaction, name).await?;
        sqlx::query("DELETE FROM roles WHERE name = $1")
            .bind(name)
            .execute(&mut *transaction)
            .await?;
        audit::note(&mut transaction, actor, "role.deleted", name, json!({})).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Gives a user a role; having it already is no error.
    ///
    /// # Errors
    /// [`UserError::Role`] if there is no such role.
    pub async fn grant_role(&self, actor: &Actor, user: Uuid, role: &str) -> Result<(), UserError> {
        let mut transaction = self.pool.begin().await?;
        if grant(&mut transaction, user, role).await? {
            let (target, details) = (user.to_string(), json!({"role": role}));
            audit::note(&mut transaction, actor, "role.granted", &target, details).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Takes a role from a user; false if they do not have it.
    pub async fn revoke_role(
        &self,
        actor: &Actor,
        user: Uuid,
        role: &str,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query("DELETE FROM user_roles WHERE user_id = $1 AND role = $2")
            .bind(user)
            .bind(super::store::without_nul(role))
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let (target, details) = (user.to_string(), json!({"role": role}));
        audit::note(&mut transaction, actor, "role.revoked", &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Locks a role of one's own making.
async fn own(connection: &mut PgConnection, name: &str) -> Result<(), RoleError> {
    let shown = || name.chars().take(80).collect();
    let built_in: Option<bool> =
        sqlx::query_scalar("SELECT built_in FROM roles WHERE name = $1 FOR UPDATE")
            .bind(super::store::without_nul(name))
            .fetch_optional(connection)
            .await?;
    match built_in {
        None => Err(RoleError::Unknown(shown())),
        Some(true) => Err(RoleError::BuiltIn(shown())),
        Some(false) => Ok(()),
    }
}

async fn permit(
    connection: &mut PgConnection,
    role: &str,
    permissions: &[String],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO role_permissions (role, permission) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
    )
    .bind(role)
    .bind(permissions)
    .execute(connection)
    .await?;
    Ok(())
}
