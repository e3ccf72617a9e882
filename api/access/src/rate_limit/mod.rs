//! How much a client may ask for.
//!
//! - [`policy`]: what is limited, and how far. [`subject`]: whose requests count together.
//! - [`limiter`]: counts in Redis for all replicas, and in this process alone ([`local`]) while Redis does not answer.
//! - [`failed_attempts`]: addresses that presented wrong credentials too often. [`concurrency`]: how many streams may be open.

pub mod concurrency;
pub mod failed_attempts;
pub mod limiter;
pub mod local;
pub mod metrics;
pub mod policy;
pub mod subject;

pub use limiter::{Decision, Denial, RateLimiter, Source};
