//! [`PrefixFilter`]: where in a text a pattern may start.
//!
//! The automaton takes a few nanoseconds a byte, since text nearly always begins some pattern.
//! Three bytes of ordinary text hardly ever do, and to look them up in a small table takes a
//! fraction of that. The filter is never wrong about where a pattern cannot start.
//!
//! Data: a hash table of one bit per entry, [`TABLE_BITS`] in all. Above [`MAX_USED_BITS`] it would
//! stop too often, and there is none.

use super::encodings::is_terminator;

/// Size of the table: 8 KiB, a quarter of the fastest cache.
const TABLE_BITS: usize = 1 << 16;

/// Entries above which the filter costs more than it spares.
const MAX_USED_BITS: u32 = 1 << 14;

/// Bytes that are looked up.
const PREFIX_BYTES: usize = 3;

/// Where in a text a pattern may start.
pub(super) struct PrefixFilter {
    table: Box<[u64; TABLE_BITS / 64]>,
}

impl PrefixFilter {
    /// A filter for these patterns; none if they are too many.
    pub(super) fn new(patterns: &[Vec<u8>]) -> Option<Self> {
        let mut table = Box::new([0_u64; TABLE_BITS / 64]);
        let mut add = |bytes: [u8; PREFIX_BYTES]| {
            let index = index(bytes);
            table[index / 64] |= 1 << (index % 64);
        };
        for pattern in patterns {
            match **pattern {
                [first, second, third, ..] => add([first, second, third]),
                [first, second] => (0..=255).for_each(|third| add([first, second, third])),
                _ => return None,
            }
        }
        let used: u32 = table.iter().map(|bits| bits.count_ones()).sum();
        (used <= MAX_USED_BITS).then_some(Self { table })
    }

    /// The first index from `from` on at which a pattern may start, or the text is too short or too
    /// close to a line end to tell.
    pub(super) fn next(&self, text: &[u8], from: usize) -> usize {
        let windows = text[from..].array_windows::<PREFIX_BYTES>();
        let candidate = windows.clone().position(|window| {
            let index = index(*window);
            let is_start = self.table[index / 64] >> (index % 64) & 1 == 1;
            is_start || is_terminator(window[PREFIX_BYTES - 1])
        });
        from + candidate.unwrap_or(windows.len())
    }
}

const fn index([first, second, third]: [u8; PREFIX_BYTES]) -> usize {
    let bytes = u32::from_le_bytes([first, second, third, 0]);
    // The upper half of the product depends on all bytes.
    (bytes.wrapping_mul(0x9e37_79b1) >> 16) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_candidates_and_unclear_places_stop_it() {
        let patterns = [b"secret".to_vec(), b"SK".to_vec()];
        let filter = PrefixFilter::new(&patterns).expect("few patterns");
        for (text, from, expected) in [
            ("ordinary text and secret", 0, 18),
            ("ordinary text and SK1 ", 0, 18),
            ("ordinary text", 0, 11),
            ("one\ntwo", 0, 1),
            ("one\ntwo", 4, 5),
            ("ab", 0, 0),
            ("", 0, 0),
        ] {
            assert_eq!(filter.next(text.as_bytes(), from), expected, "{text}");
        }
    }

    #[test]
    fn too_many_patterns_have_no_filter() {
        let patterns = (0..100_000_u32).map(|number| number.to_be_bytes()[1..].to_vec());
        assert!(PrefixFilter::new(&patterns.collect::<Vec<_>>()).is_none());
    }
}
