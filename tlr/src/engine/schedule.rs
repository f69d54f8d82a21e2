//! Factors on the learned rate, step by step.

use crate::error::Error;
use serde::{Serialize, Serializer};
use std::{f64::consts::PI, fmt, sync::Arc};

/// The factor s_t that the learned rate α of step t is multiplied by: the effective rate is α·s_t,
/// times the horizon's factor if there is one. (The second item of the paper's future work.)
///
/// Schedules multiply ([`times`](Self::times)) and follow each other ([`then`](Self::then)). Given
/// to `Newton::schedule`; steps are counted as by `Newton::steps`, from 0.
///
/// # Example
/// ```
/// use tlr::Schedule;
///
/// let schedule = Schedule::warm_up(100)?.then(100, Schedule::cosine(900, 0.1)?);
/// assert_eq!(schedule.factor(49), 0.5);
/// assert_eq!(schedule.factor(100), 1.0);
/// assert_eq!(schedule.factor(550), 0.55); // half way between 1 and 0.1
/// assert_eq!(schedule.factor(5000), 0.1);
/// # Ok::<(), tlr::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Schedule(Kind);

#[derive(Clone, Debug, Serialize)]
enum Kind {
    Constant,
    WarmUp { steps: u64 },
    MultiStep { milestones: Vec<u64>, factor: f64 },
    Exponential { factor: f64, steps: u64 },
    Cosine { steps: u64, floor: f64 },
    WarmRestarts { first: u64, growth: u64, floor: f64 },
    Function(Function),
    Product(Box<Kind>, Box<Kind>),
    Sequence { first: Box<Kind>, steps: u64, then: Box<Kind> },
}

#[derive(Clone)]
struct Function(Arc<dyn Fn(u64) -> f64 + Send + Sync>);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

/// Functions cannot be compared, so all of them are written alike.
impl Serialize for Function {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

fn some_steps(what: &'static str, steps: u64) -> Result<(), Error> {
    Error::unless(steps > 0, what, "at least 1", steps as f64)
}

fn fraction(what: &'static str, value: f64) -> Result<(), Error> {
    Error::unless((0.0..=1.0).contains(&value), what, "in [0, 1]", value)
}

fn positive(what: &'static str, value: f64) -> Result<(), Error> {
    Error::unless(value > 0.0 && value.is_finite(), what, "finite and above 0", value)
}

impl Schedule {
    /// The factor 1 at every step.
    ///
    /// # Example
    /// ```
    /// assert_eq!(tlr::Schedule::constant().factor(1000), 1.0);
    /// ```
    pub fn constant() -> Self {
        Self(Kind::Constant)
    }

    /// (t + 1)/`steps` for that many steps, then 1.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for no steps.
    ///
    /// # Example
    /// ```
    /// assert_eq!(tlr::Schedule::warm_up(10)?.factor(4), 0.5);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn warm_up(steps: u64) -> Result<Self, Error> {
        some_steps("schedule: steps", steps)?;
        Ok(Self(Kind::WarmUp { steps }))
    }

    /// `factor` to the power of the number of `milestones` that lie behind: at a milestone itself
    /// it counts.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a factor that is not finite and above 0.
    ///
    /// # Example
    /// ```
    /// assert_eq!(tlr::Schedule::multi_step([30, 60], 0.1)?.factor(30), 0.1);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn multi_step(milestones: impl Into<Vec<u64>>, factor: f64) -> Result<Self, Error> {
        positive("schedule: factor", factor)?;
        Ok(Self(Kind::MultiStep { milestones: milestones.into(), factor }))
    }

    /// `factor`^(t/`steps`): by `factor` every `steps` steps, evenly.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a factor that is not finite and above 0, or no steps.
    ///
    /// # Example
    /// ```
    /// assert_eq!(tlr::Schedule::exponential(0.5, 10)?.factor(20), 0.25);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn exponential(factor: f64, steps: u64) -> Result<Self, Error> {
        positive("schedule: factor", factor)?;
        some_steps("schedule: steps", steps)?;
        Ok(Self(Kind::Exponential { factor, steps }))
    }

    /// A factor that falls from 1 to `floor` along half a cosine, in `steps` steps, and stays
    /// there.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a floor outside [0, 1], or no steps.
    ///
    /// # Example
    /// ```
    /// assert_eq!(tlr::Schedule::cosine(100, 0.5)?.factor(50), 0.75);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn cosine(steps: u64, floor: f64) -> Result<Self, Error> {
        some_steps("schedule: steps", steps)?;
        fraction("schedule: floor", floor)?;
        Ok(Self(Kind::Cosine { steps, floor }))
    }

    /// The cosine again and again: the first takes `first` steps, and each of the others `growth`
    /// times as many as the one before it.
    ///
    /// At a restart a new window begins and the direction before it is dropped: it belongs to
    /// weights that had settled. Loshchilov and Hutter, *SGDR: stochastic gradient descent with
    /// warm restarts*, 2017.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a floor outside [0, 1], no steps, or a growth of 0.
    ///
    /// # Example
    /// ```
    /// let schedule = tlr::Schedule::warm_restarts(10, 2, 0.0)?;
    /// assert!(schedule.restarts_at(10) && schedule.restarts_at(30));
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn warm_restarts(first: u64, growth: u64, floor: f64) -> Result<Self, Error> {
        some_steps("schedule: first", first)?;
        some_steps("schedule: growth", growth)?;
        fraction("schedule: floor", floor)?;
        Ok(Self(Kind::WarmRestarts { first, growth, floor }))
    }

    /// Any function of the step. What is not finite or below 0 ends the step it is asked for in
    /// [`Error::ScheduleFactor`]. A checkpoint cannot distinguish functions.
    ///
    /// # Example
    /// ```
    /// let schedule = tlr::Schedule::from_fn(|step| 1.0 / (1.0 + step as f64));
    /// assert_eq!(schedule.factor(3), 0.25);
    /// ```
    pub fn from_fn(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
        Self(Kind::Function(Function(Arc::new(factor))))
    }

    /// The product of both.
    ///
    /// # Example
    /// ```
    /// use tlr::Schedule;
    ///
    /// let schedule = Schedule::warm_up(10)?.times(Schedule::exponential(0.5, 4)?);
    /// assert_eq!(schedule.factor(4), 0.5 * 0.5);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn times(self, other: Self) -> Self {
        Self(Kind::Product(Box::new(self.0), Box::new(other.0)))
    }

    /// This schedule for the first `steps` steps, and then `next` from its beginning.
    ///
    /// Example: [`Schedule`].
    pub fn then(self, steps: u64, next: Self) -> Self {
        Self(Kind::Sequence { first: Box::new(self.0), steps, then: Box::new(next.0) })
    }

    /// The factor s_t that the rate of step t is multiplied by.
    ///
    /// Example: [`Schedule`].
    pub fn factor(&self, step: u64) -> f64 {
        self.0.factor(step)
    }

    /// Whether a warm restart is at this step.
    ///
    /// Example: [`warm_restarts`](Self::warm_restarts).
    pub fn restarts_at(&self, step: u64) -> bool {
        self.0.restarts_at(step)
    }
}

impl Kind {
    fn factor(&self, step: u64) -> f64 {
        let t = step as f64;
        match self {
            Self::Constant => 1.0,
            Self::WarmUp { steps } => ((t + 1.0) / *steps as f64).min(1.0),
            Self::MultiStep { milestones, factor } => milestones
                .iter()
                .filter(|&&milestone| milestone <= step)
                .fold(1.0, |s, _| s * factor),
            Self::Exponential { factor, steps } => factor.powf(t / *steps as f64),
            Self::Cosine { steps, floor } => cosine(t / *steps as f64, *floor),
            Self::WarmRestarts { first, growth, floor } => {
                let (since, period) = last_restart(step, *first, *growth);
                cosine(since as f64 / period as f64, *floor)
            }
            Self::Function(Function(factor)) => factor(step),
            Self::Product(a, b) => a.factor(step) * b.factor(step),
            Self::Sequence { first, steps, then } => match step.checked_sub(*steps) {
                Some(step) => then.factor(step),
                None => first.factor(step),
            },
        }
    }

    fn restarts_at(&self, step: u64) -> bool {
        match self {
            Self::WarmRestarts { first, growth, .. } => {
                step > 0 && last_restart(step, *first, *growth).0 == 0
            }
            Self::Product(a, b) => a.restarts_at(step) || b.restarts_at(step),
            Self::Sequence { first, steps, then } => match step.checked_sub(*steps) {
                Some(step) => then.restarts_at(step),
                None => first.restarts_at(step),
            },
            _ => false,
        }
    }
}

/// `floor` + (1 − `floor`)·½(1 + cos πx), and `floor` beyond x = 1.
fn cosine(x: f64, floor: f64) -> f64 {
    if x >= 1.0 {
        floor
    } else {
        floor + (1.0 - floor) * 0.5 * (1.0 + (PI * x).cos())
    }
}

/// Steps since the last restart, and the length of the period they are in.
fn last_restart(step: u64, first: u64, growth: u64) -> (u64, u64) {
    if growth == 1 {
        return (step % first, first);
    }
    let (mut since, mut period) = (step, first);
    while since >= period {
        since -= period;
        period = period.saturating_mul(growth);
    }
    (since, period)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-15, "{found} {expected}");
    }

    #[test]
    fn closed_forms() {
        assert_eq!(Schedule::constant().factor(9), 1.0);
        let warm_up = Schedule::warm_up(4).unwrap();
        let found: Vec<_> = (0..6).map(|t| warm_up.factor(t)).collect();
        assert_eq!(found, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        let steps = Schedule::multi_step([3, 5], 0.5).unwrap();
        let found: Vec<_> = (0..7).map(|t| steps.factor(t)).collect();
        assert_eq!(found, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
        let decay = Schedule::exponential(0.25, 10).unwrap();
        close(decay.factor(5), 0.5);
        close(decay.factor(20), 0.0625);
        let cosine = Schedule::cosine(6, 0.2).unwrap();
        // cos 60° and cos 120° are ½ and −½.
        for (t, expected) in
            [(0, 1.0), (2, 0.2 + 0.8 * 0.75), (3, 0.6), (4, 0.4), (6, 0.2), (99, 0.2)]
        {
            close(cosine.factor(t), expected);
        }
        assert_eq!(Schedule::from_fn(|t| t as f64).factor(7), 7.0);
    }

    #[test]
    fn warm_restarts_are_cosines_that_grow() {
        let sgdr = Schedule::warm_restarts(10, 2, 0.0).unwrap();
        let restarts: Vec<u64> = (0..200).filter(|&t| sgdr.restarts_at(t)).collect();
        assert_eq!(restarts, [10, 30, 70, 150]);
        for (start, period) in [(0, 10), (10, 20), (30, 40), (70, 80)] {
            let cosine = Schedule::cosine(period, 0.0).unwrap();
            (0..period).for_each(|t| close(sgdr.factor(start + t), cosine.factor(t)));
        }
        let even = Schedule::warm_restarts(3, 1, 0.5).unwrap();
        let restarts: Vec<u64> = (0..10).filter(|&t| even.restarts_at(t)).collect();
        assert_eq!(restarts, [3, 6, 9]);
        assert_eq!((even.factor(3), even.factor(u64::MAX)), (1.0, 1.0));
    }

    #[test]
    fn products_and_sequences() {
        let (warm_up, cosine) = (Schedule::warm_up(5).unwrap(), Schedule::cosine(20, 0.0).unwrap());
        let product = warm_up.clone().times(cosine.clone());
        (0..30).for_each(|t| close(product.factor(t), warm_up.factor(t) * cosine.factor(t)));
        let sgdr = Schedule::warm_restarts(4, 1, 0.0).unwrap();
        let sequence = warm_up.clone().then(5, sgdr.clone());
        let restarts: Vec<u64> = (0..16).filter(|&t| sequence.restarts_at(t)).collect();
        assert_eq!(restarts, [9, 13]);
        assert_eq!(sequence.factor(4), 1.0);
        (0..9).for_each(|t| close(sequence.factor(5 + t), sgdr.factor(t)));
        assert!(cosine.times(sgdr).restarts_at(4));
    }

    #[test]
    fn figures_out_of_range() {
        let refused = |schedule: Result<Schedule, Error>, name: &str| {
            let error = schedule.unwrap_err();
            let expected = format!("schedule: {name}");
            assert!(matches!(error, Error::OutOfRange { what, .. } if what == expected), "{error}");
        };
        refused(Schedule::warm_up(0), "steps");
        refused(Schedule::cosine(0, 0.0), "steps");
        refused(Schedule::exponential(0.5, 0), "steps");
        refused(Schedule::warm_restarts(0, 1, 0.0), "first");
        for bad in [f64::NAN, f64::INFINITY, -0.1] {
            refused(Schedule::multi_step([1], bad), "factor");
            refused(Schedule::exponential(bad, 1), "factor");
            refused(Schedule::cosine(1, bad), "floor");
            refused(Schedule::warm_restarts(1, 1, bad), "floor");
        }
        refused(Schedule::multi_step([1], 0.0), "factor");
        refused(Schedule::warm_restarts(1, 0, 0.0), "growth");
        Schedule::cosine(1, 1.0).unwrap();
    }
}
