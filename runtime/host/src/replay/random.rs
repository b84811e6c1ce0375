//! Random numbers of a replay: all of them follow from its seed.

use wasmtime_wasi::{Deterministic, WasiCtxBuilder};

/// How many bytes there are before they begin anew: a prime, so that the numbers that guests make of several bytes each
/// do not.
const LEN: usize = 8_191;

/// Which numbers a stream of bytes is for: no two are alike.
#[derive(Clone, Copy)]
enum Use {
    Secure = 1,
    Insecure = 2,
    InsecureSeed = 3,
}

pub(super) fn furnish(seed: u64, wasi: &mut WasiCtxBuilder) {
    wasi.secure_random(Deterministic::new(bytes(seed, Use::Secure)));
    wasi.insecure_random(Deterministic::new(bytes(seed, Use::Insecure)));
    let mut numbers = numbers(seed, Use::InsecureSeed);
    let mut next = || u128::from(numbers.next().unwrap_or_default());
    wasi.insecure_random_seed(next() << 64 | next());
}

fn bytes(seed: u64, of: Use) -> Vec<u8> {
    numbers(seed, of).flat_map(u64::to_le_bytes).take(LEN).collect()
}

/// Splitmix64: nothing secret depends on it.
fn numbers(seed: u64, of: Use) -> impl Iterator<Item = u64> {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = |mut number: u64| {
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    };
    // Mixed first: the streams of neighbouring seeds would be each other's, a few numbers on.
    let start = mixed(seed ^ mixed(of as u64));
    std::iter::successors(Some(start.wrapping_add(STEP)), |state| Some(state.wrapping_add(STEP))).map(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_streams_are_alike() {
        let streams: Vec<_> = [0, 1, 2, u64::MAX]
            .into_iter()
            .flat_map(|seed| [Use::Secure, Use::Insecure, Use::InsecureSeed].map(|of| bytes(seed, of)))
            .collect();
        for (at, one) in streams.iter().enumerate() {
            assert_eq!(one.len(), LEN);
            for other in &streams[at + 1..] {
                assert!(!one.windows(16).any(|part| part == &other[..16]));
            }
        }
    }
}
