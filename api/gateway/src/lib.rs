//! The gateway: HTTP.
//!
//! A request passes [`server`] (connections), [`router`] with its [`middleware`], and one of [`routes`], which read it by
//! [`extract`] and answer errors by [`problem`]. [`state`]: what all of them share. [`readiness`]: `/readyz`.

pub mod extract;
pub mod middleware;
pub mod problem;
pub mod readiness;
mod router;
pub mod routes;
pub mod server;
pub mod state;

pub use state::{Gateway, GatewayParts};
