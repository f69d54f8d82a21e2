//! The snapshots of the last two windows, and the dot products between what moved in them.
//!
//! With A the weights two windows ago, B one window ago and W now, the displacements are A − B and
//! B − W. Keeping A and B, rather than B and A − B, costs the same and loses nothing: differences
//! are taken in f64 whatever the dtype, and a window that turns out to be bad is undone by swapping.

use crate::{layers::Groups, rule::LARGEST_CLIMB, sketch::Sketches, tensors, Error};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    shapes::{Dtype, Shape},
    tensor::{Tensor, UniqueId},
    tensor_ops::Device,
};
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;
use std::{borrow::Cow, convert::Infallible, iter::Sum, marker::PhantomData, ops::AddAssign};

/// ⟨A−B, B−W⟩ and ⟨B−W, B−W⟩ over one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Dots {
    pub(crate) across: f64,
    pub(crate) own: f64,
}

impl AddAssign for Dots {
    fn add_assign(&mut self, other: Self) {
        self.across += other.across;
        self.own += other.own;
    }
}

impl Sum for Dots {
    fn sum<I: Iterator<Item = Self>>(dots: I) -> Self {
        let mut total = Self::default();
        dots.for_each(|dots| total += dots);
        total
    }
}

/// How far the weights of one group can move by rounding alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounding {
    /// ‖B‖.
    weights: f64,
    /// What as many roundings as a window has steps add up to, at random: √K·ε‖B‖/2.
    noise: f64,
}

impl Rounding {
    /// What to multiply a rate by whose window moved the weights by no more than that: as much as moves them by a thousandth, and
    /// at most as much as a rate may climb. It has to be worth it.
    pub(crate) fn raise(self, moved: f64) -> Option<f64> {
        let by = (1e-3 * self.weights / moved).min(LARGEST_CLIMB);
        (moved < self.noise && by >= 2.0).then_some(by)
    }
}

/// 1 and the next larger number: their distance.
fn spacing<E: Dtype>() -> f64 {
    let differs = |by: f64| E::from_f64(1.0 + by).and_then(|x| x.to_f64()).is_some_and(|x| x > 1.0);
    let mut spacing = 1.0;
    // Bounded, should a type round up.
    for _ in 0..f64::MANTISSA_DIGITS {
        if !differs(spacing / 2.0) {
            break;
        }
        spacing /= 2.0;
    }
    spacing
}

/// Two windows' snapshots of every tensor of a model, on the host.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots<E> {
    tensors: Vec<Tracked<E>>,
    groups: usize,
    /// Where a tensor's weights are read to; the size of the largest.
    scratch: Vec<E>,
    /// In place of A and B.
    sketches: Option<Sketches>,
}

#[derive(Clone, Debug)]
pub(crate) struct Tracked<E> {
    id: UniqueId,
    pub(crate) name: String,
    /// None for buffers, such as running means: they are restored, and do not count as directions.
    pub(crate) group: Option<usize>,
    /// B. Empty beside a sketch.
    last: Vec<E>,
    /// A. Empty beside a sketch.
    before: Vec<E>,
}

/// Some of a model's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    /// Those that are trained.
    Weights,
    /// The others, such as running means.
    Buffers,
}

impl Part {
    fn has<E>(self, tensor: &Tracked<E>) -> bool {
        match self {
            Self::All => true,
            Self::Weights => tensor.group.is_some(),
            Self::Buffers => tensor.group.is_none(),
        }
    }
}

impl<E> Tracked<E> {
    fn swap(&mut self) {
        std::mem::swap(&mut self.before, &mut self.last);
    }
}

impl<E: Dtype> Snapshots<E> {
    /// Room for the snapshots of `model`, or for sketches of so many bins; [`take`](Self::take) makes the first.
    pub(crate) fn new<D, M>(model: &M, groups: &Groups, bins: Option<usize>) -> Result<Self, Error>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let mut tensors = Vec::new();
        let mut largest = 0;
        for tensor in tensors::list(model) {
            if !tensor.contiguous {
                return Err(Error::NotContiguous { tensor: tensor.name });
            }
            let group = match groups.of(tensor.id) {
                _ if !tensor.trainable => None,
                None => return Err(Error::TensorOutsideLayers { tensor: tensor.name }),
                group => group,
            };
            if group.is_some() {
                largest = largest.max(tensor.len);
            }
            let len = if bins.is_some() { 0 } else { tensor.len };
            tensors.push(Tracked {
                id: tensor.id,
                name: tensor.name,
                group,
                last: vec![E::default(); len],
                before: vec![E::default(); len],
            });
        }
        if tensors.iter().all(|tensor| tensor.group.is_none()) {
            return Err(Error::NothingToTrain);
        }
        let groups = groups.groups.len();
        let sketches = bins.map(|bins| Sketches::new(bins, groups));
        let scratch = vec![E::default(); if bins.is_some() { 0 } else { largest }];
        Ok(Self { tensors, groups, scratch, sketches })
    }

    /// Whether `model` still has the very tensors it had.
    pub(crate) fn check<D: Device<E>, M: TensorCollection<E, D>>(
        &self,
        model: &M,
    ) -> Result<(), Error> {
        let mut ids = Ids { expected: &self.tensors, seen: 0, changed: None, marker: PhantomData };
        let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut ids });
        let what = match ids.changed {
            Some(tensor) => format!("`{tensor}` is another tensor"),
            None if ids.seen != self.tensors.len() => {
                format!("{} tensors instead of {}", ids.seen, self.tensors.len())
            }
            None => return Ok(()),
        };
        Err(Error::ModelChanged { what })
    }

    /// The names of tensors.
    pub(crate) fn names(&self, ids: &[UniqueId]) -> Vec<String> {
        self.tensors
            .iter()
            .filter(|tensor| ids.contains(&tensor.id))
            .map(|tensor| tensor.name.clone())
            .collect()
    }

    pub(crate) fn trainable_ids(&self) -> Vec<UniqueId> {
        self.tensors.iter().filter(|t| t.group.is_some()).map(|t| t.id).collect()
    }

    /// The group of each tensor and its name, in the order of the walk.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Option<usize>, &str)> {
        self.tensors.iter().map(|tensor| (tensor.group, tensor.name.as_str()))
    }

    /// Each tensor's path, B and A, in the order of the walk.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&str, &[E], &[E])> {
        self.tensors.iter().map(|tensor| (&*tensor.name, &*tensor.last, &*tensor.before))
    }

    /// The same, to be overwritten.
    pub(crate) fn weights_mut(&mut self) -> impl Iterator<Item = (&str, &mut [E], &mut [E])> {
        self.tensors
            .iter_mut()
            .map(|tensor| (&*tensor.name, &mut *tensor.last, &mut *tensor.before))
    }

    pub(crate) fn sketches(&self) -> Option<&Sketches> {
        self.sketches.as_ref()
    }

    pub(crate) fn sketches_mut(&mut self) -> Option<&mut Sketches> {
        self.sketches.as_mut()
    }

    /// B ← W.
    pub(crate) fn take<D, M>(&mut self, model: &M, which: Part)
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        if let Some(sketches) = &mut self.sketches {
            if which != Part::Buffers {
                sketches.take(model, &self.tensors);
            }
            return;
        }
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            if let Some(tensor) = tensors.next().filter(|tensor| which.has(tensor)) {
                weights.copy_into(&mut tensor.last);
            }
        });
    }

    /// The dot products of every group, then A ← B and B ← W.
    ///
    /// # Errors
    /// The name of a trainable tensor that is not finite. B is then as it was, A is lost.
    pub(crate) fn advance<D, M>(&mut self, model: &M) -> Result<Vec<Dots>, String>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        if let Some(sketches) = &mut self.sketches {
            return sketches.advance(model, &self.tensors);
        }
        let mut dots = vec![Dots::default(); self.groups];
        let mut done = 0;
        let mut bad = None;
        let scratch = &mut self.scratch;
        let largest = scratch.len();
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            let (None, Some(tensor)) = (&bad, tensors.next()) else { return };
            let (Some(group), Some(now)) = (tensor.group, scratch.get_mut(..tensor.last.len()))
            else {
                done += 1;
                return;
            };
            weights.copy_into(now);
            let own = self::dots(&tensor.before, &tensor.last, now);
            if !own.own.is_finite() && !tensors::all_finite(now) {
                bad = Some(tensor.name.clone());
                return;
            }
            done += 1;
            tensor.swap();
            if tensor.last.len() == largest {
                // The largest, which may be most of the model: exchanged, it is not copied again.
                std::mem::swap(&mut tensor.last, scratch);
            } else {
                tensor.last.copy_from_slice(now);
            }
            if let Some(sum) = dots.get_mut(group) {
                *sum += own;
            }
        });
        if let Some(name) = bad {
            let shifted = self.tensors.iter_mut().take(done).filter(|t| t.group.is_some());
            shifted.for_each(Tracked::swap);
            return Err(name);
        }
        let buffers = self.tensors.iter_mut().filter(|tensor| Part::Buffers.has(tensor));
        buffers.for_each(Tracked::swap);
        self.take(model, Part::Buffers);
        Ok(dots)
    }

    /// What rounding does to each group in a window of `steps`. A sketch cannot tell.
    pub(crate) fn rounding(&self, steps: usize) -> Vec<Rounding> {
        if self.sketches.is_some() {
            return Vec::new();
        }
        let mut squares = vec![0.0; self.groups];
        for tensor in &self.tensors {
            if let Some(sum) = tensor.group.and_then(|group| squares.get_mut(group)) {
                let squared = |x: &E| x.to_f64().map_or(0.0, |x| x * x);
                *sum += tensor.last.iter().map(squared).sum::<f64>();
            }
        }
        let noise = (steps as f64).sqrt() * spacing::<E>() / 2.0;
        squares
            .into_iter()
            .map(f64::sqrt)
            .map(|weights| Rounding { weights, noise: noise * weights })
            .collect()
    }

    /// Whether two models differ in a weight of each group.
    pub(crate) fn differing<D, M>(&self, here: &M, there: &M) -> Vec<bool>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let mut weights = Vec::new();
        tensors::read(here, |tensor| weights.push(tensor.to_vec()));
        let mut differing = vec![false; self.groups];
        let mut pairs = self.tensors.iter().zip(&weights);
        tensors::read(there, |tensor| {
            let Some((tracked, weights)) = pairs.next() else { return };
            if let Some(differs) = tracked.group.and_then(|group| differing.get_mut(group)) {
                *differs = *differs || tensor.to_vec() != *weights;
            }
        });
        differing
    }

    /// B ← A, and A is lost.
    pub(crate) fn step_back(&mut self) {
        self.tensors.iter_mut().for_each(Tracked::swap);
    }

    /// W ← B. A sketch has none.
    pub(crate) fn restore<D, M>(&self, model: &mut M, which: Part)
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let mut tensors = self.tensors.iter();
        tensors::write(model, |_, _| {
            let tensor = tensors.next().filter(|tensor| which.has(tensor))?;
            Some(Cow::Borrowed(&*tensor.last))
        });
    }
}

/// Elements that one thread sums at a time: some of the second level cache for all three.
const CHUNK: usize = 1 << 15;
/// Elements whose products are summed before their sum joins a chunk's, in so many independent lanes. With n
/// elements a sum is of BLOCK/LANES, LANES, CHUNK/BLOCK and n/CHUNK terms in turn, so that its relative error is at most
/// (112 + n/CHUNK)·2⁻⁵³: 1e-13 for 25 million. The grouping is fixed, so the result is too, whatever the
/// number of threads.
const BLOCK: usize = 1024;
const LANES: usize = 16;

/// ⟨before − last, last − now⟩ and ⟨last − now, last − now⟩.
fn dots<E: Dtype>(before: &[E], last: &[E], now: &[E]) -> Dots {
    // Compiled for each generation of registers, of which the widest runs. None of them fuses a product with a sum, so that
    // the result is the same on all.
    let widest = Arch::new();
    if now.len() <= CHUNK {
        return widest.dispatch(Chunk { before, last, now });
    }
    let chunks = before.par_chunks(CHUNK).zip(last.par_chunks(CHUNK)).zip(now.par_chunks(CHUNK));
    let dots = chunks.map(|((before, last), now)| widest.dispatch(Chunk { before, last, now }));
    dots.collect::<Vec<_>>().into_iter().sum()
}

/// A type, because the compiler does not inline a closure of this size.
struct Chunk<'a, E> {
    before: &'a [E],
    last: &'a [E],
    now: &'a [E],
}

impl<E: Dtype> NullaryFnOnce for Chunk<'_, E> {
    type Output = Dots;

    #[inline(always)]
    fn call(self) -> Dots {
        let blocks = self.before.chunks(BLOCK).zip(self.last.chunks(BLOCK));
        let blocks = blocks.zip(self.now.chunks(BLOCK));
        let mut total = Dots::default();
        for ((before, last), now) in blocks {
            let mut sums = Lanes { across: [0.0; LANES], own: [0.0; LANES] };
            let (before, last, now) =
                (before.chunks_exact(LANES), last.chunks_exact(LANES), now.chunks_exact(LANES));
            let rest = before.remainder().iter().zip(last.remainder()).zip(now.remainder());
            for ((before, last), now) in before.zip(last).zip(now) {
                for lane in 0..LANES {
                    sums.add(lane, before[lane], last[lane], now[lane]);
                }
            }
            for (lane, ((a, b), w)) in rest.enumerate() {
                sums.add(lane, *a, *b, *w);
            }
            total.across += sums.across.iter().sum::<f64>();
            total.own += sums.own.iter().sum::<f64>();
        }
        total
    }
}

struct Lanes {
    across: [f64; LANES],
    own: [f64; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add<E: Dtype>(&mut self, lane: usize, before: E, last: E, now: E) {
        let wide = |value: E| value.to_f64().unwrap_or(f64::NAN);
        let moved_then = wide(before) - wide(last);
        let moved_now = wide(last) - wide(now);
        self.across[lane] += moved_then * moved_now;
        self.own[lane] += moved_now * moved_now;
    }
}

struct Ids<'a, E, D> {
    expected: &'a [Tracked<E>],
    seen: usize,
    changed: Option<String>,
    marker: PhantomData<D>,
}

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Ids<'_, E, D> {
    type Viewer = ViewTensorRef;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        tensor: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        if let (None, Some(expected)) = (&self.changed, self.expected.get(self.seen)) {
            if tensors::id(tensor) != Some(expected.id) {
                self.changed = Some(expected.name.clone());
            }
        }
        self.seen += 1;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    // By hand. Fails with another ε, another power of K, or if what moves far enough is raised.
    #[test]
    fn what_rounding_hides_is_raised() {
        assert_eq!(spacing::<f32>(), f64::from(f32::EPSILON));
        assert_eq!(spacing::<f64>(), f64::EPSILON);
        use dfdx::prelude::*;
        let dev = Cpu::default();
        let model = (dev.tensor([3.0f32, 4.0]), dev.tensor([0.0f32]));
        let mut snapshots = Snapshots::<f32>::new(&model, &Groups::one(), None).unwrap();
        snapshots.take(&model, Part::All);
        let [rounding] = snapshots.rounding(16)[..] else { panic!("one group") };
        let noise = 4.0 * f64::from(f32::EPSILON) * 5.0 / 2.0;
        assert_eq!((rounding.weights, rounding.noise), (5.0, noise));
        assert_eq!(rounding.raise(0.99 * noise), Some(100.0));
        assert_eq!(rounding.raise(noise), None);
        // Never further than a thousandth of the weights: in half precision that is near.
        let half = Rounding { weights: 1.0, noise: 1e-3 };
        assert_eq!(half.raise(1e-4), Some(10.0));
        assert_eq!(half.raise(6e-4), None);
    }

    /// Deterministic values of mixed sign and size.
    fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    /// Sums with the rounding errors carried along (Neumaier).
    fn exact(terms: impl Iterator<Item = f64>) -> f64 {
        let (mut sum, mut lost) = (0.0f64, 0.0);
        for term in terms {
            let next = sum + term;
            lost += if sum.abs() >= term.abs() { sum - next + term } else { term - next + sum };
            sum = next;
        }
        sum + lost
    }

    #[test]
    fn dots_are_exact_to_1e_12_at_any_length() {
        let around_a_chunk = [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + BLOCK + LANES + 1];
        for len in [1, 7, 8, 9, 1023, 1024, 1025, 1_000_003].into_iter().chain(around_a_chunk) {
            let (before, last, now) = (values(len, 1), values(len, 2), values(len, 3));
            let then = || before.iter().zip(&last).map(|(a, b)| f64::from(*a) - f64::from(*b));
            let here = || last.iter().zip(&now).map(|(b, w)| f64::from(*b) - f64::from(*w));
            let own = exact(here().map(|s| s * s));
            let across = exact(then().zip(here()).map(|(s, t)| s * t));

            let dots = dots(&before, &last, &now);
            assert!((dots.own - own).abs() <= 1e-12 * own, "{len}");
            // Relative to the norms: the product itself may cancel.
            assert!((dots.across - across).abs() <= 1e-12 * own, "{len}");
        }
    }

    /// Fails where threads share a sum.
    #[test]
    fn dots_are_the_same_with_any_number_of_threads() {
        let len = 10 * CHUNK + 5;
        let (before, last, now) = (values(len, 1), values(len, 2), values(len, 3));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let dots = pool.install(|| dots(&before, &last, &now));
            (dots.own.to_bits(), dots.across.to_bits())
        };
        let alone = with(1);
        assert!([2, 3, 8].into_iter().all(|threads| with(threads) == alone));
    }

    /// The largest tensor is exchanged with the scratch, the others are copied: of either, A, B and W.
    #[test]
    fn advancing_moves_each_snapshot_one_window_back() {
        use dfdx::prelude::*;
        let dev = Cpu::default();
        let mut model = (dev.zeros::<Rank1<3>>(), dev.zeros::<Rank1<5>>(), dev.zeros::<Rank1<5>>());
        let mut snapshots = Snapshots::<f32>::new(&model, &Groups::one(), None).unwrap();
        snapshots.take(&model, Part::All);
        for window in 1..6 {
            let fill = |base: f32| move |index: usize| base + index as f32;
            let of =
                |window: i32| -> Vec<f32> { (0..13).map(fill(100.0 * window as f32)).collect() };
            if window > 1 {
                let (last, before): (Vec<_>, Vec<_>) =
                    snapshots.weights().map(|(_, last, before)| (last, before)).unzip();
                assert_eq!(last.concat(), of(window - 1));
                assert_eq!(
                    before.concat(),
                    if window > 2 { of(window - 2) } else { vec![0.0; 13] }
                );
            }
            let now = of(window);
            model.0.copy_from(&now[..3]);
            model.1.copy_from(&now[3..8]);
            model.2.copy_from(&now[8..]);
            let dots = snapshots.advance(&model).unwrap();
            if window > 2 {
                assert_eq!(dots, [Dots { across: 13e4, own: 13e4 }]);
            }
        }
        // A tensor that is not finite: B of all of them is as it was.
        model.1.copy_from(&[f32::NAN; 5]);
        assert_eq!(snapshots.advance(&model).unwrap_err(), "1");
        let last: Vec<_> = snapshots.weights().flat_map(|(_, last, _)| last.to_vec()).collect();
        assert_eq!(last, (0..13).map(|index| 500.0 + index as f32).collect::<Vec<_>>());
    }
}
