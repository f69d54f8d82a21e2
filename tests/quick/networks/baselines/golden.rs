//! Every step of every package.

use dfdx::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;
use support::{
    nested::Nested,
    values::{largest, largest_error, set_weights, weights},
};
use tlr::Schedule;
use tlr_models::baselines::*;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/peers.json");
const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/peers.json");

/// Of losses and rates relative to themselves, of weights to the largest of them at that step.
const TOLERANCE: f64 = 1e-8;

#[derive(Deserialize)]
struct Golden {
    problem: Problem,
    cases: Vec<Case>,
    range_test: Option<Curve>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "X")]
    inputs: Vec<[f64; 3]>,
    #[serde(rename = "Y")]
    targets: Vec<[f64; 1]>,
    params0: Vec<Nested>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    hyperparameters: Map<String, Value>,
    steps: Vec<Step>,
    /// The weights to test, after the last step.
    averaged: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    rate: Nested,
    w: Vec<f64>,
}

#[derive(Deserialize)]
struct Curve {
    rates: Vec<f64>,
    losses: Vec<f64>,
    valley: f64,
    steep: f64,
    lightning: f64,
}

mod builders {
    use dfdx::nn::builders::*;
    pub(super) type Mlp = (Linear<3, 5>, Tanh, Linear<5, 1>);
}

type Mlp = (modules::Linear<3, 5, f64, Cpu>, Tanh, modules::Linear<5, 1, f64, Cpu>);

impl Problem {
    fn model(&self) -> Mlp {
        let mut model = Cpu::default().build_module::<builders::Mlp, f64>();
        let params: Vec<_> = self.params0.iter().flat_map(Nested::flatten).collect();
        set_weights(&mut model, &params);
        model
    }

    fn loss<T: Tape<f64, Cpu>>(&self, model: &Mlp, tape: T) -> Tensor<Rank0, f64, Cpu, T>
    where
        Mlp: Module<
            Tensor<(usize, Const<3>), f64, Cpu, T>,
            Output = Tensor<(usize, Const<1>), f64, Cpu, T>,
        >,
    {
        let dev = Cpu::default();
        let x = dev.tensor_from_vec(self.inputs.concat(), (self.inputs.len(), Const::<3>));
        let y = dev.tensor_from_vec(self.targets.concat(), (self.targets.len(), Const::<1>));
        mse_loss(model.forward(x.put_tape(tape)), y)
    }
}

/// How far a rule is from the figures at each step, and from the averaged weights in the end.
fn errors<R: PeerRule>(
    case: &Case,
    problem: &Problem,
    rule: R,
    schedule: Option<Schedule>,
) -> Vec<f64> {
    let mut model = problem.model();
    let mut opt = PeerOptimizer::new(&model, rule).unwrap().schedule(schedule).unwrap();
    let far = |ours: &[f64], theirs: &[f64]| {
        assert_eq!(ours.len(), theirs.len(), "{}", case.name);
        largest_error(ours, theirs) / largest(theirs.iter().map(|value| value.abs()))
    };
    let mut errors = Vec::new();
    for step in &case.steps {
        let loss = problem.loss(&model, OwnedTape::default());
        let value = loss.array();
        let trial = &mut |model: &mut Mlp| Ok(problem.loss(model, NoneTape).array());
        opt.step_with(&mut model, &mut loss.backward(), value, trial).unwrap();
        let rates: Vec<_> = opt.rates().into_iter().map(|(_, rate)| rate).collect();
        let of_rates = rates.iter().zip(step.rate.flatten()).map(|(a, b)| (a / b - 1.0).abs());
        assert_eq!(rates.len(), step.rate.flatten().len(), "{}", case.name);
        let of_loss = (value / step.loss - 1.0).abs();
        errors.push(largest(of_rates.chain([of_loss, far(&weights(&model), &step.w)])));
    }
    if let Some(averaged) = &case.averaged {
        errors.push(far(&weights(&opt.averaged(&model).unwrap()), averaged));
    }
    errors
}

impl Case {
    /// The hyperparameter of this name, if it is there.
    fn get(&self, name: &str) -> Option<f64> {
        self.hyperparameters.get(name).and_then(Value::as_f64)
    }

    fn is(&self, name: &str) -> bool {
        self.hyperparameters.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    fn list(&self, name: &str) -> Option<Vec<f64>> {
        Some(self.hyperparameters.get(name)?.as_array()?.iter().filter_map(Value::as_f64).collect())
    }

    fn errors(&self, problem: &Problem) -> Vec<f64> {
        let get = |name: &str| self.get(name);
        let lr = get("lr").unwrap_or(1.0);
        let betas = self.list("betas").map_or([0.9, 0.999], |betas| [betas[0], betas[1]]);
        let momentum = get("momentum").unwrap_or(0.0);
        let weight_decay = get("weight_decay").unwrap_or(0.0);
        let d0 = get("d0").unwrap_or(1e-6);
        let batches = get("n_batches_per_epoch").unwrap_or(500.0) as u64;
        let growth = get("gamma").unwrap_or(2.0);
        let first = get("init_step_size").unwrap_or(1.0);
        let warmup_steps = get("warmup_steps").unwrap_or(0.0) as u64;
        let schedule = match (self.list("milestones"), get("cosine")) {
            (Some(milestones), _) => {
                let milestones: Vec<_> = milestones.into_iter().map(|step| step as u64).collect();
                Some(Schedule::multi_step(milestones, growth).unwrap())
            }
            (_, Some(steps)) => Some(Schedule::cosine(steps as u64, 0.0).unwrap()),
            _ => None,
        };
        let sgd = Sgd { lr, momentum, nesterov: self.is("nesterov"), weight_decay };
        let adam = Adam { lr, weight_decay, decoupled: self.is("decoupled"), ..Adam::default() };
        let dog = Dog {
            lr,
            reps_rel: get("reps_rel").unwrap_or(1e-6),
            eps: get("eps").unwrap_or(1e-8),
            ..Dog::default()
        };
        macro_rules! follow {
            ($rule:expr) => {
                errors(self, problem, $rule, schedule)
            };
        }
        match &*self.name {
            "sgd_multistep" | "sgd_momentum_cosine" => follow!(sgd),
            "adam" | "adamw" => follow!(adam),
            "nadamw_cosine" => follow!(NAdamW { lr, weight_decay, ..NAdamW::default() }),
            "rmsprop" => {
                let alpha = get("alpha").unwrap();
                follow!(RmsProp { lr, alpha, momentum, weight_decay, ..RmsProp::default() })
            }
            "hypergradient_additive" => {
                follow!(Hypergradient::additive(lr, get("meta").unwrap()))
            }
            "hypergradient_multiplicative" => {
                follow!(Hypergradient::multiplicative(lr, get("meta").unwrap()))
            }
            "cocob" => {
                follow!(Cocob { alpha: get("alpha").unwrap(), weight_decay, ..Cocob::default() })
            }
            "mechanic_sgd" => follow!(self.mechanic(sgd)),
            "mechanic_adam_delta" => follow!(self.mechanic(adam)),
            "momo" | "momo_bound" | "momo_star" => {
                let lower_bound = get("lower_bound").unwrap_or(0.0);
                let estimate_bound = self.is("estimate_bound");
                follow!(Momo { lr, weight_decay, lower_bound, estimate_bound, ..Momo::default() })
            }
            "momo_adam" => follow!(MomoAdam { lr, weight_decay, ..MomoAdam::default() }),
            "schedule_free_sgd" => follow!(ScheduleFreeSgd {
                lr,
                momentum,
                weight_decay,
                warmup_steps,
                r: get("r").unwrap_or(0.0),
                ..ScheduleFreeSgd::default()
            }),
            "schedule_free_adamw" => follow!(ScheduleFreeAdamW {
                lr,
                weight_decay,
                warmup_steps,
                ..ScheduleFreeAdamW::default()
            }),
            "sls_armijo" => {
                let (c, cut) = (get("c").unwrap(), get("beta_b").unwrap());
                follow!(Sls { c, cut, growth, batches, first })
            }
            "sps_smooth_iter" => {
                let bound = SpsBound::Smooth { growth, batches, first };
                follow!(Sps { c: get("c").unwrap(), bound, ..Sps::default() })
            }
            "sps_constant_max" => {
                let bound = SpsBound::Most(get("eta_max").unwrap());
                follow!(Sps { c: get("c").unwrap(), bound, ..Sps::default() })
            }
            "prodigy" | "prodigy_decoupled_wd" => follow!(Prodigy {
                lr,
                betas,
                weight_decay,
                d0,
                decoupled: !self.hyperparameters.contains_key("decouple") || self.is("decouple"),
                bias_correction: self.is("use_bias_correction"),
                safeguard_warmup: self.is("safeguard_warmup"),
                ..Prodigy::default()
            }),
            "dadapt_sgd" => follow!(DAdaptSgd { lr, momentum, d0, ..DAdaptSgd::default() }),
            "dadapt_adam" => follow!(DAdaptAdam { lr, betas, d0, ..DAdaptAdam::default() }),
            "dog" => follow!(dog),
            "ldog" => follow!(Dog { layerwise: true, ..dog }),
            other => panic!("a case called {other}"),
        }
    }

    fn mechanic<B>(&self, base: B) -> Mechanic<B> {
        let (s_init, s_decay) = (self.get("s_init").unwrap(), self.get("s_decay").unwrap());
        let store_delta = self.is("store_delta");
        Mechanic { s_init, s_decay, store_delta, ..Mechanic::around(base) }
    }

    /// The same case with one hyperparameter off, for each that matters.
    fn mutants(&self) -> Vec<Case> {
        // ε is lost in rounding, and schedules are whole steps.
        let names = self
            .hyperparameters
            .keys()
            .filter(|name| !["eps", "milestones", "cosine", "betas"].contains(&name.as_str()));
        let off = |name: &String| {
            let mut hyperparameters = self.hyperparameters.clone();
            let value = hyperparameters.get_mut(name)?;
            *value = match value {
                Value::Bool(on) => Value::from(!*on),
                Value::Number(number) if number.is_i64() && number.as_i64() != Some(0) => {
                    Value::from(number.as_i64()? + 1)
                }
                Value::Number(number) if number.as_f64() != Some(0.0) => {
                    Value::from(number.as_f64()? * 0.5)
                }
                _ => return None,
            };
            Some(hyperparameters)
        };
        let cases = names.filter_map(off).map(|hyperparameters| Case {
            name: self.name.clone(),
            hyperparameters,
            steps: Vec::new(),
            averaged: None,
        });
        cases.collect()
    }
}

fn load(path: &str) -> Option<Golden> {
    if !Path::new(path).exists() {
        return None;
    }
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

fn check(golden: &Golden) {
    for case in &golden.cases {
        let errors = case.errors(&golden.problem);
        let worst = largest(errors.iter().copied());
        println!("{:32} {worst:.1e}", case.name);
        for (step, error) in errors.iter().enumerate() {
            assert!(*error <= TOLERANCE, "{}: step {}: {error:.3e}", case.name, step + 1);
        }
    }
}

/// A rule that ignored a setting, or took it otherwise, would not notice that it is off.
fn check_mutants(golden: &Golden) {
    for case in &golden.cases {
        for mut mutant in case.mutants() {
            mutant.steps = case.steps.iter().map(Step::copy).collect();
            let worst = largest(mutant.errors(&golden.problem));
            let settings = &mutant.hyperparameters;
            assert!(
                worst.is_nan() || worst > 10.0 * TOLERANCE,
                "{}: {settings:?}: {worst:.1e}",
                case.name
            );
        }
    }
}

impl Step {
    fn copy(&self) -> Self {
        let rate = Nested::Rows(self.rate.flatten().into_iter().map(Nested::Value).collect());
        Self { loss: self.loss, rate, w: self.w.clone() }
    }
}

#[test]
fn packages() {
    let golden = load(COMMITTED).expect("tests/golden/peers.json is part of the repository");
    assert_eq!(golden.cases.len(), 17);
    check(&golden);
    check_mutants(&golden);
}

#[test]
fn shared_packages() {
    let golden = load(SHARED);
    if !support::needs::found("golden", golden.is_some()) {
        return;
    }
    let golden = golden.unwrap();
    assert_eq!(golden.cases.len(), 10);
    check(&golden);
    check_mutants(&golden);
}

#[test]
fn suggestions() {
    let golden = load(COMMITTED).unwrap();
    let theirs = golden.range_test.unwrap();
    let points = theirs.rates.iter().zip(&theirs.losses);
    let curve: Vec<_> = points.map(|(&rate, &loss)| RangePoint { rate, loss }).collect();
    assert_eq!(valley(&curve), Some(theirs.valley));
    assert_eq!(steep(&curve), Some(theirs.steep));
    assert_eq!(steepest_gradient(&curve), Some(theirs.lightning));
    assert_eq!((valley(&[]), steep(&[]), steepest_gradient(&[])), (None, None, None));

    let (problem, mut model) = (&golden.problem, golden.problem.model());
    let test = RangeTest { first: 1e-5, last: 100.0, ..RangeTest::default() };
    let ours = test.run(|rate| {
        let loss = problem.loss(&model, OwnedTape::default());
        let value = loss.array();
        let mut sgd = PeerOptimizer::new(&model, Sgd { lr: rate, ..Sgd::default() })?;
        sgd.step(&mut model, &mut loss.backward(), None)?;
        Ok::<_, PeerError>(value)
    });
    let ours = ours.unwrap();
    assert_eq!(ours.len(), curve.len());
    for (ours, theirs) in ours.iter().zip(&curve) {
        assert!((ours.rate / theirs.rate - 1.0).abs() < 1e-12, "{ours:?} {theirs:?}");
        assert!((ours.loss / theirs.loss - 1.0).abs() < TOLERANCE, "{ours:?} {theirs:?}");
    }
}
