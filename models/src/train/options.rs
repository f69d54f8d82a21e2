use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which optimizer carries the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Plain stochastic gradient descent
    #[default]
    Sgd,
    /// With classic momentum 0.9
    Momentum,
    /// With Nesterov momentum 0.9
    Nesterov,
    /// Adam with dfdx's defaults
    Adam,
    /// RMSprop with dfdx's defaults
    Rmsprop,
}

/// One rate for the model, or one a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One rate
    #[default]
    Global,
    /// One rate a layer
    PerLayer,
}

/// How the rate moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The Newton step from the rate it belongs to
    #[default]
    Aligned,
    /// The Newton step as the paper has it (Eq. 8)
    Paper,
    /// First order: add η times the derivative
    Additive,
    /// First order: multiply by 1 + η times the cosine
    Multiplicative,
    /// The base optimizer alone
    Constant,
}

/// The name on the command line and in files.
pub fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A training run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Which optimizer carries the rate. Default plain SGD.
    pub optimizer: Base,
    /// Default one rate.
    pub mode: Mode,
    /// Default the aligned Newton rule.
    pub rule: Rule,
    /// The starting rate. Default 1e-6.
    pub rate: f64,
    /// Examples in a batch. Default 128.
    pub batch_size: usize,
    /// p, the fraction of an epoch between two adaptations. Default 0.2.
    pub window_fraction: f64,
    /// γ of the Newton rules. Default 0.33.
    pub damping: f64,
    /// η of the first-order rules. Default 0.01.
    pub meta_rate: f64,
    /// Added to the gradient as so many times the weights (L2). Default 0.
    pub weight_decay: f64,
    /// Whether windows that go wrong are undone; never with a constant rate. Default true.
    pub safeguard: bool,
    /// Passes over the training set. Default 10.
    pub epochs: usize,
    /// Of the weights and the order of the examples. Default 0.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            optimizer: Base::Sgd,
            mode: Mode::Global,
            rule: Rule::Aligned,
            rate: 1e-6,
            batch_size: 128,
            window_fraction: 0.2,
            damping: 0.33,
            meta_rate: 0.01,
            weight_decay: 0.0,
            safeguard: true,
            epochs: 10,
            seed: 0,
        }
    }
}
