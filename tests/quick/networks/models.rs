//! dfdx's own modules, as they come: names, that every layer moves, that every rate adapts; and
//! that the wrapper alone changes nothing.

use dfdx::{nn::modules, optim::*, prelude::*};
use std::{collections::BTreeMap, convert::Infallible};
use support::{
    optimizers::TorchRmsprop,
    values::{bits, values, weights},
};
use tlr::{
    layers::{LayerVisitor, Layers, TrainableLr},
    Family, Newton, NewtonConfig, Outcome, PerLayer, TunableOptimizer, Window,
};

type Loss<E> = Tensor<Rank0, E, Cpu, OwnedTape<E, Cpu>>;

/// Windows of `steps` and no safeguard: nothing but the rule.
fn config(steps: usize) -> NewtonConfig {
    NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .climb(None)
        .window(Window::steps(steps).unwrap())
        .safeguard(None)
}

/// Each layer's weights.
fn by_layer<E, M, F>(model: &M, family: &F) -> Vec<Vec<f64>>
where
    E: Dtype,
    Cpu: Device<E>,
    M: TrainableLr<E, Cpu>,
    F: Family<Model = M, Dtype = E, Device = Cpu>,
{
    struct Collect(Vec<Vec<f64>>);
    impl<F: Family> LayerVisitor<F> for Collect {
        type Err = Infallible;
        fn visit_layer<L>(&mut self, layer: &L, _: &F::For<L>) -> Result<(), Infallible>
        where
            L: TensorCollection<F::Dtype, F::Device> + Clone,
        {
            self.0.push(weights(layer));
            Ok(())
        }
    }
    let mut collect = Collect(Vec::new());
    let optimizers = model.optimizers(family, &mut Layers::default());
    let Ok(()) = model.visit_layers(&optimizers, &mut collect);
    collect.0
}

/// Trains a clone of `model`; every layer moves, and every group of `names` has its rate scaled.
fn adapts<E, M, Opt>(
    model: &M,
    optimizer: Opt,
    layers: impl Fn(&M) -> Vec<Vec<f64>>,
    names: &[&str],
    loss: &impl Fn(&mut M, Gradients<E, Cpu>) -> Loss<E>,
) where
    E: Dtype,
    Cpu: Device<E>,
    M: ZeroGrads<E, Cpu> + Clone,
    Opt: TunableOptimizer<Model = M, Dtype = E, Device = Cpu>,
{
    let mut trained = model.clone();
    let window = Window::steps(2).unwrap();
    let mut newton = Newton::new(
        &trained,
        optimizer,
        NewtonConfig::default().ramp(false).settle(false).window(window),
    )
    .unwrap();
    let start = newton.rates()[0].1;
    assert_eq!(newton.rates(), names.iter().map(|name| (*name, start)).collect::<Vec<_>>());
    for _ in 0..30 {
        let grads = trained.alloc_grads();
        let loss = loss(&mut trained, grads);
        let value = loss.array_f64();
        newton.step(&mut trained, &loss.backward(), value).unwrap();
    }
    for (index, (before, after)) in layers(model).iter().zip(layers(&trained)).enumerate() {
        assert_ne!(before, &after, "layer {index} did not move");
    }
    assert!(values(&trained).iter().all(|value| value.is_finite()));
    let mut scaled: BTreeMap<&str, usize> = names.iter().map(|name| (*name, 0)).collect();
    for adaptation in newton.history() {
        if matches!(adaptation.outcome, Outcome::Scaled | Outcome::Capped | Outcome::Climbed) {
            *scaled.get_mut(&*adaptation.layer).unwrap() += 1;
        }
    }
    assert!(scaled.values().all(|count| *count > 0), "{scaled:?} {:?}", newton.history());
    assert!(newton.rates().iter().all(|(_, rate)| *rate != start && rate.is_finite()));
}

trait Scalar {
    fn array_f64(&self) -> f64;
}

impl<E: Dtype> Scalar for Loss<E>
where
    Cpu: Device<E>,
{
    fn array_f64(&self) -> f64 {
        self.as_vec()[0].to_f64().unwrap()
    }
}

/// One rate, then a rate a layer, around plain gradient descent and around Adam.
fn adapts_globally_and_per_layer<E, M>(
    model: M,
    names: &[&str],
    loss: impl Fn(&mut M, Gradients<E, Cpu>) -> Loss<E>,
) where
    E: Dtype + num_traits::Float,
    Cpu: Device<E>,
    M: TrainableLr<E, Cpu> + ZeroGrads<E, Cpu>,
{
    let sgd = || Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    let layers = |model: &M| by_layer(model, &sgd());
    adapts(&model, sgd(), layers, &["model"], &loss);
    adapts(&model, PerLayer::new(&model, sgd()), layers, names, &loss);
    let adam = || Adam::new(&model, AdamConfig { lr: 1e-3, ..Default::default() });
    adapts(&model, adam(), layers, &["model"], &loss);
    adapts(&model, PerLayer::new(&model, adam()), layers, names, &loss);
}

/// The same body in both dtypes, as `E`.
macro_rules! in_f32_and_f64 {
    ($($name:ident $body:block)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn f32() {
                type E = f32;
                $body
            }

            #[test]
            fn f64() {
                type E = f64;
                $body
            }
        }
    )+};
}

/// Noise to train on, and to reach for: any loss that is not at its minimum will do.
fn device() -> Cpu {
    Cpu::seed_from_u64(11)
}

in_f32_and_f64! {
    tuple {
        let dev = device();
        let model = dev.build_module::<
            (
                builders::Linear<3, 8>,
                Tanh,
                (builders::Linear<8, 4>, ReLU),
                builders::UnbiasedLinear<4, 2>,
            ),
            E,
        >();
        let x: Tensor<Rank2<16, 3>, E, _> = dev.sample_normal();
        let y: Tensor<Rank2<16, 2>, E, _> = dev.sample_normal();
        adapts_globally_and_per_layer(model, &["0", "2.0", "3"], |model, grads| {
            mse_loss(model.forward(x.trace(grads)), y.clone())
        });
    }

    residual {
        let dev = device();
        let model = dev.build_module::<
            (Residual<(builders::Linear<3, 3>, Tanh)>, Repeated<builders::Linear<3, 3>, 3>),
            E,
        >();
        let x: Tensor<Rank2<16, 3>, E, _> = dev.sample_normal();
        let y: Tensor<Rank2<16, 3>, E, _> = dev.sample_normal();
        adapts_globally_and_per_layer(model, &["0.0.0", "1.0", "1.1", "1.2"], |model, grads| {
            mse_loss(model.forward(x.trace(grads)), y.clone())
        });
    }

    branches {
        let dev = device();
        let model = dev.build_module::<
            (
                GeneralizedResidual<builders::Linear<3, 4>, (builders::Linear<3, 4>, Tanh)>,
                SplitInto<(builders::Linear<4, 2>, builders::Linear<4, 1>)>,
            ),
            E,
        >();
        let x: Tensor<Rank2<16, 3>, E, _> = dev.sample_normal();
        let y: Tensor<Rank2<16, 2>, E, _> = dev.sample_normal();
        let names = ["0.f", "0.r.0", "1.0.0", "1.0.1"];
        adapts_globally_and_per_layer(model, &names, |model, grads| {
            let (left, right) = model.forward(x.trace(grads));
            mse_loss(left, y.clone()) + right.square().mean()
        });
    }

    batch_norm_1d {
        let dev = device();
        let model = dev.build_module::<
            (builders::Linear<3, 4>, builders::BatchNorm1D<4>, Tanh, builders::Linear<4, 1>),
            E,
        >();
        let x: Tensor<Rank2<16, 3>, E, _> = dev.sample_normal();
        let y: Tensor<Rank2<16, 1>, E, _> = dev.sample_normal();
        adapts_globally_and_per_layer(model, &["0", "1", "3"], |model, grads| {
            mse_loss(model.forward_mut(x.trace(grads)), y.clone())
        });
    }

    batch_norm_2d {
        let dev = device();
        let model = dev.build_module::<(builders::BatchNorm2D<3>, builders::Bias2D<3>), E>();
        let x: Tensor<Rank4<4, 3, 2, 2>, E, _> = dev.sample_normal();
        let y: Tensor<Rank4<4, 3, 2, 2>, E, _> = dev.sample_normal();
        adapts_globally_and_per_layer(model, &["0", "1"], |model, grads| {
            mse_loss(model.forward_mut(x.trace(grads)), y.clone())
        });
    }

    embedding_and_layer_norm {
        let dev = device();
        let model = dev.build_module::<(builders::Embedding<7, 4>, builders::LayerNorm1D<4>), E>();
        let tokens: Tensor<Rank1<5>, usize, _> = dev.tensor([0, 1, 3, 5, 6]);
        let y: Tensor<Rank2<5, 4>, E, _> = dev.sample_normal();
        let untouched = values(&model)[2 * 4..3 * 4].to_vec();
        adapts_globally_and_per_layer(model.clone(), &["0", "1"], |model, grads| {
            assert_eq!(values(model)[2 * 4..3 * 4], untouched, "no batch has token 2");
            mse_loss(model.forward(tokens.trace(grads)), y.clone())
        });
    }

    attention {
        let dev = device();
        let model = dev.build_module::<builders::MultiHeadAttention<4, 2>, E>();
        let x: Tensor<Rank3<2, 5, 4>, E, _> = dev.sample_normal();
        let y: Tensor<Rank3<2, 5, 4>, E, _> = dev.sample_normal();
        adapts_globally_and_per_layer(model, &["w_q", "w_k", "w_v", "w_o"], |model, grads| {
            mse_loss(model.forward(x.trace(grads)), y.clone())
        });
    }

    transformer_encoder_block {
        let dev = device();
        let model = dev.build_module::<builders::TransformerEncoderBlock<4, 2, 8>, E>();
        let x: Tensor<Rank3<2, 5, 4>, E, _> = dev.sample_normal();
        let y: Tensor<Rank3<2, 5, 4>, E, _> = dev.sample_normal();
        let names = [
            "self_attn.w_q", "self_attn.w_k", "self_attn.w_v", "self_attn.w_o", "norm1",
            "ff.0.0", "ff.0.2", "norm2",
        ];
        adapts_globally_and_per_layer(model, &names, |model, grads| {
            mse_loss(model.forward(x.trace(grads)), y.clone())
        });
    }
}

// ---- The wrapper alone changes nothing ----

type Normed<E> = (
    modules::Linear<3, 4, E, Cpu>,
    modules::BatchNorm1D<4, E, Cpu>,
    Tanh,
    modules::Linear<4, 1, E, Cpu>,
);

/// Every value after each of ten steps on one batch, as bits.
fn path<E, M, O>(
    model: &M,
    loss: impl Fn(&mut M, Gradients<E, Cpu>) -> Loss<E>,
    mut optimizer: O,
) -> Vec<Vec<u64>>
where
    E: Dtype,
    Cpu: Device<E>,
    M: ZeroGrads<E, Cpu> + Clone,
    O: Optimizer<M, Cpu, E>,
{
    let mut model = model.clone();
    (0..10)
        .map(|_| {
            let grads = model.alloc_grads();
            let loss = loss(&mut model, grads);
            optimizer.update(&mut model, &loss.backward()).unwrap();
            bits(&model)
        })
        .collect()
}

/// The optimizer bare, wrapped, and wrapped with a rate a layer: the same bits while no window
/// ends.
macro_rules! wrapping_changes_nothing {
    ($model:expr, $loss:expr, $($optimizer:expr),+ $(,)?) => {$({
        let bare = path($model, $loss, $optimizer);
        assert_ne!(bare[0], bare[9], "nothing moved");
        let never = || config(1_000);
        assert_eq!(bare, path($model, $loss, Newton::new($model, $optimizer, never()).unwrap()));
        let per_layer = PerLayer::new($model, $optimizer);
        assert_eq!(bare, path($model, $loss, Newton::new($model, per_layer, never()).unwrap()));
    })+};
}

// Fails if the wrapper alters a weight, a buffer, a hyperparameter or accumulated state.
in_f32_and_f64! {
    unadapted_is_the_optimizer_itself {
        let model = &Cpu::seed_from_u64(3).build_module::<
            (builders::Linear<3, 4>, builders::BatchNorm1D<4>, Tanh, builders::Linear<4, 1>),
            E,
        >();
        let dev = device();
        let x: Tensor<Rank2<16, 3>, E, _> = dev.sample_normal();
        let y: Tensor<Rank2<16, 1>, E, _> = dev.sample_normal();
        let loss = &|model: &mut Normed<E>, grads| {
            mse_loss(model.forward_mut(x.trace(grads)), y.clone())
        };
        for momentum in [None, Some(Momentum::Classic(0.9)), Some(Momentum::Nesterov(0.9))] {
            for weight_decay in
                [None, Some(WeightDecay::L2(1e-2)), Some(WeightDecay::Decoupled(1e-2))]
            {
                let sgd = SgdConfig { lr: 0.05, momentum, weight_decay };
                let adam = AdamConfig { lr: 0.01, weight_decay, ..Default::default() };
                let rmsprop = RMSpropConfig {
                    momentum: momentum.map(|_| 0.5),
                    centered: momentum.is_some(),
                    weight_decay,
                    ..Default::default()
                };
                wrapping_changes_nothing!(
                    model,
                    loss,
                    Sgd::new(model, sgd),
                    Adam::new(model, adam),
                    RMSprop::new(model, rmsprop),
                );
            }
        }
        wrapping_changes_nothing!(model, loss, TorchRmsprop::new(0.01, 0.9));
    }
}

// An optimizer of a user's own, with `TunableOptimizer` and `Family` only: named like any other,
// and its rates set like any other's.
in_f32_and_f64! {
    an_optimizer_of_ones_own {
        let dev = device();
        let model = dev.build_module::<(builders::Linear<3, 4>, Tanh, builders::Linear<4, 1>), E>();
        let x: Tensor<Rank2<16, 3>, E, _> = dev.sample_normal();
        let y: Tensor<Rank2<16, 1>, E, _> = dev.sample_normal();
        let own = || TorchRmsprop::new(1e-3, 0.9);
        let layers = |model: &_| by_layer(model, &own());
        type Model = (modules::Linear<3, 4, E, Cpu>, Tanh, modules::Linear<4, 1, E, Cpu>);
        let loss = |model: &mut Model, grads| {
            mse_loss(model.forward(x.trace(grads)), y.clone())
        };
        adapts(&model, own(), layers, &["model"], &loss);
        adapts(&model, PerLayer::new(&model, own()), layers, &["0", "2"], &loss);
    }
}

// A training loop written for any of dfdx's optimizers takes the wrapped ones as they are.
#[test]
fn drop_in_for_dfdx_optimizers() {
    fn train<O: Optimizer<Model, Cpu, f32>>(mut optimizer: O, model: &Model) -> [f32; 2] {
        let dev = device();
        let x: Tensor<Rank2<32, 3>, f32, _> = dev.sample_normal();
        let y = x.clone().square().mean::<Rank1<32>, _>().reshape::<Rank2<32, 1>>();
        let mut model = model.clone();
        let losses: Vec<f32> = (0..100)
            .map(|_| {
                let loss = mse_loss(model.forward(x.trace(model.alloc_grads())), y.clone());
                let value = loss.array();
                optimizer.update(&mut model, &loss.backward()).unwrap();
                value
            })
            .collect();
        [losses[0], losses[99]]
    }
    type Layers = (builders::Linear<3, 8>, Tanh, builders::Linear<8, 1>);
    type Model = <Layers as BuildOnDevice<Cpu, f32>>::Built;

    let model = Cpu::seed_from_u64(5).build_module::<Layers, f32>();
    let sgd = || Sgd::new(&model, SgdConfig { lr: 1e-4, ..Default::default() });
    let guarded =
        || NewtonConfig::default().ramp(false).settle(false).window(Window::steps(10).unwrap());
    let [first, bare] = train(sgd(), &model);
    let [_, newton] = train(Newton::new(&model, sgd(), guarded()).unwrap(), &model);
    let per_layer = PerLayer::new(&model, sgd());
    let [_, per_layer] = train(Newton::new(&model, per_layer, guarded()).unwrap(), &model);
    assert!(bare > 0.9 * first, "at 1e-4 a hundred steps go nowhere: {bare}");
    assert!(newton < 0.5 * first && per_layer < 0.5 * first, "{newton} {per_layer} from {first}");
}
