//! Which runs a sweep has.

use crate::train::{Base, Mode, Options, Rule, ScheduleKind};
use std::collections::HashSet;

/// The runs of a sweep: every combination of what the fields list.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Base optimizers.
    pub optimizers: Vec<Base>,
    /// One rate or one a layer.
    pub modes: Vec<Mode>,
    /// The rules by which the rate moves.
    pub rules: Vec<Rule>,
    /// Starting rates.
    pub rates: Vec<f64>,
    /// How many images a batch has.
    pub batch_sizes: Vec<usize>,
    /// p, the fraction of an epoch between two changes of the rate.
    pub window_fractions: Vec<f64>,
    /// γ, for the Newton rules.
    pub dampings: Vec<f64>,
    /// η, for the first-order rules.
    pub meta_rates: Vec<f64>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Whether windows that go wrong are undone.
    pub safeguard: bool,
    /// Passes over the training images.
    pub epochs: usize,
}

impl Grid {
    /// The runs, each once. A setting that a rule does not use stands at its default, unless it is
    /// out of range: such a run is refused by [`run`](super::run).
    ///
    /// # Example
    /// ```
    /// use tlr_models::{sweep::Grid, train::{Base, Mode, Rule}};
    ///
    /// let grid = Grid {
    ///     optimizers: vec![Base::Sgd],
    ///     modes: vec![Mode::Global, Mode::PerLayer],
    ///     rules: vec![Rule::Aligned, Rule::Constant],
    ///     rates: vec![1e-1, 1e-6],
    ///     batch_sizes: vec![128],
    ///     window_fractions: vec![0.2],
    ///     dampings: vec![0.2, 0.33],
    ///     meta_rates: vec![1e-2],
    ///     seeds: vec![0],
    ///     safeguard: true,
    ///     epochs: 20,
    /// };
    /// // A constant rate knows neither layers nor damping.
    /// assert_eq!(grid.cells().len(), 2 * 2 * 2 + 2);
    /// ```
    pub fn cells(&self) -> Vec<Options> {
        let mut cells = Vec::new();
        let mut seen = HashSet::new();
        let mut add = |options: Options| {
            let options = canonical(options);
            if seen.insert(key(&options)) {
                cells.push(options);
            }
        };
        // The seed is outermost: a sweep that is stopped early has whole grids.
        for &seed in &self.seeds {
            for &optimizer in &self.optimizers {
                for &mode in &self.modes {
                    for &rule in &self.rules {
                        for &meta_rate in &self.meta_rates {
                            for &window_fraction in &self.window_fractions {
                                for &damping in &self.dampings {
                                    for &batch_size in &self.batch_sizes {
                                        for &rate in &self.rates {
                                            add(Options {
                                                optimizer,
                                                mode,
                                                rule,
                                                rate,
                                                ramp: true,
                                                batch_size,
                                                window_fraction,
                                                damping,
                                                meta_rate,
                                                weight_decay: 0.0,
                                                schedule: ScheduleKind::usual(rule),
                                                safeguard: self.safeguard,
                                                sketch: None,
                                                bf16_directions: false,
                                                epochs: self.epochs,
                                                seed,
                                            });
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        cells
    }
}

/// The options with what their rule does not use at its default. Options that no run can have stay
/// as they are, so that they are refused.
pub(super) fn canonical(options: Options) -> Options {
    if options.check_numbers().is_err() {
        return options;
    }
    let Options { ramp, damping, meta_rate, window_fraction, mode, .. } = Options::default();
    match options.rule {
        Rule::Aligned => Options { meta_rate, ..options },
        Rule::Paper => Options { meta_rate, ramp, ..options },
        Rule::Additive | Rule::Multiplicative => Options { damping, ramp, ..options },
        Rule::Constant => {
            Options { meta_rate, damping, ramp, window_fraction, mode, safeguard: false, ..options }
        }
    }
}

/// What identifies a run on the same data, as a command line.
pub(super) fn key(options: &Options) -> String {
    options.facts().with("--epochs", options.epochs).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if two runs that are the same have two names, or two that differ have one.
    #[test]
    fn what_a_rule_has_no_use_for_names_no_run() {
        let own = |rule| Options { rule, ..Options::default() };
        let is_same = |rule, other: Options| {
            key(&canonical(own(rule))) == key(&canonical(Options { rule, ..other }))
        };
        let default = Options::default();
        let changed = |rule| {
            [
                Options { ramp: false, ..default },
                Options { damping: 0.1, ..default },
                Options { meta_rate: 0.1, ..default },
                Options { window_fraction: 0.1, ..default },
                Options { mode: Mode::PerLayer, ..default },
                Options { safeguard: false, ..default },
                Options { rate: 0.1, ..default },
            ]
            .map(|other| is_same(rule, other))
        };
        let first_order = [true, true, false, false, false, false, false];
        assert_eq!(changed(Rule::Aligned), [false, false, true, false, false, false, false]);
        assert_eq!(changed(Rule::Paper), [true, false, true, false, false, false, false]);
        assert_eq!(changed(Rule::Additive), first_order);
        assert_eq!(changed(Rule::Multiplicative), first_order);
        assert_eq!(changed(Rule::Constant), [true, true, true, true, true, true, false]);
    }
}
