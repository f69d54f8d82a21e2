//! How a rate is trained.

use super::{
    rule::{HypergradientRule, NewtonForm, NewtonRule, RateRule},
    safeguard::Safeguard,
    window::Window,
};
use crate::error::Error;

/// How a rate is trained: a rule, a window, and the safeguard.
///
/// Numbers out of range are reported when an optimizer is made with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config<R> {
    pub(crate) rule: R,
    pub(crate) window: Window,
    pub(crate) batches_per_epoch: Option<usize>,
    pub(crate) memories: f64,
    pub(crate) climb: Option<f64>,
    pub(crate) safeguard: Option<Safeguard>,
    pub(crate) sketch: Option<usize>,
    pub(crate) bf16_directions: bool,
}

/// The configuration of [`Newton`](crate::Newton).
///
/// The default is the aligned rule with γ = 0.33, windows of 0.2 of an epoch, undamped while windows agree, and the
/// safeguard on.
///
/// # Example
/// ```
/// use tlr::{NewtonConfig, Window};
///
/// let ours = NewtonConfig::default().batches_per_epoch(469);
/// let papers = NewtonConfig::paper_code().batches_per_epoch(469);
/// let own = NewtonConfig::default().damping(0.5).window(Window::steps(50)?);
/// # Ok::<(), tlr::Error>(())
/// ```
pub type NewtonConfig = Config<NewtonRule>;

/// The configuration of [`Hypergradient`](crate::Hypergradient).
pub type HypergradientConfig = Config<HypergradientRule>;

impl<R: RateRule> Config<R> {
    /// Any rule and nothing beside it, windows of 0.2 of an epoch, the safeguard on.
    ///
    /// # Example
    /// ```
    /// use tlr::{engine::HypergradientRule, Config, Safeguard};
    ///
    /// let config = Config::new(HypergradientRule::additive(1e-3)).safeguard(Safeguard::default());
    /// ```
    pub fn new(rule: R) -> Self {
        Self {
            rule,
            window: Window::DEFAULT,
            batches_per_epoch: None,
            memories: 5.0,
            climb: None,
            safeguard: Some(Safeguard::default()),
            sketch: None,
            bf16_directions: false,
        }
    }

    /// The length of a window. Default: 0.2 of an epoch.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// How many optimizer steps an epoch has, for a window that is a fraction of one. Where it is not
    /// told, such a window has [`Window::UNKNOWN_EPOCH`] steps.
    pub fn batches_per_epoch(mut self, batches: usize) -> Self {
        self.batches_per_epoch = Some(batches);
        self
    }

    /// The least length of a window that is a fraction of an epoch, in memories of a base optimizer with
    /// momentum β: `memories`/(1 − β) steps, 50 by default where β = 0.9. Without momentum it has no
    /// effect. Default 5; the paper has no such limit, nor do its presets.
    ///
    /// Momentum carries each gradient over into the steps after it, also into those of the next window. Two
    /// windows in a row then agree although they share nothing but that noise: at β = 0.9 their directions
    /// have a cosine of 0.27 for windows of 23 steps and of 0.12 for windows of 50, and the rate stays up
    /// when it should sink.
    pub fn memories(mut self, memories: f64) -> Self {
        self.memories = memories;
        self
    }

    /// How well two windows in a row have to agree for the rate to climb without damping, at first: by a cosine
    /// above this, in (0, 1), or `None` for never. Default: [`NewtonConfig::CLIMB`], 0.8, for the aligned Newton
    /// rule, `None` for others.
    ///
    /// Windows that agree were made at a rate far too small, and the rule climbs slowly then: damping holds it back,
    /// and so does the noise of the gradients, which is in ⟨u₋,u₋⟩, not in ⟨u₋,u⟩, and so looks like curvature.
    /// Where they agree there is little noise to damp, so the next rate is at least
    ///
    /// - min(α₋/(1 − ρ), 100·α), ρ = ⟨u₋,u⟩/√(⟨u₋,u₋⟩·max(⟨u₋,u₋⟩, ⟨u,u⟩)),
    ///
    /// the Newton point of the window before (Eq. 8 with γ = 1), and not below α. Noise makes ρ smaller, so the
    /// point is rather too low than too high. The first windows that agree less, or the undoing of a window after
    /// others were good, end this for good: the rate has arrived. Not in the paper.
    ///
    /// A rate so small that rounding leaves every weight where it was tells nothing, and would stay for ever. Where a window has
    /// moved none, and a step of plain gradient descent at a rate of 1 would, the rate is raised a hundredfold, up to 1.
    /// This goes with the climb and does not end with it. While it lasts, so is a rate whose window has moved the weights by no more
    /// than K roundings do at random, √K·ε‖w‖/2: which way is rounding's doing, and the next window would agree with it by chance
    /// only. In half precision that is far, so it is raised by less where a hundredfold would move the weights by more than a thousandth.
    pub fn climb(mut self, cosine: impl Into<Option<f64>>) -> Self {
        self.climb = cosine.into();
        self
    }

    /// The safeguard, or `None` for none at all: then a loss or a weight that is not finite is an
    /// error, and nothing else is looked at.
    pub fn safeguard(mut self, safeguard: impl Into<Option<Safeguard>>) -> Self {
        self.safeguard = safeguard.into();
        self
    }

    /// Dot products from a count sketch of so many bins for each learned rate, instead of from snapshots: 16 bytes a
    /// bin, whatever the size of the model, in place of 8 bytes a parameter. A power of two from 64 to 2²⁴;
    /// [`SKETCH`](Self::SKETCH) bins take 256 kB. Default `None`.
    ///
    /// Every weight is added with a random sign to a random bin, and ⟨x,y⟩ is estimated by that of the bins: without bias, with a
    /// variance of at most (‖x‖²‖y‖² + ⟨x,y⟩²)/bins, so that ⟨u,u⟩ has a deviation of at most √(2/bins), 1.1 % with
    /// [`SKETCH`](Self::SKETCH), and the cosine of two directions one of some √(1/bins). At the end of a window
    /// the largest tensor is copied once, and let go of.
    ///
    /// What this gives up: there are no weights to go back to. So it goes with
    /// [`safeguard(None)`](Self::safeguard) only, a loss that is not finite is an error before anything has moved, and
    /// weights that are not finite at a window's end are an error that cannot undo them. Start from a rate that is too
    /// small rather than too large; it will grow.
    pub fn sketch(mut self, bins: impl Into<Option<usize>>) -> Self {
        self.sketch = bins.into();
        self
    }

    /// Of the second snapshot only what has moved since, in bfloat16, on the host: 6 bytes a parameter for f32 in place of 8.
    /// Default off; without effect beside a sketch.
    ///
    /// It has eight bits, so ⟨u₋,u⟩ is off by some 2⁻⁸ of ‖u₋‖‖u‖/√n; ⟨u,u⟩ is not touched. Rates have stayed within 1 % of
    /// those of two snapshots. A rollback goes to the first snapshot, which is whole; while that has not been seen to be good it goes
    /// to the second, which is then restored to 2⁻⁸ of what the last window has moved. At the end of a window all weights are
    /// read twice, first to see that they are finite: it takes up to half as long again.
    pub fn bf16_directions(mut self, on: bool) -> Self {
        self.bf16_directions = on;
        self
    }

    /// Bins for a deviation of 1.1 %: 2¹⁴.
    pub const SKETCH: usize = 1 << 14;
}

impl Default for NewtonConfig {
    fn default() -> Self {
        Self::new(NewtonRule::default()).climb(Self::CLIMB)
    }
}

impl NewtonConfig {
    /// The default of [`climb`](Config::climb).
    pub const CLIMB: f64 = 0.8;

    /// What the paper's text says: its rule, p = 0.20, γ = 0.33, no safeguard.
    ///
    /// On MNIST this destroys the network from most starting rates; the text has most likely swapped
    /// the figures of [`paper_code`](Self::paper_code). Here to compare with.
    pub fn paper_text() -> Self {
        let rule = NewtonRule::default().form(NewtonForm::Paper);
        Self::new(rule).memories(0.0).safeguard(None)
    }

    /// What the paper's own code does: its rule, p = 1/3, γ = 0.20, no safeguard.
    pub fn paper_code() -> Self {
        Self::paper_text().damping(0.20).window(Window::PAPER_CODE)
    }

    /// γ in (0, 1]. Default 0.33.
    pub fn damping(mut self, damping: f64) -> Self {
        self.rule = self.rule.damping(damping);
        self
    }

    /// The largest growth of a rate in one adaptation, above 1. Default 100.
    pub fn max_factor(mut self, max_factor: f64) -> Self {
        self.rule = self.rule.max_factor(max_factor);
        self
    }

    /// The paper's rule or the aligned one. Default aligned.
    pub fn form(mut self, form: NewtonForm) -> Self {
        self.rule = self.rule.form(form);
        self
    }
}

impl<R: RateRule> Config<R> {
    /// The number of steps in a window around an optimizer with this momentum, everything checked.
    pub(crate) fn validated_window(&self, momentum: f64) -> Result<usize, Error> {
        self.rule.validate()?;
        if let Some(safeguard) = &self.safeguard {
            safeguard.validate()?;
        }
        let memories = self.memories;
        let in_range = memories >= 0.0 && memories.is_finite();
        let (range, advice) = ("finite and at least 0", "try the default, 5");
        Error::unless_advised(in_range, "memories", range, memories, advice)?;
        if let Some(cosine) = self.climb {
            let in_range = cosine > 0.0 && cosine < 1.0;
            let advice = "try the default, 0.8, or None";
            Error::unless_advised(in_range, "climb", "in (0, 1)", cosine, advice)?;
        }
        if let Some(bins) = self.sketch {
            let in_range = bins.is_power_of_two() && (64..=1 << 24).contains(&bins);
            let range = "a power of two from 64 to 16777216";
            let advice = "try NewtonConfig::SKETCH, 16384";
            Error::unless_advised(in_range, "sketch", range, bins as f64, advice)?;
            if self.safeguard.is_some() {
                return Err(Error::SketchWithSafeguard);
            }
        }
        let window = match self.batches_per_epoch {
            Some(batches) => self.window.of_epoch(batches)?,
            None => self.window,
        };
        Ok(window.len_with_momentum(momentum, self.memories))
    }
}
