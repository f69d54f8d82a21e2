//! Access to the tensors of a dfdx model: walks over them, their elements, and their bytes in a
//! checkpoint.

#[cfg(feature = "cuda")]
mod address;
mod bf16;
mod device;
mod marks;
mod stored;
mod threads;
mod values;

#[cfg(feature = "cuda")]
pub use address::{gpu_place, GpuPlace};
pub use device::{Backend, Buffer};
pub use marks::{Mark, MarkedField};
pub use stored::Element;

pub(crate) use bf16::Bf16;
pub(crate) use device::device_error;
pub(crate) use marks::is_trained;
pub(crate) use stored::Stored;
pub(crate) use threads::{is_shared, wide, CHUNK};
pub(crate) use values::{all_finite, are_finite, ReadBuffer, Values, READ};

use dfdx::{
    nn::{
        RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut,
        ViewTensorName, ViewTensorRef,
    },
    optim::UnusedTensors,
    shapes::{Dtype, HasShape, Shape},
    tensor::{Cpu, Tensor, UniqueId},
    tensor_ops::{Device, ReshapeTo},
};
use std::{any::Any, borrow::Cow, convert::Infallible};

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
pub(crate) fn list<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &M,
) -> Vec<TensorInfo> {
    list_with_devices(model).into_iter().map(|(tensor, _)| tensor).collect()
}

/// Lists all tensors of `model` as [`list`] does, each with its device.
pub(crate) fn list_with_devices<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &M,
) -> Vec<(TensorInfo, D)> {
    let mut tensors = List(Vec::new());
    let walk = M::iter_tensors(&mut RecursiveWalker { m: (model, String::new()), f: &mut tensors });
    let Ok(_) = walk;
    tensors.0
}

/// The identity that dfdx gives a tensor. dfdx has no public getter for it, but its list of unused
/// tensors records it.
pub(crate) fn id<S: Shape, E: Dtype, D: Device<E>>(tensor: &Tensor<S, E, D>) -> Option<UniqueId> {
    let mut ids = UnusedTensors::default();
    ids.add(tensor);
    ids.ids.pop()
}

/// The elements of a contiguous tensor.
pub(crate) fn values<S: Shape, E: Dtype, D: Device<E>>(tensor: &Tensor<S, E, D>) -> Vec<E> {
    let mut values = vec![E::default(); tensor.shape().num_elements()];
    tensor.copy_into(&mut values);
    values
}

/// The elements of a contiguous tensor: lent by a large one on the CPU, copied from any other.
pub(crate) fn lent_or_copied<S: Shape, E: Dtype, D: Device<E>>(
    tensor: &Tensor<S, E, D>,
) -> Values<E> {
    let len = tensor.shape().num_elements();
    let on_cpu = (tensor as &dyn Any).downcast_ref::<Tensor<S, E, Cpu>>();
    // A reshape of a contiguous tensor copies no element.
    let lent = on_cpu.filter(|_| len > values::SMALL);
    let lent = lent.and_then(|tensor| tensor.clone().try_reshape_like(&(len,)).ok());
    lent.map_or_else(|| Values::Copied(values(tensor)), Values::Lent)
}

/// Access to the elements of one tensor of a model. Nothing is copied until it is asked for.
pub(crate) struct Elements<'a, E: Dtype> {
    /// See [`TensorInfo::trainable`].
    pub(crate) trainable: bool,
    copy_into: &'a dyn Fn(&mut [E]),
    values: &'a dyn Fn() -> Values<E>,
    len: usize,
    /// The device of the tensor, if it is a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) gpu: Option<&'a dfdx::tensor::Cuda>,
    #[cfg(feature = "cuda")]
    address: &'a dyn Fn(usize) -> Option<u64>,
}

impl<E: Dtype> Elements<'_, E> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies all elements to `values`, which must have the same length.
    pub(crate) fn copy_into(&self, values: &mut [E]) {
        (self.copy_into)(values);
    }

    /// All elements, for any thread to read. Large tensors on the CPU are lent, all others are
    /// copied.
    pub(crate) fn values(&self) -> Values<E> {
        (self.values)()
    }

    /// The address of the elements in the GPU's memory. `None` if their number is not `len`, or if
    /// the address cannot be determined.
    #[cfg(feature = "cuda")]
    pub(crate) fn address(&self, len: usize) -> Option<u64> {
        (self.address)(len)
    }

    pub(crate) fn to_vec(&self) -> Vec<E> {
        let mut values = vec![E::default(); self.len];
        self.copy_into(&mut values);
        values
    }
}

/// Calls `look` with each tensor of `model`, in the order of the walk.
pub(crate) fn read<E, D, M>(model: &M, mut look: impl FnMut(Elements<'_, E>))
where
    E: Dtype,
    D: Device<E>,
    M: TensorCollection<E, D>,
{
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut Read(&mut look) });
}

/// Whether all elements of all trainable tensors of `model` are finite.
pub(crate) fn weights_are_finite<E, D, M>(model: &M) -> bool
where
    E: Dtype,
    D: Device<E>,
    M: TensorCollection<E, D>,
{
    first_not_finite(model).is_none()
}

/// The place in the walk of the first trainable tensor that is not finite.
pub(crate) fn first_not_finite<E, D, M>(model: &M) -> Option<usize>
where
    E: Dtype,
    D: Device<E>,
    M: TensorCollection<E, D>,
{
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
pub(crate) fn write<'a, E, D, M>(
    model: &mut M,
    mut change: impl FnMut(bool, usize) -> Option<Cow<'a, [E]>>,
) where
    E: Dtype,
    D: Device<E>,
    M: TensorCollection<E, D>,
{
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut Write(&mut change) });
}

/// Where tensors of `model` on a GPU may be written to, and how many elements they have: all for
/// which `which` says so, of whether they are trainable and how many elements there are. What they
/// hold is lost. `None` in place of an address that cannot be determined.
#[cfg(feature = "cuda")]
pub(crate) fn places<E, D, M>(
    model: &mut M,
    mut which: impl FnMut(bool, usize) -> bool,
) -> Vec<(Option<u64>, usize)>
where
    E: Dtype,
    D: Device<E>,
    M: TensorCollection<E, D>,
{
    let mut places = Places { which: &mut which, found: Vec::new() };
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut places });
    places.found
}

/// A visitor that calls a `dyn` closure, so that a model's walk is compiled once for all uses.
struct Read<'l, E: Dtype>(&'l mut dyn FnMut(Elements<'_, E>));

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Read<'_, E> {
    type Viewer = ViewTensorRef;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        tensor: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let len = tensor.shape().num_elements();
        #[cfg(feature = "cuda")]
        let on_gpu = (tensor as &dyn Any).downcast_ref::<Tensor<S, E, dfdx::tensor::Cuda>>();
        (self.0)(Elements {
            trainable: is_trained(&options),
            copy_into: &|values| tensor.copy_into(values),
            values: &|| lent_or_copied(tensor),
            len,
            #[cfg(feature = "cuda")]
            gpu: on_gpu.map(Tensor::device),
            #[cfg(feature = "cuda")]
            address: &|len| Some(gpu_place(on_gpu?, len)?.address),
        });
        Ok(None)
    }
}

/// A visitor that calls a `dyn` closure for new elements, so that a model's walk is compiled once.
struct Write<'c, 'a, E: Dtype>(&'c mut dyn FnMut(bool, usize) -> Option<Cow<'a, [E]>>);

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Write<'_, '_, E> {
    type Viewer = ViewTensorMut;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        tensor: &mut Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let len = tensor.shape().num_elements();
        let values = (self.0)(is_trained(&options), len);
        if let Some(values) = values.filter(|values| values.len() == len) {
            tensor.copy_from(&values);
        }
        Ok(None)
    }
}

#[cfg(feature = "cuda")]
struct Places<'a> {
    which: &'a mut dyn FnMut(bool, usize) -> bool,
    found: Vec<(Option<u64>, usize)>,
}

#[cfg(feature = "cuda")]
impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Places<'_> {
    type Viewer = ViewTensorMut;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        tensor: &mut Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let len = tensor.shape().num_elements();
        if (self.which)(is_trained(&options), len) {
            // Clones share their memory until one is changed by dfdx, which this change does.
            let alone = tensor.try_fill_with_zeros().is_ok();
            let tensor = (tensor as &dyn Any).downcast_ref::<Tensor<S, E, dfdx::tensor::Cuda>>();
            let place = tensor.filter(|_| alone).and_then(|tensor| gpu_place(tensor, len));
            self.found.push((place.map(|place| place.address), len));
        }
        Ok(None)
    }
}

struct List<D>(Vec<(TensorInfo, D)>);

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for List<D> {
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        (tensor, name): (&Tensor<S, E, D>, String),
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let Some(own) = id(tensor) else { return Ok(None) };
        let len = tensor.shape().num_elements();
        let info = TensorInfo {
            id: own,
            // If the field is itself a tensor, dfdx's name for it ends with a dot.
            name: name.trim_end_matches('.').to_owned(),
            len,
            shape: tensor.shape().concrete().into_iter().collect(),
            trainable: is_trained(&options),
            mark: Mark::here(),
            // dfdx does not expose the strides. But a reshape keeps a tensor's identity only if the
            // tensor is contiguous.
            contiguous: tensor
                .clone()
                .try_reshape_like(&(len,))
                .is_ok_and(|flat| id(&flat) == Some(own)),
        };
        self.0.push((info, tensor.device().clone()));
        Ok(None)
    }
}
