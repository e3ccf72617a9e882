//! The stream contract: everything that a producer writes and a reader relies on.
//!
//! - [`event`]: an event is one JSON line. [`entry`]: a Redis Stream entry is a batch of lines.
//!   [`encoding`]: how the lines travel in an entry, plain or compressed.
//! - [`append_calls`]: how an agent sends batches to a gateway, which appends them.
//! - [`event_id`]: the position of an event in its run, which is also the cursor of a reader.
//! - [`keys`]: all Redis keys and channels, and their slots.
//! - [`limits`]: the bounds of the contract, with their reasons.
//! - [`seal`]: count, bytes and checksum that prove a stored run to be complete.

pub mod append_calls;
pub mod encoding;
pub mod entry;
pub mod event;
pub mod event_id;
pub mod keys;
pub mod limits;
pub mod seal;
mod slot;
