//! The run that a process belongs to, as its environment says.
//!
//! `runcast wrap` tells its command by `RUNCAST_RUN` and `RUNCAST_VARIATION` which run it
//! publishes, so a program in it can join that run, by
//! [`join_run`](super::GatewayClient::join_run). The wrap reports the end of the variation: such a
//! program closes its publisher, and does not [finish](crate::Publisher::finish) it.

use runcast_common::config::{ConfigError, Env, optional};
use uuid::Uuid;

/// The name of the variable with the run.
const RUN_VARIABLE: &str = "RUNCAST_RUN";

/// The name of the variable with the variation.
const VARIATION_VARIABLE: &str = "RUNCAST_VARIATION";

/// The run that a process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentRun {
    /// The run.
    pub run: Uuid,
    /// The variation that an outer `runcast wrap` publishes; none without such a process.
    pub variation: Option<u16>,
}

impl CurrentRun {
    /// Reads the variables; none if no run is named.
    pub fn from_env(env: &impl Env) -> Result<Option<Self>, ConfigError> {
        let Some(run) = optional(env, RUN_VARIABLE)? else {
            return Ok(None);
        };
        let variation = optional(env, VARIATION_VARIABLE)?;
        Ok(Some(Self { run, variation }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn run_and_variation_are_read_and_wrong_ones_are_refused_by_name() {
        let read = |env: &[(&str, &str)]| {
            let env: HashMap<&str, &str> = env.iter().copied().collect();
            CurrentRun::from_env(&env)
        };
        let run = Uuid::from_u128(7);
        let text = run.to_string();
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[(VARIATION_VARIABLE, "1")]), Ok(None));
        for (variation, expected) in [("3", Some(3)), ("", None)] {
            let env = [
                (RUN_VARIABLE, text.as_str()),
                (VARIATION_VARIABLE, variation),
            ];
            let variation = expected;
            assert_eq!(read(&env), Ok(Some(CurrentRun { run, variation })));
        }
        for (run, variation, name) in [
            ("x", "0", RUN_VARIABLE),
            (text.as_str(), "-1", VARIATION_VARIABLE),
        ] {
            let error = read(&[(RUN_VARIABLE, run), (VARIATION_VARIABLE, variation)]);
            let error = error.expect_err("refused").to_string();
            assert!(
                error.starts_with(&format!("{name} is not valid")),
                "{error}"
            );
        }
    }
}
