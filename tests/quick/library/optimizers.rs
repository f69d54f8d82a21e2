//! `tlr::optim`: the steps of dfdx's optimizers to the bit, and none at all where a gradient is
//! missing.

use dfdx::{
    optim::{
        AdamConfig, Momentum, Optimizer, OptimizerUpdateError, RMSpropConfig, SgdConfig,
        WeightDecay,
    },
    prelude::*,
};
use support::{
    quadratic::Random,
    values::{bits, gradients, set_weights, weights},
};
use tlr::{optim, Backend, Error, Newton, NewtonConfig, PerLayer, TunableOptimizer, Window};

type Net = (Linear<3, 8>, BatchNorm1D<8>, Tanh, Linear<8, 2>);
type Double = <Net as BuildOnDevice<Cpu, f64>>::Built;

fn net<E: Dtype>() -> <Net as BuildOnDevice<Cpu, E>>::Built
where
    Cpu: Backend<E>,
    Net: BuildOnDevice<Cpu, E>,
{
    Cpu::default().build_module::<Net, E>()
}

/// Both from the same weights on the same gradients, some of which are 0 or −0.
fn same_steps<E, M, A, B>(model: &M, mut theirs: A, mut ours: B)
where
    E: Dtype,
    M: TensorCollection<E, Cpu> + Clone,
    Cpu: Backend<E>,
    A: Optimizer<M, Cpu, E>,
    B: Optimizer<M, Cpu, E>,
{
    let mut random = Random(7);
    let n = weights(model).len();
    let (mut a, mut b) = (model.clone(), model.clone());
    set_weights(&mut a, &weights(model));
    set_weights(&mut b, &weights(model));
    for step in 0..30 {
        let mut g = random.vector(n);
        g[0] = [0.0, -0.0][step % 2];
        if step % 10 == 9 {
            g.fill(0.0);
        }
        let gradients = gradients(model, &g);
        theirs.update(&mut a, &gradients).unwrap();
        ours.update(&mut b, &gradients).unwrap();
        assert_eq!(bits(&a), bits(&b), "step {step}");
    }
    assert_ne!(bits(&a), bits(model));
}

macro_rules! same {
    ($($name:ident: $Optimizer:ident, $cfg:expr;)+) => {$(
        #[test]
        fn $name() {
            let model = net::<f32>();
            let theirs = dfdx::optim::$Optimizer::new(&model, $cfg);
            same_steps(&model, theirs, optim::$Optimizer::new(&model, $cfg));
            let model = net::<f64>();
            let theirs = dfdx::optim::$Optimizer::new(&model, $cfg);
            same_steps(&model, theirs, optim::$Optimizer::new(&model, $cfg));
        }
    )+};
}

const LR: f64 = 0.037;
const L2: Option<WeightDecay> = Some(WeightDecay::L2(0.01));
const DECOUPLED: Option<WeightDecay> = Some(WeightDecay::Decoupled(0.01));

same! {
    sgd: Sgd, SgdConfig { lr: LR, momentum: None, weight_decay: None };
    sgd_with_momentum: Sgd,
        SgdConfig { lr: LR, momentum: Some(Momentum::Classic(0.9)), weight_decay: L2 };
    sgd_of_nesterov: Sgd,
        SgdConfig { lr: LR, momentum: Some(Momentum::Nesterov(0.9)), weight_decay: DECOUPLED };
    adam: Adam, AdamConfig { lr: LR, betas: [0.9, 0.99], eps: 1e-6, weight_decay: None };
    adam_with_l2: Adam, AdamConfig { lr: LR, betas: [0.9, 0.99], eps: 1e-6, weight_decay: L2 };
    rmsprop: RMSprop, RMSpropConfig { lr: LR, ..Default::default() };
    rmsprop_centered: RMSprop,
        RMSpropConfig {
            lr: LR,
            alpha: 0.8,
            eps: 1e-6,
            momentum: Some(0.5),
            centered: true,
            weight_decay: L2,
        };
}

#[test]
fn adamw() {
    let model = net::<f32>();
    let cfg = optim::AdamWConfig { lr: LR, betas: [0.9, 0.99], eps: 1e-6, weight_decay: 0.1 };
    let theirs = dfdx::optim::Adam::new(
        &model,
        AdamConfig {
            lr: LR,
            betas: [0.9, 0.99],
            eps: 1e-6,
            weight_decay: Some(WeightDecay::Decoupled(0.1)),
        },
    );
    same_steps(&model, theirs, optim::AdamW::new(&model, cfg));
}

/// Against dfdx's with decay for the matrices and without for all else, to the bit, and through a
/// reset and a copy for each layer. Fails if a bias decays, if a matrix does not, or if one of the
/// rules keeps its decay.
macro_rules! only_matrices_decay {
    ($($name:ident: $Optimizer:ident, $cfg:expr, $Theirs:ident, $with:expr;)+) => {$(
        #[test]
        fn $name() {
            let model = net::<f64>();
            let with: dfdx::optim::$Theirs<_, f64, Cpu> = dfdx::optim::$Theirs::new(&model, $with);
            let mut without = dfdx::optim::$Theirs::new(&model, $with);
            without.cfg.weight_decay = None;
            let mut ours = optim::$Optimizer::new(&model, $cfg).decay_matrices_only();
            ours.reset(&model);
            let (a, b) = (after(&model, with), after(&model, without));
            let per_layer = after(&model, PerLayer::new(&model, ours.clone()));
            for ours in [after(&model, ours), per_layer] {
                assert_eq!(ours.0.weight.as_vec(), a.0.weight.as_vec());
                assert_eq!(ours.0.bias.as_vec(), b.0.bias.as_vec());
                assert_eq!(ours.1.scale.as_vec(), b.1.scale.as_vec());
                assert_eq!(ours.1.bias.as_vec(), b.1.bias.as_vec());
                assert_eq!(ours.3.weight.as_vec(), a.3.weight.as_vec());
            }
            assert_ne!(a.1.scale.as_vec(), b.1.scale.as_vec());
            assert_ne!(a.3.weight.as_vec(), b.3.weight.as_vec());
        }
    )+};
}

/// The model after five steps by random gradients.
fn after(model: &Double, mut opt: impl Optimizer<Double, Cpu, f64>) -> Double {
    let (mut moved, mut random) = (model.clone(), Random(7));
    let n = weights(model).len();
    set_weights(&mut moved, &random.vector(n));
    for _ in 0..5 {
        opt.update(&mut moved, &gradients(model, &random.vector(n))).unwrap();
    }
    moved
}

const SGD: SgdConfig =
    SgdConfig { lr: LR, momentum: Some(Momentum::Nesterov(0.9)), weight_decay: DECOUPLED };
const ADAM: AdamConfig =
    AdamConfig { lr: LR, betas: [0.9, 0.99], eps: 1e-6, weight_decay: DECOUPLED };
const RMSPROP: RMSpropConfig = RMSpropConfig {
    lr: LR,
    alpha: 0.8,
    eps: 1e-6,
    momentum: Some(0.5),
    centered: true,
    weight_decay: L2,
};

only_matrices_decay! {
    sgd_decays_matrices_only: Sgd, SGD, Sgd, SGD;
    sgd_decays_matrices_only_by_l2: Sgd, SgdConfig { weight_decay: L2, ..SGD }, Sgd,
        SgdConfig { weight_decay: L2, ..SGD };
    adam_decays_matrices_only: Adam, ADAM, Adam, ADAM;
    adamw_decays_matrices_only: AdamW,
        optim::AdamWConfig { lr: LR, betas: [0.9, 0.99], eps: 1e-6, weight_decay: 0.01 },
        Adam, ADAM;
    rmsprop_decays_matrices_only: RMSprop, RMSPROP, RMSprop, RMSPROP;
}

/// After a reset the next step is a new optimizer's; the step count of Adam goes too.
#[test]
fn a_reset_forgets_all_that_accumulated() {
    let model = net::<f64>();
    let cfg = AdamConfig { lr: LR, ..Default::default() };
    let mut ours = optim::Adam::new(&model, cfg);
    let mut moved = model.clone();
    let n = weights(&model).len();
    ours.update(&mut moved, &gradients(&model, &Random(1).vector(n))).unwrap();
    assert_eq!(ours.steps(), 1);
    ours.reset(&model);
    same_steps(&model, dfdx::optim::Adam::new(&model, cfg), ours);
}

/// dfdx moves what it can and then says so; here nothing moves and nothing accumulates.
#[test]
fn without_a_gradient_for_each_nothing_moves() {
    let mut model = net::<f64>();
    let mut opt = optim::Sgd::new(
        &model,
        SgdConfig { lr: LR, momentum: Some(Momentum::Classic(0.9)), weight_decay: None },
    );
    let before = bits(&model);
    // Of the last layer only.
    let dev = Cpu::default();
    let x: Tensor<Rank2<4, 8>, f64, _> = dev.ones();
    let part = model.3.forward(x.leaky_trace()).square().mean().backward();
    let error = opt.update(&mut model, &part).unwrap_err();
    match error {
        OptimizerUpdateError::UnusedParams(unused) => assert_eq!(unused.ids.len(), 4),
        other => panic!("{other}"),
    }
    assert_eq!(bits(&model), before);
    assert_eq!(opt.steps(), 0);

    // Gradients that are there and 0 are no such case.
    let n = weights(&model).len();
    let zero = gradients(&model, &vec![0.0; n]);
    opt.update(&mut model, &zero).unwrap();
    assert_eq!(opt.steps(), 1);
}

/// Within Newton, one rate or one a layer, training goes on after such a step as if there had been
/// none, momentum and all. Fails where an update that failed has moved a layer, or where it resets
/// the optimizer.
#[test]
fn a_step_without_a_gradient_for_each_leaves_no_trace() {
    fn goes_on<Opt>(make: impl Fn(&Double) -> Opt)
    where
        Opt: TunableOptimizer<Model = Double, Dtype = f64, Device = Cpu>,
    {
        let run = |fails: bool| {
            let mut model = net::<f64>();
            let config = NewtonConfig::default().window(Window::steps(3).unwrap());
            let mut newton = Newton::new(&model, make(&model), config).unwrap();
            let x: Tensor<Rank2<4, 8>, f64, _> = Cpu::default().ones();
            for step in 0..10 {
                if fails && step % 4 == 1 {
                    let last = model.3.forward(x.leaky_trace()).square().mean().backward();
                    let failed = newton.step(&mut model, &last, 1.0);
                    assert!(matches!(failed, Err(Error::UnusedParameters { .. })), "{failed:?}");
                }
                let n = weights(&model).len();
                let gradients = gradients(&model, &Random(step).vector(n));
                newton.step(&mut model, &gradients, 1.0).unwrap();
            }
            (bits(&model), newton.history().to_vec())
        };
        assert_eq!(run(true), run(false));
    }
    let momentum = |model: &Double| {
        let momentum = Some(Momentum::Classic(0.9));
        optim::Sgd::new(model, SgdConfig { lr: LR, momentum, weight_decay: None })
    };
    goes_on(momentum);
    goes_on(|model| PerLayer::new(model, momentum(model)));
    goes_on(|model| optim::Clip::by_norm(momentum(model), 1.0).unwrap());
}

/// A step by gradients of its own is the same step: weights, rates and decisions to the bit, around
/// any optimizer. A gradient that is missing is as one of zeros. Fails where the update is made
/// twice or not at all, or where one layer's gradients go to another.
#[test]
fn a_step_by_gradients_of_its_own_is_the_same() {
    fn same<Opt>(make: impl Fn(&Double) -> Opt)
    where
        Opt: TunableOptimizer<Model = Double, Dtype = f64, Device = Cpu>,
    {
        let run = |owned: bool| {
            let mut model = net::<f64>();
            let config = NewtonConfig::default().window(Window::steps(3).unwrap());
            let mut newton = Newton::new(&model, make(&model), config).unwrap();
            let x: Tensor<Rank2<4, 8>, f64, _> = Cpu::default().ones();
            let n = weights(&model).len();
            for step in 0..20 {
                let traced = if owned { x.leaky_trace() } else { x.trace(model.alloc_grads()) };
                let mut g = match step % 5 {
                    // Of the last layer only.
                    4 => model.3.forward(traced).square().mean().backward(),
                    _ => gradients(&model, &Random(step).vector(n)),
                };
                if owned {
                    newton.step_owned(&mut model, &mut g, 1.0).unwrap();
                } else {
                    newton.step(&mut model, &g, 1.0).unwrap();
                }
            }
            (bits(&model), newton.history().to_vec())
        };
        assert_eq!(run(true), run(false));
    }
    let cfg = SgdConfig { lr: LR, momentum: Some(Momentum::Classic(0.9)), weight_decay: L2 };
    let ours = |model: &Double| optim::Sgd::new(model, cfg);
    let theirs = |model: &Double| dfdx::optim::Sgd::new(model, cfg);
    same(ours);
    same(theirs);
    same(|model| PerLayer::new(model, ours(model)));
    same(|model| PerLayer::new(model, theirs(model)));
    same(|model| optim::Clip::by_norm(ours(model), 1.0).unwrap());
    same(|model| optim::Accumulate::new(theirs(model), 2).unwrap());
}

/// Around ours, Newton learns the rates it learns around dfdx's: one, and one a layer.
#[test]
fn the_learned_rates_are_the_same() {
    fn rates<Opt>(model: &Opt::Model, opt: Opt) -> Vec<u64>
    where
        Opt: TunableOptimizer<Dtype = f64, Device = Cpu>,
    {
        let mut model = model.clone();
        let config = NewtonConfig::default().window(Window::steps(3).unwrap());
        let mut opt = Newton::new(&model, opt, config).unwrap();
        let target = weights(&model);
        let mut w: Vec<f64> = target.iter().map(|w| w + 1.0).collect();
        set_weights(&mut model, &w);
        for _ in 0..40 {
            w = weights(&model);
            let g: Vec<f64> = w.iter().zip(&target).map(|(w, t)| w - t).collect();
            let loss = g.iter().map(|g| g * g / 2.0).sum::<f64>();
            let gradients = gradients(&model, &g);
            opt.step(&mut model, &gradients, loss).unwrap();
        }
        let rates = opt.rates();
        assert!(rates.iter().all(|(_, rate)| *rate > 1e-3), "{rates:?}");
        rates.iter().map(|(_, rate)| rate.to_bits()).collect()
    }

    let model = net::<f64>();
    let cfg = SgdConfig { lr: 1e-4, momentum: Some(Momentum::Classic(0.5)), weight_decay: None };
    let (theirs, ours) = (|| dfdx::optim::Sgd::new(&model, cfg), || optim::Sgd::new(&model, cfg));
    assert_eq!(rates(&model, theirs()), rates(&model, ours()));
    let (theirs, ours) = (PerLayer::new(&model, theirs()), PerLayer::new(&model, ours()));
    assert_eq!(rates(&model, theirs), rates(&model, ours));
}

/// Of each optimizer, dfdx's own as well, before anything is trained.
#[test]
fn hyperparameters_out_of_range_are_refused() {
    let model = net::<f32>();
    fn refused<Opt>(model: &Opt::Model, opt: Opt, name: &str, value: f64)
    where
        Opt: TunableOptimizer<Dtype = f32, Device = Cpu>,
    {
        match Newton::new(model, opt, NewtonConfig::default()).map(|_| ()) {
            Err(Error::OutOfRange { what, value: found, .. }) => {
                assert_eq!((what, found.to_bits()), (name, value.to_bits()));
            }
            other => panic!("{name} of {value}: {other:?}"),
        }
    }
    let decays = [-1e-9, f64::NAN, f64::INFINITY];
    let kept = [-0.1, 1.0, f64::NAN];
    for (decay, kept) in decays.into_iter().zip(kept) {
        for decayed in [WeightDecay::L2(decay), WeightDecay::Decoupled(decay)].map(Some) {
            let sgd = SgdConfig { weight_decay: decayed, ..Default::default() };
            refused(&model, optim::Sgd::new(&model, sgd), "sgd: weight_decay", decay);
            refused(&model, dfdx::optim::Sgd::new(&model, sgd), "sgd: weight_decay", decay);
            let adam = AdamConfig { weight_decay: decayed, ..Default::default() };
            refused(&model, optim::Adam::new(&model, adam), "adam: weight_decay", decay);
            let rmsprop = RMSpropConfig { weight_decay: decayed, ..Default::default() };
            let rmsprop = optim::RMSprop::new(&model, rmsprop);
            refused(&model, rmsprop, "rmsprop: weight_decay", decay);
        }
        let adamw = optim::AdamWConfig { weight_decay: decay, ..Default::default() };
        refused(&model, optim::AdamW::new(&model, adamw), "adam: weight_decay", decay);

        for momentum in [Momentum::Classic(kept), Momentum::Nesterov(kept)].map(Some) {
            let sgd = SgdConfig { momentum, ..Default::default() };
            refused(&model, optim::Sgd::new(&model, sgd), "sgd: momentum", kept);
        }
        let adam = AdamConfig { betas: [0.9, kept], ..Default::default() };
        refused(&model, optim::Adam::new(&model, adam), "adam: betas", kept);
        let rmsprop = RMSpropConfig { momentum: Some(kept), ..Default::default() };
        refused(&model, optim::RMSprop::new(&model, rmsprop), "rmsprop: momentum", kept);
        let rmsprop = RMSpropConfig { alpha: kept, ..Default::default() };
        refused(&model, optim::RMSprop::new(&model, rmsprop), "rmsprop: alpha", kept);
    }
}
