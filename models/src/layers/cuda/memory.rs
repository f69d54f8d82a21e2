//! The memory of dfdx's tensors and gradients on a GPU, by its address.

use super::{gpu::Gpu, CudaErr};
use cudarc::driver::{CudaSlice, DevicePtr};
use dfdx::prelude::{Cuda, Dtype, Gradients, HasShape, Shape, Storage, Tensor, Unit, ZerosTensor};
use std::sync::MutexGuard;
use tlr::{gpu_place, GpuPlace};

/// The memory of a gradient, or of what a layer keeps for its backward pass.
pub(super) type Buffer<E> = <Cuda as Storage<E>>::Vec;

/// The address of a gradient. It is valid as long as the set of gradients exists.
pub(in crate::layers) fn address<E: Unit>(gradient: &Buffer<E>) -> u64 {
    *gradient.device_ptr()
}

/// Memory for what a layer keeps for its backward pass. It comes from dfdx's cache, and returns to
/// it.
pub(in crate::layers) fn kept<E: Unit>(cuda: &Cuda, len: usize) -> Result<Buffer<E>, CudaErr> {
    cuda.try_alloc_len(len)
}

#[cfg(test)]
thread_local! {
    /// Whether addresses are to be taken as unknown.
    pub(super) static BLIND: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Where in memory dfdx has a tensor of `len` elements, if that can be found out.
fn place<S: Shape, E: Dtype>(tensor: &Tensor<S, E, Cuda>, len: usize) -> Option<GpuPlace> {
    #[cfg(test)]
    if BLIND.get() {
        return None;
    }
    let place = gpu_place(tensor, len);
    #[cfg(test)]
    assert!(place.is_some() || len == 0, "the address of a tensor is unknown");
    place
}

/// A contiguous tensor that a kernel reads, and its address. The memory is kept as long as this is.
pub(in crate::layers) struct Input<S: Shape, E: Dtype> {
    tensor: Tensor<S, E, Cuda>,
    place: Option<GpuPlace>,
    /// A copy of the elements, if their address is unknown.
    copy: Option<CudaSlice<E>>,
}

impl<S: Shape, E: Dtype> Input<S, E> {
    pub(in crate::layers) fn of(tensor: Tensor<S, E, Cuda>) -> Result<Self, CudaErr> {
        let len = tensor.shape().num_elements();
        let place = place(&tensor, len);
        if place.is_some() || len == 0 {
            return Ok(Self { tensor, place, copy: None });
        }
        let mut values = vec![E::default(); len];
        tensor.copy_into(&mut values);
        let device = Storage::<E>::try_alloc_len(tensor.device(), 1)?.device();
        let copy = Some(device.htod_sync_copy(&values)?);
        Ok(Self { tensor, place, copy })
    }

    pub(in crate::layers) fn address(&self) -> u64 {
        let copied = || self.copy.as_ref().map(|copy| *copy.device_ptr());
        self.place.map(|place| place.address).or_else(copied).unwrap_or_default()
    }

    /// The GPU that the tensor is on, for one layer at a time.
    pub(in crate::layers) fn gpu(&self) -> Result<MutexGuard<'static, Gpu>, CudaErr> {
        self.site().gpu()
    }

    /// Where the tensor is, without its memory.
    pub(in crate::layers) fn site(&self) -> Site {
        Site { cuda: self.tensor.device().clone(), number: self.place.map(|place| place.device) }
    }

    pub(in crate::layers) fn device(&self) -> &Cuda {
        self.tensor.device()
    }

    pub(in crate::layers) fn shape(&self) -> S {
        *self.tensor.shape()
    }

    pub(in crate::layers) fn tensor(&self) -> &Tensor<S, E, Cuda> {
        &self.tensor
    }
}

/// Which GPU a tensor is on.
pub(in crate::layers) struct Site {
    cuda: Cuda,
    number: Option<i32>,
}

impl Site {
    pub(in crate::layers) fn gpu(&self) -> Result<MutexGuard<'static, Gpu>, CudaErr> {
        Gpu::lock(&self.cuda, self.number)
    }
}

/// A new tensor for kernels to write to, all of it.
pub(in crate::layers) struct Output<S: Shape, E: Dtype> {
    tensor: Tensor<S, E, Cuda>,
    address: u64,
    /// The memory that kernels write to instead, if the tensor's address is unknown.
    beside: Option<Buffer<E>>,
}

impl<S: Shape, E: Dtype> Output<S, E> {
    pub(in crate::layers) fn new(cuda: &Cuda, shape: S) -> Result<Self, CudaErr> {
        // dfdx has no way to make a tensor that is not filled.
        let tensor: Tensor<S, E, Cuda> = cuda.try_zeros_like(&shape)?;
        let len = shape.num_elements();
        if len == 0 {
            return Ok(Self { tensor, address: 0, beside: None });
        }
        let place = place(&tensor, len);
        let beside = if place.is_some() { None } else { Some(kept::<E>(cuda, len)?) };
        // `address::<E>` as an argument of `map` crashes rustc 1.95 in optimised builds.
        let address = match (place, &beside) {
            (Some(place), _) => place.address,
            (None, Some(memory)) => address::<E>(memory),
            (None, None) => 0,
        };
        #[cfg(test)]
        Gpu::lock(cuda, place.map(|place| place.device))?.poison(address, len * size_of::<E>())?;
        Ok(Self { tensor, address, beside })
    }

    pub(in crate::layers) fn address(&self) -> u64 {
        self.address
    }

    /// The tensor, after all launches that write to it.
    pub(in crate::layers) fn tensor(self) -> Result<Tensor<S, E, Cuda>, CudaErr> {
        let Some(beside) = self.beside else { return Ok(self.tensor) };
        // dfdx makes a tensor from a buffer only where it hands out a gradient, as a copy.
        let mut gradients = Gradients::leaky();
        *gradients.get_or_alloc_mut(&self.tensor)? = beside;
        Ok(gradients.get(&self.tensor))
    }
}
