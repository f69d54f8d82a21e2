//! [`SnapshotMemory`]: the memory of one snapshot of one tensor, on the host or on a GPU.

use crate::{
    error::Error,
    tensors::{Elements, READ},
};
use dfdx::shapes::Dtype;
use std::{borrow::Cow, ops::Range};

/// The elements of one tensor's snapshot, on the host or on the tensor's own GPU.
#[derive(Debug)]
pub(crate) enum SnapshotMemory<E> {
    Host(Vec<E>),
    #[cfg(feature = "cuda")]
    Gpu(cudarc::driver::CudaSlice<E>),
}

impl<E> Default for SnapshotMemory<E> {
    fn default() -> Self {
        Self::Host(Vec::new())
    }
}

impl<E: Dtype> SnapshotMemory<E> {
    /// `len` zeros in the place where the snapshots of `tensor` are kept.
    pub(crate) fn zeros(tensor: &Elements<'_, E>, len: usize) -> Result<Self, Error> {
        #[cfg(feature = "cuda")]
        if let Some(device) = tensor.gpu()
            && let Some(slice) = super::gpu::zeros(device, len)?
        {
            return Ok(Self::Gpu(slice));
        }
        let _ = tensor;
        Ok(Self::Host(vec![E::default(); len]))
    }

    /// New memory with these elements, in the same place as `self`.
    pub(crate) fn with(&self, values: Vec<E>) -> Result<Self, Error> {
        match self {
            Self::Host(_) => Ok(Self::Host(values)),
            #[cfg(feature = "cuda")]
            Self::Gpu(slice) => Ok(Self::Gpu(super::gpu::beside(slice, &values)?)),
        }
    }

    pub(crate) fn on_host(&self) -> Option<&[E]> {
        match self {
            Self::Host(values) => Some(values),
            #[cfg(feature = "cuda")]
            Self::Gpu(_) => None,
        }
    }

    pub(crate) fn on_host_mut(&mut self) -> Option<&mut [E]> {
        match self {
            Self::Host(values) => Some(values),
            #[cfg(feature = "cuda")]
            Self::Gpu(_) => None,
        }
    }

    pub(crate) fn read(&self) -> Result<Cow<'_, [E]>, Error> {
        match self {
            Self::Host(values) => Ok(Cow::Borrowed(values)),
            #[cfg(feature = "cuda")]
            Self::Gpu(slice) => Ok(Cow::Owned(super::gpu::read(slice)?)),
        }
    }

    /// Overwrites the elements by those of a part of `tensor`, which has the same length.
    pub(crate) fn take(
        &mut self,
        tensor: &Elements<'_, E>,
        part: &Range<usize>,
    ) -> Result<(), Error> {
        match self {
            Self::Host(values) if part.len() == tensor.len() => tensor.copy_into(values),
            Self::Host(values) => {
                let mut places = values.chunks_mut(READ);
                tensor.values().read_range(part.clone(), |read| {
                    let places = places.next().unwrap_or_default();
                    places.iter_mut().zip(read).for_each(|(place, value)| *place = *value);
                });
            }
            #[cfg(feature = "cuda")]
            Self::Gpu(slice) => super::gpu::take(slice, tensor, part.start)?,
        }
        Ok(())
    }
}
