//! Amounts of memory or disk as an operator writes them: `512MiB`, `4GiB`, `1000`.

use std::str::FromStr;

/// A number of bytes, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The text is not an amount of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an amount, such as 512MiB, 4GiB or a number of bytes")]
pub struct InvalidByteSize;

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(InvalidByteSize),
        };
        let number: u64 = number.parse().map_err(|_not_a_number| InvalidByteSize)?;
        match number.checked_mul(factor) {
            Some(bytes @ 1..) => Ok(Self(bytes)),
            _ => Err(InvalidByteSize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_size_has_a_binary_unit_or_none() {
        assert_eq!("4GiB".parse(), Ok(ByteSize(4 << 30)));
        assert_eq!("512 MiB".parse(), Ok(ByteSize(512 << 20)));
        assert_eq!("1000".parse(), Ok(ByteSize(1000)));
        for invalid in ["", "0", "1GB", "-1", "1.5GiB", "99999999999GiB"] {
            assert_eq!(
                invalid.parse::<ByteSize>(),
                Err(InvalidByteSize),
                "{invalid}"
            );
        }
    }
}
