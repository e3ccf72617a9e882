//! The metrics of access, all of this process.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;

/// What Redis holds copies of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CachedKind {
    /// Sessions.
    Session,
    /// Tokens.
    Token,
    /// The permissions of users.
    Permissions,
}

impl CachedKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Token => "token",
            Self::Permissions => "permissions",
        }
    }
}

/// How a look-up in the cache ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LookupOutcome {
    /// Redis had a fresh copy.
    Hit,
    /// Redis had no fresh copy, and Postgres answered.
    Miss,
    /// Redis did not answer, and Postgres was read.
    Unreachable,
    /// Redis had an old copy, which was used because Postgres did not answer.
    Stale,
}

impl LookupOutcome {
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
struct ValidationLabels {
    credential: &'static str,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    reason: &'static str,
}

type Count = Counter<u64, AtomicU64>;

/// The metrics of access. Cloning is cheap; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    lookups: Family<LookupLabels, Count>,
    validations: Family<ValidationLabels, Count>,
    denials: Family<DenialLabels, Count>,
    changes: Count,
    dropped_usage: Count,
}

/// The state of access in `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CredentialsSource)]
pub struct AccessHealth {
    /// `redis` if copies in Redis are used, `postgres` if only Postgres is read.
    pub source: &'static str,
    /// Credentials that were validated by a copy in Redis, since the start of the process.
    pub from_redis: u64,
    /// Credentials that were validated by Postgres, since the start of the process.
    pub from_postgres: u64,
    /// Changes whose copies in Redis this process deleted, since its start.
    #[serde(rename = "changes_told")]
    pub changes_applied: u64,
}

impl Metrics {
    /// Registers all metrics.
    #[rustfmt::skip]
    pub fn register(&self, registry: &mut Registry) {
        registry.register("runcast_access_lookups", "Look-ups of sessions, tokens and permissions in Redis: hit, miss, unreachable, or stale", self.lookups.clone());
        registry.register("runcast_access_validations", "Validated credentials, by the store that answered", self.validations.clone());
        registry.register("runcast_access_denials", "Requests that were denied, by reason", self.denials.clone());
        registry.register("runcast_access_changes", "Changes of tokens, sessions and users whose copies in Redis were deleted", self.changes.clone());
        registry.register("runcast_access_notes_lost", "Token uses and failed sign-ins that were not recorded because memory was full or Postgres failed", self.dropped_usage.clone());
    }

    pub(super) fn looked_up(&self, kind: CachedKind, outcome: LookupOutcome) {
        let labels = LookupLabels {
            cache: kind.name(),
            outcome: outcome.name(),
        };
        self.lookups.get_or_create(&labels).inc();
        let credential = match kind {
            CachedKind::Session | CachedKind::Token => kind.name(),
            CachedKind::Permissions => return,
        };
        let source = match outcome {
            LookupOutcome::Hit | LookupOutcome::Stale => "redis",
            LookupOutcome::Miss | LookupOutcome::Unreachable => "postgres",
        };
        let labels = ValidationLabels { credential, source };
        self.validations.get_or_create(&labels).inc();
    }

    /// Counts a denied request. The reason is one of a few fixed words.
    pub fn denied(&self, reason: &'static str) {
        self.denials.get_or_create(&DenialLabels { reason }).inc();
    }

    pub(super) fn changes_applied(&self, changes: usize) {
        self.changes.inc_by(changes as u64);
    }

    pub(super) fn usage_dropped(&self, records: u64) {
        self.dropped_usage.inc_by(records);
    }

    pub(super) fn health(&self, redis_is_available: bool) -> AccessHealth {
        let validated_by = |source| {
            let count = |credential| {
                let labels = ValidationLabels { credential, source };
                self.validations.get_or_create(&labels).get()
            };
            count("session") + count("token")
        };
        AccessHealth {
            source: match redis_is_available {
                true => "redis",
                false => "postgres",
            },
            from_redis: validated_by("redis"),
            from_postgres: validated_by("postgres"),
            changes_applied: self.changes.get(),
        }
    }
}
