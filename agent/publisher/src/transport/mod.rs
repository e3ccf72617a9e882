//! How batches leave the process: to Redis directly, or through a gateway.
//!
//! Both ways end in the same append script, with the same seqs, so the sender may change over at
//! any time: what the other way had not acknowledged is sent again, and appended once.
//!
//! - [`selector`]: picks the way, changes over when it fails or a better one is back, and asks the
//!   gateway anew how to publish when Redis refuses the credentials;
//! - [`connection`]: one connection of either kind, with calls in flight: [`redis`], [`gateway`];
//! - [`notices`]: what a gateway tells its agents without being asked.

pub(crate) mod connection;
pub(crate) mod gateway;
pub(crate) mod notices;
pub(crate) mod redis;
pub(crate) mod selector;
