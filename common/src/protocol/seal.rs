//! The seal: proof that a stored run is complete.
//!
//! A producer counts its events and their bytes, computes a checksum over them, and writes the
//! three values into its last status event. The persister computes the same values while it stores.
//! If they agree, every published event is stored, unchanged and in order. A run is sealed when
//! every variation has ended and all seals agree; otherwise the API reports how much is missing.
//!
//! A seal belongs to a producer, not to a variation. The seqs of a producer have no gaps, so the
//! persister can continue the checksum from batch to batch (it is kept in the table `producers`),
//! and two processes that publish for one variation do not disturb each other.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Count, bytes and checksum of a producer's event lines, in the order of their seqs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seal {
    /// Number of events.
    pub events: u64,
    /// Bytes of their lines, without newlines.
    pub bytes: u64,
    /// CRC-32C over the lines, each followed by a newline. It detects loss and wrong order, but
    /// does not protect against forgery.
    pub checksum: Checksum,
}

/// A CRC-32C, serialized as `crc32c:` and eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum(pub u32);

impl Seal {
    /// Adds the next event line, without its newline.
    pub fn add(&mut self, line: &[u8]) {
        self.events += 1;
        self.bytes += line.len() as u64;
        let crc = crc32c::crc32c_append(self.checksum.0, line);
        self.checksum = Checksum(crc32c::crc32c_append(crc, b"\n"));
    }

    /// Adds `count` event lines, each with its newline, in one pass over their bytes. The result is
    /// the same as adding them one by one.
    pub fn add_lines(&mut self, count: u64, lines: &[u8]) {
        self.events += count;
        self.bytes += (lines.len() as u64).saturating_sub(count);
        self.checksum = Checksum(crc32c::crc32c_append(self.checksum.0, lines));
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("crc32c:{:08x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.strip_prefix("crc32c:")
            .filter(|digits| digits.len() == 8)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| {
                serde::de::Error::custom("checksum is not crc32c:<8 hexadecimal digits>")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seal_depends_on_every_byte_and_on_the_order() {
        let sealed = |lines: &[&[u8]]| {
            let mut seal = Seal::default();
            lines.iter().for_each(|line| seal.add(line));
            seal
        };
        let ab = sealed(&[b"a", b"b"]);
        assert_eq!((ab.events, ab.bytes), (2, 2));
        assert_ne!(ab, sealed(&[b"b", b"a"]));
        assert_ne!(ab.checksum, sealed(&[b"ab"]).checksum);
    }

    #[test]
    fn adding_lines_together_equals_adding_them_one_by_one() {
        let mut single = Seal::default();
        single.add(b"a");
        single.add(b"bb");
        let mut together = Seal::default();
        together.add_lines(2, b"a\nbb\n");
        assert_eq!(single, together);
    }

    #[test]
    fn seal_round_trips_as_json() {
        let mut seal = Seal::default();
        seal.add(b"123456789");
        let json = serde_json::to_string(&seal).expect("JSON");
        assert!(json.contains("\"checksum\":\"crc32c:"), "{json}");
        assert_eq!(serde_json::from_str::<Seal>(&json).expect("a seal"), seal);
    }

    #[test]
    fn checksum_is_crc32c() {
        // Check value of the CRC catalogue for "123456789".
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
