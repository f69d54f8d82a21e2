use super::{
    gradients, Family, LearningRate, OptimizerState, OwnGradients, Resumable, ResumableFamily,
};
use crate::{
    checkpoint::{Element, Stored},
    device::Backend,
    tensors::{self, TensorInfo},
};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut},
    optim::{Optimizer, OptimizerUpdateError},
    shapes::{Dtype, HasShape, Shape},
    tensor::{Gradients, Storage, Tensor, UniqueId},
    tensor_ops::Device,
};
use std::{collections::HashMap, fmt::Debug, marker::PhantomData};

/// Memory of a device for the elements of one tensor.
pub type Buffer<E, D> = <D as Storage<E>>::Vec;

/// N of each tensor.
type Buffers<E, D, const N: usize> = HashMap<UniqueId, [Buffer<E, D>; N]>;

/// How an optimizer changes one tensor, element by element, with N buffers of the tensor's size.
///
/// Write one, and [`Elementwise`] makes an optimizer of it that [`Newton`](crate::Newton) can wrap, that has a rate
/// a layer by [`PerLayer`](super::PerLayer), and that is saved and resumed.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr::{optim::{Buffer, Elementwise, UpdateRule}, Backend, Newton, NewtonConfig};
///
/// /// w ← w − lr · sign(g), by way of Adam's kernel without memory.
/// #[derive(Clone, Copy, Debug)]
/// struct SignSgd { lr: f64 }
///
/// impl UpdateRule<2> for SignSgd {
///     const BUFFERS: [&'static str; 2] = ["gradient", "square"];
///     fn rate(&self) -> f64 { self.lr }
///     fn set_rate(&mut self, rate: f64) { self.lr = rate }
///     fn update<S: Shape, E: Dtype, D: Backend<E>>(
///         &self,
///         _step: i32,
///         parameter: &mut Tensor<S, E, D>,
///         [gradient, square]: &mut [Buffer<E, D>; 2],
///         now: &Buffer<E, D>,
///     ) -> Result<(), D::Err> {
///         let sign = dfdx::optim::AdamConfig { lr: self.lr, betas: [0.0; 2], eps: 0.0, weight_decay: None };
///         sign.try_update(1, parameter, gradient, square, now)
///     }
/// }
///
/// let dev = Cpu::default();
/// let mut w: Tensor<Rank1<2>, f32, _> = dev.tensor([3.0, -4.0]);
/// let mut opt = Elementwise::new(&w, SignSgd { lr: 0.5 });
/// let gradients = w.leaky_trace().square().sum().backward();
/// opt.update(&mut w, &gradients)?;
/// assert_eq!(w.array(), [2.5, -3.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait UpdateRule<const N: usize>: Copy + Debug {
    /// What the buffers are called in a checkpoint.
    const BUFFERS: [&'static str; N];

    /// The learning rate.
    fn rate(&self) -> f64;

    /// Sets the learning rate.
    fn set_rate(&mut self, rate: f64);

    /// As [`LearningRate::momentum`]. Default 0.
    fn momentum(&self) -> f64 {
        0.0
    }

    /// The update of one tensor, the `step`-th counted from 1. The buffers hold what the last one left, at first 0.
    ///
    /// # Errors
    /// Those of the device.
    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        step: i32,
        parameter: &mut Tensor<S, E, D>,
        buffers: &mut [Buffer<E, D>; N],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err>;
}

/// An optimizer that owns its state, made of an [`UpdateRule`].
///
/// [`Sgd`](super::Sgd), [`Adam`](super::Adam), [`AdamW`](super::AdamW) and [`RMSprop`](super::RMSprop) are such. The
/// update is dfdx's own kernel, so weights are those of dfdx's optimizer to the bit.
///
/// Where a gradient is missing, no parameter is moved and nothing accumulates (dfdx moves the others first).
#[derive(Clone, Debug)]
pub struct Elementwise<M, E: Dtype, D: Storage<E>, C, const N: usize> {
    /// Hyperparameters.
    pub cfg: C,
    steps: u64,
    /// Of each tensor that has been updated.
    buffers: Buffers<E, D, N>,
    marker: PhantomData<fn(&M, E)>,
}

impl<M, E: Dtype, D: Storage<E>, C: UpdateRule<N>, const N: usize> Elementwise<M, E, D, C, N> {
    /// An optimizer for `model`, with nothing accumulated.
    pub fn new(model: &M, cfg: C) -> Self {
        let _ = model;
        Self { cfg, steps: 0, buffers: HashMap::new(), marker: PhantomData }
    }

    /// Updates so far, since the last [`reset`](LearningRate::reset).
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

impl<M, E, D, C, const N: usize> Optimizer<M, D, E> for Elementwise<M, E, D, C, N>
where
    M: TensorCollection<E, D> + Clone,
    E: Dtype,
    D: Backend<E>,
    C: UpdateRule<N>,
{
    fn update(
        &mut self,
        model: &mut M,
        gradients: &Gradients<E, D>,
    ) -> Result<(), OptimizerUpdateError<D::Err>> {
        let mut own = gradients::complete(&*model, gradients)?;
        self.update_owned(model, &mut own)
    }
}

struct Update<'a, E: Dtype, D: Storage<E>, C, const N: usize> {
    rule: C,
    step: i32,
    buffers: &'a mut Buffers<E, D, N>,
    gradients: &'a mut Gradients<E, D>,
}

impl<E: Dtype, D: Backend<E>, C: UpdateRule<N>, const N: usize> TensorVisitor<E, D>
    for Update<'_, E, D, C, N>
{
    type Viewer = ViewTensorMut;
    type Err = D::Err;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        tensor: &mut Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, D::Err> {
        let (true, Some(id)) = (options.do_gradient_update, tensors::id(tensor)) else {
            return Ok(None);
        };
        let buffers = match self.buffers.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(zeros(tensor.device(), tensor.shape().num_elements())?)
            }
        };
        let gradient = self.gradients.get_or_alloc_mut(tensor)?;
        self.rule.update(self.step, tensor, buffers, gradient)?;
        Ok(None)
    }
}

fn zeros<E: Dtype, D: Device<E>, const N: usize>(
    device: &D,
    len: usize,
) -> Result<[Buffer<E, D>; N], D::Err> {
    let zeros: Buffer<E, D> = Storage::<E>::try_alloc_len(device, len)?;
    Ok(std::array::from_fn(|_| zeros.clone()))
}

impl<M, E, D, C, const N: usize> LearningRate for Elementwise<M, E, D, C, N>
where
    M: TensorCollection<E, D> + Clone,
    E: Dtype,
    D: Backend<E>,
    C: UpdateRule<N>,
{
    type Model = M;
    type Dtype = E;
    type Device = D;

    fn rate(&self, _group: usize) -> f64 {
        self.cfg.rate()
    }

    fn set_rate(&mut self, _group: usize, rate: f64) {
        self.cfg.set_rate(rate);
    }

    fn momentum(&self) -> f64 {
        self.cfg.momentum()
    }

    fn reset(&mut self, _model: &M) {
        self.steps = 0;
        self.buffers.clear();
    }

    fn own_gradients(&self, model: &M, gradients: &Gradients<E, D>) -> OwnGradients<Self> {
        gradients::complete(model, gradients).map(Some)
    }

    fn fails_with_device_only(&self) -> bool {
        true
    }

    fn update_owned(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<E, D>,
    ) -> Result<(), OptimizerUpdateError<D::Err>> {
        let mut update = Update {
            rule: self.cfg,
            step: i32::try_from(self.steps + 1).unwrap_or(i32::MAX),
            buffers: &mut self.buffers,
            gradients,
        };
        M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut update })
            .map_err(OptimizerUpdateError::DeviceError)?;
        self.steps += 1;
        Ok(())
    }
}

impl<M, E, D, C, const N: usize> Family for Elementwise<M, E, D, C, N>
where
    M: TensorCollection<E, D> + Clone,
    E: Dtype,
    D: Backend<E>,
    C: UpdateRule<N>,
{
    type For<L: TensorCollection<E, D> + Clone> = Elementwise<L, E, D, C, N>;

    fn for_layer<L: TensorCollection<E, D> + Clone>(&self, layer: &L) -> Self::For<L> {
        Elementwise::new(layer, self.cfg)
    }
}

impl<M, E, D, C, const N: usize> Resumable for Elementwise<M, E, D, C, N>
where
    M: TensorCollection<E, D> + Clone,
    E: Element,
    D: Backend<E>,
    C: UpdateRule<N>,
{
    fn state(&mut self, model: &M) -> Result<OptimizerState, D::Err> {
        let mut state = OptimizerState { settings: self.settings(), ..Default::default() };
        state.steps.insert(String::new(), self.steps);
        store::<E, D, N>(C::BUFFERS, &self.buffers, tensors::list(model), &mut state)?;
        Ok(state)
    }

    fn restore(&mut self, model: &M, state: &OptimizerState) -> Result<(), D::Err> {
        self.buffers = load::<E, D, N>(C::BUFFERS, tensors::list_with_devices(model), state)?;
        self.steps = state.steps.values().copied().next().unwrap_or(0);
        Ok(())
    }
}

// Without the model's type, so that they are compiled once for all models and layers.

fn store<E: Element, D: Backend<E>, const N: usize>(
    names: [&str; N],
    buffers: &Buffers<E, D, N>,
    tensors: Vec<TensorInfo>,
    state: &mut OptimizerState,
) -> Result<(), D::Err> {
    for tensor in tensors.into_iter().filter(|tensor| tensor.trainable) {
        let buffers = buffers.get(&tensor.id);
        for (index, name) in names.iter().enumerate() {
            let shape = tensor.shape.clone();
            let stored = match buffers.and_then(|buffers| buffers.get(index)) {
                Some(buffer) => D::read(buffer, |values| Stored::new(shape, values))?,
                // As it is before the first update.
                None => Stored::new(shape, &vec![E::default(); tensor.len]),
            };
            state.insert(name, &tensor.name, stored);
        }
    }
    Ok(())
}

fn load<E: Element, D: Backend<E>, const N: usize>(
    names: [&str; N],
    tensors: Vec<(TensorInfo, D)>,
    state: &OptimizerState,
) -> Result<Buffers<E, D, N>, D::Err> {
    let mut loaded = HashMap::new();
    for (tensor, device) in tensors.into_iter().filter(|(tensor, _)| tensor.trainable) {
        let mut buffers: [Buffer<E, D>; N] = zeros(&device, tensor.len)?;
        for (name, buffer) in names.iter().zip(&mut buffers) {
            if let Some(stored) = state.get(name, &tensor.name) {
                D::write(buffer, |values| stored.copy_into(values))?;
            }
        }
        loaded.insert(tensor.id, buffers);
    }
    Ok(loaded)
}

impl<M, E: Dtype, D: Storage<E>, C: UpdateRule<N>, const N: usize> Elementwise<M, E, D, C, N> {
    /// The hyperparameters but the rate, one a line.
    fn settings(&self) -> String {
        let mut cfg = self.cfg;
        cfg.set_rate(0.0);
        format!("{cfg:#?}")
    }
}

impl<M, E, D, C, const N: usize> ResumableFamily for Elementwise<M, E, D, C, N>
where
    M: TensorCollection<E, D> + Clone,
    E: Element,
    D: Backend<E>,
    C: UpdateRule<N>,
{
    fn layer_state<L: TensorCollection<E, D> + Clone>(
        optimizer: &mut Self::For<L>,
        layer: &L,
    ) -> Result<OptimizerState, D::Err> {
        optimizer.state(layer)
    }

    fn restore_layer<L: TensorCollection<E, D> + Clone>(
        optimizer: &mut Self::For<L>,
        layer: &L,
        state: &OptimizerState,
    ) -> Result<(), D::Err> {
        optimizer.restore(layer, state)
    }
}
