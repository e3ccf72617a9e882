//! Why publishing fails, and where the events of a closed publisher are.

use runcast_common::connect::RedisFailure;
use runcast_common::protocol::event::InvalidEvent;
use runcast_common::protocol::limits::{MAX_NAME_BYTES, MAX_VARIATIONS};

/// Largest token count: the largest integer that JavaScript represents exactly.
pub(crate) const MAX_TOKENS: u64 = (1 << 53) - 1;

/// Why a publisher could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address of Redis is not usable.
    #[error(transparent)]
    Address(#[from] RedisFailure),
    /// Redis is asked for, but there is no address of it.
    #[error(
        "RUNCAST_TRANSPORT is redis, but the gateway hands out no address of Redis: set \
         RUNCAST_PUBLISH_REDIS_URL there, or RUNCAST_TRANSPORT=gateway here"
    )]
    NoRedis,
    /// A gateway is asked for, but there is none.
    #[error("there is no gateway to publish through")]
    NoGateway,
    /// The variation is above the limit of all runs.
    #[error("variation {0} is not below the limit of {MAX_VARIATIONS}")]
    Variation(u16),
}

/// Why a publisher sends nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The caller closed it.
    #[error("the publisher is closed")]
    Closed,
    /// A newer process of the same producer has taken over; this one must not continue.
    #[error("a newer process of this producer has taken over (epoch {by})")]
    Fenced {
        /// The newer process's producer epoch.
        by: u64,
    },
    /// The run was deleted: it takes no events any more.
    #[error("the run was deleted")]
    Deleted,
    /// The sending task panicked or its runtime ended: a defect, never a network problem.
    #[error("the sending task of the publisher has died")]
    Died,
}

/// Why an event was not published, or a wait ended early.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The event is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidEvent),
    /// The token counts are invalid.
    #[error(transparent)]
    Tokens(#[from] InvalidTokenUse),
    /// The queue has no room at the moment. Only `try_` calls return this.
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
    /// The deadline passed.
    #[error("{unsent} events are not in Redis yet{}", because(.trouble.as_deref()))]
    Deadline {
        /// Events that Redis has not acknowledged.
        unsent: u64,
        /// The current problem, if it is known.
        trouble: Option<String>,
    },
    /// Redis cannot be reached, or rejects this producer.
    #[error("{0}")]
    Unreachable(String),
}

fn because(trouble: Option<&str>) -> String {
    trouble.map_or_else(String::new, |trouble| format!(": {trouble}"))
}

/// Where the events of a closed publisher are.
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
    /// The problem, if not everything is stored and the reason is known.
    pub trouble: Option<String>,
}

/// Why a use of tokens cannot be published.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidTokenUse {
    /// The model's name is empty or too long.
    #[error("the name of the model has {0} bytes: give it 1 to {MAX_NAME_BYTES}")]
    Model(usize),
    /// A count is larger than any real one.
    #[error("{name} is {count}, the largest count is {MAX_TOKENS}")]
    TooMany {
        /// The counted value.
        name: &'static str,
        /// Its count.
        count: u64,
    },
    /// A part is larger than the whole that includes it.
    #[error(
        "{part} is {count}, but {whole} is only {total}: {whole} must include it (some APIs count it apart: add it)"
    )]
    Part {
        /// The value that is too large.
        part: &'static str,
        /// Its count.
        count: u64,
        /// The value that must include it.
        whole: &'static str,
        /// The count of that value.
        total: u64,
    },
    /// The cost is negative, infinite or not a number.
    #[error("the cost is {0}: give US dollars, 0 or more, or leave it out")]
    Cost(f64),
    /// The usage object has neither form of a required count.
    #[error("no usage of tokens: expected an object with {0}, as OpenAI and Anthropic answer it")]
    Missing(&'static str),
}
