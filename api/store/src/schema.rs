//! The schema: one linear directory of migrations, embedded in the program.
//!
//! Only `runcastd migrate` (and `dev`) changes a schema. Every service checks at its start that the
//! database has the migrations that it was built with, by version and checksum, and otherwise
//! refuses to start: two versions that disagree about a table lose data silently. Migrations beyond
//! these are accepted if each of them states, in the table `schema_versions`, that programs of this
//! version work with it. So services may be restarted in the middle of an upgrade, and a program
//! can be rolled back without its schema. The tables of the job library have a schema and a version
//! of their own ([`job_queue`]), which must be the same.

use std::sync::LazyLock;

use sqlx::Connection as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;

pub use super::error::SchemaError;
use super::error::StoreError;
use super::job_queue;
use super::store::Store;

/// Names of the migrations, `<version>_<description>`, with their SQL, in order.
const MIGRATION_FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| Migrator {
    migrations: MIGRATION_FILES.iter().map(migration).collect(),
    ..Migrator::DEFAULT
});

fn migration((name, sql): &(&'static str, &'static str)) -> Migration {
    let (version, description) = name.split_once('_').unwrap_or((name, ""));
    Migration::new(
        // A unit test parses every name.
        version.parse().unwrap_or_default(),
        description.replace('_', " ").into(),
        MigrationType::Simple,
        (*sql).into(),
        sql.starts_with("-- no-transaction"),
    )
}

/// Describes a migration by its version, the first digits of its checksum, and whether it failed.
fn describe(version: i64, checksum: &[u8], success: bool) -> String {
    let digits: String = checksum
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let failed = if success { "" } else { " (failed)" };
    format!("{version}:{digits}{failed}")
}

/// The schema version that this program was built with.
pub fn version() -> i64 {
    let versions = MIGRATIONS.iter().map(|migration| migration.version);
    versions.max().unwrap_or(0)
}

impl Store {
    /// Migrates the database to the version that this program was built with. If several processes
    /// try at once, one migrates and the others wait. Fails with [`SchemaError`] if a migration
    /// fails or has changed since it ran, or if the database is newer.
    pub async fn migrate(&self) -> Result<(), SchemaError> {
        // A failed migration leaves its advisory lock on the connection, so the connection must not
        // return to the pool.
        let mut connection = self
            .pool
            .acquire()
            .await
            .map_err(StoreError::from)?
            .detach();
        let database = applied(&mut connection).await?;
        let database = database.last().map_or(0, |(version, _)| *version);
        if database > version() {
            let program = version();
            return Err(SchemaError::Newer { database, program });
        }
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

    /// Checks that the database has the migrations that this program was built with, and no others
    /// than such as work with it. Fails with [`SchemaError::Mismatch`], which lists expected and
    /// actual migrations.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        let actual = applied(&mut connection).await?;
        let expected: Vec<(i64, String)> = MIGRATIONS
            .iter()
            .map(|migration| {
                (
                    migration.version,
                    describe(migration.version, &migration.checksum, true),
                )
            })
            .collect();
        // The schema of the job library has a version, but no checksum.
        let (built, has) = (
            job_queue::schema_version(),
            job_queue::schema_in(&mut connection).await?,
        );
        if actual == expected && built == has {
            return Ok(());
        }
        if let Some(newer) = actual.strip_prefix(&expected[..])
            && built == has
            && accepts_this_program(&mut connection, newer).await?
        {
            return Ok(());
        }
        let newest = |list: &[(i64, String)]| list.last().map_or(0, |(version, _)| *version);
        let hint = if newest(&actual) > newest(&expected) || has > built {
            "The database is newer: deploy the program that fits it."
        } else if expected.starts_with(&actual) {
            "The database is older: run `runcastd migrate`."
        } else {
            "A migration was changed after it ran, or failed halfway: compare the two lists."
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

/// Whether all of these migrations, which this program does not know, state that it works with
/// them.
async fn accepts_this_program(
    connection: &mut PgConnection,
    newer: &[(i64, String)],
) -> Result<bool, StoreError> {
    let versions: Vec<i64> = newer.iter().map(|(version, _)| *version).collect();
    let accepting: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM schema_versions JOIN _sqlx_migrations USING (version)
         WHERE version = ANY($1) AND oldest_program <= $2 AND success",
    )
    .bind(&versions)
    .bind(version())
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(accepting) == Ok(versions.len()))
}

/// The migrations that the database has, in order.
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
        .map(|(version, checksum, success)| (version, describe(version, &checksum, success)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_a_gap() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|one| one.version).collect();
        let expected: Vec<i64> = (1..).take(MIGRATION_FILES.len()).collect();
        assert_eq!(versions, expected);
        assert_eq!(MIGRATIONS.iter().next().expect("one").description, "runs");
    }

    #[test]
    fn migrations_state_the_oldest_program_that_works_with_them() {
        let stating = MIGRATIONS.iter().filter(|one| one.version >= 15);
        for migration in stating {
            let statement = format!(
                "INSERT INTO schema_versions (version, oldest_program) VALUES ({}, ",
                migration.version
            );
            let version = migration.version;
            assert!(
                migration.sql.contains(&statement),
                "{version}: {statement}N);"
            );
        }
    }
}
