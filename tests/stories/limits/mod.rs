//! Rate limits, size limits and time limits of the gateway, with low limits set by each story.

mod brute_force;
mod fixtures;
mod ingest_throttle;
mod redis_outage;
mod request_rates;
mod requests;
mod streams;
