//! Compiles where the types of a CUDA model fit together; `cuda-ci-check` needs no CUDA for that.
#![cfg(feature = "cuda")]
#![allow(missing_docs)]

use dfdx::{
    optim::{Adam, RMSprop, Sgd},
    prelude::*,
};
use tlr::{
    engine::RateRule,
    optim::{self, Accumulate, Clip},
    Error, Family, Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr, Trainer,
    TunableOptimizer,
};

#[derive(Clone, Debug, TensorCollection, TrainableLr)]
struct Mlp<E: Dtype, D: Device<E>> {
    hidden: modules::Linear<70, 80, E, D>,
    act: ReLU,
    head: modules::Linear<80, 10, E, D>,
}

type Model<E = f32> = Mlp<E, Cuda>;

/// Everything that a training loop calls.
fn train<Opt, R>(
    mut opt: Trainer<Opt, R>,
    model: &mut Model,
    grads: &Gradients<f32, Cuda>,
) -> Result<(), Error>
where
    Opt: TunableOptimizer<Model = Model, Dtype = f32, Device = Cuda>,
    R: RateRule,
{
    opt.step(model, grads, 0.5f32)?;
    opt.update(model, grads)?;
    opt.step_lookahead(model, grads, |model| model.alloc_grads())?;
    let _ = (opt.rates(), opt.history());
    Ok(())
}

fn around<Opt>(model: &mut Model, opt: Opt, grads: &Gradients<f32, Cuda>) -> Result<(), Error>
where
    Opt: Family<Model = Model, Dtype = f32, Device = Cuda> + Clone,
{
    train(Newton::new(model, opt.clone(), NewtonConfig::default())?, model, grads)?;
    train(Newton::new(model, PerLayer::new(model, opt), NewtonConfig::default())?, model, grads)
}

fn all(dev: &Cuda) -> Result<(), Error> {
    let mut model = Model::build(dev);
    let grads = model.alloc_grads();
    let newton: Newton<Sgd<Mlp<f32, Cuda>, f32, Cuda>> =
        Newton::new(&model, Sgd::new(&model, Default::default()), NewtonConfig::default())?;
    train(newton, &mut model, &grads)?;
    let sgd = Sgd::new(&model, Default::default());
    around(&mut model, sgd, &grads)?;
    let adam = Adam::new(&model, Default::default());
    around(&mut model, adam, &grads)?;
    let rmsprop = RMSprop::new(&model, Default::default());
    around(&mut model, rmsprop, &grads)?;
    let ours = optim::Sgd::new(&model, Default::default());
    around(&mut model, Accumulate::new(Clip::by_norm(ours, 1.0)?, 2)?, &grads)?;
    let double = Model::<f64>::build(dev);
    let _: Newton<PerLayer<Sgd<Model<f64>, f64, Cuda>>> = Newton::new(
        &double,
        PerLayer::new(&double, Sgd::new(&double, Default::default())),
        NewtonConfig::default(),
    )?;
    Ok(())
}

#[test]
#[ignore = "gpu"]
fn gpu_trains() {
    assert!(all(&Cuda::default()).is_ok());
}
