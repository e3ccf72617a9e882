//! One event is one JSON object on one line.
//!
//! ```text
//! {"kind":"output","variation":0,"time":1763700000000,"text":"hello\n"}
//! ```
//!
//! The producer serializes the line once; through Redis and Postgres to every browser its bytes
//! stay the same. `kind`, `variation` and `time` (the producer's clock, Unix milliseconds) come
//! first. The other fields depend on the kind: see the payload types below. A reader ignores
//! unknown fields. The gateway only appends `id`, `producer` and `seq` to a line; at its end they
//! take precedence over fields of the same name.
//!
//! `text` of `output` and `log` is a *chunk*. A complete line ends with `\n`, a partial one does
//! not, and a viewer joins the chunks of one variation and stream. Bytes that are not UTF-8 travel
//! as base64 in `bytes` instead, so nothing is lost or replaced. What a producer has detected in a
//! chunk (a level, a message, a group) is added to the chunk and never replaces it.
//!
//! - [`Kind`], [`Channel`]: what an event is about, and what a reader selects by.
//! - [`write_line`], [`Head`]: writing and checking a line.
//! - Payloads: [`Text`] (`output`, `log`), [`StatusChange`], [`Progress`], [`Control`], [`Gap`].

mod channel;
mod control;
mod gap;
mod head;
mod kind;
mod line;
pub mod line_separators;
mod progress;
mod status;
#[cfg(test)]
mod tests;
mod text;

pub use self::channel::Channel;
pub use self::control::{Action, Control, ControlState, UnknownAction};
pub use self::gap::Gap;
pub use self::head::{Head, UnreadableLine};
pub use self::kind::{Kind, UnknownChannel};
pub use self::line::{InvalidEvent, now_ms, write_line};
pub use self::progress::Progress;
pub use self::status::{Status, StatusChange};
pub use self::text::{Group, GroupState, Text};
