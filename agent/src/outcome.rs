//! How publishing can fail, and where a publisher's events were when it ended.

use runcast_common::connect::RedisFailure;
use runcast_common::protocol::event::InvalidEvent;
use runcast_common::protocol::limits::MAX_VARIATIONS;

use crate::tokens::InvalidTokenUse;

/// Why a publisher could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address of Redis cannot be used.
    #[error(transparent)]
    Address(#[from] RedisFailure),
    /// No run has so many variations.
    #[error("variation {0} is not below the limit of {MAX_VARIATIONS}")]
    Variation(u16),
}

/// Why a publisher sends nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was closed.
    #[error("the publisher is closed")]
    Closed,
    /// A newer process of the same producer has taken over; this one must not go on.
    #[error("a newer process of this producer has taken over (epoch {by})")]
    Fenced {
        /// Its producer epoch.
        by: u64,
    },
    /// The sending task ended by a panic or with its runtime: a defect, never a matter of the
    /// network.
    #[error("the sending task of the publisher has died")]
    Died,
}

/// Why an event was not published, or a wait ended without what it waited for.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The event itself.
    #[error(transparent)]
    Invalid(#[from] InvalidEvent),
    /// The figures of a use of tokens.
    #[error(transparent)]
    Tokens(#[from] InvalidTokenUse),
    /// There is no room at the moment; only `try_` forms say so.
    #[error(
        "the queue is full: Redis or Postgres takes events more slowly than they are published"
    )]
    Full,
    /// The publisher was closed before.
    #[error("the publisher is closed")]
    Closed,
    /// Nothing will be sent any more.
    #[error(transparent)]
    Stopped(Stopped),
    /// Time ran out.
    #[error("{unsent} events are not in Redis yet{}", because(.trouble.as_deref()))]
    Deadline {
        /// Events that Redis has not acknowledged.
        unsent: u64,
        /// What stands in the way, if that is known.
        trouble: Option<String>,
    },
    /// The server could not be reached, or refuses this producer.
    #[error("{0}")]
    Unreachable(String),
}

fn because(trouble: Option<&str>) -> String {
    trouble.map_or_else(String::new, |trouble| format!(": {trouble}"))
}

/// Where a publisher's events were when it closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Events in Postgres.
    pub stored: u64,
    /// Events in Redis that Postgres does not hold yet.
    pub in_redis: u64,
    /// Events that Redis has not acknowledged and the spool holds, to be sent later.
    pub spooled: u64,
    /// Events that are neither in Redis nor in a spool: lost, now that the publisher is closed.
    pub unsent: u64,
    /// What stood in the way, if not everything is stored and that is known.
    pub trouble: Option<String>,
}
