//! What every request passes through before its route.

pub mod authorize;
pub mod compression;
pub mod cors;
pub mod rate_limit;
pub mod request_limits;
pub mod route_policy;
pub mod same_origin;
pub mod security_headers;
