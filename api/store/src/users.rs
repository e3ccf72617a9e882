//! Users. Names and emails are unique in any case. Indexes decide that, so of two requests at once
//! only one succeeds. A password is stored as an argon2id hash; no query that lists users selects
//! it.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
pub use super::error::UserError;
use super::roles;
use super::store::{Store, without_nul};

/// A user to create.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// Letters, digits, and `. _ -`.
    pub name: &'a str,
    /// An email address.
    pub email: &'a str,
    /// The hash of a password, for users who sign in with one.
    pub password: Option<&'a str>,
    /// Roles from the beginning on.
    pub roles: &'a [String],
}

/// A user, as the API returns it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct User {
    /// Their id, a UUIDv7.
    pub id: Uuid,
    /// Their name.
    pub name: String,
    /// Their email address.
    pub email: String,
    /// Their preferences, as the page stores them.
    #[schema(value_type = Object)]
    pub preferences: Value,
    /// Their roles.
    pub roles: Vec<String>,
    /// Whether they can sign in with a password.
    pub has_password: bool,
    /// When they were created.
    pub created_at: DateTime<Utc>,
    /// When they were disabled, if they are.
    pub disabled_at: Option<DateTime<Utc>>,
}

from_row!(User {
    id,
    name,
    email,
    preferences,
    roles,
    has_password,
    created_at,
    disabled_at
});

/// What signing in needs to know of a user.
#[derive(Debug, Clone)]
pub struct SignInUser {
    /// Their id.
    pub id: Uuid,
    /// Their name.
    pub name: String,
    /// The hash of their password.
    pub password: Option<String>,
    /// True if they are disabled.
    pub disabled: bool,
}

from_row!(SignInUser {
    id,
    name,
    password,
    disabled
});

/// What to change of a user; absent fields stay.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// The new email address.
    pub email: Option<String>,
    /// The new preferences, all of them.
    pub preferences: Option<Value>,
    /// True disables the user, false enables them again.
    pub disabled: Option<bool>,
    /// The hash of the new password.
    pub password: Option<String>,
}

/// Maps a violated constraint to an error.
fn user_error(error: sqlx::Error, name: &str, email: &str) -> UserError {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    match constraint {
        Some("users_name") => UserError::NameTaken(name.to_owned()),
        Some("users_email") => UserError::EmailTaken(email.to_owned()),
        Some("users_name_check") => UserError::Name(name.chars().take(80).collect()),
        Some("users_email_check") => UserError::Email(email.chars().take(260).collect()),
        _ => error.into(),
    }
}

const USER_COLUMNS: &str =
    "u.id, u.name, u.email, u.preferences, u.password IS NOT NULL AS has_password, u.created_at,
    u.disabled_at, ARRAY(SELECT role FROM user_roles WHERE user_id = u.id ORDER BY role) AS roles";

impl Store {
    /// Creates a user with their roles.
    pub async fn create_user(&self, actor: &Actor, new: &NewUser<'_>) -> Result<User, UserError> {
        let id = Uuid::now_v7();
        let mut transaction = self.pool.begin().await?;
        create(&mut transaction, actor, id, new).await?;
        transaction.commit().await?;
        let user = self.user(id).await?;
        Ok(user.ok_or_else(|| {
            StoreError::Unexpected(format!("user {id} vanished right after their creation"))
        })?)
    }

    /// One user, if it exists.
    pub async fn user(&self, id: Uuid) -> Result<Option<User>, StoreError> {
        let query = format!("SELECT {USER_COLUMNS} FROM users u WHERE u.id = $1");
        Ok(sqlx::query_as(&query)
            .bind(id)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// The user with this id, name or email, in any case.
    pub async fn find_user(&self, text: &str) -> Result<Option<User>, StoreError> {
        if let Ok(id) = Uuid::try_parse(text) {
            return self.user(id).await;
        }
        if text.contains('\0') {
            return Ok(None);
        }
        let query = format!(
            "SELECT {USER_COLUMNS} FROM users u WHERE lower(u.name) = lower($1) OR lower(u.email) = lower($1)"
        );
        Ok(sqlx::query_as(&query)
            .bind(text)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// What signing in with this name or email needs to know.
    pub async fn sign_in_user(&self, login: &str) -> Result<Option<SignInUser>, StoreError> {
        let user = sqlx::query_as(
            "SELECT id, name, password, disabled_at IS NOT NULL AS disabled FROM users
              WHERE lower(name) = lower($1) OR lower(email) = lower($1)",
        )
        .bind(without_nul(login))
        .fetch_optional(&self.pool)
        .await?;
        Ok(user)
    }

    /// Users in the order of their creation, after a given one.
    pub async fn users(&self, after: Option<Uuid>, limit: u16) -> Result<Vec<User>, StoreError> {
        let query = format!(
            "SELECT {USER_COLUMNS} FROM users u WHERE ($1::uuid IS NULL OR u.id > $1) ORDER BY u.id LIMIT $2"
        );
        let users = sqlx::query_as(&query).bind(after).bind(i64::from(limit));
        Ok(users.fetch_all(&self.pool).await?)
    }

    /// Changes a user. If the user is disabled or gets a new password, all of their sessions end,
    /// except for the session `keep`. Returns false if the user does not exist.
    pub async fn change_user(
        &self,
        actor: &Actor,
        id: Uuid,
        change: &UserChange,
        keep: Option<Uuid>,
    ) -> Result<bool, UserError> {
        let email = change.email.as_deref().unwrap_or_default();
        if email.contains('\0') {
            return Err(UserError::Email(email.replace('\0', "\u{fffd}")));
        }
        let mut transaction = self.pool.begin().await?;
        let changed = sqlx::query(
            "UPDATE users SET email = coalesce($2, email), preferences = coalesce($3, preferences),
                    password = coalesce($4, password),
                    disabled_at = CASE WHEN $5 THEN coalesce(disabled_at, now()) WHEN NOT $5 THEN NULL ELSE disabled_at END
              WHERE id = $1",
        )
        .bind(id)
        .bind(&change.email)
        .bind(&change.preferences)
        .bind(&change.password)
        .bind(change.disabled)
        .execute(&mut *transaction)
        .await
        .map_err(|error| user_error(error, "", email))?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        // A disabled user, or one with a new password, is signed out everywhere.
        if change.disabled == Some(true) || change.password.is_some() {
            sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2")
                .bind(id)
                .bind(keep)
                .execute(&mut *transaction)
                .await?;
        }
        record_change(&mut transaction, actor, id, change).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Creates a user with their roles within a transaction.
pub(super) async fn create(
    connection: &mut PgConnection,
    actor: &Actor,
    id: Uuid,
    new: &NewUser<'_>,
) -> Result<(), UserError> {
    let nul = |text: &str| text.contains('\0');
    if nul(new.name) {
        return Err(UserError::Name(new.name.replace('\0', "\u{fffd}")));
    }
    if nul(new.email) {
        return Err(UserError::Email(new.email.replace('\0', "\u{fffd}")));
    }
    sqlx::query("INSERT INTO users (id, name, email, password) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(new.name)
        .bind(new.email)
        .bind(new.password)
        .execute(&mut *connection)
        .await
        .map_err(|error| user_error(error, new.name, new.email))?;
    let details = json!({"name": new.name, "email": new.email, "roles": new.roles});
    let target = id.to_string();
    audit::record(connection, actor, "user.created", &target, details).await?;
    for role in new.roles {
        roles::grant(connection, id, role).await?;
    }
    Ok(())
}

/// Writes one audit entry for each changed field, except for preferences, which grant nothing.
async fn record_change(
    connection: &mut PgConnection,
    actor: &Actor,
    id: Uuid,
    change: &UserChange,
) -> Result<(), StoreError> {
    let target = id.to_string();
    let email = change.email.as_ref().map(|email| json!({"email": email}));
    let disabled = change.disabled.map(|disabled| match disabled {
        true => "user.disabled",
        false => "user.enabled",
    });
    let password = change.password.as_ref().map(|_| "user.password");
    let entries = [
        email.map(|details| ("user.email", details)),
        disabled.map(|action| (action, json!({}))),
        password.map(|action| (action, json!({}))),
    ];
    for (action, details) in entries.into_iter().flatten() {
        audit::record(connection, actor, action, &target, details).await?;
    }
    Ok(())
}
