//! Walks over the tensors of a model, from outside dfdx.

use crate::dots;
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
use std::{any::Any, borrow::Cow, convert::Infallible, ops::Range};

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

/// The elements of a contiguous tensor, for any thread to read.
pub(crate) enum Values<E: Dtype> {
    /// The tensor itself, in one dimension. dfdx lends its elements one by one.
    Lent(Tensor<(usize,), E, Cpu>),
    /// Of one that is small, or on another device.
    Copied(Vec<E>),
}

/// Elements that are read at a time: few enough to take turns with the snapshots', so that the memory sends all of them at once.
pub(crate) const PART: usize = 128;
/// So few are sooner copied than read one by one: they fit the nearest cache.
const SMALL: usize = 1 << 13;

impl<E: Dtype> Values<E> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Lent(tensor) => tensor.shape().num_elements(),
            Self::Copied(values) => values.len(),
        }
    }

    /// `len` elements from the `first` on, at most a part, by way of `room` if need be; none, where there are not as many.
    #[inline(always)]
    pub(crate) fn part<'a>(&'a self, first: usize, len: usize, room: &'a mut [E; PART]) -> &'a [E] {
        match self {
            Self::Copied(values) => values.get(first..first + len).unwrap_or_default(),
            Self::Lent(tensor) if first + len <= self.len() => {
                if len == PART {
                    get(tensor, first, room);
                } else {
                    let each = room.as_chunks_mut::<1>().0.iter_mut().take(len);
                    each.enumerate().for_each(|(index, one)| get(tensor, first + index, one));
                }
                room.get(..len).unwrap_or_default()
            }
            Self::Lent(_) => &[],
        }
    }

    /// Shows `look` a range of them in turn, in parts.
    #[inline(always)]
    pub(crate) fn parts(&self, range: Range<usize>, mut look: impl FnMut(&[E])) {
        let mut room = [E::default(); PART];
        for first in range.clone().step_by(PART) {
            look(self.part(first, PART.min(range.end - first), &mut room));
        }
    }
}

/// N elements from the `first` on, if there are as many.
///
/// Not inlined, and of a known length in a known range: so the compiler knows that nothing overlaps, drops dfdx's check of each
/// index and looks the tensor's memory up once. That is a cycle an element, instead of two and a half.
#[inline(never)]
fn get<E: Dtype, const N: usize>(tensor: &Tensor<(usize,), E, Cpu>, first: usize, to: &mut [E; N]) {
    let (all,) = *tensor.shape();
    if first <= all && N <= all - first {
        for index in 0..N {
            to[index] = tensor[[first + index]];
        }
    }
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
        let lent = if self.len > SMALL { (self.lend)() } else { None };
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

/// Whether all elements are numbers. Without a way out at each, for vectors.
#[inline(always)]
pub(crate) fn all_finite<E: Dtype>(elements: &[E]) -> bool {
    let is_finite = |element: &E| element.to_f64().is_some_and(f64::is_finite);
    elements.iter().fold(true, |all, element| all & is_finite(element))
}

/// Whether all trainable tensors of `model` are numbers.
pub(crate) fn are_finite<E, D, M>(model: &M) -> bool
where
    E: Dtype,
    D: Device<E>,
    M: TensorCollection<E, D>,
{
    let mut finite = true;
    read(model, |weights| finite &= !weights.trainable || dots::are_finite(&weights.values()));
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
            address: &|len| crate::gpu::address(on_gpu?, len),
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
