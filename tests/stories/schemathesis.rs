//! Schemathesis reads the OpenAPI document and sends the gateway everything that it allows, and
//! much that it does not. No request may cause a server error, and each response must match the
//! document in status, headers, content type and schema.
//!
//! The seed is fixed, with [`DEFAULT_EXAMPLES`] per operation and phase; `RUNCAST_SCHEMATHESIS=N`
//! sets more. Schemathesis gets ids of real objects, so that not every request ends with 404, and
//! creates others itself. Endless responses are excluded by name below.

use std::fs;
use std::time::Duration;

use reqwest::Method;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::process::ProcessSpec;
use runcast_tests::programs;
use runcast_tests::publisher::Publisher;
use runcast_tests::redis_server;
use runcast_tests::stack::{Service, Stack};
use serde_json::json;
use uuid::Uuid;

use crate::access::fixtures::ask;
use crate::access_matrix::path_parameters::PathParameters;

/// Default number of examples per operation.
const DEFAULT_EXAMPLES: u32 = 8;

/// How often it uses the known ids.
const KNOWN_ID_SHARE: f64 = 0.8;

/// Longest time for each example.
const EXAMPLE_DEADLINE: Duration = Duration::from_secs(60);

/// The checks of each response.
const RESPONSE_CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,ignored_auth,unsupported_method,\
    allow_header_conformance,missing_required_header,use_after_free";

/// Streams of live runs end with the run. Their error responses are those of `/text` and `/events`.
const ENDLESS_PATHS: [&str; 4] = [
    "/v1/feed",
    "/v1/watch",
    "/v1/runs/{run}/stream",
    "/v1/runs/{run}/notices",
];

/// It would find its own token in the list of tokens and revoke it. It takes the answers 410, and
/// 200 to a repeated deletion, for a use of what it has deleted.
const EXCLUDED_OPERATIONS: [&str; 2] = ["DELETE /v1/tokens/{token}", "DELETE /v1/runs/{run}"];

/// Its settings: ids for most paths, an ended run beside a live one, and bounds on time.
fn settings(path_parameters: &PathParameters, over: Uuid) -> String {
    let (mut dictionaries, mut parameters) = (String::new(), String::new());
    for (name, thing) in path_parameters.things() {
        let values = match name {
            "run" => format!(r#""{thing}", "{over}""#),
            "job" => thing,
            _ => format!(r#""{thing}""#),
        };
        dictionaries += &format!("[dictionaries.{name}]\nvalues = [{values}]\n");
        parameters += &format!(
            "\"path.{name}\" = {{ dictionary = \"{name}\", probability = {KNOWN_ID_SHARE} }}\n"
        );
    }
    format!(
        r#"
{dictionaries}
# Up to fifty seconds are allowed.
[dictionaries.wait]
values = [0, 1, 51]

[parameters]
{parameters}
"query.wait" = {{ dictionary = "wait" }}

# The text of a run that lives does not end.
[[operations]]
include-path = "/v1/runs/{{run}}/text"
parameters = {{ "query.follow" = "false" }}
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_requests_never_cause_server_errors() {
    let mut stack = Stack::without_services().await;
    // Without a worker, no request is sent to the webhooks that it invents.
    stack.start_service(Service::Persister).await;
    stack.start_service(Service::Gateway).await;
    let api = stack.api();
    let path_parameters = PathParameters::prepare(&stack).await;
    let publish = format!("/v1/runs/{}/publish", path_parameters.run());
    let publish = ask(&api, Method::POST, &publish, &json!({}), 200).await;
    let redis = publish["redis"]["url"].as_str().expect("a URL");
    let connection = redis_server::connect(redis).await;
    Publisher::new(connection, stack.keys(), path_parameters.run())
        .publish(&numbered_lines("line", 1..=20))
        .await;
    let over = api.create_run("over").await;
    let mut wrap = stack.wrap(over.id, &["echo", "all there is"]);
    assert!(wrap.wait_exit(EXAMPLE_DEADLINE).await.success());

    // It finds its own token in the list of tokens; after revoking it, it would get only 401.
    let keep =
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";
    stack.database.execute(keep).await;
    let keep = format!(
        "CREATE TRIGGER keep BEFORE UPDATE OF revoked_at ON tokens FOR EACH ROW
         WHEN (OLD.hash = sha256('{}')) EXECUTE FUNCTION keep()",
        stack.token()
    );
    stack.database.execute(&keep).await;

    let config = stack.folder().join("schemathesis.toml");
    fs::write(&config, settings(&path_parameters, over.id)).expect("a file of settings");
    let examples = std::env::var("RUNCAST_SCHEMATHESIS").ok();
    let examples = examples.map_or(DEFAULT_EXAMPLES, |text| {
        text.parse().expect("a number of examples")
    });
    let (address, header) = (
        format!("{}/openapi.json", api.base()),
        format!("Authorization: Bearer {}", stack.token()),
    );
    let (config, number) = (config.display().to_string(), examples.to_string());
    let mut arguments = vec![
        "--config-file",
        &config,
        "run",
        &address,
        "--header",
        &header,
        "--checks",
        RESPONSE_CHECKS,
        "--seed",
        "1",
        "--max-examples",
        &number,
        "--generation-database",
        "none",
        "--request-timeout",
        "10",
        "--continue-on-failure",
    ];
    for path in ENDLESS_PATHS {
        arguments.extend(["--exclude-path", path]);
    }
    for operation in EXCLUDED_OPERATIONS {
        arguments.extend(["--exclude-name", operation]);
    }
    let program = programs::python_program("schemathesis4", "schemathesis");
    let spec = ProcessSpec::new("schemathesis", program, &arguments, stack.folder());
    let mut asking = spec.start(stack.folder());
    let status = asking.wait_exit(EXAMPLE_DEADLINE * examples).await;
    assert!(status.success(), "{}", asking.logs());
    // It has not locked itself out.
    api.get("/v1/session").await;
}
