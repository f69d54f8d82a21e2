//! [`Bf16`]: a number in half the memory of an f32.

/// A bfloat16, the upper half of an f32. It has 8 bits of precision over the whole range of f32.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bf16(pub(crate) u16);

impl Bf16 {
    /// Rounds to the nearest bfloat16, and from halfway between two to the even one.
    #[inline(always)]
    pub(crate) fn nearest(x: f64) -> Self {
        let bits = (x as f32).to_bits();
        let even = (bits >> 16) & 1;
        Self((bits.wrapping_add(0x7fff + even) >> 16) as u16)
    }

    #[inline(always)]
    pub(crate) fn to_f64(self) -> f64 {
        f64::from(f32::from_bits(u32::from(self.0) << 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks values worked out by hand from the format. Also checks many values for a relative
    /// error of at most 2⁻⁸, which truncation would exceed.
    #[test]
    fn bf16_is_the_nearest() {
        let bits = |x: f64| Bf16::nearest(x).0;
        assert_eq!([bits(1.0), bits(-2.0), bits(0.0)], [0x3f80, 0xc000, 0]);
        // Halfway from 1 to 1 + 2⁻⁷, and halfway from there to 1 + 2⁻⁶: each rounds to the even
        // neighbor.
        assert_eq!([bits(1.0 + 2f64.powi(-8)), bits(1.0 + 3.0 * 2f64.powi(-8))], [0x3f80, 0x3f82]);
        for x in (0..1000).map(|i| (f64::from(i) * 0.7).sin() * 10f64.powi(i % 9 - 4)) {
            let error = (Bf16::nearest(x).to_f64() - x).abs();
            assert!(error <= x.abs() * 2f64.powi(-8), "{x}");
        }
    }
}
