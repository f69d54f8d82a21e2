//! The snapshots of the last two windows, and the dot products between what moved in them.
//!
//! With A the weights two windows ago, B one window ago and W now, the displacements are A − B and
//! B − W. Keeping A and B, rather than B and A − B, costs the same and loses nothing: differences
//! are taken in f64 whatever the dtype, and a window that turns out to be bad is undone by swapping.

use crate::{layers::Groups, tensors, Error};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    shapes::{Dtype, Shape},
    tensor::{Tensor, UniqueId},
    tensor_ops::Device,
};
use std::{borrow::Cow, convert::Infallible, marker::PhantomData};

/// ⟨A−B, B−W⟩ and ⟨B−W, B−W⟩ over one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Dots {
    pub(crate) across: f64,
    pub(crate) own: f64,
}

/// Two windows' snapshots of every tensor of a model, on the host.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots<E> {
    tensors: Vec<Tracked<E>>,
    groups: usize,
    /// Where a tensor is read to; the size of the largest.
    scratch: Vec<E>,
}

#[derive(Clone, Debug)]
struct Tracked<E> {
    id: UniqueId,
    name: String,
    /// None for buffers, such as running means: they are restored, and do not count as directions.
    group: Option<usize>,
    /// B.
    last: Vec<E>,
    /// A.
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
    /// Room for the snapshots of `model`; [`take`](Self::take) makes the first.
    pub(crate) fn new<D, M>(model: &M, groups: &Groups) -> Result<Self, Error>
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
            largest = largest.max(tensor.len);
            tensors.push(Tracked {
                id: tensor.id,
                name: tensor.name,
                group,
                last: vec![E::default(); tensor.len],
                before: vec![E::default(); tensor.len],
            });
        }
        if tensors.iter().all(|tensor| tensor.group.is_none()) {
            return Err(Error::NothingToTrain);
        }
        Ok(Self { tensors, groups: groups.groups.len(), scratch: vec![E::default(); largest] })
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

    /// B ← W.
    pub(crate) fn take<D, M>(&mut self, model: &M, which: Part)
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
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
        let mut dots = vec![Dots::default(); self.groups];
        let mut done = 0;
        let mut bad = None;
        let scratch = &mut self.scratch;
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            let (None, Some(tensor)) = (&bad, tensors.next()) else { return };
            done += 1;
            let (Some(group), Some(now)) = (tensor.group, scratch.get_mut(..tensor.last.len()))
            else {
                return;
            };
            weights.copy_into(now);
            let own = shift(&mut tensor.before, &mut tensor.last, now);
            if !own.own.is_finite() && !now.iter().all(is_finite) {
                bad = Some(tensor.name.clone());
            }
            if let Some(sum) = dots.get_mut(group) {
                sum.across += own.across;
                sum.own += own.own;
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

    /// B ← A, and A is lost.
    pub(crate) fn step_back(&mut self) {
        self.tensors.iter_mut().for_each(Tracked::swap);
    }

    /// W ← B.
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

fn is_finite<E: Dtype>(value: &E) -> bool {
    value.to_f64().is_some_and(f64::is_finite)
}

/// Elements whose products are summed before their sum joins the total: keeps the error of the sum
/// far below the number of elements times the unit roundoff, and gives the compiler independent
/// lanes. The grouping is fixed, so the result is too.
const BLOCK: usize = 1024;
const LANES: usize = 8;

/// The dot products of one tensor, then `before` ← `last` ← `now`.
fn shift<E: Dtype>(before: &mut [E], last: &mut [E], now: &[E]) -> Dots {
    let wide = |value: E| value.to_f64().unwrap_or(f64::NAN);
    let mut total = Dots::default();
    let blocks = before.chunks_mut(BLOCK).zip(last.chunks_mut(BLOCK)).zip(now.chunks(BLOCK));
    for ((before, last), now) in blocks {
        let mut across = [0.0; LANES];
        let mut own = [0.0; LANES];
        let lanes = before.chunks_mut(LANES).zip(last.chunks_mut(LANES)).zip(now.chunks(LANES));
        for ((before, last), now) in lanes {
            for (lane, ((a, b), w)) in before.iter_mut().zip(last).zip(now).enumerate() {
                let moved_then = wide(*a) - wide(*b);
                let moved_now = wide(*b) - wide(*w);
                across[lane] += moved_then * moved_now;
                own[lane] += moved_now * moved_now;
                *a = *b;
                *b = *w;
            }
        }
        total.across += across.iter().sum::<f64>();
        total.own += own.iter().sum::<f64>();
    }
    total
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
    use super::*;

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
        for len in [1, 7, 8, 9, 1023, 1024, 1025, 1_000_003] {
            let (before, last, now) = (values(len, 1), values(len, 2), values(len, 3));
            let then = || before.iter().zip(&last).map(|(a, b)| f64::from(*a) - f64::from(*b));
            let here = || last.iter().zip(&now).map(|(b, w)| f64::from(*b) - f64::from(*w));
            let own = exact(here().map(|s| s * s));
            let across = exact(then().zip(here()).map(|(s, t)| s * t));

            let dots = shift(&mut before.clone(), &mut last.clone(), &now);
            assert!((dots.own - own).abs() <= 1e-12 * own, "{len}");
            // Relative to the norms: the product itself may cancel.
            assert!((dots.across - across).abs() <= 1e-12 * own, "{len}");
        }
    }

    #[test]
    fn shifting_moves_each_snapshot_one_window_back() {
        let (mut before, mut last, now) = (values(2000, 1), values(2000, 2), values(2000, 3));
        let was_last = last.clone();
        shift(&mut before, &mut last, &now);
        assert_eq!(before, was_last);
        assert_eq!(last, now);
    }
}
