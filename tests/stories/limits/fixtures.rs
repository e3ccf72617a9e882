//! Shared by the stories of limits: a gateway with low limits, clients, and metrics.

use reqwest::{Method, RequestBuilder, Response};
use runcast_tests::api::{Api, send};
use runcast_tests::programs::free_port;
use runcast_tests::stack::{Service, Stack};

/// A stack whose gateway has these limits, trusts proxies on this machine, and exposes its metrics.
pub(super) async fn limited(limits: &str) -> Stack {
    let mut stack = Stack::without_services().await;
    set(&mut stack, limits);
    stack.start_all().await;
    stack
}

pub(super) fn set(stack: &mut Stack, limits: &str) {
    stack.set(Service::Gateway, "RUNCAST_LIMITS", limits);
    stack.set(Service::Gateway, "RUNCAST_TRUSTED_PROXIES", "127.0.0.0/8");
    let metrics = format!("127.0.0.1:{}", free_port());
    stack.set(Service::Gateway, "RUNCAST_METRICS_LISTEN", metrics);
}

/// A client that is no admin.
pub(super) async fn non_admin(stack: &Stack, scope: &str) -> Api {
    Api::new(stack.api().base(), &stack.create_token(scope).await)
}

/// A request as a proxy forwards it for this address.
pub(super) fn from(request: RequestBuilder, address: &str) -> RequestBuilder {
    request.header("x-forwarded-for", address)
}

pub(super) async fn list(api: &Api) -> Response {
    send(api.request(Method::GET, "/v1/runs?limit=1")).await
}

/// A header of a response.
pub(super) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    let value = value.unwrap_or_else(|| panic!("no {name} in {:?}", response.headers()));
    value.to_str().expect("a header in ASCII")
}

/// The value of a metric of the gateway; 0 if it does not exist yet.
pub(super) async fn metric(stack: &Stack, name: &str) -> u64 {
    let own = stack.service_spec(Service::Gateway).environment;
    let listens = own
        .iter()
        .rfind(|(name, _)| name == "RUNCAST_METRICS_LISTEN");
    let (_, address) = listens.expect("the gateway exposes its metrics");
    let metrics = Api::new(&format!("http://{address}"), "");
    let answer = send(metrics.anonymous(Method::GET, "/metrics")).await;
    let text = answer.text().await.expect("metrics");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a number"))
}
