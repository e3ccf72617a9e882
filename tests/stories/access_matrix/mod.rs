//! Which caller gets through to which operation: every operation of the OpenAPI document is
//! requested by every kind of caller, with real values for the parameters of its path.

mod callers;
mod matrix;
pub(crate) mod path_parameters;
mod rows;
