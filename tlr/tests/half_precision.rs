//! Rates are f64 and moments are accumulated in f64, whatever the model's dtype.
#![cfg(feature = "f16")]
#![allow(missing_docs, clippy::unwrap_used)]

use dfdx::{
    dtypes::{f16, AMP},
    optim::{Optimizer, Sgd, SgdConfig},
    prelude::*,
};
use tlr::{Family, LearningRate, Newton, NewtonConfig, Outcome, PerLayer, Window};

type Model<E> = (modules::Linear<4, 16, E, Cpu>, Tanh, modules::Linear<16, 1, E, Cpu>);

/// Loss before and after training at learned rates, on a function of the inputs.
fn learn<E, Opt>(
    around: impl FnOnce(&Model<E>, Sgd<Model<E>, E, Cpu>) -> Opt,
) -> (f64, f64, Vec<f64>)
where
    E: Dtype + num_traits::Float + rand_distr::uniform::SampleUniform + num_traits::Zero,
    Cpu: Device<E>,
    rand_distr::StandardNormal: rand_distr::Distribution<E>,
    Opt: LearningRate<Model = Model<E>, Dtype = E, Device = Cpu> + Optimizer<Model<E>, Cpu, E>,
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
    let (first, last, rates) = learn::<AMP<f16>, _>(|model, sgd| PerLayer::new(model, sgd));
    assert!(last < first / 4.0 && rates.len() == 2, "{first} {last} {rates:?}");
}
