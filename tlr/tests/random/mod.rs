//! The random numbers of tests: the same everywhere, for ever.
// Public for tests/support, which is a library.
#![allow(unreachable_pub)]

/// SplitMix64 (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, 2014), by
/// its state. With the state i·[`STEP`] the next number is the i-th of those from 0.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

/// What the state grows by.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The next number, uniform in all of them.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
