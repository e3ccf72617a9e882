//! The harness of the stories. It starts the real programs against a real Redis and a real
//! Postgres, injects faults, and checks what a user would observe.
//!
//! - [`stack`]: one installation per story, from Redis to the gateway. [`service`] names its
//!   services, [`teardown`] checks it at the end of a story.
//! - [`api`], [`sse`], [`database`]: the three interfaces a story observes the stack through.
//! - [`chaos`]: a proxy between any two processes that delays, cuts, half-opens and drops replies.
//! - [`crowd`]: thousands of viewers in one thread. They check that each message arrives once, by
//!   its [`stamp`].
//! - [`eventually`]: how a story waits: for a condition, with a deadline, never for a fixed time.
//! - [`webhook_receiver`]: the target of webhooks. [`oidc_provider`] and [`oidc_browser`]: both
//!   ends of signing in by OpenID Connect.
//! - [`process`], [`programs`], [`postgres`], [`redis_server`]: the processes of a stack;
//!   [`s3_server`] for stories about the archive.
//! - [`redis_sentinel`], [`redis_cluster`]: several Redis servers ([`redis_node`]), also with TLS
//!   ([`certificate_authority`]).
//!
//! Every function of the harness panics when it cannot continue, with a message that says what it
//! waited for and what it observed last. The story fails at that line and prints the logs of all
//! its processes.

pub mod api;
pub mod certificate_authority;
pub mod chaos;
pub mod crowd;
pub mod database;
pub mod event_lines;
pub mod eventually;
pub mod oidc_browser;
pub mod oidc_provider;
pub mod open_files;
pub mod postgres;
pub mod postgres_backup;
pub mod process;
pub mod programs;
pub mod publisher;
pub mod redis_cluster;
pub mod redis_node;
pub mod redis_sentinel;
pub mod redis_server;
pub mod s3_server;
mod service;
pub mod sse;
pub mod stack;
pub mod stamp;
mod teardown;
pub mod webhook_receiver;
