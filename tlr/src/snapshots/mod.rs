//! The snapshots of a model at the ends of the last two windows, and the dot products of their
//! displacements.
//!
//! Let A be the weights two windows ago, B the weights one window ago, and W the weights now. The
//! displacements are then A − B and B − W. Deviation from the paper, which has no second snapshot
//! and keeps A − B and B. Keeping A and B takes the same memory and loses no precision: the
//! differences are taken in f64 whatever the element type, and a swap of A and B undoes a bad
//! window. To save memory, [`OlderSnapshot::Direction`] keeps A − B in bfloat16 in place of A. A
//! bad window is then undone only to the precision of bfloat16.

mod advance;
#[cfg(feature = "cuda")]
pub(crate) mod convert;
mod cut;
#[cfg(feature = "cuda")]
mod gpu;
mod gradients;
mod launch;
mod memory;
#[cfg(all(test, target_os = "linux"))]
mod on_host;
mod products;
#[cfg(feature = "cuda")]
mod resident;
mod shard;
mod sketch;
mod slopes;
mod sums;
#[cfg(test)]
mod tests;
mod tracked;
mod way;

pub(crate) use advance::Unmoved;
pub(crate) use sketch::Sketches;

use crate::{
    engine::{Target, TensorKind},
    error::{Error, TensorDifference},
    optim::Shards,
    tensors::{self, wide, Bf16, Element, Model, Names, Stored},
};
use cut::Cut;
use dfdx::{
    shapes::Dtype,
    tensor::{Gradients, UniqueId},
    tensor_ops::Device,
};
use memory::SnapshotMemory;
use std::borrow::Cow;
use tracked::{OlderSnapshot, Pair, Tracked};

/// The distance between 1 and the next larger number of type `E`.
pub(crate) fn spacing<E: Dtype>() -> f64 {
    let differs = |by: f64| E::from_f64(1.0 + by).and_then(|x| x.to_f64()).is_some_and(|x| x > 1.0);
    let mut spacing = 1.0;
    // The loop is bounded, in case `E::from_f64` rounds up.
    for _ in 0..f64::MANTISSA_DIGITS {
        if !differs(spacing / 2.0) {
            break;
        }
        spacing /= 2.0;
    }
    spacing
}

/// New snapshots A and B of each tensor; `None` where the old ones stay.
pub(crate) type Prepared<E> = Vec<Option<Pair<E>>>;

/// What is kept of a model's weights.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    /// Sketches with this number of bins, in place of A and B.
    pub(crate) bins: Option<usize>,
    /// A − B in bfloat16, in place of A.
    pub(crate) directions: bool,
    /// This rank and how many ranks share out A and B. Sketches are small: every rank has them.
    pub(crate) place: Option<(usize, usize)>,
}

/// The snapshots A and B of every tensor of a model.
#[derive(Debug)]
pub(crate) struct Snapshots<E> {
    tensors: Vec<Tracked<E>>,
    groups: usize,
    /// Whether other ranks have the other parts of A and B.
    is_sharded: bool,
    /// Count sketches, where they replace A and B.
    sketches: Option<Sketches>,
    #[cfg(feature = "cuda")]
    resident: resident::Resident,
}

impl<E: Dtype> Snapshots<E> {
    /// Allocates the memory for the snapshots of `model`. The first call of [`take`](Self::take)
    /// fills it.
    pub(crate) fn new<D>(
        model: &dyn Model<E, D>,
        groups: usize,
        group_of: &dyn Fn(UniqueId) -> Option<usize>,
        Layout { bins, directions, place }: Layout,
    ) -> Result<Self, Error>
    where
        D: Device<E>,
    {
        let directions = directions && bins.is_none();
        let place = place.filter(|_| bins.is_none());
        let infos = tensors::list(model);
        let trained = infos.iter().filter(|tensor| tensor.trainable);
        let mut cut = place.map(|place| Cut::new(trained.map(|tensor| tensor.len).sum(), place));
        let mut tensors = Vec::new();
        let mut memory = Vec::new();
        tensors::read(model, |tensor| {
            let part = match &mut cut {
                _ if bins.is_some() && tensor.trainable => 0..0,
                Some(cut) if tensor.trainable => cut.next(tensor.len()),
                _ => 0..tensor.len(),
            };
            let len = part.len();
            let zeros = || SnapshotMemory::zeros(&tensor, len);
            let pair = match directions && tensor.trainable {
                true => Ok((
                    SnapshotMemory::Host(vec![E::default(); len]),
                    OlderSnapshot::Direction(vec![Bf16::default(); len]),
                )),
                false => zeros().and_then(|last| Ok((last, OlderSnapshot::Weights(zeros()?)))),
            };
            memory.push((part, pair));
        });
        for (tensor, (part, pair)) in infos.into_iter().zip(memory) {
            if !tensor.contiguous {
                return Err(Error::NotContiguous { tensor: tensor.name });
            }
            let group = match group_of(tensor.id) {
                _ if !tensor.trainable => None,
                None => return Err(Error::TensorOutsideLayers { tensor: tensor.name }),
                group => group,
            };
            let (last, before) = pair?;
            tensors.push(Tracked { id: tensor.id, name: tensor.name, group, part, last, before });
        }
        if tensors.iter().all(|tensor| tensor.group.is_none()) {
            return Err(Error::NothingToTrain);
        }
        let sketches = bins.map(|bins| Sketches::new(bins, groups));
        Ok(Self {
            tensors,
            groups,
            is_sharded: place.is_some(),
            sketches,
            #[cfg(feature = "cuda")]
            resident: Default::default(),
        })
    }

    /// Checks that `model` still has the same tensors, by their identity.
    pub(crate) fn check<D: Device<E>>(&self, model: &dyn Model<E, D>) -> Result<(), Error> {
        let (mut found, mut differences) = (0, Vec::new());
        model.look(Names::Untold, &mut |seen| {
            if let Some(expected) = self.tensors.get(found)
                && seen.tensor().id() != Some(expected.id)
            {
                let tensor = expected.name.clone();
                differences.push(TensorDifference::Replaced { tensor });
            }
            found += 1;
        });
        let expected = self.tensors.len();
        if found != expected {
            differences.push(TensorDifference::Count { expected, found });
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(Error::ModelChanged(differences)),
        }
    }

    /// The names of the tensors with these identities.
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

    /// The group and the name of each tensor, in the order of the walk.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Option<usize>, &str)> {
        self.tensors.iter().map(|tensor| (tensor.group, tensor.name.as_str()))
    }

    /// All tensors, in the order of the walk.
    pub(crate) fn tensors(&self) -> &[Tracked<E>] {
        &self.tensors
    }

    /// Whether a direction A − B is kept in place of A.
    pub(crate) fn keeps_directions(&self) -> bool {
        self.tensors.iter().any(|tensor| matches!(tensor.before, OlderSnapshot::Direction(_)))
    }

    /// Prepares stored elements as new A and B of each tensor, in the same place as the old ones.
    /// A tensor that `stored` has nothing for keeps its snapshots.
    pub(crate) fn prepare<'s>(
        &self,
        stored: impl Fn(&Tracked<E>) -> Option<(&'s Stored, &'s Stored)>,
    ) -> Result<Prepared<E>, Error>
    where
        E: Element,
    {
        let pairs = self.tensors.iter().map(|tensor| {
            stored(tensor).map(|(last, before)| tensor.with(last, before)).transpose()
        });
        pairs.collect()
    }

    /// Replaces A and B by what [`prepare`](Self::prepare) has returned.
    pub(crate) fn replace(&mut self, prepared: Prepared<E>) {
        for (tensor, prepared) in self.tensors.iter_mut().zip(prepared) {
            if let Some(pair) = prepared {
                (tensor.last, tensor.before) = pair;
            }
        }
    }

    /// A and B of one tensor, whole, as a checkpoint stores them. B comes first. If the snapshots
    /// are shared out, all ranks have to call it.
    pub(crate) fn store(
        &self,
        tensor: &Tracked<E>,
        shape: &[usize],
        shards: Option<&dyn Shards>,
    ) -> Result<[Stored; 2], Error>
    where
        E: Element,
    {
        let last = Stored::new(shape.to_vec(), &self.whole_weights(tensor, &tensor.last, shards)?);
        let before = match &tensor.before {
            OlderSnapshot::Weights(before) => {
                Stored::new(shape.to_vec(), &self.whole_weights(tensor, before, shards)?)
            }
            OlderSnapshot::Direction(direction) => {
                let own = Ok(Cow::Borrowed(&direction[..]));
                let whole = self.whole(tensor, shards, own, Bf16::to_f64, Bf16::nearest)?;
                Stored::of_bf16(shape.to_vec(), &whole)
            }
        };
        Ok([last, before])
    }

    /// All elements of A or B of one tensor.
    fn whole_weights<'a>(
        &self,
        tensor: &Tracked<E>,
        memory: &'a SnapshotMemory<E>,
        shards: Option<&dyn Shards>,
    ) -> Result<Cow<'a, [E]>, Error> {
        let from = |element| E::from_f64(element).unwrap_or_default();
        self.whole(tensor, shards, memory.read(), wide, from)
    }

    pub(crate) fn sketches(&self) -> Option<&Sketches> {
        self.sketches.as_ref()
    }

    pub(crate) fn sketches_mut(&mut self) -> Option<&mut Sketches> {
        self.sketches.as_mut()
    }

    /// B ← W, for all weights or for all buffers.
    pub(crate) fn take<D>(&mut self, model: &dyn Model<E, D>, kind: TensorKind) -> Result<(), Error>
    where
        D: Device<E>,
    {
        if let (Some(sketches), TensorKind::Weights) = (&mut self.sketches, kind) {
            sketches.take(model, &self.tensors);
            return Ok(());
        }
        let mut taken = Ok(());
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            let Some(tensor) = tensors.next() else { return };
            if taken.is_ok() && (kind == TensorKind::Weights) == tensor.group.is_some() {
                taken = tensor.last.take(&weights, &tensor.part);
            }
        });
        taken
    }

    /// For each group, whether a step of plain descent at a rate of 1 would move any of its
    /// weights. A gradient that is missing, which some optimizers accept, moves none. `None` if the
    /// device fails.
    pub(crate) fn movable<D: Device<E>>(
        &self,
        model: &dyn Model<E, D>,
        gradients: &Gradients<E, D>,
    ) -> Option<Vec<bool>> {
        let mut movable = vec![false; self.groups];
        let (mut tensors, mut all_known) = (self.tensors.iter(), true);
        model.look(Names::Untold, &mut |mut seen| {
            let group = tensors.next().and_then(|tracked| tracked.group);
            let Some(moves) = group.and_then(|group| movable.get_mut(group)) else { return };
            match seen.descend(gradients) {
                Ok(Some(after)) => {
                    let mut before = vec![E::default(); after.len()];
                    seen.tensor().copy_into(&mut before);
                    *moves = *moves || before != after;
                }
                Ok(None) => (),
                Err(_) => all_known = false,
            }
        });
        all_known.then_some(movable)
    }

    /// W ← B for all tensors. For [`Target::BeforeLast`], B ← A comes first. If a direction is
    /// kept, A is exact only to 2⁻⁸ of the displacement A − B. With sketches there is no snapshot,
    /// and the model stays as it is. If the snapshots are shared out, all ranks have to call it.
    ///
    /// # Errors
    /// Model and snapshots are unchanged.
    pub(crate) fn go_back<D>(
        &mut self,
        model: &mut dyn Model<E, D>,
        target: Target,
        shards: Option<&dyn Shards>,
    ) -> Result<(), Error>
    where
        D: Device<E>,
    {
        if target == Target::Last {
            return self.restore(model, |_| true, shards);
        }
        // Other ranks may fail, and so may a read from a GPU. Elsewhere nothing is kept.
        let may_fail = shards.is_some() || self.tensors.iter().any(|t| t.last.on_host().is_none());
        let kept = |tensor: &Tracked<E>| may_fail.then(|| tensor.overwritten()).flatten();
        let overwritten: Vec<_> = self.tensors.iter().map(kept).collect();
        self.tensors.iter_mut().for_each(Tracked::step_back);
        let restored = self.restore(model, |_| true, shards);
        if restored.is_err() {
            let stepped = self.tensors.iter_mut().zip(overwritten);
            stepped.for_each(|(tensor, overwritten)| tensor.step_forth(overwritten));
        }
        restored
    }

    /// W ← B for all buffers.
    ///
    /// # Errors
    /// The model is unchanged.
    pub(crate) fn restore_buffers<D>(&self, model: &mut dyn Model<E, D>) -> Result<(), Error>
    where
        D: Device<E>,
    {
        self.restore(model, |tensor| tensor.group.is_none(), None)
    }

    fn restore<D>(
        &self,
        model: &mut dyn Model<E, D>,
        which: fn(&Tracked<E>) -> bool,
        shards: Option<&dyn Shards>,
    ) -> Result<(), Error>
    where
        D: Device<E>,
    {
        let mut elements = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            elements.push(match which(tensor) {
                true => Some(self.whole_weights(tensor, &tensor.last, shards)?),
                false => None,
            });
        }
        let mut elements = elements.into_iter();
        tensors::write(model, |_, _| elements.next()?);
        Ok(())
    }
}
