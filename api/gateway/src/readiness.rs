//! Whether a service can do its work: `/readyz` of each, and `runcastd check`.
//!
//! All parts are looked at together, each for [`PROBE_DEADLINE`] at most, when somebody asks, and at most once in
//! [`FRESH`]: whoever may ask a gateway must not be able to keep its servers busy. A gateway without Redis or
//! without Postgres still serves its viewers, so it is ready while either answers. A persister and a worker, whom nobody
//! connects to, are ready when nothing is wrong: for them readiness is what an operator is told, and a partition
//! that is missing for tomorrow is told before it is needed.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::Keys;
use runcast_common::redis;
use serde::{Serialize, Serializer};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use runcast_access::metrics::AccessHealth;
use runcast_common::ready_lag::{self, ReadyLag};
use runcast_store::schema::{self, SchemaError};
use runcast_store::{Store, StoreError};

/// Longest wait for each part: a probe is asked every few seconds.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// How long what was found counts as true.
const FRESH: Duration = Duration::from_millis(500);

/// What was found of a part: nothing wrong, or what, without addresses and other things that are not for everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult(Result<(), String>);

impl ProbeResult {
    fn wrong(why: impl Into<String>) -> Self {
        Self(Err(why.into()))
    }

    /// True if nothing is wrong.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.0.is_ok()
    }

    /// What is wrong, or `ok`.
    #[must_use]
    pub fn text(&self) -> &str {
        match &self.0 {
            Ok(()) => "ok",
            Err(why) => why,
        }
    }
}

impl Serialize for ProbeResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

/// The line of runs with unstored events.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Check {
    /// Whether it can be read by the group of persisters.
    #[schema(value_type = String)]
    pub group: ProbeResult,
    /// Entries that wait or are being stored.
    pub waiting: u64,
    /// For how long the first of them has been there.
    pub lag_ms: u64,
}

/// What was found of the two servers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProbeResults {
    /// Every Redis master answers.
    #[schema(value_type = String)]
    pub redis: ProbeResult,
    /// Postgres answers.
    #[schema(value_type = String)]
    pub postgres: ProbeResult,
    /// Its schema is the one that this program was built with ...
    #[schema(value_type = String)]
    pub schema: ProbeResult,
    /// ... which is this.
    pub schema_version: i64,
    /// Events of runs that are created today and tomorrow have a place.
    #[schema(value_type = String)]
    pub partitions: ProbeResult,
    /// The persisters' line.
    pub line: Check,
}

impl ProbeResults {
    /// True if nothing is wrong; the line matters to those who read it alone.
    #[must_use]
    pub const fn all_well(&self, with_line: bool) -> bool {
        let servers = self.redis.is_ok() && self.postgres.is_ok();
        let line = !with_line || self.line.group.is_ok();
        servers && self.schema.is_ok() && self.partitions.is_ok() && line
    }
}

/// Looks at both servers.
#[derive(Debug)]
pub struct Health {
    redis: Redis,
    store: Store,
    keys: Keys,
    /// Held while somebody looks: who asks meanwhile gets the same.
    last: Mutex<Option<(Instant, ProbeResults)>>,
}

impl Health {
    /// Of these servers.
    #[must_use]
    pub fn new(redis: Redis, store: Store, keys: Keys) -> Self {
        Self {
            redis,
            store,
            keys,
            last: Mutex::default(),
        }
    }

    /// What there is to find.
    pub async fn look(&self) -> ProbeResults {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, findings)) if at.elapsed() < FRESH => findings.clone(),
            _ => {
                let findings = self.look_now().await;
                *last = Some((Instant::now(), findings.clone()));
                findings
            }
        }
    }

    async fn look_now(&self) -> ProbeResults {
        let (redis, postgres, line) = tokio::join!(
            timeout(PROBE_DEADLINE, self.ping()),
            timeout(PROBE_DEADLINE, self.postgres()),
            timeout(PROBE_DEADLINE, ready_lag::look(&self.redis, &self.keys)),
        );
        let redis = match redis {
            Ok(Ok(())) => ProbeResult(Ok(())),
            Ok(Err(_)) | Err(_) => unreachable(),
        };
        let (postgres, schema, partitions) = match postgres {
            Ok(Ok((schema, partitions))) => (ProbeResult(Ok(())), schema, partitions),
            Ok(Err(_)) | Err(_) => (unreachable(), unreachable(), unreachable()),
        };
        ProbeResults {
            redis,
            postgres,
            schema,
            schema_version: schema::version(),
            partitions,
            line: line.map_or_else(|_elapsed| no_line(unreachable()), describe),
        }
    }

    /// Asks every master.
    async fn ping(&self) -> Result<(), RedisFailure> {
        let ping = redis::cmd("PING");
        let masters = self.redis.masters().await?;
        let asking = masters.iter().map(|server| server.query::<String>(&ping));
        try_join_all(asking).await.map(|_pongs| ())
    }

    async fn postgres(&self) -> Result<(ProbeResult, ProbeResult), StoreError> {
        let schema = match self.store.check_schema().await {
            Ok(()) => ProbeResult(Ok(())),
            Err(SchemaError::Mismatch { hint, .. }) => {
                ProbeResult::wrong(format!("it does not fit this program. {hint}"))
            }
            Err(SchemaError::Store(error)) => return Err(error),
            Err(error) => ProbeResult::wrong(error.to_string()),
        };
        let partitions = if self.store.has_partitions().await? {
            ProbeResult(Ok(()))
        } else {
            ProbeResult::wrong(
                "none for the events of today or tomorrow: is a worker running? `runcastd migrate` makes them, too",
            )
        };
        Ok((schema, partitions))
    }
}

fn unreachable() -> ProbeResult {
    ProbeResult::wrong("unreachable")
}

const fn no_line(group: ProbeResult) -> Check {
    Check {
        group,
        waiting: 0,
        lag_ms: 0,
    }
}

fn describe(backlog: Result<ReadyLag, RedisFailure>) -> Check {
    match backlog {
        Ok(backlog) => Check {
            group: ProbeResult(Ok(())),
            waiting: backlog.entries,
            lag_ms: u64::try_from(backlog.oldest.as_millis()).unwrap_or(u64::MAX),
        },
        Err(error) if error.code() == Some("NOGROUP") => {
            no_line(ProbeResult::wrong("not there: no persister has run yet"))
        }
        Err(_) => no_line(unreachable()),
    }
}

/// The answer of a service to a probe.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether it can do its work.
    pub ready: bool,
    /// It was told to stop.
    pub draining: bool,
    /// Runs that are watched here, of a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watched_runs: Option<usize>,
    /// Who counts requests for their limits, of a gateway: redis, or process while Redis does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<&'static str>,
    /// How credentials are validated, of a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessHealth>,
    /// What that follows from.
    #[serde(flatten)]
    pub findings: ProbeResults,
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        let status = if self.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, Json(self)).into_response()
    }
}
