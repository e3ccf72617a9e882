//! A label on a command line: `NAME=VALUE`.

use runcast_common::protocol::limits::MAX_LABEL_BYTES;
use serde_json::{Map, Value};

/// Reads one label.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or("expected NAME=VALUE, such as team=search")?;
    if name.len().max(value.len()) > MAX_LABEL_BYTES {
        return Err(format!(
            "a name or value has {MAX_LABEL_BYTES} bytes at most"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Labels as the store takes them; of two with one name the last counts.
pub(super) fn labels_object(labels: Vec<(String, String)>) -> Map<String, Value> {
    let pairs = labels.into_iter();
    pairs
        .map(|(name, value)| (name, Value::from(value)))
        .collect()
}
