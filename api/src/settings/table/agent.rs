//! What agents read besides: declared here so that help is complete and no known name is taken for
//! a mistake. The agent reads them with code of its own.

use url::Url;

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
    "token with the scope runs:publish (wrap, resend), runs:read (tail) or runs:delete (delete)",
)
.default_words("required; on one machine the token of `runcastd dev`")
.secret();

/// Where unstored events survive the process.
pub static SPOOL: Setting<String> = Setting::new(
    "RUNCAST_SPOOL",
    BY_AGENTS,
    "folder in which an agent keeps events until they are stored. `runcast resend` sends what a \
     process left there",
)
.default_words("in memory only");
