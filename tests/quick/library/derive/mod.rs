//! The derived implementations at work.

mod generics;
mod rates;
mod untrained;

use dfdx::{
    nn::{
        ModuleVisitor, RecursiveWalker, TensorOptions, TensorVisitor, ViewTensorName, ViewTensorRef,
    },
    optim::{Sgd, SgdConfig},
    prelude::*,
};
use std::marker::PhantomData;
use tlr::{optim, Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr};

type Lin<const I: usize, const O: usize, E, D> = modules::Linear<I, O, E, D>;

/// What dfdx, and a safetensors file with it, sees of a model: names, shapes and values, in order.
struct Listing(Vec<(String, Vec<usize>, Vec<f32>, bool)>);

impl TensorVisitor<f32, Cpu> for Listing {
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = CpuError;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        (tensor, name): (&Tensor<S, f32, Cpu>, String),
    ) -> Result<Option<Tensor<S, f32, Cpu>>, CpuError> {
        let shape = tensor.shape().concrete().into_iter().collect();
        self.0.push((name, shape, tensor.as_vec(), options.do_gradient_update));
        Ok(None)
    }
}

fn listing<M: TensorCollection<f32, Cpu>>(model: &M) -> Vec<(String, Vec<usize>, Vec<f32>, bool)> {
    let mut listing = Listing(Vec::new());
    let _ = M::iter_tensors(&mut RecursiveWalker { m: (model, String::new()), f: &mut listing });
    listing.0
}

fn names<M: TensorCollection<f32, Cpu>>(model: &M) -> Vec<String> {
    listing(model).into_iter().map(|tensor| tensor.0).collect()
}

/// Layers and starting rates, the optimizer's being 0.5.
fn rates<M: TrainableLr<f32, Cpu>>(model: &M) -> Vec<(String, f64)> {
    let sgd = Sgd::new(model, SgdConfig { lr: 0.5, ..Default::default() });
    let opt = Newton::new(model, PerLayer::new(model, sgd), NewtonConfig::default()).unwrap();
    opt.rates().into_iter().map(|(name, rate)| (name.to_owned(), rate)).collect()
}

fn layers<M: TrainableLr<f32, Cpu>>(model: &M) -> Vec<String> {
    rates(model).into_iter().map(|rate| rate.0).collect()
}

#[derive(Clone, Debug, TensorCollection, TrainableLr)]
struct Mlp<E: Dtype, D: Device<E>> {
    hidden: Lin<4, 8, E, D>,
    act: ReLU,
    head: Lin<8, 2, E, D>,
}

/// The same by hand, after dfdx's own example.
#[derive(Clone)]
struct ByHand<E: Dtype, D: Device<E>> {
    hidden: Lin<4, 8, E, D>,
    act: ReLU,
    head: Lin<8, 2, E, D>,
}

impl<E, D> TensorCollection<E, D> for ByHand<E, D>
where
    E: Dtype + num_traits::Float + rand_distr::uniform::SampleUniform,
    D: Device<E>,
{
    type To<E2: Dtype, D2: Device<E2>> = ByHand<E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        visitor.visit_fields(
            (
                Self::module("hidden", |s| &s.hidden, |s| &mut s.hidden),
                Self::module("act", |s| &s.act, |s| &mut s.act),
                Self::module("head", |s| &s.head, |s| &mut s.head),
            ),
            |(hidden, act, head)| ByHand { hidden, act, head },
        )
    }
}

#[test]
fn a_derived_collection_is_as_one_by_hand() {
    let derived = Mlp::<f32, Cpu>::build(&Cpu::seed_from_u64(7));
    let by_hand = ByHand::<f32, Cpu>::build(&Cpu::seed_from_u64(7));
    assert_eq!(listing(&derived), listing(&by_hand));
    assert_eq!(names(&derived), ["hidden.weight", "hidden.bias", "head.weight", "head.bias"]);
    assert_eq!(derived.num_trainable_params(), by_hand.num_trainable_params());
    assert_eq!(derived.num_trainable_params(), 4 * 8 + 8 + 8 * 2 + 2);
}

#[test]
fn a_derived_collection_converts() {
    let dev = Cpu::default();
    let model = Mlp::<f32, Cpu>::try_build(&dev).unwrap();
    let wide: Mlp<f64, Cpu> = model.to_dtype::<f64>();
    assert_eq!(listing(&wide.to_dtype::<f32>()), listing(&model));
    let moved: Mlp<f32, Cpu> = model.to_device(&dev);
    assert_eq!(listing(&moved), listing(&model));

    let mut reset = model.clone();
    reset.reset_params();
    let (before, after) = (listing(&model), listing(&reset));
    assert!(before.iter().zip(&after).all(|(a, b)| a.2 != b.2), "each tensor is drawn anew");

    let mut averaged = model.clone();
    averaged.ema(&reset, 0.0);
    assert_eq!(listing(&averaged), after);
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Block<E: Dtype, D: Device<E>> {
    conv1: Lin<4, 4, E, D>,
    norm: modules::BatchNorm1D<4, E, D>,
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Encoder<E: Dtype, D: Device<E>> {
    block1: Block<E, D>,
    blocks: modules::Repeated<modules::Residual<(Block<E, D>, Tanh)>, 2>,
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Nested<E: Dtype, D: Device<E>> {
    encoder: Encoder<E, D>,
    head: (Lin<4, 4, E, D>, ReLU, Lin<4, 2, E, D>),
}

#[test]
fn layers_are_named_by_their_fields() {
    let model = Nested::<f32, Cpu>::build(&Cpu::default());
    assert_eq!(
        layers(&model),
        [
            "encoder.block1.conv1",
            "encoder.block1.norm",
            "encoder.blocks.0.0.0.conv1",
            "encoder.blocks.0.0.0.norm",
            "encoder.blocks.1.0.0.conv1",
            "encoder.blocks.1.0.0.norm",
            "head.0",
            "head.2",
        ]
    );
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Attributes<E: Dtype, D: Device<E>> {
    #[tlr(fixed_rate)]
    fixed_rate: Lin<4, 4, E, D>,
    #[tlr(rate = 0.25)]
    slower: Encoder<E, D>,
    #[tlr(rate = 2)]
    #[tlr(fixed_rate)]
    both: Block<E, D>,
    #[tlr(group, rate = 1e-1)]
    group: Encoder<E, D>,
    #[tlr(group)]
    tuple: (Lin<4, 4, E, D>, ReLU, Lin<4, 2, E, D>),
    #[tlr(skip)]
    skipped: usize,
    #[tlr(skip)]
    slope: modules::LeakyReLU<E>,
}

#[test]
fn attributes_of_fields() {
    let model = Attributes::<f32, Cpu>::build(&Cpu::default());
    assert_eq!(model.skipped, 0);
    assert_eq!(model.slope.0, 0.05);
    let rates = rates(&model);
    let slower = layers(&model.slower).into_iter().map(|name| (format!("slower.{name}"), 0.125));
    let mut expected = vec![("fixed_rate".to_owned(), 0.5)];
    expected.extend(slower);
    expected.extend([
        ("both.conv1".to_owned(), 1.0),
        ("both.norm".to_owned(), 1.0),
        ("group".to_owned(), 0.5 * 0.1),
        ("tuple".to_owned(), 0.5),
    ]);
    assert_eq!(rates, expected);
    assert!(!names(&model).iter().any(|name| name.contains("skipped")));
}

/// One rate for the model is no field's own: who writes the attribute wants it to act, so it is an
/// error and not ignored. With a rate a layer it acts; `group` and `skip` ask for nothing that one
/// rate does not have. Fails where one of the two is let through, or refused within `PerLayer`, or
/// where an attribute deeper in the model goes unseen.
#[test]
fn attributes_of_rates_need_a_rate_a_layer() {
    #[derive(Clone, TensorCollection, TrainableLr)]
    struct Outer<E: Dtype, D: Device<E>> {
        first: Lin<4, 4, E, D>,
        inner: modules::Residual<(Inner<E, D>, Tanh)>,
    }
    #[derive(Clone, TensorCollection, TrainableLr)]
    struct Inner<E: Dtype, D: Device<E>> {
        one: Lin<4, 4, E, D>,
        #[tlr(rate = 0.5)]
        two: Lin<4, 4, E, D>,
    }
    fn refused<M: TrainableLr<f32, Cpu>>(model: &M) -> Option<(&'static str, &'static str)> {
        let config = NewtonConfig::default();
        let sgd = || Sgd::new(model, SgdConfig::default());
        assert!(Newton::new(model, PerLayer::new(model, sgd()), config).is_ok());
        let around = optim::Clip::by_norm(PerLayer::new(model, sgd()), 1.0).unwrap();
        assert!(Newton::new(model, around, config).is_ok());
        match Newton::new(model, sgd(), config) {
            Err(error @ tlr::Error::AttributeWithoutEffect { attribute, field, .. }) => {
                assert!(error.to_string().contains("PerLayer::new"), "{error}");
                Some((attribute, field))
            }
            made => {
                made.unwrap();
                None
            }
        }
    }
    let dev = Cpu::default();
    assert_eq!(refused(&Attributes::build(&dev)), Some(("fixed_rate", "Attributes::fixed_rate")));
    assert_eq!(refused(&Outer::build(&dev)), Some(("rate", "Inner::two")));
    assert_eq!(refused(&Nested::build(&dev)), None);
    assert_eq!(refused(&Container::<Lin<4, 4, f32, Cpu>, Tanh, u8, 2>::build(&dev)), None);
}

/// One layer of bare tensors.
#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(group)]
struct Affine<S: ConstShape, E: Dtype, D: Device<E>> {
    scale: Tensor<S, E, D>,
    shift: Tensor<S, E, D>,
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Tensors<S: ConstShape, E: Dtype, D: Device<E>> {
    affine: Affine<S, E, D>,
    bare: Tensor<S, E, D>,
}

#[test]
fn a_struct_as_one_layer() {
    let dev = Cpu::default();
    let model = Tensors::<Rank2<3, 2>, f32, Cpu>::build(&dev);
    assert_eq!(layers(&model), ["affine", "bare"]);
    assert_eq!(layers(&model.affine), ["model"]);
    // To dfdx a tensor is a collection of one, whose own name is empty.
    assert_eq!(names(&model), ["affine.scale.", "affine.shift.", "bare."]);
    assert_eq!(model.num_trainable_params(), 18);
    let _: Tensors<Rank2<3, 2>, f64, Cpu> = model.to_dtype();
}

/// Neither dtype nor device: works with all.
#[derive(Clone, TensorCollection, TrainableLr)]
struct Container<'a, M, A: ZeroSizedModule, T, const N: usize> {
    act: A,
    modules: modules::Repeated<M, N>,
    #[tlr(group)]
    whole: M,
    #[tlr(skip)]
    marker: PhantomData<&'a T>,
}

/// As [`layers`], around an optimizer of `tlr`.
fn own_layers<M: TrainableLr<f32, Cpu>>(model: &M) -> Vec<String> {
    let sgd = optim::Sgd::new(model, SgdConfig::default());
    let opt = Newton::new(model, PerLayer::new(model, sgd), NewtonConfig::default()).unwrap();
    opt.rates().into_iter().map(|(name, _)| name.to_owned()).collect()
}
