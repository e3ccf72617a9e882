//! What the worker reads: retention, archive, liveness and webhooks.

use runcast_common::config::HumanDuration;
use runcast_webhooks::egress::EgressPolicy;
use runcast_worker::age::Age;
use runcast_worker::retention_rules::{Keep, RetentionRules};

use crate::settings::setting::{Program, Setting};

const BY_WORKER: &[Program] = &[Program::Worker];
const BY_GATEWAY_AND_WORKER: &[Program] = &[Program::Gateway, Program::Worker];

/// How long runs are kept.
pub static RETENTION: Setting<Keep> = Setting::new(
    "RUNCAST_RETENTION",
    BY_WORKER,
    "how long runs and their events are kept: 30d, 12h, forever",
)
.default_value("90d");

/// The same by label.
pub static RETENTION_RULES: Setting<RetentionRules> = Setting::new(
    "RUNCAST_RETENTION_RULES",
    BY_WORKER,
    "the same for runs with a label; the first rule that fits counts: \
     project=search:7d,team=ml:forever",
);

/// How long the audit log is kept.
pub static AUDIT_RETENTION: Setting<Keep> = Setting::new(
    "RUNCAST_AUDIT_RETENTION",
    BY_WORKER,
    "how long the audit log (`GET /v1/audit`) is kept, or forever",
)
.default_value("365d");

/// Where old runs go. Its parser lies in `runcast_history`.
pub static ARCHIVE: Setting<String> = Setting::new(
    "RUNCAST_ARCHIVE",
    BY_GATEWAY_AND_WORKER,
    "where sealed runs go when they are old: file:///folder, or s3://bucket/prefix with the usual \
     settings of AWS (AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL for \
     another store that speaks S3)",
)
.default_words("runs stay in Postgres");

/// When old runs go there.
pub static ARCHIVE_AFTER: Setting<Age> = Setting::new(
    "RUNCAST_ARCHIVE_AFTER",
    BY_WORKER,
    "how long after it was sealed a run is archived: its rows go, and it is read as before",
)
.default_value("30d");

/// When a silent agent becomes `stale`.
pub static STALE_AFTER: Setting<HumanDuration> = Setting::new(
    "RUNCAST_STALE_AFTER",
    BY_WORKER,
    "silence after which an agent is `stale`, 7500ms at least",
)
.default_value("15s");

/// When a silent agent becomes `lost`.
pub static LOST_AFTER: Setting<HumanDuration> = Setting::new(
    "RUNCAST_LOST_AFTER",
    BY_WORKER,
    "silence after which an agent is `lost`, and its variation and run with it; more than \
     RUNCAST_STALE_AFTER",
)
.default_value("30s");

/// Where webhooks may lead.
pub static WEBHOOK_ALLOW: Setting<EgressPolicy> = Setting::new(
    "RUNCAST_WEBHOOK_ALLOW",
    BY_GATEWAY_AND_WORKER,
    "hosts and networks inside the cluster that webhooks may lead to, also by http, such as \
     10.1.0.0/16,hooks.internal",
)
.default_words("only public addresses");

/// How long a receiver may take.
pub static WEBHOOK_TIMEOUT: Setting<HumanDuration> = Setting::new(
    "RUNCAST_WEBHOOK_TIMEOUT",
    BY_WORKER,
    "how long a receiver may take to answer",
)
.default_value("10s");

/// The first pause after a failure.
pub static WEBHOOK_FIRST_RETRY: Setting<HumanDuration> = Setting::new(
    "RUNCAST_WEBHOOK_FIRST_RETRY",
    BY_WORKER,
    "pause after the first failed attempt; it doubles from there, up to 4h",
)
.default_value("10s");

/// When a delivery is dead.
pub static WEBHOOK_GIVE_UP: Setting<HumanDuration> = Setting::new(
    "RUNCAST_WEBHOOK_GIVE_UP",
    BY_WORKER,
    "how long a delivery is retried",
)
.default_value("1d");

/// How long ended deliveries are kept.
pub static WEBHOOK_LOG: Setting<HumanDuration> = Setting::new(
    "RUNCAST_WEBHOOK_LOG",
    BY_WORKER,
    "how long delivered and dead deliveries are kept in the log",
)
.default_value("14d");
