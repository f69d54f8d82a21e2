//! Training that is saved, loaded into new objects and goes on, against training that never stopped: equal to the
//! bit. And files that are not what they should be.

use dfdx::{
    nn::modules,
    optim::{AdamConfig, Momentum, Optimizer, RMSpropConfig, SgdConfig, WeightDecay},
    prelude::*,
};
use proptest::prelude::*;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use support::{quadratic::Random, values::bits};
use tlr::{
    optim::{Accumulate, Adam, AdamW, AdamWConfig, Clip, RMSprop, Resumable, Sgd},
    Adaptation, Backend, Checkpoint, CheckpointError, Difference, Element, Error, Newton,
    NewtonConfig, Outcome, PerLayer, Window,
};

#[derive(Clone, Debug, tlr::TensorCollection, tlr::TrainableLr)]
struct Net<E: Dtype, D: Device<E>> {
    hidden: modules::Linear<3, 8, E, D>,
    norm: modules::BatchNorm1D<8, E, D>,
    act: Tanh,
    head: modules::Linear<8, 1, E, D>,
}

/// An element type to train in.
trait Real: Element + num_traits::Float + rand_distr::uniform::SampleUniform {}
impl Real for f32 {}
impl Real for f64 {}

fn net<E: Real>(seed: u64) -> Net<E, Cpu>
where
    Cpu: Backend<E>,
{
    let dev = Cpu::seed_from_u64(seed);
    let linear = dev.build_module::<dfdx::prelude::Linear<3, 8>, E>();
    Net {
        hidden: linear,
        norm: dev.build_module::<BatchNorm1D<8>, E>(),
        act: Tanh,
        head: dev.build_module::<dfdx::prelude::Linear<8, 1>, E>(),
    }
}

/// Training and all it is made of.
struct Run<Opt: tlr::TunableOptimizer> {
    model: Opt::Model,
    opt: Newton<Opt>,
}

fn run<E, Opt>(seed: u64, window: usize, make: impl FnOnce(&Net<E, Cpu>) -> Opt) -> Run<Opt>
where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>,
{
    let model = net::<E>(seed);
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(window).unwrap());
    let opt = Newton::new(&model, make(&model), config).unwrap();
    Run { model, opt }
}

impl<E, Opt> Run<Opt>
where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>
        + Resumable,
{
    /// One step on the data of that step. Every 22nd and 23rd batch are broken, so that rollbacks are on the way, and
    /// every 29th is skipped.
    fn step(&mut self, step: u64) {
        let dev = Cpu::default();
        let mut random = Random(step.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let cast = |values: Vec<f64>| values.into_iter().map(|v| E::from_f64(v).unwrap()).collect();
        let x: Vec<E> = cast(random.vector(16 * 3));
        let y: Vec<E> = cast(random.vector(16));
        let x: Tensor<Rank2<16, 3>, E, _> = dev.tensor(x);
        let y: Tensor<Rank2<16, 1>, E, _> = dev.tensor(y);
        let traced = x.trace(self.model.alloc_grads());
        let hidden = self.model.hidden.forward(traced);
        let hidden = self.model.norm.forward_mut(hidden).tanh();
        let loss = mse_loss(self.model.head.forward(hidden), y);
        let value = loss.array().to_f64().unwrap();
        let fed = match step {
            _ if step % 23 >= 21 => 1e3,
            _ if step % 29 == 28 => f64::NAN,
            _ => value,
        };
        match self.opt.step(&mut self.model, &loss.backward(), fed) {
            // At a snapshot, or where it was: training can go on from there.
            Ok(_) | Err(Error::TooManyRollbacks { .. } | Error::NonFiniteLoss { .. }) => (),
            Err(error) => panic!("{error}"),
        }
    }

    fn steps(&mut self, steps: std::ops::Range<u64>) {
        steps.for_each(|step| self.step(step));
    }

    /// All there is, to the bit: a checkpoint holds nothing that does not matter.
    fn state(&mut self) -> Checkpoint {
        self.opt.checkpoint(&self.model).unwrap()
    }
}

/// Saves after `at` steps, goes on in new objects until `end`, and compares with a run that never stopped.
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

    /// Any optimizer, mode, element type, window and place: before the first step, inside a window, after a rollback.
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

type PerLayerSgd = PerLayer<Sgd<Net<f32, Cpu>, f32, Cpu>>;

fn momentum(model: &Net<f32, Cpu>) -> PerLayerSgd {
    let momentum = Some(Momentum::Classic(0.9));
    PerLayer::new(model, Sgd::new(model, SgdConfig { lr: 0.1, momentum, weight_decay: None }))
}

fn run_with(seed: u64, config: NewtonConfig) -> Run<PerLayerSgd> {
    let model = net::<f32>(seed);
    let opt = Newton::new(&model, momentum(&model), config).unwrap();
    Run { model, opt }
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

/// Beside sketches, too: saved in a window, they are those of its beginning. With another number of bins it is another
/// training.
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

/// Across rollbacks. With two whole snapshots it is another training.
#[test]
fn a_direction_in_bfloat16_goes_on_to_the_bit() {
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(4).unwrap());
    let mut straight = goes_on_with(config.bf16_directions(true));
    let rolled_back = |decision: &Adaptation| matches!(decision.outcome, Outcome::RolledBack(_));
    assert!(straight.opt.history().iter().any(rolled_back));
    let found = differences(&mut run_with(1, config), &straight.state());
    let is_named = |difference: &Difference| matches!(difference, Difference::Setting { name, .. } if name == "bf16_directions");
    assert!(found.iter().any(is_named), "{found:?}");
}

/// Inside the accumulation of a step: gathered gradients, their count and the mean of their losses come back.
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

/// Between two batches of a step: what those gathered weigh comes back, for the model and for each layer.
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
    assert!(
        matches!(&found[..], [Difference::Setting { name, .. }] if name == "optimizer.vectors_decay"),
        "{found:?}"
    );
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

// ---- Other processes ----

/// What the tests below have a second process do.
const TASK: &str = "TLR_RESUME_TASK";

fn child(task: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "resume::in_a_second_process", "--ignored", "--nocapture"]);
    command.env(TASK, task).env("TLR_RESUME_PATH", path);
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

#[test]
#[ignore = "run by other tests, in a process of its own"]
fn in_a_second_process() {
    let path = std::path::PathBuf::from(std::env::var_os("TLR_RESUME_PATH").unwrap());
    match std::env::var(TASK).unwrap().as_str() {
        "go on" => {
            let mut run = run(5, 4, momentum);
            run.opt.load(&mut run.model, &path).unwrap();
            run.steps(31..70);
            run.opt.save(&run.model, &path).unwrap();
        }
        "write for ever" => {
            let checkpoint = run(5, 4, momentum).state();
            for round in 0_u64.. {
                let bytes: Vec<u8> = round.to_le_bytes().repeat(1 << 15);
                checkpoint.clone().attach("round", bytes).save(&path).unwrap();
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_new_process_goes_on_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let mut straight = run(1, 4, momentum);
    straight.steps(0..31);
    straight.opt.save(&straight.model, &path).unwrap();
    assert!(child("go on", &path).status().unwrap().success());

    straight.steps(31..70);
    let mut back = run(9, 4, momentum);
    back.opt.load(&mut back.model, &path).unwrap();
    assert_eq!(back.state(), straight.state());
}

/// A writer killed a hundred times, at any moment: the file is always whole, and the only one beside it is the one
/// that was being written.
#[test]
#[cfg(unix)]
fn a_killed_writer_leaves_the_old_file_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    run(5, 4, momentum).state().attach("round", [0; 8]).save(&path).unwrap();
    let mut random = Random(3);
    let mut rounds = 0;
    for _ in 0..100 {
        let mut writer = child("write for ever", &path).spawn().unwrap();
        let wait = 5.0 + 15.0 * (1.0 + random.uniform());
        std::thread::sleep(Duration::from_micros((1e3 * wait) as u64));
        writer.kill().unwrap();
        writer.wait().unwrap();

        let checkpoint = Checkpoint::open(&path).unwrap();
        let round = checkpoint.attachment("round").unwrap();
        assert!(round.chunks(8).all(|chunk| chunk == &round[..8]));
        rounds += usize::from(round[..8] != [0; 8]);
        let mut back = run(6, 4, momentum);
        back.opt.resume(&mut back.model, &checkpoint).unwrap();
        assert!(std::fs::read_dir(dir.path()).unwrap().count() <= 2);
    }
    assert!(rounds > 10, "the writer was always killed before it wrote: {rounds}");
}

// ---- Files that are not what they should be ----

fn saved() -> (Run<PerLayerSgd>, Checkpoint) {
    let mut run = run(1, 4, momentum);
    run.steps(0..30);
    let checkpoint = run.state();
    (run, checkpoint)
}

/// The problem with loading `checkpoint`, and nothing has changed.
fn refused<E, Opt>(run: &mut Run<Opt>, checkpoint: &Checkpoint) -> CheckpointError
where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>
        + Resumable,
{
    let before = run.state();
    let error = run.opt.resume(&mut run.model, checkpoint).unwrap_err();
    assert_eq!(run.state(), before);
    match error {
        Error::Checkpoint { path: None, problem } => problem,
        other => panic!("{other}"),
    }
}

fn differences<E, Opt>(run: &mut Run<Opt>, checkpoint: &Checkpoint) -> Vec<Difference>
where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>
        + Resumable,
{
    match refused(run, checkpoint) {
        CheckpointError::Differs(differences) => differences,
        other => panic!("{other}"),
    }
}

fn setting(name: &str, file: &str, here: &str) -> Difference {
    let some = |value: &str| Some(value.to_owned());
    Difference::Setting { name: name.to_owned(), file: some(file), here: some(here) }
}

#[test]
fn another_configuration_is_named() {
    let (_, checkpoint) = saved();
    assert_eq!(differences(&mut run(1, 5, momentum), &checkpoint), [setting("window", "4", "5")]);

    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .damping(0.5)
        .window(Window::steps(4).unwrap());
    let mut run = run_with(1, config);
    assert_eq!(differences(&mut run, &checkpoint), [setting("rule.damping", "0.33", "0.5")]);

    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(4).unwrap());
    let config = config.climb(0.5).safeguard(tlr::Safeguard::default().cut(0.25));
    run.opt = Newton::new(&run.model, momentum(&run.model), config).unwrap();
    assert_eq!(
        differences(&mut run, &checkpoint),
        [setting("climb", "0.8", "0.5"), setting("safeguard.cut", "0.5", "0.25")]
    );
}

#[test]
fn another_optimizer_is_named() {
    let (_, checkpoint) = saved();
    let nesterov = |model: &Net<f32, Cpu>| {
        let momentum = Some(Momentum::Nesterov(0.8));
        PerLayer::new(model, Sgd::new(model, SgdConfig { lr: 0.1, momentum, weight_decay: None }))
    };
    assert_eq!(
        differences(&mut run(1, 4, nesterov), &checkpoint),
        [
            setting("optimizer.momentum", "0.9", "0.8"),
            setting("optimizer.nesterov", "false", "true"),
        ]
    );

    let adam = |model: &Net<f32, Cpu>| Adam::new(model, AdamConfig::default());
    let found = differences(&mut run(1, 4, adam), &checkpoint);
    assert!(found.contains(&setting("optimizer", "sgd", "adam")), "{found:?}");
    assert!(found.contains(&setting("layers", "hidden, norm, head", "model")), "{found:?}");
    let (velocity, moment) = ("optimizer.velocity.head.bias", "optimizer.moment2.norm.scale");
    assert!(found.contains(&Difference::Extra { tensor: velocity.to_owned() }), "{found:?}");
    assert!(found.contains(&Difference::Missing { tensor: moment.to_owned() }), "{found:?}");
}

#[test]
fn another_element_type_is_named_once() {
    let (_, checkpoint) = saved();
    let double = |model: &Net<f64, Cpu>| {
        let momentum = Some(Momentum::Classic(0.9));
        PerLayer::new(model, Sgd::new(model, SgdConfig { lr: 0.1, momentum, weight_decay: None }))
    };
    assert_eq!(differences(&mut run(1, 4, double), &checkpoint), [setting("dtype", "f32", "f64")]);
}

/// The file with one thing changed in its tensors, and a checksum to match.
mod forged {
    use super::*;
    use safetensors::{tensor::TensorView, Dtype, SafeTensors};
    use std::collections::HashMap;

    pub(crate) type Parts = HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

    pub(crate) fn parts(checkpoint: &Checkpoint) -> (Parts, HashMap<String, String>) {
        let bytes = checkpoint.to_bytes().unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let parts = file
            .iter()
            .map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
            .collect();
        (parts, metadata.metadata().clone().unwrap())
    }

    /// CRC-32 (IEEE 802.3) as the file has it, written once more.
    fn checksum(parts: &Parts) -> String {
        let mut names: Vec<_> = parts.keys().collect();
        names.sort();
        let mut crc = u32::MAX;
        for name in names {
            let (dtype, shape, bytes) = &parts[name];
            let about = format!("{} {name} {dtype:?} {shape:?}", name.len());
            for byte in about.bytes().chain(bytes.iter().copied()) {
                crc ^= u32::from(byte);
                for _ in 0..8 {
                    crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
                }
            }
        }
        format!("{:08x}", !crc)
    }

    pub(crate) fn file(parts: &Parts, mut words: HashMap<String, String>) -> Vec<u8> {
        words.insert("checksum".to_owned(), checksum(parts));
        let views = parts.iter().map(|(name, (dtype, shape, bytes))| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, Some(words)).unwrap()
    }

    pub(crate) fn change(checkpoint: &Checkpoint, change: impl FnOnce(&mut Parts)) -> Checkpoint {
        let (mut parts, words) = parts(checkpoint);
        change(&mut parts);
        Checkpoint::from_bytes(&file(&parts, words)).unwrap()
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let (mut run, checkpoint) = saved();
    // The forger's own hand leaves a file that loads.
    run.opt.resume(&mut run.model, &forged::change(&checkpoint, |_| ())).unwrap();

    let tensor = || "model.hidden.weight".to_owned();
    let other = forged::change(&checkpoint, |parts| {
        parts.remove(&tensor());
    });
    assert_eq!(differences(&mut run, &other), [Difference::Missing { tensor: tensor() }]);

    let other = forged::change(&checkpoint, |parts| {
        let copy = parts[&tensor()].clone();
        parts.insert("model.hidden.extra".to_owned(), copy);
    });
    let extra = Difference::Extra { tensor: "model.hidden.extra".to_owned() };
    assert_eq!(differences(&mut run, &other), [extra]);

    let other = forged::change(&checkpoint, |parts| {
        parts.get_mut(&tensor()).unwrap().1 = vec![3, 8];
    });
    let shape = Difference::Shape { tensor: tensor(), file: vec![3, 8], here: vec![8, 3] };
    assert_eq!(differences(&mut run, &other), [shape]);

    let other = forged::change(&checkpoint, |parts| {
        parts.get_mut(&tensor()).unwrap().0 = safetensors::Dtype::I32;
    });
    let (file, here) = ("I32".to_owned(), "F32".to_owned());
    let dtype = Difference::Dtype { tensor: tensor(), file, here };
    assert_eq!(differences(&mut run, &other), [dtype]);
}

/// Numbers that no training leaves: a rate of 0, a place beyond the window, more steps than can be counted.
#[test]
fn impossible_figures_are_refused() {
    let (mut run, checkpoint) = saved();
    type Edit = fn(&mut serde_json::Value);
    let edits: [(&str, Edit); 8] = [
        ("rate", |p| p["engine"]["groups"][0]["rate"] = 0.0.into()),
        ("rate", |p| p["engine"]["groups"][1]["rate"] = "NaN".into()),
        ("previous", |p| p["engine"]["groups"][0]["previous"]["rate"] = (-1.0).into()),
        ("position", |p| p["engine"]["position"] = 1_000.into()),
        ("phase", |p| p["engine"]["phase"] = "EndingWindow".into()),
        ("steps", |p| p["engine"]["steps"] = u64::MAX.into()),
        ("optimizer", |p| p["optimizer_steps"]["head"] = u64::MAX.into()),
        ("groups", |p| {
            p["engine"]["groups"].as_array_mut().unwrap().pop();
        }),
    ];
    for (name, edit) in edits {
        let other = forged::change(&checkpoint, |parts| {
            let (_, shape, bytes) = parts.get_mut("progress").unwrap();
            let mut progress = serde_json::from_slice(bytes).unwrap();
            edit(&mut progress);
            *bytes = serde_json::to_vec(&progress).unwrap();
            *shape = vec![bytes.len()];
        });
        let problem = refused(&mut run, &other);
        assert!(matches!(problem, CheckpointError::Damaged(_)), "{name}: {problem}");
    }
    let other = forged::change(&checkpoint, |parts| {
        parts.insert("progress".to_owned(), (safetensors::Dtype::U8, vec![2], b"{}".to_vec()));
    });
    assert!(matches!(refused(&mut run, &other), CheckpointError::Damaged(_)));
}

#[test]
fn another_version_is_refused() {
    let (_, checkpoint) = saved();
    let (parts, mut words) = forged::parts(&checkpoint);
    words.insert("version".to_owned(), "7".to_owned());
    let problem = problem(&forged::file(&parts, words));
    assert_eq!(problem, CheckpointError::Version { found: "7".to_owned(), known: 6 });
    assert!(problem.to_string().contains("version 7"), "{problem}");
}

fn problem(bytes: &[u8]) -> CheckpointError {
    match Checkpoint::from_bytes(bytes) {
        Err(Error::Checkpoint { path: None, problem }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let bytes = saved().1.to_bytes().unwrap();
    for length in 0..bytes.len() {
        let problem = problem(&bytes[..length]);
        assert!(matches!(problem, CheckpointError::NotACheckpoint(_)), "{length}: {problem}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    problem(&longer);
}

/// Any bit of the file.
#[test]
fn a_flipped_bit_is_noticed() {
    let (_, checkpoint) = saved();
    let mut bytes = checkpoint.to_bytes().unwrap();
    for index in 0..bytes.len() {
        for bit in 0..8 {
            bytes[index] ^= 1 << bit;
            let parsed = Checkpoint::from_bytes(&bytes);
            assert!(parsed.is_err(), "bit {bit} of byte {index}");
            bytes[index] ^= 1 << bit;
        }
    }
    assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint);
}

#[test]
fn files_of_other_kinds_are_refused() {
    for bytes in [&b""[..], b"{}", b"PK\x03\x04", &[0xff; 64]] {
        assert!(matches!(problem(bytes), CheckpointError::NotACheckpoint(_)));
    }
    let foreign = safetensors::serialize::<&str, safetensors::tensor::TensorView<'_>, _>([], None);
    let problem = problem(&foreign.unwrap());
    assert!(problem.to_string().contains("something else"), "{problem}");
}

proptest! {
    /// Whatever the bytes, and whatever JSON is in place of the progress, there is an error or a checkpoint, and no
    /// more than that.
    #[test]
    fn no_bytes_break_the_loader(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header in "\\{[\"a-z_:,{}\\[\\]0-9 ]{0,60}\\}",
        progress in "[{}\\[\\]\":,a-z0-9.e-]{0,80}",
    ) {
        let _ = Checkpoint::from_bytes(&bytes);
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&bytes);
        let _ = Checkpoint::from_bytes(&file);

        let (mut run, checkpoint) = saved();
        let other = forged::change(&checkpoint, |parts| {
            let bytes = progress.clone().into_bytes();
            parts.insert("progress".to_owned(), (safetensors::Dtype::U8, vec![bytes.len()], bytes));
        });
        refused(&mut run, &other);
    }
}

// ---- Places that cannot be written ----

fn io_problem(result: Result<(), Error>) -> (std::io::ErrorKind, String) {
    match result {
        Err(
            ref error @ Error::Checkpoint {
                path: Some(_),
                problem: CheckpointError::Io { kind, .. },
            },
        ) => (kind, error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, checkpoint) = saved();
    let nowhere = dir.path().join("no such folder").join("run.safetensors");
    let (kind, message) = io_problem(checkpoint.save(&nowhere));
    assert_eq!(kind, std::io::ErrorKind::NotFound);
    assert!(message.contains(&nowhere.display().to_string()), "{message}");

    let (kind, _) = io_problem(Checkpoint::open(&nowhere).map(|_| ()));
    assert_eq!(kind, std::io::ErrorKind::NotFound);

    // A folder stands in its place.
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    io_problem(checkpoint.save(&folder));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Nobody, root included, makes files there.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_cannot_be_written_is_named() {
    let (_, checkpoint) = saved();
    let (_, message) = io_problem(checkpoint.save("/proc/run.safetensors"));
    assert!(message.contains("cannot create it"), "{message}");
}

const ROOM: &str = "TLR_LITTLE_ROOM";

/// The old file survives a disk that fills up while the new one is written: here, a process that may write
/// files of 512 bytes.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (mut run, checkpoint) = saved();
    checkpoint.save(&path).unwrap();
    let mut child = std::process::Command::new("sh");
    child.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]);
    child.arg(std::env::current_exe().unwrap());
    child.args(["--exact", "resume::in_a_process_with_little_room", "--ignored"]).env(ROOM, &path);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(Checkpoint::open(&path).unwrap().to_bytes() == checkpoint.to_bytes());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // And the next attempt, with room again, succeeds.
    run.step(30);
    run.opt.save(&run.model, &path).unwrap();
    assert!(Checkpoint::open(&path).unwrap().to_bytes() != checkpoint.to_bytes());
}

#[test]
#[ignore = "run by another, in a process of its own"]
fn in_a_process_with_little_room() {
    let (mut run, _) = saved();
    run.step(30);
    let (kind, message) = io_problem(run.opt.save(&run.model, std::env::var(ROOM).unwrap()));
    assert_eq!(kind, std::io::ErrorKind::FileTooLarge, "{message}");
}

/// Fails where two writers share a name for the file that they have not finished.
#[test]
fn two_savers_and_readers_find_whole_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (mut run, first) = saved();
    run.step(30);
    let second = run.opt.checkpoint(&run.model).unwrap();
    let (first_bytes, second_bytes) = (first.to_bytes().unwrap(), second.to_bytes().unwrap());
    assert!(first_bytes != second_bytes);
    first.save(&path).unwrap();
    std::thread::scope(|scope| {
        for checkpoint in [&first, &second] {
            scope.spawn(|| (0..200).for_each(|_| checkpoint.save(&path).unwrap()));
        }
        scope.spawn(|| {
            for _ in 0..10_000 {
                let bytes = std::fs::read(&path).unwrap();
                assert!(bytes == first_bytes || bytes == second_bytes);
            }
        });
    });
    Checkpoint::open(&path).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// What a killed writer has left is removed by the next, and nothing else is: no file that somebody writes, and
/// none of another name.
#[test]
fn what_a_killed_writer_leaves_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let names =
        ["run.1-0.partial", "run.2-0.partial", "run.a.partial", "ran.1-0.partial", "run.1-0"];
    names.iter().for_each(|name| std::fs::write(at(name), "half").unwrap());
    let written = std::fs::File::open(at("run.2-0.partial")).unwrap();
    written.lock().unwrap();
    saved().1.save(at("run")).unwrap();
    let there: Vec<_> = names.iter().filter(|name| at(name).exists()).collect();
    assert_eq!(there, [&"run.2-0.partial", &"run.a.partial", &"ran.1-0.partial", &"run.1-0"]);
}

#[test]
fn attachments_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (mut run, checkpoint) = saved();
    let checkpoint =
        checkpoint.attach("rng", vec![1, 2, 3]).attach("rng", vec![4]).attach("none", []);
    checkpoint.save(&path).unwrap();
    let back = Checkpoint::open(&path).unwrap();
    assert_eq!(back.attachment("rng"), Some(&[4][..]));
    assert_eq!(back.attachment("none"), Some(&[][..]));
    assert_eq!(back.attachment("other"), None);
    run.opt.resume(&mut run.model, &back).unwrap();
}
