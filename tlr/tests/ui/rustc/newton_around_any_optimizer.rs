use dfdx::{optim::OptimizerUpdateError, prelude::*};
use tlr::{Newton, NewtonConfig};

struct Mine;

impl<M: TensorCollection<f32, Cpu>> Optimizer<M, Cpu, f32> for Mine {
    fn update(
        &mut self,
        _: &mut M,
        _: &Gradients<f32, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        Ok(())
    }
}

fn main() {
    let model = Cpu::default().build_module::<Linear<2, 2>, f32>();
    let _ = Newton::new(&model, Mine, NewtonConfig::default());
}
