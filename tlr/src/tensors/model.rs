//! [`Model`]: the tensors of a dfdx model, whatever its type and theirs.
//!
//! dfdx's walk is compiled for each visitor and each layer, and what is generic over a model for
//! each model. So there is one visitor, and what looks at a model's tensors does it by `dyn`.

#[cfg(feature = "cuda")]
use super::gpu_place;
use super::{is_trained, values::SMALL, Buffer, Values};
use crate::settings::join;
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorViewer, TensorVisitor},
    optim::{Sgd, SgdConfig, UnusedTensors},
    shapes::{Dtype, HasShape, Shape},
    tensor::{Cpu, Gradients, HasErr, Tensor, UniqueId},
    tensor_ops::{Device, ReshapeTo},
};
use std::{any::Any, convert::Infallible, fmt};

/// A model of any type.
pub trait Model<E: Dtype, D: Device<E>> {
    /// Calls `look` with each tensor, in the order in which dfdx walks them.
    fn look(&self, names: Names, look: &mut dyn FnMut(Seen<'_, E, D>));

    /// As [`look`](Self::look), with tensors that may be changed, without names.
    fn change(&mut self, change: &mut dyn FnMut(Seen<'_, E, D>));
}

/// Whether a walk tells the tensors' names, which takes memory for each field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Names {
    /// With names.
    Told,
    /// Without.
    Untold,
}

impl<E: Dtype, D: Device<E>, M: TensorCollection<E, D>> Model<E, D> for M {
    fn look(&self, names: Names, look: &mut dyn FnMut(Seen<'_, E, D>)) {
        let name = (names == Names::Told).then(String::new);
        walk(Part { access: Access::Shared(self), name }, look);
    }

    fn change(&mut self, change: &mut dyn FnMut(Seen<'_, E, D>)) {
        walk(Part { access: Access::Mut(self), name: None }, change);
    }
}

fn walk<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: Part<'_, M>,
    visit: &mut dyn FnMut(Seen<'_, E, D>),
) {
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut Visitor(visit) });
}

/// A tensor of a model, in a walk.
pub struct Seen<'a, E: Dtype, D: Device<E>> {
    /// Whether gradients update the tensor, and no attribute of a field says otherwise.
    pub trainable: bool,
    /// Whether gradients never update the tensor: a running mean, for instance.
    pub is_buffer: bool,
    /// The path of the field, such as `hidden.weight`, if it is told.
    pub name: Option<String>,
    tensor: Access<'a, dyn AnyTensor<E, D> + 'a>,
    descend: &'a mut Descend<'a, E, D>,
}

type Descend<'a, E, D> =
    dyn FnMut(&Gradients<E, D>, Option<&mut Vec<E>>) -> Result<bool, <D as HasErr>::Err> + 'a;

impl<E: Dtype, D: Device<E>> fmt::Debug for Seen<'_, E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a, E: Dtype, D: Device<E>> Seen<'a, E, D> {
    pub(crate) fn tensor(&self) -> &(dyn AnyTensor<E, D> + 'a) {
        match &self.tensor {
            Access::Shared(tensor) => *tensor,
            Access::Mut(tensor) => &**tensor,
        }
    }

    /// `None` in a walk that only looks.
    pub(crate) fn tensor_mut(&mut self) -> Option<&mut (dyn AnyTensor<E, D> + 'a)> {
        match &mut self.tensor {
            Access::Shared(_) => None,
            Access::Mut(tensor) => Some(&mut **tensor),
        }
    }

    /// Whether `gradients` has a gradient for this tensor. dfdx shows this only to its optimizers,
    /// so one is run on a copy. No element is read: on a GPU the host does not wait.
    pub(crate) fn has_gradient(&mut self, gradients: &Gradients<E, D>) -> Result<bool, D::Err> {
        (self.descend)(gradients, None)
    }

    /// The elements after a step of dfdx's plain descent at a rate of 1, which is not made. `None`
    /// if there is no gradient.
    pub(crate) fn descend(
        &mut self,
        gradients: &Gradients<E, D>,
    ) -> Result<Option<Vec<E>>, D::Err> {
        let mut after = Vec::new();
        Ok((self.descend)(gradients, Some(&mut after))?.then_some(after))
    }

    /// The identity that dfdx gives the tensor.
    pub fn id(&self) -> Option<UniqueId> {
        self.tensor().id()
    }

    /// The lengths of the tensor's sides.
    pub fn shape(&self) -> Vec<usize> {
        self.tensor().shape()
    }

    /// All elements, in the order of their indices.
    pub fn elements(&self) -> Vec<E> {
        self.tensor().elements()
    }

    /// The tensor's gradient. If there is none, it is given one of zeros.
    ///
    /// # Errors
    /// An error of the device.
    pub fn gradient<'g>(
        &self,
        gradients: &'g mut Gradients<E, D>,
    ) -> Result<&'g mut Buffer<E, D>, D::Err> {
        self.tensor().gradient(gradients)
    }

    /// The elements of the tensor's gradient.
    ///
    /// # Panics
    /// If there is none.
    pub fn gradient_elements(&self, gradients: &Gradients<E, D>) -> Vec<E> {
        self.tensor().gradient_elements(gradients)
    }

    /// Overwrites all elements, if there are as many of `elements`, and if the walk may change the
    /// tensor.
    pub fn overwrite(&mut self, elements: &[E]) {
        if let Some(tensor) = self.tensor_mut().filter(|tensor| tensor.len() == elements.len()) {
            tensor.copy_from(elements);
        }
    }
}

/// The elements of a tensor of any shape, on any device.
pub(crate) trait AnyElements<E: Dtype> {
    fn len(&self) -> usize;

    /// Copies all elements to `values`, which must have the same length.
    fn copy_into(&self, values: &mut [E]);

    /// All elements, for any thread to read. Large tensors on the CPU are lent, all others are
    /// copied.
    fn values(&self) -> Values<E>;

    /// The device of the tensor, if it is a GPU.
    #[cfg(feature = "cuda")]
    fn gpu(&self) -> Option<&dfdx::tensor::Cuda>;

    /// The address of the elements in the GPU's memory. `None` if their number is not `len`, or if
    /// the address cannot be determined.
    #[cfg(feature = "cuda")]
    fn address(&self, len: usize) -> Option<u64>;
}

/// A tensor of any shape.
pub(crate) trait AnyTensor<E: Dtype, D: Device<E>>: AnyElements<E> {
    fn id(&self) -> Option<UniqueId>;

    fn shape(&self) -> Vec<usize>;

    fn is_contiguous(&self) -> bool;

    fn device(&self) -> &D;

    /// All elements, in the order of their indices.
    fn elements(&self) -> Vec<E>;

    /// The elements of the tensor's gradient, which has to be there.
    fn gradient_elements(&self, gradients: &Gradients<E, D>) -> Vec<E>;

    /// The tensor's gradient. If there is none, it is given one of zeros.
    fn gradient<'g>(
        &self,
        gradients: &'g mut Gradients<E, D>,
    ) -> Result<&'g mut Buffer<E, D>, D::Err>;

    /// Overwrites all elements by `values`, which must have the same length.
    fn copy_from(&mut self, values: &[E]);

    /// Overwrites all elements by zeros, in memory that no other tensor shares. Whether that was
    /// done.
    #[cfg(feature = "cuda")]
    fn clear(&mut self) -> bool;
}

/// The identity that dfdx gives a tensor. dfdx has no public getter for it, but its list of unused
/// tensors records it.
pub(crate) fn id<S: Shape, E: Dtype, D: Device<E>>(tensor: &Tensor<S, E, D>) -> Option<UniqueId> {
    let mut ids = UnusedTensors::default();
    ids.add(tensor);
    ids.ids.pop()
}

impl<S: Shape, E: Dtype, D: Device<E>> AnyElements<E> for Tensor<S, E, D> {
    fn len(&self) -> usize {
        HasShape::shape(self).num_elements()
    }

    fn copy_into(&self, values: &mut [E]) {
        Tensor::copy_into(self, values);
    }

    fn values(&self) -> Values<E> {
        let len = AnyElements::len(self);
        let on_cpu = (self as &dyn Any).downcast_ref::<Tensor<S, E, Cpu>>();
        // A reshape of a contiguous tensor copies no element.
        let lent = on_cpu.filter(|_| len > SMALL);
        let lent = lent.and_then(|tensor| tensor.clone().try_reshape_like(&(len,)).ok());
        lent.map_or_else(|| Values::Copied(super::values(self)), Values::Lent)
    }

    #[cfg(feature = "cuda")]
    fn gpu(&self) -> Option<&dfdx::tensor::Cuda> {
        let tensor = (self as &dyn Any).downcast_ref::<Tensor<S, E, dfdx::tensor::Cuda>>();
        tensor.map(|tensor| tensor.device())
    }

    #[cfg(feature = "cuda")]
    fn address(&self, len: usize) -> Option<u64> {
        let tensor = (self as &dyn Any).downcast_ref::<Tensor<S, E, dfdx::tensor::Cuda>>();
        Some(gpu_place(tensor?, len)?.address)
    }
}

impl<S: Shape, E: Dtype, D: Device<E>> AnyTensor<E, D> for Tensor<S, E, D> {
    fn id(&self) -> Option<UniqueId> {
        id(self)
    }

    fn shape(&self) -> Vec<usize> {
        HasShape::shape(self).concrete().into_iter().collect()
    }

    fn is_contiguous(&self) -> bool {
        // dfdx does not expose the strides. But a reshape keeps a tensor's identity only if the
        // tensor is contiguous.
        let flat = self.clone().try_reshape_like(&(AnyElements::len(self),));
        flat.is_ok_and(|flat| id(&flat) == id(self))
    }

    fn device(&self) -> &D {
        Tensor::device(self)
    }

    fn elements(&self) -> Vec<E> {
        self.as_vec()
    }

    fn gradient_elements(&self, gradients: &Gradients<E, D>) -> Vec<E> {
        super::values(&gradients.get(self))
    }

    fn gradient<'g>(
        &self,
        gradients: &'g mut Gradients<E, D>,
    ) -> Result<&'g mut Buffer<E, D>, D::Err> {
        gradients.get_or_alloc_mut(self)
    }

    fn copy_from(&mut self, values: &[E]) {
        Tensor::copy_from(self, values);
    }

    #[cfg(feature = "cuda")]
    fn clear(&mut self) -> bool {
        // Clones share their memory until one is changed by dfdx, which this change does.
        self.try_fill_with_zeros().is_ok()
    }
}

/// The one visitor.
struct Visitor<'v, E: Dtype, D: Device<E>>(&'v mut dyn FnMut(Seen<'_, E, D>));

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Visitor<'_, E, D> {
    type Viewer = Parts;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        Part { access, name }: Part<'_, Tensor<S, E, D>>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let (trainable, is_buffer) = (is_trained(&options), !options.do_gradient_update);
        let shared = match &access {
            Access::Shared(tensor) => Some(*tensor),
            Access::Mut(_) => None,
        };
        let tensor: Access<'_, dyn AnyTensor<E, D>> = match access {
            Access::Shared(tensor) => Access::Shared(tensor),
            Access::Mut(tensor) => Access::Mut(tensor),
        };
        let mut options = Some(options);
        let mut descend = |gradients: &Gradients<E, D>, after: Option<&mut Vec<E>>| {
            let (Some(tensor), Some(options)) = (shared, options.take()) else { return Ok(false) };
            let mut copy = tensor.clone();
            let mut sgd = Sgd::new(&(), SgdConfig { lr: 1.0, ..Default::default() });
            let mut update = (&mut sgd, gradients, UnusedTensors::default());
            update.visit(options, &mut copy)?;
            if let Some(after) = after {
                *after = super::values(&copy);
            }
            Ok(update.2.is_empty())
        };
        (self.0)(Seen { trainable, is_buffer, name, tensor, descend: &mut descend });
        Ok(None)
    }
}

/// A model or a part of it, as a walk has it.
struct Part<'a, M> {
    access: Access<'a, M>,
    name: Option<String>,
}

enum Access<'a, T: ?Sized> {
    Shared(&'a T),
    Mut(&'a mut T),
}

enum Parts {}

impl TensorViewer for Parts {
    type View<'a, M: 'a> = Part<'a, M>;

    fn view_field<'a, M, Field, GetRef, GetMut>(
        part: &'a mut Part<'_, M>,
        name: &str,
        get_ref: &mut GetRef,
        get_mut: &mut GetMut,
    ) -> Part<'a, Field>
    where
        GetRef: FnMut(&M) -> &Field,
        GetMut: FnMut(&mut M) -> &mut Field,
    {
        let access = match &mut part.access {
            Access::Shared(part) => Access::Shared(get_ref(part)),
            Access::Mut(part) => Access::Mut(get_mut(part)),
        };
        let path = part.name.as_deref();
        Part { access, name: path.map(|path| join(path, name)) }
    }
}
