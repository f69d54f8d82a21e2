use dfdx::prelude::*;
use tlr::optim::Elementwise;

#[derive(Clone, Copy, Debug)]
struct Mine {
    lr: f64,
}

fn main() {
    let model = Cpu::default().build_module::<Linear<2, 2>, f32>();
    let _ = Elementwise::<_, f32, Cpu, _, 1>::new(&model, Mine { lr: 0.1 });
}
