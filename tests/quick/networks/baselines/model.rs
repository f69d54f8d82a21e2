//! What is asked of each peer on a dfdx model, in f32 and with batch norm.

use dfdx::{
    optim::{Optimizer, OptimizerUpdateError},
    prelude::*,
};
use std::cell::RefCell;
use support::values::{bits, gradient_values, gradients, values, weights};
use tlr::{CheckpointError, Error, Schedule, Step};
use tlr_models::{
    baselines::{self, *},
    train::{Learner, TrainError},
};

mod builders {
    use dfdx::nn::builders::*;
    pub(super) type Net = (Linear<3, 6>, BatchNorm1D<6>, Tanh, Linear<6, 2>);
}

type Net = <builders::Net as BuildOnDevice<Cpu, f32>>::Built;

/// Where the weights of each tensor begin and end: those of `Net` in the order of the walk.
const TENSORS: [std::ops::Range<usize>; 6] = [0..18, 18..24, 24..30, 30..36, 36..48, 48..50];

fn net(seed: u64) -> Net {
    Cpu::seed_from_u64(seed).build_module::<builders::Net, f32>()
}

/// A forward pass as in training on batch `index`.
fn loss(net: &mut Net, index: u64) -> Tensor<Rank0, f32, Cpu, OwnedTape<f32, Cpu>> {
    let dev = Cpu::seed_from_u64(100 + index);
    let x: Tensor<Rank2<16, 3>, f32, _> = dev.sample_normal();
    let y: Tensor<Rank2<16, 2>, f32, _> = dev.sample_normal();
    let tape = net.alloc_grads();
    mse_loss(net.forward_mut(x.trace(tape)), y)
}

fn made<R: PeerRule>(
    opt: &mut PeerOptimizer<Net, R, f32>,
    net: &mut Net,
    index: u64,
) -> Result<(), PeerError> {
    let loss = loss(net, index);
    let value = f64::from(loss.array());
    let trial = &mut |net: &mut Net| Ok(f64::from(self::loss(net, index).array()));
    opt.step_with(net, &mut loss.backward(), value, trial)
}

// Fails if a tensor is left out, lent with another's gradient, or if a buffer is updated.
#[test]
fn the_first_step_is_that_of_the_rule_on_slices() {
    fn check<R: PeerRule>(rule: R) {
        let mut net = net(1);
        let loss = loss(&mut net, 0);
        let value = f64::from(loss.array());
        let mut gradients = loss.backward();
        let of = |all: &[f64]| -> Vec<Vec<f64>> {
            TENSORS.iter().map(|tensor| all[tensor.clone()].to_vec()).collect()
        };
        let mut slices = of(&weights(&net));
        let own = gradient_values(&net, &gradients);
        let lent: Vec<_> = of(&own);
        let before = net.clone();
        let trial = |weights: &[Vec<f64>]| {
            let mut net = before.clone();
            support::values::set_weights(&mut net, &weights.concat());
            f64::from(self::loss(&mut net, 0).array())
        };
        let mut peer = Peer::new(rule.clone()).unwrap();
        let mut mutable: Vec<_> = slices.iter_mut().map(Vec::as_mut_slice).collect();
        let lent: Vec<_> = lent.iter().map(Vec::as_slice).collect();
        peer.step_with(&mut mutable, &lent, value, &mut |weights| Ok(trial(weights))).unwrap();

        let mut opt = PeerOptimizer::new(&net, rule).unwrap();
        let on_net = &mut |net: &mut Net| Ok(f64::from(self::loss(net, 0).array()));
        opt.step_with(&mut net, &mut gradients, value, on_net).unwrap();
        for (ours, theirs) in weights(&net).iter().zip(slices.concat()) {
            assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0), "{ours} {theirs}");
        }
        for ((_, ours), theirs) in opt.rates().iter().zip(peer.rates()) {
            assert!((ours / theirs - 1.0).abs() < 1e-4, "{ours} {theirs}");
        }
        // The gradients were only lent, and the running statistics are those of the forward pass.
        assert_eq!(gradient_values(&net, &gradients), own);
        assert_eq!(net.1.running_mean.array(), before.1.running_mean.array());
        assert_eq!(net.1.running_var.array(), before.1.running_var.array());
    }
    each_peer!(check);
}

// Fails if anything that a step depends on is not in the file, or is rounded in it.
#[test]
fn a_resumed_run_goes_on_to_the_same_bits() {
    fn check<R: PeerRule>(rule: R) {
        let mut net = net(1);
        let mut opt = PeerOptimizer::new(&net, rule.clone()).unwrap();
        for index in 0..4 {
            made(&mut opt, &mut net, index).unwrap();
        }
        let bytes = opt.checkpoint(&net).unwrap().to_bytes().unwrap();
        let checkpoint = tlr::Checkpoint::from_bytes(&bytes).unwrap();
        let mut other = self::net(2);
        let mut resumed = PeerOptimizer::new(&other, rule).unwrap();
        made(&mut resumed, &mut other, 9).unwrap();
        resumed.resume(&mut other, &checkpoint).unwrap();
        assert_eq!(bits::<f32, Cpu, _>(&other), bits::<f32, Cpu, _>(&net));
        for index in 4..8 {
            made(&mut opt, &mut net, index).unwrap();
            made(&mut resumed, &mut other, index).unwrap();
        }
        assert_eq!(bits::<f32, Cpu, _>(&other), bits::<f32, Cpu, _>(&net));
        assert_eq!(opt.peer().saved(), resumed.peer().saved());
    }
    each_peer!(check);
}

// Fails if the model is written before the rule has agreed.
#[test]
fn a_broken_step_leaves_model_and_state_alone() {
    fn check<R: PeerRule>(rule: R) {
        let mut net = net(1);
        let mut opt = PeerOptimizer::new(&net, rule).unwrap();
        for index in 0..3 {
            let before = (bits::<f32, Cpu, _>(&net), opt.peer().saved());
            let mut broken = vec![1.0; 50];
            broken[49] = f64::NAN;
            let mut broken = gradients::<f32, Cpu, _>(&net, &broken);
            let at = &mut |_: &mut Net| Ok(1.0);
            let error = opt.step_with(&mut net, &mut broken, 1.0, at).unwrap_err();
            assert_eq!(error, PeerError::NonFinite { what: "a gradient", step: index + 1 });
            let none: Gradients<f32, Cpu> = Gradients::leaky();
            let missing = opt.update(&mut net, &none);
            assert!(matches!(missing, Err(OptimizerUpdateError::UnusedParams(unused))
                if unused.ids.len() == 6));
            assert_eq!((bits::<f32, Cpu, _>(&net), opt.peer().saved()), before);
            made(&mut opt, &mut net, index).unwrap();
        }
    }
    each_peer!(check);
}

// Fails if f32's range is not looked at: the square of 1e30 is finite in f64 only.
#[test]
fn a_square_beyond_f32_is_an_error_and_changes_nothing() {
    let mut net = net(1);
    let mut opt = PeerOptimizer::new(&net, baselines::Adam::default()).unwrap();
    let before = (bits::<f32, Cpu, _>(&net), opt.peer().saved());
    let mut huge = gradients::<f32, Cpu, _>(&net, &[1e30; 50]);
    let error = opt.step(&mut net, &mut huge, None).unwrap_err();
    assert_eq!(error, PeerError::NonFinite { what: "an element of the rule's state", step: 1 });
    assert_eq!((bits::<f32, Cpu, _>(&net), opt.peer().saved()), before);
    assert!(gradient_values(&net, &huge).iter().all(|value| *value == f64::from(1e30_f32)));
}

fn differs(error: &PeerError) -> bool {
    let PeerError::Model(Error::Checkpoint { problem, .. }) = error else { return false };
    matches!(problem, CheckpointError::Differs(_))
}

// Fails if a run goes on by another schedule than it was begun with.
#[test]
fn a_checkpoint_of_another_schedule_is_refused() {
    let mut net = net(1);
    let make = |net: &Net, schedule: Option<Schedule>| {
        let sgd = PeerOptimizer::new(net, baselines::Sgd::default()).unwrap();
        sgd.schedule(schedule).unwrap()
    };
    let half = || Some(Schedule::multi_step([1], 0.5).unwrap());
    let mut sgd = make(&net, half());
    made(&mut sgd, &mut net, 0).unwrap();
    let checkpoint = sgd.checkpoint(&net).unwrap();
    for other in [None, Some(Schedule::multi_step([2], 0.5).unwrap())] {
        let error = make(&net, other).resume(&mut net, &checkpoint).unwrap_err();
        assert!(differs(&error) && error.to_string().contains("`schedule`"), "{error}");
    }
    make(&net, half()).resume(&mut net, &checkpoint).unwrap();
}

#[test]
fn a_checkpoint_of_another_kind_is_refused() {
    let mut net = net(1);
    let mut dog = PeerOptimizer::new(&net, Dog::default()).unwrap();
    made(&mut dog, &mut net, 0).unwrap();
    let checkpoint = dog.checkpoint(&net).unwrap();
    let before = bits::<f32, Cpu, _>(&net);

    let mut other = PeerOptimizer::new(&net, Dog { lr: 0.5, ..Dog::default() }).unwrap();
    let error = other.resume(&mut net, &checkpoint).unwrap_err();
    assert!(matches!(error, PeerError::OtherSettings { rule: "dog", .. }), "{error}");
    assert!(error.to_string().contains("`lr` is 1.0 in the file and 0.5 here"), "{error}");

    let mut narrow = Cpu::default().build_module::<dfdx::nn::builders::Linear<3, 6>, f32>();
    let mut dog = PeerOptimizer::new(&narrow, Dog::default()).unwrap();
    let error = dog.resume(&mut narrow, &checkpoint).unwrap_err();
    assert!(differs(&error), "{error}");
    assert_eq!(dog.peer(), &Peer::new(Dog::default()).unwrap());
    assert_eq!(bits::<f32, Cpu, _>(&net), before);
}

thread_local! {
    /// A checkpoint of each peer, with the rule's name, and in words.
    static SAVED: RefCell<Vec<(&'static str, String, tlr::Checkpoint)>> =
        const { RefCell::new(Vec::new()) };
}

// Fails if another rule's state is read before its name, and told to be damaged.
#[test]
fn a_checkpoint_of_any_other_rule_is_refused_as_that() {
    fn save<R: PeerRule>(rule: R) {
        let (mut net, words) = (net(1), format!("{rule:?}"));
        let mut opt = PeerOptimizer::new(&net, rule).unwrap();
        made(&mut opt, &mut net, 0).unwrap();
        let checkpoint = opt.checkpoint(&net).unwrap();
        SAVED.with_borrow_mut(|saved| saved.push((R::NAME, words, checkpoint)));
    }
    fn check<R: PeerRule>(rule: R) {
        let mut net = net(1);
        let mut opt = PeerOptimizer::new(&net, rule.clone()).unwrap();
        SAVED.with_borrow(|saved| {
            let own = format!("{rule:?}");
            for (name, words, checkpoint) in saved.iter().filter(|(_, words, _)| *words != own) {
                let error = opt.resume(&mut net, checkpoint).unwrap_err();
                let told = match *name == R::NAME {
                    true => matches!(error, PeerError::OtherSettings { .. }),
                    false => matches!(error, PeerError::AnotherRule { .. }),
                };
                assert!(told, "{words} in {own}: {error}");
            }
        });
        assert_eq!(opt.peer(), &Peer::new(rule).unwrap());
    }
    each_peer!(save);
    each_peer!(check);
}

// Fails if the moments of one model are used for another of the same shape.
#[test]
fn another_model_is_refused() {
    let (mut net, mut other) = (net(1), self::net(2));
    let mut opt = PeerOptimizer::new(&net, baselines::Adam::default()).unwrap();
    made(&mut opt, &mut net, 0).unwrap();
    let checkpoint = opt.checkpoint(&net).unwrap();
    let before = (weights(&other), opt.peer().saved());
    let errors = [
        made(&mut opt, &mut other, 0).unwrap_err(),
        opt.checkpoint(&other).unwrap_err(),
        opt.resume(&mut other, &checkpoint).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, PeerError::AnotherModel { tensor } if tensor == "0.weight"));
    }
    assert_eq!((weights(&other), opt.peer().saved()), before);
    // A copy is the same model.
    let mut copy = net.clone();
    made(&mut opt, &mut copy, 1).unwrap();
    opt.resume(&mut copy, &checkpoint).unwrap();
    made(&mut opt, &mut copy, 2).unwrap();
}

// Fails if the average is not of the weights, or is tested with running means of others.
#[test]
fn averages_are_a_model_of_their_own() {
    let mut net = net(1);
    let mut opt = PeerOptimizer::new(&net, ScheduleFreeSgd::default()).unwrap();
    assert!(opt.averaged(&net).is_none());
    for index in 0..5 {
        made(&mut opt, &mut net, index).unwrap();
    }
    let trained = bits::<f32, Cpu, _>(&net);
    let averaged = opt.averaged(&net).unwrap();
    assert_ne!(weights(&averaged), weights(&net));
    assert_eq!(averaged.1.running_mean.array(), net.1.running_mean.array());
    // The last 50 batches of an epoch, or all of a shorter one. What is left of the statistics
    // before is 0.9⁵⁰ of them.
    for (batches, skipped) in [(53_u64, 3_usize), (20, 0)] {
        let pass = |net: &mut Net, skip: usize| {
            assert_eq!(skip, skipped);
            (skip as u64..batches).for_each(|index| drop(loss(net, index)));
            Ok::<_, Error>(())
        };
        let recalibrated = recalibrated(averaged.clone(), batches as usize, pass).unwrap();
        assert_eq!(weights(&recalibrated), weights(&averaged));
        let mut by_hand = averaged.clone();
        (skipped as u64..batches).for_each(|index| drop(loss(&mut by_hand, index)));
        assert_eq!(values(&recalibrated), values(&by_hand));
        assert_ne!(recalibrated.1.running_mean.array(), net.1.running_mean.array());
    }
    assert_eq!(bits::<f32, Cpu, _>(&net), trained);

    let without: modules::Linear<3, 6, f32, Cpu> =
        Cpu::default().build_module::<Linear<3, 6>, f32>();
    let asked = recalibrated(without, 9, |_, _| Err(Error::NothingToTrain));
    assert!(asked.is_ok()); // there is nothing to make anew
    let mut plain = PeerOptimizer::new(&net, Sps::default()).unwrap();
    made(&mut plain, &mut net, 0).unwrap();
    assert!(plain.averaged(&net).is_none());
}

#[test]
fn rates_have_names_and_follow_a_schedule() {
    let mut net = net(1);
    let mut opt = PeerOptimizer::new(&net, Dog::layerwise()).unwrap();
    assert!(opt.rates().is_empty());
    made(&mut opt, &mut net, 0).unwrap();
    let names: Vec<_> = opt.rates().into_iter().map(|(name, _)| name.to_owned()).collect();
    let expected = ["0.weight", "0.bias", "1.scale", "1.bias", "3.weight", "3.bias"];
    assert_eq!(names, expected);

    let half = Schedule::multi_step([1], 0.5).unwrap();
    let sgd = PeerOptimizer::new(&net, baselines::Sgd::default()).unwrap();
    let mut sgd = sgd.schedule(half.clone()).unwrap();
    made(&mut sgd, &mut net, 0).unwrap();
    assert_eq!(sgd.rates(), [("model", 0.1)]);
    made(&mut sgd, &mut net, 1).unwrap();
    assert_eq!(sgd.rates(), [("model", 0.05)]);

    let cocob = PeerOptimizer::new(&net, Cocob::default()).unwrap();
    let error = cocob.schedule(half).unwrap_err();
    assert_eq!(error, PeerError::NoSchedule { rule: "cocob" });
    let negative = Schedule::from_fn(|_| -1.0);
    let mut sgd = PeerOptimizer::new(&net, baselines::Sgd::default()).unwrap();
    sgd = sgd.schedule(negative).unwrap();
    let error = made(&mut sgd, &mut net, 0).unwrap_err();
    assert!(matches!(error, PeerError::OutOfRange { what: "schedule: factor", .. }));
}

#[test]
fn peers_are_learners_and_lower_the_loss() {
    fn check<R: PeerRule>(rule: R) {
        let mut net = net(1);
        let mut opt = PeerOptimizer::new(&net, rule.clone()).unwrap();
        let learner: &mut dyn Learner<Net> = &mut opt;
        let mut losses = Vec::new();
        for _ in 0..40 {
            let loss = loss(&mut net, 0);
            losses.push(f64::from(loss.array()));
            let trial = &mut |net: &mut Net| Ok(f64::from(self::loss(net, 0).array()));
            let last = losses[losses.len() - 1];
            let step = learner.step_with(&mut net, &mut loss.backward(), last, trial);
            assert!(matches!(step, Ok(Step::Made)), "{rule:?}: {step:?}");
        }
        assert!(learner.history().is_empty());
        let checkpoint = learner.checkpoint(&net).unwrap();
        learner.resume(&mut net, &checkpoint).unwrap();
        assert!(losses[39] < losses[0], "{rule:?}: {} {}", losses[0], losses[39]);
    }
    each_peer!(check);
}

// What fails in a trial, and what a peer asks for, comes out as what it is. Fails if either is told
// as a failure of the device, or of an engine that a peer has not got.
#[test]
fn errors_of_peers_are_their_own() {
    let mut net = net(1);
    let mut sls = PeerOptimizer::new(&net, Sls::default()).unwrap();
    let learner: &mut dyn Learner<Net> = &mut sls;
    let loss = loss(&mut net, 0);
    let (value, mut gradients) = (f64::from(loss.array()), loss.backward());
    let trial = &mut |_: &mut Net| Err(TrainError::NoEpochs);
    let error = learner.step_with(&mut net, &mut gradients, value, trial).unwrap_err();
    assert!(matches!(error, TrainError::NoEpochs), "{error}");
    let error = learner.step(&mut net, &mut gradients, value).unwrap_err();
    assert!(matches!(error, TrainError::Peer(PeerError::NoTrials { rule: "sls" })), "{error}");
    let checkpoint = learner.checkpoint(&net).unwrap();
    let mut other = PeerOptimizer::new(&net, Sls { c: 0.2, ..Sls::default() }).unwrap();
    let learner: &mut dyn Learner<Net> = &mut other;
    let error = learner.resume(&mut net, &checkpoint).unwrap_err();
    assert!(matches!(error, TrainError::Peer(PeerError::OtherSettings { .. })), "{error}");
}

// Through dfdx's interface. Fails if a refusal there is told in other words than a trainer's.
#[test]
fn a_refusal_counts_all_tensors_as_unused() {
    let mut net = net(1);
    let before = weights(&net);
    let mut sls = PeerOptimizer::new(&net, Sls::default()).unwrap();
    let own = loss(&mut net.clone(), 0).backward();
    let error = sls.update(&mut net, &own).unwrap_err();
    let OptimizerUpdateError::UnusedParams(unused) = error else { panic!("{error}") };
    assert_eq!((unused.ids.len(), weights(&net)), (TENSORS.len(), before));
}

#[derive(Clone, Debug, tlr::TensorCollection)]
struct Partly<E: Dtype, D: Device<E>> {
    #[tlr(untrained)]
    base: modules::Linear<2, 2, E, D>,
    head: modules::Linear<2, 1, E, D>,
}

#[test]
fn a_model_that_cannot_be_followed_is_refused() {
    let dev = Cpu::default();
    let base = dev.build_module::<dfdx::nn::builders::Linear<2, 2>, f32>();
    let head = dev.build_module::<dfdx::nn::builders::Linear<2, 1>, f32>();
    let error = PeerOptimizer::new(&Partly { base, head }, Dog::default()).unwrap_err();
    let refused = |error| matches!(error, PeerError::Model(Error::AttributeWithoutEffect { .. }));
    assert!(refused(error));
    let error = PeerOptimizer::<_, _, f32>::new(&Tanh, Dog::default()).unwrap_err();
    assert_eq!(error, PeerError::Model(Error::NothingToTrain));
}
