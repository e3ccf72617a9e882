//! The run that a request is about: whether it exists, and whether the principal may do this with
//! it.
//!
//! A run that the principal may not see is answered 403 whether it exists or not, so that the
//! answer does not tell.

use uuid::Uuid;

use crate::Gateway;
use crate::extract::path::path_id;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_store::runs::{Coverage, Run};

/// The run with the id in a path. 403 without access, 404 if it does not exist.
pub(super) async fn find_run(
    gateway: &Gateway,
    principal: &Principal,
    scope: Scope,
    id: &str,
) -> Result<Run, Problem> {
    let run = path_id("run", id)?;
    check_run_access(gateway, principal, scope, run).await?;
    let run = gateway.store().run(run).await?;
    run.ok_or_else(|| Problem::not_found("run", id))
}

/// The id of the run in a path, and how far it is stored. 403 without access, 404 if it does not
/// exist.
pub(super) async fn authorize_run(
    gateway: &Gateway,
    principal: &Principal,
    scope: Scope,
    id: &str,
) -> Result<(Uuid, Coverage), Problem> {
    let run = path_id("run", id)?;
    check_run_access(gateway, principal, scope, run).await?;
    let coverage = gateway.store().coverage(run).await?;
    Ok((run, coverage.ok_or_else(|| Problem::not_found("run", id))?))
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
