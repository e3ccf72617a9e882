//! The table of all settings: one file per reader, and [`groups`] with the order in which they are
//! shown.

pub mod agent;
pub mod gateway;
pub mod groups;
pub mod servers;
pub mod worker;

pub use self::groups::{GROUPS, Group, entries};
