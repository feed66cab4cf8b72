//! The hashes that decide where a key goes: xxHash64 and the 64-bit MurmurHash2 of `std::hash`, bit for bit as Envoy
//! computes them, so that the same key finds the same host behind either proxy.

use std::{io::Write, net::IpAddr};

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

/// XXH64.
pub fn xxhash64(data: &[u8], seed: u64) -> u64 {
    let mut rest = data;
    let mut hash = if data.len() >= 32 {
        let mut lanes = [seed.wrapping_add(P1).wrapping_add(P2), seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)];
        while let Some((stripe, after)) = rest.split_at_checked(32) {
            for (lane, input) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word(input));
            }
            rest = after;
        }
        let rotated = lanes.iter().zip([1, 7, 12, 18]).fold(0u64, |h, (l, by)| h.wrapping_add(l.rotate_left(by)));
        lanes.iter().fold(rotated, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(P1).wrapping_add(P4))
    } else {
        seed.wrapping_add(P5)
    };
    hash = hash.wrapping_add(data.len() as u64);
    while let Some((input, after)) = rest.split_at_checked(8) {
        hash = (hash ^ round(0, word(input))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = after;
    }
    if let Some((input, after)) = rest.split_at_checked(4) {
        hash = (hash ^ word(input).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

/// What several hashes of one request make together: `new` is one more, `None` leaves it.
pub fn combine(hash: Option<u64>, new: Option<u64>) -> Option<u64> {
    // The rotation keeps two equal hashes from cancelling each other out.
    new.map(|new| hash.map_or(0, |hash| hash.rotate_left(1)) ^ new).or(hash)
}

/// The hash of an address without its port.
pub fn of_ip(address: IpAddr) -> u64 {
    let mut text = [0; 45];
    let mut rest = &mut text[..];
    // The longest address has 45 characters.
    let written = write!(rest, "{address}").map(|()| rest.len());
    let length = text.len() - written.unwrap_or(0);
    xxhash64(&text[..length], 0)
}

/// MurmurHash2 with the seed of libstdc++'s `std::hash<std::string>`.
pub fn murmur2(data: &[u8]) -> u64 {
    const SEED: u64 = 0xC70F_6907;
    const M: u64 = 0xC6A4_A793_5BD1_E995;
    let mix = |value: u64| value ^ (value >> 47);
    let mut hash = SEED ^ (data.len() as u64).wrapping_mul(M);
    let mut words = data.chunks_exact(8);
    for input in &mut words {
        hash = (hash ^ mix(word(input).wrapping_mul(M)).wrapping_mul(M)).wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash = (hash ^ word(rest)).wrapping_mul(M);
    }
    mix(mix(hash).wrapping_mul(M))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxhash_is_the_reference() {
        let cases: &[(&[u8], u64)] = &[
            (b"", 17_241_709_254_077_376_921),
            (b"foo", 3_728_699_739_546_630_719),
            (b"bar", 5_234_164_152_756_840_025),
            (b"foo\nbar", 8_917_841_378_505_826_757),
            (b"lyft", 4_400_747_396_090_729_504),
            (b"Nobody inspects the spammish repetition", 0xFBCE_A83C_8A37_8BF1),
        ];
        for (data, expected) in cases {
            assert_eq!(xxhash64(data, 0), *expected, "{data:?}");
        }
        assert_eq!(xxhash64(b"bar", xxhash64(b"foo", 0)), 17_745_830_980_996_999_794, "seeded");
    }

    #[test]
    fn addresses_hash_as_text() {
        for address in ["10.1.2.3", "::1", "2001:db8:1:2:3:4:5:6", "::ffff:255.255.255.255"] {
            assert_eq!(of_ip(address.parse().unwrap()), xxhash64(address.as_bytes(), 0), "{address}");
        }
    }

    #[test]
    fn hashes_combine_by_rotation() {
        assert_eq!(combine(None, None), None);
        assert_eq!(combine(None, Some(5)), Some(5));
        assert_eq!(combine(Some(5), None), Some(5));
        assert_eq!(combine(Some(1 << 63 | 5), Some(8)), Some(11 ^ 8));
    }

    #[test]
    fn murmur_is_that_of_std_hash() {
        let cases: &[(&[u8], u64)] = &[
            (b"", 6_142_509_188_972_423_790),
            (b"foo", 9_631_199_822_919_835_226),
            (b"bar", 11_474_628_671_133_349_555),
            (b"foo\nbar", 16_306_510_975_912_980_159),
            (b"lyft", 12_847_078_931_730_529_320),
            // Through whole words and a rest.
            (b"Nobody inspects the spammish repetition", 14_101_402_996_947_411_153),
        ];
        for (data, expected) in cases {
            assert_eq!(murmur2(data), *expected, "{data:?}");
        }
    }
}
