//! Rules about which file may hold what: keys, SQL, routes, tasks.

use crate::sources::{Source, none, shipped_rust, sources};

/// Reports shipped lines that hold one of these words, outside of the places where they belong.
fn outside(files: &[Source], places: &[&str], words: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in files {
        if places.iter().any(|place| source.is_in(place)) {
            continue;
        }
        for (number, line) in source.shipped_code() {
            if let Some(word) = words.iter().find(|&&word| line.contains(word)) {
                findings.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    findings
}

#[test]
fn only_the_key_catalog_spells_a_redis_key() {
    let words = [
        ":run:",
        ":ready\"",
        "\"ready:",
        ":stream\"",
        ":meta\"",
        ":bell\"",
    ];
    let mut files = shipped_rust();
    for source in &mut files {
        // A path such as `crate::run::start` spells no key.
        source.text = source.text.replace("::", "  ");
    }
    let findings = outside(&files, &["common/src/protocol/keys.rs"], &words);
    none(
        &findings,
        "Ask runcast_common::keys for the key, and add it to the catalog there if it is new.",
    );
}

#[test]
fn only_the_store_holds_sql() {
    let words = [
        "sqlx::query",
        "SELECT ",
        "INSERT INTO",
        "UPDATE ",
        "DELETE FROM",
        "copy_in_raw",
    ];
    let findings = outside(&shipped_rust(), &["api/store/src"], &words);
    none(
        &findings,
        "Give api/store a function with a name, and call that.",
    );
}

#[test]
fn every_route_is_documented() {
    let mut files = shipped_rust();
    files.retain(|source| source.is_in("api/gateway/src"));
    let words = [
        ".route(",
        "route_service(",
        "nest_service(",
        "axum::routing",
    ];
    let findings = outside(&files, &[], &words);
    none(
        &findings,
        "Give the handler a `#[utoipa::path]` with its `security`, and register it by `routes!`.",
    );
}

#[test]
fn every_task_of_api_has_an_owner() {
    // The app owns the services; the hub's tails are tracked for it; the signals live as long as
    // the process.
    let owners = [
        "api/src/app",
        "api/fanout/src/hub.rs",
        "api/src/cli/command.rs",
    ];
    let mut files = shipped_rust();
    files.retain(|source| source.is_in("api"));
    let findings = outside(
        &files,
        &owners,
        &["tokio::spawn", "tasks.spawn", "thread::spawn"],
    );
    none(
        &findings,
        "Let api/src/app start it, so that its end is noticed.",
    );
}

#[test]
fn agent_and_api_never_see_each_other() {
    let cases = [
        ("agent", ["runcast-api", "runcast_api"]),
        ("api", ["runcast-agent", "runcast_agent"]),
        ("tests", ["runcast-agent", "runcast-api"]),
    ];
    let mut findings = Vec::new();
    for (folder, words) in cases {
        for source in sources(&[folder], &["toml"]) {
            let lines = source
                .text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'));
            for word in words {
                if lines.clone().any(|line| line.starts_with(word)) {
                    findings.push(format!("{}: {word}", source.path));
                }
            }
        }
        if folder != "tests" {
            findings.extend(outside(&sources(&[folder], &["rs"]), &[], &words));
        }
    }
    none(
        &findings,
        "What both ends need is the stream contract: it belongs into common.",
    );
}

#[test]
fn pages_of_the_core_know_no_view() {
    let mut findings = Vec::new();
    for source in sources(&["api/web/src/core"], &["ts", "tsx"]) {
        let imports = source.text.lines().filter(|line| line.contains(" from \""));
        let wrong = |line: &&str| line.contains("/view/") || line.contains("\"preact\"");
        findings.extend(
            imports
                .filter(wrong)
                .map(|line| format!("{}: {line}", source.path)),
        );
    }
    for source in sources(&["api/web/src"], &["ts", "tsx"]) {
        if source.text.contains("innerHTML") {
            findings.push(format!("{}: innerHTML", source.path));
        }
    }
    none(
        &findings,
        "The core of the page is plain TypeScript, and rows are text nodes.",
    );
}

#[test]
fn nothing_is_left_to_do_or_to_chance() {
    let rust = sources(&["agent", "api", "common", "tests"], &["rs"]);
    // Written in two parts, so that this file does not hold what it looks for.
    let everywhere = [
        concat!("#[", "ignore"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("db", "g!("),
    ];
    let mut findings = Vec::new();
    for source in &rust {
        // Unit tests as well.
        for (number, line) in (1..).zip(source.text.lines()) {
            if let Some(word) = everywhere.iter().find(|&&word| line.contains(word)) {
                findings.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    let panics = [".unwrap()", ".unwrap_err()"];
    findings.extend(outside(&shipped_rust(), &[], &panics));
    // Leaving at once is for a second signal.
    let leaving = ["process::exit("];
    findings.extend(outside(
        &shipped_rust(),
        &["api/src/app/signals.rs"],
        &leaving,
    ));
    none(
        &findings,
        "Finish it, or handle the error: a test that does not run and a panic that may come help nobody.",
    );
}
