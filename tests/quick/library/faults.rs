//! Every error there is: by variant, by what it tells the user, and that it left the model alone.

use dfdx::{
    nn::{modules::Linear, ModuleVisitor},
    optim::*,
    prelude::*,
};
use support::values::{bits, gradients, values, vector, Vector};
use tlr::{
    engine::RATES,
    layers::{LayerOptions, LayerVisitor, LayerVisitorMut, Layers, TrainableLr},
    Cause, Error, Family, Newton, NewtonConfig, Outcome, PerLayer, Safeguard, Step, Trainer,
    TunableOptimizer, Window,
};

type Model = Vector<2>;

fn sgd<M>(model: &M, lr: f64) -> Sgd<M, f64, Cpu> {
    Sgd::new(model, SgdConfig { lr, momentum: Some(Momentum::Classic(0.9)), weight_decay: None })
}

/// What comes of a configuration and a starting rate.
fn made<R: tlr::engine::RateRule>(config: tlr::Config<R>, lr: f64) -> Result<(), Error> {
    let model: Model = vector(&[1.0, 2.0]);
    Trainer::new(&model, sgd(&model, lr), config).map(|_| ())
}

fn newton<M, Opt>(model: &M, optimizer: Opt, steps: usize, guarded: bool) -> Newton<Opt>
where
    Opt: TunableOptimizer<Model = M, Dtype = f64, Device = Cpu>,
{
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .window(Window::steps(steps).unwrap())
        .safeguard(guarded.then(Safeguard::default));
    Newton::new(model, optimizer, config).unwrap()
}

/// The message of an error names all of `parts`.
fn tells(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} in {message:?}");
}

/// That `what` cannot be `value`.
fn is_out_of_range(error: &Error, what: &str, value: f64) -> bool {
    matches!(error, Error::OutOfRange { what: named, value: found, .. }
        if *named == what && found.to_bits() == value.to_bits())
}

/// Numbers that no figure may be.
const NEVER: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

#[test]
fn starting_rates() {
    for bad in [0.0, -1e-3, RATES.start() / 2.0, RATES.end() * 2.0].into_iter().chain(NEVER) {
        let error = made(NewtonConfig::default().ramp(false).settle(false), bad).unwrap_err();
        assert!(matches!(&error, Error::Rate { group, .. } if group == "model"));
        tells(&error, &["`model`", "1e-30", "1e30"]);
        let model = (vector::<1, f64>(&[1.0]), vector::<1, f64>(&[2.0]));
        let per_layer = PerLayer::new(&model, sgd(&model, bad));
        let error =
            Newton::new(&model, per_layer, NewtonConfig::default().ramp(false).settle(false))
                .map(|_| ())
                .unwrap_err();
        assert!(matches!(error, Error::Rate { group, .. } if group == "0"));
    }
    for good in [*RATES.start(), 1e-9, 1e3, *RATES.end()] {
        made(NewtonConfig::default().ramp(false).settle(false), good).unwrap();
    }
}

// ---- Models that cannot be trained ----

#[test]
fn nothing_to_train() {
    let model = (ReLU, Tanh);
    let adam = Adam::<_, f64, Cpu>::new(&model, AdamConfig::default());
    let error = Newton::new(&model, adam, NewtonConfig::default().ramp(false).settle(false))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error, Error::NothingToTrain);
    let per_layer = PerLayer::new(&model, sgd(&model, 0.1));
    let error = Newton::new(&model, per_layer, NewtonConfig::default().ramp(false).settle(false))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error, Error::NothingToTrain);
    tells(&error, &["no trainable tensor"]);
}

#[test]
fn not_contiguous() {
    let row: Tensor<Rank1<3>, f64, _> = Cpu::default().tensor([1.0, 2.0, 3.0]);
    let view: Tensor<Rank2<2, 3>, f64, _> = row.broadcast();
    let model = (vector::<2, f64>(&[1.0, 2.0]), view);
    let error =
        Newton::new(&model, sgd(&model, 0.1), NewtonConfig::default().ramp(false).settle(false))
            .map(|_| ())
            .unwrap_err();
    assert_eq!(error, Error::NotContiguous { tensor: "1".into() });
    tells(&error, &["`1`", "`.contiguous()`"]);
    let contiguous = (model.0, model.1.contiguous());
    Newton::new(
        &contiguous,
        sgd(&contiguous, 0.1),
        NewtonConfig::default().ramp(false).settle(false),
    )
    .unwrap();
}

/// Two tensors, of which the layers know one.
#[derive(Clone)]
struct Forgetful {
    known: Vector<1>,
    forgotten: Vector<1>,
}

impl TensorCollection<f64, Cpu> for Forgetful {
    type To<E: Dtype, D: Device<E>> = (Tensor<Rank1<1>, E, D>, Tensor<Rank1<1>, E, D>);

    fn iter_tensors<V: ModuleVisitor<Self, f64, Cpu>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        let options = || TensorOptions::reset_to_zeros();
        visitor.visit_fields(
            (
                Self::tensor("known", |s| &s.known, |s| &mut s.known, options()),
                Self::tensor("forgotten", |s| &s.forgotten, |s| &mut s.forgotten, options()),
            ),
            |tensors| tensors,
        )
    }
}

impl TrainableLr<f64, Cpu> for Forgetful {
    type Optimizers<F: Family<Dtype = f64, Device = Cpu>> = F::For<Vector<1>>;

    fn optimizers<F>(&self, family: &F, layers: &mut Layers) -> Self::Optimizers<F>
    where
        F: Family<Dtype = f64, Device = Cpu>,
    {
        layers.field("known", LayerOptions::default(), |layers| layers.layer(&self.known));
        family.for_layer(&self.known)
    }

    fn visit_layers<F, V>(
        &self,
        optimizers: &Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err>
    where
        F: Family<Dtype = f64, Device = Cpu>,
        V: LayerVisitor<F>,
    {
        visitor.visit_layer(&self.known, optimizers)
    }

    fn visit_layers_mut<F, V>(
        &mut self,
        optimizers: &mut Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err>
    where
        F: Family<Dtype = f64, Device = Cpu>,
        V: LayerVisitorMut<F>,
    {
        visitor.visit_layer(&mut self.known, optimizers)
    }
}

#[test]
fn tensor_outside_layers() {
    let model = Forgetful { known: vector(&[1.0]), forgotten: vector(&[2.0]) };
    let per_layer = PerLayer::new(&model, sgd(&model, 0.1));
    let error = Newton::new(&model, per_layer, NewtonConfig::default().ramp(false).settle(false))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error, Error::TensorOutsideLayers { tensor: "forgotten".into() });
    tells(&error, &["`forgotten`", "visits it", "#[tlr(skip)]"]);
    // A single rate needs no layers.
    Newton::new(&model, sgd(&model, 0.1), NewtonConfig::default().ramp(false).settle(false))
        .unwrap();
}

// ---- Losses and gradients that are not finite ----

/// A step with a good gradient.
fn good_step<Opt>(
    newton: &mut Newton<Opt>,
    model: &mut Model,
    loss: Option<f64>,
) -> Result<Step, Error>
where
    Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>,
{
    step(newton, model, [0.5, -0.25], loss)
}

fn step<Opt>(
    newton: &mut Newton<Opt>,
    model: &mut Model,
    gradient: [f64; 2],
    loss: Option<f64>,
) -> Result<Step, Error>
where
    Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>,
{
    let here = gradients(model, &gradient);
    match loss {
        Some(loss) => newton.step(model, &here, loss),
        None => newton.update(model, &here),
    }
}

#[test]
fn loss_not_finite() {
    for bad in NEVER {
        // Off: an error, and nothing moved.
        let mut model: Model = vector(&[1.0, 2.0]);
        let mut newton_off = newton(&model, sgd(&model, 0.01), 2, false);
        good_step(&mut newton_off, &mut model, Some(1.0)).unwrap();
        let before = bits(&model);
        let error = good_step(&mut newton_off, &mut model, Some(bad)).unwrap_err();
        assert!(matches!(error, Error::NonFiniteLoss { step: 2, .. }));
        tells(&error, &["step 2", "safeguard is off", "nothing was updated"]);
        assert_eq!((bits(&model), newton_off.steps()), (before, 1));
        // It goes on as if that step had not been.
        good_step(&mut newton_off, &mut model, Some(1.0)).unwrap();
        assert_eq!(newton_off.history().len(), 1);

        // On: skipped, then back to the snapshot, and no error.
        let mut model: Model = vector(&[1.0, 2.0]);
        let start = bits(&model);
        let mut newton_on = newton(&model, sgd(&model, 0.01), 2, true);
        good_step(&mut newton_on, &mut model, Some(1.0)).unwrap();
        good_step(&mut newton_on, &mut model, Some(bad)).unwrap();
        good_step(&mut newton_on, &mut model, Some(bad)).unwrap();
        assert_eq!(bits(&model), start);
        let outcome = newton_on.history().last().unwrap().outcome;
        assert_eq!(outcome, Outcome::RolledBack(Cause::NonFiniteLoss));
    }
}

// After good windows, one gradient is not finite; by the end of that window the weights are the last
// good ones, bit for bit: with a loss and without, in windows of one step and of five, with the
// safeguard and without. Fails if a snapshot takes in such weights.
#[test]
fn gradient_not_finite() {
    for steps in [1, 5] {
        for with_loss in [true, false] {
            for guarded in [true, false] {
                for bad in NEVER {
                    let mut model: Model = vector(&[1.0, 2.0]);
                    let mut newton = newton(&model, sgd(&model, 0.01), steps, guarded);
                    let loss = with_loss.then_some(1.0);
                    for _ in 0..2 * steps {
                        good_step(&mut newton, &mut model, loss).unwrap();
                    }
                    let good = bits(&model);
                    let mut outcome = step(&mut newton, &mut model, [bad, 1.0], loss);
                    for _ in 1..steps {
                        outcome.unwrap();
                        outcome = good_step(&mut newton, &mut model, loss);
                    }
                    assert_eq!(bits(&model), good, "K = {steps}, {with_loss}, {guarded}, {bad}");
                    if guarded {
                        outcome.unwrap();
                        let last = newton.history().last().unwrap().outcome;
                        assert_eq!(last, Outcome::RolledBack(Cause::NonFiniteWeights));
                    } else {
                        let error = outcome.unwrap_err();
                        let step = 3 * steps as u64;
                        assert!(
                            matches!(&error, Error::NonFiniteWeights { step: at, .. } if *at == step)
                        );
                        tells(&error, &["last good snapshot", "lower the rate"]);
                    }
                    good_step(&mut newton, &mut model, loss).unwrap();
                    assert!(values(&model).iter().all(|value| value.is_finite()));
                }
            }
        }
    }
}

// The exact form looks before it moves.
#[test]
fn lookahead_not_finite() {
    for bad in NEVER {
        let mut model: Model = vector(&[1.0, 2.0]);
        let mut newton = newton(&model, sgd(&model, 0.01), 1, false);
        let before = bits(&model);
        let here = gradients(&model, &[bad, 1.0]);
        let error = newton
            .step_lookahead(&mut model, &here, |ahead| gradients(ahead, &[1.0, 1.0]))
            .unwrap_err();
        assert!(matches!(error, Error::NonFiniteStep { step: 1, .. }));
        tells(&error, &["nothing was moved", "step 1"]);
        assert_eq!((bits(&model), newton.steps()), (before, 0));
        // A gradient ahead that is not finite only keeps the rate.
        let here = gradients(&model, &[1.0, 1.0]);
        newton.step_lookahead(&mut model, &here, |ahead| gradients(ahead, &[bad, 1.0])).unwrap();
        assert_eq!(newton.rates(), [("model", 0.01)]);
        assert!(values(&model).iter().all(|value| value.is_finite()));
    }
}

// Rollbacks that do not help end in an error, with the model at the last good snapshot; one good
// window starts the count anew.
#[test]
fn too_many_rollbacks() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let safeguard = Safeguard::default().max_rollbacks(3);
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .window(Window::steps(1).unwrap())
        .safeguard(safeguard);
    let mut newton = Newton::new(&model, sgd(&model, 0.01), config).unwrap();
    for _ in 0..2 {
        good_step(&mut newton, &mut model, Some(f64::NAN)).unwrap();
    }
    good_step(&mut newton, &mut model, Some(1.0)).unwrap();
    good_step(&mut newton, &mut model, Some(1.0)).unwrap();
    let good = bits(&model);
    for _ in 0..2 {
        step(&mut newton, &mut model, [f64::NAN, 0.0], None).unwrap();
    }
    let error = step(&mut newton, &mut model, [f64::NAN, 0.0], None).unwrap_err();
    let cause = Cause::NonFiniteWeights;
    assert_eq!(error, Error::TooManyRollbacks { count: 3, step: 7, cause });
    tells(&error, &["3 rollbacks", "step 7", "a weight is not finite", "last good snapshot"]);
    assert_eq!(bits(&model), good);
}

// ---- The wrong model, or gradients of only a part of it ----

type Network = (Linear<2, 2, f64, Cpu>, Tanh, Linear<2, 2, f64, Cpu>);

fn network(seed: u64) -> Network {
    type Layers = (builders::Linear<2, 2>, Tanh, builders::Linear<2, 2>);
    Cpu::seed_from_u64(seed).build_module::<Layers, f64>()
}

/// Gradients of both layers, or of the first alone.
fn of_layers(model: &Network, both: bool) -> Gradients<f64, Cpu> {
    let x: Tensor<Rank2<1, 2>, f64, _> = Cpu::default().tensor([[0.5, -1.0]]);
    let hidden = model.0.forward(x.leaky_traced());
    let out = if both { model.2.forward(hidden.tanh()) } else { hidden };
    out.square().mean().backward()
}

/// The test on one rate and on a rate a layer.
macro_rules! global_and_per_layer {
    ($model:expr, |$newton:ident| $test:expr) => {{
        let optimizer = sgd(&$model, 0.01);
        let mut $newton = newton(&$model, optimizer, 2, true);
        $test;
        let per_layer = PerLayer::new(&$model, sgd(&$model, 0.01));
        let mut $newton = newton(&$model, per_layer, 2, true);
        $test;
    }};
}

#[test]
fn model_changed() {
    let model = network(1);
    global_and_per_layer!(model, |newton| {
        let mut own = model.clone();
        let here = of_layers(&own, true);
        newton.step(&mut own, &here, 1.0).unwrap();
        let rates: Vec<f64> = newton.rates().iter().map(|(_, rate)| *rate).collect();

        // Another model of the same shape.
        let mut other = network(2);
        let before = bits(&other);
        let here = of_layers(&other, true);
        let error = newton.step(&mut other, &here, 1.0).unwrap_err();
        assert_eq!(error, Error::ModelChanged { what: "`0.weight` is another tensor".into() });
        tells(&error, &["`0.weight`", "make a new optimizer"]);
        let ahead = newton.step_lookahead(&mut other, &here, |_| of_layers(&network(2), true));
        assert!(matches!(ahead, Err(Error::ModelChanged { .. })));
        assert_eq!(bits(&other), before);

        // The same tensors in other places.
        let mut swapped = own.clone();
        std::mem::swap(&mut swapped.0, &mut swapped.2);
        let before = bits(&swapped);
        let here = of_layers(&swapped, true);
        let changed = newton.step(&mut swapped, &here, 1.0);
        assert!(matches!(changed, Err(Error::ModelChanged { .. })));
        assert_eq!(bits(&swapped), before);

        // One tensor replaced.
        let mut replaced = own.clone();
        replaced.2.bias = Cpu::default().zeros();
        let here = of_layers(&replaced, true);
        let error = newton.step(&mut replaced, &here, 1.0).unwrap_err();
        assert_eq!(error, Error::ModelChanged { what: "`2.bias` is another tensor".into() });

        // None of it counted.
        assert_eq!(newton.steps(), 1);
        assert_eq!(newton.rates().iter().map(|(_, rate)| *rate).collect::<Vec<_>>(), rates);
        let here = of_layers(&own, true);
        newton.step(&mut own, &here, 1.0).unwrap();
    });
}

// A sketch has nothing to go back to: the safeguard is refused beside it, and weights that are lost are called so.
#[test]
fn sketches() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(2).unwrap());
    let with = |config| Newton::new(&model, sgd(&model, 0.1), config).map(|_| ()).unwrap_err();
    let refused = with(config.sketch(64));
    assert_eq!(refused, Error::SketchWithSafeguard);
    tells(&refused, &["safeguard(None)"]);
    let config = config.safeguard(None);
    for bins in [0, 1, 63, 65, 1000, 1 << 25] {
        let refused = with(config.sketch(bins));
        assert!(is_out_of_range(&refused, "sketch", bins as f64));
        tells(&refused, &["power of two", "NewtonConfig::SKETCH"]);
    }
    let mut newton = Newton::new(&model, sgd(&model, 0.1), config.sketch(64)).unwrap();
    let good = gradients(&model, &[1.0, 1.0]);
    newton.step(&mut model, &good, 1.0).unwrap();
    let before = bits(&model);
    let loss = f64::INFINITY;
    let error = newton.step(&mut model, &good, loss).unwrap_err();
    assert_eq!((error, bits(&model)), (Error::NonFiniteLoss { step: 2, loss }, before));
    let bad = gradients(&model, &[f64::INFINITY, 1.0]);
    let error = newton.step(&mut model, &bad, 1.0).unwrap_err();
    assert!(matches!(&error, Error::LostWeights { step: 2, .. }), "{error:?}");
    tells(&error, &["load a checkpoint"]);
}

// A part without gradients: nothing moves, on the first step or later, and training can go on. Fails
// without the restoring of what dfdx moves before it tells.
#[test]
fn unused_parameters() {
    let model = network(1);
    for steps_before in [0, 1, 3] {
        global_and_per_layer!(model, |newton| {
            let mut own = model.clone();
            for _ in 0..steps_before {
                let here = of_layers(&own, true);
                newton.step(&mut own, &here, 1.0).unwrap();
            }
            let before = bits(&own);
            let part = of_layers(&own, false);
            let error = newton.step(&mut own, &part, 1.0).unwrap_err();
            let tensors = vec!["2.weight".to_owned(), "2.bias".to_owned()];
            assert_eq!(error, Error::UnusedParameters { tensors });
            tells(&error, &["2.weight, 2.bias", "no weight was moved", "alloc_grads()"]);
            assert_eq!((bits(&own), newton.steps()), (before.clone(), steps_before));

            // The same of either gradients of the exact form.
            let whole = of_layers(&own, true);
            let here = newton.step_lookahead(&mut own, &part, |ahead| of_layers(ahead, true));
            let ahead = newton.step_lookahead(&mut own, &whole, |ahead| of_layers(ahead, false));
            assert!(matches!(here, Err(Error::UnusedParameters { .. })));
            assert!(matches!(ahead, Err(Error::UnusedParameters { .. })));
            assert_eq!((bits(&own), newton.steps()), (before, steps_before));
            newton.step(&mut own, &whole, 1.0).unwrap();
        });
    }
}

// What has accumulated goes with the step that failed, whichever gradients were at fault: the next one
// is a new optimizer's, bit for bit. Fails without the reset.
#[test]
fn unused_parameters_clear_the_momentum() {
    for ahead_at_fault in [false, true] {
        let mut model = network(1);
        let mut newton = newton(&model, sgd(&model, 0.01), 100, true);
        let (whole, part) = (of_layers(&model, true), of_layers(&model, false));
        newton.update(&mut model, &whole).unwrap();
        let failed = if ahead_at_fault {
            newton.step_lookahead(&mut model, &whole, |ahead| of_layers(ahead, false))
        } else {
            newton.update(&mut model, &part)
        };
        assert!(matches!(failed, Err(Error::UnusedParameters { .. })));
        let mut fresh = model.clone();
        sgd(&fresh, 0.01).update(&mut fresh, &whole).unwrap();
        newton.update(&mut model, &whole).unwrap();
        assert_eq!(bits(&model), bits(&fresh));
    }
}

// The cure that the message names: with `alloc_grads` an unused part has a gradient of zero.
#[test]
fn unused_parameters_of_allocated_gradients() {
    let mut model = network(1);
    let mut newton = newton(&model, sgd(&model, 0.01), 1, true);
    let (first, last) = (bits(&model.0), bits(&model.2));
    let x: Tensor<Rank2<1, 2>, f64, _> = Cpu::default().tensor([[0.5, -1.0]]);
    let loss = model.0.forward(x.traced(model.alloc_grads())).square().mean();
    newton.step(&mut model, &loss.backward(), 1.0).unwrap();
    assert_ne!(bits(&model.0), first);
    assert_eq!(bits(&model.2), last);
}

/// Moves the weights, then fails.
struct OutOfMemory {
    lr: f64,
}

impl TunableOptimizer for OutOfMemory {
    type Model = Model;
    type Dtype = f64;
    type Device = Cpu;

    fn rate(&self, _group: usize) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, _group: usize, rate: f64) {
        self.lr = rate;
    }

    fn reset(&mut self, _model: &Model) {}
}

impl Optimizer<Model, Cpu, f64> for OutOfMemory {
    fn update(
        &mut self,
        model: &mut Model,
        gradients: &Gradients<f64, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        sgd(model, self.lr).update(model, gradients)?;
        Err(OptimizerUpdateError::DeviceError(CpuError::OutOfMemory))
    }
}

#[test]
fn device() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let mut newton = newton(&model, OutOfMemory { lr: 0.1 }, 1, true);
    let before = bits(&model);
    let error = good_step(&mut newton, &mut model, Some(1.0)).unwrap_err();
    assert!(matches!(error, Error::Device(_)));
    tells(&error, &["device", "OutOfMemory"]);
    assert_eq!((bits(&model), newton.steps()), (before.clone(), 0));
    let here = gradients(&model, &[1.0, 1.0]);
    let dropped_in = Optimizer::update(&mut newton, &mut model, &here);
    assert!(matches!(dropped_in, Err(OptimizerUpdateError::DeviceError(CpuError::OutOfMemory))));
    // It has moved the weights by then, and has not said that it undoes a failed update. Nor has one around it.
    let error = newton.step_owned(&mut model, &mut here.clone(), 1.0).unwrap_err();
    assert!(matches!(error, Error::Device(_)));
    let clip = tlr::optim::Clip::by_norm(OutOfMemory { lr: 0.1 }, 1.0).unwrap();
    let mut around =
        Newton::new(&model, clip, NewtonConfig::default().ramp(false).settle(false)).unwrap();
    assert!(matches!(around.step(&mut model, &here, 1.0), Err(Error::Device(_))));
    assert_eq!((bits(&model), newton.steps(), around.steps()), (before, 0, 0));
}

// Through dfdx's own trait there are only dfdx's errors: parameters without a gradient by their ids,
// and all of them for whatever that error has no room for.
#[test]
fn through_the_trait_of_dfdx() {
    fn ids<Opt>(optimizer: &mut Opt, model: &mut Network, here: &Gradients<f64, Cpu>) -> usize
    where
        Opt: Optimizer<Network, Cpu, f64>,
    {
        match optimizer.update(model, here) {
            Ok(()) => 0,
            Err(OptimizerUpdateError::UnusedParams(unused)) => unused.ids.len(),
            Err(OptimizerUpdateError::DeviceError(error)) => panic!("{error}"),
        }
    }
    let mut model = network(1);
    let mut newton = newton(&model, sgd(&model, 0.01), 1, false);
    let (whole, part) = (of_layers(&model, true), of_layers(&model, false));
    assert_eq!(ids(&mut newton, &mut model, &whole), 0);
    let before = bits(&model);
    assert_eq!(ids(&mut newton, &mut model, &part), 2); // the second layer's
    let mut other = network(2);
    let others = bits(&other);
    let here = of_layers(&other, true);
    assert_eq!(ids(&mut newton, &mut other, &here), 4); // the model changed
    let bad = gradients(&model, &[f64::NAN; 12]);
    assert_eq!(ids(&mut newton, &mut model, &bad), 4); // weights that are not finite
    assert_eq!((bits(&model), bits(&other)), (before, others));
}
