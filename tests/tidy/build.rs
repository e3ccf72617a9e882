//! `deploy/local/up` and `tests/run` share one build: the programs' dependencies have the same
//! features in both.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use runcast_tests::programs::repository;

use crate::sources::none;

/// Each library that cargo would build for these arguments, with its features.
fn libraries(arguments: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(repository())
        .args([
            "tree",
            "--offline",
            "--locked",
            "--prefix",
            "none",
            "--format",
            "{p}|{f}",
            "--no-dedupe",
        ])
        .args(arguments)
        .output()
        .expect("cargo");
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let mut libraries: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&tree.stdout).lines() {
        if let Some((library, features)) = line.split_once('|') {
            let features = features.split(',').map(str::to_owned);
            libraries
                .entry(library.to_owned())
                .or_default()
                .extend(features);
        }
    }
    libraries
}

#[test]
fn programs_and_tests_share_one_build() {
    let programs = [
        "--package",
        "runcast-api",
        "--package",
        "runcast-agent",
        "--edges",
        "normal,build",
    ];
    let all = libraries(&["--workspace", "--edges", "normal,build,dev"]);
    let mut findings = Vec::new();
    for (library, features) in libraries(&programs) {
        let more = all.get(&library).into_iter().flatten();
        let more: Vec<_> = more
            .filter(|feature| !features.contains(*feature))
            .collect();
        if !more.is_empty() && !library.starts_with("runcast-") {
            findings.push(format!("{library}: only the tests turn on {more:?}"));
        }
    }
    none(
        &findings,
        "Turn the features on for the programs as well (Cargo.toml says why), or off for the tests: otherwise every \
         crate above is built twice.",
    );
}
