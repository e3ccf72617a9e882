//! `/v1/runs/{run}/redactions`: masks what a run has printed, after it was stored.
//!
//! A request is recorded, and a worker carries it out within seconds: it masks the events in
//! Postgres and in the archive, removes them from Redis, and tells the run's viewers to read it
//! again. Ids, counts and line numbers stay what they were. A run on hold is answered 409.
//!
//! Bounds: a text of [`MIN_TEXT_BYTES`] to [`MAX_TEXT_BYTES`], a reason of
//! [`MAX_REASON_BYTES`](crate::extract::reason::MAX_REASON_BYTES).

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use runcast_common::protocol::event_id::EventId;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::run_access::{authorize_run, no_run};
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::extract::reason::checked_reason;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::redactions::{Redaction, RedactionOutcome, RedactionRequest};

/// Shortest text: a shorter one occurs in all that a run prints.
const MIN_TEXT_BYTES: usize = 4;

/// Longest text.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(request, list))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewRedaction)]
#[serde(deny_unknown_fields)]
struct NewRedaction {
    /// The text to mask wherever it occurs, also across events. Without it all that the events from
    /// `from` to `to` say is masked.
    #[schema(value_type = Option<String>, min_length = 4, max_length = 16384)]
    text: Option<SecretString>,
    /// Id of the first event. With a text the beginning of the run, if it is absent.
    from: Option<String>,
    /// Id of the last event. If it is absent: with a text the newest event of the run, without one
    /// `from`.
    to: Option<String>,
    /// Why, for the list and the audit log. Do not repeat the text.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RedactionList {
    /// The newest 200, newest first.
    redactions: Vec<Redaction>,
}

/// Redacts what a run has printed.
///
/// A worker masks it within seconds, in everything that is stored of the run; `GET` on the same
/// path says when it is done. Events that are published later are not looked at.
#[utoipa::path(
    post,
    path = "/v1/runs/{run}/redactions",
    request_body = NewRedaction,
    responses(
        (status = 202, description = "It is recorded, and a worker carries it out", body = Redaction),
        (status = 409, description = "The run is on hold, or too many of its redactions wait"),
    ),
    security(("bearer" = [Scope::Redact])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn request(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    StrictJson(body): StrictJson<NewRedaction>,
) -> Result<(StatusCode, Json<Redaction>), Problem> {
    let (run, _coverage) = authorize_run(&gateway, &principal, Scope::Redact, &id).await?;
    let newest = gateway.hub().reader().end(run).await?;
    let (from, to) = range(&body, newest)?;
    let text = body.text.as_ref().map(ExposeSecret::expose_secret);
    let request = RedactionRequest {
        from,
        to,
        text: text.map(checked_text).transpose()?,
        reason: body.reason.as_deref().map(checked_reason).transpose()?,
    };
    let actor = principal.actor();
    match gateway
        .store()
        .request_redaction(&actor, run, request)
        .await?
    {
        RedactionOutcome::Requested(redaction) => {
            info!(%run, redaction = %redaction.id, by = %principal.id, "a redaction was requested");
            Ok((StatusCode::ACCEPTED, Json(redaction)))
        }
        RedactionOutcome::Held(hold) => {
            let detail = format!("run {run} is on hold by {}: {}", hold.by, hold.reason);
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        RedactionOutcome::TooMany => Err(Problem::new(
            StatusCode::CONFLICT,
            "too many redactions of this run wait: try again when a worker has carried them out",
        )),
        RedactionOutcome::Unknown => Err(no_run(&gateway, run).await),
    }
}

/// Lists the redactions of a run, newest first.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/redactions",
    responses((status = 200, description = "Its redactions", body = RedactionList)),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<RedactionList>, Problem> {
    let (run, _coverage) = authorize_run(&gateway, &principal, Scope::Read, &id).await?;
    let redactions = gateway.store().redactions(run).await?;
    Ok(Json(RedactionList { redactions }))
}

/// The first and the last event of a request. Later events than the newest do not exist yet.
fn range(body: &NewRedaction, newest: EventId) -> Result<(EventId, EventId), Problem> {
    let parse = |name: &str, text: &Option<String>| {
        let id = text.as_deref().map(str::parse::<EventId>).transpose();
        id.map_err(|error| Problem::bad_request(format!("{name}: {error}")))
    };
    let (from, to) = (parse("from", &body.from)?, parse("to", &body.to)?);
    let (from, to) = match (from, to, &body.text) {
        (from, to, Some(_)) => (from.unwrap_or(EventId::ZERO), to.unwrap_or(newest)),
        (Some(from), to, None) => (from, to.unwrap_or(from)),
        (None, _, None) => {
            return Err(Problem::bad_request(
                "say what to redact: `text`, or the ids of events in `from` and `to`",
            ));
        }
    };
    if from > to {
        return Err(Problem::bad_request(format!(
            "from {from} lies behind to {to}"
        )));
    }
    Ok((from, to.min(newest)))
}

fn checked_text(text: &str) -> Result<&[u8], Problem> {
    if (MIN_TEXT_BYTES..=MAX_TEXT_BYTES).contains(&text.len()) {
        return Ok(text.as_bytes());
    }
    Err(Problem::bad_request(format!(
        "text of {} bytes: {MIN_TEXT_BYTES} to {MAX_TEXT_BYTES} are possible",
        text.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_made_of_what_is_given() {
        let id = |seq| EventId::new(1, seq);
        let request = |text: Option<&str>, from: Option<&str>, to: Option<&str>| {
            let body = NewRedaction {
                text: text.map(SecretString::from),
                from: from.map(str::to_owned),
                to: to.map(str::to_owned),
                reason: None,
            };
            range(&body, id(9)).ok()
        };
        let all = Some((EventId::ZERO, id(9)));
        assert_eq!(request(Some("text"), None, None), all);
        assert_eq!(request(Some("text"), None, Some("1-99")), all);
        let one = Some((id(3), id(3)));
        assert_eq!(request(None, Some("1-3"), None), one);
        assert_eq!(request(None, Some("1-3"), Some("1-3")), one);
        assert_eq!(request(None, None, Some("1-3")), None);
        assert_eq!(request(None, Some("1-3"), Some("1-2")), None);
        assert_eq!(request(None, Some("three"), None), None);
    }
}
