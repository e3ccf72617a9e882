//! Rules about layers: which crate may depend on which, which library belongs to which crate, and
//! that the parts of a crate do not depend on each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::rust::{Rust, crates, rust_files};
use crate::sources::{none, sources};

/// Every crate that ships, its folder, and the crates of the workspace that it may depend on.
const LAYERS: [(&str, &str, &[&str]); 14] = [
    ("runcast-common", "common", &[]),
    ("runcast-redact", "agent/redact", &["common"]),
    (
        "runcast-publisher",
        "agent/publisher",
        &["common", "redact"],
    ),
    ("runcast-agent", "agent", &["common", "redact", "publisher"]),
    ("runcast-store", "api/store", &["common"]),
    ("runcast-history", "api/history", &["common", "store"]),
    ("runcast-access", "api/access", &["common", "store"]),
    ("runcast-persister", "api/persister", &["common", "store"]),
    (
        "runcast-webhooks",
        "api/webhooks",
        &["common", "store", "access"],
    ),
    (
        "runcast-fanout",
        "api/fanout",
        &["common", "store", "history", "access"],
    ),
    (
        "runcast-worker",
        "api/worker",
        &["common", "store", "history", "webhooks"],
    ),
    (
        "runcast-gateway",
        "api/gateway",
        &["common", "store", "history", "access", "webhooks", "fanout"],
    ),
    ("runcast-export", "api/export", &["common", "store"]),
    (
        "runcast-api",
        "api",
        &[
            "common",
            "store",
            "history",
            "access",
            "persister",
            "webhooks",
            "fanout",
            "worker",
            "gateway",
        ],
    ),
];

/// Libraries that belong to some crates alone, by folder.
const LIBRARIES: [(&str, &[&str]); 4] = [
    ("axum", &["api/gateway", "api/src/metrics.rs"]),
    ("sqlx", &["api/store"]),
    (
        "reqwest",
        &[
            "api/webhooks",
            "api/access/src/oidc",
            "agent/publisher/src/gateway_client",
            "agent/src/tail",
        ],
    ),
    ("parquet", &["api/export"]),
];

/// The crates of the workspace that a manifest names under one of these headings.
fn dependencies(manifest: &str, headings: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut counts = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            counts = headings.contains(&line);
        } else if counts && let Some(rest) = line.strip_prefix("runcast-") {
            let end = rest.find(['.', ' ', '=']).unwrap_or(rest.len());
            found.insert(rest[..end].to_owned());
        }
    }
    found
}

#[test]
fn crates_depend_on_lower_layers_only() {
    let mut findings = Vec::new();
    for (name, folder, allowed) in LAYERS {
        let path = format!("{folder}/Cargo.toml");
        let manifests = sources(&[folder], &["toml"]);
        let Some(manifest) = manifests.iter().find(|source| source.path == path) else {
            findings.push(format!("{path} is missing: {name} belongs there"));
            continue;
        };
        for dependency in dependencies(&manifest.text, &["[dependencies]", "[build-dependencies]"])
        {
            if !allowed.contains(&dependency.as_str()) {
                findings.push(format!(
                    "{path}: {name} may not depend on runcast-{dependency}"
                ));
            }
        }
        // Tests of a crate may use the harness, which knows only the contract.
        for dependency in dependencies(&manifest.text, &["[dev-dependencies]"]) {
            if dependency != "tests"
                && !allowed.contains(&dependency.as_str())
                && format!("runcast-{dependency}") != name
            {
                findings.push(format!(
                    "{path}: the tests of {name} may not use runcast-{dependency}"
                ));
            }
        }
    }
    let manifests = sources(&["tests"], &["toml"]);
    for manifest in manifests
        .iter()
        .filter(|source| source.path == "tests/Cargo.toml")
    {
        for dependency in dependencies(&manifest.text, &["[dependencies]", "[dev-dependencies]"]) {
            if dependency != "common" {
                findings.push(format!(
                    "tests/Cargo.toml: stories see programs from outside, not runcast-{dependency}"
                ));
            }
        }
    }
    none(
        &findings,
        "Turn the dependency round, hand the value in, or move what both need into a lower layer; the layers stand in \
         tests/tidy/layers.rs.",
    );
}

#[test]
fn libraries_are_used_where_they_belong() {
    let mut findings = Vec::new();
    for file in rust_files(&["agent", "api", "common"]) {
        for (library, places) in LIBRARIES {
            if places.iter().any(|place| file.is_in(place)) {
                continue;
            }
            let uses = [format!("{library}::"), format!("use {library};")];
            for (number, line) in file.shipped_lines() {
                if uses.iter().any(|text| names(line, text)) {
                    findings.push(format!("{}:{number}: {library}", file.path));
                }
            }
        }
    }
    none(
        &findings,
        "Let the crate that owns the library do it, by a function with a name.",
    );
}

/// Whether a line holds a path that begins with this, and not as the end of a longer name.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|one| one.is_alphanumeric() || one == '_' || one == ':')
    })
}

#[test]
fn parts_of_a_crate_form_no_circle() {
    let mut findings = Vec::new();
    for (folder, files) in crates() {
        let exports = exports(&files, &folder);
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in &files {
            let Some(part) = file.part(&folder) else {
                continue;
            };
            for used in file.uses_of_own_crate(&folder, &exports) {
                if used != part {
                    edges.entry(part.clone()).or_default().insert(used);
                }
            }
        }
        if let Some(circle) = circle(&edges) {
            findings.push(format!("{folder}: {}", circle.join(" -> ")));
        }
    }
    none(
        &findings,
        "Let the lower part know nothing of the upper one: hand a value in, or move what both need into a part of its own.",
    );
}

/// What `lib.rs` re-exports, and from which part.
fn exports(files: &[Rust], folder: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    let Some(lib) = files
        .iter()
        .find(|file| file.path == format!("{folder}/lib.rs"))
    else {
        return exports;
    };
    for (_, line) in lib.shipped_lines() {
        let Some(path) = line.trim().strip_prefix("pub use ") else {
            continue;
        };
        let path = path
            .trim_start_matches("crate::")
            .trim_start_matches("self::");
        let Some((part, rest)) = path.split_once("::") else {
            continue;
        };
        let names = rest.split(|one: char| !(one.is_alphanumeric() || one == '_'));
        for name in names.filter(|name| !name.is_empty()) {
            exports.insert(name.to_owned(), part.to_owned());
        }
    }
    exports
}

/// The parts on a circle of dependencies, if there is one, the first of them again at the end.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        at: &str,
        edges: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|one| one == at) {
            let mut circle = path[start..].to_vec();
            circle.push(at.to_owned());
            return Some(circle);
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        path.push(at.to_owned());
        for next in edges.get(at).into_iter().flatten() {
            if let Some(circle) = walk(next, edges, path, done) {
                return Some(circle);
            }
        }
        path.pop();
        None
    }
    let mut done = BTreeSet::new();
    edges
        .keys()
        .find_map(|start| walk(start, edges, &mut Vec::new(), &mut done))
}

#[test]
fn a_circle_is_found() {
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            edges
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        edges
    };
    assert_eq!(circle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = circle(&edges(&[("a", "b"), ("b", "c"), ("c", "b")])).expect("a circle");
    assert_eq!(found, ["b", "c", "b"]);
}
