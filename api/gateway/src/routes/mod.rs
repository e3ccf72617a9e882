//! The API: one file per resource.
//!
//! Each file has a function `router`, which [`catalogue`] collects. A handler documents itself with
//! `#[utoipa::path]`: what it accepts and answers, who may call it, and how it is counted.
//! [`crate::middleware::route_policy`] enforces what is documented.
//!
//! [`run_access`] checks access to the run that a request is about.

pub mod agents;
pub mod assets;
pub mod audit;
pub mod catalogue;
pub mod control;
pub mod deletion;
pub mod events;
pub mod feed;
pub mod health;
pub mod identities;
pub mod ingest;
pub mod jobs;
mod labelled_runs;
pub mod oidc;
pub mod openapi;
pub mod publish;
pub mod redactions;
pub mod roles;
pub(crate) mod run_access;
pub mod runs;
pub mod search;
pub mod session;
pub mod sessions;
pub mod sign_in;
pub mod stream;
pub mod stream_tickets;
pub mod text;
pub mod tokens;
pub mod users;
pub mod watch;
pub mod webhooks;
