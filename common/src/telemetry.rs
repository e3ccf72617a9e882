//! How a program tells its operator what it does: one line an event on stderr. `RUNCAST_LOG` filters
//! (`info`, `runcast_api=debug,warn`, ...), `RUNCAST_LOG_FORMAT` is `text` or `json`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

use crate::config::{ConfigError, Env, optional};

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It was started before in this process.
    #[error("telemetry was started twice: {0}")]
    Twice(#[from] TryInitError),
}

/// Who reads what a program says, if `RUNCAST_LOG_FORMAT` does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A person at a terminal, else a collector of logs, which gets JSON.
    Operator,
    /// A person, in any case: the program speaks amid what another one prints.
    Person,
}

/// Starts telemetry for this process, with `default_filter` where `RUNCAST_LOG` is not set.
///
/// # Errors
/// [`TelemetryError`] for a setting that makes no sense, or a second start.
pub fn start(
    env: &impl Env,
    default_filter: &str,
    audience: Audience,
) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let filter = optional::<EnvFilter>(env, "RUNCAST_LOG")?
        .unwrap_or_else(|| EnvFilter::new(default_filter));
    let terminal = std::io::stderr().is_terminal();
    let json = match env.get("RUNCAST_LOG_FORMAT").as_deref() {
        None => !terminal && audience == Audience::Operator,
        Some("text") => false,
        Some("json") => true,
        Some(_) => {
            return Err(TelemetryError::Config(ConfigError::Invalid {
                name: "RUNCAST_LOG_FORMAT",
                reason: "expected text or json".into(),
            }));
        }
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        builder.json().flatten_event(true).finish().try_init()?;
    } else {
        let colour = terminal && env.get("NO_COLOR").is_none();
        builder.with_ansi(colour).finish().try_init()?;
    }
    Ok(())
}
