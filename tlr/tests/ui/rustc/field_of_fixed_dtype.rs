use dfdx::prelude::*;
use tlr::TensorCollection;

#[derive(TensorCollection)]
struct Model {
    one: modules::Linear<2, 2, f32, Cpu>,
}

fn main() {}
