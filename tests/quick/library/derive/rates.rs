//! The rates of a derived model, while it trains.

use super::{listing, Lin};
use dfdx::{
    optim::{Momentum, Sgd, SgdConfig},
    prelude::*,
};
use tlr::{Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr, Window};

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
