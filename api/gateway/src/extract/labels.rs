//! Labels of runs, in bodies and in query parameters.

use runcast_common::protocol::limits::{MAX_LABEL_BYTES, MAX_LABELS};
use serde_json::{Map, Value};

use super::query::Query;
use crate::problem::Problem;

/// Checks labels that a run may be given; a problem names the limit that they exceed.
pub(crate) fn checked_labels(labels: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    if labels.len() > MAX_LABELS {
        let detail = format!("{} labels are over the limit of {MAX_LABELS}", labels.len());
        return Err(Problem::bad_request(detail));
    }
    let fits = |text: &str| text.len() <= MAX_LABEL_BYTES && !text.contains('\0');
    let invalid = labels
        .iter()
        .find(|(name, value)| name.is_empty() || !fits(name) || !value.as_str().is_some_and(fits));
    match invalid {
        None => Ok(labels),
        Some((name, _)) => {
            let name: String = name.chars().take(64).collect();
            Err(Problem::bad_request(format!(
                "label {name:?}: name and value must be texts of at most {MAX_LABEL_BYTES} bytes \
                 without NUL"
            )))
        }
    }
}

/// The labels that a list is filtered by: `label=team=search`, all of them if there are several.
pub(crate) fn label_filter(query: &Query) -> Result<Map<String, Value>, Problem> {
    let mut labels = Map::new();
    for text in query.all("label") {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Problem::bad_request("parameter label: expected NAME=VALUE, such as team=search")
        })?;
        labels.insert(name.to_owned(), Value::from(value));
    }
    checked_labels(labels)
}
