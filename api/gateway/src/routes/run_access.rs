//! The run that a request is about: whether it exists, and whether the principal may do this with
//! it.
//!
//! A run that the principal may not see is answered 403 whether it exists or not, so that the
//! answer does not tell. A run that was deleted is answered 410.

use chrono::SecondsFormat;
use uuid::Uuid;

use crate::Gateway;
use crate::extract::path::path_id;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_store::runs::{Coverage, Run};

/// The run with the id in a path. 403 without access, 404 if it does not exist, 410 if it was
/// deleted.
pub(super) async fn find_run(
    gateway: &Gateway,
    principal: &Principal,
    scope: Scope,
    id: &str,
) -> Result<Run, Problem> {
    let run = path_id("run", id)?;
    check_run_access(gateway, principal, scope, run).await?;
    match gateway.store().run(run).await? {
        Some(run) => Ok(run),
        None => Err(no_run(gateway, run).await),
    }
}

/// The id of the run in a path, and how far it is stored. 403 without access, 404 if it does not
/// exist, 410 if it was deleted.
pub(super) async fn authorize_run(
    gateway: &Gateway,
    principal: &Principal,
    scope: Scope,
    id: &str,
) -> Result<(Uuid, Coverage), Problem> {
    let run = path_id("run", id)?;
    check_run_access(gateway, principal, scope, run).await?;
    match gateway.store().coverage(run).await? {
        Some(coverage) => Ok((run, coverage)),
        None => Err(no_run(gateway, run).await),
    }
}

/// The problem of a run that Postgres does not have: it was deleted, or there never was one.
pub(super) async fn no_run(gateway: &Gateway, run: Uuid) -> Problem {
    match gateway.store().deleted_run(run).await {
        Ok(Some(deleted)) => {
            let at = deleted
                .deleted_at
                .to_rfc3339_opts(SecondsFormat::Secs, true);
            Problem::gone(format!("run {run} was deleted at {at}"))
        }
        Ok(None) => Problem::not_found("run", &run.to_string()),
        Err(error) => error.into(),
    }
}

/// Checks that the principal may do this with a run. Its labels are read only where they decide.
pub(super) async fn check_run_access(
    gateway: &Gateway,
    principal: &Principal,
    scope: Scope,
    run: Uuid,
) -> Result<(), Problem> {
    if !principal.needs_labels(scope, run) {
        return Ok(principal.may(scope, Some(run))?);
    }
    let labels = gateway.run_labels().of(run).await?.unwrap_or_default();
    Ok(principal.may_with(scope, run, &labels)?)
}
