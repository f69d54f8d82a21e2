//! Walks over a dfdx model's trainable tensors, and an optimizer that does nothing, for
//! checkpoints.

use super::Real;
use dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError, UnusedTensors},
    prelude::{Cpu, CpuError, Device, Dtype, Gradients},
    tensor::UniqueId,
};
use serde::Serialize;
use std::marker::PhantomData;
use tlr::{
    __private::{Model, Names},
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
#[derive(Debug, Default)]
pub(super) struct TrainableTensors {
    /// Their paths.
    pub(super) names: Vec<String>,
    /// The tensors themselves, in the type by which dfdx lists tensors without a gradient.
    pub(super) tensors: UnusedTensors,
}

/// The trainable tensors of a model.
pub(super) fn trained<E: Dtype>(model: &dyn Model<E, Cpu>) -> TrainableTensors
where
    Cpu: Backend<E>,
{
    let mut trained = TrainableTensors::default();
    model.look(Names::Told, &mut |seen| {
        if !seen.is_buffer {
            trained.tensors.ids.extend(seen.id());
            trained.names.extend(seen.name);
        }
    });
    trained
}

/// The identities of the trainable tensors of a model.
pub(super) fn ids<E: Dtype>(model: &dyn Model<E, Cpu>) -> Vec<UniqueId>
where
    Cpu: Backend<E>,
{
    let mut ids = Vec::new();
    model.look(Names::Untold, &mut |seen| {
        if !seen.is_buffer {
            ids.extend(seen.id());
        }
    });
    ids
}

/// Whether there are tensors that are not trained, such as running means.
pub(crate) fn has_buffers<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>) -> bool {
    let mut found = false;
    model.look(Names::Untold, &mut |seen| found |= seen.is_buffer);
    found
}

/// How many elements the trainable tensors have.
pub(crate) fn parameters<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>) -> usize {
    let mut parameters = 0;
    model.look(Names::Untold, &mut |seen| {
        if !seen.is_buffer {
            parameters += seen.shape().iter().product::<usize>();
        }
    });
    parameters
}

/// The weights of the trainable tensors, in the order of the walk.
pub(super) fn read<E: Dtype>(model: &dyn Model<E, Cpu>) -> Vec<Vec<E>>
where
    Cpu: Backend<E>,
{
    let mut weights = Vec::new();
    model.look(Names::Untold, &mut |seen| {
        if !seen.is_buffer {
            weights.push(seen.elements());
        }
    });
    weights
}

/// Writes the weights of the trainable tensors.
pub(super) fn write<E: Dtype>(model: &mut dyn Model<E, Cpu>, weights: &[Vec<E>])
where
    Cpu: Backend<E>,
{
    let mut weights = weights.iter();
    model.change(&mut |mut seen| {
        if !seen.is_buffer {
            weights.next().into_iter().for_each(|weights| seen.overwrite(weights));
        }
    });
}

/// Lends `borrow` the gradients of the trainable tensors, zeros for one that is missing, and puts
/// them back whatever it returns, and also if it panics.
///
/// # Errors
/// A missing gradient cannot be allocated. `borrow` is not called then, and the gradients that are
/// there stay as they are.
pub(super) fn lend_gradients<E: CpuReal, T>(
    model: &dyn Model<E, Cpu>,
    gradients: &mut Gradients<E, Cpu>,
    borrow: impl FnOnce(&[&[E]]) -> T,
) -> Result<T, CpuError>
where
    Cpu: Backend<E>,
{
    // Only this can fail. Later walks find a gradient for each tensor and allocate nothing.
    each(model, gradients, &mut |_| ())?;
    let mut lent = Lent { model, gradients, taken: Vec::new() };
    let Lent { gradients, taken, .. } = &mut lent;
    each(model, gradients, &mut |gradient| taken.push(std::mem::take(gradient)))?;
    let slices: Vec<_> = lent.taken.iter().map(Vec::as_slice).collect();
    Ok(borrow(&slices))
}

/// Gradients that were taken out of their set, and return to it when this is dropped.
struct Lent<'a, E: CpuReal>
where
    Cpu: Backend<E>,
{
    model: &'a dyn Model<E, Cpu>,
    gradients: &'a mut Gradients<E, Cpu>,
    taken: Vec<Vec<E>>,
}

impl<E: CpuReal> Drop for Lent<'_, E>
where
    Cpu: Backend<E>,
{
    fn drop(&mut self) {
        let mut taken = std::mem::take(&mut self.taken).into_iter();
        // An error here would hide that the step has been made.
        let _ = each(self.model, self.gradients, &mut |gradient| {
            if let Some(taken) = taken.next() {
                *gradient = taken;
            }
        });
    }
}

fn each<E: CpuReal>(
    model: &dyn Model<E, Cpu>,
    gradients: &mut Gradients<E, Cpu>,
    visit: &mut dyn FnMut(&mut Vec<E>),
) -> Result<(), CpuError>
where
    Cpu: Backend<E>,
{
    let mut visited = Ok(());
    model.look(Names::Untold, &mut |seen| {
        if visited.is_ok() && !seen.is_buffer {
            visited = seen.gradient(gradients).map(|gradient| visit(E::elements(gradient)));
        }
    });
    visited
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
pub(crate) struct Unchanging;

impl RateRule for Unchanging {
    fn propose(&self, rate: f64, _previous: f64, _products: &DirectionProducts) -> Proposal {
        Proposal { rate, outcome: Outcome::Scaled }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use dfdx::prelude::{AsArray, DeviceBuildExt, Linear, ZeroGrads};
    use std::panic::{catch_unwind, AssertUnwindSafe};

    // Fails if a rule of one's own that panics leaves the gradients empty, so that the next pass
    // or step of one who has caught it panics too.
    #[test]
    fn gradients_return_after_a_panic() {
        let model = Cpu::default().build_module::<Linear<2, 1>, f32>();
        let mut gradients = model.alloc_grads();
        let own = gradients.get_or_alloc_mut(&model.weight).unwrap();
        own.copy_from_slice(&[1.0, 2.0]);
        let lend = || lend_gradients(&model, &mut gradients, |_| panic!("of the rule"));
        let panicked = catch_unwind(AssertUnwindSafe(lend));
        assert!(panicked.is_err());
        assert_eq!(gradients.get(&model.weight).array(), [[1.0, 2.0]]);
        assert_eq!(gradients.get(&model.bias).array(), [0.0]);
    }
}
