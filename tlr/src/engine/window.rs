//! The length of a window.

use crate::error::Error;

/// How many optimizer steps lie between two adaptations of the rate: K.
///
/// The paper ties K to the data: a fraction p of an epoch, K = max(1, ⌊p · batches⌋). While the
/// number of batches is not known, such a window has [`Window::UNKNOWN_EPOCH`] steps.
/// [`Config::min_window_steps`](super::Config::min_window_steps) and
/// [`Config::momentum_spans`](super::Config::momentum_spans) may make it longer: the length in
/// use is `Trainer::window`.
///
/// # Example
/// ```
/// use tlr::Window;
///
/// assert_eq!(Window::steps(10)?.len(), 10);
/// assert_eq!(Window::fraction_of_epoch(1.0 / 3.0, 469)?.len(), 156);
/// assert_eq!(Window::fraction(0.2)?.len(), Window::UNKNOWN_EPOCH);
/// # Ok::<(), tlr::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window(Length);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Length {
    Steps(usize),
    Fraction { p: f64, batches: Option<usize> },
}

impl Window {
    /// The steps of a window that is a fraction of an epoch of unknown length: 100.
    ///
    /// Example: [`Window`].
    pub const UNKNOWN_EPOCH: usize = 100;

    pub(crate) const DEFAULT: Self = Self(Length::Fraction { p: 0.20, batches: None });
    pub(crate) const PAPER_CODE: Self = Self(Length::Fraction { p: 1.0 / 3.0, batches: None });

    /// K = `steps`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for 0.
    ///
    /// # Example
    /// ```
    /// assert_eq!(tlr::Window::steps(50)?.len(), 50);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn steps(steps: usize) -> Result<Self, Error> {
        Error::unless(steps > 0, "the steps of a window", "at least 1", steps as f64)?;
        Ok(Self(Length::Steps(steps)))
    }

    /// A fraction `p` of an epoch whose length is given later, by
    /// [`Config::batches_per_epoch`](crate::engine::Config::batches_per_epoch).
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless 0 < `p` ≤ 1.
    ///
    /// # Example
    /// ```
    /// use tlr::{NewtonConfig, Window};
    ///
    /// let config = NewtonConfig::default().window(Window::fraction(0.25)?).batches_per_epoch(200);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn fraction(p: f64) -> Result<Self, Error> {
        let what = "the fraction of an epoch in a window";
        let in_range = p > 0.0 && p <= 1.0;
        Error::unless_advised(in_range, what, "in (0, 1]", p, "try the default, 0.2")?;
        Ok(Self(Length::Fraction { p, batches: None }))
    }

    /// K = max(1, ⌊`p` · `batches`⌋), `batches` being the optimizer steps of an epoch.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless 0 < `p` ≤ 1, and for no batches.
    ///
    /// # Example
    /// ```
    /// assert_eq!(tlr::Window::fraction_of_epoch(0.2, 469)?.len(), 93);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn fraction_of_epoch(p: f64, batches: usize) -> Result<Self, Error> {
        Self::fraction(p)?.of_epoch(batches)
    }

    /// The same window for an epoch of `batches`. A window given in steps stays as it is.
    pub(crate) fn of_epoch(self, batches: usize) -> Result<Self, Error> {
        let advice = "give the number of optimizer steps in an epoch";
        let what = "the batches of an epoch";
        Error::unless_advised(batches > 0, what, "at least 1", batches as f64, advice)?;
        match self.0 {
            Length::Fraction { p, .. } => Ok(Self(Length::Fraction { p, batches: Some(batches) })),
            Length::Steps(_) => Ok(self),
        }
    }

    /// K. Unless it was given in steps, it is at least `least`, and at least
    /// `momentum_spans`/(1 − `momentum`) around an optimizer with momentum.
    pub(crate) fn len_with_limits(
        &self,
        least: usize,
        momentum: f64,
        momentum_spans: f64,
    ) -> usize {
        if let Length::Steps(steps) = self.0 {
            return steps;
        }
        // Deviation from the paper, which has no least length: see `Config::min_window_steps` and
        // `Config::momentum_spans`. Without momentum there is no memory to wait for.
        let momentum_spans = if momentum > 0.0 { momentum_spans / (1.0 - momentum) } else { 0.0 };
        // 1 − 0.9 is a little below 0.1. A quotient within rounding of a whole number is meant to
        // be that number.
        self.len().max(least).max((momentum_spans * (1.0 - 1e-12)).ceil() as usize)
    }

    /// K, the number of steps: at least 1. Before the limits of `min_window_steps` and
    /// `momentum_spans`, as said at [`Window`].
    ///
    /// Example: [`Window`].
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        match self.0 {
            Length::Steps(steps) => steps,
            Length::Fraction { batches: None, .. } => Self::UNKNOWN_EPOCH,
            // 0.29 · 100 is 28.999…. A product within rounding of a whole number is meant to be
            // that number.
            Length::Fraction { p, batches: Some(batches) } => {
                let steps = p * batches as f64;
                ((steps * (1.0 + 1e-12)).floor() as usize).max(1)
            }
        }
    }
}
