//! Users: unique by name and by email, whatever the case; both are decided by the indexes, so two requests that come
//! at once cannot both win. A password is an argon2id hash; nothing that lists users selects it.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::roles;
use super::store::{Store, StoreError};

/// What a new user is made of.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// Letters, digits, and `. _ -`.
    pub name: &'a str,
    /// An address.
    pub email: &'a str,
    /// The hash of a password, for who signs in with one.
    pub password: Option<&'a str>,
    /// Roles from the beginning on.
    pub roles: &'a [String],
}

/// A user as they are shown.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct User {
    /// Their id, a UUIDv7.
    pub id: Uuid,
    /// Their name.
    pub name: String,
    /// Their address.
    pub email: String,
    /// What they like, as the page keeps it.
    #[schema(value_type = Object)]
    pub preferences: Value,
    /// Their roles.
    pub roles: Vec<String>,
    /// Whether they can sign in with a password.
    pub has_password: bool,
    /// When they were created.
    pub created_at: DateTime<Utc>,
    /// Since when they may do nothing.
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
    /// Who.
    pub id: Uuid,
    /// Their name.
    pub name: String,
    /// The hash of their password.
    pub password: Option<String>,
    /// They may do nothing.
    pub disabled: bool,
}

from_row!(SignInUser {
    id,
    name,
    password,
    disabled
});

/// What to change of a user; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// Another address.
    pub email: Option<String>,
    /// Other preferences, all of them.
    pub preferences: Option<Value>,
    /// May do nothing any more, or may again.
    pub disabled: Option<bool>,
    /// The hash of another password.
    pub password: Option<String>,
}

/// Why a user cannot be created or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Somebody has it.
    #[error("the name {0} is taken, in this or another case")]
    NameTaken(String),
    /// Somebody has it.
    #[error("there is a user with the email {0} already")]
    EmailTaken(String),
    /// It cannot be one.
    #[error(
        "name {0:?}: expected 1 to 64 letters, digits and . _ - of ASCII, a letter or digit first"
    )]
    Name(String),
    /// It cannot be one.
    #[error("email {0:?}: expected an address such as ada@example.com of at most 254 characters")]
    Email(String),
    /// There is no such role.
    #[error("there is no role {0}")]
    Role(String),
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for UserError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a violated constraint means.
fn refused(error: sqlx::Error, name: &str, email: &str) -> UserError {
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

const COLUMNS: &str =
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

    /// One user, if there is such a one.
    pub async fn user(&self, id: Uuid) -> Result<Option<User>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM users u WHERE u.id = $1");
        Ok(sqlx::query_as(&query)
            .bind(id)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// The user with this id, name or email, whatever its case.
    pub async fn find_user(&self, text: &str) -> Result<Option<User>, StoreError> {
        if let Ok(id) = Uuid::try_parse(text) {
            return self.user(id).await;
        }
        if text.contains('\0') {
            return Ok(None);
        }
        let query = format!(
            "SELECT {COLUMNS} FROM users u WHERE lower(u.name) = lower($1) OR lower(u.email) = lower($1)"
        );
        Ok(sqlx::query_as(&query)
            .bind(text)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// What signing in by this name or email needs.
    pub async fn sign_in_user(&self, login: &str) -> Result<Option<SignInUser>, StoreError> {
        let user = sqlx::query_as(
            "SELECT id, name, password, disabled_at IS NOT NULL AS disabled FROM users
              WHERE lower(name) = lower($1) OR lower(email) = lower($1)",
        )
        .bind(super::store::without_nul(login))
        .fetch_optional(&self.pool)
        .await?;
        Ok(user)
    }

    /// Users in the order of their creation, after one.
    pub async fn users(&self, after: Option<Uuid>, limit: u16) -> Result<Vec<User>, StoreError> {
        let query = format!(
            "SELECT {COLUMNS} FROM users u WHERE ($1::uuid IS NULL OR u.id > $1) ORDER BY u.id LIMIT $2"
        );
        let users = sqlx::query_as(&query).bind(after).bind(i64::from(limit));
        Ok(users.fetch_all(&self.pool).await?)
    }

    /// Changes a user; who is disabled or gets another password is signed out everywhere, but for the session `keep`.
    /// False if there is no such user.
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
        .map_err(|error| refused(error, "", email))?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        if change.disabled == Some(true) || change.password.is_some() {
            sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2")
                .bind(id)
                .bind(keep)
                .execute(&mut *transaction)
                .await?;
        }
        note_change(&mut transaction, actor, id, change).await?;
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
        .map_err(|error| refused(error, new.name, new.email))?;
    let details = json!({"name": new.name, "email": new.email, "roles": new.roles});
    let target = id.to_string();
    audit::note(connection, actor, "user.created", &target, details).await?;
    for role in new.roles {
        roles::grant(connection, id, role).await?;
    }
    Ok(())
}

/// One entry for each thing that changed; preferences change no access.
async fn note_change(
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
        audit::note(connection, actor, action, &target, details).await?;
    }
    Ok(())
}
