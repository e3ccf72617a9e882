//! Records in the audit log who reads what runs have printed, if `RUNCAST_AUDIT_READS` is on.
//!
//! A request that is answered with events, text, hits or a stream becomes one entry `run.read` for
//! each run that it names. The entry is written before the first byte of the answer is sent, and a
//! read that cannot be recorded is answered 503: a log that is required must not have holes. A
//! stream counts once, when it is opened. Lists and descriptions of runs hold no output and are not
//! recorded.
//!
//! This layer stands inside of [rate limits](super::rate_limit), which bound the entries. Cost: one
//! statement for each run.

use std::str::FromStr;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;
use runcast_access::principal::Principal;
use runcast_store::audit::Actor;
use serde_json::json;

use crate::Gateway;
use crate::extract::query::Query;
use crate::problem::Problem;

/// Routes that answer with what runs have printed.
const CONTENT_PATHS: [&str; 5] = [
    "/v1/runs/{run}/events",
    "/v1/runs/{run}/search",
    "/v1/runs/{run}/stream",
    "/v1/runs/{run}/text",
    "/v1/watch",
];

/// `RUNCAST_AUDIT_READS`: whether reads are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditReads(pub bool);

impl FromStr for AuditReads {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err("expected on or off"),
        }
    }
}

/// Middleware: records a request that reads.
pub async fn audit_reads(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let read = match gateway.audits_reads() {
        true => Read::of(&request),
        false => None,
    };
    let response = next.run(request).await;
    if let Some(read) = read.filter(|_| response.status().is_success()) {
        for target in &read.targets {
            let details = json!({"path": read.path});
            let store = gateway.store();
            store
                .audit(&read.actor, "run.read", target, details)
                .await?;
        }
    }
    Ok(response)
}

/// A request that reads, as it is recorded.
struct Read {
    actor: Actor,
    path: String,
    /// The runs; or the labels that a viewer watches, whose runs are not known yet.
    targets: Vec<String>,
}

impl Read {
    fn of(request: &Request) -> Option<Self> {
        let path = request.extensions().get::<MatchedPath>()?.as_str();
        if !request.method().is_safe() || !CONTENT_PATHS.contains(&path) {
            return None;
        }
        let principal = request.extensions().get::<Principal>()?;
        Some(Self {
            actor: principal.actor(),
            targets: targets(path, request.uri()),
            path: path.to_owned(),
        })
    }
}

/// The runs that an address names, in its path or its query.
fn targets(path: &str, uri: &Uri) -> Vec<String> {
    if path.contains("{run}") {
        let run = uri.path().split('/').nth(3);
        return run.map(str::to_owned).into_iter().collect();
    }
    let query = Query::of(uri);
    let labels = query.all("label").map(|label| format!("label {label}"));
    query.all("run").map(str::to_owned).chain(labels).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_of_an_address_are_found() {
        let of = |path: &str, uri: &str| targets(path, &uri.parse().expect("an address"));
        let text = "/v1/runs/{run}/text";
        assert_eq!(of(text, "/v1/runs/7/text?follow"), ["7"]);
        assert_eq!(of("/v1/watch", "/v1/watch?run=7&run=8"), ["7", "8"]);
        assert_eq!(of("/v1/watch", "/v1/watch?label=a%3Db"), ["label a=b"]);
    }

    #[test]
    fn the_setting_is_on_or_off() {
        assert_eq!("on".parse(), Ok(AuditReads(true)));
        assert_eq!("off".parse(), Ok(AuditReads::default()));
        "yes".parse::<AuditReads>().expect_err("refused");
    }
}
