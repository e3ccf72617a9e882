//! What handlers read from requests.

pub mod caller;
pub mod credential;
pub(crate) mod etag;
pub mod json;
pub mod query;
