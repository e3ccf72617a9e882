//! The Lua scripts, with typed calls and replies.
//!
//! Only `append.lua`, `settle.lua` and `rebirth.lua` write a run stream, and only events at or
//! below the watermark are ever trimmed. `repair.lua` removes a stream that none of them can have
//! written, once all of its run is stored.
//!
//! A script is called by its SHA-1 (`EVALSHA`), and loaded where the server does not know it. It is
//! atomic on the one slot that holds all keys of a run. The head of each `.lua` file says what the
//! script does and guarantees.
//!
//! - `append.lua`, called by producers: appends a batch of events.
//! - `settle.lua`, called by persisters after a commit: acknowledges, trims, reports the watermark.
//! - `rebirth.lua`, called by persisters: gives a run new ids after Redis has lost writes.
//! - `read.lua`, called by persisters and gateways: reads a run, with a bound on each reply.
//! - `repair.lua` and `check_ready.lua`, called by persisters: remove what none of these scripts
//!   has written. A publisher's Redis user may run commands of its own.
//! - `cap.lua`, called by persisters: limits for a while what a run may hold in Redis.
//!
//! The scripts next to them belong to [`crate::presence`] (`heartbeat`, `find_silent`,
//! `remove_unchanged`, `read_agent`, `list_producers`), [`crate::commands`] (`control`),
//! [`crate::cache`] (`compare_and_set`), [`crate::rate_limit`] and [`crate::key_scan`]
//! (`remove_idle_consumers`).

mod append;
mod cap;
mod check_ready;
mod evalsha;
mod read;
mod rebirth;
mod repair;
mod settle;

pub use self::append::{Append, AppendOutcome, AppendReply, Cap, load_append};
pub use self::cap::cap;
pub use self::check_ready::{CheckedReady, check_ready};
pub(crate) use self::evalsha::{call, unexpected_reply};
pub use self::read::{ReadFrom, ReadRun, RunInRedis, RunPage};
pub use self::rebirth::rebirth;
pub use self::repair::{Repaired, repair, request_repair};
pub use self::settle::{LiveWindow, Settle, SettleOutcome};
