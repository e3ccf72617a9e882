//! `/v1/audit`: the audit log: changes of access, and commands to runs; for administrators.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::page::PageSize;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::audit::{AuditEntry, AuditFilter};

const PAGE_ENTRIES: PageSize = PageSize {
    default: 100,
    max: 500,
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Serialize, ToSchema)]
struct AuditLog {
    entries: Vec<AuditEntry>,
    next: Option<i64>,
}

/// Lists changes of access and commands to runs, newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    params(
        ("actor" = Option<String>, Query, description = "Who did it: an id or a name"),
        ("action" = Option<String>, Query, description = "What was done: `user.disabled`, or `user.` for all of its kind"),
        ("before" = Option<i64>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "Entries: 100, and 500 at most"),
    ),
    responses(
        (status = 200, description = "A page of entries", body = AuditLog),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(State(gateway): State<Gateway>, query: Query) -> Result<Json<AuditLog>, Problem> {
    let page = PAGE_ENTRIES.limit(&query)?;
    let text = |name| -> Result<Option<String>, Problem> {
        match query.get(name) {
            Some(text) if text.contains('\0') => Err(Problem::bad_request(format!(
                "parameter {name} contains a NUL character"
            ))),
            text => Ok(text.map(str::to_owned)),
        }
    };
    let filter = AuditFilter {
        before: query.parse("before")?,
        actor: text("actor")?,
        action: text("action")?,
        limit: page.rows_to_read(),
    };
    let mut entries = gateway.store().audit_log(&filter).await?;
    let next = page.cut(&mut entries, |entry| entry.id);
    Ok(Json(AuditLog { entries, next }))
}
