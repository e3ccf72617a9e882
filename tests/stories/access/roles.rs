//! Roles: what each permits, on which runs. A changed role applies to all its users.

use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, send};
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, within};
use runcast_tests::sse::Sse;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};

use super::fixtures::{Browser, ask, first_frame, second_gateway, sign_in, user};
use crate::fanout::publisher;

async fn statuses(browser: &Browser, run: uuid::Uuid) -> [u16; 4] {
    let requested = [
        (Method::GET, format!("/v1/runs/{run}"), Value::Null),
        (Method::POST, "/v1/runs".to_owned(), json!({"name": "new"})),
        (
            Method::POST,
            format!("/v1/runs/{run}/control"),
            json!({"command": "pause"}),
        ),
        (Method::GET, "/v1/users".to_owned(), Value::Null),
    ];
    let mut statuses = [0; 4];
    for (status, (method, path, body)) in statuses.iter_mut().zip(requested) {
        let response = send(browser.request(method, &path).json(&body)).await;
        *status = response.status().as_u16();
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_grants_its_permissions() {
    let stack = Stack::start().await;
    let api = stack.api();
    let run = api.create_run("for all").await.id;
    for (name, roles, expected) in [
        ("nobody", &[][..], [403, 403, 403, 403]),
        ("viewer", &["viewer"][..], [200, 403, 403, 403]),
        ("operator", &["operator"][..], [200, 201, 202, 403]),
        ("admin", &["admin"][..], [200, 201, 202, 200]),
    ] {
        user(&stack, name, roles).await;
        let browser = sign_in(&api, name).await;
        assert_eq!(statuses(&browser, run).await, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_role_applies_to_all_its_users() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    let run = api.create_run("any").await.id;
    user(&stack, "ada", &[]).await;
    let ada = sign_in(&api, "ada").await;
    let there = ada.at(&other.api);
    let role = json!({"name": "starter", "permissions": ["runs:read"]});
    ask(&api, Method::POST, "/v1/roles", &role, 201).await;
    ask(&api, Method::POST, "/v1/roles", &role, 409).await;
    assert_eq!(statuses(&there, run).await, [403, 403, 403, 403]);
    ask(
        &api,
        Method::PUT,
        "/v1/users/ada/roles/starter",
        &Value::Null,
        204,
    )
    .await;
    assert_eq!(statuses(&there, run).await, [200, 403, 403, 403]);
    let more = json!({"permissions": ["runs:read", "runs:publish"]});
    ask(&api, Method::PATCH, "/v1/roles/starter", &more, 200).await;
    assert_eq!(statuses(&there, run).await, [200, 201, 403, 403]);
    // A change by psql.
    let control = "INSERT INTO role_permissions VALUES ('starter', 'runs:control')";
    stack.database.execute(control).await;
    let waiting = "SELECT count(*) FROM access_changes";
    stack.database.wait_for_number(waiting, 0).await;
    assert_eq!(statuses(&there, run).await, [200, 201, 202, 403]);
    ask(
        &other.api,
        Method::DELETE,
        "/v1/roles/starter",
        &Value::Null,
        204,
    )
    .await;
    assert_eq!(statuses(&ada, run).await, [403, 403, 403, 403]);
    // Built-in roles cannot be changed.
    ask(&api, Method::PATCH, "/v1/roles/viewer", &more, 409).await;
    ask(&api, Method::DELETE, "/v1/roles/admin", &Value::Null, 409).await;
    for wrong in [
        json!({"name": "Big", "permissions": []}),
        json!({"name": "x", "permissions": ["runs:fly"]}),
    ] {
        ask(&api, Method::POST, "/v1/roles", &wrong, 400).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_role_shows_only_its_runs() {
    let stack = Stack::start().await;
    let api = stack.api();
    let labelled = |team: &str| json!({"name": team, "labels": {"team": team}});
    let search = api.create(&labelled("search")).await;
    let ads = api.create(&labelled("ads")).await;
    let role = json!({
        "name": "search", "permissions": ["runs:read", "runs:publish", "runs:control"],
        "labels": {"team": "search"},
    });
    ask(&api, Method::POST, "/v1/roles", &role, 201).await;
    user(&stack, "ada", &["search"]).await;
    let ada = sign_in(&api, "ada").await;
    let list = ada.get("/v1/runs").await;
    assert_eq!(list["runs"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["runs"][0]["id"], json!(search.id));
    let agents = ada.get("/v1/agents").await;
    assert_eq!(agents["agents"], json!([]));
    for (run, expected) in [(search.id, [200, 202]), (ads.id, [403, 403])] {
        let seen = statuses(&ada, run).await;
        assert_eq!([seen[0], seen[2]], expected);
        for rest in ["/events", "/text", "/search?q=x", "/agents"] {
            let path = format!("/v1/runs/{run}{rest}");
            let status = ada.status(Method::GET, &path).await.as_u16();
            assert_eq!(status, expected[0], "{path}");
        }
    }
    let both = format!("/v1/watch?run={}&run={}", search.id, ads.id);
    assert_eq!(ada.status(Method::GET, &both).await, 403);
    // She starts runs of her team, and of no other.
    let path = "/v1/runs";
    ada.send(Method::POST, path, &labelled("search"), 201).await;
    ada.send(Method::POST, path, &labelled("ads"), 403).await;
    ada.send(Method::POST, path, &json!({"name": "none"}), 403)
        .await;
    // The role is widened, then narrowed to another team.
    let all = json!({"labels": null});
    ask(&api, Method::PATCH, "/v1/roles/search", &all, 200).await;
    assert_eq!(statuses(&ada, ads.id).await[0], 200);
    let other = json!({"labels": {"team": "ads"}});
    ask(&api, Method::PATCH, "/v1/roles/search", &other, 200).await;
    assert_eq!(statuses(&ada, search.id).await[0], 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multi_run_streams_contain_only_visible_runs() {
    let stack = Stack::start().await;
    let api = stack.api();
    let role =
        json!({"name": "search", "permissions": ["runs:read"], "labels": {"team": "search"}});
    ask(&api, Method::POST, "/v1/roles", &role, 201).await;
    user(&stack, "ada", &["search"]).await;
    let ada = sign_in(&api, "ada").await;
    let stream = async |path: &str| {
        let request = ada.request(Method::GET, path);
        let response = send(request.header("accept", "text/event-stream")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response
    };
    let feed = stream("/v1/feed").await;
    let mut feed = Sse::from_response(feed).await.with_heartbeats();
    feed.read_until("ready").await;
    create(&api, "ads").await;
    let mine = create(&api, "search").await;
    let received = state(&mut feed).await;
    assert_eq!(
        received["run"],
        json!(mine),
        "the first that the stream contains"
    );
    // The same with a watch by a label that runs of both teams have.
    let both = |team: &str| json!({"labels": {"team": team, "app": "both"}});
    let (other, own) = (
        api.create(&both("ads")).await,
        api.create(&both("search")).await,
    );
    assert_eq!(state(&mut feed).await["run"], json!(own.id));
    let mut watch = stream("/v1/watch?label=app=both").await;
    for run in [&other, &own] {
        let mut publisher = publisher(&stack, run).await;
        let last = publisher.publish(&numbered_lines("line", 1..=3)).await;
        stack.database.wait_stored(run.id, last).await;
    }
    let (mut text, target) = (String::new(), own.id.to_string());
    within(WAIT_DEADLINE, "only visible runs", async {
        while !text.contains("line 3") {
            let bytes = watch.chunk().await.expect("read").expect("more");
            text += std::str::from_utf8(&bytes).expect("text");
        }
    })
    .await;
    assert!(text.contains(&target), "{text}");
    assert!(!text.contains(&other.id.to_string()), "{text}");
    let nothing = ada.request(Method::GET, "/v1/watch?label=team=ads");
    let nothing = send(nothing.header("accept", "text/event-stream")).await;
    let ready = first_frame(nothing).await;
    assert!(
        ready.contains("event: ready"),
        "there is nothing to watch: {ready}"
    );
    assert_eq!(statuses(&ada, other.id).await[0], 403);
}

/// The next update of a run.
async fn state(feed: &mut Sse) -> Value {
    let frames = feed.read_until("state").await;
    frames.last().expect("a frame").json()
}

async fn create(api: &Api, team: &str) -> uuid::Uuid {
    api.create(&json!({"labels": {"team": team}})).await.id
}
