//! Shared by the stories of access: users, browsers that sign in, a second gateway, and requests.

use std::time::Duration;

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use runcast_tests::api::{Api, send};
use runcast_tests::eventually::{WAIT_DEADLINE, within};
use runcast_tests::process::Process;
use runcast_tests::programs;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};

/// The password of all users.
pub(crate) const USER_PASSWORD: &str = "correct horse battery";

/// Longest time for one gateway to learn what another has changed.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

/// Runs `runcastd` with these arguments and [`USER_PASSWORD`] on stdin; returns whether it
/// succeeded, and its output.
pub(crate) async fn operator(stack: &Stack, arguments: &[&str]) -> (bool, String) {
    let mut spec = stack.operator_spec(arguments);
    let program = programs::runcastd().display().to_string();
    let shell = [
        "-c".to_owned(),
        format!("printf '%s\\n' '{USER_PASSWORD}' | \"$0\" \"$@\""),
        program,
    ];
    spec.program = "sh".into();
    spec.arguments = shell.into_iter().chain(spec.arguments).collect();
    let mut process = spec.start(stack.folder());
    let status = process.wait_exit(WAIT_DEADLINE).await;
    let output = [process.stdout(), process.stderr()].concat();
    let output = String::from_utf8(output).expect("text");
    (status.success(), output.trim().to_owned())
}

/// Creates a user with these roles; returns the user's id.
pub(crate) async fn user(stack: &Stack, name: &str, roles: &[&str]) -> String {
    let email = format!("{name}@example.com");
    let mut arguments = vec![
        "user",
        "create",
        name,
        "--email",
        &email,
        "--password-stdin",
    ];
    for role in roles {
        arguments.extend(["--role", role]);
    }
    let (succeeded, output) = operator(stack, &arguments).await;
    assert!(succeeded, "{output}");
    output
}

/// Another gateway of the same installation.
pub(crate) struct SecondGateway {
    _process: Process,
    /// Its URL.
    pub(crate) api: Api,
}

/// Starts another gateway with these settings.
pub(crate) async fn second_gateway(stack: &Stack, settings: &[(&str, &str)]) -> SecondGateway {
    let mut spec = stack.service_spec(Service::Gateway);
    "second-gateway".clone_into(&mut spec.name);
    // Its public URL may differ.
    let address = programs::loopback(programs::free_port()).to_string();
    let spec = spec.with_env([("RUNCAST_LISTEN", &address)]);
    let spec = spec.with_env(settings.iter().copied());
    let mut process = spec.start(stack.folder());
    process
        .wait_for_line("Runcast is ready at ", WAIT_DEADLINE)
        .await;
    let api = Api::new(&format!("http://{address}"), stack.token());
    SecondGateway {
        _process: process,
        api,
    }
}

/// The state of a browser that has signed in.
#[derive(Debug, Clone)]
pub(crate) struct Browser {
    api: Api,
    /// Name and value.
    pub(crate) cookie: String,
    /// The whole header that set it.
    pub(crate) set: String,
}

/// Sends a sign-in request.
pub(crate) async fn try_sign_in(api: &Api, body: &Value) -> Response {
    let request = api.anonymous(Method::POST, "/v1/session");
    send(request.json(body)).await
}

/// Signs in by name and [`USER_PASSWORD`].
pub(crate) async fn sign_in(api: &Api, name: &str) -> Browser {
    sign_in_with(api, &json!({"user": name, "password": USER_PASSWORD})).await
}

/// Signs in with this body.
pub(crate) async fn sign_in_with(api: &Api, body: &Value) -> Browser {
    let response = try_sign_in(api, body).await;
    let status = response.status();
    let set = response.headers().get(SET_COOKIE).cloned();
    let text = response.text().await.expect("a body");
    assert_eq!(status, StatusCode::OK, "{text}");
    let set = set.expect("a cookie").to_str().expect("text").to_owned();
    let cookie = set.split(';').next().expect("a pair").to_owned();
    Browser {
        api: api.clone(),
        cookie,
        set,
    }
}

impl Browser {
    /// The same cookie at another gateway.
    pub(crate) fn at(&self, api: &Api) -> Self {
        Self {
            api: api.clone(),
            ..self.clone()
        }
    }

    /// A request with the cookie, from the page itself.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.api.anonymous(method, path);
        request
            .header(COOKIE, &self.cookie)
            .header("sec-fetch-site", "same-origin")
    }

    /// The status of a response.
    pub(crate) async fn status(&self, method: Method, path: &str) -> StatusCode {
        send(self.request(method, path)).await.status()
    }

    /// The JSON at this path.
    pub(crate) async fn get(&self, path: &str) -> Value {
        json_of(send(self.request(Method::GET, path)).await, StatusCode::OK).await
    }

    /// Sends JSON and expects this status.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        status: u16,
    ) -> Value {
        let response = send(self.request(method, path).json(body)).await;
        json_of(response, StatusCode::from_u16(status).expect("a status")).await
    }
}

/// The JSON of a response with this status; null if it has no body.
pub(crate) async fn json_of(response: Response, status: StatusCode) -> Value {
    let (seen, text) = (response.status(), response.text().await.expect("a body"));
    assert_eq!(seen, status, "{text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// Sends JSON with a token and expects this status.
pub(crate) async fn ask(api: &Api, method: Method, path: &str, body: &Value, status: u16) -> Value {
    let response = send(api.request(method, path).json(body)).await;
    json_of(response, StatusCode::from_u16(status).expect("a status")).await
}

/// Creates a token; returns its id and its secret.
pub(crate) async fn new_token(api: &Api, body: Value) -> (String, String) {
    let created = ask(api, Method::POST, "/v1/tokens", &body, 201).await;
    let text = |name: &str| created[name].as_str().expect("a text").to_owned();
    (text("id"), text("token"))
}

/// Revokes the token with this id.
pub(crate) async fn revoke(api: &Api, id: &str) {
    let path = format!("/v1/tokens/{id}");
    ask(api, Method::DELETE, &path, &Value::Null, 204).await;
}

/// Changes an operator into a viewer.
pub(crate) async fn make_viewer(api: &Api, name: &str) {
    for (method, role) in [(Method::DELETE, "operator"), (Method::PUT, "viewer")] {
        let path = format!("/v1/users/{name}/roles/{role}");
        ask(api, method, &path, &Value::Null, 204).await;
    }
}

/// The status of a request with this token.
pub(crate) async fn status_with(api: &Api, token: &str, path: &str) -> u16 {
    let request = api.anonymous(Method::GET, path).bearer_auth(token);
    send(request).await.status().as_u16()
}

/// The first frame of a stream of several runs, whose ids are not event ids.
pub(crate) async fn first_frame(mut response: Response) -> String {
    assert_eq!(response.status(), StatusCode::OK);
    let mut text = String::new();
    while !text.contains("\n\n") {
        let chunk = within(WAIT_DEADLINE, "a frame", response.chunk()).await;
        let chunk = chunk.expect("a stream").expect("more of the stream");
        text += std::str::from_utf8(&chunk).expect("text");
    }
    text
}
