//! Whether a service can do its work: `/readyz` of each, and `runcastd check`.
//!
//! A request probes all parts at once, each within [`PROBE_DEADLINE`]. Results are reused for
//! [`MAX_AGE`], so that clients of a gateway cannot keep its servers busy.
//!
//! A gateway without Redis or without Postgres still serves its viewers, so it is ready while
//! either answers. A persister and a worker have no clients: they are ready when nothing is wrong,
//! which informs the operator. So a missing partition for tomorrow shows before it is needed.

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
use runcast_store::{Outage, Store, StoreError};

/// Longest wait for each part: `/readyz` is requested every few seconds.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// How long results are reused.
const MAX_AGE: Duration = Duration::from_millis(500);

/// The state of one part: nothing wrong, or what. The text holds no addresses: everyone may read
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult(Result<(), String>);

impl ProbeResult {
    fn wrong(why: impl Into<String>) -> Self {
        Self(Err(why.into()))
    }

    /// Whether nothing is wrong.
    pub const fn is_ok(&self) -> bool {
        self.0.is_ok()
    }

    /// What is wrong, or `ok`.
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

/// The ready queue: runs with unstored events.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Line)]
pub struct ReadyQueueState {
    /// Whether the consumer group of the persisters exists and can be read.
    #[schema(value_type = String)]
    pub group: ProbeResult,
    /// Entries that wait or are being stored.
    pub waiting: u64,
    /// Age of the oldest of them.
    pub lag_ms: u64,
}

/// The state of Redis and Postgres.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Findings)]
pub struct ProbeResults {
    /// Every Redis master answers.
    #[schema(value_type = String)]
    pub redis: ProbeResult,
    /// Postgres answers.
    #[schema(value_type = String)]
    pub postgres: ProbeResult,
    /// Its schema is the one that this program was built with.
    #[schema(value_type = String)]
    pub schema: ProbeResult,
    /// The version of the schema that this program was built with.
    pub schema_version: i64,
    /// Partitions exist for the events of runs that are created today and tomorrow.
    #[schema(value_type = String)]
    pub partitions: ProbeResult,
    /// The ready queue.
    #[serde(rename = "line")]
    pub ready_queue: ReadyQueueState,
}

impl ProbeResults {
    /// Whether nothing is wrong. The ready queue matters to services that read it
    /// (`with_ready_queue`).
    pub const fn is_healthy(&self, with_ready_queue: bool) -> bool {
        let servers = self.redis.is_ok() && self.postgres.is_ok();
        let queue = !with_ready_queue || self.ready_queue.group.is_ok();
        servers && self.schema.is_ok() && self.partitions.is_ok() && queue
    }
}

/// Probes Redis and Postgres.
#[derive(Debug)]
pub struct Health {
    redis: Redis,
    store: Store,
    keys: Keys,
    /// Locked during a probe: requests that come meanwhile wait and get its results.
    last: Mutex<Option<(Instant, ProbeResults)>>,
}

impl Health {
    /// Probes of these servers.
    pub fn new(redis: Redis, store: Store, keys: Keys) -> Self {
        Self {
            redis,
            store,
            keys,
            last: Mutex::default(),
        }
    }

    /// The state now, or as it was at most [`MAX_AGE`] ago.
    pub async fn look(&self) -> ProbeResults {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, results)) if at.elapsed() < MAX_AGE => results.clone(),
            _ => {
                let results = self.probe_now().await;
                *last = Some((Instant::now(), results.clone()));
                results
            }
        }
    }

    async fn probe_now(&self) -> ProbeResults {
        let (redis, postgres, ready_queue) = tokio::join!(
            timeout(PROBE_DEADLINE, self.ping()),
            timeout(PROBE_DEADLINE, self.postgres()),
            timeout(PROBE_DEADLINE, ready_lag::read(&self.redis, &self.keys)),
        );
        let redis = match redis {
            Ok(Ok(())) => ProbeResult(Ok(())),
            Ok(Err(_)) | Err(_) => unreachable(),
        };
        let (postgres, schema, partitions) = match postgres {
            Ok(Ok((schema, partitions))) => (ProbeResult(Ok(())), schema, partitions),
            Ok(Err(error)) => {
                let why = error.outage().map_or("unreachable", Outage::text);
                let wrong = || ProbeResult::wrong(why);
                (wrong(), wrong(), wrong())
            }
            Err(_elapsed) => (unreachable(), unreachable(), unreachable()),
        };
        ProbeResults {
            redis,
            postgres,
            schema,
            schema_version: schema::version(),
            partitions,
            ready_queue: ready_queue.map_or_else(|_elapsed| no_queue(unreachable()), queue_state),
        }
    }

    /// Pings every master.
    async fn ping(&self) -> Result<(), RedisFailure> {
        let ping = redis::cmd("PING");
        let masters = self.redis.masters().await?;
        let asking = masters.iter().map(|server| server.query::<String>(&ping));
        try_join_all(asking).await.map(|_pongs| ())
    }

    async fn postgres(&self) -> Result<(ProbeResult, ProbeResult), StoreError> {
        let schema = match self.store.check_schema().await {
            Ok(()) => {
                self.store.check_writable().await?;
                ProbeResult(Ok(()))
            }
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
                "missing for today or tomorrow: start a worker, or run `runcastd migrate`, which creates them",
            )
        };
        Ok((schema, partitions))
    }
}

fn unreachable() -> ProbeResult {
    ProbeResult::wrong("unreachable")
}

const fn no_queue(group: ProbeResult) -> ReadyQueueState {
    ReadyQueueState {
        group,
        waiting: 0,
        lag_ms: 0,
    }
}

fn queue_state(lag: Result<ReadyLag, RedisFailure>) -> ReadyQueueState {
    match lag {
        Ok(lag) => ReadyQueueState {
            group: ProbeResult(Ok(())),
            waiting: lag.entries,
            lag_ms: u64::try_from(lag.oldest.as_millis()).unwrap_or(u64::MAX),
        },
        Err(error) if error.code() == Some("NOGROUP") => no_queue(ProbeResult::wrong(
            "does not exist: no persister has run yet",
        )),
        Err(_) => no_queue(unreachable()),
    }
}

/// The answer to `/readyz`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether it can do its work.
    pub ready: bool,
    /// The service is shutting down.
    pub draining: bool,
    /// Runs with viewers here, of a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watched_runs: Option<usize>,
    /// What counts requests for their limits, of a gateway: `redis`, or `process` while Redis does
    /// not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<&'static str>,
    /// How credentials are validated, of a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessHealth>,
    /// The state of the parts.
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
