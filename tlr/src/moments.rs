//! The snapshots of the last two windows, and the dot products between what moved in them.
//!
//! With A the weights two windows ago, B one window ago and W now, the displacements are A − B and
//! B − W. Keeping A and B, rather than B and A − B, costs the same and loses nothing: differences
//! are taken in f64 whatever the dtype, and a window that turns out to be bad is undone by swapping.
//! Who would rather have the memory keeps A − B in bfloat16, and undoes a window to its precision.

use crate::{
    checkpoint::{Element, Stored},
    dots::{self, Bf16, Dots},
    layers::Groups,
    memory::Memory,
    rule::LARGEST_CLIMB,
    sketch::Sketches,
    tensors::{self, Values},
    Error,
};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    shapes::{Dtype, Shape},
    tensor::{Tensor, UniqueId},
    tensor_ops::Device,
};
use rayon::prelude::*;
use std::{convert::Infallible, marker::PhantomData};

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

/// Why the snapshots stay where they are.
#[derive(Debug)]
pub(crate) enum Unmoved {
    /// A trainable tensor that is not finite.
    NotFinite(String),
    Failed(Error),
}

impl From<Error> for Unmoved {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Two windows' snapshots of every tensor of a model.
#[derive(Debug)]
pub(crate) struct Snapshots<E> {
    tensors: Vec<Tracked<E>>,
    groups: usize,
    /// In place of A and B.
    sketches: Option<Sketches>,
}

#[derive(Debug)]
pub(crate) struct Tracked<E> {
    id: UniqueId,
    pub(crate) name: String,
    /// None for buffers, such as running means: they are restored, and do not count as directions.
    pub(crate) group: Option<usize>,
    /// B. Empty beside a sketch.
    pub(crate) last: Memory<E>,
    pub(crate) before: Before<E>,
}

/// What is kept of A. Nothing beside a sketch.
#[derive(Debug)]
pub(crate) enum Before<E> {
    Weights(Memory<E>),
    /// A − B.
    Direction(Vec<Bf16>),
}

/// What a window does to the snapshots of one tensor that are on the host.
struct Shift<'a, E: Dtype> {
    name: &'a str,
    group: usize,
    before: BeforeMut<'a, E>,
    last: &'a mut [E],
    now: Values<E>,
}

/// As [`Before`].
enum BeforeMut<'a, E> {
    Weights(&'a mut [E]),
    Direction(&'a mut [Bf16]),
}

impl<E: Dtype> Shift<'_, E> {
    fn dots(&mut self) -> Dots {
        match &mut self.before {
            BeforeMut::Weights(before) => dots::shift(before, self.last, &self.now),
            BeforeMut::Direction(direction) => dots::shift(direction, self.last, &self.now),
        }
    }
}

/// `of` each item, on all threads or on this one.
fn each<T: Send, R: Send>(
    items: &mut [T],
    shared: bool,
    of: impl Fn(&mut T) -> R + Sync + Send,
) -> Vec<R> {
    match shared {
        true => items.par_iter_mut().map(of).collect(),
        false => items.iter_mut().map(of).collect(),
    }
}

/// B and what is kept of A.
pub(crate) type Pair<E> = (Memory<E>, Before<E>);

impl<E: Element> Before<E> {
    /// What it is called in a checkpoint.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Weights(_) => "snapshot_before",
            Self::Direction(_) => "direction",
        }
    }

    pub(crate) fn store(&self, shape: Vec<usize>) -> Result<Stored, Error> {
        match self {
            Self::Weights(before) => Ok(Stored::new(shape, &before.read()?)),
            Self::Direction(direction) => Ok(Stored::of_bf16(shape, direction)),
        }
    }

    /// The same kind, with what is stored.
    fn with(&self, stored: &Stored) -> Result<Self, Error> {
        match self {
            Self::Weights(before) => before.with(stored.to_vec()).map(Self::Weights),
            Self::Direction(_) => Ok(Self::Direction(stored.to_bf16())),
        }
    }
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
    /// Where both are kept.
    fn swap(&mut self) {
        if let Before::Weights(before) = &mut self.before {
            std::mem::swap(before, &mut self.last);
        }
    }
}

impl<E: Dtype> Tracked<E> {
    fn step_back(&mut self) {
        match (&mut self.before, self.last.on_host_mut()) {
            (Before::Direction(direction), Some(last)) => {
                for (last, moved) in last.iter_mut().zip(direction) {
                    let before = last.to_f64().unwrap_or(f64::NAN) + moved.to_f64();
                    *last = E::from_f64(before).unwrap_or(*last);
                }
            }
            _ => self.swap(),
        }
    }
}

impl<E: Dtype> Snapshots<E> {
    /// Room for the snapshots of `model`, or for sketches of so many bins, or for a snapshot and a direction;
    /// [`take`](Self::take) makes the first.
    pub(crate) fn new<D, M>(
        model: &M,
        groups: &Groups,
        bins: Option<usize>,
        directions: bool,
    ) -> Result<Self, Error>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let directions = directions && bins.is_none();
        let mut tensors = Vec::new();
        let mut memory = Vec::new();
        tensors::read(model, |tensor| {
            let len = if bins.is_some() { 0 } else { tensor.len() };
            let zeros = || Memory::zeros(&tensor, len);
            memory.push(match directions && tensor.trainable {
                true => Ok((
                    Memory::Host(vec![E::default(); len]),
                    Before::Direction(vec![Bf16::default(); len]),
                )),
                false => zeros().and_then(|last| Ok((last, Before::Weights(zeros()?)))),
            });
        });
        for (tensor, memory) in tensors::list(model).into_iter().zip(memory) {
            if !tensor.contiguous {
                return Err(Error::NotContiguous { tensor: tensor.name });
            }
            let group = match groups.of(tensor.id) {
                _ if !tensor.trainable => None,
                None => return Err(Error::TensorOutsideLayers { tensor: tensor.name }),
                group => group,
            };
            let (last, before) = memory?;
            tensors.push(Tracked { id: tensor.id, name: tensor.name, group, last, before });
        }
        if tensors.iter().all(|tensor| tensor.group.is_none()) {
            return Err(Error::NothingToTrain);
        }
        let groups = groups.groups.len();
        let sketches = bins.map(|bins| Sketches::new(bins, groups));
        Ok(Self { tensors, groups, sketches })
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

    /// Every tensor, in the order of the walk.
    pub(crate) fn tensors(&self) -> &[Tracked<E>] {
        &self.tensors
    }

    /// Whether directions are kept in place of A.
    pub(crate) fn directions(&self) -> bool {
        self.tensors.iter().any(|tensor| matches!(tensor.before, Before::Direction(_)))
    }

    /// Other elements for B and A of every tensor, in the same memory; where one is not stored, all stay.
    pub(crate) fn prepare<'s>(
        &self,
        stored: impl Fn(&Tracked<E>) -> Option<(&'s Stored, &'s Stored)>,
    ) -> Result<Vec<Pair<E>>, Error>
    where
        E: Element,
    {
        let Some(stored) = self.tensors.iter().map(stored).collect::<Option<Vec<_>>>() else {
            return Ok(Vec::new());
        };
        let pairs = self.tensors.iter().zip(stored);
        pairs
            .map(|(tensor, (last, before))| {
                Ok((tensor.last.with(last.to_vec())?, tensor.before.with(before)?))
            })
            .collect()
    }

    /// Takes over what was [prepared](Self::prepare).
    pub(crate) fn replace(&mut self, prepared: Vec<Pair<E>>) {
        for (tensor, prepared) in self.tensors.iter_mut().zip(prepared) {
            (tensor.last, tensor.before) = prepared;
        }
    }

    pub(crate) fn sketches(&self) -> Option<&Sketches> {
        self.sketches.as_ref()
    }

    pub(crate) fn sketches_mut(&mut self) -> Option<&mut Sketches> {
        self.sketches.as_mut()
    }

    /// B ← W.
    pub(crate) fn take<D, M>(&mut self, model: &M, which: Part) -> Result<(), Error>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        if let Some(sketches) = &mut self.sketches {
            if which != Part::Buffers {
                sketches.take(model, &self.tensors);
            }
            return Ok(());
        }
        let mut taken = Ok(());
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            let Some(tensor) = tensors.next() else { return };
            if taken.is_ok() && which.has(tensor) {
                taken = tensor.last.take(&weights);
            }
        });
        taken
    }

    /// The dot products of every group, then A ← B and B ← W.
    ///
    /// # Errors
    /// B is as it was, A is lost.
    pub(crate) fn advance<D, M>(&mut self, model: &M) -> Result<Vec<Dots>, Unmoved>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        if let Some(sketches) = &mut self.sketches {
            return sketches.advance(model, &self.tensors).map_err(Unmoved::NotFinite);
        }
        let mut dots = vec![Dots::default(); self.groups];
        self.shift_on_host(model, &mut dots)?;
        #[cfg(feature = "cuda")]
        self.shift_on_gpu(model, &mut dots)?;
        self.tensors.iter_mut().for_each(Tracked::swap);
        self.take(model, Part::Buffers)?;
        Ok(dots)
    }

    /// Adds the dot products of the weights whose snapshots are on the host, and puts W in A's place, or in B's.
    fn shift_on_host<D, M>(&mut self, model: &M, dots: &mut [Dots]) -> Result<(), Unmoved>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let mut shifts = Vec::new();
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            let Some(tensor) = tensors.next() else { return };
            let (Some(group), Some(last)) = (tensor.group, tensor.last.on_host_mut()) else {
                return;
            };
            let before = match &mut tensor.before {
                Before::Weights(before) => before.on_host_mut().map(BeforeMut::Weights),
                Before::Direction(direction) => Some(BeforeMut::Direction(direction)),
            };
            let Some(before) = before else { return };
            shifts.push(Shift { name: &tensor.name, group, before, last, now: weights.values() });
        });
        // Threads wake once for all tensors.
        let shared = dots::are_shared(shifts.iter().map(|shift| shift.last.len()).sum());
        // Where B does not outlive the shift.
        if shifts.iter().any(|shift| matches!(shift.before, BeforeMut::Direction(_))) {
            let finite = each(&mut shifts, shared, |shift| dots::are_finite(&shift.now));
            if let Some((_, bad)) = finite.iter().zip(&shifts).find(|(finite, _)| !**finite) {
                return Err(Unmoved::NotFinite(bad.name.to_owned()));
            }
        }
        let sums = each(&mut shifts, shared, Shift::dots);
        for (own, shift) in sums.into_iter().zip(&shifts) {
            if !own.own.is_finite() && !dots::are_finite(&shift.now) {
                return Err(Unmoved::NotFinite(shift.name.to_owned()));
            }
            if let Some(sum) = dots.get_mut(shift.group) {
                *sum += own;
            }
        }
        Ok(())
    }

    /// The same of those whose snapshots are on a GPU, of all in one go.
    #[cfg(feature = "cuda")]
    fn shift_on_gpu<D, M>(&mut self, model: &M, dots: &mut [Dots]) -> Result<(), Unmoved>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let mut window = crate::gpu::Window::new();
        let mut added = Ok(());
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            let (Ok(()), Some(tensor)) = (&added, tensors.next()) else { return };
            let Some(group) = tensor.group else { return };
            let Before::Weights(Memory::Gpu(before)) = &mut tensor.before else { return };
            if let Memory::Gpu(last) = &tensor.last {
                added = window.shift(group, before, last, &weights);
            }
        });
        added?;
        // SAFETY: `model` is borrowed, so its tensors are where and what they were.
        #[allow(unsafe_code)]
        let sums = unsafe { window.dots(dots.len()) }?;
        if !sums.iter().all(|dots| dots.own.is_finite()) {
            for tensor in self.tensors.iter().filter(|tensor| Part::Weights.has(tensor)) {
                let Before::Weights(weights) = &tensor.before else { continue };
                if !tensors::all_finite(&weights.read()?) {
                    return Err(Unmoved::NotFinite(tensor.name.clone()));
                }
            }
        }
        dots.iter_mut().zip(sums).for_each(|(dots, sum)| *dots += sum);
        Ok(())
    }

    /// What rounding does to each group in a window of `steps`. A sketch cannot tell.
    pub(crate) fn rounding(&self, steps: usize) -> Result<Vec<Rounding>, Error> {
        if self.sketches.is_some() {
            return Ok(Vec::new());
        }
        let mut squares = vec![0.0; self.groups];
        #[cfg(feature = "cuda")]
        let mut window = crate::gpu::Window::new();
        for tensor in &self.tensors {
            let Some(group) = tensor.group else { continue };
            match &tensor.last {
                Memory::Host(last) => {
                    if let Some(sum) = squares.get_mut(group) {
                        *sum += dots::square(last);
                    }
                }
                #[cfg(feature = "cuda")]
                Memory::Gpu(last) => window.square(group, last),
            }
        }
        #[cfg(feature = "cuda")]
        squares.iter_mut().zip(window.squares(self.groups)?).for_each(|(sum, own)| *sum += own);
        let noise = (steps as f64).sqrt() * spacing::<E>() / 2.0;
        let norms = squares.into_iter().map(f64::sqrt);
        Ok(norms.map(|weights| Rounding { weights, noise: noise * weights }).collect())
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

    /// B ← A, and A is lost. Of a direction, to 2⁻⁸ of what moved.
    pub(crate) fn step_back(&mut self) {
        self.tensors.iter_mut().for_each(Tracked::step_back);
    }

    /// W ← B. A sketch has none.
    pub(crate) fn restore<D, M>(&self, model: &mut M, which: Part) -> Result<(), Error>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let mut failed = None;
        let mut tensors = self.tensors.iter();
        tensors::write(model, |_, _| {
            let tensor = tensors.next().filter(|tensor| which.has(tensor))?;
            let last = tensor.last.read();
            last.map_err(|error| failed.get_or_insert(error)).ok()
        });
        failed.map_or(Ok(()), Err)
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
        let mut snapshots = Snapshots::<f32>::new(&model, &Groups::one(), None, false).unwrap();
        snapshots.take(&model, Part::All).unwrap();
        let [rounding] = snapshots.rounding(16).unwrap()[..] else { panic!("one group") };
        let noise = 4.0 * f64::from(f32::EPSILON) * 5.0 / 2.0;
        assert_eq!((rounding.weights, rounding.noise), (5.0, noise));
        assert_eq!(rounding.raise(0.99 * noise), Some(100.0));
        assert_eq!(rounding.raise(noise), None);
        // Never further than a thousandth of the weights: in half precision that is near.
        let half = Rounding { weights: 1.0, noise: 1e-3 };
        assert_eq!(half.raise(1e-4), Some(10.0));
        assert_eq!(half.raise(6e-4), None);
    }

    /// Of each, A, B and W: of tensors that are copied, that are lent, and that threads share.
    #[test]
    fn advancing_moves_each_snapshot_one_window_back() {
        use dfdx::prelude::*;
        const LARGE: usize = (1 << 20) + 1;
        const ALL: usize = 3 + LARGE + 5;
        let dev = Cpu::default();
        let mut model =
            (dev.zeros::<Rank1<3>>(), dev.zeros::<Rank1<LARGE>>(), dev.zeros::<Rank1<5>>());
        let mut snapshots = Snapshots::<f32>::new(&model, &Groups::one(), None, false).unwrap();
        snapshots.take(&model, Part::All).unwrap();
        for window in 1..6 {
            let of = |window: i32| -> Vec<f32> {
                (0..ALL).map(|index| 100.0 * window as f32 + index as f32).collect()
            };
            if window > 1 {
                let (mut last, mut before) = (Vec::new(), Vec::new());
                for tensor in snapshots.tensors() {
                    let Before::Weights(of_before) = &tensor.before else { panic!("no direction") };
                    last.push(tensor.last.read().unwrap());
                    before.push(of_before.read().unwrap());
                }
                assert!(last.concat() == of(window - 1));
                let two_ago = if window > 2 { of(window - 2) } else { vec![0.0; ALL] };
                assert!(before.concat() == two_ago);
            }
            let now = of(window);
            model.0.copy_from(&now[..3]);
            model.1.copy_from(&now[3..3 + LARGE]);
            model.2.copy_from(&now[3 + LARGE..]);
            let dots = snapshots.advance(&model).unwrap();
            if window > 2 {
                let sum = 1e4 * ALL as f64;
                assert_eq!(dots, [Dots { across: sum, own: sum }]);
            }
        }
        // A tensor that is not finite: B of all of them is as it was.
        let last = |snapshots: &Snapshots<f32>| -> Vec<f32> {
            let tensors = snapshots.tensors().iter();
            tensors.flat_map(|tensor| tensor.last.read().unwrap().to_vec()).collect()
        };
        let good = last(&snapshots);
        for (bad, name) in [(2, "2"), (1, "1")] {
            match bad {
                2 => model.2.copy_from(&[f32::NAN; 5]),
                _ => model.1.copy_from(&[f32::INFINITY; LARGE]),
            }
            let Err(Unmoved::NotFinite(tensor)) = snapshots.advance(&model) else {
                panic!("{name}")
            };
            assert_eq!(tensor, name);
            assert!(last(&snapshots) == good);
        }
    }

    /// What moves is a power of two, so that bfloat16 keeps all of it. Fails where the direction is that of another window, where weights that are not finite move anything, and where a step back goes the other way.
    #[test]
    fn a_direction_in_place_of_the_snapshot_before() {
        use dfdx::prelude::*;
        let dev = Cpu::default();
        let mut model = (dev.zeros::<Rank1<3>>(), dev.zeros::<Rank1<40>>());
        let mut snapshots = Snapshots::<f32>::new(&model, &Groups::one(), None, true).unwrap();
        assert!(snapshots.tensors.iter().all(|t| matches!(t.before, Before::Direction(_))));
        snapshots.take(&model, Part::All).unwrap();
        let last = |snapshots: &Snapshots<f32>| -> Vec<f32> {
            snapshots.tensors.iter().flat_map(|t| t.last.read().unwrap().to_vec()).collect()
        };
        for (weight, own, across) in [(4.0, 16.0, 0.0), (6.0, 4.0, 8.0), (5.0, 1.0, -2.0)] {
            model.0.copy_from(&[weight; 3]);
            model.1.copy_from(&[weight; 40]);
            let dots = snapshots.advance(&model).unwrap();
            assert_eq!(dots, [Dots { across: 43.0 * across, own: 43.0 * own }]);
            assert_eq!(last(&snapshots), [weight; 43]);
        }
        model.1.copy_from(&[f32::NAN; 40]);
        let Err(Unmoved::NotFinite(tensor)) = snapshots.advance(&model) else { panic!("finite") };
        assert_eq!((&*tensor, last(&snapshots)), ("1", vec![5.0; 43]));
        snapshots.step_back();
        assert_eq!(last(&snapshots), [6.0; 43]);
    }
}
