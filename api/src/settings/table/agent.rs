//! What agents read besides: declared here so that help is complete and no known name is taken for
//! a mistake. The agent reads them with code of its own.

use url::Url;
use uuid::Uuid;

use crate::settings::setting::{Program, Setting};

const BY_AGENTS: &[Program] = &[Program::Agent];

/// The gateway.
pub static URL: Setting<Url> = Setting::new(
    "RUNCAST_URL",
    BY_AGENTS,
    "address of the gateway, such as http://runcast:7070",
)
.default_words("required; on one machine `runcast` finds a running `runcastd dev`")
.address();

/// The token of the agent.
pub static TOKEN: Setting<String> = Setting::new(
    "RUNCAST_TOKEN",
    BY_AGENTS,
    "token with the scope runs:publish (wrap, resend), runs:read (tail), runs:delete (delete) or runs:redact (redact)",
)
.default_words("required; on one machine the token of `runcastd dev`")
.secret();

/// How events leave the agent.
pub static TRANSPORT: Setting<String> = Setting::new(
    "RUNCAST_TRANSPORT",
    BY_AGENTS,
    "how an agent publishes: `gateway`, over HTTP; `redis`, to Redis directly; or `auto`, to Redis \
     where the gateway hands out its address and it answers, else over HTTP",
)
.default_value("auto");

/// The run to join.
pub static RUN: Setting<Uuid> = Setting::new(
    "RUNCAST_RUN",
    BY_AGENTS,
    "id of the run that `runcast wrap` joins, as by --run. Set by `wrap` for its command",
)
.default_words("a new run");

/// What an outer `runcast wrap` publishes.
pub static VARIATION: Setting<u16> = Setting::new(
    "RUNCAST_VARIATION",
    BY_AGENTS,
    "variation that a `runcast wrap` around this process publishes. Set by `wrap` for its command: an \
     inner `wrap` then publishes nothing, unless it names another run or variation",
)
.default_words("set by `wrap`");

/// Where unstored events survive the process.
pub static SPOOL: Setting<String> = Setting::new(
    "RUNCAST_SPOOL",
    BY_AGENTS,
    "folder in which an agent keeps events until they are stored. `runcast resend` sends what a \
     process left there",
)
.default_words("in memory only");
