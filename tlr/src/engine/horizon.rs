//! A decay over the steps that are left. See [`Config::horizon`](super::Config::horizon).

/// The first part of the steps, over which rates rise.
const RISE: f64 = 0.1;
/// The multiple, of the rates that training starts at, to which they rise.
const PEAK: f64 = 1.5;
/// The last part of the steps, over which rates fall to 0.
const FALL: f64 = 0.3;

/// The shape of the horizon's factor. It depends on what the ramp has seen: see docs/start.md.
/// Deviation from the paper, which has no horizon.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// The factor is the share of the steps that is left. For noise that hides the slope, or
    /// without a ramp.
    Falls,
    /// The factor is 1, and falls to 0 over the last part. For steps as long as the gradients
    /// (SGD).
    Stays,
    /// As `Stays`, but the factor first rises to [`PEAK`]. For steps that stay long (Adam): there
    /// the ramp finds lower rates to start at.
    Rises,
}

impl Shape {
    /// The shape after a ramp: `quiet` if noise does not hide the slope, `follows` if steps are as
    /// long as the gradients.
    pub(super) fn of(quiet: bool, follows: bool) -> Self {
        match (quiet, follows) {
            (false, _) => Self::Falls,
            (true, true) => Self::Stays,
            (true, false) => Self::Rises,
        }
    }

    /// What the rates of step `step` are multiplied by, counted from step `from` on.
    pub(super) fn factor(self, horizon: u64, from: u64, step: u64) -> f64 {
        let left = share_left(horizon, from, step);
        let fallen = (left / FALL).min(1.0);
        match self {
            Self::Falls => left,
            Self::Stays => fallen,
            Self::Rises => fallen * (1.0 + (PEAK - 1.0) * ((1.0 - left) / RISE).min(1.0)),
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
        let noisy = |horizon, from, step| Shape::Falls.factor(horizon, from, step);
        let shares = [20, 21, 25, 28, 29, 30, 1000].map(|step| noisy(30, 20, step));
        assert_eq!(shares, [1.0, 0.9, 0.5, 0.2, 0.1, 0.1, 0.1]);
        // A ramp that is as long as the training, or longer, and a step before its end.
        assert_eq!([noisy(20, 20, 25), noisy(20, 30, 40)], [1.0, 1.0]);
        assert_eq!(noisy(30, 20, 0), 1.0);
    }

    // By hand, of 20 steps. Fails with another peak, and if the rise or the fall is longer.
    #[test]
    fn up_along_and_down() {
        let steps = [100, 101, 102, 105, 114, 117, 119, 120];
        let expected = [1.0, 1.25, 1.5, 1.5, 1.5, 0.75, 0.25, 0.25];
        for (step, expected) in steps.into_iter().zip(expected) {
            let factor = |shape: Shape| shape.factor(120, 100, step);
            assert!((factor(Shape::Rises) - expected).abs() < 1e-12, "{step}");
            let risen = if step < 115 { 1.0 } else { expected / 1.5 };
            assert!((factor(Shape::Stays) - risen).abs() < 1e-12, "{step}");
        }
    }
}
