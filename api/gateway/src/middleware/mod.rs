//! What a request passes through before its handler; `router.rs` lists it from outside to inside.
//!
//! - [`cors`]: other origins. [`security_headers`]: headers of every answer.
//! - [`route_policy`]: who may call the route, and its [`rate_class`]; looked up once.
//! - [`request_limits`]: size of the head, time of the body.
//! - [`failed_attempts`]: throttles addresses that fail authentication too often.
//! - [`authorize`]: checks the credential and the scope.
//! - [`rate_limit`]: counts the request, and bounds open streams. [`denial`]: its refusals.
//! - [`audit_reads`]: records who reads what runs have printed, if that is set.
//!
//! Used by single routes: [`compression`], and [`same_origin`] where a cookie counts.

pub mod audit_reads;
pub mod authorize;
pub mod compression;
pub mod cors;
pub mod denial;
pub mod failed_attempts;
pub mod rate_class;
pub mod rate_limit;
pub mod request_limits;
pub mod route_policy;
pub mod same_origin;
pub mod security_headers;
