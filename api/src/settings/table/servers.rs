//! What every service reads: the two servers, the log, and how strict to be.

use std::net::SocketAddr;

use runcast_common::config::environment::Environment;
use runcast_common::config::{PostgresUrl, RedisUrl};
use runcast_persister::MemoryBudget;

use crate::settings::plaintext::AllowedPlaintext;
use crate::settings::setting::{Program, Setting};

use Program::{Agent, Dev, Gateway, Persister, Worker};

const BY_SERVICES: &[Program] = &[Gateway, Persister, Worker];

/// Where Postgres is.
pub static DATABASE_URL: Setting<PostgresUrl> = Setting::new(
    "DATABASE_URL",
    BY_SERVICES,
    "Postgres 14 or newer, such as postgres://user:password@host/runcast",
)
.default_words("required; `dev` starts its own")
.prints_itself();

/// Where Redis is.
pub static REDIS_URL: Setting<RedisUrl> = Setting::new(
    "REDIS_URL",
    &[Gateway, Persister, Worker, Agent],
    "Redis 7 or newer with `maxmemory-policy noeviction`: redis://host:6379, or \
     redis+sentinel://host1:26379,host2:26379/service, or redis+cluster://host1:6379,host2:6379; \
     with TLS `rediss` instead of `redis`. For an agent it overrides the address that the gateway gives, if it gives one",
)
.default_words("required; `dev` starts its own")
.prints_itself();

/// Whose certificates Redis shows.
pub static REDIS_CA: Setting<String> = Setting::new(
    "RUNCAST_REDIS_CA",
    &[Gateway, Persister, Worker, Agent],
    "PEM file with the authorities that sign for Redis; the gateway hands it on to agents",
)
.default_words("the authorities of the platform");

/// What agents publish to.
pub static PUBLISH_REDIS_URL: Setting<RedisUrl> = Setting::new(
    "RUNCAST_PUBLISH_REDIS_URL",
    &[Gateway],
    "Redis as agents reach it, for those that publish to it directly. A gateway creates a user for \
     each token of a run, so a user in the address is not used; the user of REDIS_URL needs the \
     rights `+acl|setuser +acl|deluser +acl|users`",
)
.default_words("none: agents publish through the gateway")
.prints_itself();

/// For installations that share a Redis.
pub static KEY_PREFIX: Setting<String> = Setting::new(
    "RUNCAST_KEY_PREFIX",
    BY_SERVICES,
    "prefix of every Redis key, for installations that share a server",
);

/// How strict to be.
pub static ENV: Setting<Environment> = Setting::new(
    "RUNCAST_ENV",
    BY_SERVICES,
    "development or production; production refuses what could lose data or leak secrets",
)
.default_value("development");

/// What production may send in clear text.
pub static ALLOW_PLAINTEXT: Setting<AllowedPlaintext> = Setting::new(
    "RUNCAST_ALLOW_PLAINTEXT",
    BY_SERVICES,
    "what production may send without verified encryption, such as `postgres,public`: public, clients \
     to the gateway; agents, agents to Redis; postgres, services to Postgres",
)
.default_words("nothing");

/// Where services show their metrics.
pub static METRICS_LISTEN: Setting<SocketAddr> = Setting::new(
    "RUNCAST_METRICS_LISTEN",
    BY_SERVICES,
    "address of a listener for /metrics, /healthz and /readyz, such as 127.0.0.1:9464",
);

/// What to log.
pub static LOG: Setting<String> = Setting::new(
    "RUNCAST_LOG",
    &[Gateway, Persister, Worker, Agent],
    "what to log: a level, and levels for parts, such as `debug`, `runcast=debug,warn`, or \
     `runcast_persister=trace,info`. A part is a crate or a module, and stands for all whose name \
     begins with it, so `runcast` is all of Runcast",
)
.default_words("info; for an agent warn");

/// How to log.
pub static LOG_FORMAT: Setting<String> = Setting::new(
    "RUNCAST_LOG_FORMAT",
    &[Gateway, Persister, Worker, Agent],
    "text or json",
)
.default_words("text on a terminal and for an agent, else json");

/// How much memory Redis may use.
pub static REDIS_BUDGET: Setting<MemoryBudget> = Setting::new(
    "RUNCAST_REDIS_BUDGET",
    &[Persister],
    "memory that Redis may use, such as 4GiB, or off. While Redis uses more, the biggest runs wait \
     until their events are stored",
)
.default_words("75 % of its maxmemory, else off");

/// Where `runcastd dev` keeps its data.
pub static DATA_DIR: Setting<String> = Setting::new(
    "RUNCAST_DATA_DIR",
    &[Dev, Agent],
    "folder in which `runcastd dev` keeps its data and the files `token` and `url`. Where \
     RUNCAST_URL is not set, `runcast` takes both from there",
)
.default_value(".local");
