//! Browser sessions: their [`cookie`], their [`lifetime`], and the [`store`] for `tower-sessions`.

pub mod cookie;
pub mod lifetime;
pub mod store;
