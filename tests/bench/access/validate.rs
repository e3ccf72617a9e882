//! Authentication and rights: from Redis compared with Postgres, alone and as part of whole
//! requests.
//!
//! The cache lookups are those of the gateway; the queries are its own, prepared, on an otherwise
//! idle connection. The whole requests include the rest of the gateway's work.

use std::time::Instant;

use futures::StreamExt as _;
use reqwest::Method;
use runcast_common::cache::{CacheEntry, LeaseCache};
use runcast_common::connect::Redis;
use runcast_tests::api::{Api, send};
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::Process;
use runcast_tests::stack::{Service, Stack};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::measure::{median, say, spread};
use crate::{Scale, columns, timed, users};

/// Concurrent lookups, and connections to Postgres for them.
const AT_ONCE: usize = 64;
const POOL_CONNECTIONS: u32 = 16;

const SESSION_QUERY: &str =
    "SELECT s.id, s.user_id, (SELECT encode(t.hash, 'hex') FROM tokens t WHERE t.id = s.token_id) AS token,
            s.client, s.data, s.expires_at, s.last_seen_at,
            (extract(epoch FROM s.expires_at - now()) * 1000)::bigint AS left_ms
       FROM sessions s WHERE s.hash = sha256($1::bytea) AND s.expires_at > now()";
const TOKEN_QUERY: &str =
    "SELECT id, name, scopes, run_id, labels, user_id, (extract(epoch FROM expires_at - now()) * 1000)::bigint
       FROM tokens WHERE hash = sha256($1::bytea) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())";
const PERMISSIONS_QUERY: &str =
    "SELECT u.name, u.disabled_at IS NOT NULL AS disabled, coalesce((
            SELECT jsonb_agg(jsonb_build_object('labels', r.labels, 'scopes', ARRAY(
                       SELECT permission FROM role_permissions p WHERE p.role = r.name)))
              FROM user_roles h JOIN roles r ON r.name = h.role WHERE h.user_id = u.id), '[]') AS grants
       FROM users u WHERE u.name = convert_from($1, 'UTF8')";

pub(crate) async fn validate(scale: Scale) {
    let stack = Stack::start().await;
    users::make(&stack, 10).await;
    let (session, token) = (users::session(0, 0), users::token(1));
    let with_session = async |api: &Api| {
        let request = api.anonymous(Method::GET, "/v1/runs?limit=1");
        let request = request.header("cookie", format!("runcast_session={session}"));
        assert!(send(request).await.status().is_success());
    };
    // The gateway fills the cache.
    let api = stack.api();
    with_session(&api).await;
    let request = api
        .anonymous(Method::GET, "/v1/session")
        .bearer_auth(&token);
    assert!(send(request).await.status().is_success());

    let address = stack.redis.url(stack.redis.port());
    let redis = Redis::new(&address.parse().expect("a URL")).expect("a client");
    let cache = LeaseCache::new(redis);
    let url = stack.database_url(stack.database_port());
    let mut postgres = PgConnection::connect(&url).await.expect("a connection");
    let user = "SELECT id::text FROM users WHERE name = 'user0'";
    let user = stack.database.query_strings(user).await.join("");
    let hash = |secret: &str| format!("SELECT encode(sha256('{secret}'), 'hex')");
    let key = async |what: &str, secret: &str| {
        let hash = stack.database.query_strings(&hash(secret)).await.join("");
        format!("{}{what}:{hash}", stack.keys().prefix())
    };
    say(format_args!(
        "\nWho asks, and what they may, one at a time, {} calls of each in {} turns, us\n\n\
         | | Redis p50 | p99 | beside Postgres | Postgres p50 | p99 | beside Redis |\n|---|---|---|---|---|---|---|",
        scale.calls * scale.rounds,
        scale.rounds,
    ));
    for (what, key, query, bound) in [
        (
            "session",
            key("session", &session).await,
            SESSION_QUERY,
            session.as_str(),
        ),
        (
            "token",
            key("auth:token", &token).await,
            TOKEN_QUERY,
            &token,
        ),
        (
            "permissions of a user",
            stack.keys().permissions(user.parse().expect("an id")),
            PERMISSIONS_QUERY,
            "user0",
        ),
    ] {
        let lookup = Lookup {
            what,
            key: &key,
            query,
            bound,
        };
        compare_lookup(&scale, &cache, &mut postgres, &lookup).await;
    }
    let (_process, _chaos, without) = without_copies(&stack).await;
    with_session(&without).await;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let calls = scale.calls.div_ceil(4);
    for _ in 0..scale.rounds {
        here.extend(timed(calls, async || with_session(&api).await).await);
        there.extend(timed(calls, async || with_session(&without).await).await);
    }
    say(format_args!(
        "| GET /v1/runs with a session | {} | {} |",
        columns(&here, &there),
        columns(&there, &here)
    ));
    let key = key("session", &session).await;
    at_once(scale, &cache, &key, &url, &session).await;
}

/// A lookup, by its key in Redis and by its query and parameter in Postgres.
struct Lookup<'a> {
    what: &'a str,
    key: &'a str,
    query: &'a str,
    bound: &'a str,
}

/// Measures a lookup in Redis and in Postgres, taking turns.
async fn compare_lookup(
    scale: &Scale,
    cache: &LeaseCache,
    postgres: &mut PgConnection,
    lookup: &Lookup<'_>,
) {
    let (mut from_redis, mut from_postgres) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let redis_times = timed(scale.calls, async || {
            let seen = cache.get(lookup.key).await;
            assert!(
                matches!(seen, CacheEntry::Copy(_)),
                "{}: {seen:?}",
                lookup.what
            );
        });
        from_redis.extend(redis_times.await);
        let postgres_times = timed(scale.calls, async || {
            let query = sqlx::query(lookup.query).bind(lookup.bound.as_bytes());
            let row = query.fetch_one(&mut *postgres).await.expect("a row");
            assert!(!row.columns().is_empty());
        });
        from_postgres.extend(postgres_times.await);
    }
    say(format_args!(
        "| {} | {} | {} |",
        lookup.what,
        columns(&from_redis, &from_postgres),
        columns(&from_postgres, &from_redis),
    ));
}

/// The same session, requested by many clients at a time: Redis on one connection, Postgres on as
/// many as a gateway has.
async fn at_once(scale: Scale, cache: &LeaseCache, key: &str, url: &str, session: &str) {
    let pool = PgPoolOptions::new().max_connections(POOL_CONNECTIONS);
    let pool = pool.connect(url).await.expect("connections");
    let (mut from_redis, mut from_postgres) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let lookup = async || {
            let seen = cache.get(key).await;
            assert!(matches!(seen, CacheEntry::Copy(_)), "{seen:?}");
        };
        from_redis.push(rate(scale.calls * 5, lookup).await);
        let ask = async || {
            let query = sqlx::query(SESSION_QUERY).bind(session.as_bytes());
            let row = query.fetch_one(&pool).await.expect("a row");
            assert!(!row.columns().is_empty());
        };
        from_postgres.push(rate(scale.calls * 5, ask).await);
    }
    say(format_args!(
        "\nSessions a second, {AT_ONCE} at a time, median (least .. most): Redis {}, Postgres on {POOL_CONNECTIONS} connections {}: {:.2} times",
        spread(&from_redis, 0),
        spread(&from_postgres, 0),
        median(&from_redis) / median(&from_postgres),
    ));
}

/// A gateway that Redis no longer answers, and that therefore queries Postgres each time.
async fn without_copies(stack: &Stack) -> (Process, ChaosProxy, Api) {
    let chaos = ChaosProxy::start(stack.redis.port()).await;
    let mut spec = stack.service_spec(Service::Gateway);
    "without-copies".clone_into(&mut spec.name);
    let spec = spec.with_env([
        ("RUNCAST_LISTEN", "127.0.0.1:0".to_owned()),
        ("REDIS_URL", stack.redis.url(chaos.port())),
    ]);
    let mut process = spec.start(stack.folder());
    let url = process
        .wait_for_line("Runcast is ready at ", WAIT_DEADLINE)
        .await;
    chaos.refuse();
    let api = Api::new(&url, stack.token());
    (process, chaos, api)
}

/// Calls per second at this concurrency.
async fn rate(calls: usize, call: impl AsyncFn()) -> f64 {
    let began = Instant::now();
    let calling = futures::stream::iter(0..calls).map(|_| call());
    let mut done = std::pin::pin!(calling.buffer_unordered(AT_ONCE));
    while done.next().await.is_some() {}
    calls as f64 / began.elapsed().as_secs_f64()
}
