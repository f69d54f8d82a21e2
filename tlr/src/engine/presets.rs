//! [`NewtonConfig`] and [`HypergradientConfig`]: the configurations of the two trainers.

use super::{
    config::Config,
    rule::{HypergradientRule, NewtonForm, NewtonRule},
    window::Window,
};

/// The configuration of `Newton`.
///
/// The default is the aligned rule with γ = 0.33, windows of 0.2 of an epoch, undamped while
/// windows agree, and the safeguard on. The ramp finds the starting rates; after it a rate settles
/// (see [`settle`](Config::settle)), and grows at most fourfold from window to window.
///
/// # Example
/// ```
/// use tlr::{NewtonConfig, Window};
///
/// let ours = NewtonConfig::default().batches_per_epoch(469);
/// let papers = NewtonConfig::paper_code().batches_per_epoch(469);
/// let own = NewtonConfig::default().damping(0.5).window(Window::steps(50)?);
/// // Every setting at its default, around an optimizer without momentum:
/// let same = NewtonConfig::default()
///     .damping(0.33).max_factor(4.0).form(tlr::engine::NewtonForm::Aligned)
///     .window(Window::fraction(0.2)?).min_window_steps(20).momentum_spans(5.0)
///     .climb(0.8).ramp(true).settle(true).horizon(None)
///     .safeguard(tlr::Safeguard::default()).sketch(None).bf16_directions(false);
/// assert_eq!(same, NewtonConfig::default());
/// # Ok::<(), tlr::Error>(())
/// ```
pub type NewtonConfig = Config<NewtonRule>;

/// The configuration of `Hypergradient`.
///
/// Example: [`HypergradientRule::additive`].
pub type HypergradientConfig = Config<HypergradientRule>;

impl Default for NewtonConfig {
    fn default() -> Self {
        Self::new(NewtonRule::default()).climb(Self::CLIMB).ramp(true).settle(true)
    }
}

impl NewtonConfig {
    /// The default of [`climb`](Config::climb).
    ///
    /// Example: [`NewtonConfig`].
    pub const CLIMB: f64 = 0.8;

    /// What the paper's text says: its rule, p = 0.20, γ = 0.33, no safeguard.
    ///
    /// It is here to compare with. On MNIST it destroys the network from most starting rates. The
    /// text has most likely swapped the two figures of [`paper_code`](Self::paper_code).
    ///
    /// # Example
    /// ```
    /// use tlr::{engine::{NewtonForm, NewtonRule}, Config, NewtonConfig};
    ///
    /// let rule = NewtonRule::default().form(NewtonForm::Paper).max_factor(100.0);
    /// let text = Config::new(rule).min_window_steps(1).momentum_spans(0.0).safeguard(None);
    /// assert_eq!(NewtonConfig::paper_text(), text);
    /// ```
    pub fn paper_text() -> Self {
        let rule = NewtonRule::default().form(NewtonForm::Paper).max_factor(100.0);
        Self::new(rule).min_window_steps(1).momentum_spans(0.0).safeguard(None)
    }

    /// What the paper's own code does: its rule, p = 1/3, γ = 0.20, no safeguard.
    ///
    /// Example: [`NewtonConfig`].
    pub fn paper_code() -> Self {
        Self::paper_text().damping(0.20).window(Window::PAPER_CODE)
    }

    /// γ in (0, 1]. Default 0.33.
    ///
    /// Example: [`NewtonConfig`].
    pub fn damping(mut self, damping: f64) -> Self {
        self.rule = self.rule.damping(damping);
        self
    }

    /// The largest growth of a rate in one adaptation, above 1: [`NewtonRule::max_factor`].
    /// Default 4, in the paper's presets 100.
    ///
    /// Example: [`NewtonConfig`].
    pub fn max_factor(mut self, max_factor: f64) -> Self {
        self.rule = self.rule.max_factor(max_factor);
        self
    }

    /// The paper's rule or the aligned one. Default aligned.
    ///
    /// Example: [`NewtonConfig`].
    pub fn form(mut self, form: NewtonForm) -> Self {
        self.rule = self.rule.form(form);
        self
    }
}
