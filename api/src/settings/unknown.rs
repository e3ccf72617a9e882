//! Warns about `RUNCAST_*` variables that no program reads: most are names with a mistake, whose
//! setting is silently at its default.

use runcast_common::config::{Env as _, ProcessEnv};
use tracing::warn;

use super::table::entries;

const NAME_PREFIX: &str = "RUNCAST_";

/// Logs one warning that names all unknown variables of this process, each with the known name that
/// is nearest to it.
pub fn warn_about_unknown() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    // An empty setting counts as absent.
    let given = names.filter(|name| ProcessEnv.get(name).is_some());
    let unknown: Vec<String> = given.filter_map(|name| unknown(&name)).collect();
    if !unknown.is_empty() {
        warn!(
            "no program reads these environment variables: {}",
            unknown.join(", ")
        );
    }
}

/// What to say about a variable, if it is of ours and unknown.
fn unknown(name: &str) -> Option<String> {
    let rest = name.strip_prefix(NAME_PREFIX)?;
    if entries().any(|entry| entry.name == name) || is_service_link(rest) {
        return None;
    }
    let distances = entries().filter_map(|entry| {
        let known = entry.name.strip_prefix(NAME_PREFIX)?;
        Some((strsim::damerau_levenshtein(rest, known), entry.name))
    });
    // A name that shares less than half with it is no help.
    let nearest = distances
        .min()
        .filter(|(distance, _)| distance * 2 <= rest.len());
    Some(match nearest {
        Some((_, known)) => format!("{name} (did you mean {known}?)"),
        None => name.to_owned(),
    })
}

/// Whether Kubernetes has set it: for a service named `runcast` or `runcast-...` every pod of its
/// namespace gets `..._SERVICE_HOST`, `..._SERVICE_PORT`, `..._SERVICE_PORT_HTTP`, `..._PORT` and
/// `..._PORT_80_TCP_ADDR`.
fn is_service_link(rest: &str) -> bool {
    let is_port = |words: &[&str]| match words {
        [] => true,
        [number, "TCP" | "UDP" | "SCTP", detail @ ..] => {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            is_number && matches!(detail, [] | ["PROTO" | "PORT" | "ADDR"])
        }
        _ => false,
    };
    let words: Vec<&str> = rest.split('_').collect();
    (0..words.len()).any(|start| match &words[start..] {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        ["PORT", port @ ..] => is_port(port),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_comes_with_the_nearest_known_one() {
        for (name, said) in [
            (
                "RUNCAST_LISTN",
                "RUNCAST_LISTN (did you mean RUNCAST_LISTEN?)",
            ),
            (
                "RUNCAST_MERTICS_LISTEN",
                "RUNCAST_MERTICS_LISTEN (did you mean RUNCAST_METRICS_LISTEN?)",
            ),
            (
                "RUNCAST_TOKENS",
                "RUNCAST_TOKENS (did you mean RUNCAST_TOKEN?)",
            ),
            ("RUNCAST_QUOKKA", "RUNCAST_QUOKKA"),
        ] {
            assert_eq!(unknown(name).as_deref(), Some(said));
        }
    }

    #[test]
    fn known_names_foreign_names_and_service_links_are_let_be() {
        for name in [
            "RUNCAST_LISTEN",
            "RUNCAST_SPOOL",
            "PATH",
            "RUNCAST_SERVICE_HOST",
            "RUNCAST_SERVICE_PORT_HTTP",
            "RUNCAST_PORT",
            "RUNCAST_PORT_80_TCP",
            "RUNCAST_PORT_80_TCP_ADDR",
            "RUNCAST_GATEWAY_SERVICE_HOST",
            "RUNCAST_GATEWAY_PORT_7070_TCP_PROTO",
        ] {
            assert_eq!(unknown(name), None, "{name}");
        }
    }
}
