//! Text from outside in tables: escaped, so that it cannot command the terminal, and cut.

/// The text, with control characters escaped.
pub(super) fn escaped(text: &str) -> String {
    text.escape_debug().collect()
}

/// The first `chars` characters of the escaped text.
pub(super) fn escaped_start(text: &str, chars: usize) -> String {
    text.escape_debug().take(chars).collect()
}
