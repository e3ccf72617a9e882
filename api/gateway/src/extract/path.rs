//! Ids in paths. A text that is no id names nothing, so it is answered 404 as an unknown id is.

use uuid::Uuid;

use crate::problem::Problem;

/// The id of a `what` in a path, else `404 there is no <what> <text>`.
pub(crate) fn path_id(what: &str, text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_not_an_id| Problem::not_found(what, text))
}
