//! The harness of the stories: it starts the real programs against a real Redis and a real Postgres,
//! breaks them on purpose, and looks at what a user would see.
//!
//! - [`stack`]: one installation of its own for every story, from Redis to the gateway.
//! - [`api`], [`sse`], [`database`]: the three ways to look at it, from outside.
//! - [`chaos`]: a proxy between any two parts that delays, cuts, half-opens and loses answers.
//! - [`crowd`]: thousands of viewers in one thread, who check that each message ([`mark`]) comes once.
//! - [`eventually`]: how a story waits; nothing here sleeps and hopes.
//! - [`receiver`]: what webhooks lead to. [`issuer`]: who says who signs in, by [`jwt`]s, to a [`visitor`].
//! - [`process`], [`programs`], [`cluster`], [`redis_server`]: what the stack is made of; [`s3_server`] where a story
//!   is about the archive.
//! - [`redis_sentinel`], [`redis_cluster`]: Redis of several servers ([`redis_node`]), also with TLS
//!   ([`authority`]).
//!
//! The harness panics where it cannot go on, with a message that says what it waited for and what it
//! saw: a story then fails right there, and the logs of all its processes are printed.

pub mod api;
pub mod authority;
pub mod chaos;
pub mod cluster;
pub mod crowd;
pub mod database;
pub mod eventually;
mod fault;
pub mod files;
pub mod issuer;
pub mod jwt;
mod last_look;
pub mod lines;
pub mod mark;
mod part;
pub mod process;
pub mod programs;
pub mod publisher;
pub mod receiver;
pub mod redis_cluster;
pub mod redis_node;
pub mod redis_sentinel;
pub mod redis_server;
pub mod s3_server;
pub mod sse;
pub mod stack;
pub mod visitor;
