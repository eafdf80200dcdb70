//! Which partition a key belongs to: murmur2, as Kafka's own clients and librdkafka's
//! `murmur2_random` compute it.
//!
//! The forwarder needs to know it beforehand, so that a partition without a leader is given no more
//! than its share of what is in flight.

/// What the partition of a key follows from.
pub fn hash(key: &[u8]) -> u32 {
    murmur2(key) & 0x7fff_ffff
}

/// The partition of a key with this hash among `partitions`.
pub fn of_hash(hash: u32, partitions: u32) -> u32 {
    hash % partitions.max(1)
}

/// The hash of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Kafka's lengths are 32 bits wide.
    let mut hash = SEED ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        word = word.wrapping_mul(M);
        word ^= word >> 24;
        word = word.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own test (`UtilsTest.testMurmur2`).
    #[test]
    fn the_hash_is_kafkas() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
    }

    #[test]
    fn a_partition_is_always_one_of_them() {
        for n in 0..1_000u32 {
            let key = n.to_string();
            assert!(of_hash(hash(key.as_bytes()), 30) < 30);
            assert_eq!(of_hash(hash(key.as_bytes()), 1), 0);
        }
    }
}
