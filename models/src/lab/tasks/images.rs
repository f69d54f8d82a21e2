//! Tasks on images.

use super::{
    decay::decayed,
    half::DeepInHalf,
    halved::halved,
    models::{Deep, Logistic, SmallConv, SmallMlp},
    task::{Opened, Task, LARGE},
};
use crate::{
    data::{cifar, digits as drawn, mnist, shapes, Augment, Batches, Dataset, Scaling},
    lab::{place::at_place, Batch, Budget, Folders, Place, Problem, Scale, TaskDevice, Tested},
    resnet::{Wrn10x1, Wrn16x1},
    train::{argmax, failed, one_hot, Net, Network, Pixels, TrainError, TrainLoss},
};
use dfdx::{
    losses::cross_entropy_with_logits_loss,
    prelude::{AsArray, Cpu, Gradients},
};

/// How many images are tested at a time. It matters only for memory.
const AT_ONCE: usize = 500;

pub(super) fn tasks() -> Vec<Task> {
    vec![
        Task {
            name: "mnist-mlp",
            about: "MNIST, where it is at hand, or drawn digits; a perceptron of 128 hidden \
                    units, of 1,000 at full scale",
            needs: None,
            on_gpu: true,
            open: |folders, scale, place| {
                let data = digits_of(folders, scale, [6_400, 60_000])?;
                match scale {
                    Scale::Paper if LARGE => {
                        at_place!(place, D => image_task::<Net<D>>(data, 128, 20))
                    }
                    _ => at_place!(place, D => image_task::<SmallMlp<D>>(data, 64, 4)),
                }
            },
        },
        Task {
            name: "mnist-2000",
            about: "as mnist-mlp, with 2,000 images only",
            needs: None,
            on_gpu: true,
            open: |folders, scale, place| {
                let data = digits_of(folders, scale, [2_000, 2_000])?;
                match scale {
                    Scale::Paper if LARGE => {
                        at_place!(place, D => image_task::<Net<D>>(data, 128, 20))
                    }
                    _ => at_place!(place, D => image_task::<SmallMlp<D>>(data, 50, 8)),
                }
            },
        },
        Task {
            name: "mnist-logistic",
            about:
                "softmax regression with a weight decay of 1e-4, as in the paper on hypergradients",
            needs: None,
            on_gpu: false,
            open: |folders, scale, _| {
                let data = digits_of(folders, scale, [12_800, 60_000])?;
                decayed_task::<Logistic>(data, 128, scale.pick(4, 4, 10))
            },
        },
        Task {
            name: "mnist-deep",
            about: "two hidden layers of 128 units, of 1,000 at full scale, with a weight decay \
                    of 1e-4, as in the paper on hypergradients",
            needs: None,
            on_gpu: false,
            open: |folders, scale, _| {
                let data = digits_of(folders, scale, [6_400, 60_000])?;
                match scale {
                    Scale::Paper if LARGE => decayed_task::<Deep<1000>>(data, 128, 10),
                    _ => decayed_task::<Deep<128>>(data, 64, 4),
                }
            },
        },
        Task {
            name: "mnist-deep-f16",
            about: "as mnist-deep, computed in half precision with weights in f32; 128 units also \
                    at full scale",
            needs: None,
            on_gpu: false,
            open: |folders, scale, _| {
                let data = digits_of(folders, scale, [6_400, 60_000])?;
                decayed_task::<DeepInHalf<f32, Cpu>>(data, 64, scale.pick(4, 4, 10))
            },
        },
        Task {
            name: "digits-conv",
            about: "drawn digits; two convolutions without norms",
            needs: None,
            on_gpu: false,
            open: |_, scale, _| {
                let [train, test] = scale.pick([256, 64], [3_200, 500], [20_000, 4_000]);
                let data = ("drawn digits", drawn::draw(0, train, test)?);
                image_task::<SmallConv<f32, Cpu>>(data, 32, scale.pick(2, 2, 5))
            },
        },
        Task {
            name: "cifar-wrn",
            about: "CIFAR-10 at half its size and a residual network, WRN-10-1; at full scale \
                    10,000 images in their own size, and WRN-16-1",
            needs: Some("cifar10"),
            on_gpu: true,
            open: |folders, scale, place| {
                let folder = folders.find("cifar10").unwrap_or_default();
                let data = cifar::load10(&folder)?.data;
                let [train, test] = scale.pick([64, 32], [1_280, 200], [10_000, 2_000]);
                let data = Dataset::new(data.train.take(train)?, data.test.take(test)?)?;
                residual("CIFAR-10", data, scale, place)
            },
        },
        Task {
            name: "shapes-wrn",
            about: "ten drawn shapes, in colour, with the same network as cifar-wrn",
            needs: None,
            on_gpu: true,
            open: |_, scale, place| {
                let [train, test] = scale.pick([64, 32], [1_280, 200], [10_000, 2_000]);
                residual("drawn shapes", shapes::draw(0, train, test, 10)?, scale, place)
            },
        },
    ]
}

fn residual(name: &'static str, data: Dataset, scale: Scale, place: Place) -> Opened {
    if LARGE && scale == Scale::Paper {
        return at_place!(place, D => image_task::<Wrn16x1<10, f32, D>>((name, data), 128, 10));
    }
    let data = Dataset::new(halved(&data.train)?, halved(&data.test)?)?;
    at_place!(place, D => image_task::<Wrn10x1<10, f32, D>>((name, data), 32, 2))
}

/// MNIST's digits: `small` images to train on at the small scale, and `paper` at full scale.
pub(super) fn digits_of(
    folders: &Folders,
    scale: Scale,
    [small, paper]: [usize; 2],
) -> Result<(&'static str, Dataset), TrainError> {
    let [train, test] = scale.pick([256, 64], [small, 1_000], [paper, 10_000]);
    digits(folders, train, test)
}

/// MNIST if it is at hand, otherwise drawn digits; with the name of the data.
pub(super) fn digits(
    folders: &Folders,
    train: usize,
    test: usize,
) -> Result<(&'static str, Dataset), TrainError> {
    let Some(folder) = folders.find("mnist") else {
        return Ok(("drawn digits", drawn::draw(0, train, test)?));
    };
    let data = mnist::load(&folder)?;
    Ok(("MNIST", Dataset::new(data.train.take(train)?, data.test.take(test)?)?))
}

pub(super) fn image_task<M: Network<Number = f32, Device: TaskDevice>>(
    data: (&'static str, Dataset),
    batch: usize,
    epochs: usize,
) -> Opened {
    Ok(Box::new(ImageTask::<M>::new(data, batch, epochs)?))
}

/// Images to classify, with a weight decay.
fn decayed_task<M>(data: (&'static str, Dataset), batch: usize, epochs: usize) -> Opened
where
    M: Network<Number = f32, Device = Cpu> + Clone + 'static,
{
    let task = ImageTask::<M> { decayed: Some(decayed), ..ImageTask::new(data, batch, epochs)? };
    Ok(Box::new(task))
}

/// Images to classify, moved and mirrored at random in training.
pub(super) fn augmented_task<M: Network<Number = f32, Device: TaskDevice>>(
    data: (&'static str, Dataset),
    batch: usize,
    epochs: usize,
) -> Opened {
    Ok(Box::new(ImageTask::<M> { augmented: true, ..ImageTask::new(data, batch, epochs)? }))
}

/// Adds the weight decay of a model to its loss.
type WithDecay<M, D> = fn(TrainLoss<D>, &M) -> Result<TrainLoss<D>, TrainError>;

/// Images to classify.
struct ImageTask<M: Network> {
    name: &'static str,
    data: Dataset,
    scaling: Scaling,
    batch: usize,
    budget: Budget,
    augmented: bool,
    /// Adds the weight decay to the loss, if the task has one.
    decayed: Option<WithDecay<M, M::Device>>,
}

impl<M: Network<Number = f32, Device: TaskDevice>> ImageTask<M> {
    fn new(
        (name, data): (&'static str, Dataset),
        batch: usize,
        epochs: usize,
    ) -> Result<Self, TrainError> {
        let batches = Batches::new(data.train.len(), batch, 0)?.batches_per_epoch();
        let budget = Budget { epochs, batches };
        let scaling = data.train.scaling();
        Ok(Self { name, data, scaling, batch, budget, augmented: false, decayed: None })
    }
}

impl<M: Network<Number = f32, Device: TaskDevice>> Problem for ImageTask<M> {
    type Device = M::Device;
    type Model = M;

    fn budget(&self) -> Budget {
        self.budget
    }

    fn data(&self) -> String {
        let (images, Budget { epochs, .. }) = (self.data.train.len(), self.budget);
        let decay = if self.decayed.is_some() { ", weight decay" } else { "" };
        format!("{}, {images} images, batch {}, {epochs} epochs{decay}", self.name, self.batch)
    }

    fn build(&self, device: &M::Device) -> Result<M, TrainError> {
        M::try_build(device).map_err(failed)
    }

    fn epoch(&self, epoch: usize, seed: u64) -> Result<Vec<Vec<usize>>, TrainError> {
        Ok(Batches::new(self.data.train.len(), self.batch, seed)?.epoch(epoch).collect())
    }

    fn loss(
        &self,
        device: &M::Device,
        model: &mut M,
        batch: Batch<'_>,
        gradients: Gradients<f32, M::Device>,
    ) -> Result<TrainLoss<M::Device>, TrainError> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let Batch { examples, epoch, seed } = batch;
        self.data.train.write_batch(examples, &self.scaling, &mut pixels, &mut labels)?;
        let [channels, rows, columns] = self.data.train.shape();
        if self.augmented {
            let augment = Augment::new(seed);
            augment.apply(epoch, examples, self.data.train.shape(), &mut pixels)?;
        }
        let images = (&*pixels, [examples.len(), channels, rows, columns]);
        let logits = model.train_logits(device, images, gradients)?;
        let loss = cross_entropy_with_logits_loss(logits, one_hot::<M>(device, &labels)?);
        match self.decayed {
            Some(decayed) => decayed(loss, model),
            None => Ok(loss),
        }
    }

    fn test(&self, device: &M::Device, model: &M) -> Result<Tested, TrainError> {
        let test = &self.data.test;
        let [channels, rows, columns] = test.shape();
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let (mut sum, mut right) = (0.0, 0);
        let all: Vec<usize> = (0..test.len()).collect();
        for batch in all.chunks(AT_ONCE) {
            test.write_batch(batch, &self.scaling, &mut pixels, &mut labels)?;
            let shape = [batch.len(), channels, rows, columns];
            let tested = classify(device, model, (&pixels, shape), &labels)?;
            (sum, right) = (sum + tested.0, right + tested.1);
        }
        let count = test.len() as f64;
        Ok(Tested { loss: sum / count, accuracy: Some(right as f64 / count) })
    }
}

/// The sum of the losses of some images, and how many of them are classified rightly.
pub(super) fn classify<M: Network<Number = f32, Device: TaskDevice>>(
    device: &M::Device,
    model: &M,
    images: Pixels<'_>,
    labels: &[usize],
) -> Result<(f64, usize), TrainError> {
    let logits = model.logits(device, images)?;
    let of_image = logits.as_vec();
    let pairs = of_image.chunks(M::CLASSES).zip(labels);
    let right = pairs.filter(|(logits, label)| argmax(logits) == Some(**label)).count();
    let y = one_hot::<M>(device, labels)?;
    let mean = f64::from(cross_entropy_with_logits_loss(logits, y).array());
    Ok((mean * labels.len() as f64, right))
}
