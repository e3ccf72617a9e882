//! The Lua scripts, with typed calls and replies.
//!
//! Only `append.lua`, `settle.lua` and `rebirth.lua` write a run stream, and only events at or
//! below the watermark are ever trimmed. `delete_run.lua` removes all of a run, and `repair.lua` a
//! stream that none of them can have written, once all of its run is stored.
//!
//! A script is called by its SHA-1 (`EVALSHA`), and loaded where the server does not know it. It is
//! atomic on the one slot that holds all keys of a run. The head of each `.lua` file says what the
//! script does and guarantees.
//!
//! - `append.lua`, called by producers: appends a batch of events.
//! - `settle.lua`, called by persisters after a commit: acknowledges, trims, reports the watermark.
//! - `rebirth.lua`, called by persisters: gives a run new ids after Redis has lost writes.
//! - `delete_run.lua`, called by gateways, workers and persisters: removes a deleted run.
//! - `read.lua`, called by persisters and gateways: reads a run, with a bound on each reply.
//! - `repair.lua` and `check_ready.lua`, called by persisters: remove what none of these scripts
//!   has written. A publisher's Redis user may run commands of its own.
//! - `make_group.lua`, called by persisters: makes their group of a ready stream.
//! - `enqueue.lua`, called by persisters: queues a run for an agent that may not; and by workers,
//!   when Postgres was restored to an older state.
//! - `cap.lua`, called by persisters: limits for a while what a run may hold in Redis.
//!
//! The scripts next to them belong to [`crate::presence`] (`heartbeat`, `find_silent`,
//! `remove_unchanged`, `read_agent`, `list_producers`), [`crate::run_users`] (`due_users`),
//! [`crate::database_mark`] (`set_mark`),
//! [`crate::commands`] (`control`), [`crate::cache`] (`compare_and_set`),
//! [`crate::rate_limit`] and [`crate::key_scan`] (`remove_idle_consumers`).

mod append;
mod cap;
mod check_ready;
mod delete_run;
mod enqueue;
mod evalsha;
mod make_group;
mod read;
mod rebirth;
mod repair;
mod settle;

pub use self::append::{
    Append, AppendAs, AppendOutcome, AppendReply, Cap, append_source, is_known, load_append,
    read_durable,
};
pub use self::cap::cap;
pub use self::check_ready::{CheckedReady, check_ready};
pub use self::delete_run::delete_run;
pub use self::enqueue::{EnqueueReason, enqueue};
pub(crate) use self::evalsha::{call, unexpected_reply};
pub use self::make_group::make_group;
pub use self::read::{ReadFrom, ReadRun, RunInRedis, RunPage};
pub use self::rebirth::rebirth;
pub use self::repair::{Repaired, repair, request_repair};
pub use self::settle::{LiveWindow, Settle, SettleOutcome};
