//! The API: one file per resource.

pub mod agents;
pub mod assets;
pub mod audit;
pub mod control;
pub mod events;
pub mod feed;
pub mod health;
pub mod identities;
pub mod ingest;
pub mod jobs;
pub mod oidc;
pub mod openapi;
pub mod roles;
pub mod runs;
pub mod search;
pub mod session;
pub mod sessions;
pub mod stream;
pub mod stream_tickets;
pub mod text;
pub mod tokens;
pub mod users;
pub mod watch;
pub mod webhooks;
