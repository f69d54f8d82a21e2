//! Exact steps that are not made: what the base optimizer had accumulated before is there again.

use dfdx::{
    optim::{AdamConfig, Momentum, SgdConfig},
    prelude::*,
};
use std::panic::{catch_unwind, AssertUnwindSafe};
use support::values::{bits, gradients};
use tlr::{
    optim::{Accumulate, Adam, Clip, Resumable, Sgd},
    parallel::{Alone, Ranks},
    DataParallel, Error, LineSearch, Newton, NewtonConfig, PerLayer, Step, TunableOptimizer,
    Window,
};

type Net = <(Linear<2, 3>, Tanh, Linear<3, 1>) as BuildOnDevice<Cpu, f64>>::Built;
type Here = Gradients<f64, Cpu>;
const WEIGHTS: usize = 13;

fn sgd(model: &Net) -> Sgd<Net, f64, Cpu> {
    let momentum = Some(Momentum::Classic(0.9));
    Sgd::new(model, SgdConfig { lr: 1e-3, momentum, ..Default::default() })
}

fn adam(model: &Net) -> Adam<Net, f64, Cpu> {
    Adam::new(model, AdamConfig { lr: 1e-3, ..Default::default() })
}

fn trained<Opt>(make: impl Fn(&Net) -> Opt) -> (Net, Newton<Opt>)
where
    Opt: TunableOptimizer<Model = Net, Dtype = f64, Device = Cpu>,
{
    let mut model = Cpu::seed_from_u64(1).build_module::<(Linear<2, 3>, Tanh, Linear<3, 1>), f64>();
    let config = NewtonConfig::default().window(Window::steps(50).unwrap()).ramp(false);
    let mut newton = Newton::new(&model, make(&model), config).unwrap();
    // An odd number: where two batches make a step, one is gathered.
    for _ in 0..3 {
        let here = gradients(&model, &[1.0; WEIGHTS]);
        newton.step(&mut model, &here, 1.0).unwrap();
    }
    (model, newton)
}

/// Fails if an exact step that is not made changes what `make` has accumulated, in one of the ways
/// in which it can fail.
fn keeps<Opt>(name: &str, make: impl Fn(&Net) -> Opt)
where
    Opt: Resumable<Model = Net, Dtype = f64, Device = Cpu>,
{
    let (mut model, mut newton) = trained(make);
    let here = gradients(&model, &[1.0; WEIGHTS]);
    let before = (newton.checkpoint(&model).unwrap(), bits(&model));
    let check = |way: &str, newton: &Newton<Opt>, model: &Net| {
        let after = (newton.checkpoint(model).unwrap(), bits(model));
        assert!(after == before, "{name}, {way}");
    };

    let lacking = newton.step_lookahead(&mut model, &here, |_| Gradients::leaky());
    assert!(matches!(lacking, Err(Error::UnusedParameters { .. })), "{lacking:?}");
    check("a gradient is missing ahead", &newton, &model);

    let infinite = gradients(&model, &[f64::INFINITY; WEIGHTS]);
    let not_finite = newton.step_lookahead(&mut model, &infinite, |_| here.clone());
    assert!(matches!(not_finite, Err(Error::NonFiniteStep { .. })), "{name}: {not_finite:?}");
    check("not finite", &newton, &model);

    let search = LineSearch::default().max_trials(3);
    let higher = |_: &mut Net| (2.0, here.clone());
    let uphill = newton.step_line_search(&mut model, &here, 1.0, search, higher);
    assert!(matches!(uphill, Err(Error::NoDescent { .. })), "{uphill:?}");
    check("uphill", &newton, &model);

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        newton.step_lookahead(&mut model, &here, |_| -> Here { panic!("the closure") })
    }));
    assert!(panicked.is_err());
    check("a panic", &newton, &model);

    // The same step, by a closure that does not fail, is made as if nothing had been.
    let made = newton.step_lookahead(&mut model, &here, |_| here.clone());
    assert!(matches!(made, Ok(Step::WindowEnded { .. })), "{made:?}");
}

#[test]
fn what_was_accumulated_before_is_there_again() {
    keeps("momentum", sgd);
    keeps("moments", adam);
    keeps("clipped", |model| Clip::by_norm(adam(model), 1e9).unwrap());
    keeps("gathered", |model| Accumulate::new(sgd(model), 2).unwrap());
    keeps("layers", |model| PerLayer::new(model, adam(model)));
    keeps("gathered by layers", |model| {
        PerLayer::new(model, Accumulate::new(sgd(model), 2).unwrap())
    });
    keeps("ranks", |model| DataParallel::new(adam(model), Ranks::new(Alone)));
}

/// dfdx's optimizers keep no copy, so one that has seen a step which is not made begins anew. Fails
/// if its momentum is that of such a step.
#[test]
fn without_a_copy_it_is_reset() {
    let momentum = Some(Momentum::Classic(0.9));
    let config = SgdConfig { lr: 1e-3, momentum, ..Default::default() };
    let make = |model: &Net| dfdx::optim::Sgd::new(model, config);
    let (mut model, mut newton) = trained(make);
    let here = gradients(&model, &[1.0; WEIGHTS]);
    newton.step_lookahead(&mut model, &here, |_| Gradients::leaky()).unwrap_err();
    let mut other = model.clone();
    let mut fresh = newton.optimizer().clone();
    fresh.reset(&other);
    newton.step(&mut model, &here, 1.0).unwrap();
    dfdx::optim::Optimizer::update(&mut fresh, &mut other, &here).unwrap();
    assert_eq!(bits(&model), bits(&other));
}
