//! The measures by which runs are compared: plain functions of numbers.
//!
//! A loss or a time that was not reached is infinite.

/// The mean and the standard deviation (that of a sample), over seeds. None without a value; the
/// deviation of one value is 0.
///
/// ```
/// use tlr_models::lab::measures::spread;
///
/// assert_eq!(spread(&[1.0, 3.0]), Some((2.0, 2.0_f64.sqrt())));
/// assert_eq!(spread(&[5.0]), Some((5.0, 0.0)));
/// assert_eq!(spread(&[]), None);
/// ```
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if values.is_empty() {
        return None;
    }
    if values.len() < 2 || !mean.is_finite() {
        return Some((mean, 0.0));
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (squares / (count - 1.0)).sqrt()))
}

/// The middle value, or the mean of the two in the middle. None without a value.
///
/// ```
/// use tlr_models::lab::measures::median;
///
/// assert_eq!(median(&[3.0, f64::INFINITY, 1.0]), Some(3.0));
/// assert_eq!(median(&[4.0, 1.0]), Some(2.5));
/// ```
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(sorted.len() / 2 - 1).map(|lower| {
        if lower == &upper {
            upper
        } else {
            0.5 * (lower + upper)
        }
    })
}

/// When a curve of (time, loss) first is at `target` or below; infinite if it never is.
///
/// ```
/// use tlr_models::lab::measures::time_to;
///
/// let curve = [(0.0, 2.0), (1.0, 0.5), (2.0, 0.7), (3.0, 0.4)];
/// assert_eq!(time_to(0.5, &curve), 1.0);
/// assert_eq!(time_to(0.3, &curve), f64::INFINITY);
/// ```
pub fn time_to(target: f64, curve: &[(f64, f64)]) -> f64 {
    curve.iter().find(|(_, loss)| *loss <= target).map_or(f64::INFINITY, |(time, _)| *time)
}

/// The part of tasks whose target is reached within `tau` times the best time of anyone, as
/// AlgoPerf profiles it (Dahl et al., *Benchmarking neural network training algorithms*, 2023).
/// `times` has the competitor's own time and the best time for each task.
///
/// ```
/// use tlr_models::lab::measures::profile;
///
/// let times = [(2.0, 2.0), (3.0, 2.0), (f64::INFINITY, 2.0), (9.0, 3.0)];
/// assert_eq!([1.0, 1.5, 3.0].map(|tau| profile(&times, tau)), [0.25, 0.5, 0.75]);
/// ```
pub fn profile(times: &[(f64, f64)], tau: f64) -> f64 {
    let within = times.iter().filter(|(own, best)| own.is_finite() && *own <= tau * best).count();
    within as f64 / times.len().max(1) as f64
}

/// The largest τ of a profile, as in AlgoPerf.
pub const TAU: f64 = 4.0;

/// The area below the profile between 1 and [`TAU`], as a part of the largest that it can be.
///
/// ```
/// use tlr_models::lab::measures::profile_area;
///
/// // The best at one task, and half-way between 1 and 4 at the other.
/// assert_eq!(profile_area(&[(2.0, 2.0), (5.0, 2.0)]), (1.0 + 0.5) / 2.0);
/// assert_eq!(profile_area(&[(f64::INFINITY, 2.0)]), 0.0);
/// ```
pub fn profile_area(times: &[(f64, f64)]) -> f64 {
    let part = |(own, best): &(f64, f64)| match own / best {
        ratio if ratio.is_finite() => ((TAU - ratio.max(1.0)) / (TAU - 1.0)).max(0.0),
        _ => 0.0,
    };
    times.iter().map(part).sum::<f64>() / times.len().max(1) as f64
}

/// How much worse `loss` is than `best`, as a part of `best`: above 0 if it is worse. Infinite if
/// the loss is not finite, and −1 if only the best loss is not.
///
/// ```
/// use tlr_models::lab::measures::regret;
///
/// assert_eq!(regret(1.5, 1.0), 0.5);
/// assert_eq!(regret(0.5, 1.0), -0.5);
/// assert_eq!(regret(-1.0, -2.0), 0.5);
/// assert_eq!(regret(f64::INFINITY, 1.0), f64::INFINITY);
/// ```
pub fn regret(loss: f64, best: f64) -> f64 {
    if !loss.is_finite() {
        return f64::INFINITY;
    }
    if !best.is_finite() {
        return -1.0;
    }
    if loss == best {
        return 0.0; // also where both are 0
    }
    (loss - best) / best.abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand: 1, 2, 6 have the mean 3 and squares 4 + 1 + 9 = 14, over 2.
    #[test]
    fn a_spread_is_that_of_a_sample() {
        assert_eq!(spread(&[1.0, 2.0, 6.0]), Some((3.0, 7.0_f64.sqrt())));
        assert_eq!(spread(&[1.0, f64::INFINITY]), Some((f64::INFINITY, 0.0)));
    }

    // Fails if a loss that is 0, negative or infinite gives a regret without a meaning.
    #[test]
    fn a_regret_is_above_0_where_a_loss_is_worse() {
        let inf = f64::INFINITY;
        assert_eq!([regret(0.0, 0.0), regret(1.0, 0.0), regret(-1.0, 0.0)], [0.0, inf, -inf]);
        assert_eq!([regret(-3.0, -2.0), regret(2.0, -2.0)], [-0.5, 2.0]);
        assert_eq!([regret(inf, inf), regret(1.0, inf), regret(f64::NAN, 1.0)], [inf, -1.0, inf]);
    }

    // Fails if a run that never arrives spoils the middle of others.
    #[test]
    fn medians_stand_infinite_values() {
        let inf = f64::INFINITY;
        assert_eq!(median(&[inf, 1.0, inf]), Some(inf));
        assert_eq!(median(&[inf, inf]), Some(inf));
        assert_eq!(median(&[1.0, 2.0, 3.0, inf]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    // Fails if a task that no competitor finishes counts for those that do not.
    #[test]
    fn nobody_is_within_reach_of_infinity() {
        let inf = f64::INFINITY;
        assert_eq!(profile(&[(inf, inf), (1.0, 1.0)], 2.0), 0.5);
        assert_eq!(profile_area(&[(inf, inf), (1.0, 1.0)]), 0.5);
        assert_eq!(profile_area(&[(8.0, 1.0)]), 0.0);
        assert_eq!((profile(&[], 1.0), profile_area(&[])), (0.0, 0.0));
    }
}
