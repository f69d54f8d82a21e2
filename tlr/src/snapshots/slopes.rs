//! What a batch's gradient says of the way that the weights have gone since the last snapshot.

use super::{tracked::Tracked, Snapshots};
use crate::{
    engine::{Slope, Target},
    error::Error,
    tensors::{self, wide},
};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    shapes::{Dtype, Shape},
    tensor::{Gradients, Storage, Tensor},
    tensor_ops::Device,
};
use std::slice;

impl<E: Dtype> Snapshots<E> {
    /// The slope of each group along the way since a snapshot. `gradients` has one for each trainable tensor. Sketches estimate
    /// it, with a deviation of at most √(2/bins)·‖g‖‖s‖.
    ///
    /// One thread adds all elements in order, so the result does not depend on the number of
    /// threads. The sums have a relative error of at most n·2⁻⁵³ for n weights.
    pub(crate) fn slopes<D, M>(
        &self,
        model: &M,
        gradients: &Gradients<E, D>,
        since: Target,
    ) -> Result<Vec<Slope>, Error>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let mut sums = vec![Slope::default(); self.groups];
        let mut sketches = self.sketches.as_ref().map(|sketches| sketches.slopes());
        let mut add = |tensor: &Tracked<E>, group: usize, now: Vec<E>, gradient: Vec<E>| {
            let Some(sum) = sums.get_mut(group) else { return Ok(()) };
            sum.weights += now.len() as u64;
            if let Some(sketches) = &mut sketches {
                sketches.add(group, &now, &gradient);
                return Ok(());
            }
            let from = tensor.read(since)?;
            for ((now, from), gradient) in now.iter().zip(&*from).zip(&gradient) {
                let (from, gradient) = (wide(*from), wide(*gradient));
                let moved = wide(*now) - from;
                sum.along += gradient * moved;
                sum.moved += moved * moved;
                sum.gradient += gradient * gradient;
                sum.norm += from * from;
            }
            Ok(())
        };
        let mut visitor = Visitor { gradients, tensors: self.tensors.iter(), add: &mut add };
        M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut visitor })?;
        if let Some(sketches) = sketches {
            sketches.sum(&mut sums, since);
        }
        for sum in &mut sums {
            (sum.moved, sum.gradient, sum.norm) =
                (sum.moved.sqrt(), sum.gradient.sqrt(), sum.norm.sqrt());
        }
        Ok(sums)
    }
}

/// Calls a closure with each trainable tensor, its group, its elements and its gradient's.
struct Visitor<'a, E: Dtype, D: Storage<E>> {
    gradients: &'a Gradients<E, D>,
    tensors: slice::Iter<'a, Tracked<E>>,
    add: &'a mut dyn FnMut(&Tracked<E>, usize, Vec<E>, Vec<E>) -> Result<(), Error>,
}

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Visitor<'_, E, D> {
    type Viewer = ViewTensorRef;
    type Err = Error;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        tensor: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Error> {
        if let Some((tracked, group)) = self.tensors.next().and_then(|t| Some((t, t.group?))) {
            let gradient = tensors::values(&self.gradients.get(tensor));
            (self.add)(tracked, group, tensors::values(tensor), gradient)?;
        }
        Ok(None)
    }
}
