//! The derived implementations at work.

use dfdx::{
    nn::{
        ModuleVisitor, RecursiveWalker, TensorOptions, TensorVisitor, ViewTensorName, ViewTensorRef,
    },
    optim::{Momentum, Sgd, SgdConfig, WeightDecay},
    prelude::*,
};
use std::marker::PhantomData;
use tlr::{optim, Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr, Window};

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

/// One rate for the model is no field's own: who writes the attribute wants it to act, so it is an error and not ignored. With
/// a rate a layer it acts; `group` and `skip` ask for nothing that one rate does not have. Fails where one of the two is
/// let through, or refused within `PerLayer`, or where an attribute deeper in the model goes unseen.
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

#[derive(Clone, TensorCollection, TrainableLr)]
struct Tuple<E: Dtype, D: Device<E>>(
    Lin<4, 4, E, D>,
    ReLU,
    #[tlr(skip)] u8,
    #[tlr(rate = 0.5)] Lin<4, 2, E, D>,
);

#[test]
fn tuple_structs() {
    let model = Tuple::<f32, Cpu>::build(&Cpu::default());
    assert_eq!(rates(&model), [("0".to_owned(), 0.5), ("3".to_owned(), 0.25)]);
    assert_eq!(names(&model), ["0.weight", "0.bias", "3.weight", "3.bias"]);
    assert_eq!(model.2, 0);
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Unit;

#[derive(Clone, TensorCollection, TrainableLr)]
struct Empty {}

#[derive(Clone, TensorCollection, TrainableLr)]
struct WithoutTensors(Unit, ReLU, Empty, modules::Residual<Tanh>);

#[derive(Clone, TensorCollection, TrainableLr)]
struct AfterNothing<E: Dtype, D: Device<E>> {
    nothing: WithoutTensors,
    linear: Lin<4, 2, E, D>,
}

#[test]
fn structs_without_tensors() {
    let model = AfterNothing::<f32, Cpu>::build(&Cpu::default());
    assert_eq!(layers(&model), ["linear"]);
    let _: AfterNothing<f64, Cpu> = model.to_dtype();
}

macro_rules! wide {
    ($($field:ident)+) => {
        #[derive(Clone, TensorCollection, TrainableLr)]
        struct Wide<E: Dtype, D: Device<E>> { $($field: Lin<1, 2, E, D>,)+ }
        const WIDE: &[&str] = &[$(stringify!($field)),+];
    };
}
wide! { a b c d e f g h i j k l m n o p q r s t u v w x y z aa bb cc dd ee ff gg hh ii jj kk }

#[test]
fn more_fields_than_tuples_have() {
    let model = Wide::<f32, Cpu>::build(&Cpu::default());
    assert_eq!(layers(&model), WIDE);
    let expected: Vec<_> =
        WIDE.iter().flat_map(|name| [format!("{name}.weight"), format!("{name}.bias")]).collect();
    assert_eq!(names(&model), expected);
    let again = model.to_dtype::<f64>().to_dtype::<f32>();
    assert_eq!(listing(&again), listing(&model), "no two fields are mixed up");
}

/// A module of any kind, before and after one that is known.
#[derive(Clone, TensorCollection, TrainableLr)]
struct Around<M, E: Dtype, D: Device<E>, N = ReLU>
where
    E: Dtype,
{
    before: modules::Residual<M>,
    between: Lin<4, 4, E, D>,
    after: (N, M),
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

#[test]
fn generic_parameters() {
    let dev = Cpu::default();
    let model = Around::<Mlp<f32, Cpu>, f32, Cpu>::build(&dev);
    assert_eq!(
        layers(&model),
        ["before.0.hidden", "before.0.head", "between", "after.1.hidden", "after.1.head"]
    );
    let _: Around<Mlp<f64, Cpu>, f64, Cpu, ReLU> = model.to_dtype();

    let model = Container::<'static, Lin<4, 4, f32, Cpu>, Tanh, String, 2>::build(&dev);
    assert_eq!(layers(&model), ["modules.0", "modules.1", "whole"]);
    let _: Container<'static, Lin<4, 4, f64, Cpu>, Tanh, String, 2> = model.to_dtype();
}

/// A trait of one's own for the device.
trait Hardware<E: Dtype>: Device<E> {}
impl<E: Dtype, D: Device<E>> Hardware<E> for D {}

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(dtype = E, device = H)]
struct Named<H: Hardware<E>, E: Dtype> {
    linear: Lin<4, 2, E, H>,
}

/// The bound at the place where dfdx's own layers have it, and as weak as theirs.
#[derive(Clone, TensorCollection, TrainableLr)]
struct Where<D, E>
where
    E: Dtype,
    D: dfdx::tensor::Storage<E>,
{
    r#type: Lin<4, 2, E, D>,
}

#[test]
fn dtype_and_device_by_any_name() {
    let dev = Cpu::default();
    let named = Named::<Cpu, f32>::build(&dev);
    let _: Named<Cpu, f64> = named.to_dtype();
    assert_eq!(layers(&named), ["linear"]);
    let bounded = Where::<Cpu, f32>::build(&dev);
    let _: Where<Cpu, f64> = bounded.to_dtype();
    assert_eq!(layers(&bounded), ["type"]);
    assert_eq!(names(&bounded), ["type.weight", "type.bias"]);
}

#[test]
fn under_another_name() {
    use tlr_renamed::{Model, Wrapper};
    let dev = Cpu::default();
    let model = Wrapper::<Model<f32, Cpu>, (), 1>::build(&dev);
    assert_eq!(own_layers(&model), ["inner.0.first.0", "inner.0.second", "inner.0.head"]);
    assert_eq!(model.inner.modules[0].steps(), 0);
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Pretrained<E: Dtype, D: Device<E>> {
    #[tlr(untrained)]
    encoder: Encoder<E, D>,
    #[tlr(untrained)]
    shift: Tensor<Rank1<4>, E, D>,
    head: Lin<4, 2, E, D>,
}

/// The same, all of it trained.
#[derive(Clone, TensorCollection, TrainableLr)]
struct Whole<E: Dtype, D: Device<E>> {
    encoder: Encoder<E, D>,
    shift: Tensor<Rank1<4>, E, D>,
    head: Lin<4, 2, E, D>,
}

/// To dfdx the field is as any other: names, shapes and values, built, converted and reset. Only tlr knows, so there is one
/// layer. Fails for a field that is left out, and for one with layers.
#[test]
fn an_untrained_field_has_no_layers() {
    let model = Pretrained::<f32, Cpu>::build(&Cpu::seed_from_u64(5));
    assert_eq!(listing(&model), listing(&Whole::<f32, Cpu>::build(&Cpu::seed_from_u64(5))));
    assert_eq!(listing(&model.to_dtype::<f64>().to_dtype::<f32>()), listing(&model));
    let mut reset = model.clone();
    reset.reset_params();
    let weights = |model: &Pretrained<f32, Cpu>| model.encoder.block1.conv1.weight.as_vec();
    assert_ne!(weights(&reset), weights(&model));
    assert_eq!(own_layers(&model), ["head"]);
    // In a struct that is one layer, the other parts are that layer.
    assert_eq!(own_layers(&OneLayer::<f32, Cpu>::build(&Cpu::default())), ["model"]);
}

/// As [`layers`], around an optimizer of `tlr`.
fn own_layers<M: TrainableLr<f32, Cpu>>(model: &M) -> Vec<String> {
    let sgd = optim::Sgd::new(model, SgdConfig::default());
    let opt = Newton::new(model, PerLayer::new(model, sgd), NewtonConfig::default()).unwrap();
    opt.rates().into_iter().map(|(name, _)| name.to_owned()).collect()
}

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(group)]
struct OneLayer<E: Dtype, D: Device<E>> {
    #[tlr(untrained)]
    fixed: Lin<4, 4, E, D>,
    scale: Tensor<Rank1<4>, E, D>,
}

/// Bit for bit, whatever trains the rest: with decay, momentum, clipping, one rate or one a layer, through rollbacks. The
/// gradients of the field are there. Fails where any optimizer reaches the field's weights.
#[test]
fn untrained_weights_stay_as_they_are() {
    type Model = Pretrained<f32, Cpu>;
    fn check<Opt>(make: impl Fn(&Model) -> Opt)
    where
        Opt: tlr::TunableOptimizer<Model = Model, Dtype = f32, Device = Cpu>,
    {
        let dev = Cpu::seed_from_u64(4);
        let mut model = Model::build(&dev);
        let config = NewtonConfig::default().window(Window::steps(3).unwrap());
        let mut opt = Newton::new(&model, make(&model), config).unwrap();
        let before = listing(&model);
        let x = dev.sample_normal::<Rank2<8, 4>>();
        for step in 0..30 {
            // All of it has gradients, or in turn only what the loss depends on.
            let traced = if step % 2 == 0 { x.trace(model.alloc_grads()) } else { x.leaky_trace() };
            let encoded = model.encoder.block1.conv1.forward(traced);
            let loss = (model.head.forward(encoded) - 1.0).square().mean();
            let value = if step % 11 > 8 { f32::NAN } else { loss.array() };
            opt.step(&mut model, &loss.backward(), value).unwrap();
        }
        assert!(opt.history().iter().any(|a| matches!(a.outcome, tlr::Outcome::RolledBack(_))));
        for (now, before) in listing(&model).iter().zip(&before) {
            assert_eq!(now.2 != before.2, now.0.starts_with("head"), "{}", now.0);
        }
    }
    let decay = |kind: fn(f64) -> WeightDecay| SgdConfig {
        lr: 1e-2,
        momentum: Some(Momentum::Classic(0.9)),
        weight_decay: Some(kind(0.1)),
    };
    let (l2, decoupled) = (decay(WeightDecay::L2), decay(WeightDecay::Decoupled));
    check(|model| optim::Sgd::new(model, l2));
    check(|model| optim::Sgd::new(model, decoupled));
    check(|model| optim::AdamW::new(model, Default::default()));
    check(|model| optim::Clip::by_norm(optim::Sgd::new(model, l2), 0.5).unwrap());
    check(|model| optim::Accumulate::new(optim::Sgd::new(model, l2), 2).unwrap());
    check(|model| PerLayer::new(model, optim::Sgd::new(model, l2)));
}

/// dfdx's own would train the field. Fails where a wrapper hides that.
#[test]
fn an_optimizer_that_would_train_an_untrained_field_is_refused() {
    let model = Pretrained::<f32, Cpu>::build(&Cpu::default());
    let sgd = || Sgd::new(&model, SgdConfig::default());
    let config = NewtonConfig::default();
    let errors = [
        Newton::new(&model, sgd(), config).err(),
        Newton::new(&model, PerLayer::new(&model, sgd()), config).err(),
        Newton::new(&model, optim::Clip::by_norm(sgd(), 1.0).unwrap(), config).err(),
        Newton::new(&model, optim::Accumulate::new(sgd(), 2).unwrap(), config).err(),
    ];
    for error in errors {
        let Some(error @ tlr::Error::AttributeWithoutEffect { attribute, field, .. }) = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!((*attribute, *field), ("untrained", "Pretrained::encoder"));
        assert!(error.to_string().contains("take one of `tlr::optim`"), "{error}");
    }
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Decaying<E: Dtype, D: Device<E>> {
    #[tlr(no_decay)]
    first: Block<E, D>,
    second: Block<E, D>,
    #[tlr(group)]
    part: Part<E, D>,
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Part<E: Dtype, D: Device<E>> {
    #[tlr(no_decay)]
    third: Lin<4, 4, E, D>,
    fourth: Lin<4, 4, E, D>,
}

/// With gradients of zero, decay alone moves weights: of all fields but those, with one rate, a rate a layer, and through
/// what is around. Fails where a walk over one layer, or one within a field, forgets the attribute.
#[test]
fn a_field_without_decay() {
    type Model = Decaying<f32, Cpu>;
    fn check<Opt>(make: impl Fn(&Model) -> Opt)
    where
        Opt: tlr::TunableOptimizer<Model = Model, Dtype = f32, Device = Cpu>,
    {
        let mut model = Model::build(&Cpu::default());
        let before = listing(&model);
        let mut opt = Newton::new(&model, make(&model), NewtonConfig::default()).unwrap();
        for _ in 0..2 {
            let zero = model.alloc_grads();
            opt.step(&mut model, &zero, 1.0).unwrap();
        }
        for (now, before) in listing(&model).iter().zip(&before).filter(|(now, _)| now.3) {
            let kept = now.0.starts_with("first") || now.0.starts_with("part.third");
            let is_zero = before.2.iter().all(|w| *w == 0.0);
            assert_eq!(now.2 == before.2, kept || is_zero, "{}", now.0);
        }
    }
    for kind in [WeightDecay::L2, WeightDecay::Decoupled] {
        let sgd = SgdConfig { lr: 0.5, weight_decay: Some(kind(0.5)), ..Default::default() };
        check(|model| optim::Sgd::new(model, sgd));
        check(|model| PerLayer::new(model, optim::Sgd::new(model, sgd)));
        check(|model| {
            let clip = optim::Clip::by_norm(optim::Sgd::new(model, sgd), 1.0).unwrap();
            PerLayer::new(model, optim::Accumulate::new(clip, 2).unwrap())
        });
    }
    let model = Model::build(&Cpu::default());
    let theirs = Sgd::new(&model, SgdConfig::default());
    let error = Newton::new(&model, theirs, NewtonConfig::default()).err();
    assert!(matches!(
        error,
        Some(tlr::Error::AttributeWithoutEffect { attribute: "no_decay", .. })
    ));
}

/// The norm by which gradients are clipped is without those of the field.
#[test]
fn untrained_gradients_are_in_no_norm() {
    let dev = Cpu::default();
    let mut model = OneLayer::<f32, Cpu>::build(&dev);
    let sgd = optim::Sgd::new(&model, SgdConfig { lr: 1.0, ..Default::default() });
    let mut opt = optim::Clip::by_norm(sgd, 2.0).unwrap();
    let of_scale = model.scale.leaky_trace().sum::<Rank0, _>();
    let of_field = model.fixed.bias.leaky_trace().sum::<Rank0, _>() * 1e3;
    let gradients = (of_scale + of_field).backward();
    opt.update(&mut model, &gradients).unwrap();
    assert_eq!(model.scale.array(), [-1.0; 4]); // four of 1, of norm 2
}

/// A checkpoint holds them, and gives them back to a model that has others.
#[test]
fn untrained_weights_are_saved() {
    let make = |seed| {
        let model = Pretrained::<f32, Cpu>::build(&Cpu::seed_from_u64(seed));
        let sgd = optim::Sgd::new(&model, SgdConfig::default());
        let opt = Newton::new(&model, sgd, NewtonConfig::default()).unwrap();
        (model, opt)
    };
    let ((a, saved), (mut b, mut loaded)) = (make(1), make(2));
    assert_ne!(listing(&a), listing(&b));
    loaded.resume(&mut b, &saved.checkpoint(&a).unwrap()).unwrap();
    assert_eq!(listing(&a), listing(&b));
}

/// Sgd by hand, with a rate for each tensor.
fn stepped(before: &[f32], gradient: &[f32], rate: f64) -> Vec<f32> {
    before.iter().zip(gradient).map(|(w, g)| w - rate as f32 * g).collect()
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Trained<E: Dtype, D: Device<E>> {
    #[tlr(rate = 0.5)]
    hidden: Lin<4, 8, E, D>,
    act: Tanh,
    #[tlr(group, fixed_rate)]
    head: (Lin<8, 8, E, D>, Tanh, Lin<8, 2, E, D>),
}

impl Trained<f32, Cpu> {
    fn loss<T: Tape<f32, Cpu>>(
        &self,
        x: Tensor<Rank2<16, 4>, f32, Cpu, T>,
    ) -> Tensor<Rank0, f32, Cpu, T> {
        let y = self.head.forward(self.act.forward(self.hidden.forward(x)));
        (y - 1.0).square().mean()
    }
}

#[test]
fn each_layer_steps_at_its_rate() {
    let dev = Cpu::seed_from_u64(3);
    let mut model = Trained::<f32, Cpu>::build(&dev);
    let x = dev.sample_normal::<Rank2<16, 4>>();
    let sgd = Sgd::new(&model, SgdConfig { lr: 0.125, ..Default::default() });
    let mut opt = PerLayer::new(&model, sgd);

    let before = model.clone();
    let gradients = model.loss(x.trace(model.alloc_grads())).backward();
    opt.update(&mut model, &gradients).unwrap();
    let tensors = [
        (before.hidden.weight.as_vec(), gradients.get(&before.hidden.weight).as_vec(), 0.0625),
        (before.hidden.bias.as_vec(), gradients.get(&before.hidden.bias).as_vec(), 0.0625),
        (before.head.0.weight.as_vec(), gradients.get(&before.head.0.weight).as_vec(), 0.125),
        (before.head.0.bias.as_vec(), gradients.get(&before.head.0.bias).as_vec(), 0.125),
        (before.head.2.weight.as_vec(), gradients.get(&before.head.2.weight).as_vec(), 0.125),
        (before.head.2.bias.as_vec(), gradients.get(&before.head.2.bias).as_vec(), 0.125),
    ];
    let after: Vec<_> = listing(&model).into_iter().map(|tensor| tensor.2).collect();
    let expected: Vec<_> = tensors.iter().map(|(w, g, rate)| stepped(w, g, *rate)).collect();
    for (after, expected) in after.iter().flatten().zip(expected.iter().flatten()) {
        assert!((after - expected).abs() < 1e-6, "{after} against {expected}");
    }
    assert_ne!(before.hidden.weight.as_vec(), model.hidden.weight.as_vec());
}

#[test]
fn newton_trains_the_rates_of_a_derived_model() {
    let dev = Cpu::seed_from_u64(3);
    let mut model = Trained::<f32, Cpu>::build(&dev);
    let x = dev.sample_normal::<Rank2<16, 4>>();
    let momentum = Some(Momentum::Classic(0.5));
    let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, momentum, ..Default::default() });
    let config = NewtonConfig::default().window(Window::steps(4).unwrap());
    let mut opt = Newton::new(&model, PerLayer::new(&model, sgd), config).unwrap();

    let mut losses = Vec::new();
    for _ in 0..60 {
        let loss = model.loss(x.trace(model.alloc_grads()));
        losses.push(loss.array());
        opt.step(&mut model, &loss.backward(), losses[losses.len() - 1]).unwrap();
    }
    assert!(losses[59] < losses[0] / 2.0, "{} to {}", losses[0], losses[59]);
    let rates = opt.rates();
    assert!(rates[0].1 > 5e-4, "a rate this small grows: {rates:?}");
    assert_eq!(rates[1], ("head", 1e-3), "and a fixed_rate one stays");
}
