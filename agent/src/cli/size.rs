//! Sizes on the command line: bytes, or a number with `KiB`, `MiB` or `GiB`.

/// Smallest limit: two chunks, so that both the beginning and the end have something.
const MIN_BYTES: u64 = 64 * 1024;

/// Reads a limit; 0 is none.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let unknown = || "expected bytes, or a number with KiB, MiB or GiB, such as 512MiB".to_owned();
    let text = text.trim();
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("", 1),
    ];
    let with = |(name, unit): (&str, u64)| Some((text.strip_suffix(name)?, unit));
    let (number, unit) = units.into_iter().find_map(with).ok_or_else(unknown)?;
    let number: u64 = number.trim().parse().map_err(|_nan| unknown())?;
    let bytes = number
        .checked_mul(unit)
        .ok_or_else(|| "that is more than can be counted; 0 is no limit".to_owned())?;
    match bytes {
        1..MIN_BYTES => Err("a limit is at least 64KiB; 0 is no limit".into()),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_named() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("64KiB", 65536),
            ("512 MiB", 512 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for (text, reason) in [
            ("1KiB", "at least 64KiB"),
            ("1GB", "such as 512MiB"),
            ("-1", "such as 512MiB"),
            ("", "such as 512MiB"),
            ("99999999999999GiB", "more than can be counted"),
        ] {
            let error = parse(text).expect_err("refused");
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
