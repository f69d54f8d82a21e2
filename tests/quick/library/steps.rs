//! What a step answers, and that the ways to make one agree.

use dfdx::{optim::SgdConfig, prelude::*};
use support::values::{bits, gradients, vector, Vector};
use tlr::{
    engine::HypergradientRule,
    optim::{Accumulate, Clip, Sgd},
    Adaptation, Cause, Hypergradient, HypergradientConfig, KeptBecause, LineSearch, Newton,
    NewtonConfig, Outcome, Schedule, Step, TunableOptimizer, Window,
};

type Model = Vector<2>;

fn sgd(model: &Model, lr: f64) -> Sgd<Model, f64, Cpu> {
    Sgd::new(model, SgdConfig { lr, ..Default::default() })
}

fn config(steps: usize) -> NewtonConfig {
    NewtonConfig::default().ramp(false).settle(false).window(Window::steps(steps).unwrap())
}

#[test]
fn each_thing_that_can_happen_is_told() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let accumulate = Accumulate::new(sgd(&model, 0.1), 2).unwrap();
    let mut newton = Newton::new(&model, accumulate, config(2)).unwrap();
    let here = gradients(&model, &[1.0, 1.0]);
    let mut step = |loss: f64| newton.step(&mut model, &here, loss).unwrap();

    assert_eq!(step(1.0), Step::Gathered);
    assert_eq!(step(1.0), Step::Made);
    assert_eq!(step(1.0), Step::Gathered);
    let ended = step(1.0);
    let [decision] = ended.decisions() else { panic!("{ended:?}") };
    assert_eq!((decision.step, decision.outcome), (2, Outcome::WarmingUp));
    assert!(matches!(ended, Step::WindowEnded { .. }));
    assert_eq!(step(f64::NAN), Step::Skipped(Cause::NonFiniteLoss));
    let undone = step(f64::NAN);
    let Step::RolledBack { cause: Cause::NonFiniteLoss, decisions } = &undone else {
        panic!("{undone:?}");
    };
    assert_eq!(decisions[0].outcome, Outcome::RolledBack(Cause::NonFiniteLoss));
    assert_eq!(newton.history(), [ended.decisions(), undone.decisions()].concat());
}

// Fails where the velocity, the cut rates or the level of the losses survive.
#[test]
fn after_an_error_a_reset_is_the_way_on() {
    let momentum = Some(dfdx::optim::Momentum::Classic(0.9));
    let sgd = |model: &Model| Sgd::new(model, SgdConfig { lr: 0.1, momentum, weight_decay: None });
    let mut model: Model = vector(&[1.0, 2.0]);
    let mut newton = Newton::new(&model, sgd(&model), config(2)).unwrap();
    let here = gradients(&model, &[1.0, 1.0]);
    newton.step(&mut model, &here, 1.0).unwrap();
    let errors = (0..100).find_map(|_| newton.step(&mut model, &here, f64::NAN).err());
    assert!(errors.unwrap().to_string().contains("`reset`"));
    let start = bits(&model);
    newton.reset(&model).unwrap();
    let mut fresh_model = model.clone();
    let mut fresh = Newton::new(&fresh_model, sgd(&fresh_model), config(2)).unwrap();
    for _ in 0..6 {
        assert!(!matches!(newton.step(&mut model, &here, 1e9).unwrap(), Step::RolledBack { .. }));
        fresh.step(&mut fresh_model, &here, 1e9).unwrap();
        assert_eq!((bits(&model), newton.rates()), (bits(&fresh_model), fresh.rates()));
    }
    assert_ne!(bits(&model), start);
    // And the optimizer goes on without.
    let (_, rate) = newton.rates()[0];
    assert_eq!(newton.into_inner().cfg.lr, rate);
}

#[test]
fn an_exact_step_is_a_window_of_its_own() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let mut newton = Newton::new(&model, sgd(&model, 0.1), config(2)).unwrap();
    let loss = |model: &Model| model.leaky_trace().square().sum();
    let here = loss(&model).backward();
    let ahead = newton.step_lookahead(&mut model, &here, |model| loss(model).backward()).unwrap();
    let here = loss(&model);
    let value = here.array();
    let search = LineSearch::default();
    let searched = newton
        .step_line_search(&mut model, &here.backward(), value, search, |model| {
            let loss = loss(model);
            (loss.array(), loss.backward())
        })
        .unwrap();
    let told: Vec<Adaptation> = [ahead.decisions(), searched.decisions()].concat();
    assert_eq!((newton.history(), told.len()), (&told[..], 2));
}

// Running means are those after the last step, where a window begins by an exact step, by a restart
// of the schedule, or by a reset. Fails where they are those of an earlier window.
#[test]
fn a_broken_batch_leaves_the_buffers_of_the_step_before() {
    type Net = <(Linear<2, 3>, BatchNorm1D<3>, Linear<3, 1>) as BuildOnDevice<Cpu, f64>>::Built;
    for way in ["exact", "restart", "reset", "sketch", "sketch, resumed"] {
        let dev = Cpu::seed_from_u64(1);
        let mut model = dev.build_module::<(Linear<2, 3>, BatchNorm1D<3>, Linear<3, 1>), f64>();
        let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
        let settings = match way.starts_with("sketch") {
            true => config(1000).safeguard(None).sketch(64),
            false => config(1000),
        };
        let newton = Newton::new(&model, sgd, settings).unwrap();
        let restarts = (way == "restart").then(|| Schedule::warm_restarts(4, 1, 0.5).unwrap());
        let mut newton = newton.schedule(restarts);
        let x: Tensor<Rank2<8, 2>, f64, _> = dev.sample_normal();
        let gradients = |model: &mut Net| {
            let traced = x.trace(model.alloc_grads());
            model.forward_mut(traced).square().mean().backward()
        };
        for _ in 0..4 {
            let here = gradients(&mut model);
            match way {
                "exact" => newton.step_lookahead(&mut model, &here, |model| gradients(model)),
                _ => newton.step(&mut model, &here, 1.0),
            }
            .unwrap();
        }
        match way {
            "reset" | "sketch" => newton.reset(&model).unwrap(),
            "sketch, resumed" => {
                let saved = newton.checkpoint(&model).unwrap();
                newton.resume(&mut model, &saved).unwrap();
            }
            _ => (),
        }
        let buffers = |model: &Net| (model.1.running_mean.array(), model.1.running_var.array());
        let before = buffers(&model);
        let here = gradients(&mut model);
        assert_ne!(buffers(&model), before);
        let step = newton.step(&mut model, &here, f64::NAN);
        match way.starts_with("sketch") {
            true => assert!(matches!(step, Err(tlr::Error::NonFiniteLoss { .. })), "{step:?}"),
            false => assert_eq!(step.unwrap(), Step::Skipped(Cause::NonFiniteLoss)),
        }
        assert_eq!(buffers(&model), before, "{way}");
    }
}

/// The answers and weights of steps with these gradients, by borrowed ones and by the caller's own.
fn both_ways<Opt>(optimizer: impl Fn(&Model) -> Opt, start: [f64; 2], direction: [f64; 2])
where
    Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>,
{
    let run = |owned: bool| {
        let mut model: Model = vector(&start);
        let mut newton = Newton::new(&model, optimizer(&model), config(1)).unwrap();
        let steps: Vec<Step> = (0..6)
            .map(|_| {
                let mut here = gradients(&model, &direction);
                match owned {
                    true => newton.step_owned(&mut model, &mut here, 1.0).unwrap(),
                    false => newton.step(&mut model, &here, 1.0).unwrap(),
                }
            })
            .collect();
        (steps, bits(&model))
    };
    assert_eq!(run(true), run(false));
}

// Where a window has moved nothing, its rate is raised if the gradients could move the weights at a
// rate of 1. Raw, these could; clipped they cannot, nor can their mean, which is 0 but for the last
// batch's own part. Fails where one way asks of the raw gradients and the other of those that the
// optimizer was given.
#[test]
fn borrowed_and_owned_gradients_lead_to_the_same_steps() {
    let still = 1e-30;
    both_ways(|model| Clip::by_value(sgd(model, still), 1e-20).unwrap(), [1.0, 2.0], [1.0, 1.0]);
    both_ways(|model| Accumulate::new(sgd(model, still), 2).unwrap(), [1.0, 2.0], [1e-16, 1e-16]);
    both_ways(
        |model| Accumulate::new(Clip::by_value(sgd(model, still), 1e-20).unwrap(), 2).unwrap(),
        [1.0, 2.0],
        [1.0, 1.0],
    );
    both_ways(|model| sgd(model, still), [1.0, 2.0], [1.0, 1.0]);
}

// And it is the clipped ones that count.
#[test]
fn what_cannot_move_after_clipping_is_not_raised() {
    let outcome = |limit: f64| {
        let mut model: Model = vector(&[1.0, 2.0]);
        let clip = Clip::by_value(sgd(&model, 1e-30), limit).unwrap();
        let mut newton = Newton::new(&model, clip, config(1)).unwrap();
        let here = gradients(&model, &[1.0, 1.0]);
        newton.step(&mut model, &here, 1.0).unwrap().decisions()[0].outcome
    };
    let kept = Outcome::Kept(KeptBecause::NoGradient);
    assert_eq!((outcome(1e-20), outcome(0.5)), (kept, Outcome::Raised));
}

// With s = w − ŵ = α·g on a bowl of curvatures a, so that ĝ = g − a·s.
#[test]
fn an_exact_step_records_its_products() {
    let (w, a, rate) = ([3.0, -4.0], [0.5, 2.0], 0.125);
    let mut model: Model = vector(&w);
    let mut newton = Newton::new(&model, sgd(&model, rate), config(1)).unwrap();
    let g = [a[0] * w[0], a[1] * w[1]];
    let ahead = [g[0] * (1.0 - rate * a[0]), g[1] * (1.0 - rate * a[1])];
    let here = gradients(&model, &g);
    newton.step_lookahead(&mut model, &here, |there| gradients(there, &ahead)).unwrap();
    let products = newton.history()[0].products.unwrap();
    let dot = |a: [f64; 2], b: [f64; 2]| a[0] * b[0] + a[1] * b[1];
    // Of numbers that few bits hold, so that nothing is rounded.
    assert_eq!((products.uu, products.un), (dot(g, g), dot(g, ahead)));
    assert_eq!(products.nn, dot(ahead, ahead));
}

// g = (3, 0) and ĝ = (2, 2) have a cosine of √½, and u is g. Fails if another product takes the
// place of one of the three.
#[test]
fn the_multiplicative_rule_is_exact_around_plain_descent() {
    let mut model: Model = vector(&[1.0, 1.0]);
    let rule = HypergradientRule::multiplicative(0.5);
    let config = HypergradientConfig::new(rule).ramp(false);
    let mut opt = Hypergradient::new(&model, sgd(&model, 0.25), config).unwrap();
    let here = gradients(&model, &[3.0, 0.0]);
    opt.step_lookahead(&mut model, &here, |there| gradients(there, &[2.0, 2.0])).unwrap();
    let expected = 0.25 * (1.0 + 0.5 * 0.5f64.sqrt());
    assert!((opt.rates()[0].1 / expected - 1.0).abs() < 1e-15, "{:?}", opt.rates());
}

// The ramp has seen nothing when it ends. Fails if groups then count as without a gradient, whose
// windows are not weighed, or if any gradient along a way uphill counts as an explosion.
#[test]
fn an_exact_step_may_be_the_first() {
    for (length, along) in [(2, [-1.0; 4]), (8, [-1.0, -1.0, -1.0, 1.0])] {
        let mut model: Model = vector(&[1.0, 2.0]);
        let config = NewtonConfig::default().window(Window::steps(length).unwrap());
        let mut newton = Newton::new(&model, sgd(&model, 0.1), config).unwrap();
        let loss = |model: &Model| model.leaky_trace().square().sum();
        let here = loss(&model).backward();
        newton.step_lookahead(&mut model, &here, |model| loss(model).backward()).unwrap();
        for gradient in along {
            let here = gradients(&model, &[gradient, gradient]);
            let step = newton.update(&mut model, &here).unwrap();
            assert!(!matches!(step, Step::RolledBack { .. }), "{step:?}");
        }
        let history = newton.history();
        let ramped = history.iter().any(|decision| decision.outcome == Outcome::Ramped);
        assert!(!ramped, "{history:?}");
    }
}

// A ramp that has seen gradients knows the loss at the start. Fails if that goes with it.
#[test]
fn an_exact_step_keeps_what_the_ramp_has_seen() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let mut newton = Newton::new(&model, sgd(&model, 0.1), NewtonConfig::default()).unwrap();
    let here = gradients(&model, &[1.0, 1.0]);
    for _ in 0..3 {
        let step = newton.step(&mut model, &here, 1.0).unwrap();
        assert!(matches!(step, Step::Ramped { .. }), "{step:?}");
    }
    newton.step_lookahead(&mut model, &here, |there| gradients(there, &[0.5, 0.5])).unwrap();
    let step = newton.step(&mut model, &here, 1.6).unwrap();
    assert_eq!(step, Step::Skipped(Cause::LossExploded));
}

#[derive(Clone, tlr::TensorCollection, tlr::TrainableLr)]
#[tlr(group)]
struct Pair<E: Dtype, D: Device<E>> {
    first: Tensor<Rank1<1>, E, D>,
    second: Tensor<Rank1<1>, E, D>,
}

#[test]
fn the_tensor_that_would_not_be_finite_is_named() {
    let cpu = Cpu::default();
    let mut model = Pair { first: cpu.tensor([1.0]), second: cpu.tensor([1.0]) };
    let opt = Sgd::new(&model, SgdConfig { lr: 0.1, ..Default::default() });
    let mut newton = Newton::new(&model, opt, config(1)).unwrap();
    let here = gradients(&model, &[1.0, f64::INFINITY]);
    let error = newton
        .step_lookahead(&mut model, &here, |there| gradients(there, &[1.0, 1.0]))
        .unwrap_err();
    let tlr::Error::NonFiniteStep { tensor, .. } = error else { panic!("{error}") };
    assert_eq!(tensor, "second");
}

// A gradient that a rate of 1 would move the weights by, and one of .01 would not. Fails where a
// window that rounding has swallowed is taken for one without a gradient.
#[test]
fn what_rounding_swallows_is_told_from_nothing() {
    for (gradient, climbs) in [(1e-15, true), (0.0, false)] {
        let mut model: Model = vector(&[1.0, 1.0]);
        let mut newton = Newton::new(&model, sgd(&model, 1e-3), config(2)).unwrap();
        let here = gradients(&model, &[gradient, gradient]);
        for _ in 0..4 {
            newton.step(&mut model, &here, 1.0).unwrap();
        }
        assert_eq!(newton.rates()[0].1 > 1e-3, climbs, "{gradient}: {:?}", newton.history());
    }
}

#[test]
fn debug_shows_the_rates() {
    let model: Model = vector(&[1.0, 1.0]);
    let newton = Newton::new(&model, sgd(&model, 0.125), config(2)).unwrap();
    let text = format!("{newton:?}");
    assert!(text.starts_with("Trainer { engine: ") && text.contains("0.125"), "{text}");
}
