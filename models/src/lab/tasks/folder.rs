//! The task on a folder of pictures.

use super::{
    images::classify,
    task::{Opened, LARGE},
};
use crate::{
    data::{
        folder::{write_drawn, Crop, Folder, Pictures, Preparation},
        Batches,
    },
    lab::{place::at_place, Batch, Budget, Folders, Place, Problem, Scale, TaskDevice, Tested},
    resnet::ResNet50,
    train::{failed, one_hot, Network, TrainError, TrainLoss},
};
use dfdx::{losses::cross_entropy_with_logits_loss, prelude::Gradients};
use std::{marker::PhantomData, path::PathBuf};

/// The classes of drawn pictures.
const CLASSES: usize = 4;

/// ImageNet, or another folder laid out as it is, or drawn pictures. At full scale there are 224 by
/// 224 pixels in batches of 96 for 80 epochs, as in the paper.
pub(super) fn open(folders: &Folders, scale: Scale, place: Place) -> Opened {
    let (name, dir) = match folders.find("imagenet") {
        Some(dir) => ("a folder of pictures", dir),
        None => ("drawn pictures", drawn(folders, scale)?),
    };
    let folder = Folder::open(&dir)?;
    let [side, batch, epochs] = scale.pick([32, 4, 1], [32, 16, 6], [224, 96, 80]);
    at_place!(place, D => match folder.train.classes().len() {
        ..=10 => folder_task::<ResNet50<10, f32, D>>(name, folder, side, batch, epochs),
        _ if LARGE => folder_task::<ResNet50<1000, f32, D>>(name, folder, side, batch, epochs),
        _ => Err(TrainError::OnlyRelease),
    })
}

/// A folder of drawn pictures, within the folder for drawings. All runs of a scale share it.
fn drawn(folders: &Folders, scale: Scale) -> Result<PathBuf, TrainError> {
    let scratch = folders.for_drawings().cloned().unwrap_or_else(std::env::temp_dir);
    let [train, val] = scale.pick([4, 4], [128, 32], [1_152, 288]);
    let dir = scratch.join(format!("tlr-drawn-pictures/{train}-{val}"));
    write_drawn(&dir, 0, train, val, CLASSES, 72)?;
    Ok(dir)
}

fn folder_task<M: Network<Number = f32, Device: TaskDevice>>(
    name: &'static str,
    folder: Folder,
    side: usize,
    batch: usize,
    epochs: usize,
) -> Opened {
    let batches = Batches::new(folder.train.len(), batch, 0)?.batches_per_epoch();
    let budget = Budget { epochs, batches };
    let preparation = Preparation::square(side as u32);
    let model = PhantomData::<fn() -> M>;
    Ok(Box::new(FolderTask { name, folder, preparation, batch, budget, model }))
}

/// Pictures in files, decoded as they are needed.
struct FolderTask<M> {
    name: &'static str,
    folder: Folder,
    preparation: Preparation,
    batch: usize,
    budget: Budget,
    model: PhantomData<fn() -> M>,
}

/// The pixels and the labels of some pictures, and the shape of all.
type Read = (Vec<f32>, Vec<usize>, [usize; 4]);

impl<M> FolderTask<M> {
    /// Reads some pictures.
    fn read(&self, pictures: &Pictures, numbers: &[usize], crop: Crop) -> Result<Read, TrainError> {
        let mut pixels = Vec::new();
        for &number in numbers {
            pixels.extend(pictures.read(number, &self.preparation, crop)?);
        }
        let label = |&number: &usize| pictures.get(number).map(|(_, label)| label);
        let side = self.preparation.side as usize;
        let labels = numbers.iter().filter_map(label).collect();
        Ok((pixels, labels, [numbers.len(), 3, side, side]))
    }
}

impl<M: Network<Number = f32, Device: TaskDevice>> Problem for FolderTask<M> {
    type Device = M::Device;
    type Model = M;

    fn budget(&self) -> Budget {
        self.budget
    }

    fn data(&self) -> String {
        let (pictures, side) = (self.folder.train.len(), self.preparation.side);
        let (batch, epochs) = (self.batch, self.budget.epochs);
        let name = self.name;
        format!("{name}, {pictures} of {side} by {side} pixels, batch {batch}, {epochs} epochs")
    }

    fn build(&self, device: &M::Device) -> Result<M, TrainError> {
        M::try_build(device).map_err(failed)
    }

    fn epoch(&self, epoch: usize, seed: u64) -> Result<Vec<Vec<usize>>, TrainError> {
        Ok(Batches::new(self.folder.train.len(), self.batch, seed)?.epoch(epoch).collect())
    }

    fn loss(
        &self,
        device: &M::Device,
        model: &mut M,
        Batch { examples, epoch, seed }: Batch<'_>,
        gradients: Gradients<f32, M::Device>,
    ) -> Result<TrainLoss<M::Device>, TrainError> {
        let crop = Crop::Random { seed, epoch };
        let (pixels, labels, shape) = self.read(&self.folder.train, examples, crop)?;
        let logits = model.train_logits(device, (&pixels, shape), gradients)?;
        Ok(cross_entropy_with_logits_loss(logits, one_hot::<M>(device, &labels)?))
    }

    fn test(&self, device: &M::Device, model: &M) -> Result<Tested, TrainError> {
        let val = &self.folder.val;
        let (mut sum, mut right) = (0.0, 0);
        let all: Vec<usize> = (0..val.len()).collect();
        for numbers in all.chunks(self.batch) {
            let (pixels, labels, shape) = self.read(val, numbers, Crop::Centre)?;
            let tested = classify(device, model, (&pixels, shape), &labels)?;
            (sum, right) = (sum + tested.0, right + tested.1);
        }
        let count = val.len() as f64;
        Ok(Tested { loss: sum / count, accuracy: Some(right as f64 / count) })
    }
}
