//! The tasks of the paper's figures and tables. At paper scale they are the paper's, as far as it
//! tells; at the other scales they are small enough for two cores to do in seconds.

use super::{
    folder,
    halved::halved,
    images::{augmented_task, digits_of, image_task},
    models::SmallMlp,
    sentences::sentences,
    task::{Task, LARGE},
};
use crate::{
    data::{
        cifar, shapes,
        text::{multi30k, toy},
        Dataset,
    },
    lab::{place::at_place, Folders, Scale},
    resnet::{Wrn10x1, Wrn16x4},
    train::{Net, TrainError},
    Seq2Seq, Seq2SeqTransformer,
};

/// MNIST with the perceptron, in the paper's batches.
pub(in crate::lab) const MNIST: [Task; 4] =
    [mnist::<64>(), mnist::<128>(), mnist::<256>(), mnist::<512>()];

/// CIFAR with a wide residual network, in the paper's batches.
pub(in crate::lab) const CIFAR: [Task; 4] =
    [cifar::<64>(), cifar::<128>(), cifar::<256>(), cifar::<512>()];

/// ResNet-50 on a folder of pictures.
pub(in crate::lab) const PICTURES: Task = Task {
    name: "pictures-resnet50",
    about: "a folder of pictures with ResNet-50: ImageNet, where it is at hand, or four kinds of \
            drawn shapes at 32 by 32 pixels",
    needs: None,
    on_gpu: true,
    open: folder::open,
};

/// Two layers on either side, 64 features, for a thousand words.
type Small<D> = Seq2SeqTransformer<1000, 1000, 64, 4, 128, 2, 2, f32, D>;

/// A transformer that translates.
pub(in crate::lab) const TRANSLATION: Task = Task {
    name: "translation",
    about: "German to English with a transformer without dropout: Multi30k, where it is at hand, \
            or a small language that the program makes itself",
    needs: None,
    on_gpu: true,
    open: |folders, scale, place| {
        let [train, test] = scale.pick([64, 16], [3_200, 100], [29_000, 1_014]);
        let (name, train, val) = match folders.find("multi30k") {
            Some(folder) => {
                let data = multi30k::load(&folder)?;
                ("Multi30k", data.train.take(train)?, data.val.take(test)?)
            }
            None => {
                let data = toy::draw(1, train, test, 1)?;
                ("a made language", data.train, data.val)
            }
        };
        at_place!(place, D => match scale {
            Scale::Paper if LARGE => {
                sentences::<Seq2Seq<10_000, 10_000, f32, D>>(name, &train, &val, 10_000, 20)
            }
            _ => sentences::<Small<D>>(name, &train, &val, 1_000, scale.pick(1, 8, 8)),
        })
    },
};

const fn mnist<const BATCH: usize>() -> Task {
    let name = match BATCH {
        64 => "mnist-64",
        128 => "mnist-128",
        256 => "mnist-256",
        _ => "mnist-512",
    };
    Task {
        name,
        about: "MNIST, where it is at hand, or drawn digits, with a perceptron of 1,000 hidden \
                units",
        needs: None,
        on_gpu: true,
        open: |folders, scale, place| {
            let data = digits_of(folders, scale, [25_600, 60_000])?;
            let epochs = scale.pick(2, 10, 20);
            at_place!(place, D => match scale {
                Scale::Smoke => image_task::<SmallMlp<D>>(data, BATCH, epochs),
                _ => image_task::<Net<D>>(data, BATCH, epochs),
            })
        },
    }
}

const fn cifar<const BATCH: usize>() -> Task {
    let name = match BATCH {
        64 => "cifar-64",
        128 => "cifar-128",
        256 => "cifar-256",
        _ => "cifar-512",
    };
    Task {
        name,
        about: "CIFAR-100, or CIFAR-10, or drawn shapes, the first that is at hand, with a wide \
                residual network: WRN-16-4 at full scale, and WRN-10-1 on images of half the size \
                below",
        needs: None,
        on_gpu: true,
        open: |folders, scale, place| {
            let [train, test] = scale.pick([64, 16], [2_560, 500], [50_000, 10_000]);
            let (name, data) = coloured(folders, [train, test])?;
            if scale == Scale::Paper && LARGE {
                let (classes, data) = (data.train.classes(), (name, data));
                return at_place!(place, D => match classes {
                    ..=10 => augmented_task::<Wrn16x4<10, f32, D>>(data, BATCH, 100),
                    _ => augmented_task::<Wrn16x4<100, f32, D>>(data, BATCH, 100),
                });
            }
            let data = Dataset::new(halved(&data.train)?, halved(&data.test)?)?;
            let epochs = scale.pick(1, 8, 8);
            let (classes, data) = (data.train.classes(), (name, data));
            at_place!(place, D => match classes {
                ..=10 => image_task::<Wrn10x1<10, f32, D>>(data, BATCH, epochs),
                _ if LARGE => image_task::<Wrn10x1<100, f32, D>>(data, BATCH, epochs),
                _ => Err(TrainError::OnlyRelease),
            })
        },
    }
}

/// `train` images in colour to train on and `test` to test on, or as many as there are.
fn coloured(
    folders: &Folders,
    [train, test]: [usize; 2],
) -> Result<(&'static str, Dataset), TrainError> {
    let (name, all) = match (folders.find("cifar100"), folders.find("cifar10")) {
        (Some(folder), _) => ("CIFAR-100", cifar::load100(&folder)?.data),
        (None, Some(folder)) => ("CIFAR-10", cifar::load10(&folder)?.data),
        (None, None) => return Ok(("drawn shapes", shapes::draw(0, train, test, 10)?)),
    };
    let (train, test) = (train.min(all.train.len()), test.min(all.test.len()));
    Ok((name, Dataset::new(all.train.take(train)?, all.test.take(test)?)?))
}
