//! `/v1/audit`: the audit log; for administrators. A page of it as JSON, or all of it as NDJSON.
//!
//! With `Accept: application/x-ndjson` the answer is one entry a line, newest first, from `before`
//! to the end of the log or to `limit`. It is read in pages of [`EXPORT_PAGE_ENTRIES`] while the
//! client takes it, so neither side holds more than one page. An answer that cannot be completed is
//! broken off, never ended: a client that gets its end has all of it. Each export is recorded, too.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use runcast_access::open_streams::StreamRegistration;
use runcast_common::protocol::event::line_separators::push_escaped;
use serde::Serialize;
use serde_json::json;
use tracing::warn;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::accept::{NDJSON, wants_ndjson};
use crate::extract::caller::Caller;
use crate::extract::page::PageSize;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::audit::{AuditEntry, AuditFilter};
use runcast_store::{Store, StoreError};

const PAGE_ENTRIES: PageSize = PageSize {
    default: 100,
    max: 500,
};

/// Entries that an export reads at a time.
const EXPORT_PAGE_ENTRIES: u16 = 500;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Serialize, ToSchema)]
struct AuditLog {
    entries: Vec<AuditEntry>,
    next: Option<i64>,
}

/// Lists what was done, newest first: changes of access, runs, webhooks and jobs, and commands.
///
/// As NDJSON it is an export: one entry a line, all that the filter admits.
#[utoipa::path(
    get,
    path = "/v1/audit",
    params(
        ("actor" = Option<String>, Query, description = "Who did it: an id or a name"),
        ("action" = Option<String>, Query, description = "What was done: `user.disabled`, or `user.` for all of its kind"),
        ("before" = Option<i64>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "Entries of a page: 100, and 500 at most; of an export: all"),
        ("Accept" = Option<String>, Header, description = "`application/x-ndjson` for an export, one entry a line"),
    ),
    responses((status = 200, description = "A page of entries, or all of them", content(
        (AuditLog = "application/json"),
        ("application/x-ndjson"),
    ))),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let text = |name| -> Result<Option<String>, Problem> {
        match query.get(name) {
            Some(text) if text.contains('\0') => Err(Problem::bad_request(format!(
                "parameter {name} contains a NUL character"
            ))),
            text => Ok(text.map(str::to_owned)),
        }
    };
    let page = PAGE_ENTRIES.limit(&query)?;
    let filter = AuditFilter {
        before: query.parse("before")?,
        actor: text("actor")?,
        action: text("action")?,
        limit: page.rows_to_read(),
    };
    if wants_ndjson(&headers) {
        let left = query.parse::<u64>("limit")?.unwrap_or(u64::MAX);
        let details = json!({"actor": filter.actor, "action": filter.action});
        let store = gateway.store();
        store
            .audit(&principal.actor(), "audit.exported", "audit", details)
            .await?;
        let registration = gateway.access().open_streams().open(&principal);
        return export(store.clone(), filter, left, registration).await;
    }
    let mut entries = gateway.store().audit_log(&filter).await?;
    let next = page.cut(&mut entries, |entry| entry.id);
    Ok(Json(AuditLog { entries, next }).into_response())
}

/// The answer of an export. The first page is read before it, so that an outage is answered 503.
async fn export(
    store: Store,
    filter: AuditFilter,
    left: u64,
    registration: StreamRegistration,
) -> Result<Response, Problem> {
    let mut pages = Pages {
        store,
        filter,
        left,
    };
    let first = pages.next().await?;
    let body = Body::from_stream(lines(first, pages, registration));
    let mut response = body.into_response();
    let kind = HeaderValue::from_static(NDJSON);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// Why an export breaks off.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the credential has ended")]
    Revoked,
    #[error("an entry cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn lines(
    first: Option<Vec<AuditEntry>>,
    mut pages: Pages,
    registration: StreamRegistration,
) -> impl Stream<Item = Result<Bytes, ExportError>> {
    async_stream::try_stream! {
        let mut page = first;
        while let Some(entries) = page {
            yield encode(&entries)?;
            if registration.revocation().is_some() {
                Err(ExportError::Revoked)?;
            }
            page = pages.next().await.inspect_err(|error| {
                warn!(%error, "cannot read on in the audit log; an export breaks off");
            })?;
        }
    }
}

fn encode(entries: &[AuditEntry]) -> Result<Bytes, ExportError> {
    let mut out = Vec::new();
    for entry in entries {
        push_escaped(&mut out, &serde_json::to_vec(entry)?);
        out.push(b'\n');
    }
    Ok(out.into())
}

/// The pages of an export.
struct Pages {
    store: Store,
    filter: AuditFilter,
    /// Entries that may still be sent.
    left: u64,
}

impl Pages {
    /// The next page; none behind the last one.
    async fn next(&mut self) -> Result<Option<Vec<AuditEntry>>, StoreError> {
        let limit = u16::try_from(self.left).unwrap_or(u16::MAX);
        self.filter.limit = limit.min(EXPORT_PAGE_ENTRIES);
        if self.filter.limit == 0 {
            return Ok(None);
        }
        let entries = self.store.audit_log(&self.filter).await?;
        self.left -= entries.len() as u64;
        match entries.last() {
            Some(last) => self.filter.before = Some(last.id),
            None => return Ok(None),
        }
        Ok(Some(entries))
    }
}
