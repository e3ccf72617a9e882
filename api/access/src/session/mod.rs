//! Browser sessions.

pub mod cookie;
pub mod lifetime;
pub mod store;
