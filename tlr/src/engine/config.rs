//! [`Config`]: all settings of an engine, with defaults and ranges.

use super::{rule::RateRule, safeguard::Safeguard, window::Window};
use crate::error::Error;

/// How a rate is trained: a rule, a window, and the safeguard.
///
/// Numbers out of range are reported when a trainer or an engine is made with it.
///
/// Example: [`NewtonConfig`](super::NewtonConfig).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config<R> {
    pub(crate) rule: R,
    pub(crate) window: Window,
    pub(crate) batches_per_epoch: Option<usize>,
    pub(crate) min_window_steps: usize,
    pub(crate) momentum_spans: f64,
    pub(crate) climb: Option<f64>,
    pub(crate) ramp: bool,
    pub(crate) settle: bool,
    pub(crate) horizon: Option<u64>,
    pub(crate) safeguard: Option<Safeguard>,
    pub(crate) sketch: Option<usize>,
    pub(crate) bf16_directions: bool,
}

impl<R: RateRule> Config<R> {
    /// Any rule, with windows of 0.2 of an epoch (of at least 20 steps, and of 5/(1 − β) around
    /// momentum) and the safeguard; without ramp, climb and settling.
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
            min_window_steps: 20,
            momentum_spans: 5.0,
            climb: None,
            ramp: false,
            settle: false,
            horizon: None,
            safeguard: Some(Safeguard::default()),
            sketch: None,
            bf16_directions: false,
        }
    }

    /// A configuration with the same settings for another rule.
    ///
    /// # Example
    /// ```
    /// use tlr::{engine::HypergradientRule, NewtonConfig};
    ///
    /// // The ramp, the safeguard and all else of the default, for a rule of first order.
    /// let config = NewtonConfig::default().of_rule(HypergradientRule::multiplicative(0.1));
    /// ```
    pub fn of_rule<S>(self, rule: S) -> Config<S> {
        let Self { window, batches_per_epoch, min_window_steps, momentum_spans, .. } = self;
        let Self { climb, ramp, settle, horizon, safeguard, sketch, bf16_directions, .. } = self;
        Config {
            rule,
            window,
            batches_per_epoch,
            min_window_steps,
            momentum_spans,
            climb,
            ramp,
            settle,
            horizon,
            safeguard,
            sketch,
            bf16_directions,
        }
    }

    /// The length of a window. Default: 0.2 of an epoch.
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// The number of optimizer steps in an epoch, for a window that is a fraction of an epoch.
    /// Until this number is given, such a window has [`Window::UNKNOWN_EPOCH`] steps.
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn batches_per_epoch(mut self, batches: usize) -> Self {
        self.batches_per_epoch = Some(batches);
        self
    }

    /// The least length of a window that is a fraction of an epoch. At least 1; default 20.
    ///
    /// In a shorter window, noise moves the rate more than the loss does. With 2,000 images of
    /// MNIST, an epoch has 16 batches of 128, and a fifth of that is 3 steps: training ended at
    /// 86.4 % of the test images (seeds 0 to 2), with five rollbacks a run. With windows of 20
    /// steps it was 88.2 %, with one rollback in three runs. The paper has no such limit, and
    /// neither have its presets.
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn min_window_steps(mut self, steps: usize) -> Self {
        self.min_window_steps = steps;
        self
    }

    /// The least length of a window around an optimizer with momentum.
    ///
    /// A window that is a fraction of an epoch has at least `momentum_spans`/(1 − β) steps, where β
    /// is the base optimizer's momentum: 50 steps for β = 0.9. Without momentum, and for a window
    /// that was given in steps, this setting has no effect. Default 5. The paper has no such
    /// limit, and neither have its presets.
    ///
    /// Momentum carries each gradient over into the steps after it, and also into the next window.
    /// Two windows in a row then agree although they share nothing but noise. At β = 0.9 the cosine
    /// of their directions is 0.27 for windows of 23 steps and 0.12 for windows of 50. Such
    /// agreement would keep the rate up when it should sink.
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn momentum_spans(mut self, momentum_spans: f64) -> Self {
        self.momentum_spans = momentum_spans;
        self
    }

    /// How well two windows in a row must agree for the rate to climb without damping.
    ///
    /// The rate climbs while the cosine between the two directions is above `cosine`, a number in
    /// (0, 1). `None` means that it never climbs. Default: 0.8 for the aligned Newton rule
    /// ([`NewtonConfig::CLIMB`](super::NewtonConfig::CLIMB)), and `None` for other rules. The climb
    /// is not in the paper.
    ///
    /// **Why.** Two windows that agree were made at a rate that is far too small. The rule raises
    /// such a rate slowly, for two reasons. Damping holds it back. And the noise of the gradients
    /// is part of ⟨u₋,u₋⟩ but not of ⟨u₋,u⟩, so that it looks like curvature. If windows agree
    /// there is little noise to damp.
    ///
    /// **How.** While it climbs, the next rate is no less than the current rate α, and no less than
    ///
    /// - min(α₋/(1 − ρ), 100·α), with ρ = ⟨u₋,u⟩/√(⟨u₋,u₋⟩·max(⟨u₋,u₋⟩, ⟨u,u⟩)).
    ///
    /// This is the Newton point of the window before: Eq. 8 with γ = 1. Noise makes ρ smaller, so
    /// the point is too low rather than too high. The climb ends for good at the first pair of
    /// successive windows whose cosine is lower, or with the first rollback after a good window.
    ///
    /// **Rates lost in rounding.** A rate may be so small that every step is rounded away. Its
    /// windows show nothing, and the rule would never change it. So the climb turns two more rules
    /// on:
    ///
    /// - If a window has moved no weight of a group, and a step of plain gradient descent at a rate
    ///   of 1 would move one, the rate is raised a hundredfold, up to 1. This rule outlasts the
    ///   climb. It waits while a schedule or the horizon holds steps small on purpose.
    ///   Weights that went to and fro and are back where they were do not count, but with
    ///   [`settle`](Self::settle) off they cannot be told apart.
    /// - While the rate climbs, it is also raised if a window has moved the weights by no more than
    ///   √K·ε‖w‖/2. That is what K roundings add up to if each goes in a random direction. The rate
    ///   is raised a hundredfold, or by less if that would move the weights by more than a
    ///   thousandth of their norm, as it may in half precision.
    ///
    /// Neither raises a rate above the highest one that has moved the group in a good window, if
    /// there was one: weights that stand still after that have arrived. Nor above the bound of
    /// [`Safeguard::retry`](super::Safeguard::retry).
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn climb(mut self, cosine: impl Into<Option<f64>>) -> Self {
        self.climb = cosine.into();
        self
    }

    /// Whether to look for the starting rate, whatever rate the optimizer has.
    /// Default: on for the aligned Newton rule, off for other rules. It is not in the paper.
    ///
    /// **Why.** The best rate to start from is not known. If the rate is too small, many windows
    /// pass until the rule has raised it. If it is too large, it costs a rollback, or ruins the
    /// network.
    ///
    /// **How.** Let d be the way that the weights have gone since training began, and g the
    /// gradient of a batch that has had no part in it. The slope ⟨g,d⟩/‖d‖ says by how much the
    /// loss changes along the way. It is steepest at the beginning and 0 at the lowest point. On a
    /// quadratic it is half of the first slope half-way there.
    ///
    /// Training begins with steps that move the weights by a ten-thousandth of their norm. They
    /// measure the first slope and its noise. Then the rates grow, fourfold at first and twofold
    /// later, every step or every few steps, as the noise asks for, until the slope is half of the
    /// first one. That takes 15 to 60 steps with batches of 16 and more, and hundreds with single
    /// examples (over a thousand where their noise has heavy tails). These steps train the weights
    /// like any others, as in a warm-up. No window ends, and a schedule has no effect, until the
    /// ramp is over. If the [`horizon`](Self::horizon) is told and short, noise is measured for
    /// less long.
    ///
    /// Where the ramp ends, the base optimizer's velocity is cleared if a step is as long as the
    /// gradient (SGD with momentum): it is that of the steep beginning, and would carry the weights
    /// past the lowest point. Around a normalized optimizer (Adam) nothing is cleared.
    ///
    /// With a rate for each layer, all rates grow together, and each layer is done by its own
    /// slope. A layer whose slope is lost in noise takes the largest of the others' rates. A layer
    /// without a gradient keeps its rate, or takes that one if its own is larger; with the first
    /// window in which it has a gradient, it starts at the largest of the others' rates.
    ///
    /// If a slope is as steep up as it was down, or a loss or a weight is not finite, the weights
    /// go back to where training began, and the rates stay below what led there. No loss is needed.
    ///
    /// If you know the rate to start from, call `ramp(false)`.
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn ramp(mut self, on: bool) -> Self {
        self.ramp = on;
        self
    }

    /// Whether a rate is lowered if a window ends uphill. Default: on for the aligned Newton rule,
    /// off for other rules. It is not in the paper.
    ///
    /// **Why.** At a rate that is too large, weights jump over the lowest point and back. Steps as
    /// long as the gradients show that to the rule, for their directions turn round. Steps that
    /// stay long, as around Adam or in sign descent, only lose their direction: ⟨u₋,u⟩ is about 0,
    /// and the rule leaves the rate where it is.
    ///
    /// **How.** Before the last step of a window, let d be its way so far, and g the gradient of
    /// the batch, which has had no part in d. If cos(g,d) is above 0, the loss rises along the
    /// way, and the next rate is at most the current one times 1 − cos(g,d), or times a half.
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn settle(mut self, on: bool) -> Self {
        self.settle = on;
        self
    }

    /// How many optimizer steps training will have in all, or `None` if that is not known. Default
    /// `None`. It is not in the paper.
    ///
    /// **Why.** Noise keeps weights away from the lowest point, and a larger rate keeps them
    /// further away. A rate that suits most of the training is too large for its end.
    ///
    /// **How.** Every rate is multiplied by a factor, counted from the end of the
    /// [`ramp`](Self::ramp): it rises from 0.7 to 1 in the first three tenths of the steps, and
    /// falls evenly to 0 in the last three. Around an optimizer whose steps do not grow shorter
    /// with the gradients, such as Adam, it rises from 1 to 1.5 in the first tenth. If a single
    /// batch is too noisy to show the slope (around Adam: if (1+β₁)/(1−β₁) batches are, as many as
    /// one of its steps averages), or if there is no ramp, it falls evenly from 1 to 0 over all of
    /// the steps. The ramp measures the noise.
    ///
    /// The learned rate is the level that is multiplied. Each change of it that the rule
    /// proposes is multiplied by the factor in force, so the rule does not undo the decay. A
    /// [`Schedule`](crate::Schedule) multiplies as well.
    ///
    /// Training that goes on after the horizon goes on at the last of these rates. What this gave
    /// is in docs/start.md.
    ///
    /// # Example
    /// ```
    /// use tlr::NewtonConfig;
    ///
    /// let (epochs, batches) = (10, 469);
    /// let config = NewtonConfig::default().batches_per_epoch(batches);
    /// let config = config.horizon((epochs * batches) as u64);
    /// assert_ne!(config, config.horizon(None));
    /// ```
    pub fn horizon(mut self, steps: impl Into<Option<u64>>) -> Self {
        self.horizon = steps.into();
        self
    }

    /// The safeguard, or `None` for none at all. Default: [`Safeguard::default`].
    ///
    /// Without a safeguard, a loss or a weight that is not finite is an error, and nothing else is
    /// checked. The [`ramp`](Self::ramp) is the exception, because it has to go back: while it
    /// lasts, a batch whose gradient is not finite is left out, and weights that went too far are
    /// rolled back, by the limits of the default safeguard. Twenty such rollbacks in a row end in
    /// [`Error::TooManyRollbacks`]. `ramp(false)` turns this off too.
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn safeguard(mut self, safeguard: impl Into<Option<Safeguard>>) -> Self {
        self.safeguard = safeguard.into();
        self
    }

    /// Takes the dot products from count sketches of the weights, in place of snapshots.
    ///
    /// There is one sketch for each learned rate. A bin takes 16 bytes, whatever the size of the
    /// model; snapshots take 8 bytes a parameter. The number of bins is a power of two from 64 to
    /// 2²⁴, and [`SKETCH`](Self::SKETCH) bins take 256 kB. Default `None`: snapshots.
    ///
    /// Each weight is added to one of the bins, with a sign; both are random but fixed. The dot
    /// product ⟨x,y⟩ is then estimated by that of the bins. The estimate has no bias, and a
    /// variance of at most (‖x‖²‖y‖² + ⟨x,y⟩²)/bins. So ⟨u,u⟩ has a deviation of at most √(2/bins),
    /// which is 1.1 % with [`SKETCH`](Self::SKETCH) bins, and a cosine one of about √(1/bins). At
    /// the end of a window the largest tensor is copied for a moment.
    ///
    /// A sketch keeps no weights to go back to. So it needs [`safeguard(None)`](Self::safeguard). A
    /// loss that is not finite is an error before anything has moved. Weights that are not finite
    /// at a window's end are an error, and cannot be undone. Start from a rate that is too small
    /// rather than too large: it will grow.
    ///
    /// # Example
    /// ```
    /// use tlr::{engine::*, Error};
    ///
    /// let new = |config| {
    ///     let group = Group { name: "model".into(), fixed_rate: false, rate: 1e-6 };
    ///     let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
    ///     Engine::new(config, vec![group], facts)
    /// };
    /// let config = NewtonConfig::default().sketch(NewtonConfig::SKETCH);
    /// assert_eq!(new(config).err(), Some(Error::SketchWithSafeguard));
    /// assert!(new(config.safeguard(None)).is_ok());
    /// ```
    pub fn sketch(mut self, bins: impl Into<Option<usize>>) -> Self {
        self.sketch = bins.into();
        self
    }

    /// Keeps the last window's displacement in bfloat16, in place of the snapshot before the last.
    ///
    /// That takes 6 bytes a parameter for f32, in place of 8, and all of it is on the host. Default
    /// off. It has no effect beside a sketch.
    ///
    /// A bfloat16 has eight bits of precision. So ⟨u₋,u⟩ is off by about 2⁻⁸ of ‖u₋‖‖u‖/√n, where n
    /// is the number of weights, and ⟨u,u⟩ is not touched. In our measurements rates stayed within
    /// 1 % of those learned with two snapshots. A rollback to the last snapshot is exact; one to
    /// the snapshot before restores it to 2⁻⁸ of what the last window has moved. The end of a
    /// window reads all weights twice, first to see that they are finite, and takes up to half as
    /// long again.
    ///
    /// Example: [`NewtonConfig`](super::NewtonConfig).
    pub fn bf16_directions(mut self, on: bool) -> Self {
        self.bf16_directions = on;
        self
    }

    /// The bins of a [`sketch`](Self::sketch) whose ⟨u,u⟩ has a deviation of 1.1 %: 2¹⁴.
    ///
    /// Example: [`sketch`](Self::sketch).
    pub const SKETCH: usize = 1 << 14;
}

impl<R: RateRule> Config<R> {
    /// Checks the configuration, and answers the number of steps in a window around an optimizer
    /// with this momentum.
    pub(crate) fn validated_window(&self, momentum: f64) -> Result<usize, Error> {
        self.rule.validate()?;
        if let Some(safeguard) = &self.safeguard {
            safeguard.validate()?;
        }
        let momentum_spans = self.momentum_spans;
        let in_range = momentum_spans >= 0.0 && momentum_spans.is_finite();
        let (range, advice) = ("finite and at least 0", "try the default, 5");
        Error::unless_advised(in_range, "momentum_spans", range, momentum_spans, advice)?;
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
        if let Some(steps) = self.horizon {
            let advice = "give all steps of the training, epochs times batches, or None";
            Error::unless_advised(steps > 0, "horizon", "at least 1", steps as f64, advice)?;
        }
        let window = match self.batches_per_epoch {
            Some(batches) => self.window.of_epoch(batches)?,
            None => self.window,
        };
        let least = self.min_window_steps;
        Error::unless(least > 0, "min_window_steps", "at least 1", least as f64)?;
        Ok(window.len_with_limits(least, momentum, self.momentum_spans))
    }
}
