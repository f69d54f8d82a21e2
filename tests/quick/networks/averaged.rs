//! A run whose optimizer tests an averaged model, stopped between an epoch's save and its test.

use crate::persistence::{going_on, small, Told, Untestable};
use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};
use tlr_models::{
    baselines::{PeerOptimizer, ScheduleFreeSgd},
    layers::{AttentionMask, EncoderLayer, Sequences},
    train::{
        train_with, AnyLearner, Event, InMemory, Logits, Model, Network, Options, Persistence,
        Pixels, Run, Source, TrainError, TrainLogits,
    },
};

/// A classifier with batch norm, whose figures an average needs anew, and with dropout.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
struct Normed<E: Dtype, D: Device<E>> {
    first: modules::Linear<784, 8, E, D>,
    norm: modules::BatchNorm1D<8, E, D>,
    /// It has the dropout. An image is a sequence of one.
    layer: EncoderLayer<8, 2, 8, E, D>,
    last: modules::Linear<8, 10, E, D>,
}

impl Model for Normed<f32, Cpu> {
    type Number = f32;
    type Device = Cpu;
}

impl Network for Normed<f32, Cpu> {
    const CLASSES: usize = 10;
    const TAKES: &'static str = "784 pixels";

    fn accepts(shape: [usize; 3]) -> bool {
        shape.iter().product::<usize>() == 784
    }

    fn train_logits(
        &mut self,
        device: &Cpu,
        (pixels, [images, ..]): Pixels<'_>,
        gradients: Gradients<f32, Cpu>,
    ) -> Result<TrainLogits, TrainError> {
        let x = device.try_tensor_from_vec(pixels.to_vec(), (images, Const::<784>))?;
        let y = self.norm.try_forward_mut(self.first.try_forward(x.traced(gradients))?)?;
        let y: Sequences<8, f32, Cpu, _> = y.try_reshape_like(&(images, 1, Const))?;
        let y = self.layer.try_forward_mut((y, AttentionMask::default()))?;
        Ok(self.last.try_forward(y)?.try_reshape_like(&(images, 10))?)
    }

    fn logits(
        &self,
        device: &Cpu,
        (pixels, [images, ..]): Pixels<'_>,
    ) -> Result<Logits<NoneTape>, TrainError> {
        let x = device.try_tensor_from_vec(pixels.to_vec(), (images, Const::<784>))?;
        let y = self.norm.try_forward(self.first.try_forward(x)?)?;
        let y: Sequences<8, f32, Cpu, _> = y.try_reshape_like(&(images, 1, Const))?;
        let y = self.layer.try_forward((y, AttentionMask::default()))?;
        Ok(self.last.try_forward(y)?.try_reshape_like(&(images, 10))?)
    }
}

fn run(
    source: &dyn Source,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let options = Options { epochs: 3, batch_size: 20, ..Options::default() };
    let learner = |model: &Normed<f32, Cpu>| {
        let rule = ScheduleFreeSgd { lr: 0.1, ..ScheduleFreeSgd::default() };
        Ok(Box::new(PeerOptimizer::new(model, rule)?) as AnyLearner<_>)
    };
    train_with(source, &options, learner, persistence, observer)
}

/// The passes that give an averaged model its running figures draw for dropout. A run that was
/// saved before its test makes them again. Fails if they are counted in what was saved: then all
/// later draws are others.
#[test]
fn the_passes_for_an_average_are_drawn_for_once() {
    let data = small();
    let images = || InMemory::new(&data, 20, 0, None).unwrap();
    let mut straight = Told::default();
    run(&images(), &Persistence::default(), &mut |event| straight.listen(&event)).unwrap();
    assert_eq!(straight.epochs.len(), 3);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let source = Untestable { images: images(), tests: 1.into() };
    let error = run(&source, &going_on(&file), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("a damaged picture"), "{error}");
    let mut told = Told::default();
    run(&images(), &going_on(&file), &mut |event| told.listen(&event)).unwrap();
    assert_eq!(told, straight);
}
