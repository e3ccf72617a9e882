//! Rate limits: how much a client may ask for.
//!
//! - [`policy`]: what is limited, and how far. [`subject`]: which requests count together.
//! - [`limiter`]: counts in Redis for all gateways, or in this process ([`local`]) while Redis does
//!   not answer.
//! - [`failed_attempts`]: throttles addresses that fail authentication too often.
//!   [`concurrency`]: bounds the number of open streams.

pub mod concurrency;
pub mod failed_attempts;
pub mod limiter;
pub mod local;
pub mod metrics;
pub mod policy;
pub mod subject;

pub use limiter::{Decision, Denial, RateLimiter, Source};
