//! Connects the job library to our pool, so that it needs no second driver.
//!
//! The library calls a small interface of its own (text, values, and rows of nine types), which
//! this file implements with sqlx. Its tables are in a schema of their own, [`SCHEMA`]. `runcastd
//! migrate` migrates it, and every service checks it at its start.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use graphile_worker::{
    BoxFuture, Database, DatabaseDriver, DbCell, DbError, DbExecutor, DbParams, DbRow,
    DbTransaction, DbValue, NotificationStream, TransactionDriver,
};
use graphile_worker_migrations::sql::GRAPHILE_WORKER_MIGRATIONS;
use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::{Column as _, Postgres, Row as _, Transaction, TypeInfo as _};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::error::{SchemaError, StoreError};
use super::job_status;
use super::leases::Lease;
use super::store::Store;

/// The schema with the library's tables. `tasks.job_status` is the view for operators.
pub const SCHEMA: &str = "tasks";

/// Attempts after which a job is dead. The waits between them are e^n seconds: four minutes in all,
/// well below the hour after which a recurring job is queued again.
const MAX_ATTEMPTS: i32 = 6;

/// The version of the library's schema that this program was built with.
pub(super) fn schema_version() -> i64 {
    let versions = GRAPHILE_WORKER_MIGRATIONS
        .iter()
        .map(|one| i64::from(one.migration_number()));
    versions.max().unwrap_or(0)
}

/// The version of the library's schema that a database has; 0 for none.
pub(super) async fn schema_in(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('tasks.migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !known {
        return Ok(0);
    }
    let version: Option<i32> = sqlx::query_scalar("SELECT max(id) FROM tasks.migrations")
        .fetch_one(connection)
        .await?;
    Ok(version.map_or(0, i64::from))
}

impl Store {
    /// The pool, in the form that the job library uses. It takes no transactions before it is
    /// opened: until a runner of the library has started it begins none, except to migrate.
    pub fn queue(&self) -> (Database, TransactionGate) {
        let gate = TransactionGate::default();
        let database = Database::new(PoolDriver {
            pool: self.pool.clone(),
            gate: gate.clone(),
        });
        (database, gate)
    }

    /// Migrates the library's schema. Several processes may try at once.
    pub(super) async fn migrate_queue(&self) -> Result<(), SchemaError> {
        let (database, gate) = self.queue();
        gate.open();
        graphile_worker_migrations::migrate(database, SCHEMA)
            .await
            .map_err(|error| SchemaError::Tasks(error.to_string()))
    }

    /// Queues recurring jobs, and records that they are queued again after `wait`. Each is queued
    /// at most once: a job that waits already, or is dead, becomes due now, and a running one is
    /// left alone. Returns false, and does nothing, if another worker holds the lease.
    pub async fn schedule(
        &self,
        lease: &Lease,
        jobs: &[&str],
        wait: Duration,
    ) -> Result<bool, StoreError> {
        // The library creates these rows when a worker starts, all at once and in any order.
        // Created here, one by one and outside of the transaction below, they cannot cause a
        // deadlock with it.
        for job in jobs {
            sqlx::query(
                "INSERT INTO tasks._private_tasks (identifier) VALUES ($1) ON CONFLICT DO NOTHING",
            )
            .bind(job)
            .execute(&self.pool)
            .await?;
        }
        let mut transaction = self.pool.begin().await?;
        if !lease.check(&mut transaction).await? {
            return Ok(false);
        }
        // One queue for all: these jobs run one after the other, whatever the number of workers. A
        // running job is left alone, because the library would retire it and leave it behind as
        // dead.
        sqlx::query(
            "SELECT count(tasks.add_job(job, '{}'::json, 'upkeep', now(), $2, job))
               FROM unnest($1::text[]) AS job
              WHERE NOT EXISTS (SELECT FROM tasks.jobs WHERE key = job AND locked_at IS NOT NULL)",
        )
        .bind(jobs)
        .bind(MAX_ATTEMPTS)
        .execute(&mut *transaction)
        .await?;
        job_status::set_next_run(&mut transaction, jobs, wait).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

impl Store {
    /// Queues a job for each of these runs, unless the job of the run is running. A job that waits
    /// already, or is dead, becomes due now. These jobs run in no order, on as many workers as
    /// there are.
    pub async fn schedule_runs(&self, job: &str, runs: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query(
            "SELECT count(tasks.add_job($1, json_build_object('run', run), NULL, now(), $3, $1 || ':' || run))
               FROM unnest($2::uuid[]) AS run
              WHERE NOT EXISTS (SELECT FROM tasks.jobs WHERE key = $1 || ':' || run AND locked_at IS NOT NULL)",
        )
        .bind(job)
        .bind(runs)
        .bind(MAX_ATTEMPTS)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Queues the job [`ROWS`] for a day.
    pub async fn schedule_day(&self, day: NaiveDate) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        schedule_drop_rows(&mut connection, day, Duration::ZERO).await
    }
}

/// Queues the job of a run within a transaction of the caller.
pub(super) async fn schedule_run(
    connection: &mut PgConnection,
    job: &str,
    run: Uuid,
) -> Result<(), StoreError> {
    sqlx::query(
        "SELECT count(tasks.add_job($1, json_build_object('run', $2::uuid), NULL, now(), $3, $1 || ':' || $2::uuid))",
    )
    .bind(job)
    .bind(run)
    .bind(MAX_ATTEMPTS)
    .execute(connection)
    .await?;
    Ok(())
}

/// The job that deletes the rows of a day's archived runs.
pub const ROWS: &str = "archive_rows";

/// Queues the job [`ROWS`] within a transaction of the caller. A job that waits already waits anew,
/// so that after the last run of a day is archived all of the day is deleted at once. A running job
/// is left alone; what it misses, the job of the next hour deletes.
pub(super) async fn schedule_drop_rows(
    connection: &mut PgConnection,
    day: NaiveDate,
    after: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "SELECT count(tasks.add_job($1, json_build_object('day', $2::date), NULL,
                        now() + make_interval(secs => $3), $4, $1 || ':' || $2::date))
          WHERE NOT EXISTS (SELECT FROM tasks.jobs WHERE key = $1 || ':' || $2::date AND locked_at IS NOT NULL)",
    )
    .bind(ROWS)
    .bind(day)
    .bind(after.as_secs_f64())
    .bind(MAX_ATTEMPTS)
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps the library from migrating whatever database a worker meets, such as one that is being
/// restored.
#[derive(Debug, Clone, Default)]
pub struct TransactionGate(Arc<AtomicBool>);

impl TransactionGate {
    /// Lets the library begin transactions.
    pub fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Our pool, as the library's database.
#[derive(Debug)]
struct PoolDriver {
    pool: PgPool,
    gate: TransactionGate,
}

/// A transaction of the library, whose calls come one at a time.
struct OpenTransaction(Mutex<Transaction<'static, Postgres>>);

fn db_error(error: &sqlx::Error) -> DbError {
    let code = match error {
        sqlx::Error::Database(error) => error.code().map(|code| code.into_owned()),
        _ => None,
    };
    match code {
        Some(code) => DbError::with_code(error.to_string(), code),
        None => DbError::new(error.to_string()),
    }
}

fn bind_params<'q>(sql: &'q str, params: &'q DbParams) -> Query<'q, Postgres, PgArguments> {
    let mut query = sqlx::query(sql);
    for value in params.values() {
        query = match value {
            DbValue::Bool(value) => query.bind(value),
            DbValue::BoolOpt(value) => query.bind(value),
            DbValue::I16(value) => query.bind(value),
            DbValue::I16Opt(value) => query.bind(value),
            DbValue::I32(value) => query.bind(value),
            DbValue::I32Opt(value) => query.bind(value),
            DbValue::I64(value) => query.bind(value),
            DbValue::I64Opt(value) => query.bind(value),
            DbValue::Json(value) => query.bind(value),
            DbValue::JsonOpt(value) => query.bind(value),
            DbValue::Text(value) => query.bind(value),
            DbValue::TextOpt(value) => query.bind(value),
            DbValue::TextArray(value) => query.bind(value),
            DbValue::TextArrayOpt(value) => query.bind(value),
            DbValue::I32Array(value) => query.bind(value),
            DbValue::I64Array(value) => query.bind(value),
            DbValue::TimestampTz(value) => query.bind(value),
            DbValue::TimestampTzOpt(value) => query.bind(value),
        };
    }
    query
}

fn cell(row: &PgRow, name: &str, kind: &str) -> Result<DbCell, DbError> {
    fn of<'r, T>(row: &'r PgRow, name: &str, cell: fn(T) -> DbCell) -> Result<DbCell, DbError>
    where
        T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        let value: Option<T> = row.try_get(name).map_err(|error| db_error(&error))?;
        Ok(value.map_or(DbCell::Null, cell))
    }
    match kind {
        "BOOL" => of(row, name, DbCell::Bool),
        "INT2" => of(row, name, DbCell::I16),
        "INT4" => of(row, name, DbCell::I32),
        "INT8" => of(row, name, DbCell::I64),
        "JSON" | "JSONB" => of(row, name, DbCell::Json),
        "TEXT" | "VARCHAR" | "NAME" => of(row, name, DbCell::Text),
        "TIMESTAMPTZ" => of::<DateTime<Utc>>(row, name, DbCell::TimestampTz),
        // For example the void of a function that returns nothing.
        _ => Ok(DbCell::Null),
    }
}

fn cells(row: &PgRow) -> Result<DbRow, DbError> {
    let cells = row.columns().iter().map(|column| {
        let name = column.name();
        Ok((name.to_owned(), cell(row, name, column.type_info().name())?))
    });
    Ok(DbRow::new(
        cells.collect::<Result<HashMap<_, _>, DbError>>()?,
    ))
}

async fn execute(
    connection: &mut PgConnection,
    sql: &str,
    params: DbParams,
) -> Result<u64, DbError> {
    let done = bind_params(sql, &params).execute(connection).await;
    done.map(|done| done.rows_affected())
        .map_err(|error| db_error(&error))
}

async fn fetch_all(
    connection: &mut PgConnection,
    sql: &str,
    params: DbParams,
) -> Result<Vec<DbRow>, DbError> {
    let rows = bind_params(sql, &params).fetch_all(connection).await;
    rows.map_err(|error| db_error(&error))?
        .iter()
        .map(cells)
        .collect()
}

impl DbExecutor for PoolDriver {
    fn execute<'a>(
        &'a self,
        sql: &'a str,
        params: DbParams,
    ) -> BoxFuture<'a, Result<u64, DbError>> {
        Box::pin(async move {
            let mut connection = self
                .pool
                .acquire()
                .await
                .map_err(|error| db_error(&error))?;
            execute(&mut connection, sql, params).await
        })
    }

    fn fetch_all<'a>(
        &'a self,
        sql: &'a str,
        params: DbParams,
    ) -> BoxFuture<'a, Result<Vec<DbRow>, DbError>> {
        Box::pin(async move {
            let mut connection = self
                .pool
                .acquire()
                .await
                .map_err(|error| db_error(&error))?;
            fetch_all(&mut connection, sql, params).await
        })
    }
}

impl DatabaseDriver for PoolDriver {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn begin(&self) -> BoxFuture<'_, Result<DbTransaction, DbError>> {
        Box::pin(async move {
            if !self.gate.0.load(Ordering::Relaxed) {
                let reason = "the tables of background jobs are not those of this program: run `runcastd migrate`";
                return Err(DbError::new(reason));
            }
            let transaction = self.pool.begin().await.map_err(|error| db_error(&error))?;
            Ok(DbTransaction::new(Box::new(OpenTransaction(Mutex::new(
                transaction,
            )))))
        })
    }

    /// None: background jobs may wait for the next poll, and need no connection of their own.
    fn listen<'a>(
        &'a self,
        _channel: &'a str,
    ) -> BoxFuture<'a, Result<Option<NotificationStream>, DbError>> {
        Box::pin(async { Ok(None) })
    }
}

impl DbExecutor for OpenTransaction {
    fn execute<'a>(
        &'a self,
        sql: &'a str,
        params: DbParams,
    ) -> BoxFuture<'a, Result<u64, DbError>> {
        Box::pin(async move { execute(&mut *self.0.lock().await, sql, params).await })
    }

    fn fetch_all<'a>(
        &'a self,
        sql: &'a str,
        params: DbParams,
    ) -> BoxFuture<'a, Result<Vec<DbRow>, DbError>> {
        Box::pin(async move { fetch_all(&mut *self.0.lock().await, sql, params).await })
    }
}

impl TransactionDriver for OpenTransaction {
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), DbError>> {
        Box::pin(async move {
            self.0
                .into_inner()
                .commit()
                .await
                .map_err(|error| db_error(&error))
        })
    }
}
