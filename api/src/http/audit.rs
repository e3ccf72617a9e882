//! `/v1/audit`: what changed who may do what, or controlled a run; for administrators.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::Gateway;
use super::problem::Problem;
use super::query::Query;
use super::users::admin;
use crate::access::principal::Principal;
use crate::store::audit::{AuditFilter, Entry};

/// Entries of one page if nothing is said, and at most.
const PAGE_ENTRIES: u16 = 100;
const MAX_PAGE_ENTRIES: u16 = 500;

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new().route("/v1/audit", get(list))
}

#[derive(Debug, Serialize)]
struct List {
    entries: Vec<Entry>,
    next: Option<i64>,
}

/// Newest first; `?actor=` id or name, `?action=user.disabled` or `user.` for all of its kind, `?before=`, `?limit=`.
async fn list(
    principal: Principal,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<List>, Problem> {
    admin(&principal)?;
    let limit = query.parse("limit")?.unwrap_or(PAGE_ENTRIES);
    let limit = limit.clamp(1, MAX_PAGE_ENTRIES);
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
    Ok(Json(List { entries, next }))
}
