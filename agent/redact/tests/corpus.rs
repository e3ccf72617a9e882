//! Recall and precision over real output: `tests/corpus/redaction`.
//!
//! - `planted.json`: how programs print secrets, made by `plant.py` with these programs;
//! - `outputs/`: what tools printed that know no secret. It must stay as it is under variables
//!   of ordinary installations.
//!
//! `cargo test -p runcast-redact --test corpus -- --nocapture` prints the figures.

#![expect(clippy::print_stdout, reason = "the figures")]

use std::fs;
use std::path::PathBuf;

use runcast_redact::{EnvRedaction, MASK, Redactor, from_variables};
use tokio::time::Instant;

/// Characters of an encoded secret that depend on what stands beside it.
const MAX_EDGE_CHARS: usize = 2;

/// Variables whose names look secret and whose values stand in ordinary output, and real secrets.
const ENVIRONMENTS: [&[(&str, &str)]; 10] = [
    &[
        ("MYSQL_PASSWORD", "docker"),
        ("PARTITION_KEY", "customer_id"),
        ("API_TOKEN", "undefined"),
    ],
    &[
        ("SORT_KEY", "created_at"),
        ("CACHE_KEY", "node-modules-v3"),
        ("POSTGRES_PASSWORD", "postgres"),
    ],
    &[
        ("REDIS_PASSWORD", "redis"),
        ("ADMIN_PASSWORD", "default"),
        ("SECRET_NAME", "version"),
    ],
    &[
        ("TOKEN_TYPE", "bearer"),
        ("OAUTH_TOKEN_URL", "https://example.com/token"),
        ("X_KEY", "server"),
    ],
    &[
        ("DB_PASSWORD", "password"),
        ("APP_SECRET", "changeme"),
        ("AUTH_TOKEN", "your-token-here"),
    ],
    &[
        ("GIT_TOKEN", "github"),
        ("BUILD_KEY", "linux-x86_64"),
        ("SIGNING_KEY_ID", "release"),
    ],
    &[
        ("DB_PASSWORD", "hunter22"),
        ("API_KEY", "9f86d081884c7d659a2feaa0c55ad015"),
    ],
    &[(
        "APP_SECRET",
        r#"{"user": "version", "mode": "install", "password": "correct-horse-9"}"#,
    )],
    &[(
        "DATABASE_URL",
        "postgres://postgres:s3cr3t-pw@localhost:5432/postgres",
    )],
    &[
        ("DB_CREDENTIALS", "package\nS3cr3tPw9\n"),
        ("TLS_KEY", "/etc/ssl/private/server.key"),
    ],
];

fn corpus(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../../tests/corpus/redaction").join(name)
}

fn redactor(variables: &[(&str, &str)]) -> Redactor {
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    from_variables(variables, &EnvRedaction::Usual(Vec::new())).0
}

/// The text after a stream that read it in pieces of this size.
fn redacted(redactor: &Redactor, text: &str, size: usize) -> String {
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    for piece in text.as_bytes().chunks(size) {
        stream.push(piece, Instant::now(), &mut out);
    }
    stream.finish(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The characters of a planted secret that are still readable.
fn readable(output: &str, before: &str, after: &str) -> usize {
    let mask = String::from_utf8_lossy(MASK);
    let rest = output.strip_prefix(before).unwrap_or(output);
    let rest = rest.strip_suffix(after).unwrap_or(rest);
    let mut rest = rest.replace(&*mask, "");
    // Colours are kept.
    while let Some(start) = rest.find("\x1b[") {
        let end = rest[start..]
            .find('m')
            .map_or(rest.len(), |end| start + end + 1);
        rest.replace_range(start..end, "");
    }
    rest.trim().chars().count()
}

#[test]
fn planted_secrets_are_redacted() {
    let planted = fs::read(corpus("planted.json")).expect("the corpus");
    let planted: serde_json::Value = serde_json::from_slice(&planted).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let (mut count, mut missed) = (0, Vec::new());
    for entry in planted.as_array().expect("entries") {
        let variables = entry["variables"].as_object().expect("variables");
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (&**name, value.as_str().expect("a text")))
            .collect();
        let redactor = redactor(&variables);
        for output in entry["outputs"].as_array().expect("outputs") {
            let parts: Vec<String> = output.as_array().expect("parts").iter().map(text).collect();
            let [program, before, secret, after] = &parts[..] else {
                panic!("{parts:?}")
            };
            for size in [1, 7, 4096] {
                count += 1;
                let shown = redacted(&redactor, &format!("{before}{secret}{after}"), size);
                if readable(&shown, before, after) > MAX_EDGE_CHARS {
                    missed.push(format!(
                        "{program}, pieces of {size}: {secret:?} shown as {shown:?}"
                    ));
                }
            }
        }
    }
    let recall = 100.0 * (count - missed.len()) as f64 / count as f64;
    println!("recall: {recall:.2} % of {count}; missed {}", missed.len());
    assert!(
        count > 2000 && recall >= 99.0,
        "{recall}: {}",
        missed.join("\n")
    );
}

#[test]
fn ordinary_output_stays_readable() {
    let mut words = 0;
    let mut blanked = Vec::new();
    for variables in ENVIRONMENTS {
        let redactor = redactor(variables);
        for file in fs::read_dir(corpus("outputs")).expect("the corpus") {
            let path = file.expect("a file").path();
            let text = fs::read(&path).expect("a text");
            let text = String::from_utf8_lossy(&text).into_owned();
            words += text.split_whitespace().count();
            let shown = redacted(&redactor, &text, 4096);
            for (line, shown) in text.lines().zip(shown.lines()) {
                if line != shown {
                    blanked.push(format!("{}: {line:?} shown as {shown:?}", path.display()));
                }
            }
        }
    }
    let rate = 100_000.0 * blanked.len() as f64 / words as f64;
    println!(
        "precision: {} of {words} words blanked, {rate:.2} in 100,000",
        blanked.len()
    );
    assert!(
        words > 200_000 && rate <= 1.0,
        "{rate}: {}",
        blanked.join("\n")
    );
}
