//! Cross entropy with labels, some of which do not count.

#[cfg(feature = "cuda")]
mod on_cuda;

#[cfg(feature = "cuda")]
pub(super) use on_cuda::on_cuda;

use super::Rows;
use crate::layers::{
    buffer,
    element::Element,
    scratch::Scratch,
    shares::Shares,
    simd::{exponentials, vectorized},
    LayerError, Misfit,
};
use dfdx::prelude::{
    Axis, Cpu, CpuError, Device, Dtype, Gradients, HasErr, HasShape, PutTape, Rank0, SelectTo,
    SplitTape, Storage, SumTo, Tape, Tensor, TryMul,
};
use rayon::prelude::*;

/// Checks that there is a label for each row, and a class for each label that counts.
pub(super) fn check<E, D, T, const V: usize>(
    logits: &Rows<usize, V, E, D, T>,
    labels: &[usize],
    ignored: usize,
) -> Result<(), LayerError<<D as HasErr>::Err>>
where
    E: Dtype,
    D: Storage<E>,
{
    let rows = logits.shape().0;
    let misfit = if labels.len() != rows {
        Misfit::Labels { labels: labels.len(), rows }
    } else if let Some(label) = labels.iter().find(|label| **label != ignored && **label >= V) {
        Misfit::Label { label: *label, classes: V }
    } else {
        return Ok(());
    };
    Err(LayerError::Shape { layer: format!("cross entropy of {V} classes"), misfit })
}

/// One over the number of rows that count; 0 if none does.
fn share(labels: &[usize], ignored: usize) -> f64 {
    match labels.iter().filter(|label| **label != ignored).count() {
        0 => 0.0,
        count => 1.0 / count as f64,
    }
}

/// The loss by dfdx's own operations, on any device.
pub(super) fn composed<E: Dtype, D: Device<E>, T: Tape<E, D>, const V: usize>(
    logits: Rows<usize, V, E, D, T>,
    labels: &[usize],
    ignored: usize,
) -> Result<Tensor<Rank0, E, D, T>, D::Err> {
    let device = logits.device().clone();
    let share = E::from_f64(-share(labels, ignored)).unwrap_or_default();
    let shape = (labels.len(),);
    let counted = |label: &usize| if *label == ignored { E::default() } else { share };
    let weights: Vec<E> = labels.iter().map(counted).collect();
    let weights: Tensor<(usize,), E, D> = device.try_tensor_from_vec(weights, shape)?;
    let chosen = labels.iter().map(|label| if *label == ignored { 0 } else { *label }).collect();
    let chosen: Tensor<(usize,), usize, D> = device.try_tensor_from_vec(chosen, shape)?;
    let likelihoods: Tensor<(usize,), E, D, T> =
        logits.try_log_softmax::<Axis<1>>()?.try_select(chosen)?;
    likelihoods.try_mul(weights.retaped::<T>())?.try_sum()
}

/// The loss on the CPU, in one pass each way, with the sums in f64. The logits are contiguous, and
/// there is a label below `V` for each row that counts.
pub(super) fn on_cpu<E: Element + Dtype, T: Tape<E, Cpu>, const V: usize>(
    logits: Rows<usize, V, E, Cpu, T>,
    labels: &[usize],
    ignored: usize,
) -> Result<Tensor<Rank0, E, Cpu, T>, CpuError> {
    let (logits, mut tape) = logits.split_tape();
    let device = logits.device().clone();
    let width = V.max(1);
    // The logits become their exponentials here.
    let mut values = Scratch::of(&logits);
    let rows: Vec<(f64, f64)> = values
        .shared_chunks_mut(width)
        .zip(labels)
        .map(|(row, label)| {
            if *label == ignored {
                return (0.0, 0.0);
            }
            let at = row.get(*label).map_or(0.0, |logit| logit.to());
            let (most, sum) = exponentials(row);
            (sum.ln() - (at - most.to()), sum)
        })
        .collect();
    let share = share(labels, ignored);
    let loss = rows.iter().map(|(loss, _)| loss).sum::<f64>() * share;
    let mut total = buffer::zeros(&device, 1)?;
    total.iter_mut().for_each(|total| *total = E::of(loss));
    let y = buffer::tensor(&device, total, ())?;

    let ghosts = (logits.ghost(), y.ghost());
    let labels = labels.to_vec();
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (logits, y) = ghosts;
        let upstream = gradients.get_or_alloc_mut(&y)?.first().map_or(0.0, |g| g.to()) * share;
        gradients
            .get_or_alloc_mut(&logits)?
            .shared_chunks_mut(width)
            .zip(values.par_chunks(width))
            .zip(labels.par_iter().zip(&rows))
            .filter(|(_, (label, _))| **label != ignored)
            .for_each(|((gradient, exponentials), (label, (_, sum)))| {
                let scale = E::of(upstream / sum);
                vectorized(|| {
                    for (gradient, exponential) in gradient.iter_mut().zip(exponentials) {
                        *gradient += *exponential * scale;
                    }
                });
                if let Some(gradient) = gradient.get_mut(*label) {
                    *gradient += E::of(-upstream);
                }
            });
        Ok(())
    });
    Ok(y.put_tape(tape))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::check::*;
    use crate::layers::SequenceKernels;
    use dfdx::prelude::*;

    const IGNORED: usize = 1;

    type Loss = Tensor<Rank0, f64, Cpu, Owned>;
    type Logits<const V: usize> = Rows<usize, V, f64, Cpu, Owned>;

    fn logits<const V: usize>(rows: usize) -> Rows<usize, V, f64, Cpu, NoneTape> {
        Cpu::seed_from_u64(7).sample_like(&(rows, Const), rand_distr::StandardNormal)
    }

    fn run<const V: usize>(
        rows: usize,
        loss: impl Fn(Logits<V>, &[usize]) -> Loss,
    ) -> Vec<Vec<f64>> {
        let x = logits::<V>(rows) * 3.0;
        let labels: Vec<usize> = (0..rows).map(|row| (row * 7) % V).collect();
        let loss = loss(x.leaky_trace(), &labels);
        let value = loss.array();
        vec![vec![value], (loss * 2.0).backward().get(&x).as_vec()]
    }

    // Fails if an ignored row counts in the sum, in the mean or in the gradient.
    #[test]
    fn as_composed_of_dfdx_operations() {
        for rows in [1, 2, 5, 40] {
            let ours = |x: Logits<5>, labels: &[usize]| {
                Cpu::try_cross_entropy(x, labels, IGNORED).unwrap()
            };
            let theirs = |x: Logits<5>, labels: &[usize]| composed(x, labels, IGNORED).unwrap();
            all_close(&run::<5>(rows, ours), &run::<5>(rows, theirs));
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        differences(&logits::<4>(3), |x| Cpu::try_cross_entropy(x, &[2, 1, 0], IGNORED).unwrap());
    }

    // Without a row that counts the loss is 0, and not 0/0. An ignored label need not be a class.
    #[test]
    fn none_counts() {
        type Losses = fn(Logits<4>, &[usize], usize) -> Result<Loss, LayerError<CpuError>>;
        let losses: [Losses; 2] =
            [Cpu::try_cross_entropy, |x, labels, ignored| Ok(composed(x, labels, ignored)?)];
        for loss in losses {
            let x = logits::<4>(3);
            let loss = loss(x.leaky_trace(), &[99; 3], 99).unwrap();
            assert_eq!(loss.array(), 0.0);
            assert_eq!(loss.backward().get(&x).as_vec(), [0.0; 12]);
        }
    }

    // Fails if the maximum is not subtracted first.
    #[test]
    fn logits_far_apart() {
        let dev = Cpu::default();
        let x = dev.tensor_from_vec(vec![-1e4f32, 1e4], (1, Const::<2>));
        let loss = Cpu::try_cross_entropy(x.leaky_trace(), &[0], 9).unwrap();
        assert_eq!(loss.array(), 2e4);
        assert_eq!(loss.backward().get(&x).as_vec(), [-1.0, 1.0]);
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        same_for_any_threads(|| {
            run::<37>(301, |x, labels| Cpu::try_cross_entropy(x, labels, IGNORED).unwrap())
        });
    }

    #[test]
    fn labels_that_do_not_fit_are_errors() {
        for (labels, expected) in [
            (&[0, 1][..], Misfit::Labels { labels: 2, rows: 3 }),
            (&[0, 1, 4], Misfit::Label { label: 4, classes: 4 }),
        ] {
            let loss = Cpu::try_cross_entropy(logits::<4>(3), labels, IGNORED);
            assert!(matches!(loss, Err(LayerError::Shape { misfit, .. }) if misfit == expected));
        }
    }

    // Two losses of the same logits. Fails if a gradient is overwritten.
    #[test]
    fn gradients_accumulate() {
        let x = logits::<4>(3);
        let twice = |loss: &dyn Fn(Logits<4>, &[usize]) -> Loss| {
            let (first, second) =
                (loss(x.leaky_trace(), &[0, 2, 3]), loss(x.leaky_trace(), &[1, 1, 0]));
            vec![(first + second).backward().get(&x).as_vec()]
        };
        all_close(
            &twice(&|x, labels| Cpu::try_cross_entropy(x, labels, IGNORED).unwrap()),
            &twice(&|x, labels| composed(x, labels, IGNORED).unwrap()),
        );
    }
}
