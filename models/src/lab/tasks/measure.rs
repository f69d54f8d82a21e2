//! How outputs are compared with targets.

use crate::{lab::Tested, train::argmax};

/// The loss by which outputs are compared with targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// The mean squared error.
    Squares,
    /// The cross entropy of logits.
    Entropy,
}

impl Measure {
    /// The mean over rows of `O` outputs, in f64.
    pub(super) fn test<const O: usize>(self, output: &[f32], due: &[f32]) -> Tested {
        let (mut sum, mut right) = (0.0, 0);
        for (output, due) in output.chunks_exact(O).zip(due.chunks_exact(O)) {
            let pairs = output.iter().zip(due).map(|(o, d)| (f64::from(*o), f64::from(*d)));
            sum += match self {
                Self::Squares => pairs.map(|(o, d)| (o - d).powi(2)).sum::<f64>() / O as f64,
                Self::Entropy => {
                    let most = pairs.clone().map(|(o, _)| o).fold(f64::NEG_INFINITY, f64::max);
                    let all: f64 = pairs.clone().map(|(o, _)| (o - most).exp()).sum();
                    pairs.map(|(o, d)| d * (all.ln() + most - o)).sum()
                }
            };
            right += usize::from(argmax(output).is_some_and(|class| Some(class) == argmax(due)));
        }
        let count = (due.len() / O).max(1) as f64;
        let accuracy = (self == Self::Entropy).then_some(right as f64 / count);
        Tested { loss: sum / count, accuracy }
    }
}

/// The rows with these numbers, as far as they exist.
pub(super) fn rows<const N: usize>(values: &[f32], numbers: &[usize]) -> Vec<f32> {
    let row = |&number: &usize| values.get(number * N..(number + 1) * N).unwrap_or_default();
    numbers.iter().flat_map(row).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if a row is not averaged over its outputs, or if the entropy is taken of another label.
    #[test]
    fn outputs_are_measured_by_rows() {
        let squares = Measure::Squares.test::<2>(&[1.0, 2.0, 0.0, 0.0], &[0.0, 0.0, 1.0, 0.0]);
        assert_eq!(squares, Tested { loss: (2.5 + 0.5) / 2.0, accuracy: None });
        let entropy = Measure::Entropy.test::<2>(&[0.0, 0.0, 3.0, 0.0], &[0.0, 1.0, 1.0, 0.0]);
        let expected = (2.0_f64.ln() + (1.0 + (-3.0_f64).exp()).ln()) / 2.0;
        assert!((entropy.loss - expected).abs() < 1e-12);
        assert_eq!(entropy.accuracy, Some(0.5));
        let nan = Measure::Entropy.test::<2>(&[f32::NAN; 2], &[1.0, 0.0]);
        assert_eq!(nan.accuracy, Some(0.0));
    }

    #[test]
    fn rows_come_as_they_are_asked_for() {
        assert_eq!(rows::<2>(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 0]), [5.0, 6.0, 1.0, 2.0]);
    }
}
