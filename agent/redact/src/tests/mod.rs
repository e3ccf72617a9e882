//! Tests of the redactor as a whole.

mod random_input;
mod redactor;
mod token_formats;
