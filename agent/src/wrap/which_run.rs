//! Which run and variation this process publishes: those that its options name, else those of its
//! environment, else a new run.
//!
//! `runcast wrap` sets `RUNCAST_RUN` and `RUNCAST_VARIATION` for its command. Where both are set,
//! the output of this process is published already, and it publishes nothing unless it names
//! another run or variation. `RUNCAST_RUN` alone names a run to join, as `--run` does, unless the
//! options describe a new one.

use runcast_common::config::{ConfigError, Env};
use runcast_publisher::gateway_client::CurrentRun;

use super::run::WrapOptions;

/// The options with the run to join and its variation; none if an outer `runcast wrap` publishes
/// that variation already.
pub(super) fn which_run(
    options: &WrapOptions,
    env: &impl Env,
) -> Result<Option<WrapOptions>, ConfigError> {
    let mut options = options.clone();
    let Some(current) = CurrentRun::from_env(env)? else {
        return Ok(Some(options));
    };
    let Some(published) = current.variation else {
        if options.run.is_none() && !options.describes_new_run {
            options.run = Some(current.run);
        }
        return Ok(Some(options));
    };
    let run = options.run.unwrap_or(current.run);
    let is_published = run == current.run;
    if is_published && !options.names_variation {
        options.variation = published;
    }
    options.run = Some(run);
    let is_published = is_published && options.variation == published;
    Ok((!is_published).then_some(options))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use clap::Parser as _;
    use uuid::Uuid;

    use super::*;
    use crate::cli::{Cli, Command};

    const RUN: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    /// The run and variation that `wrap` with these arguments publishes.
    fn published(env: &[(&str, String)], arguments: &[&str]) -> Option<(Option<Uuid>, u16)> {
        let all = [&["runcast", "wrap"], arguments, &["--", "true"]].concat();
        let Ok(Command::Wrap(wrap)) = Cli::try_parse_from(all).map(|cli| cli.command) else {
            panic!("not parsed: {arguments:?}")
        };
        let env: HashMap<&str, &str> = env.iter().map(|(name, it)| (*name, it.as_str())).collect();
        let found = which_run(&wrap.into(), &env).expect("a valid environment");
        found.map(|options| (options.run, options.variation))
    }

    #[test]
    fn a_run_in_the_environment_is_joined_unless_options_say_otherwise() {
        let env = [("RUNCAST_RUN", RUN.to_string())];
        let other = OTHER.to_string();
        assert_eq!(published(&[], &[]), Some((None, 0)));
        assert_eq!(published(&env, &[]), Some((Some(RUN), 0)));
        let variation = &["--variation", "2"];
        assert_eq!(published(&env, variation), Some((Some(RUN), 2)));
        let joined = published(&env, &["--run", &other]);
        assert_eq!(joined, Some((Some(OTHER), 0)));
        for new in [["--name", "x"], ["--label", "a=b"], ["--variations", "2"]] {
            assert_eq!(published(&env, &new), Some((None, 0)), "{new:?}");
        }
    }

    #[test]
    fn what_an_outer_wrap_publishes_is_not_published_again() {
        let env = [
            ("RUNCAST_RUN", RUN.to_string()),
            ("RUNCAST_VARIATION", "1".to_owned()),
        ];
        let (run, other) = (RUN.to_string(), OTHER.to_string());
        for same in [
            &[][..],
            &["--name", "x"],
            &["--run", &run],
            &["--variation", "1"],
            &["--run", &run, "--variation", "1"],
        ] {
            assert_eq!(published(&env, same), None, "{same:?}");
        }
        for (arguments, expected) in [
            (&["--variation", "0"][..], (Some(RUN), 0)),
            (&["--run", &run, "--variation", "2"], (Some(RUN), 2)),
            (&["--run", &other], (Some(OTHER), 0)),
            (&["--run", &other, "--variation", "1"], (Some(OTHER), 1)),
        ] {
            assert_eq!(published(&env, arguments), Some(expected), "{arguments:?}");
        }
    }
}
