//! Access: users, sessions, tokens, roles, stream tickets, and what Redis caches of them.

mod audit;
mod cache_races;
mod clock_skew;
pub(crate) mod fixtures;
pub(crate) mod oidc;
mod open_streams;
mod outages;
mod replicas;
mod roles;
mod run_tokens;
mod sessions;
pub(crate) mod tickets;
mod tokens;
mod users;
