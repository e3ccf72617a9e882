//! What the gateway reads: listener, limits, sessions and sign-in.

use std::net::SocketAddr;

use runcast_access::client_ip::TrustedProxies;
use runcast_access::rate_limit::policy::LimitConfig;
use runcast_common::config::HumanDuration;
use runcast_common::config::byte_size::ByteSize;
use runcast_gateway::middleware::audit_reads::AuditReads;
use runcast_gateway::middleware::cors::Origins;
use url::Url;

use crate::settings::setting::{Program, Setting};

const BY_GATEWAY: &[Program] = &[Program::Gateway];

/// Where the gateway listens. By default only this machine reaches it.
pub static LISTEN: Setting<SocketAddr> = Setting::new(
    "RUNCAST_LISTEN",
    BY_GATEWAY,
    "address on which the gateway listens",
)
.default_value("127.0.0.1:7070");

/// How browsers reach the gateway.
pub static PUBLIC_URL: Setting<Url> = Setting::new(
    "RUNCAST_PUBLIC_URL",
    BY_GATEWAY,
    "origin by which browsers reach the gateway, such as https://runcast.example.com; with https \
     cookies are `Secure`",
)
.default_words("where it listens")
.address();

/// The certificate of the gateway.
pub static TLS_CERT: Setting<String> = Setting::new(
    "RUNCAST_TLS_CERT",
    BY_GATEWAY,
    "PEM file with the certificate chain, where no proxy in front of the gateway ends TLS; together \
     with RUNCAST_TLS_KEY. Both files are read again when they change",
);

/// The key of the certificate.
pub static TLS_KEY: Setting<String> = Setting::new(
    "RUNCAST_TLS_KEY",
    BY_GATEWAY,
    "PEM file with the private key of the certificate",
);

/// Whose `X-Forwarded-For` counts.
pub static TRUSTED_PROXIES: Setting<TrustedProxies> = Setting::new(
    "RUNCAST_TRUSTED_PROXIES",
    BY_GATEWAY,
    "addresses and networks of the proxies in front of the gateway, such as 10.0.0.0/8. Their \
     X-Forwarded-For names the client",
);

/// Whose pages may use the API.
pub static CORS_ORIGINS: Setting<Origins> = Setting::new(
    "RUNCAST_CORS_ORIGINS",
    BY_GATEWAY,
    "origins of other pages that may use the API with a token, separated by commas",
);

/// Rates and counts.
pub static LIMITS: Setting<LimitConfig> = Setting::new(
    "RUNCAST_LIMITS",
    BY_GATEWAY,
    "limits of the gateway, or off: a list of those that differ from the default. A rate may have a \
     burst (read=600/min:50), and each value may be off. write, read, search and ingest count \
     requests per principal, tokens of runs with the token or user that they come from, sign-in \
     attempts per address and per name, publish bytes per run, and \
     failed wrong credentials per address. streams (per principal), streams-by-address and \
     connections count what is open at one process; connections=10000 lowers the default, which is \
     as many as files may be open",
)
.default_value(
    "write=100/min,read=600/min,search=30/min,sign-in=5/min,ingest=3000/min,\
     publish=16MiB/s:64MiB,failed=30/min,streams=256,streams-by-address=1024",
);

/// Whether reads are recorded.
pub static AUDIT_READS: Setting<AuditReads> = Setting::new(
    "RUNCAST_AUDIT_READS",
    BY_GATEWAY,
    "on: each request that reads what runs printed (events, text, search, streams) becomes an entry \
     run.read of the audit log, and is answered 503 if it cannot be recorded",
)
.default_value("off");

/// When a gateway closes viewers to save its memory.
pub static MEMORY_LIMIT: Setting<ByteSize> = Setting::new(
    "RUNCAST_MEMORY_LIMIT",
    BY_GATEWAY,
    "resident memory, such as 512MiB, above which the gateway closes streams; their viewers resume \
     elsewhere",
);

/// Longer than a phone is without network in a tunnel, shorter than what a user takes for a dead
/// page.
pub static VIEWER_TIMEOUT: Setting<HumanDuration> = Setting::new(
    "RUNCAST_VIEWER_TIMEOUT",
    BY_GATEWAY,
    "how long a viewer may read nothing before the gateway closes its connection",
)
.default_value("30s");

/// Time for load balancers to notice that a gateway is about to stop.
pub static DRAIN_DELAY: Setting<HumanDuration> = Setting::new(
    "RUNCAST_DRAIN_DELAY",
    BY_GATEWAY,
    "how long a gateway that is told to stop goes on serving streams after /readyz turns negative, \
     15s at most",
);

/// How long a session lives without a request.
pub static SESSION_LIFE: Setting<HumanDuration> = Setting::new(
    "RUNCAST_SESSION_LIFE",
    BY_GATEWAY,
    "how long a browser session lasts without a request, from 2m to 30d. 30 days after its sign-in \
     it ends in any case",
)
.default_value("24h");

/// The same, where it is to be shorter.
pub static SESSION_IDLE: Setting<HumanDuration> = Setting::new(
    "RUNCAST_SESSION_IDLE",
    BY_GATEWAY,
    "the same where it is to be shorter, such as 30m",
)
.default_words("RUNCAST_SESSION_LIFE");

/// The OpenID Connect provider.
pub static OIDC_ISSUER: Setting<String> = Setting::new(
    "RUNCAST_OIDC_ISSUER",
    BY_GATEWAY,
    "OpenID Connect issuer by which users sign in, such as https://login.example.com. Needs \
     RUNCAST_PUBLIC_URL, RUNCAST_OIDC_CLIENT_ID and RUNCAST_OIDC_CLIENT_SECRET; register \
     `<RUNCAST_PUBLIC_URL>/v1/session/oidc/callback` there as redirect URI",
)
.address();

/// How the provider knows this installation.
pub static OIDC_CLIENT_ID: Setting<String> = Setting::new(
    "RUNCAST_OIDC_CLIENT_ID",
    BY_GATEWAY,
    "id of this installation at the issuer",
);

/// How this installation authenticates to the provider.
pub static OIDC_CLIENT_SECRET: Setting<String> = Setting::new(
    "RUNCAST_OIDC_CLIENT_SECRET",
    BY_GATEWAY,
    "secret of this installation at the issuer",
)
.secret();

/// What the page calls the provider.
pub static OIDC_NAME: Setting<String> = Setting::new(
    "RUNCAST_OIDC_NAME",
    BY_GATEWAY,
    "name of the issuer on the sign-in page",
)
.default_words("the host of the issuer");

/// Whether the provider decides who may sign in.
pub static OIDC_CREATE: Setting<String> = Setting::new(
    "RUNCAST_OIDC_CREATE",
    BY_GATEWAY,
    "on: a person that the issuer knows and Runcast does not becomes a user. off: only existing users \
     sign in, found by the address that the issuer has verified",
)
.default_value("off");

/// The role of users that the provider brings.
pub static OIDC_ROLE: Setting<String> = Setting::new(
    "RUNCAST_OIDC_ROLE",
    BY_GATEWAY,
    "role of users that RUNCAST_OIDC_CREATE makes",
)
.default_words("viewer");
