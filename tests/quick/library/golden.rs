//! Trajectories of a PyTorch reference in f64: every step's loss, rates and weights.
//!
//! All 29 live outside the repository; `tests/golden/trajectories.json` holds six of them, whole.

use dfdx::{optim::*, prelude::*};
use serde::Deserialize;
use std::{ops::Range, path::Path};
use support::{
    nested::Nested,
    optimizers::TorchRmsprop,
    oracle::Windows,
    quadratic::Quadratic,
    values::{gradients, largest, largest_error, set_weights, weights},
};
use tlr::{
    engine::{NewtonForm, RateRule},
    layers::TrainableLr,
    Family, Newton, NewtonConfig, PerLayer, Trainer, TunableOptimizer, Window,
};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/trajectories.json");
const ALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/trajectories.json");

/// Rates relative to themselves, weights to the largest of them at that step, losses to the sum of
/// the magnitudes of their terms. The figures have 15 digits; measured: 2.4e-10 on the case that
/// diverges on purpose, whose 24 steps blow up rounding along with the weights, 3e-12 on the
/// others.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    rule: String,
    problem: Problem,
    optimizer: String,
    hyperparameters: Hyperparameters,
    #[serde(rename = "K")]
    window: usize,
    gamma: f64,
    max_factor: f64,
    mode: String,
    params0: Vec<Nested>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Problem {
    Quadratic {
        #[serde(rename = "H")]
        hessian: Vec<Vec<f64>>,
        b: Vec<f64>,
    },
    TanhMlpMse {
        #[serde(rename = "X")]
        inputs: Vec<[f64; 3]>,
        #[serde(rename = "Y")]
        targets: Vec<[f64; 1]>,
    },
}

#[derive(Deserialize)]
struct Hyperparameters {
    lr: f64,
    momentum: Option<f64>,
    #[serde(default)]
    nesterov: bool,
    weight_decay: Option<f64>,
    alpha: Option<f64>,
}

/// The loss before a step; the rates and weights after it.
#[derive(Clone, Debug, Deserialize)]
struct Step {
    loss: f64,
    lr: Vec<f64>,
    w: Vec<f64>,
}

impl Case {
    fn form(&self) -> NewtonForm {
        match &*self.rule {
            "paper" => NewtonForm::Paper,
            "aligned" => NewtonForm::Aligned,
            other => panic!("a rule called {other}"),
        }
    }

    fn per_layer(&self) -> bool {
        self.mode == "per_layer"
    }

    fn config(&self) -> NewtonConfig {
        NewtonConfig::default()
            .ramp(false)
            .settle(false)
            .climb(None)
            .form(self.form())
            .damping(self.gamma)
            .max_factor(self.max_factor)
            .window(Window::steps(self.window).unwrap())
            .safeguard(None)
    }

    fn weights0(&self) -> Vec<f64> {
        self.params0.iter().flat_map(Nested::flatten).collect()
    }

    fn sgd(&self) -> SgdConfig {
        let Hyperparameters { lr, momentum, nesterov, weight_decay, .. } = self.hyperparameters;
        SgdConfig {
            lr,
            momentum: momentum.map(if nesterov { Momentum::Nesterov } else { Momentum::Classic }),
            weight_decay: weight_decay.map(WeightDecay::L2),
        }
    }

    /// The reference's figures, or ours for the same case, from PyTorch's optimizer or its equal.
    fn follow(&self) -> Vec<Step> {
        match &self.problem {
            Problem::Quadratic { hessian, b } => {
                let quadratic = Quadratic { hessian: hessian.clone(), linear: b.clone() };
                let mut model: Tensor<Rank1<6>, f64, Cpu> = Cpu::default().zeros();
                set_weights(&mut model, &self.weights0());
                self.follow_on(model, |model| {
                    let w = weights(model);
                    (quadratic.loss(&w), gradients(model, &quadratic.gradient(&w)))
                })
            }
            Problem::TanhMlpMse { inputs, targets } => {
                self.follow_on(self.mlp(), |mlp| mse_and_gradients(mlp, inputs, targets))
            }
        }
    }

    fn follow_on<M: TrainableLr<f64, Cpu>>(
        &self,
        model: M,
        problem: impl Fn(&M) -> (f64, Gradients<f64, Cpu>),
    ) -> Vec<Step> {
        let lr = self.hyperparameters.lr;
        match &*self.optimizer {
            "SGD" => {
                let sgd = Sgd::new(&model, self.sgd());
                self.follow_with(model, sgd, problem)
            }
            "Adam" => {
                let adam = Adam::new(&model, AdamConfig { lr, ..Default::default() });
                self.follow_with(model, adam, problem)
            }
            // dfdx's differs: see `dfdx_rmsprop_by_hand`.
            "RMSprop" => {
                let alpha = self.hyperparameters.alpha.unwrap();
                self.follow_with(model, TorchRmsprop::new(lr, alpha), problem)
            }
            other => panic!("an optimizer called {other}"),
        }
    }

    fn follow_with<M, F>(
        &self,
        model: M,
        optimizer: F,
        problem: impl Fn(&M) -> (f64, Gradients<f64, Cpu>),
    ) -> Vec<Step>
    where
        M: TrainableLr<f64, Cpu>,
        F: Family<Model = M, Dtype = f64, Device = Cpu>,
    {
        if self.per_layer() {
            let per_layer = PerLayer::new(&model, optimizer);
            let newton = Newton::new(&model, per_layer, self.config()).unwrap();
            drive(model, newton, self.steps.len(), problem)
        } else {
            let newton = Newton::new(&model, optimizer, self.config()).unwrap();
            drive(model, newton, self.steps.len(), problem)
        }
    }

    fn mlp(&self) -> Mlp {
        let mut mlp = Cpu::default().build_module::<builders::Mlp, f64>();
        set_weights(&mut mlp, &self.weights0());
        mlp
    }
}

mod builders {
    use dfdx::nn::builders::*;
    pub(crate) type Mlp = (Linear<3, 5>, Tanh, Linear<5, 1>);
}

type Mlp = (modules::Linear<3, 5, f64, Cpu>, Tanh, modules::Linear<5, 1, f64, Cpu>);

/// The weights of an [`Mlp`]'s two layers in the reference's order, which is dfdx's.
const LAYERS: [Range<usize>; 2] = [0..20, 20..26];
const ALL_LAYERS: Range<usize> = 0..26;

fn mse_and_gradients(
    mlp: &Mlp,
    inputs: &[[f64; 3]],
    targets: &[[f64; 1]],
) -> (f64, Gradients<f64, Cpu>) {
    let dev = Cpu::default();
    let x = dev.tensor_from_vec(inputs.concat(), (inputs.len(), Const::<3>));
    let y = dev.tensor_from_vec(targets.concat(), (targets.len(), Const::<1>));
    let loss = mse_loss(mlp.forward(x.traced(Gradients::leaky())), y);
    (loss.array(), loss.backward())
}

fn drive<M, Opt, R>(
    mut model: M,
    mut optimizer: Trainer<Opt, R>,
    steps: usize,
    problem: impl Fn(&M) -> (f64, Gradients<f64, Cpu>),
) -> Vec<Step>
where
    Opt: TunableOptimizer<Model = M, Dtype = f64, Device = Cpu>,
    M: TensorCollection<f64, Cpu> + Clone,
    R: RateRule,
{
    (0..steps)
        .map(|_| {
            let (loss, gradients) = problem(&model);
            optimizer.step(&mut model, &gradients, loss).unwrap();
            let lr = optimizer.rates().into_iter().map(|(_, rate)| rate).collect();
            Step { loss, lr, w: weights(&model) }
        })
        .collect()
}

/// The largest error of each step: of the loss, the rates, the weights.
fn errors(case: &Case, ours: &[Step], theirs: &[Step]) -> Vec<[f64; 3]> {
    assert_eq!(ours.len(), theirs.len(), "{}", case.name);
    let mut before = case.weights0();
    ours.iter()
        .zip(theirs)
        .map(|(ours, theirs)| {
            let loss_scale = case.loss_scale(&before).max(theirs.loss.abs());
            before.clone_from(&theirs.w);
            // A single rate stands once for every group in the reference.
            let rates = theirs.lr.iter().zip(ours.lr.iter().cycle());
            [
                (ours.loss - theirs.loss).abs() / loss_scale,
                largest(rates.map(|(theirs, ours)| (ours / theirs - 1.0).abs())),
                largest_error(&ours.w, &theirs.w) / largest(theirs.w.iter().map(|w| w.abs())),
            ]
        })
        .collect()
}

impl Case {
    /// ½|w|ᵀ|H||w| + |b|ᵀ|w| for a quadratic, whose loss crosses zero; a mean of squares cannot
    /// cancel.
    fn loss_scale(&self, w: &[f64]) -> f64 {
        match &self.problem {
            Problem::Quadratic { hessian, b } => {
                let magnitudes = |v: &[f64]| v.iter().map(|x| x.abs()).collect::<Vec<_>>();
                let quadratic = Quadratic {
                    hessian: hessian.iter().map(|row| magnitudes(row)).collect(),
                    linear: b.iter().map(|b| -b.abs()).collect(),
                };
                quadratic.loss(&magnitudes(w))
            }
            Problem::TanhMlpMse { .. } => 0.0,
        }
    }
}

fn load(path: &str) -> Option<Vec<Case>> {
    if !Path::new(path).exists() {
        return None;
    }
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    Some(golden.cases)
}

fn check(cases: &[Case]) {
    for case in cases {
        let errors = errors(case, &case.follow(), &case.steps);
        for (step, errors) in errors.iter().enumerate() {
            assert!(
                errors.iter().all(|error| *error <= TOLERANCE),
                "{}: step {}: relative errors of loss, rates, weights {errors:?}",
                case.name,
                step + 1,
            );
        }
    }
}

// Wherever it stands. Fails if a rate or a weight that is no number agrees with every figure.
#[test]
fn what_is_no_number_is_no_small_error() {
    let nan = f64::NAN;
    for errors in [[nan, 1.0, 2.0], [1.0, nan, 2.0], [1.0, 2.0, nan]] {
        assert!(largest(errors).is_nan() && largest_error(&errors, &[1.0; 3]).is_nan());
    }
    assert_eq!((largest([1.0, 3.0, 2.0]), largest([])), (3.0, 0.0));
    assert_eq!(largest_error(&[1.0, 2.0], &[3.0, 1.0]), 2.0);
}

// Fails for any change to the rule, the window or the way the base optimizer is driven.
#[test]
fn committed_trajectories() {
    let cases = load(COMMITTED).expect("tests/golden/trajectories.json is part of the repository");
    assert_eq!(cases.len(), 6);
    check(&cases);
}

#[test]
fn all_trajectories() {
    // Without them, `committed_trajectories` checks a part.
    let cases = load(ALL);
    if !support::needs::found("golden", cases.is_some()) {
        return;
    }
    let cases = cases.unwrap();
    assert_eq!(cases.len(), 29);
    check(&cases);
}

/// dfdx's RMSprop starts its average of squares at 1 and has ε under the root; PyTorch's starts at
/// 0 and adds ε to the root. So it is checked against itself, driven by hand at the rates of an
/// independent rule, and that it really differs is checked too.
#[test]
fn dfdx_rmsprop_by_hand() {
    let cases: Vec<_> = load(ALL).unwrap_or_else(rmsprop_without_figures);
    let cases: Vec<_> = cases.iter().filter(|case| case.optimizer == "RMSprop").collect();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let (inputs, targets) = match &case.problem {
            Problem::TanhMlpMse { inputs, targets } => (inputs, targets),
            Problem::Quadratic { .. } => panic!("{}: not on the network", case.name),
        };
        let problem = |mlp: &Mlp| mse_and_gradients(mlp, inputs, targets);
        let mlp = case.mlp();
        let config = case.rmsprop(case.hyperparameters.lr);
        let ours = case.follow_with(mlp.clone(), RMSprop::new(&mlp, config), problem);
        let by_hand = case.rmsprop_by_hand(problem);
        // The same kernels at rates from sums in another order, and 40 steps that oscillate.
        for (step, errors) in errors(case, &ours, &by_hand).iter().enumerate() {
            assert!(
                errors.iter().all(|error| *error <= TOLERANCE),
                "{}: step {}: {errors:?}",
                case.name,
                step + 1
            );
        }
        // √(0.1g² + ε) against √(0.9 + 0.1g² + ε) under g: PyTorch's first step is far longer.
        if let Some(theirs) = case.steps.first().filter(|theirs| !theirs.w.is_empty()) {
            let moved = |step: &Step| largest_error(&step.w, &case.weights0());
            assert!(moved(theirs) > 2.0 * moved(&ours[0]), "{}", case.name);
        }
    }
}

/// The four RMSprop cases on the committed network, without the reference's figures.
fn rmsprop_without_figures() -> Vec<Case> {
    println!("the full set is not here: dfdx's RMSprop is compared with itself only");
    let template = || {
        let cases = load(COMMITTED).unwrap();
        cases.into_iter().find(|case| case.name.starts_with("mlp")).unwrap()
    };
    [("paper", "global"), ("paper", "per_layer"), ("aligned", "global"), ("aligned", "per_layer")]
        .map(|(rule, mode)| {
            let mut case = template();
            case.optimizer = "RMSprop".into();
            case.hyperparameters = Hyperparameters {
                lr: 5e-4,
                momentum: None,
                nesterov: false,
                weight_decay: None,
                alpha: Some(0.9),
            };
            (case.rule, case.mode) = (rule.into(), mode.into());
            (case.window, case.gamma) = (5, 0.33);
            case.steps.iter_mut().for_each(|step| step.w.clear());
            case
        })
        .into()
}

impl Case {
    fn rmsprop(&self, lr: f64) -> RMSpropConfig {
        let alpha = self.hyperparameters.alpha.unwrap();
        RMSpropConfig { lr, alpha, ..Default::default() }
    }

    /// dfdx's RMSprop, one a layer or one for all, its rates set by hand before each step.
    fn rmsprop_by_hand(&self, problem: impl Fn(&Mlp) -> (f64, Gradients<f64, Cpu>)) -> Vec<Step> {
        let mut mlp = self.mlp();
        let lr = self.hyperparameters.lr;
        let all = std::slice::from_ref(&ALL_LAYERS);
        let groups = if self.per_layer() { &LAYERS } else { all };
        let rule = (self.form(), self.gamma, self.max_factor);
        let mut windows = Windows::new(rule, self.window, groups, lr, &self.weights0());
        let mut whole = RMSprop::new(&mlp, self.rmsprop(lr));
        let mut first = RMSprop::new(&mlp.0, self.rmsprop(lr));
        let mut second = RMSprop::new(&mlp.2, self.rmsprop(lr));
        (0..self.steps.len())
            .map(|_| {
                let (loss, gradients) = problem(&mlp);
                match windows.rates()[..] {
                    [lr] => {
                        whole.cfg.lr = lr;
                        whole.update(&mut mlp, &gradients).unwrap();
                    }
                    [lr_first, lr_second] => {
                        first.cfg.lr = lr_first;
                        first.update(&mut mlp.0, &gradients).unwrap();
                        second.cfg.lr = lr_second;
                        second.update(&mut mlp.2, &gradients).unwrap();
                    }
                    _ => unreachable!("one group or two"),
                }
                windows.after_step(&weights(&mlp));
                Step { loss, lr: windows.rates(), w: weights(&mlp) }
            })
            .collect()
    }
}
