//! Logging to stderr, one line per event. `RUNCAST_LOG` is the filter (`info`,
//! `runcast_gateway=debug,warn`, ...), `RUNCAST_LOG_FORMAT` is `text` or `json`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

use crate::config::{ConfigError, Env, optional};

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A setting is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The process has a logger already.
    #[error("telemetry was started twice: {0}")]
    Twice(#[from] TryInitError),
}

/// The reader of the log, which decides the format where `RUNCAST_LOG_FORMAT` is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A person at a terminal (text), otherwise a log collector (JSON).
    Operator,
    /// Always a person (text): the lines appear among the output of another program.
    Person,
}

/// Starts logging for this process, with `default_filter` where `RUNCAST_LOG` is not set.
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
