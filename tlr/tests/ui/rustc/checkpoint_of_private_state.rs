use dfdx::{
    optim::{Sgd, SgdConfig},
    prelude::*,
};
use tlr::{Newton, NewtonConfig, PerLayer};

fn main() -> Result<(), tlr::Error> {
    let model = Cpu::default().build_module::<Linear<2, 2>, f32>();
    let sgd = || Sgd::new(&model, SgdConfig::default());
    Newton::new(&model, sgd(), NewtonConfig::default())?.save(&model, "run.safetensors")?;
    let layers = PerLayer::new(&model, sgd());
    Newton::new(&model, layers, NewtonConfig::default())?.save(&model, "run.safetensors")
}
