//! Requests/s of a cheap route with a token, of the same route without, and of a route without
//! authentication.
//!
//! With a token each request makes two calls to Redis: for the cached token, and for the rate
//! limit. `/v1/session` makes no others.

use std::net::SocketAddr;

use runcast_tests::stack::{Service, Stack};

use crate::Scale;
use crate::clients::ask;
use crate::measure::{cpu, median, say, spread};

pub(crate) async fn requests(scale: Scale) {
    let stack = Stack::start().await;
    let token = stack.create_token("runs:read").await;
    let api = stack.api();
    let address = api.base().strip_prefix("http://").expect("a URL");
    let address: SocketAddr = address.parse().expect("a URL");
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let displayed = format!("authorization: Bearer {token}\r\n");
    let sides = [
        (
            "/v1/session with a token",
            request("/v1/session", &displayed),
            200,
        ),
        ("/v1/session without", request("/v1/session", ""), 401),
        (
            "/healthz, without authentication",
            request("/healthz", ""),
            200,
        ),
    ];
    let mut figures = vec![(Vec::new(), Vec::new(), Vec::new(), Vec::new()); sides.len()];
    for _ in 0..scale.rounds {
        for ((_, request, status), (rates, p50, p99, cost)) in sides.iter().zip(&mut figures) {
            let before = cpu(stack.process_id(Service::Gateway));
            let requested = ask(address, request, *status, scale.clients, scale.time).await;
            let used = cpu(stack.process_id(Service::Gateway)) - before;
            rates.push(requested.rate);
            p50.push(requested.times.quantile_ms(0.5));
            p99.push(requested.times.quantile_ms(0.99));
            cost.push(used.as_secs_f64() * 1e6 / requested.times.total() as f64);
        }
    }
    say(format_args!(
        "\nRequests: {} clients at once for {:?}, {} rounds in turn, median (least .. most)\n\n\
         | | requests/s | beside /healthz | p50 ms | p99 ms | CPU us/request |\n|---|---|---|---|---|---|",
        scale.clients, scale.time, scale.rounds,
    ));
    let open = median(&figures[2].0);
    for ((name, ..), (rates, p50, p99, cost)) in sides.iter().zip(&figures) {
        say(format_args!(
            "| {name} | {} | {:.2} | {:.1} | {:.1} | {:.1} |",
            spread(rates, 0),
            median(rates) / open,
            median(p50),
            median(p99),
            median(cost),
        ));
    }
}
