//! What a gateway tells about access, as metrics. All of it is of this process.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;

/// What there are copies of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cache {
    /// Sessions.
    Session,
    /// Tokens.
    Token,
    /// What users may do.
    Permissions,
}

impl Cache {
    const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Token => "token",
            Self::Permissions => "permissions",
        }
    }
}

/// How a look for a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// There was one.
    Hit,
    /// There was none; Postgres was asked.
    Miss,
    /// Redis did not answer; Postgres was asked.
    Unreachable,
    /// There was an old one, and Postgres did not answer.
    Stale,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Unreachable => "unreachable",
            Self::Stale => "stale",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookupLabels {
    cache: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Validated {
    credential: &'static str,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

type Count = Counter<u64, AtomicU64>;

/// The metrics of access. Cloning is cheap; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    looks: Family<LookupLabels, Count>,
    validations: Family<Validated, Count>,
    denials: Family<Reason, Count>,
    changes: Count,
    lost: Count,
}

/// What `/readyz` tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CredentialsSource)]
pub struct AccessHealth {
    /// Whether copies in Redis are used: `redis`, or `postgres` alone.
    pub source: &'static str,
    /// Credentials that were validated by copies, since the start,
    pub from_redis: u64,
    /// and by Postgres.
    pub from_postgres: u64,
    /// Changes that copies in Redis have been rid of here, since the start.
    pub changes_told: u64,
}

impl Metrics {
    /// Names and explains the metrics in a registry.
    #[rustfmt::skip]
    pub fn register(&self, registry: &mut Registry) {
        registry.register("runcast_access_lookups", "Looks for copies in Redis of sessions, tokens and permissions: hit, miss, unreachable, or stale", self.looks.clone());
        registry.register("runcast_access_validations", "Credentials that were looked up, by what answered", self.validations.clone());
        registry.register("runcast_access_denials", "Requests that were refused, by reason", self.denials.clone());
        registry.register("runcast_access_changes", "Changes of tokens, sessions and users whose copies were deleted here", self.changes.clone());
        registry.register("runcast_access_notes_lost", "Uses of tokens and failed sign-ins that were not written down, for want of room or of Postgres", self.lost.clone());
    }

    pub(super) fn looked(&self, cache: Cache, outcome: Outcome) {
        let look = LookupLabels {
            cache: cache.name(),
            outcome: outcome.name(),
        };
        self.looks.get_or_create(&look).inc();
        let credential = match cache {
            Cache::Session | Cache::Token => cache.name(),
            Cache::Permissions => return,
        };
        let source = match outcome {
            Outcome::Hit | Outcome::Stale => "redis",
            Outcome::Miss | Outcome::Unreachable => "postgres",
        };
        let validated = Validated { credential, source };
        self.validations.get_or_create(&validated).inc();
    }

    /// Counts a request that was refused for this reason: one of a few fixed words.
    pub fn denied(&self, reason: &'static str) {
        self.denials.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn told(&self, changes: usize) {
        self.changes.inc_by(changes as u64);
    }

    pub(super) fn lost(&self, notes: u64) {
        self.lost.inc_by(notes);
    }

    pub(super) fn show(&self, redis: bool) -> AccessHealth {
        let from = |source| {
            let count = |credential| {
                let validated = Validated { credential, source };
                self.validations.get_or_create(&validated).get()
            };
            count("session") + count("token")
        };
        AccessHealth {
            source: if redis { "redis" } else { "postgres" },
            from_redis: from("redis"),
            from_postgres: from("postgres"),
            changes_told: self.changes.get(),
        }
    }
}
