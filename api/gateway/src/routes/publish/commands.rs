//! `DELETE /v1/runs/{run}/commands/{entry}`: removes a command that its agent has answered.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use runcast_common::commands;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::protocol_version::check_protocol;
use super::published_runs::PublishedRuns;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::problem::Problem;
use runcast_access::Scope;

pub(super) fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(remove))
}

/// Removes a command that its agent has answered. One that is gone already is no error.
#[utoipa::path(
    delete,
    path = "/v1/runs/{run}/commands/{entry}",
    params(
        ("entry" = String, Path, description = "The `entry` of the command in a notice"),
        ("Runcast-Protocol" = u32, Header, description = "The version of the protocol: 1"),
    ),
    responses((status = 204, description = "It is removed")),
    security(("bearer" = [Scope::Publish])),
    extensions(("x-rate-class" = json!("publish")))
)]
async fn remove(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(runs): Extension<Arc<PublishedRuns>>,
    Path((id, entry)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let run = runs.authorize(&gateway, &principal, &id).await?;
    check_protocol(&headers)?;
    if !is_entry_id(&entry) {
        return Err(Problem::not_found("command", &entry));
    }
    run.count_request(&gateway, &principal).await?;
    let keys = gateway.keys().run(run.id);
    let command = commands::acknowledge(&keys, &entry);
    let _removed: u64 = gateway.redis().query(keys.slot, &command).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether Redis takes this for the id of an entry.
fn is_entry_id(text: &str) -> bool {
    let is_number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok();
    text.split_once('-')
        .is_some_and(|(time, seq)| is_number(time) && is_number(seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_ids_are_two_numbers() {
        assert!(is_entry_id("1764489600000-0"));
        for other in [
            "",
            "-",
            "1-",
            "1",
            "+1-0",
            "1-0-0",
            "99999999999999999999-0",
        ] {
            assert!(!is_entry_id(other), "{other}");
        }
    }
}
