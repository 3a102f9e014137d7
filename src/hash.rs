//! One hash of bytes: the same on every machine, in every version, so that balancers that share
//! nothing select the same backend.

#![forbid(unsafe_code)]

use xxhash_rust::xxh3;

/// XXH3 in 64 bits with seed 0 (<https://github.com/Cyan4973/xxHash>). It has no key: where clients
/// must not be able to produce collisions, add a secret.
#[must_use]
pub fn of(bytes: &[u8]) -> u64 {
    xxh3::xxh3_64(bytes)
}

/// The same with a seed: another independent hash of the same bytes.
#[must_use]
pub fn seeded(bytes: &[u8], seed: u64) -> u64 {
    xxh3::xxh3_64_with_seed(bytes, seed)
}

/// Mixes the bits of a number: close numbers get distant results (the finalizer of SplitMix64,
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[must_use]
pub fn mix(number: u64) -> u64 {
    let x = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other versions of this program, and others of the fleet, depend on these.
    #[test]
    fn is_the_same_for_ever() {
        assert_eq!(of(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(of(b"mahoraga"), 0xe492_ee2a_4025_eff7);
        assert_ne!(seeded(b"mahoraga", 1), of(b"mahoraga"));
        assert_eq!(mix(0), 0);
    }
}
