//! What a batch's gradient says of the way that the weights have gone since a snapshot.

use super::{tracked::Tracked, Snapshots};
use crate::{
    engine::{Slope, Target},
    error::Error,
    tensors::{self, wide, Buffer, Values},
};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    shapes::{Dtype, Shape},
    tensor::{Cpu, Gradients, Storage, Tensor},
    tensor_ops::Device,
};
use std::{any::Any, slice};

impl<E: Dtype> Snapshots<E> {
    /// The slope of each group along the way since a snapshot. A trainable tensor without a gradient
    /// is given one of zeros. Sketches estimate the slope, with a deviation of at most
    /// √(2/bins)·‖g‖‖s‖.
    ///
    /// One thread adds all elements in order, so the result does not depend on the number of
    /// threads. The sums have a relative error of at most n·2⁻⁵³ for n weights.
    pub(crate) fn slopes<D, M>(
        &self,
        model: &M,
        gradients: &mut Gradients<E, D>,
        since: Target,
    ) -> Result<Vec<Slope>, Error>
    where
        D: Device<E>,
        M: TensorCollection<E, D>,
    {
        let mut sums = vec![Slope::default(); self.groups];
        let mut sketches = self.sketches.as_ref().map(|sketches| sketches.slopes());
        let mut add = |tensor: &Tracked<E>, group: usize, now: &Values<E>, gradient: &[E]| {
            let Some(sum) = sums.get_mut(group) else { return Ok(()) };
            sum.weights += now.len() as u64;
            if let Some(sketches) = &mut sketches {
                sketches.add(group, now, gradient);
                return Ok(());
            }
            let from = tensor.read(since)?;
            let mut rest = from.iter().zip(gradient);
            now.read_range(0..now.len(), |now| {
                for (now, (from, gradient)) in now.iter().zip(&mut rest) {
                    let (from, gradient) = (wide(*from), wide(*gradient));
                    let moved = wide(*now) - from;
                    sum.along += gradient * moved;
                    sum.moved += moved * moved;
                    sum.gradient += gradient * gradient;
                    sum.norm += from * from;
                }
            });
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

/// Is told a trainable tensor, its group, its elements and its gradient's.
type Add<'a, E> = dyn FnMut(&Tracked<E>, usize, &Values<E>, &[E]) -> Result<(), Error> + 'a;

/// Tells each trainable tensor.
struct Visitor<'a, E: Dtype, D: Storage<E>> {
    gradients: &'a mut Gradients<E, D>,
    tensors: slice::Iter<'a, Tracked<E>>,
    add: &'a mut Add<'a, E>,
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
        let Some((tracked, group)) = self.tensors.next().and_then(|t| Some((t, t.group?))) else {
            return Ok(None);
        };
        let now = tensors::lent_or_copied(tensor);
        let buffer = self.gradients.get_or_alloc_mut(tensor);
        let buffer = buffer.map_err(|error| Error::Device(format!("{error:?}")))?;
        match (buffer as &dyn Any).downcast_ref::<Buffer<E, Cpu>>() {
            Some(gradient) => (self.add)(tracked, group, &now, gradient)?,
            None => {
                let gradient = tensors::values(&self.gradients.get(tensor));
                (self.add)(tracked, group, &now, &gradient)?;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::TensorKind;
    use dfdx::prelude::*;

    /// By hand, from snapshots, from a direction in bfloat16 that is exact here, and from sketches
    /// with room for three elements. Fails with another snapshot or another group.
    #[test]
    fn slopes_by_hand() {
        let close = |a: &Slope, b: &Slope| {
            let figures = |s: &Slope| [s.along, s.moved, s.gradient, s.norm, s.weights as f64];
            figures(a).iter().zip(figures(b)).all(|(a, b)| (a - b).abs() <= 1e-12 * b.abs())
        };
        let moved =
            Slope { along: 20.0, moved: 2.0, gradient: 164f64.sqrt(), norm: 5.0, weights: 2 };
        let still = Slope { along: 0.0, moved: 0.0, gradient: 2.0, norm: 1.0, weights: 1 };
        for (bins, directions) in [(None, false), (None, true), (Some(1 << 10), false)] {
            let dev = Cpu::default();
            let mut model = (dev.tensor([3.0f32, 4.0]), dev.tensor([1.0f32]));
            let second = tensors::id(&model.1);
            let group_of = |id| Some(usize::from(Some(id) == second));
            let mut snapshots =
                Snapshots::<f32>::new(&model, 2, group_of, bins, directions).unwrap();
            snapshots.take(&model, TensorKind::Weights).unwrap();
            model.0.copy_from(&[5.0, 4.0]);
            let squares = model.0.leaky_trace().square().sum::<Rank0, _>();
            let mut gradients = (squares + model.1.leaky_trace().square().sum()).backward();
            let slopes = snapshots.slopes(&model, &mut gradients, Target::Last).unwrap();
            assert!(close(&slopes[0], &moved) && close(&slopes[1], &still), "{slopes:?}");
            snapshots.advance(&model).unwrap();
            let slopes = snapshots.slopes(&model, &mut gradients, Target::BeforeLast).unwrap();
            assert!(close(&slopes[0], &moved) && close(&slopes[1], &still), "{slopes:?}");
            let slopes = snapshots.slopes(&model, &mut gradients, Target::Last).unwrap();
            assert_eq!((slopes[0].along, slopes[0].moved), (0.0, 0.0));
        }
    }
}
