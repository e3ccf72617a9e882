//! Completes the document that the handlers write, once for all operations.
//!
//! Each handler documents what is its own. What follows from that is added here: the parameters in
//! its path, the problems that it shares with others, that a session is worth as much as a token,
//! its tag and its id.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::Gateway;
use crate::extract::credential::TICKET_PARAMETER;
use crate::middleware::route_policy::{BEARER_SCHEME, TICKET_SCHEME, method};
use crate::problem;
use runcast_access::session::cookie;

/// The security scheme of session cookies.
pub(crate) const SESSION_SCHEME: &str = "session";

/// The head of the document, and the schemas that no handler names.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Runcast",
        description = "Streams what runs print to any number of viewers, and stores it durably."
    ),
    servers((url = "/")),
    components(schemas(problem::ProblemDocument<'_>))
)]
struct Head;

/// The document without operations.
pub(crate) fn head() -> OpenApiRouter<Gateway> {
    OpenApiRouter::with_openapi(Head::openapi())
}

/// Adds to a document what follows from what its operations document.
pub(crate) fn complete(document: &mut Value) {
    document["components"]["securitySchemes"] = json!({
        BEARER_SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "A token. The name beside an operation is the scope that it requires; \
                `admin` includes all others. A token that is bound to a run is valid for that run only.",
        },
        SESSION_SCHEME: {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie::PLAIN_NAME,
            "description": "The cookie that a browser gets by signing in. Its name begins with `__Host-` where \
                the server is reached by https. Changes with it must come from the server's own page.",
        },
        TICKET_SCHEME: {
            "type": "apiKey",
            "in": "query",
            "name": TICKET_PARAMETER,
            "description": "A ticket of `POST /v1/stream-tickets`, for an `EventSource` that can send neither \
                a header nor a cookie. It opens one stream, once.",
        },
    });
    document["components"]["responses"] = SHARED_PROBLEMS
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
const SHARED_PROBLEMS: [(StatusCode, &str); 9] = [
    (StatusCode::BAD_REQUEST, "The request is malformed"),
    (StatusCode::UNAUTHORIZED, "There is no valid credential"),
    (
        StatusCode::FORBIDDEN,
        "The credential is valid, but does not allow this",
    ),
    (StatusCode::NOT_FOUND, "The resource does not exist"),
    (StatusCode::GONE, "The run was deleted"),
    (
        StatusCode::REQUEST_TIMEOUT,
        "The body took too long to arrive",
    ),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "A limit is reached: `Retry-After` says when to retry",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "A server that is needed does not answer: retry",
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

pub(crate) fn problem_content() -> Value {
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
    let needs_credential = add_session(operation);
    add_problems(tag, path, needs_credential, operation);
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

/// An optional parameter may be absent, but not `null`, which no header or query can express.
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

/// Accepts a session where a token is accepted. Returns whether a credential is required.
fn add_session(operation: &mut Map<String, Value>) -> bool {
    let Some(alternatives) = operation.get_mut("security").and_then(Value::as_array_mut) else {
        return false;
    };
    let by_token = alternatives.iter().filter_map(|one| one.get(BEARER_SCHEME));
    let by_session: Vec<Value> = by_token
        .map(|scopes| json!({SESSION_SCHEME: scopes}))
        .collect();
    let needs_credential = !by_session.is_empty();
    alternatives.extend(by_session);
    needs_credential
}

/// Adds the problems that an operation shares with others, and marks its own as problem documents.
fn add_problems(tag: &str, path: &str, needs_credential: bool, operation: &mut Map<String, Value>) {
    let has_body = operation.contains_key("requestBody");
    let parameters = operation.get("parameters").and_then(Value::as_array);
    let mut parameters = parameters.into_iter().flatten();
    let has_input = has_body || parameters.any(|one| one["in"] != "path");
    let has_run = path.contains("{run}");
    let needs_servers = tag != "service";
    let applies = [
        (StatusCode::BAD_REQUEST, has_input),
        (StatusCode::UNAUTHORIZED, needs_credential),
        (StatusCode::FORBIDDEN, needs_credential),
        (StatusCode::NOT_FOUND, path.contains('{')),
        (StatusCode::GONE, has_run),
        (StatusCode::REQUEST_TIMEOUT, has_body),
        (StatusCode::PAYLOAD_TOO_LARGE, has_body),
        (StatusCode::TOO_MANY_REQUESTS, needs_servers),
        (StatusCode::SERVICE_UNAVAILABLE, needs_servers),
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
