//! What applies to this process: the value of each setting of the services, and where it comes
//! from.

use std::fmt::Write as _;

use runcast_common::config::Env;

use super::setting::Program;
use super::table::entries;

/// One line for each setting: name, `environment` or `default`, value. Secrets are hidden.
pub fn report(env: &impl Env) -> String {
    let mut text = String::new();
    let of_services = entries().filter(|entry| entry.readers != [Program::Agent]);
    for entry in of_services {
        let (source, value) = match env.get(entry.name) {
            Some(given) => ("environment", (entry.printable)(&given)),
            None => ("default", entry.default.text().to_owned()),
        };
        // A String takes all that is written to it.
        _ = writeln!(text, "{:<27}  {source:<11}  {value}", entry.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_report_shows_values_and_sources_and_no_secret() {
        let env = HashMap::from([
            ("DATABASE_URL", "postgres://me:s3cret@host/db"),
            ("REDIS_URL", "redis://me:s3cret@host"),
            ("RUNCAST_PUBLIC_URL", "https://me:s3cret@host"),
            ("RUNCAST_OIDC_CLIENT_SECRET", "s3cret"),
            ("RUNCAST_LISTEN", "0.0.0.0:80"),
            ("RUNCAST_ENV", ""),
        ]);
        let report = report(&env);
        assert!(!report.contains("s3cret"), "{report}");
        let columns = |name: &str| {
            let line = report.lines().find(|line| line.starts_with(name));
            let words = line.expect(name).split_whitespace();
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            columns("RUNCAST_LISTEN"),
            ["RUNCAST_LISTEN", "environment", "0.0.0.0:80"]
        );
        assert_eq!(
            columns("RUNCAST_ENV"),
            ["RUNCAST_ENV", "default", "development"]
        );
        assert_eq!(
            columns("DATABASE_URL"),
            ["DATABASE_URL", "environment", "postgres://me:***@host/db"]
        );
    }
}
