//! All routes, each with its documentation. A route that is registered otherwise has no policy, so
//! [authorization](crate::middleware::authorize) refuses every request to it.

use utoipa_axum::router::OpenApiRouter;

use super::openapi;
use super::{
    agents, assets, audit, control, deletion, events, feed, health, identities, ingest, jobs, oidc,
    publish, redactions, roles, runs, search, session, sessions, sign_in, stream, stream_tickets,
    text, tokens, users, watch, webhooks,
};
use crate::Gateway;

/// All routes, and the document that describes them.
pub(crate) fn documented_routes() -> OpenApiRouter<Gateway> {
    routers()
        .into_iter()
        .fold(openapi::complete::head(), OpenApiRouter::merge)
}

/// The routes of each file.
fn routers() -> Vec<OpenApiRouter<Gateway>> {
    vec![
        runs::router(),
        events::router(),
        text::handler::router(),
        search::router(),
        ingest::handler::router(),
        publish::append::router(),
        control::router(),
        deletion::router(),
        redactions::router(),
        agents::router(),
        jobs::router(),
        webhooks::router(),
        stream::router(),
        watch::router(),
        feed::router(),
        session::router(),
        sign_in::router(),
        oidc::router(),
        sessions::router(),
        stream_tickets::router(),
        tokens::router(),
        users::router(),
        identities::router(),
        roles::router(),
        audit::router(),
        health::router(),
        openapi::handler::router(),
        assets::router(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::http::Method;
    use runcast_common::protocol::limits::{MAX_NAME_BYTES, MAX_VARIATIONS};
    use serde_json::{Value, json};

    use super::openapi::complete::{SESSION_SCHEME, complete, problem_content};
    use super::*;
    use crate::middleware::rate_class::RateClass;
    use crate::middleware::route_policy::{
        BEARER_SCHEME, RouteAccess, RouteMatch, RoutePolicies, RoutePolicy, operations,
        remove_rate_classes,
    };

    fn document() -> Value {
        let document = documented_routes().into_openapi();
        let mut document = serde_json::to_value(document).expect("JSON");
        complete(&mut document);
        document
    }

    fn policies(document: &Value) -> Vec<(&str, Method, RoutePolicy)> {
        let policies = RoutePolicies::of(document);
        let policy = |path, method| match policies.find(path, &method) {
            RouteMatch::Route(policy) => (path, method, policy),
            other => panic!("{method} {path}: {other:?}"),
        };
        let operations = operations(document);
        operations
            .map(|(path, method, _)| policy(path, method))
            .collect()
    }

    #[test]
    fn every_route_has_a_policy() {
        let document = document();
        let policies = policies(&document);
        for (path, method, policy) in &policies {
            assert_ne!(
                policy.access,
                RouteAccess::Missing,
                "{method} {path} needs `security` and `x-rate-class`, see middleware/route_policy.rs"
            );
        }
        let count = policies.len();
        assert!(count > 20, "{count} operations");
    }

    #[test]
    fn tickets_open_streams_and_nothing_else() {
        let document = document();
        let mut streams = Vec::new();
        for (path, method, policy) in policies(&document) {
            let accepts_tickets = policy.access == RouteAccess::Stream;
            let is_stream = policy.rate_class == RateClass::Stream;
            assert_eq!(accepts_tickets, is_stream, "{method} {path}");
            if is_stream {
                streams.push(path);
            }
        }
        assert_eq!(streams, ["/v1/feed", "/v1/runs/{run}/stream", "/v1/watch"]);
    }

    #[test]
    fn each_route_has_the_class_of_its_work() {
        for (path, method, policy) in policies(&document()) {
            let expected = match (method.as_str(), path) {
                ("GET", "/" | "/assets/{file}" | "/healthz" | "/readyz") => RateClass::Uncounted,
                ("GET", "/v1/watch" | "/v1/feed" | "/v1/runs/{run}/stream") => RateClass::Stream,
                ("GET", "/v1/runs/{run}/text") => RateClass::Text,
                ("GET", "/v1/runs/{run}/search") => RateClass::Search,
                ("POST" | "PUT", "/v1/runs/{run}/events") => RateClass::Ingest,
                ("POST", "/v1/runs/{run}/append" | "/v1/runs/{run}/heartbeats")
                | ("GET", "/v1/runs/{run}/notices")
                | ("DELETE", "/v1/runs/{run}/commands/{entry}") => RateClass::Publish,
                ("POST", "/v1/session") | ("GET", "/v1/session/oidc") => RateClass::SignIn,
                ("GET", _) => RateClass::Read,
                _ => RateClass::Write,
            };
            assert_eq!(policy.rate_class, expected, "{method} {path}");
        }
    }

    #[test]
    fn rate_classes_are_not_served() {
        let mut document = document();
        let count = operations(&document).count();
        let text = document.to_string();
        assert_eq!(text.matches("x-rate-class").count(), count);
        remove_rate_classes(&mut document);
        assert!(!document.to_string().contains("x-rate-class"));
    }

    #[test]
    fn files_do_not_give_one_name_to_two_schemas() {
        let mut known: BTreeMap<String, Value> = BTreeMap::new();
        for file in routers() {
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
    fn documented_bounds_are_the_enforced_ones() {
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
    fn what_operations_share_is_added_to_each() {
        let document = document();
        let publish = &document["paths"]["/v1/runs/{run}/publish"]["post"];
        assert_eq!(publish["operationId"], "post_runs_run_publish");
        assert_eq!(publish["tags"], json!(["runs"]));
        let scopes = ["runs:publish"];
        assert_eq!(
            publish["security"],
            json!([{BEARER_SCHEME: scopes}, {SESSION_SCHEME: scopes}])
        );
        assert_eq!(publish["parameters"][0]["name"], "run");
        for status in ["200", "401", "403", "404", "503"] {
            assert!(publish["responses"][status].is_object(), "{status}");
        }
        let ended = &document["paths"]["/v1/runs/{run}/control"]["post"]["responses"]["409"];
        assert_eq!(ended["content"], problem_content());
    }
}
