//! The publisher: publishes the events of a run so that viewers see them within milliseconds and
//! Postgres stores each exactly once.
//!
//! An event takes this path:
//!
//! 1. [`Publisher`] (`publisher/`): the public calls.
//! 2. `queue/`: the event is written as a line into a bounded queue, which forms batches.
//! 3. `sender/`: one task takes the batches, stores them, and sends them.
//! 4. `transport/`: they leave to Redis directly, or through a gateway.
//! 5. `retransmit/` and [`spool`]: batches stay in memory or in files until Postgres holds them.
//!
//! Beside that path:
//!
//! - `target` and `transport_choice`: where to publish, and by which way;
//! - [`gateway_client`]: calls the gateway: creates or joins a run, and learns how to publish;
//! - `heartbeat/`: reports that the process is alive;
//! - [`tracing_layer`]: publishes what a program traces with `tracing` as structured `log` events;
//! - `llm/` (feature `llm`): publishes a model's answer while it is written, and what it cost.
//!
//! Errors: a function that publishes returns [`PublishError`], one that starts a publisher
//! [`StartError`], and a call of the gateway [`gateway_client::ApiError`]. Each variant says when
//! it occurs; functions document only what they add to that.

mod error;
pub mod gateway_client;
mod heartbeat;
#[cfg(feature = "llm")]
pub mod llm;
mod options;
mod publisher;
pub mod queue;
mod retransmit;
mod sender;
pub mod spool;
mod target;
pub mod tracing_layer;
mod transport;
mod transport_choice;

pub use error::{Closed, InvalidTokenUse, PublishError, StartError, Stopped};
pub use options::{Fsync, Options, SpoolOptions};
pub use publisher::{Command, Commands, Publisher};
pub use target::Target;
pub use transport_choice::{TransportChoice, UnknownTransport};
