//! A number in half the space of an f32.

/// A bfloat16, the upper half of an f32: eight bits of precision over its whole range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bf16(pub(crate) u16);

impl Bf16 {
    /// The nearest to a number, and of two the even one.
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

    /// By hand, from the format; and everywhere to half of 2⁻⁷, which cutting bits off is not.
    #[test]
    fn bf16_is_the_nearest() {
        let bits = |x: f64| Bf16::nearest(x).0;
        assert_eq!([bits(1.0), bits(-2.0), bits(0.0)], [0x3f80, 0xc000, 0]);
        // Between 1 and 1 + 2⁻⁷, and between that and the next: to the even one.
        assert_eq!([bits(1.0 + 2f64.powi(-8)), bits(1.0 + 3.0 * 2f64.powi(-8))], [0x3f80, 0x3f82]);
        for x in (0..1000).map(|i| (f64::from(i) * 0.7).sin() * 10f64.powi(i % 9 - 4)) {
            let error = (Bf16::nearest(x).to_f64() - x).abs();
            assert!(error <= x.abs() * 2f64.powi(-8), "{x}");
        }
    }
}
