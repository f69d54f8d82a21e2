//! [`Header`]: what the ranks compare at the beginning of each step.

use super::agree::odd_one_out;
use crate::engine::running_mean;

/// What a rank sends before its gradients are used. It is a few numbers: only if they differ do the
/// ranks ask each other what differs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Header {
    /// Whether the rank has no gradients, because something failed.
    pub(super) failed: bool,
    /// The flag of [`DataParallel::set_flag`](super::DataParallel::set_flag).
    pub(super) flag: bool,
    /// Whether the rank's gradients are the second set of this step, taken at other weights.
    pub(super) again: bool,
    pub(super) loss: Option<f64>,
    /// The weight of the rank's batch.
    pub(super) weight: f64,
    pub(super) steps: u64,
    /// Whether the rank is at the beginning of a window, as it is at each step without a trainer.
    pub(super) begins_window: bool,
    /// Digest of the tensors' names and shapes and of the settings.
    pub(super) setup: u64,
    /// Digest of the engine's state.
    pub(super) standing: u64,
    /// Digest of the weights at the beginning of a window, and of nothing within one.
    pub(super) weights: u64,
}

impl Header {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let flags = [self.failed, self.loss.is_some(), self.flag, self.again, self.begins_window];
        let flags = flags.into_iter().rev().fold(0, |flags, flag| flags << 1 | u64::from(flag));
        let loss = self.loss.unwrap_or_default().to_bits();
        let Self { steps, setup, standing, weights, .. } = self;
        let words = [flags, loss, self.weight.to_bits(), steps, setup, standing, weights];
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    /// Decodes a header. Missing bytes read as 0.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        let (flags, loss) = (word(), f64::from_bits(word()));
        Self {
            failed: flags & 1 != 0,
            loss: (flags & 2 != 0).then_some(loss),
            flag: flags & 4 != 0,
            again: flags & 8 != 0,
            begins_window: flags & 16 != 0,
            weight: f64::from_bits(word()),
            steps: word(),
            setup: word(),
            standing: word(),
            weights: word(),
        }
    }
}

/// What the headers of all ranks say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum HeaderCheck {
    /// The step can be made.
    Fine,
    /// The first rank that has failed.
    Failed(usize),
    /// In what the ranks differ, the first rank that differs from most, and one of the others.
    Odd(Mismatch, usize, usize),
    /// No rank has an example.
    NoExamples,
}

type Figure = fn(&Header) -> u64;

/// The part of the headers in which ranks differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mismatch {
    Setup,
    Again,
    Loss,
    Steps,
    Weights,
    Standing,
}

impl HeaderCheck {
    /// Compares all headers. The answer depends on nothing else, so it is the same on all ranks.
    pub(super) fn of(headers: &[Header]) -> Self {
        if let Some(rank) = headers.iter().position(|header| header.failed) {
            return Self::Failed(rank);
        }
        let figures: [(Mismatch, Figure); 7] = [
            // Checked before the loss: only one of the two sets of gradients may have one.
            (Mismatch::Again, |header| u64::from(header.again)),
            // Before the setup: a rank within a window leaves its engine's settings out.
            (Mismatch::Steps, |header| header.steps),
            (Mismatch::Standing, |header| u64::from(header.begins_window)),
            (Mismatch::Setup, |header| header.setup),
            (Mismatch::Loss, |header| u64::from(header.loss.is_some())),
            // Before the engines' state, which follows from the weights.
            (Mismatch::Weights, |header| header.weights),
            (Mismatch::Standing, |header| header.standing),
        ];
        for (mismatch, figure) in figures {
            let all: Vec<_> = headers.iter().map(figure).collect();
            if let Some((odd, other)) = odd_one_out(&all) {
                return Self::Odd(mismatch, odd, other);
            }
        }
        match headers.iter().all(|header| header.weight == 0.0) {
            true => Self::NoExamples,
            false => Self::Fine,
        }
    }
}

/// The mean of the ranks' losses, weighted by the weights of their batches.
pub(super) fn mean_loss(headers: &[Header]) -> Option<f64> {
    let mut some = headers.iter().filter(|header| header.weight != 0.0);
    let (_, mean) = some.try_fold((0.0, 0.0), |(weight, mean), header| {
        let weight = weight + header.weight;
        Some((weight, running_mean(mean, header.loss?, weight / header.weight)))
    })?;
    Some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            failed: false,
            flag: false,
            again: false,
            loss: Some(0.5),
            weight: 3.0,
            steps: 7,
            begins_window: false,
            setup: 11,
            standing: 13,
            weights: 17,
        }
    }

    #[test]
    fn all_of_it_arrives() {
        let failed = Header { failed: true, loss: None, ..header() };
        let flagged = Header { flag: true, ..header() };
        let again = Header { again: true, ..header() };
        for header in [header(), failed, flagged, again, Header { begins_window: true, ..again }] {
            assert_eq!(Header::from_bytes(&header.to_bytes()), header);
        }
        let nan = Header { loss: Some(f64::NAN), ..header() };
        assert!(Header::from_bytes(&nan.to_bytes()).loss.is_some_and(f64::is_nan));
    }

    #[test]
    fn the_first_difference_is_found() {
        let same = header();
        let found = |odd: Header| HeaderCheck::of(&[same, odd, same]);
        assert_eq!(found(same), HeaderCheck::Fine);
        assert_eq!(found(Header { failed: true, setup: 0, ..same }), HeaderCheck::Failed(1));
        let cases = [
            (Mismatch::Again, Header { again: true, steps: 0, loss: None, ..same }),
            (Mismatch::Steps, Header { steps: 0, setup: 0, standing: 0, ..same }),
            (Mismatch::Standing, Header { begins_window: true, setup: 0, weights: 0, ..same }),
            (Mismatch::Setup, Header { setup: 0, loss: None, ..same }),
            (Mismatch::Loss, Header { loss: None, ..same }),
            (Mismatch::Weights, Header { standing: 0, weights: 0, ..same }),
            (Mismatch::Standing, Header { standing: 0, ..same }),
        ];
        for (mismatch, odd) in cases {
            assert_eq!(found(odd), HeaderCheck::Odd(mismatch, 1, 0));
        }
        let empty = Header { weight: 0.0, ..same };
        assert_eq!(HeaderCheck::of(&[empty, empty]), HeaderCheck::NoExamples);
        assert_eq!(HeaderCheck::of(&[same, empty]), HeaderCheck::Fine);
    }

    /// Fails if the NaN of a rank without examples spoils the mean, or if weights are left out.
    #[test]
    fn losses_are_weighed() {
        let of = |loss, weight| Header { loss: Some(loss), weight, ..header() };
        assert_eq!(mean_loss(&[of(1.0, 3.0), of(5.0, 1.0)]), Some(2.0));
        assert_eq!(mean_loss(&[of(1.0, 3.0), of(f64::NAN, 0.0)]), Some(1.0));
        assert!(mean_loss(&[of(1.0, 3.0), of(f64::NAN, 1.0)]).is_some_and(f64::is_nan));
        assert_eq!(mean_loss(&[Header { loss: None, ..header() }]), None);
    }

    /// Fails if the sum of huge losses overflows, although their mean does not.
    #[test]
    fn huge_losses_have_a_mean() {
        let of = |loss, weight| Header { loss: Some(loss), weight, ..header() };
        let mean = mean_loss(&[of(1.5e308, 3.0), of(1.5e308, 1e100), of(-1.5e308, 1e100)]);
        assert!(mean.is_some_and(|mean| mean.abs() < 1e293), "{mean:?}");
        assert_eq!(mean_loss(&[of(f64::INFINITY, 1.0), of(1.0, 1.0)]), Some(f64::INFINITY));
    }
}
