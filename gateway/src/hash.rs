//! Hashing of keys that this node makes itself.

use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are ids or numbers of this node. Ids hold 90 random bits that nobody else
/// chooses, so a hash that resists chosen keys would be paid for nothing.
pub type OwnKeyMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<OwnKeyHasher>>;

/// Spreads bits that are random or consecutive already.
#[derive(Clone, Copy, Default)]
pub struct OwnKeyHasher(u64);

/// 2^64 divided by the golden ratio: odd, and its bits have no pattern.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for OwnKeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(MULTIPLIER);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        // The map takes its bits from both ends, and a product is best in the middle.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use protocol::id::{Id, NodeTag};

    use super::*;

    #[test]
    fn ids_spread_over_both_ends_of_the_hash() {
        let tag = NodeTag::random();
        let hashes: Vec<_> = (0..4096)
            .map(|_| BuildHasherDefault::<OwnKeyHasher>::default().hash_one(Id::generate(tag, 3)))
            .collect();
        let distinct =
            |bits: fn(u64) -> u64| hashes.iter().map(|h| bits(*h)).collect::<HashSet<_>>();
        // 4,096 balls in 4,096 urns leave about 63 % of them taken.
        assert!(distinct(|hash| hash & 0xfff).len() > 2_300);
        assert_eq!(distinct(|hash| hash >> 57).len(), 128);
    }
}
