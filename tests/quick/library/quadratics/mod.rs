//! Quadratics ½wᵀHw − bᵀw, where every derivative of the rule is known in closed form.
//!
//! Property tests run a fixed seed: the same cases every time.

mod exact;
mod layers;
mod memory;
mod rules;
mod windows;

use dfdx::{optim::*, prelude::*};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestCaseResult, TestRunner},
};
use std::cell::Cell;
use support::{
    quadratic::{Quadratic, Random},
    values::{gradients, weights, Vector},
};
use tlr::{
    engine::{NewtonForm, RateRule},
    NewtonConfig, Step, Trainer, TunableOptimizer, Window,
};

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x7a11),
        ..ProptestConfig::default()
    })
}

fn run<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> TestCaseResult) {
    runner(cases).run(&strategy, test).unwrap();
}

/// How the eigenvalues of H are drawn.
#[derive(Clone, Copy, Debug)]
enum Spectrum {
    Definite,
    Indefinite,
    /// Every other eigenvalue is 0.
    Singular,
    Negative,
}

fn spectra() -> impl Strategy<Value = Spectrum> {
    use Spectrum::{Definite, Indefinite, Negative, Singular};
    prop::sample::select(vec![Definite, Definite, Indefinite, Singular, Negative])
}

fn quadratic(n: usize, spectrum: Spectrum, random: &mut Random) -> Quadratic {
    let eigenvalues: Vec<f64> = (0..n)
        .map(|index| {
            let magnitude = 10.0_f64.powf(random.uniform()); // 0.1 to 10
            match spectrum {
                Spectrum::Singular if index % 2 == 1 => 0.0,
                Spectrum::Definite | Spectrum::Singular => magnitude,
                Spectrum::Indefinite if index % 2 == 1 => -magnitude,
                Spectrum::Indefinite => magnitude,
                Spectrum::Negative => -magnitude,
            }
        })
        .collect();
    Quadratic::random(&eigenvalues, random)
}

fn sgd(lr: f64) -> SgdConfig {
    SgdConfig { lr, ..Default::default() }
}

/// The rule alone, windows of `steps`.
fn config(form: NewtonForm, damping: f64, steps: usize) -> NewtonConfig {
    NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .climb(None)
        .form(form)
        .damping(damping)
        .max_factor(100.0)
        .window(Window::steps(steps).unwrap())
        .safeguard(None)
}

fn count(cell: &Cell<u32>) {
    cell.set(cell.get() + 1);
}

/// A step of plain gradient descent by the library, on the quadratic.
fn descend<const N: usize, Opt, R>(
    tlr: &mut Trainer<Opt, R>,
    model: &mut Vector<N>,
    quadratic: &Quadratic,
) -> Result<Step, tlr::Error>
where
    Opt: TunableOptimizer<Model = Vector<N>, Dtype = f64, Device = Cpu>
        + Optimizer<Vector<N>, Cpu, f64>,
    R: RateRule,
{
    let here = gradients(model, &quadratic.gradient(&weights(model)));
    tlr.update(model, &here)
}
