//! Runs of a model with batch norm, whose running figures are those of a rank.

use crate::ranks::on_boxed_ranks;
use dfdx::{nn::modules, prelude::*};
use std::{path::Path, sync::atomic::AtomicBool};
use tlr::{TensorCollection, TrainableLr};
use tlr_models::{
    data::digits,
    train::{
        train, InMemory, Logits, Model, Network, Options, Persistence, Pixels, Share, TrainError,
        TrainLogits,
    },
};

/// One layer, and batch norm behind it.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
struct Normed<E: Dtype, D: Device<E>> {
    linear: modules::Linear<784, 10, E, D>,
    norm: modules::BatchNorm1D<10, E, D>,
}

impl Model for Normed<f32, Cpu> {
    type Number = f32;
    type Device = Cpu;
}

impl Network for Normed<f32, Cpu> {
    const CLASSES: usize = 10;
    const TAKES: &'static str = "784 pixels";

    fn accepts(shape: [usize; 3]) -> bool {
        shape == [1, 28, 28]
    }

    fn train_logits(
        &mut self,
        device: &Cpu,
        (pixels, [images, ..]): Pixels<'_>,
        gradients: Gradients<f32, Cpu>,
    ) -> Result<TrainLogits, TrainError> {
        let x = device.tensor_from_vec(pixels.to_vec(), (images, Const::<784>));
        let out = self.linear.forward(x.traced(gradients));
        Ok(self.norm.forward_mut(out).reshape_like(&(images, 10)))
    }

    fn logits(
        &self,
        device: &Cpu,
        (pixels, [images, ..]): Pixels<'_>,
    ) -> Result<Logits<NoneTape>, TrainError> {
        let x = device.tensor_from_vec(pixels.to_vec(), (images, Const::<784>));
        Ok(self.norm.forward(self.linear.forward(x)).reshape_like(&(images, 10)))
    }
}

/// What two ranks come to in two epochs: all losses, those of the tests included. With a file, the
/// run stops after each step and goes on.
fn trained(file: Option<&Path>) -> Vec<Vec<f64>> {
    let data = digits::draw(1, 200, 60).unwrap();
    let options = Options { batch_size: 40, epochs: 2, ..Options::default() };
    on_boxed_ranks(2, |ranks| {
        let source = InMemory::new(&data, options.batch_size, options.seed, None).unwrap();
        let source = source.share(Share::of_rank(&ranks));
        let stop = AtomicBool::new(true);
        let persistence = Persistence {
            checkpoint: file,
            resume: true,
            stop: file.map(|_| &stop),
            ranks: Some(&ranks),
            ..Persistence::default()
        };
        loop {
            match train::<Normed<f32, Cpu>>(&source, &options, &persistence, &mut |_| ()) {
                Err(TrainError::Stopped { .. }) => continue,
                ended => {
                    let run = ended.unwrap();
                    let tested = run.epochs.iter().map(|epoch| epoch.test_loss);
                    return run.losses.iter().copied().chain(tested).collect();
                }
            }
        }
    })
}

/// Fails if a rank that was stopped within an epoch goes on with the running figures of the first.
#[test]
fn each_rank_goes_on_with_its_own_running_figures() {
    let folder = tempfile::tempdir().unwrap();
    let straight = trained(None);
    assert_eq!(straight[0].len(), 12);
    assert_eq!(straight, trained(Some(&folder.path().join("run.safetensors"))));
}
