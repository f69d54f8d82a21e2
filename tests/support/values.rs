//! A model's tensors as one vector of `f64`, and gradients made of one.

use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    prelude::*,
};
use std::convert::Infallible;
use tlr::__private::{Model, Names};

/// Every value of every tensor, buffers included, in the order dfdx walks them.
pub fn values<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(model: &M) -> Vec<f64> {
    read(model, false)
}

/// The values of the trainable tensors.
pub fn weights<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(model: &M) -> Vec<f64> {
    read(model, true)
}

fn read<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>, trainable_only: bool) -> Vec<f64> {
    let mut values = Vec::new();
    model.look(Names::Untold, &mut |seen| {
        if !(seen.is_buffer && trainable_only) {
            values.extend(seen.elements().into_iter().filter_map(|value| value.to_f64()));
        }
    });
    values
}

/// [`values`] as bits: equal only if every value is the same, zeros' signs and NaN included.
pub fn bits<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(model: &M) -> Vec<u64> {
    values(model).into_iter().map(f64::to_bits).collect()
}

/// Sets the trainable tensors, rounding to their dtype.
pub fn set_weights<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &mut M,
    weights: &[f64],
) {
    write(model, weights);
}

fn write<E: Dtype, D: Device<E>>(model: &mut dyn Model<E, D>, weights: &[f64]) {
    let mut weights = weights.iter();
    model.change(&mut |mut seen| {
        if !seen.is_buffer {
            let values = weights.by_ref().take(seen.shape().iter().product());
            seen.overwrite(&values.filter_map(|value| E::from_f64(*value)).collect::<Vec<_>>());
        }
    });
}

/// Gradients of the trainable tensors with just these values, NaN and infinities included.
pub fn gradients<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &M,
    values: &[f64],
) -> Gradients<E, D> {
    let mut fill = Fill { gradients: Gradients::leaky(), values: values.iter() };
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut fill });
    fill.gradients
}

/// The gradients of the trainable tensors as one vector; panics over one that is missing.
pub fn gradient_values<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &M,
    gradients: &Gradients<E, D>,
) -> Vec<f64> {
    read_gradients(model, gradients)
}

fn read_gradients<E: Dtype, D: Device<E>>(
    model: &dyn Model<E, D>,
    gradients: &Gradients<E, D>,
) -> Vec<f64> {
    let mut values = Vec::new();
    model.look(Names::Untold, &mut |seen| {
        if !seen.is_buffer {
            let gradient = seen.gradient_elements(gradients);
            values.extend(gradient.into_iter().filter_map(|value| value.to_f64()));
        }
    });
    values
}

/// The largest of these errors, at least 0, or NaN if one of them is: then nothing is right.
/// (`f64::max` would drop it.)
pub fn largest(errors: impl IntoIterator<Item = f64>) -> f64 {
    let larger = |most: f64, error: f64| match most.is_nan() || error <= most {
        true => most,
        false => error,
    };
    errors.into_iter().fold(0.0, larger)
}

/// The largest difference between two vectors of the same length; NaN if there is one in either.
pub fn largest_error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    largest(a.iter().zip(b).map(|(a, b)| (a - b).abs()))
}

/// The smallest model: one vector.
pub type Vector<const N: usize, E = f64> = Tensor<Rank1<N>, E, Cpu>;

/// A vector of these values.
pub fn vector<const N: usize, E: Dtype>(values: &[f64]) -> Vector<N, E>
where
    Cpu: Device<E>,
{
    let mut vector: Vector<N, E> = Cpu::default().zeros();
    set_weights(&mut vector, values);
    vector
}

struct Fill<E: Dtype, D: Device<E>, I> {
    gradients: Gradients<E, D>,
    values: I,
}

impl<'a, E: Dtype, D: Device<E>, I: Iterator<Item = &'a f64>> TensorVisitor<E, D>
    for Fill<E, D, I>
{
    type Viewer = ViewTensorRef;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        tensor: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        if options.do_gradient_update {
            let len = tensor.shape().num_elements();
            let values: Vec<E> =
                self.values.by_ref().take(len).filter_map(|value| E::from_f64(*value)).collect();
            // d(Σ w·t)/dw is t itself.
            let values = tensor.device().tensor_from_vec(values, *tensor.shape());
            let mut own = (tensor.leaky_trace() * values).sum::<Rank0, _>().backward();
            if let (Ok(place), Ok(own)) =
                (self.gradients.get_or_alloc_mut(tensor), own.get_or_alloc_mut(tensor))
            {
                place.clone_from(own);
            }
        }
        Ok(None)
    }
}
