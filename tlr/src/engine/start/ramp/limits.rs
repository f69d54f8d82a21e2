//! How long a ramp may measure slopes.

use super::group::MOST_STEPS_A_LOOK;

/// The steps that measure the first slope: at least this many.
pub(super) const LEAST_PROBES: u64 = 6;
/// The steps that measure the first slope: at most this many.
const MOST_PROBES: u64 = 200;
/// If the length of the training is known, at least this many probes are allowed.
const LEAST_LIMIT: u64 = 8;
/// If the length of the training is known, probes take at most one in this many of the steps that
/// are left.
const PROBES_OF: u64 = 32;
/// If the length of the training is known, at most one in this many of the steps that are left lies
/// between two looks at the slopes.
const LOOK_OF: u64 = 128;

/// The most probes. After them the slope that was measured is taken for the first slope. `horizon`
/// is the number of steps that training has left, if that is known.
pub(super) fn most_probes(horizon: Option<u64>) -> u64 {
    horizon.map_or(MOST_PROBES, |steps| (steps / PROBES_OF).clamp(LEAST_LIMIT, MOST_PROBES))
}

/// The most steps between two looks at the slopes of one rate. `horizon` is the number of steps
/// that training has left, if that is known.
pub(super) fn most_steps_a_look(horizon: Option<u64>) -> u64 {
    horizon.map_or(MOST_STEPS_A_LOOK, |steps| (steps / LOOK_OF).clamp(1, MOST_STEPS_A_LOOK))
}

/// How many gradients the direction of a normalized step averages, by the noise that is left:
/// (1+β)/(1−β). It is always less than [`MOST_STEPS_A_LOOK`], for so many say that all is noise.
pub(super) fn averaged_by_a_step(momentum: f64) -> u64 {
    let averaged = (1.0 + momentum) / (1.0 - momentum);
    // A little more, because of rounding: it is 19 for 0.9.
    (averaged + 1e-6).min(MOST_STEPS_A_LOOK as f64 - 1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand. Without a limit, a short training ends before its rate is found.
    #[test]
    fn short_trainings_are_measured_for_less_long() {
        let limits = |steps| (most_probes(steps), most_steps_a_look(steps));
        assert_eq!(limits(None), (200, 64));
        let told = [0, 80, 200, 1000, 6400, 1_000_000].map(|steps| limits(Some(steps)));
        assert_eq!(told, [(8, 1), (8, 1), (8, 1), (31, 7), (200, 50), (200, 64)]);
    }

    #[test]
    fn what_a_step_averages() {
        assert_eq!([0.0, 0.5, 0.9, 0.99].map(averaged_by_a_step), [1, 3, 19, 63]);
    }
}
