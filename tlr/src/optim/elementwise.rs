//! [`Elementwise`]: an optimizer that owns its state, built from an update rule for one tensor.

use super::{
    buffers::{all_zeros, load, store, zeros, Buffers},
    gradients,
    names::are_distinct_words,
    CompleteGradients, FailedUpdate, Family, OptimizerState, RestoreError, Resumable,
    ResumableFamily, TunableOptimizer, UpdateRule,
};
use crate::{
    error::Error,
    tensors::{self, Backend, Element, Mark},
};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut},
    optim::{Optimizer, OptimizerUpdateError},
    shapes::{Dtype, HasShape, Shape},
    tensor::{Gradients, Storage, Tensor},
};
use std::{
    collections::{hash_map::Entry, HashMap},
    marker::PhantomData,
};

/// An optimizer that owns its state, built from an [`UpdateRule`].
///
/// [`Sgd`](super::Sgd), [`Adam`](super::Adam), [`AdamW`](super::AdamW) and
/// [`RMSprop`](super::RMSprop) are of this type. They call dfdx's own kernels, so their weights
/// equal those of dfdx's optimizers bit for bit.
///
/// A failed update leaves weights and state as they were, whether a gradient is missing or the rule
/// fails at one of the tensors. (dfdx's optimizers move the other weights before they report a
/// missing gradient.)
///
/// Example: [`new`](Self::new).
#[derive(Clone, Debug)]
pub struct Elementwise<M, E: Dtype, D: Storage<E>, C, const N: usize> {
    /// The hyperparameters.
    pub cfg: C,
    /// Whether tensors of less than two dimensions decay.
    vectors_decay: bool,
    steps: u64,
    /// The buffers of every trainable tensor. Empty before the first update.
    buffers: Buffers<E, D, N>,
    /// Steps and buffers as they were before a trial.
    before_trial: Option<(u64, Buffers<E, D, N>)>,
    marker: PhantomData<fn(&M, E)>,
}

impl<M, E: Dtype, D: Storage<E>, C: UpdateRule<N>, const N: usize> Elementwise<M, E, D, C, N> {
    /// Makes an optimizer for `model` with nothing accumulated.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::optim::Elementwise;
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// // What `Sgd::new` does.
    /// let sgd: Elementwise<_, f32, Cpu, _, 1> = Elementwise::new(&model, SgdConfig::default());
    /// ```
    pub fn new(model: &M, cfg: C) -> Self {
        const {
            assert!(
                are_distinct_words(&C::BUFFERS),
                "`UpdateRule::BUFFERS`: the names have to differ, without a dot, and not be empty"
            );
        }
        let _ = model;
        Self {
            cfg,
            vectors_decay: true,
            steps: 0,
            buffers: HashMap::new(),
            before_trial: None,
            marker: PhantomData,
        }
    }

    /// Leaves vectors and scalars out of the weight decay, be it L2 or decoupled: tensors of less
    /// than two dimensions, which are biases, and the scales and shifts of norm layers. By default
    /// all tensors decay. `#[tlr(no_decay)]` on a field of a derived model leaves all of the field
    /// out.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr::optim::{AdamW, AdamWConfig};
    ///
    /// let dev = Cpu::default();
    /// let mut model = dev.build_module::<Linear<2, 2>, f32>();
    /// let config = AdamWConfig { lr: 1.0, weight_decay: 0.5, ..Default::default() };
    /// let mut opt = AdamW::new(&model, config).decay_matrices_only();
    /// let before = model.clone();
    /// let gradients = model.alloc_grads(); // of zeros, so that only the decay moves anything
    /// opt.update(&mut model, &gradients)?;
    /// assert_eq!(model.weight.array(), (before.weight * 0.5).array());
    /// assert_eq!(model.bias.array(), before.bias.array());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decay_matrices_only(mut self) -> Self {
        self.vectors_decay = false;
        self
    }

    /// The number of updates since the last [`reset`](TunableOptimizer::reset).
    ///
    /// Example: [`Resumable`](super::Resumable).
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
    vectors_decay: bool,
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
        let (true, Some(id)) = (tensors::is_trained(&options), tensors::id(tensor)) else {
            return Ok(None);
        };
        let buffers = match self.buffers.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(zeros(tensor.device(), tensor.shape().num_elements())?)
            }
        };
        let gradient = self.gradients.get_or_alloc_mut(tensor)?;
        let decays = (self.vectors_decay || S::NUM_DIMS > 1) && Mark::here().no_decay.is_none();
        let rule = if decays { self.rule } else { self.rule.without_decay() };
        rule.update(self.step, tensor, buffers, gradient)?;
        Ok(None)
    }
}

impl<M, E, D, C, const N: usize> TunableOptimizer for Elementwise<M, E, D, C, N>
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

    fn validate(&self) -> Result<(), Error> {
        self.cfg.validate::<E>()
    }

    fn follows_attributes(&self) -> bool {
        true
    }

    fn reset(&mut self, _model: &M) {
        self.steps = 0;
        self.buffers.clear();
    }

    fn begin_trial(&mut self, _model: &mut M) -> bool {
        self.before_trial = Some((self.steps, self.buffers.clone()));
        true
    }

    fn end_trial(&mut self, _model: &mut M, made: bool) {
        if let (Some(before), false) = (self.before_trial.take(), made) {
            (self.steps, self.buffers) = before;
        }
    }

    fn complete_gradients(
        &self,
        model: &M,
        gradients: &Gradients<E, D>,
    ) -> CompleteGradients<Self> {
        gradients::complete(model, gradients).map(Some)
    }

    fn failed_update(&self) -> FailedUpdate {
        if C::INFALLIBLE {
            FailedUpdate::Impossible
        } else {
            FailedUpdate::Undone
        }
    }

    fn update_owned(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<E, D>,
    ) -> Result<(), OptimizerUpdateError<D::Err>> {
        // All memory is allocated first, so that running out of it moves no weight.
        self.make_buffers(model).map_err(OptimizerUpdateError::DeviceError)?;
        let before = (!C::INFALLIBLE).then(|| (model.clone(), self.buffers.clone()));
        let mut update = Update {
            rule: self.cfg,
            vectors_decay: self.vectors_decay,
            step: i32::try_from(self.steps + 1).unwrap_or(i32::MAX),
            buffers: &mut self.buffers,
            gradients,
        };
        let walked = M::iter_tensors(&mut RecursiveWalker { m: &mut *model, f: &mut update });
        if let Err(error) = walked {
            if let Some(before) = before {
                (*model, self.buffers) = before;
            }
            return Err(OptimizerUpdateError::DeviceError(error));
        }
        self.steps += 1;
        Ok(())
    }
}

impl<M, E, D, C, const N: usize> Elementwise<M, E, D, C, N>
where
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Backend<E>,
    C: UpdateRule<N>,
{
    /// Allocates the buffers of every trainable tensor of `model`, unless an earlier update has.
    fn make_buffers(&mut self, model: &M) -> Result<(), D::Err> {
        if !self.buffers.is_empty() {
            return Ok(());
        }
        self.buffers = all_zeros(tensors::list_with_devices(model))?;
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
        let vectors_decay = self.vectors_decay;
        Elementwise { vectors_decay, ..Elementwise::new(layer, self.cfg) }
    }
}

impl<M, E, D, C, const N: usize> Resumable for Elementwise<M, E, D, C, N>
where
    M: TensorCollection<E, D> + Clone,
    E: Element,
    D: Backend<E>,
    C: UpdateRule<N>,
{
    fn state(&self, model: &M) -> Result<OptimizerState, D::Err> {
        let mut settings = self.cfg.settings();
        if !self.vectors_decay {
            settings = settings.with("vectors_decay", false);
        }
        let mut state = OptimizerState { settings, ..Default::default() };
        state.steps.insert(String::new(), self.steps);
        store::<E, D, N>(C::BUFFERS, &self.buffers, tensors::list(model), &mut state)?;
        Ok(state)
    }

    fn restore(
        &mut self,
        model: &mut M,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<D::Err>> {
        let steps = state.count("")?;
        let tensors = tensors::list_with_devices(&*model);
        self.buffers = load::<E, D, N>(C::BUFFERS, tensors, state)?;
        self.steps = steps;
        Ok(())
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
        optimizer: &Self::For<L>,
        layer: &L,
    ) -> Result<OptimizerState, D::Err> {
        optimizer.state(layer)
    }

    fn restore_layer<L: TensorCollection<E, D> + Clone>(
        optimizer: &mut Self::For<L>,
        layer: &mut L,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<D::Err>> {
        optimizer.restore(layer, state)
    }
}
