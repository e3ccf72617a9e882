//! Who gets in, and what they may do there: users, sessions, tokens, roles, and what Redis remembers of them.

mod audit;
mod clocks;
mod faults;
pub(crate) mod oidc;
mod opened;
pub(crate) mod people;
mod races;
mod replicas;
mod roles;
mod sessions;
pub(crate) mod tickets;
mod tokens;
mod users;
