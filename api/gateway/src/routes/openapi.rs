//! `/openapi.json`: what the API takes and answers, generated from the handlers.
//!
//! Each handler documents what is its own. What follows from that is added here, once for all ([`complete`]): the parameters
//! in its path, the problems that it shares with its like, that a session is worth as much as a token, its tag and id.
//! The document does not change while the program runs: it is built at start, and has an `ETag`.

use axum::Extension;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::credential::TICKET_PARAMETER;
use crate::extract::etag;
use crate::middleware::route_policy::{BEARER, TICKET, method};
use crate::problem;
use runcast_access::session::cookie;

/// The credential that browsers have.
const SESSION: &str = "session";

/// The head of the document, and the schemas that no handler names.
#[derive(OpenApi)]
#[openapi(
    info(title = "Runcast", description = "Carries what runs print to whoever watches, live and for good."),
    servers((url = "/")),
    components(schemas(problem::Document<'_>))
)]
struct Head;

/// What the document begins as.
pub(crate) fn head() -> OpenApiRouter<Gateway> {
    OpenApiRouter::with_openapi(Head::openapi())
}

/// The routes of this file.
pub(crate) fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// The document as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    text: Bytes,
    tag: HeaderValue,
}

impl Document {
    /// The text of this document.
    pub(crate) fn new(document: &Value) -> Self {
        let text = document.to_string();
        let digest = Sha256::digest(text.as_bytes());
        Self {
            tag: etag::of(&digest),
            text: text.into(),
        }
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object),
        (status = 304, description = "It is the one that `If-None-Match` names"),
    ),
    security(())
)]
async fn openapi(Extension(document): Extension<Document>, headers: HeaderMap) -> Response {
    let common = [
        (header::ETAG, document.tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if etag::names(&headers, &header::IF_NONE_MATCH, &document.tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (common, kind, document.text).into_response()
}

/// Adds to a document what follows from what its operations say of themselves.
pub(crate) fn complete(document: &mut Value) {
    document["components"]["securitySchemes"] = json!({
        BEARER: {
            "type": "http",
            "scheme": "bearer",
            "description": "A token. The names beside an operation are the scope that it needs; \
                `admin` includes all others. A token that is bound to a run is good for that run alone.",
        },
        SESSION: {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie::PLAIN_NAME,
            "description": "The cookie that signing in gives a browser; its name begins with `__Host-` where the \
                server is reached by https. Writes with it must come from the server's own page.",
        },
        TICKET: {
            "type": "apiKey",
            "in": "query",
            "name": TICKET_PARAMETER,
            "description": "What `POST /v1/stream-tickets` answers, for an `EventSource` that can show nothing else. It opens \
                one stream, and is used up then.",
        },
    });
    document["components"]["responses"] = PROBLEMS
        .into_iter()
        .map(|(status, description)| (name(status), problem(description)))
        .collect();
    let paths = document["paths"].as_object_mut();
    for (path, item) in paths.into_iter().flatten() {
        let members = item.as_object_mut();
        for (name, operation) in members.into_iter().flatten() {
            if let (Some(method), Some(operation)) = (method(name), operation.as_object_mut()) {
                complete_operation(path, &method, operation);
            }
        }
    }
}

/// Problems that many operations share.
const PROBLEMS: [(StatusCode, &str); 8] = [
    (StatusCode::BAD_REQUEST, "What was sent makes no sense"),
    (
        StatusCode::UNAUTHORIZED,
        "Nobody is known by this credential",
    ),
    (StatusCode::FORBIDDEN, "Whoever asks may not do this"),
    (StatusCode::NOT_FOUND, "There is no such thing"),
    (
        StatusCode::REQUEST_TIMEOUT,
        "The body took too long to arrive",
    ),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "Later: `Retry-After` says when",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "A part that is needed does not answer: try again",
    ),
];

fn name(status: StatusCode) -> String {
    status
        .canonical_reason()
        .unwrap_or_default()
        .replace(' ', "")
}

fn problem(description: &str) -> Value {
    json!({"description": description, "content": problem_content()})
}

fn problem_content() -> Value {
    json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}})
}

fn complete_operation(path: &str, method: &Method, operation: &mut Map<String, Value>) {
    let segments: Vec<&str> = path.split('/').filter(|one| !one.is_empty()).collect();
    let tag = match segments[..] {
        ["v1", tag, ..] => tag,
        _ => "service",
    };
    operation.insert("tags".into(), json!([tag]));
    let words = segments.iter().filter(|&&one| one != "v1");
    let words = words.map(|word| word.trim_matches(['{', '}']).replace('.', "_"));
    let id = [method.as_str().to_lowercase()].into_iter().chain(words);
    let id = id.collect::<Vec<_>>().join("_");
    operation.insert("operationId".into(), id.into());
    add_path_parameters(&segments, operation);
    absent_is_not_null(operation);
    let is_known = add_session(operation);
    add_problems(tag, is_known, path.contains('{'), operation);
}

/// Describes the parts of the path that the handler does not describe itself.
fn add_path_parameters(segments: &[&str], operation: &mut Map<String, Value>) {
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    let Some(parameters) = parameters.as_array_mut() else {
        return;
    };
    for segment in segments {
        let Some(name) = segment
            .strip_prefix('{')
            .and_then(|one| one.strip_suffix('}'))
        else {
            continue;
        };
        if parameters
            .iter()
            .any(|one| one["in"] == "path" && one["name"] == name)
        {
            continue;
        }
        let schema = match name {
            "job" => json!({"type": "integer", "format": "int64"}),
            "run" | "webhook" | "delivery" | "session" | "token" => {
                json!({"type": "string", "format": "uuid"})
            }
            _ => json!({"type": "string"}),
        };
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
    }
    if parameters.is_empty() {
        operation.remove("parameters");
    }
}

/// A parameter that may be left out is not one that may be `null`, which no header can say.
fn absent_is_not_null(operation: &mut Map<String, Value>) {
    let parameters = operation
        .get_mut("parameters")
        .and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let kind = &mut parameter["schema"]["type"];
        if let Some([Value::String(one), Value::String(null)]) = kind.as_array().map(Vec::as_slice)
            && null == "null"
        {
            *kind = Value::from(one.clone());
        }
    }
}

/// Says that a session does where a token does; true if one of them is needed.
fn add_session(operation: &mut Map<String, Value>) -> bool {
    let Some(alternatives) = operation.get_mut("security").and_then(Value::as_array_mut) else {
        return false;
    };
    let by_token = alternatives.iter().filter_map(|one| one.get(BEARER));
    let by_session: Vec<Value> = by_token.map(|scopes| json!({SESSION: scopes})).collect();
    let is_known = !by_session.is_empty();
    alternatives.extend(by_session);
    is_known
}

/// Adds the problems that an operation shares with its like, and says of its own that they are problem documents.
fn add_problems(tag: &str, is_known: bool, has_thing: bool, operation: &mut Map<String, Value>) {
    let takes_body = operation.contains_key("requestBody");
    let parameters = operation.get("parameters").and_then(Value::as_array);
    let mut parameters = parameters.into_iter().flatten();
    let takes_words = takes_body || parameters.any(|one| one["in"] != "path");
    let needs_parts = tag != "service";
    let applies = [
        (StatusCode::BAD_REQUEST, takes_words),
        (StatusCode::UNAUTHORIZED, is_known),
        (StatusCode::FORBIDDEN, is_known),
        (StatusCode::NOT_FOUND, has_thing),
        (StatusCode::REQUEST_TIMEOUT, takes_body),
        (StatusCode::PAYLOAD_TOO_LARGE, takes_body),
        (StatusCode::TOO_MANY_REQUESTS, needs_parts),
        (StatusCode::SERVICE_UNAVAILABLE, needs_parts),
    ];
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else {
        return;
    };
    for (status, response) in &mut *responses {
        if status.starts_with(['4', '5']) && response.get("content").is_none() {
            response["content"] = problem_content();
        }
    }
    for (status, _) in applies.into_iter().filter(|(_, applies)| *applies) {
        let shared = json!({"$ref": format!("#/components/responses/{}", name(status))});
        responses.entry(status.as_str()).or_insert(shared);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runcast_common::protocol::limits::{MAX_NAME_BYTES, MAX_VARIATIONS};

    use super::*;
    use crate::middleware::route_policy::{RouteMatch, RoutePolicies, RoutePolicy, operations};
    use crate::router;

    fn document() -> Value {
        let mut document =
            serde_json::to_value(router::documented_routes().into_openapi()).expect("JSON");
        complete(&mut document);
        document
    }

    #[test]
    fn every_route_has_a_rule() {
        let document = document();
        let rules = RoutePolicies::of(&document);
        let mut count = 0;
        for (path, method, _) in operations(&document) {
            let found = rules.find(path, &method);
            let missing = RouteMatch::Route(RoutePolicy::Missing);
            assert!(
                matches!(found, RouteMatch::Route(_)) && found != missing,
                "{method} {path} needs `security(...)`, as access/rules.rs says: {found:?}"
            );
            count += 1;
        }
        assert!(count > 20, "{count} operations");
    }

    #[test]
    fn tickets_open_streams_and_nothing_else() {
        let document = document();
        let rules = RoutePolicies::of(&document);
        let operations = operations(&document);
        let streams = operations.filter(|(path, method, _)| {
            rules.find(path, method) == RouteMatch::Route(RoutePolicy::Stream)
        });
        let streams: Vec<_> = streams.map(|(path, _, _)| path).collect();
        // Those that limits take for streams, see `access::limit::layer::Class`.
        assert_eq!(streams, ["/v1/feed", "/v1/runs/{run}/stream", "/v1/watch"]);
    }

    #[test]
    fn files_do_not_give_one_name_to_two_schemas() {
        let mut known: BTreeMap<String, Value> = BTreeMap::new();
        for file in router::files() {
            let components = file.into_openapi().components.unwrap_or_default();
            for (name, schema) in components.schemas {
                let schema = serde_json::to_value(schema).expect("JSON");
                let other = known.entry(name.clone()).or_insert_with(|| schema.clone());
                assert_eq!(*other, schema, "{name}: call one `#[schema(as = ...)]`");
            }
        }
    }

    #[test]
    fn ids_are_unique_and_references_lead_somewhere() {
        let document = document();
        let ids = operations(&document).map(|(_, _, operation)| &operation["operationId"]);
        let mut ids: Vec<_> = ids.map(ToString::to_string).collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "{ids:?}");
        let text = document.to_string();
        for rest in text.split("\"$ref\":\"#").skip(1) {
            let pointer = rest.split('"').next().expect("a reference");
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn bounds_are_told_as_they_are() {
        let document = document();
        let new_run = &document["components"]["schemas"]["NewRun"]["properties"];
        assert_eq!(new_run["variations"]["maximum"], MAX_VARIATIONS);
        assert_eq!(new_run["name"]["maxLength"], MAX_NAME_BYTES);
        let ingest = &document["paths"]["/v1/runs/{run}/events"]["post"]["parameters"];
        let ingest = ingest.as_array().expect("parameters");
        let variation = ingest.iter().find(|one| one["name"] == "variation");
        let variation = variation.expect("a variation");
        assert_eq!(variation["schema"]["maximum"], MAX_VARIATIONS - 1);
    }

    #[test]
    fn what_operations_share_is_said_of_each() {
        let document = document();
        let list = &document["paths"]["/v1/runs/{run}/publish"]["post"];
        assert_eq!(list["operationId"], "post_runs_run_publish");
        assert_eq!(list["tags"], json!(["runs"]));
        let scopes = ["runs:publish"];
        assert_eq!(
            list["security"],
            json!([{BEARER: scopes}, {SESSION: scopes}])
        );
        assert_eq!(list["parameters"][0]["name"], "run");
        for status in ["200", "401", "403", "404", "503"] {
            assert!(list["responses"][status].is_object(), "{status}");
        }
        let over = &document["paths"]["/v1/runs/{run}/control"]["post"]["responses"]["409"];
        assert_eq!(over["content"], problem_content());
    }
}
