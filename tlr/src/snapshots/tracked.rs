//! [`Tracked`]: the snapshots of one tensor.

use super::memory::SnapshotMemory;
use crate::{
    engine::Target,
    error::Error,
    tensors::{wide, Bf16, Element, ReadBuffer, Stored},
};
#[cfg(feature = "cuda")]
use cudarc::driver::CudaSlice;
use dfdx::{shapes::Dtype, tensor::UniqueId};
use std::ops::Range;

/// The snapshots of one tensor. A holds its elements two windows ago, and B one window ago.
#[derive(Debug)]
pub(crate) struct Tracked<E> {
    pub(super) id: UniqueId,
    /// The path of the field, such as `hidden.weight`.
    pub(crate) name: String,
    /// The group of a trainable tensor. `None` for a buffer, such as a running mean: a rollback
    /// restores buffers, but directions do not include them.
    pub(crate) group: Option<usize>,
    /// The elements of the tensor whose snapshots are kept here: all, or this rank's part. Empty
    /// for weights if sketches replace their snapshots.
    pub(super) part: Range<usize>,
    /// B.
    pub(crate) last: SnapshotMemory<E>,
    pub(crate) before: OlderSnapshot<E>,
}

/// What is kept of A.
#[derive(Debug)]
pub(crate) enum OlderSnapshot<E> {
    Weights(SnapshotMemory<E>),
    /// The displacement A − B, in place of A.
    Direction(Vec<Bf16>),
}

impl<E: Element> OlderSnapshot<E> {
    /// The type that a checkpoint stores it in.
    pub(crate) fn stored_dtype(&self) -> safetensors::Dtype {
        match self {
            Self::Weights(_) => E::STORED,
            Self::Direction(_) => safetensors::Dtype::BF16,
        }
    }
}

/// B, and what is kept of A.
pub(crate) type Pair<E> = (SnapshotMemory<E>, OlderSnapshot<E>);

/// The elements of a snapshot on the host.
#[derive(Clone, Copy)]
pub(super) enum Past<'a, E> {
    Weights(&'a [E]),
    /// B and A − B, which stand for A.
    Direction(&'a [E], &'a [Bf16]),
}

impl<E: Dtype> Past<'_, E> {
    /// The elements of a range, at most [`READ`](crate::tensors::READ) of them. Elements that are
    /// not kept as such are written to `room` first.
    #[inline(always)]
    pub(super) fn read<'r>(
        &'r self,
        range: Range<usize>,
        ReadBuffer(room): &'r mut ReadBuffer<E>,
    ) -> &'r [E] {
        match self {
            Self::Weights(weights) => weights.get(range).unwrap_or_default(),
            Self::Direction(last, moved) => {
                let len = range.len();
                let last = last.get(range.clone()).unwrap_or_default();
                let moved = moved.get(range).unwrap_or_default();
                for ((to, last), moved) in room.iter_mut().zip(last).zip(moved) {
                    *to = before(*last, *moved);
                }
                room.get(..len).unwrap_or_default()
            }
        }
    }
}

impl<E> OlderSnapshot<E> {
    /// The name of this kind of snapshot in a checkpoint.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Weights(_) => "snapshot_before",
            Self::Direction(_) => "direction",
        }
    }
}

impl<E: Element> Tracked<E> {
    /// The stored elements, in the same place and form as A and B here.
    pub(super) fn with(&self, last: &Stored, before: &Stored) -> Result<Pair<E>, Error> {
        let last = self.last.with(self.own(last.to_vec()))?;
        let before = match &self.before {
            OlderSnapshot::Weights(memory) => {
                OlderSnapshot::Weights(memory.with(self.own(before.to_vec()))?)
            }
            OlderSnapshot::Direction(_) => OlderSnapshot::Direction(self.own(before.to_bf16())),
        };
        Ok((last, before))
    }
}

impl<E> Tracked<E> {
    /// Of all elements of the tensor, those that are kept here.
    fn own<T>(&self, mut whole: Vec<T>) -> Vec<T> {
        whole.truncate(self.part.end);
        whole.drain(..self.part.start.min(whole.len()));
        whole
    }

    /// Exchanges A and B. Does nothing if a direction is kept in place of A.
    pub(super) fn swap(&mut self) {
        if let OlderSnapshot::Weights(before) = &mut self.before {
            std::mem::swap(before, &mut self.last);
        }
    }
}

impl<E: Dtype> Tracked<E> {
    /// A or B of a trainable tensor, if it is on the host. From a direction, A is exact only to 2⁻⁸
    /// of the displacement A − B.
    pub(super) fn on_host(&self, target: Target) -> Option<Past<'_, E>> {
        self.group?;
        match (target, &self.before) {
            (Target::Last, _) => self.last.on_host().map(Past::Weights),
            (Target::BeforeLast, OlderSnapshot::Weights(before)) => {
                before.on_host().map(Past::Weights)
            }
            (Target::BeforeLast, OlderSnapshot::Direction(direction)) => {
                Some(Past::Direction(self.last.on_host()?, direction))
            }
        }
    }

    /// A or B of a trainable tensor, if it is on a GPU.
    #[cfg(feature = "cuda")]
    pub(super) fn on_gpu(&self, target: Target) -> Option<&CudaSlice<E>> {
        self.group?;
        match (target, &self.last, &self.before) {
            (Target::Last, SnapshotMemory::Gpu(last), _) => Some(last),
            (Target::BeforeLast, _, OlderSnapshot::Weights(SnapshotMemory::Gpu(before))) => {
                Some(before)
            }
            _ => None,
        }
    }

    /// B ← A. From a direction, A is exact only to 2⁻⁸ of the displacement A − B.
    pub(super) fn step_back(&mut self) {
        match (&mut self.before, self.last.on_host_mut()) {
            (OlderSnapshot::Direction(direction), Some(last)) => {
                for (last, moved) in last.iter_mut().zip(direction.iter()) {
                    *last = before(*last, *moved);
                }
            }
            _ => self.swap(),
        }
    }

    /// What [`step_back`](Self::step_back) overwrites: B, if a direction is kept in place of A.
    pub(super) fn overwritten(&self) -> Option<Vec<E>> {
        match &self.before {
            OlderSnapshot::Direction(_) => self.last.on_host().map(<[E]>::to_vec),
            OlderSnapshot::Weights(_) => None,
        }
    }

    /// Undoes [`step_back`](Self::step_back).
    pub(super) fn step_forth(&mut self, overwritten: Option<Vec<E>>) {
        match overwritten {
            Some(last) => self.last = SnapshotMemory::Host(last),
            None => self.swap(),
        }
    }
}

/// A, from B and A − B.
#[inline(always)]
pub(super) fn before<E: Dtype>(last: E, moved: Bf16) -> E {
    E::from_f64(wide(last) + moved.to_f64()).unwrap_or(last)
}
