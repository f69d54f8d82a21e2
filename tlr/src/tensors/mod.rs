//! The tensors of a model, from outside dfdx: walks over them, their elements, their bytes.

#[cfg(feature = "cuda")]
mod address;
mod bf16;
mod device;
mod stored;
mod threads;
mod values;

pub use device::{Backend, Buffer};
pub use stored::Element;

pub(crate) use bf16::Bf16;
pub(crate) use stored::{join, Stored};
pub(crate) use threads::{is_shared, wide, CHUNK};
pub(crate) use values::{all_finite, are_finite, Values, READ};

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

/// A tensor of a model, in the order dfdx walks them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorInfo {
    pub(crate) id: UniqueId,
    /// Path of the field: `hidden.weight`.
    pub(crate) name: String,
    pub(crate) len: usize,
    pub(crate) shape: Vec<usize>,
    /// Updated with gradients; otherwise a buffer, such as a running mean.
    pub(crate) trainable: bool,
    pub(crate) contiguous: bool,
}

/// All tensors of `model`, in order.
pub(crate) fn list<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &M,
) -> Vec<TensorInfo> {
    list_with_devices(model).into_iter().map(|(tensor, _)| tensor).collect()
}

/// The same, each with where it is.
pub(crate) fn list_with_devices<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &M,
) -> Vec<(TensorInfo, D)> {
    let mut tensors = List(Vec::new());
    let walk = M::iter_tensors(&mut RecursiveWalker { m: (model, String::new()), f: &mut tensors });
    let Ok(_) = walk;
    tensors.0
}

/// The identity dfdx gives a tensor. Its getter is private; the list of unused tensors takes it down.
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

/// The elements of a tensor of a model, before they are copied to the host.
pub(crate) struct Elements<'a, E: Dtype> {
    /// As [`TensorInfo::trainable`].
    pub(crate) trainable: bool,
    copy_into: &'a dyn Fn(&mut [E]),
    lend: &'a dyn Fn() -> Option<Tensor<(usize,), E, Cpu>>,
    len: usize,
    /// Where it lies, if that is a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) gpu: Option<&'a dfdx::tensor::Cuda>,
    #[cfg(feature = "cuda")]
    address: &'a dyn Fn(usize) -> Option<u64>,
}

impl<E: Dtype> Elements<'_, E> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Into a slice of as many.
    pub(crate) fn copy_into(&self, values: &mut [E]) {
        (self.copy_into)(values);
    }

    /// All of them, where they are if that is worth it.
    pub(crate) fn values(&self) -> Values<E> {
        let lent = if self.len > values::SMALL { (self.lend)() } else { None };
        lent.map_or_else(|| Values::Copied(self.to_vec()), Values::Lent)
    }

    /// Its address in the GPU's memory, if it has so many elements there; `None` where that cannot be told.
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

/// Shows `look` each tensor of `model`, in order.
pub(crate) fn read<E, D, M>(model: &M, mut look: impl FnMut(Elements<'_, E>))
where
    E: Dtype,
    D: Device<E>,
    M: TensorCollection<E, D>,
{
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut Read(&mut look) });
}

/// Whether all trainable tensors of `model` are numbers.
pub(crate) fn weights_are_finite<E, D, M>(model: &M) -> bool
where
    E: Dtype,
    D: Device<E>,
    M: TensorCollection<E, D>,
{
    let mut finite = true;
    read(model, |weights| finite &= !weights.trainable || are_finite(&weights.values()));
    finite
}

/// Asks `change` for new elements of each tensor of `model`, in order, given whether it is trained and how many it has.
/// As many as that are written; none, and any other number, leave it alone.
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

/// Whatever is done with the tensors, so that a model's walk is compiled once.
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
        let on_cpu = (tensor as &dyn Any).downcast_ref::<Tensor<S, E, Cpu>>();
        #[cfg(feature = "cuda")]
        let on_gpu = (tensor as &dyn Any).downcast_ref::<Tensor<S, E, dfdx::tensor::Cuda>>();
        (self.0)(Elements {
            trainable: options.do_gradient_update,
            copy_into: &|values| tensor.copy_into(values),
            // Where it is contiguous, no element is moved.
            lend: &|| on_cpu?.clone().try_reshape_like(&(len,)).ok(),
            len,
            #[cfg(feature = "cuda")]
            gpu: on_gpu.map(Tensor::device),
            #[cfg(feature = "cuda")]
            address: &|len| address::of(on_gpu?, len),
        });
        Ok(None)
    }
}

/// As [`Read`].
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
        let values = (self.0)(options.do_gradient_update, len);
        if let Some(values) = values.filter(|values| values.len() == len) {
            tensor.copy_from(&values);
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
            // A bare tensor has no name of its own below that of its field.
            name: name.trim_end_matches('.').to_owned(),
            len,
            shape: tensor.shape().concrete().into_iter().collect(),
            trainable: options.do_gradient_update,
            // dfdx hides the strides; another shape keeps a tensor's identity if it is contiguous.
            contiguous: tensor
                .clone()
                .try_reshape_like(&(len,))
                .is_ok_and(|flat| id(&flat) == Some(own)),
        };
        self.0.push((info, tensor.device().clone()));
        Ok(None)
    }
}
