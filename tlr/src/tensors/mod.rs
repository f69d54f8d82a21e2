//! Access to the tensors of a dfdx model: walks over them, their elements, and their bytes in a
//! checkpoint.

#[cfg(feature = "cuda")]
mod address;
mod bf16;
mod device;
mod marks;
mod model;
mod stored;
mod threads;
mod values;

#[cfg(feature = "cuda")]
pub use address::{gpu_place, GpuPlace};
pub use device::{Backend, Buffer};
pub use marks::{Mark, MarkedField};
pub use model::{Model, Names, Seen};
pub use stored::Element;

pub(crate) use bf16::Bf16;
pub(crate) use device::{device_error, lends};
pub(crate) use marks::is_trained;
pub(crate) use model::id;
pub(crate) use stored::Stored;
pub(crate) use threads::{is_shared, wide, CHUNK};
pub(crate) use values::{all_finite, are_finite, ReadBuffer, Values, READ};

use dfdx::{
    shapes::{Dtype, HasShape, Shape},
    tensor::{Tensor, UniqueId},
    tensor_ops::Device,
};
use model::AnyElements;
use std::borrow::Cow;

/// A description of one tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorInfo {
    pub(crate) id: UniqueId,
    /// The path of the field, such as `hidden.weight`.
    pub(crate) name: String,
    pub(crate) len: usize,
    pub(crate) shape: Vec<usize>,
    /// Whether gradients update the tensor. Otherwise it is a buffer, such as a running mean.
    pub(crate) trainable: bool,
    /// What the attributes of the fields that lead to it say.
    pub(crate) mark: Mark,
    pub(crate) contiguous: bool,
}

/// Lists all tensors of `model`, in the order in which dfdx walks them.
pub(crate) fn list<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>) -> Vec<TensorInfo> {
    list_with_devices(model).into_iter().map(|(tensor, _)| tensor).collect()
}

/// Lists all tensors of `model` as [`list`] does, each with its device.
pub(crate) fn list_with_devices<E: Dtype, D: Device<E>>(
    model: &dyn Model<E, D>,
) -> Vec<(TensorInfo, D)> {
    let mut tensors = Vec::new();
    model.look(Names::Told, &mut |seen| {
        let tensor = seen.tensor();
        let Some(id) = tensor.id() else { return };
        let info = TensorInfo {
            id,
            name: seen.name.clone().unwrap_or_default(),
            len: tensor.len(),
            shape: tensor.shape(),
            trainable: seen.trainable,
            mark: Mark::here(),
            contiguous: tensor.is_contiguous(),
        };
        tensors.push((info, tensor.device().clone()));
    });
    tensors
}

/// The elements of a contiguous tensor.
pub(crate) fn values<S: Shape, E: Dtype, D: Device<E>>(tensor: &Tensor<S, E, D>) -> Vec<E> {
    let mut values = vec![E::default(); tensor.shape().num_elements()];
    tensor.copy_into(&mut values);
    values
}

/// Access to the elements of one tensor of a model. Nothing is copied until it is asked for.
pub(crate) struct Elements<'a, E: Dtype> {
    /// See [`TensorInfo::trainable`].
    pub(crate) trainable: bool,
    tensor: &'a dyn AnyElements<E>,
}

impl<'a, E: Dtype> Elements<'a, E> {
    pub(crate) fn len(&self) -> usize {
        self.tensor.len()
    }

    /// Copies all elements to `values`, which must have the same length.
    pub(crate) fn copy_into(&self, values: &mut [E]) {
        self.tensor.copy_into(values);
    }

    /// All elements, for any thread to read. Large tensors on the CPU are lent, all others are
    /// copied.
    pub(crate) fn values(&self) -> Values<E> {
        self.tensor.values()
    }

    /// The device of the tensor, if it is a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu(&self) -> Option<&'a dfdx::tensor::Cuda> {
        self.tensor.gpu()
    }

    /// The address of the elements in the GPU's memory. `None` if their number is not `len`, or if
    /// the address cannot be determined.
    #[cfg(feature = "cuda")]
    pub(crate) fn address(&self, len: usize) -> Option<u64> {
        self.tensor.address(len)
    }

    pub(crate) fn to_vec(&self) -> Vec<E> {
        let mut values = vec![E::default(); self.len()];
        self.copy_into(&mut values);
        values
    }
}

/// Calls `look` with each tensor of `model`, in the order of the walk.
pub(crate) fn read<E: Dtype, D: Device<E>>(
    model: &dyn Model<E, D>,
    mut look: impl FnMut(Elements<'_, E>),
) {
    model.look(Names::Untold, &mut |seen| {
        look(Elements { trainable: seen.trainable, tensor: seen.tensor() });
    });
}

/// Whether all elements of all trainable tensors of `model` are finite.
pub(crate) fn weights_are_finite<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>) -> bool {
    first_not_finite(model).is_none()
}

/// The place in the walk of the first trainable tensor that is not finite.
pub(crate) fn first_not_finite<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>) -> Option<usize> {
    let (mut place, mut found) = (0, None);
    read(model, |weights| {
        if found.is_none() && weights.trainable && !are_finite(&weights.values()) {
            found = Some(place);
        }
        place += 1;
    });
    found
}

/// Overwrites the tensors of `model` one by one, in the order of the walk. `change` receives
/// whether a tensor is trainable and how many elements it has, and returns the new elements. If it
/// returns `None` or another number of elements, the tensor stays as it is.
pub(crate) fn write<'a, E: Dtype, D: Device<E>>(
    model: &mut dyn Model<E, D>,
    mut change: impl FnMut(bool, usize) -> Option<Cow<'a, [E]>>,
) {
    model.change(&mut |mut seen| {
        let len = seen.tensor().len();
        let values = change(seen.trainable, len).filter(|values| values.len() == len);
        if let (Some(tensor), Some(values)) = (seen.tensor_mut(), values) {
            tensor.copy_from(&values);
        }
    });
}

/// The writable addresses and the lengths of those tensors on a GPU for which `which(trainable,
/// len)` is true. What they hold is lost. `None` in place of an address that cannot be determined.
#[cfg(feature = "cuda")]
pub(crate) fn writable_addresses<E: Dtype, D: Device<E>>(
    model: &mut dyn Model<E, D>,
    mut which: impl FnMut(bool, usize) -> bool,
) -> Vec<(Option<u64>, usize)> {
    let mut places = Vec::new();
    model.change(&mut |mut seen| {
        let len = seen.tensor().len();
        if which(seen.trainable, len) {
            let tensor = seen.tensor_mut().and_then(|tensor| tensor.clear().then_some(tensor));
            places.push((tensor.and_then(|tensor| tensor.address(len)), len));
        }
    });
    places
}
