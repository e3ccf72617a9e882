//! The schema: one linear directory of migrations, embedded into the program.
//!
//! Only `runcastd migrate` (and `dev`) changes a schema. Every service checks at its start that the
//! database has exactly the migrations it was built with, by version and checksum, and otherwise
//! refuses to start: two versions that disagree about a table lose data in silence. The tables of the
//! job library lie in a schema of their own with a version of their own ([`job_queue`]), held to the same rule.

use std::sync::LazyLock;

use sqlx::Connection as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;

use super::job_queue;
use super::store::{Store, StoreError};

/// Names of the migrations, `<version>_<description>`, with their SQL, in order.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| Migrator {
    migrations: FILES.iter().map(migration).collect(),
    ..Migrator::DEFAULT
});

fn migration((name, sql): &(&'static str, &'static str)) -> Migration {
    let (version, description) = name.split_once('_').unwrap_or((name, ""));
    Migration::new(
        // A test reads every name.
        version.parse().unwrap_or_default(),
        description.replace('_', " ").into(),
        MigrationType::Simple,
        (*sql).into(),
        sql.starts_with("-- no-transaction"),
    )
}

/// Why a program cannot work with a database.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It was built with other migrations than the database has.
    #[error(
        "the database schema does not fit this program\n  expected: {expected}\n  actual:   {actual}\n  {hint}"
    )]
    Mismatch {
        /// What this program was built with.
        expected: String,
        /// What the database has.
        actual: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A migration of the job library's schema failed.
    #[error("migrating the schema of background tasks failed: {0}")]
    Tasks(String),
    /// A migration failed.
    #[error("migrating the database failed: {0}")]
    Migrate(MigrateError),
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One migration as version and the first digits of its checksum, and whether it went through.
fn show(version: i64, checksum: &[u8], success: bool) -> String {
    let digits: String = checksum
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let failed = if success { "" } else { " (failed)" };
    format!("{version}:{digits}{failed}")
}

/// The version that this program was built with.
pub fn version() -> i64 {
    let versions = MIGRATIONS.iter().map(|migration| migration.version);
    versions.max().unwrap_or(0)
}

impl Store {
    /// Brings the database to the version this program was built with. Several may try at once: one
    /// does it, the others wait.
    ///
    /// # Errors
    /// [`SchemaError`] if a migration fails or the database has one that was changed since.
    pub async fn migrate(&self) -> Result<(), SchemaError> {
        // A failed migration leaves its advisory lock on the connection: it must not be a pooled one.
        let mut connection = self
            .pool
            .acquire()
            .await
            .map_err(StoreError::from)?
            .detach();
        sqlx::query("SET statement_timeout = 0")
            .execute(&mut connection)
            .await
            .map_err(StoreError::from)?;
        sqlx::query("SET lock_timeout = 0")
            .execute(&mut connection)
            .await
            .map_err(StoreError::from)?;
        let result = MIGRATIONS.run_direct(&mut connection).await;
        connection.close().await.map_err(StoreError::from)?;
        result.map_err(SchemaError::Migrate)?;
        self.migrate_queue().await
    }

    /// Checks that the database has exactly the migrations this program was built with.
    ///
    /// # Errors
    /// [`SchemaError::Mismatch`] with what was expected and what is there.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        let actual = applied(&mut connection).await?;
        let expected: Vec<(i64, String)> = MIGRATIONS
            .iter()
            .map(|migration| {
                (
                    migration.version,
                    show(migration.version, &migration.checksum, true),
                )
            })
            .collect();
        // The job library's own schema has a number and no checksum.
        let (built, has) = (
            job_queue::schema_version(),
            job_queue::schema_in(&mut connection).await?,
        );
        if actual == expected && built == has {
            return Ok(());
        }
        let newest = |list: &[(i64, String)]| list.last().map_or(0, |(version, _)| *version);
        let hint = if newest(&actual) > newest(&expected) || has > built {
            "The database is newer: deploy the program that fits it."
        } else if expected.starts_with(&actual) {
            "The database is older: run `runcastd migrate`."
        } else {
            "A migration was changed after it ran, or failed half way: compare the two lists."
        };
        let join = |list: &[(i64, String)], tasks: i64| match list {
            [] => "no migrations".to_owned(),
            list => {
                let mut shown: Vec<&str> = list.iter().map(|(_, shown)| shown.as_str()).collect();
                let tasks = format!("tasks:{tasks}");
                shown.push(&tasks);
                shown.join(" ")
            }
        };
        Err(SchemaError::Mismatch {
            expected: join(&expected, built),
            actual: join(&actual, has),
            hint,
        })
    }
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<(i64, String)>, StoreError> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !known {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, Vec<u8>, bool)> =
        sqlx::query_as("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(version, checksum, success)| (version, show(version, &checksum, success)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_a_gap() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|one| one.version).collect();
        let expected: Vec<i64> = (1..).take(FILES.len()).collect();
        assert_eq!(versions, expected);
        assert_eq!(MIGRATIONS.iter().next().expect("one").description, "runs");
    }
}
