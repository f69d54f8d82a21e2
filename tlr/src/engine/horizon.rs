//! A decay over the steps that are left. See [`Config::horizon`](super::Config::horizon).

/// How rates rise over the first part of the steps. `from` and `to` are multiples of the rates that
/// the ramp has found.
pub(super) struct Rise {
    from: f64,
    to: f64,
    over: f64,
}

/// Around Adam, the ramp's rates are low, so the factor rises above 1.
const RISE_IF_LONG: Rise = Rise { from: 1.0, to: 1.5, over: 0.1 };
/// Around SGD, the ramp's rates are twice as high. A transformer may stop learning if its training
/// begins at the whole rate (docs/start.md).
const RISE_IF_FOLLOWING: Rise = Rise { from: 0.7, to: 1.0, over: 0.3 };
/// The last part of the steps, over which rates fall to 0.
const FALL: f64 = 0.3;

/// The shape of the horizon's factor. It depends on what the ramp has seen: see docs/start.md.
/// Deviation from the paper, which has no horizon.
#[derive(Clone, Copy)]
pub(super) enum HorizonShape {
    /// The factor is the share of the steps that is left. It has this shape if noise hides the
    /// slope, and without a ramp.
    Falls,
    /// The factor rises, and falls to 0 over the last part.
    RisesAndFalls(&'static Rise),
}

impl HorizonShape {
    /// The shape after a ramp: `quiet` if noise does not hide the slope, `follows` if steps are as
    /// long as the gradients.
    pub(super) fn of(quiet: bool, follows: bool) -> Self {
        match (quiet, follows) {
            (false, _) => Self::Falls,
            (true, true) => Self::RisesAndFalls(&RISE_IF_FOLLOWING),
            (true, false) => Self::RisesAndFalls(&RISE_IF_LONG),
        }
    }

    /// What the rates of step `step` are multiplied by, counted from step `from` on.
    pub(super) fn factor(self, horizon: u64, from: u64, step: u64) -> f64 {
        let left = share_left(horizon, from, step);
        match self {
            Self::Falls => left,
            Self::RisesAndFalls(rise) => {
                let risen = ((1.0 - left) / rise.over).min(1.0);
                (left / FALL).min(1.0) * (rise.from + (rise.to - rise.from) * risen)
            }
        }
    }
}

/// The share of the steps from `from` to `horizon` that is left before step `step`. It falls evenly
/// from 1. From the horizon on it stays at its value in the last step before the horizon.
fn share_left(horizon: u64, from: u64, step: u64) -> f64 {
    let all = horizon.saturating_sub(from).max(1);
    let left = horizon.saturating_sub(step).clamp(1, all);
    left as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand. Fails with another end, another beginning, or a rate of 0.
    #[test]
    fn from_all_steps_to_the_last_one() {
        let noisy = |horizon, from, step| HorizonShape::Falls.factor(horizon, from, step);
        let shares = [20, 21, 25, 28, 29, 30, 1000].map(|step| noisy(30, 20, step));
        assert_eq!(shares, [1.0, 0.9, 0.5, 0.2, 0.1, 0.1, 0.1]);
        // A ramp that is as long as the training, or longer, and a step before its end.
        assert_eq!([noisy(20, 20, 25), noisy(20, 30, 40)], [1.0, 1.0]);
        assert_eq!(noisy(30, 20, 0), 1.0);
    }

    // By hand, of 20 steps. Fails with another beginning or peak, and if the rise or the fall is
    // longer.
    #[test]
    fn up_along_and_down() {
        let steps = [100, 101, 102, 103, 106, 114, 117, 119, 120];
        let adam = [1.0, 1.25, 1.5, 1.5, 1.5, 1.5, 0.75, 0.25, 0.25];
        let sgd = [0.7, 0.75, 0.8, 0.85, 1.0, 1.0, 0.5, 1.0 / 6.0, 1.0 / 6.0];
        for (follows, expected) in [(false, adam), (true, sgd)] {
            for (step, expected) in steps.into_iter().zip(expected) {
                let factor = HorizonShape::of(true, follows).factor(120, 100, step);
                assert!((factor - expected).abs() < 1e-12, "{follows} {step}");
            }
        }
    }
}
