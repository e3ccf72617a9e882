//! The gateway's HTTP API, as far as an agent needs it: creating or joining a run, and reading one.

mod client;
mod current_run;
mod error;
mod publish;
mod redaction;
mod session;

pub use client::GatewayClient;
pub use current_run::CurrentRun;
pub use error::ApiError;
pub(crate) use publish::{AppendAnswer, ProducerOfRun};
pub use redaction::{NewRedaction, RedactionState};
pub use session::{NewRun, Session};
