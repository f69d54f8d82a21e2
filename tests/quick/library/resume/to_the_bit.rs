//! Whatever is trained, and wherever it stops: what is loaded goes on to the bit.

use super::{differences, forged, momentum, run, run_with, setting, Net, PerLayerSgd, Real, Run};
use dfdx::{
    optim::{AdamConfig, Momentum, Optimizer, RMSpropConfig, SgdConfig, WeightDecay},
    prelude::*,
};
use proptest::prelude::*;
use std::path::Path;
use support::values::bits;
use tlr::{
    optim::{Accumulate, Adam, AdamW, AdamWConfig, Clip, RMSprop, Resumable, Sgd},
    Adaptation, Backend, Difference, Newton, NewtonConfig, Outcome, PerLayer, Window,
};

/// Saves after `at` steps, goes on in new objects until `end`, and compares with a run that never
/// stopped.
fn goes_on_the_same<E, Opt>(
    dir: &Path,
    window: usize,
    (at, end): (u64, u64),
    make: impl Fn(&Net<E, Cpu>) -> Opt,
) where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>
        + Resumable,
{
    let path = dir.join("run.safetensors");
    let mut straight = run(1, window, &make);
    straight.steps(0..at);
    straight.opt.save(&straight.model, &path).unwrap();

    // Other weights, and some steps of its own: nothing of these may be left.
    let mut resumed = run(2, window, &make);
    resumed.steps(0..(at % 7));
    resumed.opt.load(&mut resumed.model, &path).unwrap();
    assert_eq!(resumed.state(), straight.state());

    straight.steps(at..end);
    resumed.steps(at..end);
    assert_eq!(bits(&resumed.model), bits(&straight.model));
    let rates = |run: &Run<Opt>| -> Vec<(String, u64)> {
        run.opt.rates().into_iter().map(|(name, rate)| (name.to_owned(), rate.to_bits())).collect()
    };
    assert_eq!(rates(&resumed), rates(&straight));
    assert_eq!(resumed.opt.history(), straight.opt.history());
    assert_eq!(resumed.state(), straight.state());
}

fn both_modes<E: Real>(
    dir: &Path,
    (optimizer, lr): (usize, f64),
    per_layer: bool,
    window: usize,
    range: (u64, u64),
) where
    Cpu: Backend<E>,
{
    macro_rules! check {
        ($make:expr) => {
            if per_layer {
                goes_on_the_same(dir, window, range, |model| PerLayer::new(model, $make(model)))
            } else {
                goes_on_the_same(dir, window, range, $make)
            }
        };
    }
    type M<E> = Net<E, Cpu>;
    let momentum = [None, Some(Momentum::Classic(0.9)), Some(Momentum::Nesterov(0.9))];
    match optimizer {
        0..3 => check!(|model: &M<E>| Sgd::new(
            model,
            SgdConfig {
                lr,
                momentum: momentum[optimizer],
                weight_decay: Some(WeightDecay::L2(1e-3))
            }
        )),
        3 => check!(|model: &M<E>| Adam::new(model, AdamConfig { lr, ..Default::default() })),
        4 => check!(|model: &M<E>| AdamW::new(model, AdamWConfig { lr, ..Default::default() })),
        5 => check!(|model: &M<E>| RMSprop::new(
            model,
            RMSpropConfig { lr, momentum: Some(0.5), centered: true, ..Default::default() }
        )),
        6 => check!(|model: &M<E>| {
            let cfg = SgdConfig { lr, momentum: momentum[1], weight_decay: None };
            Accumulate::new(Clip::by_norm(Sgd::new(model, cfg), 0.5).unwrap(), 3).unwrap()
        }),
        7 => check!(|model: &M<E>| {
            let cfg = SgdConfig { lr, momentum: momentum[1], weight_decay: None };
            Accumulate::new(Accumulate::new(Sgd::new(model, cfg), 2).unwrap(), 2).unwrap()
        }),
        // Around a rate a layer, and within.
        _ => goes_on_the_same(dir, window, range, |model: &M<E>| {
            let adam = Adam::new(model, AdamConfig { lr, ..Default::default() });
            let inner = Accumulate::new(adam, 2).unwrap();
            Clip::by_value(Accumulate::new(PerLayer::new(model, inner), 2).unwrap(), 0.1).unwrap()
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Any optimizer, mode, element type, window and place: before the first step, inside a window,
    /// after a rollback.
    #[test]
    fn training_goes_on_to_the_bit(
        optimizer in 0_usize..9,
        lr in prop::sample::select(vec![1e-7, 1e-3, 0.1, 100.0]),
        per_layer in any::<bool>(),
        double in any::<bool>(),
        window in 1_usize..9,
        at in 0_u64..50,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let range = (at, at + 30);
        if double {
            both_modes::<f64>(dir.path(), (optimizer, lr), per_layer, window, range);
        } else {
            both_modes::<f32>(dir.path(), (optimizer, lr), per_layer, window, range);
        }
    }
}

/// Saved in a window and resumed in a run that was elsewhere; the one that went straight on.
fn goes_on_with(config: NewtonConfig) -> Run<PerLayerSgd> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let mut straight = run_with(1, config);
    straight.steps(0..10);
    straight.opt.save(&straight.model, &path).unwrap();
    let mut resumed = run_with(2, config);
    resumed.steps(0..5);
    resumed.opt.load(&mut resumed.model, &path).unwrap();
    assert_eq!(resumed.state(), straight.state());
    straight.steps(10..50);
    resumed.steps(10..50);
    assert_eq!(resumed.state(), straight.state());
    assert!(straight.opt.history().len() >= 7 * 2);
    straight
}

/// Beside sketches, too: saved in a window, they are those of its beginning. With another number of
/// bins it is another training.
#[test]
fn a_sketch_goes_on_to_the_bit() {
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .window(Window::steps(4).unwrap())
        .safeguard(None);
    let mut straight = goes_on_with(config.sketch(64));
    let found = differences(&mut run_with(1, config.sketch(128)), &straight.state());
    assert!(found.contains(&setting("sketch", "64", "128")), "{found:?}");
}

/// A sketch has no buffers: those of a batch that is refused are the file's. Fails if a resumed
/// trainer puts back those of the model that it was made with.
#[test]
fn buffers_come_back_beside_a_sketch() {
    let new = |mean: f64| {
        let mut norm = Cpu::default().build_module::<BatchNorm1D<1>, f64>();
        norm.running_mean.copy_from(&[mean]);
        let sgd = tlr::optim::Sgd::new(&norm, SgdConfig::default());
        let config = NewtonConfig::default().ramp(false).sketch(64).safeguard(None);
        let opt = Newton::new(&norm, sgd, config).unwrap();
        (norm, opt)
    };
    let (norm, opt) = new(5.0);
    let saved = opt.checkpoint(&norm).unwrap();
    let (mut norm, mut opt) = new(1.0);
    opt.resume(&mut norm, &saved).unwrap();
    assert_eq!(norm.running_mean.array(), [5.0]);
    norm.running_mean.copy_from(&[9.0]); // by a forward pass
    let gradients = norm.alloc_grads();
    opt.step(&mut norm, &gradients, f64::NAN).unwrap_err();
    assert_eq!(norm.running_mean.array(), [5.0]);
}

/// Across rollbacks. With two whole snapshots it is another training.
#[test]
fn a_direction_in_bfloat16_goes_on_to_the_bit() {
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(4).unwrap());
    let mut straight = goes_on_with(config.bf16_directions(true));
    let rolled_back = |decision: &Adaptation| matches!(decision.outcome, Outcome::RolledBack(_));
    assert!(straight.opt.history().iter().any(rolled_back));
    let found = differences(&mut run_with(1, config), &straight.state());
    let settings = found.iter().filter_map(|difference| match difference {
        Difference::Setting { name, .. } => Some(name.as_str()),
        _ => None,
    });
    assert!(settings.clone().any(|name| name == "bf16_directions"), "{found:?}");
}

/// Inside the accumulation of a step: gathered gradients, their count and the mean of their losses
/// come back.
#[test]
fn an_accumulation_goes_on_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    for at in [1, 2, 3, 13, 20, 35] {
        for (optimizer, per_layer) in [(6, false), (6, true), (7, false), (7, true), (8, false)] {
            both_modes::<f32>(dir.path(), (optimizer, 0.1), per_layer, 2, (at, at + 30));
        }
    }
    let gathering =
        |batches| move |model: &Net<f32, Cpu>| Accumulate::new(momentum(model), batches).unwrap();
    let mut three = run(1, 4, gathering(3));
    three.steps(0..14);
    assert_eq!((three.opt.steps(), three.opt.optimizer().gathered()), (4, 2));
    let checkpoint = three.state();
    assert_ne!(
        checkpoint,
        forged::change(&checkpoint, |parts| {
            let name = "optimizer.(gathered).head.bias";
            let (dtype, _, bytes) = parts.get_mut(name).unwrap();
            assert_eq!(*dtype, safetensors::Dtype::F64);
            bytes.fill(0);
        })
    );
    assert_eq!(
        differences(&mut run(1, 4, gathering(4)), &checkpoint),
        [setting("optimizer.batches", "3", "4")]
    );
    let found = differences(&mut run(1, 4, momentum), &checkpoint);
    assert!(found.contains(&setting("optimizer", "accumulate", "sgd")), "{found:?}");
    let clip = |max| move |model: &Net<f32, Cpu>| Clip::by_norm(momentum(model), max).unwrap();
    assert_eq!(
        differences(&mut run(1, 4, clip(2.0)), &run(1, 4, clip(1.0)).state()),
        [setting("optimizer.max_norm", "1.0", "2.0")]
    );
}

/// Between two batches of a step: what those gathered weigh comes back, for the model and for each
/// layer.
#[test]
fn the_weight_of_gathered_batches_comes_back() {
    fn check<Opt>(make: impl Fn(&Net<f32, Cpu>) -> Opt)
    where
        Opt: Resumable<Model = Net<f32, Cpu>, Dtype = f32, Device = Cpu>,
        Accumulate<Opt>: Resumable<Model = Net<f32, Cpu>, Dtype = f32, Device = Cpu>,
    {
        let gathering = |model: &Net<f32, Cpu>| Accumulate::new(make(model), 3).unwrap();
        let weighed = |run: &mut Run<Accumulate<Opt>>, step: u64| {
            run.opt.weigh_next(1.0 + step as f64).unwrap();
            run.steps(step..step + 1);
        };
        let mut straight = run(1, 4, gathering);
        (0..5).for_each(|step| weighed(&mut straight, step));
        let checkpoint = straight.state();
        let mut resumed = run(2, 4, gathering);
        (0..4).for_each(|step| weighed(&mut resumed, step));
        resumed.opt.resume(&mut resumed.model, &checkpoint).unwrap();
        assert_eq!(resumed.state(), checkpoint);
        for step in 5..20 {
            weighed(&mut straight, step);
            weighed(&mut resumed, step);
            assert_eq!(resumed.state(), straight.state(), "{step}");
        }
    }
    let plain =
        |model: &Net<f32, Cpu>| Sgd::new(model, SgdConfig { lr: 0.1, ..Default::default() });
    check(plain);
    check(momentum);
    check(|model| Accumulate::new(plain(model), 2).unwrap());
}

/// What decays is a setting, and told only where it is not all.
#[test]
fn a_checkpoint_knows_what_decays() {
    let sgd = |model: &Net<f32, Cpu>| Sgd::new(model, SgdConfig::default());
    let matrices = |model: &Net<f32, Cpu>| sgd(model).decay_matrices_only();
    let found = differences(&mut run(1, 4, sgd), &run(1, 4, matrices).state());
    let [Difference::Setting { name, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(name, "optimizer.vectors_decay");
}

/// The property above is about rollbacks only if there are some.
#[test]
fn the_runs_have_rollbacks_on_the_way() {
    let mut run = run(1, 4, momentum);
    run.steps(0..60);
    let rolled_back = |a: &tlr::Adaptation| matches!(a.outcome, Outcome::RolledBack(_));
    assert!(run.opt.history().iter().any(rolled_back));
    assert!(run.opt.history().iter().any(|a| a.products.is_some()));
}
