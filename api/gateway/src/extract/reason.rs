//! Reasons that people give for what they ask for, as lists and the audit log show them.
//!
//! Bounds: [`MAX_REASON_BYTES`].

use crate::problem::Problem;

/// Longest reason.
pub(crate) const MAX_REASON_BYTES: usize = 1000;

/// The reason without white space around it, which may leave nothing.
pub(crate) fn checked_reason(text: &str) -> Result<&str, Problem> {
    match text.trim() {
        reason if reason.len() > MAX_REASON_BYTES => Err(Problem::bad_request(format!(
            "reason of {} bytes is over the limit of {MAX_REASON_BYTES}",
            reason.len()
        ))),
        reason if reason.contains('\0') => {
            Err(Problem::bad_request("reason contains a NUL character"))
        }
        reason => Ok(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_text_within_its_limit() {
        assert_eq!(checked_reason(" case 7 "), Ok("case 7"));
        let long = "x".repeat(MAX_REASON_BYTES + 1);
        for wrong in ["a\0b", &long] {
            checked_reason(wrong).expect_err("refused");
        }
    }
}
