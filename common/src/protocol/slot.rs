//! Slots of a Redis Cluster: CRC-16/XMODEM of a key, modulo 16,384.

/// The slot of a key. Each node of a cluster holds some of the [`Slot::COUNT`] slots; a single
/// server holds all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Number of slots.
    pub const COUNT: u16 = 16_384;

    /// The slot of a key. If the key has a hash tag (`{...}`, not empty), only the tag counts.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self::of_bytes(key.as_bytes())
    }

    /// The slot of a key of any bytes.
    #[must_use]
    pub fn of_bytes(key: &[u8]) -> Self {
        let open = key.iter().position(|byte| *byte == b'{');
        let rest = open.map_or(&[][..], |open| &key[open + 1..]);
        let close = rest.iter().position(|byte| *byte == b'}').unwrap_or(0);
        let tag = if close > 0 { &rest[..close] } else { key };
        Self(crc16(tag) % Self::COUNT)
    }

    /// The slot of a hash tag.
    pub(super) const fn of_tag(tag: &str) -> Self {
        Self(crc16(tag.as_bytes()) % Self::COUNT)
    }

    /// Its number, below [`Slot::COUNT`].
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

const fn crc16(bytes: &[u8]) -> u16 {
    let (mut crc, mut at) = (0u16, 0);
    while at < bytes.len() {
        crc ^= (bytes[at] as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        at += 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_the_crc16_of_the_key() {
        // Check value of the CRC catalogue for "123456789".
        assert_eq!(Slot::of("123456789").number(), 0x31c3);
    }

    #[test]
    fn hash_tag_alone_decides_the_slot() {
        let plain = Slot::of("user1000");
        assert_eq!(Slot::of("{user1000}.following"), plain);
        assert_eq!(Slot::of("a{user1000}b{other}"), plain);
        assert_ne!(Slot::of("{}user1000"), plain);
        assert_ne!(Slot::of("{user1000"), plain);
    }
}
