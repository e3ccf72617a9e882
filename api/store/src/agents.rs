//! Agents and their health, and the transactions that record which agents are lost and which came
//! back.
//!
//! The schema derives from the health of agents the status of their variation and run
//! (`0005_agents.sql`). Each transaction locks runs first, in the order of their ids, as the
//! persister does. So the two never deadlock, and a final status always wins.

use chrono::{DateTime, Utc};
use runcast_common::presence::heartbeat::{Agent, Health};
use runcast_common::presence::run_update::RunUpdate;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::StoreError;
use super::leases::Lease;
use super::run_updates::{AgentChange, agent_change, run_updates};
use super::store::{Store, signed, without_nul};
use super::visibility::{self, Visible};

/// What a sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Agents whose heartbeat came for the first time, or again.
    pub alive: Vec<(Uuid, Agent)>,
    /// Silent agents, not yet silent for long enough to be lost.
    pub stale: Vec<Uuid>,
    /// Agents that were silent for too long.
    pub lost: Vec<Uuid>,
}

impl Changes {
    /// True if there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.alive.is_empty() && self.stale.is_empty() && self.lost.is_empty()
    }
}

/// How a sweep ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swept {
    /// All changes are committed. These updates are to be announced.
    Done(Vec<RunUpdate>),
    /// Nothing is written, because another worker holds the lease.
    Fenced,
}

/// An agent, as the API returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KnownAgent {
    /// Its id, which is the id of its producer.
    pub agent: Uuid,
    /// The run that it publishes for.
    pub run: Uuid,
    /// The variation of the run that it publishes for.
    pub variation: i16,
    /// Its host.
    pub host: String,
    /// Its process id on that host.
    pub pid: i64,
    /// Its version of Runcast.
    pub version: String,
    /// When it started, by its own clock.
    pub started_at: DateTime<Utc>,
    /// `alive`, `stale`, `lost`, or `ended` if its variation was over when it fell silent.
    pub health: String,
    /// When its health changed.
    pub changed_at: DateTime<Utc>,
}

impl KnownAgent {
    fn from_row(row: &PgRow) -> Result<Self, StoreError> {
        Ok(Self {
            agent: row.try_get("agent")?,
            run: row.try_get("run_id")?,
            variation: row.try_get("variation")?,
            host: row.try_get("host")?,
            pid: row.try_get("pid")?,
            version: row.try_get("version")?,
            started_at: row.try_get("started_at")?,
            health: row.try_get("health")?,
            changed_at: row.try_get("changed_at")?,
        })
    }
}

impl Store {
    /// Writes what a sweep found, if the lease is still held.
    pub async fn sweep(&self, lease: &Lease, changes: &Changes) -> Result<Swept, StoreError> {
        let mut transaction = self.pool.begin().await?;
        if !lease.check(&mut transaction).await? {
            return Ok(Swept::Fenced);
        }
        // Lock the runs first, in the order of their ids.
        let alive: Vec<Uuid> = changes.alive.iter().map(|(_, about)| about.run).collect();
        let runs: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM runs
              WHERE id = ANY($1) OR id IN (SELECT run_id FROM agents WHERE agent = ANY($2))
              ORDER BY id FOR UPDATE",
        )
        .bind(&alive)
        .bind(&changes.lost)
        .fetch_all(&mut *transaction)
        .await?;
        // Write the health of the agents.
        let alive = upsert_alive(&mut transaction, &changes.alive).await?;
        let stale: Vec<(Uuid, Uuid, i16)> = sqlx::query_as(
            "UPDATE agents SET health = 'stale', changed_at = now()
              WHERE agent = ANY($1) AND health = 'alive' RETURNING agent, run_id, variation",
        )
        .bind(&changes.stale)
        .fetch_all(&mut *transaction)
        .await?;
        let lost = mark_lost(&mut transaction, &changes.lost).await?;
        // Let runs follow their agents, and read what to announce.
        update_statuses(&mut transaction, &runs).await?;
        let agents = [
            (alive, Health::Alive),
            (stale, Health::Stale),
            (lost, Health::Lost),
        ];
        let agents = agents.into_iter().flat_map(|(agents, health)| {
            agents.into_iter().map(move |one| agent_change(one, health))
        });
        let updates = run_updates(&mut transaction, Vec::new(), agents.collect()).await?;
        transaction.commit().await?;
        Ok(Swept::Done(updates))
    }

    /// Agents, newest first.
    pub async fn agents(
        &self,
        before: Option<Uuid>,
        health: Option<&str>,
        visible: &Visible,
        limit: u16,
    ) -> Result<Vec<KnownAgent>, StoreError> {
        let query = format!(
            "SELECT a.* FROM agents a WHERE ($1::uuid IS NULL OR agent < $1)
                AND ($2::text IS NULL OR health = $2)
                AND ($4::jsonb IS NULL OR EXISTS (SELECT 1 FROM runs r WHERE r.id = a.run_id AND {visible}))
              ORDER BY agent DESC LIMIT $3",
            visible = visibility::condition(4)
        );
        let rows = sqlx::query(&query)
            .bind(before)
            .bind(health)
            .bind(i64::from(limit))
            .bind(visible.parameter())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(KnownAgent::from_row).collect()
    }

    /// Agents that are recorded as alive or stale, each with its run, in the order of their ids.
    pub async fn living_agents(
        &self,
        after: Uuid,
        limit: u16,
    ) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
        let rows = sqlx::query_as(
            "SELECT agent, run_id FROM agents
              WHERE health IN ('alive', 'stale') AND agent > $1 ORDER BY agent LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }
}

/// Marks lost agents as alive that have published since they were lost, and updates the statuses of
/// their runs. Returns these agents. Compared is the time at which Redis appended their events: an
/// event that was appended before, and only stored late, revives no agent.
pub(super) async fn revive_lost_agents(
    connection: &mut PgConnection,
    last_published: &[(Uuid, Uuid, u64)],
) -> Result<Vec<AgentChange>, StoreError> {
    if last_published.is_empty() {
        return Ok(Vec::new());
    }
    let revived: Vec<(Uuid, Uuid, i16)> = sqlx::query_as(
        "UPDATE agents a SET health = 'alive', changed_at = now()
           FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS h(run, agent, ms)
          WHERE a.agent = h.agent AND a.run_id = h.run AND a.health = 'lost'
            AND a.changed_at < to_timestamp(h.ms::double precision / 1000)
         RETURNING a.agent, a.run_id, a.variation",
    )
    .bind(
        last_published
            .iter()
            .map(|(run, _, _)| *run)
            .collect::<Vec<_>>(),
    )
    .bind(
        last_published
            .iter()
            .map(|(_, agent, _)| *agent)
            .collect::<Vec<_>>(),
    )
    .bind(
        last_published
            .iter()
            .map(|(_, _, ms)| signed(*ms))
            .collect::<Vec<_>>(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut runs: Vec<Uuid> = revived.iter().map(|(_, run, _)| *run).collect();
    runs.dedup();
    update_statuses(connection, &runs).await?;
    Ok(revived
        .into_iter()
        .map(|one| agent_change(one, Health::Alive))
        .collect())
}

async fn upsert_alive(
    connection: &mut PgConnection,
    agents: &[(Uuid, Agent)],
) -> Result<Vec<(Uuid, Uuid, i16)>, StoreError> {
    if agents.is_empty() {
        return Ok(Vec::new());
    }
    // The join leaves out agents of runs that do not exist.
    let agents = sqlx::query_as(
        "INSERT INTO agents (agent, run_id, variation, host, pid, version, started_at, health)
         SELECT a.agent, r.id, a.variation, a.host, a.pid, a.version,
                to_timestamp(a.started::double precision / 1000), 'alive'
           FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::text[], $5::bigint[], $6::text[], $7::bigint[])
                AS a(agent, run_id, variation, host, pid, version, started)
           JOIN runs r ON r.id = a.run_id
         ON CONFLICT (agent) DO UPDATE SET run_id = excluded.run_id,
                variation = excluded.variation, host = excluded.host, pid = excluded.pid,
                version = excluded.version, started_at = excluded.started_at,
                health = 'alive', changed_at = now()
         RETURNING agent, run_id, variation",
    )
    .bind(agents.iter().map(|(agent, _)| *agent).collect::<Vec<_>>())
    .bind(column(agents, |about| about.run))
    .bind(column(agents, |about| {
        i16::try_from(about.variation).unwrap_or(i16::MAX)
    }))
    .bind(column(agents, |about| without_nul(&about.host)))
    .bind(column(agents, |about| i64::from(about.pid)))
    .bind(column(agents, |about| without_nul(&about.version)))
    // The agent's clock may show any time. Later times than the year 9999 are stored as its end.
    .bind(column(agents, |about| {
        signed(about.started.min(253_402_300_799_000))
    }))
    .fetch_all(connection)
    .await?;
    Ok(agents)
}

fn column<T>(agents: &[(Uuid, Agent)], of: impl Fn(&Agent) -> T) -> Vec<T> {
    agents.iter().map(|(_, about)| of(about)).collect()
}

async fn mark_lost(
    connection: &mut PgConnection,
    agents: &[Uuid],
) -> Result<Vec<(Uuid, Uuid, i16)>, StoreError> {
    let changed: Vec<(Uuid, Uuid, i16, bool)> = sqlx::query_as(
        "UPDATE agents a SET changed_at = now(),
                health = CASE WHEN v.status IN ('succeeded', 'failed', 'cancelled') THEN 'ended' ELSE 'lost' END
           FROM variations v
          WHERE a.agent = ANY($1) AND a.health IN ('alive', 'stale')
            AND v.run_id = a.run_id AND v.variation = a.variation
         RETURNING a.agent, a.run_id, a.variation, a.health = 'lost'",
    )
    .bind(agents)
    .fetch_all(connection)
    .await?;
    let lost = changed.into_iter().filter(|(_, _, _, lost)| *lost);
    Ok(lost
        .map(|(agent, run, variation, _)| (agent, run, variation))
        .collect())
}

/// Updates the statuses of runs that are not over. The schema turns what is written here into
/// `lost` where all agents are lost.
async fn update_statuses(connection: &mut PgConnection, runs: &[Uuid]) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE variations SET status = CASE WHEN started_at IS NULL THEN 'pending' ELSE 'running' END
          WHERE run_id = ANY($1) AND status IN ('pending', 'running', 'lost')",
    )
    .bind(runs)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE runs SET status = CASE WHEN started_at IS NULL THEN 'pending' ELSE 'running' END
          WHERE id = ANY($1) AND ended_at IS NULL AND status IN ('pending', 'running', 'lost')",
    )
    .bind(runs)
    .execute(connection)
    .await?;
    Ok(())
}
