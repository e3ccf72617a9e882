//! The order and the headings under which settings are shown.

use super::super::setting::Entry;
use super::{agent, gateway, servers, worker};

/// Settings under one heading.
#[derive(Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// The settings, in the order in which they are shown.
    pub entries: &'static [&'static Entry],
}

/// All settings.
pub static GROUPS: [Group; 10] = [
    Group {
        title: "Servers",
        entries: &[
            &servers::DATABASE_URL.entry,
            &servers::REDIS_URL.entry,
            &servers::REDIS_CA.entry,
            &servers::PUBLISH_REDIS_URL.entry,
            &servers::KEY_PREFIX.entry,
        ],
    },
    Group {
        title: "Every service",
        entries: &[
            &servers::ENV.entry,
            &servers::ALLOW_PLAINTEXT.entry,
            &servers::METRICS_LISTEN.entry,
            &servers::LOG.entry,
            &servers::LOG_FORMAT.entry,
        ],
    },
    Group {
        title: "Gateway",
        entries: &[
            &gateway::LISTEN.entry,
            &gateway::PUBLIC_URL.entry,
            &gateway::TLS_CERT.entry,
            &gateway::TLS_KEY.entry,
            &gateway::TRUSTED_PROXIES.entry,
            &gateway::CORS_ORIGINS.entry,
            &gateway::LIMITS.entry,
            &gateway::AUDIT_READS.entry,
            &gateway::MEMORY_LIMIT.entry,
            &gateway::VIEWER_TIMEOUT.entry,
            &gateway::DRAIN_DELAY.entry,
        ],
    },
    Group {
        title: "Sign-in",
        entries: &[
            &gateway::SESSION_LIFE.entry,
            &gateway::SESSION_IDLE.entry,
            &gateway::OIDC_ISSUER.entry,
            &gateway::OIDC_CLIENT_ID.entry,
            &gateway::OIDC_CLIENT_SECRET.entry,
            &gateway::OIDC_NAME.entry,
            &gateway::OIDC_CREATE.entry,
            &gateway::OIDC_ROLE.entry,
        ],
    },
    Group {
        title: "Persister",
        entries: &[&servers::REDIS_BUDGET.entry],
    },
    Group {
        title: "Retention and archive",
        entries: &[
            &worker::RETENTION.entry,
            &worker::RETENTION_RULES.entry,
            &worker::AUDIT_RETENTION.entry,
            &worker::ARCHIVE.entry,
            &worker::ARCHIVE_AFTER.entry,
        ],
    },
    Group {
        title: "Liveness of agents",
        entries: &[&worker::STALE_AFTER.entry, &worker::LOST_AFTER.entry],
    },
    Group {
        title: "Webhooks",
        entries: &[
            &worker::WEBHOOK_ALLOW.entry,
            &worker::WEBHOOK_TIMEOUT.entry,
            &worker::WEBHOOK_FIRST_RETRY.entry,
            &worker::WEBHOOK_GIVE_UP.entry,
            &worker::WEBHOOK_LOG.entry,
        ],
    },
    Group {
        title: "On one machine",
        entries: &[&servers::DATA_DIR.entry],
    },
    Group {
        title: "Agents",
        entries: &[
            &agent::URL.entry,
            &agent::TOKEN.entry,
            &agent::TRANSPORT.entry,
            &agent::SPOOL.entry,
            &agent::RUN.entry,
            &agent::VARIATION.entry,
        ],
    },
];

/// All settings, without headings.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    GROUPS.iter().flat_map(|group| group.entries).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::super::super::setting::DefaultValue;
    use super::*;

    /// Variables of the tests' own scripts; no program reads them.
    const OF_TESTS: [&str; 5] = [
        "RUNCAST_E2E_",
        "RUNCAST_BENCH_",
        "RUNCAST_CLIENTS_",
        "RUNCAST_KILLS",
        "RUNCAST_SCHEMATHESIS",
    ];

    #[test]
    fn every_default_can_be_read_by_its_own_parser() {
        for entry in entries() {
            if let DefaultValue::Value(text) = entry.default {
                assert_eq!((entry.check)(text), Ok(()), "{}", entry.name);
            }
        }
    }

    #[test]
    fn a_setting_stands_once() {
        let mut names = BTreeSet::new();
        for entry in entries() {
            assert!(names.insert(entry.name), "{} stands twice", entry.name);
        }
    }

    #[test]
    fn every_variable_that_the_code_reads_is_in_the_table() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let known: BTreeSet<&str> = entries().map(|entry| entry.name).collect();
        for folder in ["api", "agent", "common", "deploy"] {
            let mut files = Vec::new();
            source_files(&root.join(folder), &mut files);
            assert!(!files.is_empty(), "no sources in {folder}");
            for path in files {
                let Ok(text) = std::fs::read_to_string(&path) else {
                    continue;
                };
                for name in variables(&text) {
                    let of_tests = OF_TESTS.iter().any(|prefix| name.starts_with(prefix));
                    assert!(
                        known.contains(name) || of_tests,
                        "{} reads {name}: declare it in api/src/settings/table",
                        path.display()
                    );
                }
            }
        }
    }

    fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(folder).expect("a folder");
        for entry in entries.map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            // Downloaded, built, or full of names that are wrong on purpose.
            if ["web", "target", "settings", "tests"].contains(&name.as_ref()) {
                continue;
            }
            if entry.is_dir() {
                source_files(&entry, files);
            } else {
                files.push(entry);
            }
        }
    }

    /// The names of variables in a text, without prefixes such as `RUNCAST_OIDC_`.
    fn variables(text: &str) -> impl Iterator<Item = &str> {
        let starts = text.match_indices("RUNCAST_").map(|(start, _)| start);
        starts.filter_map(|start| {
            let rest = &text[start..];
            let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let end = rest.find(|c| !plain(c)).unwrap_or(rest.len());
            let name = &rest[..end];
            (!name.ends_with('_')).then_some(name)
        })
    }
}
