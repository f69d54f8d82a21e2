//! What is likely to be wrong where a loss is far too high or not finite, by the flags of the
//! examples.

use super::{Options, Rule, TrainError};
use crate::report::{count, number};
use tlr::engine::RATES;

/// An error of a run in the words of one who gave the run its `options` as flags: what was seen,
/// and what is likely to be the cause.
///
/// # Example
/// ```
/// use tlr_models::train::{explained, Options, Rule, TrainError};
///
/// let options = Options { rule: Rule::Constant, rate: 1000.0, ..Options::default() };
/// let error = TrainError::from(tlr::Error::NonFiniteLoss { step: 9, loss: f64::NAN });
/// assert_eq!(
///     explained(&options, &error),
///     "the loss is NaN at step 9; most likely a constant --rate of 1000 is too large",
/// );
/// ```
pub fn explained(options: &Options, error: &TrainError) -> String {
    match error {
        TrainError::Rate(error) => of_rate(options, error),
        error => error.to_string(),
    }
}

fn of_rate(options: &Options, error: &tlr::Error) -> String {
    match error {
        tlr::Error::WindowEnd(error) => of_rate(options, error),
        tlr::Error::Rate { rate, .. } if rate.to_bits() == options.rate.to_bits() => {
            let rate = number(*rate);
            let (least, most) = (number(*RATES.start()), number(*RATES.end()));
            format!(
                "--rate is the starting learning rate and must be in [{least}, {most}], not {rate}"
            )
        }
        // No step was made before it.
        tlr::Error::NonFiniteLoss { step: ..=1, loss } => format!(
            "the loss is {loss} at step 1; most likely the data holds values that are not finite"
        ),
        tlr::Error::NonFiniteLoss { step, loss } => {
            format!("the loss is {loss} at step {step}; {}", too_large(options))
        }
        tlr::Error::NonFiniteWeights { .. }
        | tlr::Error::NonFiniteStep { .. }
        | tlr::Error::LostWeights { .. } => format!("{error}; {}", too_large(options)),
        tlr::Error::TooManyRollbacks { count: undone, step, cause } => format!(
            "{} in a row undone, the last at step {step} because {cause}; {}",
            count(*undone, "window"),
            too_large(options)
        ),
        error => error.to_string(),
    }
}

/// The cause where the loss rose far above that of the start, or was not finite.
pub(super) fn too_large(options: &Options) -> String {
    let (rate, decay) = (number(options.rate), decay(options));
    match options.rule {
        Rule::Constant => format!("most likely a constant --rate of {rate} is too large{decay}"),
        Rule::Additive | Rule::Multiplicative => {
            let eta = number(options.meta_rate);
            format!("most likely a --meta-rate of {eta} does not suit a --rate of {rate}{decay}")
        }
        Rule::Paper => format!(
            "most likely a --rate of {rate} is too large for the paper's rule{decay}: try --rule \
             aligned"
        ),
        Rule::Aligned if !options.ramp => format!(
            "most likely a --rate of {rate} is far too large to start from{decay}; without \
             --no-ramp a better one is found at once"
        ),
        Rule::Aligned => format!(
            "most likely the data is broken (values that are not finite, wrong labels){decay}, or \
             batches of {} are too small",
            options.batch_size
        ),
    }
}

/// The decay of the weights as another cause, if there is one.
pub(super) fn decay(options: &Options) -> String {
    if options.weight_decay > 0.0 {
        format!(", or a --weight-decay of {} too large", number(options.weight_decay))
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlr::{Cause, Error};

    // Fails if an error of the library speaks of its functions to one who gave flags.
    #[test]
    fn errors_name_flags_and_no_functions() {
        let storm = || Error::TooManyRollbacks { count: 6, step: 9, cause: Cause::LossIncreased };
        let constant = Options { rule: Rule::Constant, rate: 1e3, ..Options::default() };
        let started = Options { ramp: false, rate: 1e30, ..Options::default() };
        let decayed = Options { weight_decay: 3e38, ..Options::default() };
        let nan = |step| Error::NonFiniteLoss { step, loss: f64::NAN };
        for (options, error, says) in [
            (constant, nan(9), "the loss is NaN at step 9; most likely a constant --rate of 1000 "),
            (constant, Error::NonFiniteLoss { step: 9, loss: f64::INFINITY }, "the loss is inf at"),
            (constant, nan(1), "at step 1; most likely the data holds values that are not finite"),
            (started, storm(), "a --rate of 1e30 is far too large to start from; without --no-"),
            (decayed, storm(), "6 windows in a row undone, the last at step 9 because "),
            (decayed, Error::WindowEnd(Box::new(storm())), "a --weight-decay of 3e38 too large"),
        ] {
            let words = explained(&options, &TrainError::Rate(error));
            assert!(words.contains(says), "{words}");
            assert!(!words.contains('`') && !words.contains("safeguard"), "{words}");
        }
        let negative = Options { rate: -1.0, ..constant };
        let rate = || Error::Rate { group: "model".to_owned(), rate: -1.0 };
        let words = explained(&negative, &rate().into());
        assert!(words.starts_with("--rate ") && words.ends_with(", not -1"), "{words}");
        let other = TrainError::NoEpochs;
        assert_eq!(explained(&constant, &other), other.to_string());
    }
}
