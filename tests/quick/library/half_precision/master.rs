//! With a master in f32.

use super::*;
use dfdx::nn::builders;
use tlr::{
    optim::Sgd, CheckpointError, Difference, Error, LossScale, MixedPrecision, Outcome, Trainer,
};

type Half = AMP<f16>;
type Builder = (builders::Linear<4, 16>, builders::BatchNorm1D<16>, Tanh, builders::Linear<16, 1>);
type Net<E> = <Builder as BuildOnDevice<Cpu, E>>::Built;
type Master = Sgd<Net<f32>, f32, Cpu>;
type Mixed = MixedPrecision<Net<Half>, Half, Master, tlr::engine::NewtonRule>;

fn newton(master: &Net<f32>, lr: f64) -> Result<Trainer<Master, tlr::engine::NewtonRule>, Error> {
    let sgd = Sgd::new(master, SgdConfig { lr, ..Default::default() });
    Newton::new(master, sgd, NewtonConfig::default().window(Window::steps(5)?))
}

struct Run {
    dev: Cpu,
    model: Net<Half>,
    opt: Mixed,
}

impl Run {
    fn new(lr: f64, scale: LossScale) -> Self {
        let dev = Cpu::seed_from_u64(1);
        let model = dev.build_module::<Builder, Half>();
        let opt = MixedPrecision::new(&model, scale, |master| newton(master, lr)).unwrap();
        Self { dev, model, opt }
    }

    fn steps(&mut self, seeds: std::ops::Range<u64>) {
        for seed in seeds {
            self.step(seed);
        }
    }

    /// On fresh inputs; the loss before it.
    fn step(&mut self, seed: u64) -> f64 {
        self.step_at(seed, 1.0)
    }

    /// The same, with gradients times a factor that the loss does not have.
    fn step_at(&mut self, seed: u64, factor: f64) -> f64 {
        let dev = Cpu::seed_from_u64(seed);
        let x: Tensor<Rank2<32, 4>, Half, _> = dev.sample_normal();
        let y = x.clone().sum::<Rank1<32>, _>().tanh().reshape::<Rank2<32, 1>>();
        let prediction = self.model.forward_mut(x.trace(self.model.alloc_grads()));
        let loss = mse_loss(prediction, y);
        let value = f64::from(loss.array().0);
        let loss = loss * AMP(f16::from_f64(factor));
        let gradients = self.opt.scaled(loss).unwrap().backward();
        self.opt.step(&mut self.model, &gradients, value).unwrap();
        value
    }

    fn weights(&self) -> (Vec<Half>, Vec<f32>) {
        (self.model.3.weight.as_vec(), self.opt.master().3.weight.as_vec())
    }
}

// 1e-6 moves no weight in half precision, and so teaches nothing of the rate. A master moves
// all the same; without one the rate is raised until something does.
#[test]
fn learns_from_rates_that_move_nothing_in_half_precision() {
    let mut run = Run::new(1e-6, LossScale::default());
    let first = run.step(0);
    let last = (1..300).map(|seed| run.step(seed)).fold(0.0, |_, loss| loss);
    let highest = run.opt.trainer().history().iter().map(|d| d.to).fold(0.0, f64::max);
    assert!(last < first / 4.0 && highest > 1e-2, "{first} {last} {highest}");

    let dev = Cpu::seed_from_u64(1);
    let mut model: Model<Half> = BuildModule::build(&dev);
    let sgd = dfdx::optim::Sgd::new(&model, SgdConfig { lr: 1e-6, ..Default::default() });
    let config = NewtonConfig::default().window(Window::steps(5).unwrap());
    let mut opt = Newton::new(&model, sgd, config).unwrap();
    let x: Tensor<Rank2<32, 4>, Half, _> = dev.sample_normal();
    for _ in 0..300 {
        let loss = model.forward(x.trace(model.alloc_grads())).square().mean::<Rank0, _>();
        let value = f64::from(loss.array().0);
        opt.step(&mut model, &loss.backward(), value).unwrap();
    }
    assert_eq!(opt.history()[0].outcome, Outcome::Ramped);
    assert!(opt.rates()[0].1 > 1e-2, "{:?}", opt.rates());
}

// Fails if the gradients are not unscaled, or the model is not the master's rounding.
#[test]
fn the_model_is_the_master_rounded_and_the_scale_leaves_no_trace() {
    let mut run = Run::new(0.1, LossScale::default().start(1.0).interval(100));
    let mut scaled = Run::new(0.1, LossScale::default().start(256.0).interval(100));
    for seed in 0..20 {
        run.step(seed);
        scaled.step(seed);
        let (model, master) = scaled.weights();
        assert!(model.iter().zip(&master).all(|(half, wide)| half.0 == f16::from_f32(*wide)));
    }
    let (a, b) = (run.weights().1, scaled.weights().1);
    // Small gradients are rounded at a scale of 1, the less at 256.
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-2), "{a:?} {b:?}");
    // The running means are the model's, and the master has them too.
    let (half, wide) = (&scaled.model.1.running_mean, &scaled.opt.master().1.running_mean);
    let half: Vec<f32> = half.as_vec().iter().map(|v| v.0.to_f32()).collect();
    assert_eq!(half, wide.as_vec());
    assert!(half.iter().any(|mean| *mean != 0.0));
}

// Left out, not counted, and half the scale; doubled after `interval` good ones, up to the
// largest.
#[test]
fn overflow_leaves_the_step_out() {
    let mut run = Run::new(0.1, LossScale::default().start(16384.0).interval(3));
    run.step(0);
    let (weights, steps) = (run.weights(), run.opt.trainer().steps());
    run.step_at(1, 4.0 * 65504.0); // the factor alone is infinite in half precision
    assert_eq!((run.weights(), run.opt.trainer().steps()), (weights, steps));
    assert_eq!((run.opt.loss_scale(), run.opt.skipped_steps()), (8192.0, 1));
    let scales: Vec<f64> = (2..14)
        .map(|seed| {
            run.step(seed);
            run.opt.loss_scale()
        })
        .collect();
    assert_eq!(scales[..7], [8192.0, 8192.0, 16384.0, 16384.0, 16384.0, 32768.0, 32768.0]);
    assert!(scales.iter().all(|scale| *scale <= 32768.0));
}

// At a scale of 1 it is not the scale's fault: the safeguard undoes the window.
#[test]
fn gradients_that_overflow_without_a_scale_are_undone() {
    let mut run = Run::new(0.1, LossScale::default().start(1.0).interval(1000));
    run.steps(0..5);
    // The ramp ends with the second. The weights are gone after the third; the loss tells of
    // it, and once more.
    for seed in 5..10 {
        run.step_at(seed, f64::INFINITY);
    }
    let last = run.opt.trainer().history().last().unwrap().outcome;
    assert!(matches!(last, Outcome::RolledBack(_)), "{last}");
    let (model, master) = run.weights();
    assert!(master.iter().all(|w| w.is_finite()) && model.iter().all(|w| w.0.is_finite()));
}

#[test]
fn goes_on_after_a_resume_to_the_bit() {
    let scale = LossScale::default().start(1024.0).interval(7);
    let mut straight = Run::new(0.01, scale);
    straight.steps(0..13);
    let checkpoint = straight.opt.checkpoint().unwrap();
    let mut resumed = Run::new(3.0, scale);
    resumed.step(99);
    resumed.opt.resume(&mut resumed.model, &checkpoint).unwrap();
    for seed in 13..40 {
        assert_eq!(straight.step(seed), resumed.step(seed));
    }
    assert_eq!(straight.opt.checkpoint().unwrap(), resumed.opt.checkpoint().unwrap());
    assert_eq!(straight.weights(), resumed.weights());
    let _ = &straight.dev;

    // A checkpoint of training without a master has no loss scale.
    let plain = resumed.opt.trainer().checkpoint(resumed.opt.master()).unwrap();
    let before = resumed.opt.checkpoint().unwrap();
    let refused = resumed.opt.resume(&mut resumed.model, &plain).unwrap_err();
    let Error::Checkpoint { problem: CheckpointError::Differs(all), .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(*all, [Difference::Missing { tensor: "tlr.loss_scale".to_owned() }]);
    assert_eq!(resumed.opt.checkpoint().unwrap(), before);
}

#[test]
fn a_file_holds_all_of_it() {
    let scale = LossScale::default().start(1024.0).interval(7);
    let mut run = Run::new(0.01, scale);
    run.steps(0..9);
    let path = std::env::temp_dir().join(format!("tlr-half-{}.safetensors", std::process::id()));
    run.opt.save(&path).unwrap();
    let mut loaded = Run::new(3.0, scale);
    loaded.opt.load(&mut loaded.model, &path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(loaded.opt.checkpoint().unwrap(), run.opt.checkpoint().unwrap());
    assert_eq!(loaded.weights(), run.weights());
}

// Fails where a checkpoint, or a step, is taken for that of another optimizer or model.
#[test]
fn another_interval_or_model_is_refused() {
    let mut run = Run::new(0.01, LossScale::default().interval(7));
    run.step(1);
    let checkpoint = run.opt.checkpoint().unwrap();
    let mut other = Run::new(0.01, LossScale::default().interval(8));
    let refused = other.opt.resume(&mut other.model, &checkpoint).unwrap_err().to_string();
    assert!(refused.contains("`loss_scale.interval` is 7 in the file and 8 here"), "{refused}");

    // With all that differs besides. Fails if the loss scale hides it.
    let scale = LossScale::default().interval(8);
    let mut other_rule = MixedPrecision::<_, Half, _, _>::new(&other.model, scale, |master| {
        let sgd = Sgd::new(master, SgdConfig::default());
        Newton::new(master, sgd, NewtonConfig::default().window(Window::steps(6)?))
    })
    .unwrap();
    let refused = other_rule.resume(&mut other.model, &checkpoint).unwrap_err().to_string();
    assert!(refused.contains("interval") && refused.contains("`window`"), "{refused}");
    std::mem::swap(&mut run.model, &mut other.model);
    let (before, weights) = (run.opt.checkpoint().unwrap(), run.weights());
    let x: Tensor<Rank2<32, 4>, Half, _> = run.dev.sample_normal();
    let loss = run.model.forward_mut(x.trace(run.model.alloc_grads())).square().mean();
    let gradients = run.opt.scaled(loss).unwrap().backward();
    let refused = run.opt.step(&mut run.model, &gradients, 1.0).unwrap_err();
    assert!(matches!(refused, Error::ModelChanged(_)), "{refused}");
    let refused = run.opt.resume(&mut run.model, &checkpoint).unwrap_err();
    assert!(matches!(refused, Error::ModelChanged(_)), "{refused}");
    assert_eq!((run.opt.checkpoint().unwrap(), run.weights()), (before, weights));
}

// Fails if the loss scale keeps a trainer in f32 from the weights that it was trained with.
#[test]
fn training_goes_on_in_full_precision() {
    let mut run = Run::new(0.01, LossScale::default());
    run.steps(0..9);
    let mut model = run.dev.build_module::<Builder, f32>();
    let mut opt = newton(&model, 3.0).unwrap();
    opt.resume(&mut model, &run.opt.checkpoint().unwrap()).unwrap();
    assert_eq!(model.3.weight.as_vec(), run.weights().1);
    assert_eq!(opt.rates(), run.opt.trainer().rates());
}

// With the safeguard off a loss that is not finite is an error, and the step is not made. Fails
// where the scale counts it.
#[test]
fn a_failed_step_does_not_count_for_the_scale() {
    let dev = Cpu::seed_from_u64(1);
    let mut model = dev.build_module::<Builder, Half>();
    let scale = LossScale::default().interval(2);
    let mut opt = MixedPrecision::<_, Half, _, _>::new(&model, scale, |master| {
        let sgd = Sgd::new(master, SgdConfig { lr: 0.01, ..Default::default() });
        Newton::new(master, sgd, NewtonConfig::default().ramp(false).safeguard(None))
    })
    .unwrap();
    for _ in 0..5 {
        let x: Tensor<Rank2<32, 4>, Half, _> = dev.sample_normal();
        let loss = model.forward_mut(x.trace(model.alloc_grads())).square().mean();
        let gradients = opt.scaled(loss).unwrap().backward();
        let failed = opt.step(&mut model, &gradients, f64::NAN).unwrap_err();
        assert!(matches!(failed, Error::NonFiniteLoss { .. }), "{failed}");
    }
    assert_eq!(opt.loss_scale(), 1024.0);
}

// Fails if there is no way on after an error that names one.
#[test]
fn after_too_many_rollbacks_it_goes_on() {
    let mut run = Run::new(0.01, LossScale::default());
    let failed = (0..100).find_map(|_| {
        let zeros = run.model.alloc_grads();
        run.opt.step(&mut run.model, &zeros, f64::NAN).err()
    });
    assert!(matches!(failed, Some(Error::TooManyRollbacks { .. })), "{failed:?}");
    run.opt.reset().unwrap();
    let before = run.weights();
    for seed in 0..20 {
        run.step(seed);
    }
    assert_ne!(run.weights(), before);
    assert!(!run.opt.trainer_mut().take_history().is_empty());
    assert!(run.opt.trainer().history().is_empty());
    let rate = run.opt.trainer().rates()[0].1;
    let (_, weights) = run.weights();
    let (optimizer, master) = run.opt.into_inner();
    assert_eq!((optimizer.rate(0), master.3.weight.as_vec()), (rate, weights));
}

// Fails if the master is made of a tensor's memory before its layout is known: a broadcast has
// fewer elements there, and a permuted one has them in another order.
#[test]
fn a_view_is_refused() {
    fn refused<M, W>(model: &M) -> Error
    where
        M: TensorCollection<Half, Cpu, To<f32, Cpu> = (Net<f32>, W)> + Clone,
        W: TensorCollection<f32, Cpu, To<f32, Cpu> = W> + Clone,
    {
        let made = MixedPrecision::<_, Half, _, _>::new(model, LossScale::default(), |master| {
            let sgd = Sgd::new(master, SgdConfig { lr: 0.01, ..Default::default() });
            Newton::new(master, sgd, NewtonConfig::default())
        });
        made.map(|_| ()).unwrap_err()
    }
    let dev = Cpu::seed_from_u64(1);
    let view = Error::NotContiguous { tensor: "1".into() };
    let row: Tensor<Rank1<3>, Half, _> = dev.sample_normal();
    let broadcast: Tensor<Rank2<2, 3>, Half, _> = row.broadcast();
    assert_eq!(refused(&(dev.build_module::<Builder, Half>(), broadcast)), view);
    let whole: Tensor<Rank2<2, 3>, Half, _> = dev.sample_normal();
    let permuted: Tensor<Rank2<3, 2>, Half, _> = whole.permute();
    assert_eq!(refused(&(dev.build_module::<Builder, Half>(), permuted)), view);
}

#[test]
fn debug_shows_scale_and_rates() {
    let run = Run::new(0.125, LossScale::default().start(1024.0));
    let text = format!("{:?}", run.opt);
    let shown = ["MixedPrecision { scale: 1024.0", "skipped: 0", "Trainer", "0.125"];
    assert!(shown.iter().all(|part| text.contains(part)), "{text}");
}

// Fails where bytes of the caller's own take the place of the loss scale, or the other way round.
#[test]
fn an_attachment_may_have_the_same_name() {
    let mut run = Run::new(0.01, LossScale::default().start(64.0));
    run.step(1);
    let attached = run.opt.checkpoint().unwrap().attach("loss_scale", [7]);
    let read = tlr::Checkpoint::from_bytes(&attached.to_bytes().unwrap()).unwrap();
    let mut other = Run::new(0.01, LossScale::default().start(2.0));
    other.opt.resume(&mut other.model, &read).unwrap();
    assert_eq!((other.opt.loss_scale(), read.attachment("loss_scale")), (64.0, Some(&[7][..])));
}

#[test]
fn scales_out_of_range() {
    let model = Cpu::default().build_module::<Builder, Half>();
    for (start, interval) in [(0.0, 1), (0.5, 1), (3.0, 1), (65536.0, 1), (f64::NAN, 1), (2.0, 0)] {
        let scale = LossScale::default().start(start).interval(interval);
        let made = MixedPrecision::<_, Half, _, _>::new(&model, scale, |m| newton(m, 0.1));
        assert!(matches!(made.map(|_| ()), Err(Error::OutOfRange { .. })), "{start} {interval}");
    }
}
