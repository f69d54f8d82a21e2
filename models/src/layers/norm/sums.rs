//! Sums over the planes of a channel, in lanes that fit the registers and in f64.

use super::channel::{passing, Channel};
use crate::layers::element::Element;
use pulp::NullaryFnOnce;

/// How many lanes a sum has: as many as fill the registers, which the compiler then uses.
const LANES: usize = 32;

/// How many terms a lane adds up, at most, before it joins a sum in f64.
const TERMS: usize = 128;

/// N sums over planes, in f64.
struct Lanes<E, const N: usize> {
    lanes: [[E; LANES]; N],
    terms: usize,
    totals: [f64; N],
}

impl<E: Element, const N: usize> Lanes<E, N> {
    #[inline(always)]
    fn new() -> Self {
        Self { lanes: [[E::ZERO; LANES]; N], terms: 0, totals: [0.0; N] }
    }

    /// Makes room for `terms` more terms.
    #[inline(always)]
    fn expect(&mut self, terms: usize) {
        if self.terms + terms > TERMS {
            self.flush();
        }
        self.terms += terms;
    }

    #[inline(always)]
    fn flush(&mut self) {
        for (total, lanes) in self.totals.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|lane| lane.to()).sum::<f64>();
            *lanes = [E::ZERO; LANES];
        }
        self.terms = 0;
    }

    #[inline(always)]
    fn totals(mut self) -> [f64; N] {
        self.flush();
        self.totals
    }
}

/// Σ term(x) over planes.
pub(super) fn sum<'a, E: Element>(
    planes: impl Iterator<Item = &'a [E]>,
    term: impl Fn(E) -> E,
) -> f64 {
    pulp::Arch::new().dispatch(Sum { planes, term })
}

/// Σ g and Σ g·(x − mean) over planes of x and of the outputs' gradient. g is that gradient, or 0
/// where the rectifier stops it.
pub(super) fn sums<'a, E: Element, const RELU: bool>(
    planes: impl Iterator<Item = (&'a [E], &'a [E])>,
    channel: Channel<E>,
) -> [f64; 2] {
    pulp::Arch::new().dispatch(Sums::<_, _, RELU> { planes, channel })
}

/// This is a type, as is [`Sums`], because the compiler does not inline a closure of this size.
struct Sum<P, F> {
    planes: P,
    term: F,
}

impl<'a, E: Element, P: Iterator<Item = &'a [E]>, F: Fn(E) -> E> NullaryFnOnce for Sum<P, F> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut sums = Lanes::<E, 1>::new();
        for plane in self.planes {
            for part in plane.chunks(TERMS * LANES) {
                sums.expect(part.len().div_ceil(LANES));
                let [lanes] = &mut sums.lanes;
                let (chunks, rest) = part.as_chunks::<LANES>();
                for chunk in chunks {
                    for (lane, x) in lanes.iter_mut().zip(chunk) {
                        *lane += (self.term)(*x);
                    }
                }
                for (lane, x) in lanes.iter_mut().zip(rest) {
                    *lane += (self.term)(*x);
                }
            }
        }
        let [total] = sums.totals();
        total
    }
}

struct Sums<P, E, const RELU: bool> {
    planes: P,
    channel: Channel<E>,
}

impl<'a, E: Element, P: Iterator<Item = (&'a [E], &'a [E])>, const RELU: bool> NullaryFnOnce
    for Sums<P, E, RELU>
{
    type Output = [f64; 2];

    #[inline(always)]
    fn call(self) -> [f64; 2] {
        let mut sums = Lanes::<E, 2>::new();
        for (x, gradient) in self.planes {
            let parts = x.chunks(TERMS * LANES).zip(gradient.chunks(TERMS * LANES));
            for (x, gradient) in parts {
                sums.expect(x.len().div_ceil(LANES));
                let [plain, centered] = &mut sums.lanes;
                let ((x, x_rest), (gradient, gradient_rest)) =
                    (x.as_chunks::<LANES>(), gradient.as_chunks::<LANES>());
                for (x, gradient) in x.iter().zip(gradient) {
                    for lane in 0..LANES {
                        let gradient = passing::<E, RELU>(gradient[lane], x[lane], self.channel);
                        plain[lane] += gradient;
                        centered[lane] += gradient * (x[lane] - self.channel.mean);
                    }
                }
                for (lane, (x, gradient)) in x_rest.iter().zip(gradient_rest).enumerate() {
                    let gradient = passing::<E, RELU>(*gradient, *x, self.channel);
                    plain[lane] += gradient;
                    centered[lane] += gradient * (*x - self.channel.mean);
                }
            }
        }
        sums.totals()
    }
}
