//! Redis users of agents: the time to create one, the memory of many, and what many cost the
//! appends of one.

use runcast_common::config::RedisUrl;
use runcast_common::connect::Redis;
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::keys::Keys;
use runcast_common::run_users::{RunUser, RunUsers};
use runcast_common::scripts::{Append, AppendAs, Cap};
use runcast_tests::redis_server::{RedisServer, connect};
use uuid::Uuid;

use super::measure::{self, quantile, say};
use super::{Scale, timed};

const PREFIX: &str = "bench:";

/// Bytes that Redis has allocated.
async fn used_bytes(services: &Redis) -> f64 {
    let mut info = redis::cmd("INFO");
    let info: String = services
        .query(Keys::slot(0), info.arg("memory"))
        .await
        .expect("its memory");
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|used| used.trim().parse().ok())
        .expect("a number")
}

/// The time of each append to a run, by its user.
async fn appends(server: &RedisServer, keys: &Keys, calls: usize) -> Vec<f64> {
    let run = Uuid::now_v7();
    let mut connection = connect(&server.run_user(keys, run).await).await;
    let run_keys = keys.run(run);
    let body = measure::line(Kind::Output, "now\n");
    let mut first = 0;
    timed(calls, async || {
        first += 1;
        let append = Append {
            producer: run,
            producer_epoch: 1,
            base: 0,
            acked: 0,
            first,
            count: 1,
            body: Body::Plain(&body),
            cap: Cap::default(),
        };
        let appended = append.call(&run_keys, AppendAs::RunUser, &mut connection);
        appended.await.expect("an answer");
    })
    .await
}

/// Creates one user after the other.
pub(crate) async fn redis_users(scale: Scale) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path()).await;
    let keys = Keys::new(PREFIX);
    let url: RedisUrl = server.url(server.port()).parse().expect("a URL");
    let services = Redis::new(&url).expect("a client");
    let users = RunUsers::new(services.clone(), keys.clone());
    let alone = appends(&server, &keys, scale.calls).await;
    let before = used_bytes(&services).await;
    let mut number = 0_u64;
    let created = timed(scale.redis_users, async || {
        number += 1;
        let user = RunUser {
            run: Uuid::now_v7(),
            token: number.to_be_bytes(),
        };
        users.create(&user, &[1; 32]).await.expect("a user");
    })
    .await;
    let bytes = (used_bytes(&services).await - before) / created.len() as f64;
    let beside = appends(&server, &keys, scale.calls).await;
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&created, share));
    say(format_args!(
        "redis-users: {} users, each created in us p50 {p50:.0}, p99 {p99:.0}; {bytes:.0} bytes of Redis each",
        created.len()
    ));
    let [alone, beside] = [&alone, &beside].map(|times| quantile(times, 0.5));
    say(format_args!(
        "an append by a user in us, p50: {alone:.0} alone, {beside:.0} beside them"
    ));
}
