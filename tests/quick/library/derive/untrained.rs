//! `#[tlr(untrained)]` and `#[tlr(no_decay)]`: fields whose weights stay as they are, or do not
//! decay.

use super::{listing, own_layers, Block, Encoder, Lin};
use dfdx::{
    optim::{Momentum, Sgd, SgdConfig, WeightDecay},
    prelude::*,
};
use tlr::{optim, Newton, NewtonConfig, Outcome, PerLayer, TensorCollection, TrainableLr, Window};

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

/// To dfdx the field is as any other: names, shapes and values, built, converted and reset. Only
/// tlr knows, so there is one layer. Fails for a field that is left out, and for one with layers.
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

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(group)]
struct OneLayer<E: Dtype, D: Device<E>> {
    #[tlr(untrained)]
    fixed: Lin<4, 4, E, D>,
    scale: Tensor<Rank1<4>, E, D>,
}

/// Bit for bit, whatever trains the rest: with decay, momentum, clipping, one rate or one a layer,
/// through rollbacks. The gradients of the field are there. Fails where any optimizer reaches the
/// field's weights.
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

/// With gradients of zero, decay alone moves weights: of all fields but those, with one rate, a
/// rate a layer, and through what is around. Fails where a walk over one layer, or one within a
/// field, forgets the attribute.
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

/// An exact step looks for gradients of what is trained only. Fails where it asks for those of the
/// field.
#[test]
fn an_exact_step_needs_no_gradient_of_an_untrained_field() {
    let dev = Cpu::seed_from_u64(4);
    let mut model = Pretrained::<f32, Cpu>::build(&dev);
    let sgd = optim::Sgd::new(&model, SgdConfig { lr: 1e-2, ..Default::default() });
    let mut opt = Newton::new(&model, sgd, NewtonConfig::default()).unwrap();
    let x = dev.sample_normal::<Rank2<8, 4>>();
    let before = listing(&model);
    let loss =
        |model: &Pretrained<f32, Cpu>| (model.head.forward(x.leaky_trace()) - 1.0).square().mean();
    for _ in 0..3 {
        let here = loss(&model).backward();
        opt.step_lookahead(&mut model, &here, |ahead| loss(ahead).backward()).unwrap();
    }
    for (now, before) in listing(&model).iter().zip(&before) {
        assert_eq!(now.2 != before.2, now.0.starts_with("head"), "{}", now.0);
    }
    // A missing gradient of what is trained is still an error.
    let here = loss(&model).backward();
    let none = x.leaky_trace().sum::<Rank0, _>().backward();
    let error = opt.step_lookahead(&mut model, &here, |_| none).unwrap_err();
    assert!(matches!(error, tlr::Error::UnusedParameters { .. }), "{error}");
}

/// A step that is lost in rounding raises the rate. Fails where a field that has no gradient is
/// taken for a device that cannot tell whether weights would move.
#[test]
fn an_untrained_field_does_not_hide_that_steps_are_too_small() {
    let dev = Cpu::seed_from_u64(4);
    let mut model = Pretrained::<f32, Cpu>::build(&dev);
    let sgd = optim::Sgd::new(&model, SgdConfig { lr: 1e-20, ..Default::default() });
    let config = NewtonConfig::default().ramp(false).window(Window::steps(1).unwrap());
    let mut opt = Newton::new(&model, sgd, config).unwrap();
    let x = dev.sample_normal::<Rank2<8, 4>>();
    let loss = (model.head.forward(x.leaky_trace()) - 1.0).square().mean();
    let value = loss.array();
    opt.step(&mut model, &loss.backward(), value).unwrap();
    assert_eq!(opt.history().last().unwrap().outcome, Outcome::Raised);
}
