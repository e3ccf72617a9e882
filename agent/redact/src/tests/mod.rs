//! Tests of the redactor as a whole.

mod escape_sequences;
mod random_input;
mod redactor;
mod token_formats;
