//! Rates are f64 and dot products are accumulated in f64, whatever the model's dtype.

mod master;

use dfdx::{
    dtypes::{f16, AMP},
    optim::{Optimizer, Sgd, SgdConfig},
    prelude::*,
};
use tlr::{Family, Newton, NewtonConfig, Outcome, PerLayer, TunableOptimizer, Window};

type Model<E> = (modules::Linear<4, 16, E, Cpu>, Tanh, modules::Linear<16, 1, E, Cpu>);

/// Loss before and after training at learned rates, on a function of the inputs.
fn learn<E, Opt>(
    around: impl FnOnce(&Model<E>, Sgd<Model<E>, E, Cpu>) -> Opt,
) -> (f64, f64, Vec<f64>)
where
    E: Dtype + num_traits::Float + rand_distr::uniform::SampleUniform + num_traits::Zero,
    Cpu: Device<E>,
    rand_distr::StandardNormal: rand_distr::Distribution<E>,
    Opt: TunableOptimizer<Model = Model<E>, Dtype = E, Device = Cpu> + Optimizer<Model<E>, Cpu, E>,
    Sgd<Model<E>, E, Cpu>: Family,
{
    let dev = Cpu::seed_from_u64(1);
    let mut model: Model<E> = BuildModule::build(&dev);
    let x: Tensor<Rank2<32, 4>, E, _> = dev.sample_normal();
    let y = x.clone().sum::<Rank1<32>, _>().tanh().reshape::<Rank2<32, 1>>();
    let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    let config = NewtonConfig::default().window(Window::steps(5).unwrap());
    let mut opt = Newton::new(&model, around(&model, sgd), config).unwrap();
    let mut losses = Vec::new();
    for _ in 0..300 {
        let loss = mse_loss(model.forward(x.trace(model.alloc_grads())), y.clone());
        losses.push(loss.array().to_f64().unwrap());
        opt.step(&mut model, &loss.backward(), losses[losses.len() - 1]).unwrap();
    }
    assert!(opt.history().iter().any(|decision| decision.outcome == Outcome::Scaled));
    let rates = opt.rates().iter().map(|(_, rate)| *rate).collect();
    (losses[0], losses[299], rates)
}

#[test]
fn a_half_precision_model_learns_its_rate() {
    let (first, last, rates) = learn::<f16, _>(|_, sgd| sgd);
    assert!(last < first / 4.0 && rates[0] > 1e-2, "{first} {last} {rates:?}");
}

#[test]
fn a_mixed_precision_model_learns_its_rates() {
    let (first, last, rates) = learn::<AMP<f16>, _>(PerLayer::new);
    assert!(last < first / 4.0 && rates.len() == 2, "{first} {last} {rates:?}");
}

// ---- ε ----

mod epsilon {
    use super::*;
    use dfdx::optim::{AdamConfig, RMSpropConfig};
    use tlr::{
        optim::{self, Accumulate, AdamWConfig, Clip},
        Backend, Error,
    };

    type Weights<E> = Tensor<Rank1<2>, E, Cpu>;

    fn weights<E: Dtype>() -> Weights<E>
    where
        Cpu: Device<E>,
    {
        Cpu::default().ones()
    }

    fn made<Opt: TunableOptimizer>(model: &Opt::Model, opt: Opt) -> Result<(), Error> {
        Newton::new(model, opt, NewtonConfig::default()).map(|_| ())
    }

    fn adam<E: Dtype>(eps: f64) -> Result<(), Error>
    where
        Cpu: Backend<E>,
    {
        let model = weights::<E>();
        made(&model, optim::Adam::new(&model, AdamConfig { eps, ..Default::default() }))
    }

    /// Fails where ε is compared as f64, and where it is rounded to f16 for `AMP<f16>`, with which
    /// dfdx computes in f32.
    #[test]
    fn is_refused_where_it_rounds_to_zero() {
        let refused = |result: Result<(), Error>| match result {
            Err(error @ Error::OutOfRange { what: "adam: eps", .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        let text = refused(adam::<f16>(1e-8));
        assert!(text.contains("not 1e-8") && text.contains("take 1e-4"), "{text}");
        refused(adam::<f32>(1e-50));
        for eps in [0.0, -1e-3, f64::NAN, f64::INFINITY] {
            refused(adam::<f64>(eps));
        }
        for fine in [
            adam::<f16>(1e-4),
            adam::<f16>(5e-8), // rounds up to 6e-8
            adam::<AMP<f16>>(1e-8),
            adam::<f32>(1e-8),
            adam::<f64>(1e-50),
        ] {
            assert_eq!(fine, Ok(()));
        }
    }

    /// Ours and dfdx's, alone and wrapped. Fails where one of them does not ask the rule.
    #[test]
    fn is_refused_by_every_optimizer_that_has_it() {
        let model = weights::<f16>();
        let adam = || optim::Adam::new(&model, AdamConfig::default());
        let results = [
            ("adam: eps", made(&model, adam())),
            ("adam: eps", made(&model, optim::AdamW::new(&model, AdamWConfig::default()))),
            ("adam: eps", made(&model, dfdx::optim::Adam::new(&model, AdamConfig::default()))),
            ("adam: eps", made(&model, PerLayer::new(&model, adam()))),
            ("adam: eps", made(&model, Clip::by_norm(adam(), 1.0).unwrap())),
            ("adam: eps", made(&model, Accumulate::new(adam(), 2).unwrap())),
            ("rmsprop: eps", made(&model, optim::RMSprop::new(&model, RMSpropConfig::default()))),
            (
                "rmsprop: eps",
                made(&model, dfdx::optim::RMSprop::new(&model, RMSpropConfig::default())),
            ),
        ];
        for (name, result) in results {
            assert!(matches!(result, Err(Error::OutOfRange { what, .. }) if what == name));
        }
        assert_eq!(made(&model, optim::Sgd::new(&model, SgdConfig::default())), Ok(()));
    }

    /// What it would do: 0/0 at the first gradient that is 0.
    #[test]
    fn of_zero_is_the_end_of_a_weight() {
        let mut model = weights::<f16>();
        let mut adam = optim::Adam::new(&model, AdamConfig::default());
        let zero = (model.leaky_trace() * f16::ZERO).sum::<Rank0, _>().backward();
        adam.update(&mut model, &zero).unwrap();
        assert!(model.as_vec().iter().all(|w| w.is_nan()));
    }
}

// ---- Means ----

/// A mean of 200 is infinite in half precision if its sum is, with `AMP` too. The errors that come
/// of it say so, and what they say helps. Fails where they do not, or where they blame it for a NaN
/// or for weights.
#[test]
fn a_mean_that_overflows_is_named() {
    let dev = Cpu::default();
    let large: Tensor<Rank2<20, 20>, f16, _> = dev.ones() * f16::from_f64(200.0);
    let mean = f64::from(large.clone().mean::<Rank0, _>().array());
    let by_axes = f64::from(large.mean::<Rank1<20>, Axis<0>>().mean::<Rank0, _>().array());
    assert!(mean == f64::INFINITY && (by_axes - 200.0).abs() < 1.0, "{mean} {by_axes}");
    let mixed: Tensor<Rank2<20, 20>, AMP<f16>, _> = dev.ones() * AMP(f16::from_f64(200.0));
    assert!(mixed.mean::<Rank0, _>().array().0.is_infinite());

    let fails = |config: NewtonConfig, loss: f64| {
        let mut w: Tensor<Rank1<2>, f16, _> = dev.ones();
        let sgd = Sgd::new(&w, SgdConfig::default());
        let mut opt = Newton::new(&w, sgd, config).unwrap();
        let gradients = w.leaky_trace().sum::<Rank0, _>().backward();
        let step = |_| opt.step(&mut w, &gradients, loss).err();
        (0..1000).find_map(step).unwrap().to_string()
    };
    let config = NewtonConfig::default().window(Window::steps(5).unwrap());
    for config in [config, config.safeguard(None)] {
        let text = fails(config, mean);
        assert!(
            text.contains("above 65504") && text.contains("one axis after the other"),
            "{text}"
        );
    }
    let text = fails(config.safeguard(None), f64::NAN);
    assert!(!text.contains("65504"), "{text}");
}
