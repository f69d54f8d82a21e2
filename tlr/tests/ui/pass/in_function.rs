//! Models of a function's own.

#![deny(warnings)]
#![allow(dead_code, unreachable_pub)]

pub fn names() -> Vec<String> {
    use dfdx::{optim::Sgd, prelude::*};
    use tlr::{Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr, TunableOptimizer};

    #[derive(Clone, TensorCollection, TrainableLr)]
    struct Local<E: Dtype, D: Device<E>> {
        linear: modules::Linear<2, 2, E, D>,
    }

    let model = Local::<f32, Cpu>::build(&Cpu::default());
    let opt = PerLayer::new(&model, Sgd::new(&model, Default::default()));
    assert!(opt.rate(0) > 0.0);
    let opt = Newton::new(&model, opt, NewtonConfig::default());
    opt.map(|opt| opt.rates().iter().map(|rate| rate.0.to_owned()).collect()).unwrap_or_default()
}
