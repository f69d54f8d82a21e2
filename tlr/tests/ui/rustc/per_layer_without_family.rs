use dfdx::{optim::OptimizerUpdateError, prelude::*};
use tlr::{PerLayer, TunableOptimizer};

type Model = modules::Linear<2, 2, f32, Cpu>;

struct Mine;

impl Optimizer<Model, Cpu, f32> for Mine {
    fn update(
        &mut self,
        _: &mut Model,
        _: &Gradients<f32, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        Ok(())
    }
}

impl TunableOptimizer for Mine {
    type Model = Model;
    type Dtype = f32;
    type Device = Cpu;

    fn rate(&self, _: usize) -> f64 {
        1.0
    }

    fn set_rate(&mut self, _: usize, _: f64) {}

    fn reset(&mut self, _: &Model) {}
}

fn wrap(model: &Model) {
    PerLayer::new(model, Mine);
}

fn main() {}
