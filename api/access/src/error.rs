//! [`AccessError`]: why access is refused, or cannot be decided. The gateway turns it into an
//! answer.

use std::borrow::Cow;

use runcast_common::connect::RedisFailure;
use runcast_store::StoreError;

use crate::Scope;

/// Why access is refused, or cannot be decided.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The request carries no valid credential; the text says what to do about it.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The principal may not do this; the text says why.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// The principal lacks a scope.
    #[error("this needs the scope {0}")]
    MissingScope(Scope),
    /// Postgres did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis, the only store of stream tickets, did not answer.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
}
