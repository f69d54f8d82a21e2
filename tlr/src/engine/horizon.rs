//! A decay over the steps that are left. See [`Config::horizon`](super::Config::horizon).

/// What the rates rise to, in the rates that training starts at.
const PEAK: f64 = 1.5;
/// They rise over this part of the steps.
const RISE: f64 = 0.1;
/// They fall to 0 over this last part.
const FALL: f64 = 0.5;

/// What a horizon multiplies the rates of step `step` by, counted from step `from` on. Where noise
/// hides the slope (not `quiet`): the share of the steps that is left. Otherwise rates rise first,
/// stay, and fall to 0 in the second half.
pub(super) fn factor(horizon: u64, from: u64, step: u64, quiet: bool) -> f64 {
    let left = share_left(horizon, from, step);
    if quiet {
        let risen = 1.0 + (PEAK - 1.0) * ((1.0 - left) / RISE).min(1.0);
        risen * (left / FALL).min(1.0)
    } else {
        left
    }
}

/// The share of the steps from `from` to `horizon` that is left before step `step`: from 1 evenly
/// down, and from the horizon on what it was in the last step before it.
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
        let noisy = |horizon, from, step| factor(horizon, from, step, false);
        let shares = [20, 21, 25, 28, 29, 30, 1000].map(|step| noisy(30, 20, step));
        assert_eq!(shares, [1.0, 0.9, 0.5, 0.2, 0.1, 0.1, 0.1]);
        // A ramp that is as long as the training, or longer, and a step before its end.
        assert_eq!([noisy(20, 20, 25), noisy(20, 30, 40)], [1.0, 1.0]);
        assert_eq!(noisy(30, 20, 0), 1.0);
    }

    // By hand, of 20 steps. Fails with another peak, and where the rise or the fall is longer.
    #[test]
    fn up_along_and_down() {
        let quiet = |step| factor(120, 100, step, true);
        let factors = [100, 101, 102, 105, 110, 115, 119, 120].map(quiet);
        let expected = [1.0, 1.25, 1.5, 1.5, 1.5, 0.75, 0.15, 0.15];
        for (factor, expected) in factors.into_iter().zip(expected) {
            assert!((factor - expected).abs() < 1e-12, "{factors:?}");
        }
    }
}
