//! Walks over a dfdx model's trainable tensors, and an optimizer that does nothing, for
//! checkpoints.

use super::Real;
use crate::weights::walked;
use dfdx::{
    nn::{
        RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut,
        ViewTensorName, ViewTensorRef,
    },
    optim::{Optimizer, OptimizerUpdateError, UnusedTensors},
    prelude::{Cpu, CpuError, Device, Dtype, Gradients, HasShape, Shape, Tensor},
};
use serde::Serialize;
use std::{convert::Infallible, marker::PhantomData};
use tlr::{
    engine::{DirectionProducts, Proposal, RateRule},
    optim::{Buffer, OptimizerState, RestoreError, Resumable},
    Backend, Element, Outcome, TunableOptimizer,
};

/// A type of weights that a dfdx model on the CPU can have: `f32` or `f64`.
pub trait CpuReal: Real + Dtype + Element {
    /// The elements of dfdx's buffer, to be lent.
    #[doc(hidden)]
    fn elements(buffer: &mut Buffer<Self, Cpu>) -> &mut Vec<Self>;
}

impl CpuReal for f32 {
    fn elements(buffer: &mut Buffer<Self, Cpu>) -> &mut Vec<Self> {
        buffer
    }
}

impl CpuReal for f64 {
    fn elements(buffer: &mut Buffer<Self, Cpu>) -> &mut Vec<Self> {
        buffer
    }
}

/// The trainable tensors, in the order of the walk.
#[derive(Default)]
pub(super) struct Trained {
    /// Their paths.
    pub(super) names: Vec<String>,
    /// The tensors themselves, in the type by which dfdx lists tensors without a gradient.
    pub(super) tensors: UnusedTensors,
}

/// The trainable tensors of a model.
pub(super) fn trained<E: Dtype, M: TensorCollection<E, Cpu>>(model: &M) -> Trained
where
    Cpu: Backend<E>,
{
    let mut trained = Trained::default();
    let mut walker = RecursiveWalker { m: (model, String::new()), f: &mut trained };
    let Ok(_) = M::iter_tensors(&mut walker);
    trained
}

/// Whether there are tensors that are not trained, such as running means.
pub(crate) fn has_buffers<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(model: &M) -> bool {
    let mut buffers = Buffers(false);
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut buffers });
    buffers.0
}

/// The weights of the trainable tensors, in the order of the walk.
pub(super) fn read<E: Dtype, M: TensorCollection<E, Cpu>>(model: &M) -> Vec<Vec<E>>
where
    Cpu: Backend<E>,
{
    let mut weights = Vec::new();
    let mut look = Read(&mut weights);
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut look });
    weights
}

/// Writes the weights of the trainable tensors.
pub(super) fn write<E: Dtype, M: TensorCollection<E, Cpu>>(model: &mut M, weights: &[Vec<E>])
where
    Cpu: Backend<E>,
{
    let mut change = Write(weights.iter());
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut change });
}

/// Takes the gradients of the trainable tensors out of `gradients`; zeros for one that is missing.
pub(super) fn take_gradients<E: CpuReal, M: TensorCollection<E, Cpu>>(
    model: &M,
    gradients: &mut Gradients<E, Cpu>,
) -> Result<Vec<Vec<E>>, CpuError>
where
    Cpu: Backend<E>,
{
    let mut taken = Vec::new();
    each(model, gradients, &mut |gradient| taken.push(std::mem::take(gradient)))?;
    Ok(taken)
}

/// Puts the gradients back that were taken out.
pub(super) fn give_back<E: CpuReal, M: TensorCollection<E, Cpu>>(
    model: &M,
    gradients: &mut Gradients<E, Cpu>,
    taken: Vec<Vec<E>>,
) -> Result<(), CpuError>
where
    Cpu: Backend<E>,
{
    let mut taken = taken.into_iter();
    each(model, gradients, &mut |gradient| *gradient = taken.next().unwrap_or_default())
}

fn each<E: CpuReal, M: TensorCollection<E, Cpu>>(
    model: &M,
    gradients: &mut Gradients<E, Cpu>,
    visit: &mut dyn FnMut(&mut Vec<E>),
) -> Result<(), CpuError>
where
    Cpu: Backend<E>,
{
    let mut each = Each { gradients, visit };
    M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut each }).map(|_| ())
}

impl<E: Dtype> TensorVisitor<E, Cpu> for Trained
where
    Cpu: Backend<E>,
{
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = Infallible;
    type E2 = E;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, Cpu>,
        (tensor, name): (&Tensor<S, E, Cpu>, String),
    ) -> Result<Option<Tensor<S, E, Cpu>>, Infallible> {
        if options.do_gradient_update {
            self.names.push(walked(&name).to_owned());
            self.tensors.add(tensor);
        }
        Ok(None)
    }
}

struct Buffers(bool);

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Buffers {
    type Viewer = ViewTensorRef;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        _: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        self.0 |= !options.do_gradient_update;
        Ok(None)
    }
}

struct Read<'a, E>(&'a mut Vec<Vec<E>>);

impl<E: Dtype> TensorVisitor<E, Cpu> for Read<'_, E>
where
    Cpu: Backend<E>,
{
    type Viewer = ViewTensorRef;
    type Err = Infallible;
    type E2 = E;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, Cpu>,
        tensor: &Tensor<S, E, Cpu>,
    ) -> Result<Option<Tensor<S, E, Cpu>>, Infallible> {
        if options.do_gradient_update {
            let mut values = vec![E::default(); tensor.shape().num_elements()];
            tensor.copy_into(&mut values);
            self.0.push(values);
        }
        Ok(None)
    }
}

struct Write<'a, E>(std::slice::Iter<'a, Vec<E>>);

impl<E: Dtype> TensorVisitor<E, Cpu> for Write<'_, E>
where
    Cpu: Backend<E>,
{
    type Viewer = ViewTensorMut;
    type Err = Infallible;
    type E2 = E;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, Cpu>,
        tensor: &mut Tensor<S, E, Cpu>,
    ) -> Result<Option<Tensor<S, E, Cpu>>, Infallible> {
        if options.do_gradient_update {
            let len = tensor.shape().num_elements();
            if let Some(values) = self.0.next().filter(|values| values.len() == len) {
                tensor.copy_from(values);
            }
        }
        Ok(None)
    }
}

struct Each<'a, E: Dtype> {
    gradients: &'a mut Gradients<E, Cpu>,
    visit: &'a mut dyn FnMut(&mut Vec<E>),
}

impl<E: CpuReal> TensorVisitor<E, Cpu> for Each<'_, E>
where
    Cpu: Backend<E>,
{
    type Viewer = ViewTensorRef;
    type Err = CpuError;
    type E2 = E;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, Cpu>,
        tensor: &Tensor<S, E, Cpu>,
    ) -> Result<Option<Tensor<S, E, Cpu>>, CpuError> {
        if options.do_gradient_update {
            (self.visit)(E::elements(self.gradients.get_or_alloc_mut(tensor)?));
        }
        Ok(None)
    }
}

/// An optimizer that does nothing: the trainer around it saves and restores the model.
pub(super) struct Idle<M, E>(PhantomData<fn(&M, E)>);

impl<M, E> Default for Idle<M, E> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<M, E: Dtype> Optimizer<M, Cpu, E> for Idle<M, E>
where
    Cpu: Backend<E>,
{
    fn update(
        &mut self,
        _model: &mut M,
        _gradients: &Gradients<E, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        Ok(())
    }
}

impl<M: TensorCollection<E, Cpu> + Clone, E: Dtype> TunableOptimizer for Idle<M, E>
where
    Cpu: Backend<E>,
{
    type Model = M;
    type Dtype = E;
    type Device = Cpu;

    fn rate(&self, _group: usize) -> f64 {
        1.0
    }

    fn set_rate(&mut self, _group: usize, _rate: f64) {}

    fn reset(&mut self, _model: &M) {}
}

impl<M: TensorCollection<E, Cpu> + Clone, E: Dtype> Resumable for Idle<M, E>
where
    Cpu: Backend<E>,
{
    fn state(&self, _model: &M) -> Result<OptimizerState, CpuError> {
        Ok(OptimizerState::default())
    }

    fn restore(
        &mut self,
        _model: &mut M,
        _state: &OptimizerState,
    ) -> Result<(), RestoreError<CpuError>> {
        Ok(())
    }
}

/// A rule that leaves the rate alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Unchanging;

impl RateRule for Unchanging {
    fn propose(&self, rate: f64, _previous: f64, _products: &DirectionProducts) -> Proposal {
        Proposal { rate, outcome: Outcome::Scaled }
    }
}
