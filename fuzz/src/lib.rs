//! A small training, to be resumed from whatever bytes there are.

use dfdx::{optim::AdamConfig, prelude::*};
use tlr::{optim::Adam, Newton, NewtonConfig, PerLayer, Window};

/// Two layers, so that there are two rates; batch norm for its buffers.
type Net = (Linear<2, 2>, BatchNorm1D<2>, Tanh, Linear<2, 1>);
type Model = <Net as BuildOnDevice<Cpu, f32>>::Built;

/// Adam, for its two buffers a tensor and its count of steps.
pub struct Training {
    pub model: Model,
    pub optimizer: Newton<PerLayer<Adam<Model, f32, Cpu>>>,
}

impl Training {
    /// Always with the same weights.
    pub fn new() -> Result<Self, tlr::Error> {
        let device = Cpu::seed_from_u64(0);
        let model = device.build_module::<Net, f32>();
        let adam = Adam::new(&model, AdamConfig { lr: 1e-2, ..Default::default() });
        let config = NewtonConfig::default().window(Window::steps(2)?);
        let optimizer = Newton::new(&model, PerLayer::new(&model, adam), config)?;
        Ok(Self { model, optimizer })
    }

    /// A step towards the product of two numbers; `spoilt`, its loss is not a number.
    pub fn step(&mut self, spoilt: bool) -> Result<tlr::Step, tlr::Error> {
        let device = Cpu::default();
        let x = device.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -0.2], [2.0, 2.0]]);
        let y = device.tensor([[2.0], [-0.5], [-0.06], [4.0]]);
        let loss = mse_loss(self.model.forward_mut(x.trace(self.model.alloc_grads())), y);
        let value = if spoilt { f32::NAN } else { loss.array() };
        self.optimizer.step(&mut self.model, &loss.backward(), value)
    }

    /// All of it, as the bytes of a file.
    pub fn bytes(&self) -> Result<Vec<u8>, tlr::Error> {
        self.optimizer.checkpoint(&self.model)?.to_bytes()
    }
}
