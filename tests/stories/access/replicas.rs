//! Two gateways of one installation: what is revoked at one, by any means, is gone at the other
//! within a second.

use std::time::Instant;

use reqwest::{Method, StatusCode};
use runcast_tests::api::Api;
use runcast_tests::eventually::eventually_within;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};

use super::fixtures::{
    AT_ONCE, Browser, ask, operator, second_gateway, sign_in, status_with, user,
};

/// A user known to both gateways, by session and by token.
struct Known {
    session: Browser,
    token: String,
    token_id: String,
}

async fn known(stack: &Stack, name: &str, at: [&Api; 2]) -> Known {
    user(stack, name, &["operator"]).await;
    let session = sign_in(at[0], name).await;
    let body = json!({"name": "script", "scopes": ["runs:read", "runs:publish"]});
    let created = session.send(Method::POST, "/v1/tokens", &body, 201).await;
    let text = |name: &str| created[name].as_str().expect("a text").to_owned();
    let known = Known {
        session,
        token: text("token"),
        token_id: text("id"),
    };
    for api in at {
        assert_eq!(known.may_read(api).await, [200, 200], "{name}");
    }
    known
}

impl Known {
    /// The statuses of reading with the session and with the token.
    async fn may_read(&self, api: &Api) -> [u16; 2] {
        let session = self.session.at(api).status(Method::GET, "/v1/runs").await;
        let token = status_with(api, &self.token, "/v1/runs").await;
        [session.as_u16(), token]
    }
}

/// Waits up to a second until reading returns these statuses at a gateway.
async fn soon(what: &str, known: &Known, api: &Api, expected: [u16; 2]) {
    let began = Instant::now();
    eventually_within(AT_ONCE, what, async || match known.may_read(api).await {
        seen if seen == expected => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    let took = began.elapsed();
    assert!(took < AT_ONCE, "{what}: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_at_one_gateway_applies_at_the_other() {
    let stack = Stack::start().await;
    let other = second_gateway(&stack, &[]).await;
    let (here, there) = (&stack.api(), &other.api);
    let change = async |method: Method, path: &str, body: &Value, status: u16| {
        ask(here, method, path, body, status).await
    };
    // Both at once: the gateway that changes something informs Redis before it responds.
    let one = known(&stack, "token", [here, there]).await;
    let path = format!("/v1/tokens/{}", one.token_id);
    change(Method::DELETE, &path, &Value::Null, 204).await;
    assert_eq!(one.may_read(there).await, [200, 401]);

    let one = known(&stack, "session", [here, there]).await;
    change(
        Method::DELETE,
        "/v1/users/session/sessions",
        &Value::Null,
        204,
    )
    .await;
    assert_eq!(one.may_read(there).await, [401, 200]);

    let one = known(&stack, "role", [here, there]).await;
    change(
        Method::DELETE,
        "/v1/users/role/roles/operator",
        &Value::Null,
        204,
    )
    .await;
    assert_eq!(one.may_read(there).await, [403, 403]);
    change(
        Method::PUT,
        "/v1/users/role/roles/viewer",
        &Value::Null,
        204,
    )
    .await;
    assert_eq!(one.may_read(there).await, [200, 200]);

    let one = known(&stack, "user", [here, there]).await;
    let disable = json!({"disabled": true});
    change(Method::PATCH, "/v1/users/user", &disable, 200).await;
    assert_eq!(one.may_read(there).await, [401, 401]);
}

/// The command line and `psql` change only Postgres, which notifies the gateways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_by_operator_applies_at_all_gateways() {
    let stack = Stack::start().await;
    let other = second_gateway(&stack, &[]).await;
    let both = [&stack.api(), &other.api];
    for (name, arguments, sql, expected) in [
        ("revoked", Some("token revoke"), "", [200, 401]),
        ("disabled", Some("user disable"), "", [401, 401]),
        (
            "psql-token",
            None,
            "UPDATE tokens SET revoked_at = now() WHERE user_id = (SELECT id FROM users WHERE name = 'psql-token')",
            [200, 401],
        ),
        (
            "psql-session",
            None,
            "DELETE FROM sessions WHERE user_id = (SELECT id FROM users WHERE name = 'psql-session')",
            [401, 200],
        ),
        (
            "psql-disabled",
            None,
            "UPDATE users SET disabled_at = now() WHERE name = 'psql-disabled'",
            [401, 401],
        ),
        (
            "psql-role",
            None,
            "DELETE FROM user_roles WHERE user_id = (SELECT id FROM users WHERE name = 'psql-role')",
            [403, 403],
        ),
        (
            "psql-gone",
            None,
            "DELETE FROM users WHERE name = 'psql-gone'",
            [401, 401],
        ),
    ] {
        let one = known(&stack, name, both).await;
        match arguments {
            Some(command) => {
                let (group, verb) = command.split_once(' ').expect("two words");
                let what = if group == "token" {
                    &one.token_id
                } else {
                    name
                };
                let (succeeded, output) = operator(&stack, &[group, verb, what]).await;
                assert!(succeeded, "{output}");
            }
            None => stack.database.execute(sql).await,
        }
        for api in both {
            soon(name, &one, api, expected).await;
        }
    }
}

/// A gateway is killed after it has committed to Postgres, and before it has informed Redis. The
/// others finish its work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidation_completes_after_gateway_crash() {
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_redis().await;
    let url = stack.redis.url(chaos.port());
    stack.set(Service::Gateway, "REDIS_URL", url);
    stack.start_all().await;
    let here = stack.api();
    let one = known(&stack, "ada", [&here, &here]).await;
    // Redis runs, but no longer answers this gateway: it can commit, but not invalidate.
    chaos.half_open();
    let path = format!("/v1/tokens/{}", one.token_id);
    let revoking = tokio::spawn({
        let (api, path) = (here.clone(), path.clone());
        // It may never respond.
        async move {
            api.request(Method::DELETE, &path)
                .send()
                .await
                .map(|response| response.status())
        }
    });
    let revoked = "SELECT count(*) FROM tokens WHERE revoked_at IS NOT NULL";
    stack.database.wait_for_number(revoked, 1).await;
    stack.kill(Service::Gateway);
    let response = revoking.await.expect("a task");
    assert!(
        !matches!(response, Ok(status) if status.is_server_error()),
        "{response:?}"
    );
    let waiting = "SELECT count(*) FROM access_changes";
    assert!(
        stack.database.query_number(waiting).await > 0,
        "Redis was not informed"
    );
    // The entry in Redis says valid until a gateway that starts has processed the outbox.
    let other = second_gateway(
        &stack,
        &[("REDIS_URL", &stack.redis.url(stack.redis.port()))],
    )
    .await;
    stack.database.wait_for_number(waiting, 0).await;
    assert_eq!(one.may_read(&other.api).await, [200, 401]);
    chaos.forward();
    stack.start_service(Service::Gateway).await;
    assert_eq!(one.may_read(&stack.api()).await, [200, 401]);
}

/// Revocation does not depend on Redis: a gateway that cannot reach it asks Postgres.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_revocation_applies_at_once() {
    let mut stack = Stack::start().await;
    let other = second_gateway(&stack, &[]).await;
    let (here, there) = (stack.api(), other.api.clone());
    let one = known(&stack, "ada", [&here, &there]).await;
    stack.redis.kill();
    for api in [&here, &there] {
        assert_eq!(one.may_read(api).await, [200, 200]);
    }
    let path = format!("/v1/tokens/{}", one.token_id);
    ask(&here, Method::DELETE, &path, &Value::Null, 204).await;
    assert_eq!(one.may_read(&there).await, [200, 401]);
    let role = "/v1/users/ada/roles/operator";
    ask(&here, Method::DELETE, role, &Value::Null, 204).await;
    assert_eq!(one.may_read(&there).await, [403, 401]);
    let end = "/v1/users/ada/sessions";
    ask(&there, Method::DELETE, end, &Value::Null, 204).await;
    assert_eq!(one.may_read(&here).await, [401, 401]);
    stack.redis.restart().await;
    assert_eq!(
        one.session.status(Method::GET, "/v1/session").await,
        StatusCode::UNAUTHORIZED
    );
}
