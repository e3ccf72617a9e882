//! The Lua scripts, with typed calls and replies.
//!
//! Only `append.lua`, `settle.lua` and `rebirth.lua` write a run stream, and only events at or
//! below the watermark are ever trimmed; `delete_run.lua` removes all of a run.
//!
//! A script is called by its SHA-1 (`EVALSHA`), and loaded where the server does not know it. It is
//! atomic on the one slot that holds all keys of a run. The head of each `.lua` file says what the
//! script does and guarantees.
//!
//! - `append.lua`, called by producers: appends a batch of events.
//! - `settle.lua`, called by persisters after a commit: acknowledges, trims, reports the watermark.
//! - `rebirth.lua`, called by persisters: gives a run new ids after Redis has lost writes.
//! - `delete_run.lua`, called by gateways, workers and persisters: removes a deleted run.
//! - `cap.lua`, called by persisters: limits for a while what a run may hold in Redis.
//!
//! The scripts next to them belong to [`crate::presence`] (`heartbeat`, `find_silent`,
//! `remove_unchanged`), [`crate::commands`] (`control`), [`crate::cache`]
//! (`compare_and_set`), [`crate::rate_limit`] and [`crate::key_scan`] (`remove_idle_consumers`).

mod append;
mod cap;
mod delete_run;
mod evalsha;
mod rebirth;
mod settle;

pub use self::append::{
    Append, AppendOutcome, AppendReply, Cap, is_known, load_append, read_durable,
};
pub use self::cap::cap;
pub use self::delete_run::delete_run;
pub(crate) use self::evalsha::{call, unexpected_reply};
pub use self::rebirth::rebirth;
pub use self::settle::{LiveWindow, Settle, SettleOutcome};
