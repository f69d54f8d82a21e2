//! The way of one tensor since a snapshot, and the four sums over it that make up a slope.

use super::{
    sums::{filled, of_chunks, Chunk, Lanes, LANES},
    tracked::Past,
};
use crate::tensors::{wide, ReadBuffer, Values, CHUNK};
use dfdx::shapes::Dtype;
use std::ops::Range;

/// A snapshot P of a part of one tensor, all its elements W now, and the part's gradient g.
pub(super) struct Way<'a, E: Dtype> {
    pub(super) group: usize,
    pub(super) from: Past<'a, E>,
    pub(super) now: Values<E>,
    pub(super) gradient: &'a [E],
    /// The index in W of the first element of P and of g.
    pub(super) first: usize,
}

impl<E: Dtype> Way<'_, E> {
    /// ⟨g,d⟩, ‖d‖², ‖g‖² and ‖P‖², where d = W − P.
    pub(super) fn sums(&self) -> [f64; 4] {
        let len = self.gradient.len();
        let chunks = (0..len).step_by(CHUNK);
        let room = ReadBuffer::new();
        of_chunks(
            len,
            chunks.map(|first| Part { first, way: self, now_room: room, from_room: room }),
        )
    }
}

/// The work on one chunk. It begins at element `first`.
struct Part<'a, E: Dtype> {
    first: usize,
    way: &'a Way<'a, E>,
    now_room: ReadBuffer<E>,
    from_room: ReadBuffer<E>,
}

impl<E: Dtype> Chunk<4> for Part<'_, E> {
    fn len(&self) -> usize {
        CHUNK.min(self.way.gradient.len() - self.first)
    }

    #[inline(always)]
    fn add(&mut self, range: Range<usize>, sums: &mut Lanes<4>) {
        let range = self.first + range.start..self.first + range.end;
        let first = self.way.first + range.start;
        let now = self.way.now.read(first, range.len(), &mut self.now_room);
        let from = self.way.from.read(range.clone(), &mut self.from_room);
        let gradient = self.way.gradient.get(range).unwrap_or_default();
        let (from, from_rest) = from.as_chunks::<LANES>();
        let (now, now_rest) = now.as_chunks::<LANES>();
        let (gradient, gradient_rest) = gradient.as_chunks::<LANES>();
        for ((from, now), gradient) in from.iter().zip(now).zip(gradient) {
            add_lanes(from, now, gradient, sums);
        }
        if !now_rest.is_empty() {
            // The missing lanes are padded with zeros in all three, so they add 0 to the sums.
            add_lanes(&filled(from_rest), &filled(now_rest), &filled(gradient_rest), sums);
        }
    }
}

#[inline(always)]
fn add_lanes<E: Dtype>(
    from: &[E; LANES],
    now: &[E; LANES],
    gradient: &[E; LANES],
    [along, moved, squared, norm]: &mut Lanes<4>,
) {
    for lane in 0..LANES {
        let (from, gradient) = (wide(from[lane]), wide(gradient[lane]));
        let way = wide(now[lane]) - from;
        along[lane] += gradient * way;
        moved[lane] += way * way;
        squared[lane] += gradient * gradient;
        norm[lane] += from * from;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            sums::tests::{exact, is_the_same_with_any_threads, values, LENGTHS},
            tracked::before,
        },
        *,
    };
    use crate::tensors::Bf16;
    use dfdx::prelude::{Cpu, TensorFromVec};

    /// The way of lent and of copied weights.
    fn ways<'a, E: Dtype>(from: Past<'a, E>, now: &[E], gradient: &'a [E]) -> [Way<'a, E>; 2] {
        let lent = Cpu::default().tensor_from_vec(now.to_vec(), (now.len(),));
        [Values::Lent(lent), Values::Copied(now.to_vec())].map(|now| Way {
            group: 0,
            from,
            now,
            gradient,
            first: 0,
        })
    }

    /// Compares with sums whose rounding errors are compensated, for weights in the memory of any
    /// snapshot. Fails if an element is left out or counted twice.
    fn is_exact<E: Dtype>(values: impl Fn(u64) -> Vec<E>) {
        let (last, now, gradient) = (values(1), values(2), values(3));
        let direction: Vec<_> = values(4).into_iter().map(|x| Bf16::nearest(wide(x))).collect();
        let earlier: Vec<_> = last.iter().zip(&direction).map(|(b, d)| before(*b, *d)).collect();
        let pasts = [
            (Past::Weights(&last), &last),
            (Past::Weights(&earlier), &earlier),
            (Past::Direction(&last, &direction), &earlier),
        ];
        for (past, from) in pasts {
            let moved = || now.iter().zip(from).map(|(w, p)| wide(*w) - wide(*p));
            let squares = |x: &[E]| exact(x.iter().map(|x| wide(*x) * wide(*x)));
            let along = exact(moved().zip(&gradient).map(|(d, g)| d * wide(*g)));
            let expected =
                [along, exact(moved().map(|d| d * d)), squares(&gradient), squares(from)];
            // ⟨g,d⟩ may cancel, so its tolerance is relative to ‖g‖‖d‖.
            let sizes = [(expected[1] * expected[2]).sqrt(), expected[1], expected[2], expected[3]];
            for way in ways(past, &now, &gradient) {
                for ((sum, expected), size) in way.sums().into_iter().zip(expected).zip(sizes) {
                    assert!((sum - expected).abs() <= 1e-12 * size, "{sum} {expected}");
                }
            }
        }
    }

    #[test]
    fn sums_are_exact_to_1e_12_at_any_length() {
        for len in LENGTHS {
            is_exact(|seed| values(len, seed));
            let double = |x: f32| f64::from(x) * (1.0 + 1e-9);
            is_exact(|seed| values(len, seed).into_iter().map(double).collect());
            #[cfg(feature = "f16")]
            is_exact(|seed| values(len, seed).into_iter().map(half::f16::from_f32).collect());
        }
    }

    /// Fails if the result depends on which thread adds which terms.
    #[test]
    fn sums_are_the_same_with_any_number_of_threads() {
        let len = 10 * CHUNK + 5;
        let (from, now, gradient) = (values(len, 1), values(len, 2), values(len, 3));
        for way in ways(Past::Weights(&from), &now, &gradient) {
            assert!(is_the_same_with_any_threads(|| way.sums().map(f64::to_bits)));
        }
    }
}
