//! Peers in the training loop of `tlr_models::train`.

use dfdx::prelude::Cpu;
use tlr_models::{
    baselines::{self, *},
    data::{digits, shapes, Dataset},
    resnet::Wrn10x1,
    train::{train_with, InMemory, Learner, Network, Options, Persistence, Run, TrainError},
    Mlp,
};

type Net = Mlp<784, 16, 10, f32, Cpu>;

fn run<M: Network<Number = f32, Device = Cpu>, R: PeerRule + 'static>(
    data: &Dataset,
    rule: &R,
    epochs: usize,
    persistence: &Persistence<'_>,
) -> Result<Run, TrainError> {
    let options = Options { batch_size: 20, epochs, seed: 3, ..Options::default() };
    let source = InMemory::new(data, options.batch_size, options.seed, None)?;
    let learner = |model: &M| -> Result<Box<dyn Learner<M>>, TrainError> {
        Ok(Box::new(PeerOptimizer::new(model, rule.clone())?))
    };
    train_with(&source, &options, learner, persistence, &mut |_| ())
}

// Fails if a line search gets no trials, or if a peer's rate does not come through.
#[test]
fn every_peer_trains() {
    let data = digits::draw(0, 200, 50).unwrap();
    let check = |run: Run, name: &str| {
        let (first, last) = (&run.epochs[0], &run.epochs[1]);
        let fell = last.train_loss < first.train_loss;
        assert!(fell, "{name}: {} {}", first.train_loss, last.train_loss);
        assert_eq!(last.rates.is_empty(), name == "cocob");
    };
    let none = Persistence::default();
    macro_rules! all {
        ($($rule:expr),+ $(,)?) => {$({
            let rule = $rule;
            check(run::<Net, _>(&data, &rule, 2, &none).unwrap(), name_of(&rule));
        })+};
    }
    all![
        Sls { batches: 10, ..Sls::default() },
        Sps::default(),
        Cocob::default(),
        Prodigy::default(),
        Dog::layerwise(),
        ScheduleFreeAdamW::default(),
        Mechanic { store_delta: true, ..Mechanic::around(baselines::Adam::default()) },
        Momo::default(),
    ];
}

fn name_of<R: PeerRule>(_: &R) -> &'static str {
    R::NAME
}

// Fails if the weights that are tested are those that are trained.
#[test]
fn what_is_tested_is_the_average() {
    let data = digits::draw(0, 200, 50).unwrap();
    let none = Persistence::default();
    let tested = |averaging| {
        let rule = Dog { averaging, reps_rel: 1e-3, ..Dog::default() };
        run::<Net, _>(&data, &rule, 1, &none).unwrap()
    };
    let (plain, averaged) = (tested(None), tested(Some(8.0)));
    assert_eq!(plain.losses, averaged.losses);
    assert_ne!(plain.epochs[0].test_loss, averaged.epochs[0].test_loss);
}

// Fails if running statistics of the trained weights are tested with the averaged ones, or if
// making them anew disturbs the run, or if a peer is not resumed.
#[test]
fn a_network_with_batch_norm_is_recalibrated_and_resumed() {
    let data = shapes::draw(0, 20, 10, 10).unwrap();
    let rule = ScheduleFreeSgd { lr: 0.1, ..ScheduleFreeSgd::default() };
    let none = Persistence::default();
    let whole = run::<Wrn10x1<10, f32, dfdx::prelude::Cpu>, _>(&data, &rule, 2, &none).unwrap();
    assert!(whole.epochs.iter().all(|epoch| epoch.test_loss.is_finite()));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let kept = Persistence { checkpoint: Some(&path), resume: true, ..Persistence::default() };
    let stop = std::sync::atomic::AtomicBool::new(true);
    let stopped = Persistence { stop: Some(&stop), ..kept };
    for step in 1..=2 {
        let ended = run::<Wrn10x1<10, f32, dfdx::prelude::Cpu>, _>(&data, &rule, 2, &stopped);
        assert!(matches!(ended, Err(TrainError::Stopped { step: at }) if at == step));
    }
    let resumed = run::<Wrn10x1<10, f32, dfdx::prelude::Cpu>, _>(&data, &rule, 2, &kept).unwrap();
    assert_eq!(resumed.losses, whole.losses);
    let tested = |run: &Run| run.epochs.iter().map(|epoch| epoch.test_loss).collect::<Vec<_>>();
    assert_eq!(tested(&resumed), tested(&whole));
}
