//! Roles: what they permit and for which runs, who has them, and what a user may do by all of their
//! roles.

use crate::from_row::from_row;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
pub use super::error::RoleError;
use super::error::{StoreError, UserError};
use super::store::{Store, without_nul};

/// A role.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// True if it is part of Runcast and cannot be changed.
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

/// What to change of a role; absent fields stay.
#[derive(Debug, Clone, Default)]
pub struct RoleChange {
    /// The new description.
    pub description: Option<String>,
    /// The new permissions, all of them.
    pub permissions: Option<Vec<String>>,
    /// The new labels; an inner `None`: for all runs.
    pub labels: Option<Option<Map<String, Value>>>,
}

/// What a user may do, by all of their roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Their name.
    pub name: String,
    /// True if they are disabled and may do nothing.
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

const ROLE_COLUMNS: &str = "r.name, r.description, r.built_in, r.labels,
    ARRAY(SELECT permission FROM role_permissions WHERE role = r.name ORDER BY permission) AS permissions";

/// Grants a role to a user within a transaction. Returns false if the user has it already.
pub(super) async fn grant(
    connection: &mut PgConnection,
    user: Uuid,
    role: &str,
) -> Result<bool, UserError> {
    let done = sqlx::query(
        "INSERT INTO user_roles (user_id, role) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(user)
    .bind(without_nul(role))
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
    /// What a user may do; none if the user does not exist.
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
        let query = format!("SELECT {ROLE_COLUMNS} FROM roles r ORDER BY r.name");
        Ok(sqlx::query_as(&query).fetch_all(&self.pool).await?)
    }

    /// One role, if it exists.
    pub async fn role(&self, name: &str) -> Result<Option<Role>, StoreError> {
        let query = format!("SELECT {ROLE_COLUMNS} FROM roles r WHERE r.name = $1");
        let role = sqlx::query_as(&query).bind(without_nul(name));
        Ok(role.fetch_optional(&self.pool).await?)
    }

    /// Creates a role. Its permissions must exist.
    pub async fn create_role(&self, actor: &Actor, role: &Role) -> Result<(), RoleError> {
        let mut transaction = self.pool.begin().await?;
        let inserted =
            sqlx::query("INSERT INTO roles (name, description, labels) VALUES ($1, $2, $3)")
                .bind(without_nul(&role.name))
                .bind(without_nul(&role.description))
                .bind(role.labels.as_ref().map(Json))
                .execute(&mut *transaction)
                .await;
        inserted.map_err(|error| {
            let constraint = error
                .as_database_error()
                .and_then(|error| error.constraint());
            match constraint {
                Some("roles_pkey") => RoleError::Taken(role.name.clone()),
                Some("roles_name_check") => RoleError::Name(role.name.chars().take(80).collect()),
                _ => error.into(),
            }
        })?;
        add_permissions(&mut transaction, &role.name, &role.permissions).await?;
        let details = json!({"permissions": role.permissions, "labels": role.labels});
        audit::record(&mut transaction, actor, "role.created", &role.name, details).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Changes a role that is not built in, for all users who have it.
    pub async fn change_role(
        &self,
        actor: &Actor,
        name: &str,
        change: &RoleChange,
    ) -> Result<(), RoleError> {
        let mut transaction = self.pool.begin().await?;
        lock_custom_role(&mut transaction, name).await?;
        sqlx::query(
            "UPDATE roles SET description = coalesce($2, description),
                    labels = CASE WHEN $3 THEN $4 ELSE labels END WHERE name = $1",
        )
        .bind(name)
        .bind(change.description.as_deref().map(without_nul))
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
            add_permissions(&mut transaction, name, permissions).await?;
        }
        let details = json!({"permissions": change.permissions, "labels": change.labels});
        audit::record(&mut transaction, actor, "role.changed", name, details).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Deletes a role that is not built in. Users who had it lose it.
    pub async fn delete_role(&self, actor: &Actor, name: &str) -> Result<(), RoleError> {
        let mut transaction = self.pool.begin().await?;
        lock_custom_role(&mut transaction, name).await?;
        sqlx::query("DELETE FROM roles WHERE name = $1")
            .bind(name)
            .execute(&mut *transaction)
            .await?;
        audit::record(&mut transaction, actor, "role.deleted", name, json!({})).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Grants a role to a user. It is no error if the user has it already.
    pub async fn grant_role(&self, actor: &Actor, user: Uuid, role: &str) -> Result<(), UserError> {
        let mut transaction = self.pool.begin().await?;
        if grant(&mut transaction, user, role).await? {
            let (target, details) = (user.to_string(), json!({"role": role}));
            audit::record(&mut transaction, actor, "role.granted", &target, details).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Revokes a role of a user. Returns false if the user does not have it.
    pub async fn revoke_role(
        &self,
        actor: &Actor,
        user: Uuid,
        role: &str,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query("DELETE FROM user_roles WHERE user_id = $1 AND role = $2")
            .bind(user)
            .bind(without_nul(role))
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let (target, details) = (user.to_string(), json!({"role": role}));
        audit::record(&mut transaction, actor, "role.revoked", &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Locks a role that is not built in.
async fn lock_custom_role(connection: &mut PgConnection, name: &str) -> Result<(), RoleError> {
    let short_name = || name.chars().take(80).collect();
    let built_in: Option<bool> =
        sqlx::query_scalar("SELECT built_in FROM roles WHERE name = $1 FOR UPDATE")
            .bind(without_nul(name))
            .fetch_optional(connection)
            .await?;
    match built_in {
        None => Err(RoleError::Unknown(short_name())),
        Some(true) => Err(RoleError::BuiltIn(short_name())),
        Some(false) => Ok(()),
    }
}

async fn add_permissions(
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
