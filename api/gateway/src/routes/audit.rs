//! `/v1/audit`: what changed who may do what, or controlled a run; for administrators.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::audit::{AuditEntry, AuditFilter};

/// Entries of one page if nothing is said, and at most.
const PAGE_ENTRIES: u16 = 100;
const MAX_PAGE_ENTRIES: u16 = 500;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditLog)]
struct AuditLog {
    entries: Vec<AuditEntry>,
    next: Option<i64>,
}

/// Lists what changed who may do what, or controlled a run, newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    params(
        ("actor" = Option<String>, Query, description = "By whom: an id or a name"),
        ("action" = Option<String>, Query, description = "What: `user.disabled`, or `user.` for all of its kind"),
        ("before" = Option<i64>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "Entries: 100, and 500 at most"),
    ),
    responses(
        (status = 200, description = "A page of entries", body = AuditLog),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn list(State(gateway): State<Gateway>, query: Query) -> Result<Json<AuditLog>, Problem> {
    let limit = query.limit(PAGE_ENTRIES, MAX_PAGE_ENTRIES)?;
    let text = |name| -> Result<Option<String>, Problem> {
        match query.get(name) {
            Some(text) if text.contains('\0') => Err(Problem::bad_request(format!(
                "parameter {name} holds a NUL character"
            ))),
            text => Ok(text.map(str::to_owned)),
        }
    };
    let filter = AuditFilter {
        before: query.parse("before")?,
        actor: text("actor")?,
        action: text("action")?,
        limit: limit + 1,
    };
    // One more than asked for says whether there is a next page.
    let mut entries = gateway.store().audit_log(&filter).await?;
    let more = entries.len() > usize::from(limit);
    entries.truncate(usize::from(limit));
    let next = entries.last().map(|last| last.id).filter(|_| more);
    Ok(Json(AuditLog { entries, next }))
}
