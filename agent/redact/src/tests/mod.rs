//! Tests of the redactor as a whole.

mod escape_sequences;
mod random_input;
mod redactor;
mod secret_parts;
mod token_formats;
