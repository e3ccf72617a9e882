//! Which markers are detected in the output: `--markers`.

use std::str::FromStr;

use runcast_common::config::Env;

/// The requested markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerSelection {
    /// Markers of GitLab and GitHub; those of Buildkite only if its agent runs this process
    /// (`BUILDKITE` is set), since unified diffs have similar lines.
    Auto,
    /// Exactly these.
    Only(Markers),
}

impl MarkerSelection {
    /// Resolves `Auto` for this environment.
    pub(crate) fn resolve(self, env: &impl Env) -> Markers {
        match self {
            Self::Only(markers) => markers,
            Self::Auto => Markers {
                gitlab: true,
                github: true,
                buildkite: env.get("BUILDKITE").is_some(),
            },
        }
    }
}

/// The families of markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Markers {
    /// `section_start:...`
    pub gitlab: bool,
    /// `::group::...`, `##[group]...` and the other workflow commands, Azure's among them.
    pub github: bool,
    /// `--- title`
    pub buildkite: bool,
}

impl Markers {
    pub(crate) const fn any(self) -> bool {
        self.gitlab || self.github || self.buildkite
    }
}

/// A word that names no markers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown markers {0:?}: expected auto, none, or a list of gitlab, github and buildkite")]
pub struct UnknownMarkers(String);

impl FromStr for MarkerSelection {
    type Err = UnknownMarkers;

    fn from_str(text: &str) -> Result<Self, UnknownMarkers> {
        let mut markers = Markers::default();
        match text {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::Only(markers)),
            _ => {}
        }
        for word in text.split(',') {
            match word.trim() {
                "gitlab" => markers.gitlab = true,
                "github" => markers.github = true,
                "buildkite" => markers.buildkite = true,
                _ => return Err(UnknownMarkers(text.chars().take(64).collect())),
            }
        }
        Ok(Self::Only(markers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Set(&'static str);

    impl Env for Set {
        fn get(&self, name: &str) -> Option<String> {
            (name == self.0).then(|| "true".to_owned())
        }
    }

    fn resolved(text: &str, set: &'static str) -> (bool, bool, bool) {
        let selection: MarkerSelection = text.parse().expect("markers");
        let Markers {
            gitlab,
            github,
            buildkite,
        } = selection.resolve(&Set(set));
        (gitlab, github, buildkite)
    }

    #[test]
    fn buildkite_is_detected_under_its_agent_or_on_request() {
        assert_eq!(resolved("auto", ""), (true, true, false));
        assert_eq!(resolved("auto", "BUILDKITE"), (true, true, true));
        assert_eq!(resolved("none", "BUILDKITE"), (false, false, false));
        assert_eq!(resolved("gitlab, buildkite", ""), (true, false, true));
        for bad in ["", "all", "gitlab,", "GitLab"] {
            let error = bad.parse::<MarkerSelection>().expect_err("unknown");
            assert!(error.to_string().contains("auto, none"), "{error}");
        }
    }
}
