//! The end of a window: computes its dot products and moves the snapshots on by one window.

use super::{
    memory::SnapshotMemory,
    products,
    sums::{each, square},
    tracked::{OlderSnapshot, Tracked},
    Snapshots,
};
#[cfg(feature = "cuda")]
use crate::tensors::all_finite;
use crate::{
    engine::{TensorKind, WindowProducts},
    error::Error,
    optim::Shards,
    tensors::{self, are_finite, is_shared, Bf16, Model, Values},
};
use dfdx::{shapes::Dtype, tensor_ops::Device};

/// Why [`Snapshots::advance`] did not move the snapshots on.
#[derive(Debug)]
pub(crate) enum Unmoved {
    /// This trainable tensor is not finite.
    NotFinite(String),
    Failed(Error),
}

impl From<Error> for Unmoved {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The snapshots of one tensor on the host, and its weights now, at the end of a window.
struct TensorShift<'a, E: Dtype> {
    name: &'a str,
    group: usize,
    before: OlderSnapshotMut<'a, E>,
    last: &'a mut [E],
    now: Values<E>,
    /// The index in W of B's first element.
    first: usize,
    /// Whether other ranks have other parts of the snapshots.
    is_sharded: bool,
}

/// Mutable access to what an [`OlderSnapshot`] keeps of A.
enum OlderSnapshotMut<'a, E> {
    Weights(&'a mut [E]),
    Direction(&'a mut [Bf16]),
}

impl<E: Dtype> TensorShift<'_, E> {
    fn products(&mut self) -> WindowProducts {
        let (last, now, first) = (&mut *self.last, &self.now, self.first);
        match &mut self.before {
            OlderSnapshotMut::Weights(before) => {
                products::shift::<_, _, false>(before, last, now, first)
            }
            // The other ranks may fail, and B is still needed then.
            OlderSnapshotMut::Direction(direction) if self.is_sharded => {
                products::shift::<_, _, false>(direction, last, now, first)
            }
            OlderSnapshotMut::Direction(direction) => {
                products::shift::<_, _, true>(direction, last, now, first)
            }
        }
    }
}

impl<E: Dtype> Snapshots<E> {
    /// Computes the dot products of every group. Then A ← B and B ← W. If the snapshots are shared
    /// out, all ranks have to call it.
    ///
    /// # Errors
    /// B is unchanged, but A is lost.
    pub(crate) fn advance<D>(
        &mut self,
        model: &dyn Model<E, D>,
        shards: Option<&dyn Shards>,
    ) -> Result<Vec<WindowProducts>, Unmoved>
    where
        D: Device<E>,
    {
        if let Some(sketches) = &self.sketches {
            let next = sketches.next(model, &self.tensors);
            let (products, next) = next.map_err(Unmoved::NotFinite)?;
            self.take_buffers_before(model)?;
            self.sketches = Some(next);
            self.tensors.iter_mut().for_each(Tracked::swap);
            return Ok(products);
        }
        if self.is_sharded {
            // Each rank looks at all weights, so that all ranks find the same tensor.
            let bad = tensors::first_not_finite(model).and_then(|place| self.tensors.get(place));
            if let Some(tensor) = bad {
                return Err(Unmoved::NotFinite(tensor.name.clone()));
            }
        }
        // Whatever can fail comes before B is replaced, and overwrites A only.
        let own = match self.shift(model) {
            Err(Unmoved::Failed(error)) => Err(error),
            Err(not_finite) => return Err(not_finite),
            Ok(products) => Ok(products.iter().map(|group| [group.across, group.own]).collect()),
        };
        let products = self.total(shards, own)?;
        if self.is_sharded && self.keeps_directions() {
            self.take(model, TensorKind::Weights)?;
        }
        self.tensors.iter_mut().for_each(Tracked::swap);
        Ok(products.into_iter().map(|[across, own]| WindowProducts { across, own }).collect())
    }

    /// Computes the dot products of every group, over the part that is kept here. Writes W to the
    /// memory of A. Where a direction is kept in place of A, writes W to the memory of B, unless
    /// the snapshots are shared out.
    fn shift<D>(&mut self, model: &dyn Model<E, D>) -> Result<Vec<WindowProducts>, Unmoved>
    where
        D: Device<E>,
    {
        self.take_buffers_before(model)?;
        let mut products = vec![WindowProducts::default(); self.groups];
        #[cfg(feature = "cuda")]
        self.shift_on_gpu(model, &mut products)?;
        self.shift_on_host(model, &mut products)?;
        Ok(products)
    }

    /// Writes W to the memory of A, for all buffers. The final swap of A and B then makes it B.
    fn take_buffers_before<D>(&mut self, model: &dyn Model<E, D>) -> Result<(), Error>
    where
        D: Device<E>,
    {
        let mut taken = Ok(());
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |buffer| {
            let Some(tensor) = tensors.next().filter(|tensor| tensor.group.is_none()) else {
                return;
            };
            if let (Ok(()), OlderSnapshot::Weights(before)) = (&taken, &mut tensor.before) {
                taken = before.take(&buffer, &tensor.part);
            }
        });
        taken
    }

    /// Does the work of [`shift`](Self::shift) for all weights whose snapshots are on the host.
    fn shift_on_host<D>(
        &mut self,
        model: &dyn Model<E, D>,
        products: &mut [WindowProducts],
    ) -> Result<(), Unmoved>
    where
        D: Device<E>,
    {
        let mut shifts = Vec::new();
        let is_sharded = self.is_sharded;
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            let Some(tensor) = tensors.next() else { return };
            let (Some(group), Some(last)) = (tensor.group, tensor.last.on_host_mut()) else {
                return;
            };
            let before = match &mut tensor.before {
                OlderSnapshot::Weights(before) => {
                    before.on_host_mut().map(OlderSnapshotMut::Weights)
                }
                OlderSnapshot::Direction(direction) => Some(OlderSnapshotMut::Direction(direction)),
            };
            let Some(before) = before else { return };
            let now = weights.values();
            let first = tensor.part.start;
            shifts.push(TensorShift {
                name: &tensor.name,
                group,
                before,
                last,
                now,
                first,
                is_sharded,
            });
        });
        // All tensors are shared out together, so that the threads wake only once.
        let shared = is_shared(shifts.iter().map(|shift| shift.last.len()).sum());
        // A shift that keeps a direction may overwrite B. So the weights are checked before it
        // starts.
        if shifts.iter().any(|shift| matches!(shift.before, OlderSnapshotMut::Direction(_))) {
            let finite = each(&mut shifts, shared, |shift| are_finite(&shift.now));
            if let Some((_, bad)) = finite.iter().zip(&shifts).find(|(finite, _)| !**finite) {
                return Err(Unmoved::NotFinite(bad.name.to_owned()));
            }
        }
        let sums = each(&mut shifts, shared, TensorShift::products);
        for (own, shift) in sums.into_iter().zip(&shifts) {
            if !own.own.is_finite() && !are_finite(&shift.now) {
                return Err(Unmoved::NotFinite(shift.name.to_owned()));
            }
            if let Some(sum) = products.get_mut(shift.group) {
                *sum += own;
            }
        }
        Ok(())
    }

    /// Does the work of [`shift`](Self::shift) for all weights whose snapshots are on a GPU, in one
    /// launch.
    #[cfg(feature = "cuda")]
    fn shift_on_gpu<D>(
        &mut self,
        model: &dyn Model<E, D>,
        products: &mut [WindowProducts],
    ) -> Result<(), Unmoved>
    where
        D: Device<E>,
    {
        let mut rows = super::gpu::Rows::new();
        let mut added = Ok(());
        let mut tensors = self.tensors.iter_mut();
        tensors::read(model, |weights| {
            let (Ok(()), Some(tensor)) = (&added, tensors.next()) else { return };
            let Some(group) = tensor.group else { return };
            let OlderSnapshot::Weights(SnapshotMemory::Gpu(before)) = &mut tensor.before else {
                return;
            };
            if let SnapshotMemory::Gpu(last) = &tensor.last {
                added = rows.shift(group, before, last, &weights, tensor.part.start);
            }
        });
        added?;
        // SAFETY: every row's B and A are borrowed by `rows`, and W belongs to `model`, which is
        // borrowed for this whole function. So all tensors are still allocated, and nothing has
        // written to them.
        #[allow(unsafe_code)]
        let sums = unsafe { rows.dots(&mut self.resident, products.len()) }?;
        if !sums.iter().all(|dots| dots.own.is_finite()) {
            for tensor in self.tensors.iter().filter(|tensor| tensor.group.is_some()) {
                let OlderSnapshot::Weights(weights) = &tensor.before else { continue };
                if !all_finite(&weights.read()?) {
                    return Err(Unmoved::NotFinite(tensor.name.clone()));
                }
            }
        }
        products.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        Ok(())
    }

    /// ‖B‖ of each group. Empty with sketches, which do not contain it. If the snapshots are shared
    /// out, all ranks have to call it.
    pub(crate) fn norms(&mut self, shards: Option<&dyn Shards>) -> Result<Vec<f64>, Error> {
        if self.sketches.is_some() {
            return Ok(Vec::new());
        }
        let own = self.squares().map(|own| own.into_iter().map(|square| [square]).collect());
        Ok(self.total(shards, own)?.into_iter().map(|[square]| square.sqrt()).collect())
    }

    /// ‖B‖² of each group, over the part that is kept here.
    fn squares(&mut self) -> Result<Vec<f64>, Error> {
        let mut squares = vec![0.0; self.groups];
        #[cfg(feature = "cuda")]
        let mut rows = super::gpu::Rows::new();
        for tensor in &self.tensors {
            let Some(group) = tensor.group else { continue };
            match &tensor.last {
                SnapshotMemory::Host(last) => {
                    if let Some(sum) = squares.get_mut(group) {
                        *sum += square(last);
                    }
                }
                #[cfg(feature = "cuda")]
                SnapshotMemory::Gpu(last) => rows.square(group, last),
            }
        }
        #[cfg(feature = "cuda")]
        {
            let own = rows.squares(&mut self.resident, self.groups)?;
            squares.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        Ok(squares)
    }
}
