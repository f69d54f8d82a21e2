//! A decay over the steps that are left. See [`Config::horizon`](super::Config::horizon).

/// The share of the steps from `from` to `horizon` that is left before step `step`: from 1 evenly
/// down, and from the horizon on what it was in the last step before it.
pub(super) fn share_left(horizon: u64, from: u64, step: u64) -> f64 {
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
        let shares = [20, 21, 25, 28, 29, 30, 1000].map(|step| share_left(30, 20, step));
        assert_eq!(shares, [1.0, 0.9, 0.5, 0.2, 0.1, 0.1, 0.1]);
        // A ramp that is as long as the training, or longer, and a step before its end.
        assert_eq!([share_left(20, 20, 25), share_left(20, 30, 40)], [1.0, 1.0]);
        assert_eq!(share_left(30, 20, 0), 1.0);
    }
}
