//! The stream contract: what a producer writes and every reader relies on stands here and nowhere else.
//!
//! - [`event`]: one event is one JSON line. [`entry`]: one Redis Stream entry is a batch of lines. [`encoding`]: how the
//!   lines travel in it.
//! - [`event_id`]: the place of an event in its run, which is also the cursor.
//! - [`keys`]: every Redis key and channel that exists.
//! - [`limits`]: every bound of the contract, with its reason.
//! - [`seal`]: count, bytes and checksum that prove a stored run to be complete.
//! - [`commands`]: commands from the gateway to agents.

pub mod commands;
pub mod encoding;
pub mod entry;
pub mod event;
pub mod event_id;
pub mod keys;
pub mod limits;
pub mod seal;
