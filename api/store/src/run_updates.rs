//! Collects what a transaction has to announce about runs that it changed. It reads them within
//! that transaction.

use runcast_common::presence::heartbeat::Health;
use runcast_common::presence::run_update::{AgentUpdate, RunUpdate, UpdateKind};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::error::StoreError;
use super::store::unsigned;

/// An agent whose health changed, with its run.
pub(super) type AgentChange = (Uuid, AgentUpdate);

/// The change of an agent, by id, run and variation, to this health.
pub(super) fn agent_change(
    (agent, run, variation): (Uuid, Uuid, i16),
    health: Health,
) -> AgentChange {
    let variation = u16::try_from(variation).unwrap_or(0);
    let update = AgentUpdate {
        agent,
        variation,
        health,
    };
    (run, update)
}

/// The current state of these runs, and of the runs of these agents.
pub(super) async fn run_updates(
    connection: &mut PgConnection,
    mut runs: Vec<Uuid>,
    agents: Vec<AgentChange>,
) -> Result<Vec<RunUpdate>, StoreError> {
    runs.extend(agents.iter().map(|(run, _)| *run));
    runs.sort_unstable();
    runs.dedup();
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(Uuid, String, bool, bool, i64)> = sqlx::query_as(
        "SELECT id, status, ended_at IS NOT NULL, sealed_at IS NOT NULL,
                (SELECT coalesce(sum(missing), 0)::bigint FROM variations v WHERE v.run_id = r.id)
           FROM runs r WHERE id = ANY($1)",
    )
    .bind(&runs)
    .fetch_all(connection)
    .await?;
    let update = |(run, status, ended, sealed, missing)| RunUpdate {
        kind: UpdateKind::State,
        run,
        status,
        ended,
        sealed,
        missing: unsigned(missing),
        agents: Vec::new(),
        redacted: false,
    };
    let mut updates: Vec<RunUpdate> = rows.into_iter().map(update).collect();
    updates.sort_unstable_by_key(|update| update.run);
    for (run, agent) in agents {
        if let Ok(at) = updates.binary_search_by_key(&run, |update| update.run) {
            updates[at].agents.push(agent);
        }
    }
    Ok(updates)
}
