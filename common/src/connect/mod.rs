//! Connections to Redis: a single server, the master of a Sentinel service, or a cluster.
//!
//! - [`Redis`] routes each call to the server that holds the slot of its keys. All keys of a run
//!   share a slot. A single server holds all slots.
//! - [`Server`] owns one shared, multiplexed connection and replaces it when it breaks. A call has
//!   a deadline. A timeout, an I/O error or `READONLY` (a demoted master) breaks the connection: a
//!   half-open one would never answer again.
//! - [`Redis::dedicated`] opens a separate connection for blocking reads, [`Redis::subscriber`] one
//!   for subscriptions.
//!
//! A failed call is not retried here, because only the caller knows whether that is safe. The one
//! exception is `MOVED`: that node has executed nothing, so the call goes to the new node once.

mod authorities;
mod cluster;
mod dial;
mod error;
mod redis;
mod sentinel;
mod server;
mod slot_map;
mod tls;

pub use self::authorities::Authorities;
pub use self::error::RedisFailure;
pub use self::redis::{Redis, RedisMode};
pub use self::server::Server;
pub use self::tls::install_tls_provider;
