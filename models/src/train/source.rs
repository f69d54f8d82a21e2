//! Where the images of an epoch come from.

use super::{Facts, Share, TrainError};
#[cfg(feature = "pictures")]
use crate::data::folder::{Crop, Folder, Loader, Preparation};
use crate::data::{Augment, Batches, Dataset, Scaling};
use std::sync::OnceLock;

/// How many images a model is tested on at a time. It matters only for memory.
const TEST_BATCH: usize = 1000;

/// What is done with a batch: its scaled pixels, image by image as (channel, row, column), and its
/// labels.
pub type Visit<'a> = dyn FnMut(&[f32], &[usize]) -> Result<(), TrainError> + 'a;

/// Images to train and test on, a batch at a time.
pub trait Source {
    /// The channels, rows and columns of an image.
    fn shape(&self) -> [usize; 3];

    /// The number of classes; labels are below it. Another label ends the run:
    /// [`TrainError::Label`].
    fn classes(&self) -> usize;

    /// How many images there are to train on.
    fn train_len(&self) -> usize;

    /// How many images there are to test on.
    fn test_len(&self) -> usize;

    /// How many batches an epoch has.
    fn batches_per_epoch(&self) -> usize;

    /// The share of each batch that [`epoch`](Self::epoch) shows; all of it by default. A run on
    /// several ranks refuses a source that does not show this rank's own:
    /// [`TrainError::OtherShare`].
    fn own_share(&self) -> Share {
        Share::default()
    }

    /// How the images are shown, by the examples' flags. A checkpoint with other settings is
    /// refused.
    fn settings(&self) -> Facts;

    /// Notes for users of the model, by name. They stand beside the best weights.
    fn notes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What identifies these images, their classes included. A checkpoint of other images is
    /// refused.
    ///
    /// # Errors
    /// Images that cannot be read.
    fn data(&self) -> Result<Facts, TrainError>;

    /// Shows `visit` the batches of an epoch, leaving out the first `skip`, in an order that
    /// depends on nothing but its number and the seed.
    ///
    /// # Errors
    /// The errors of `visit`, and images that cannot be read.
    fn epoch(&self, epoch: usize, skip: usize, visit: &mut Visit<'_>) -> Result<(), TrainError>;

    /// Shows `visit` the images to test on.
    ///
    /// # Errors
    /// As [`epoch`](Self::epoch).
    fn test(&self, visit: &mut Visit<'_>) -> Result<(), TrainError>;
}

/// Images that are all in memory.
#[derive(Debug)]
pub struct InMemory<'a> {
    data: &'a Dataset,
    scaling: Scaling,
    batches: Batches,
    share: Share,
    augment: Option<Augment>,
    /// The fingerprint, which is computed once: all pixels are read for it.
    identity: OnceLock<Facts>,
}

impl<'a> InMemory<'a> {
    /// Images scaled by the training images' mean and deviation, in batches of this size. They are
    /// changed at random by `augment`, if there is one.
    ///
    /// # Errors
    /// There are no images, or batches would have none.
    ///
    /// Example: [`train`](super::train).
    pub fn new(
        data: &'a Dataset,
        batch_size: usize,
        seed: u64,
        augment: Option<Augment>,
    ) -> Result<Self, TrainError> {
        let batches = Batches::new(data.train.len(), batch_size, seed)?;
        let scaling = data.train.scaling();
        let (share, identity) = (Share::default(), OnceLock::new());
        Ok(Self { data, scaling, batches, share, augment, identity })
    }

    /// Only a part of each batch, as one of several ranks has it. It may be empty.
    ///
    /// Example: [`drop_last`](Self::drop_last).
    pub fn share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Without a last batch that is smaller than the others: see [`Batches::drop_last`].
    ///
    /// # Example
    /// ```
    /// use tlr_models::{
    ///     data::digits,
    ///     train::{InMemory, Share, Source},
    /// };
    ///
    /// let data = digits::draw(0, 50, 10)?;
    /// let first = Share::new(0, 2).expect("the first of two ranks");
    /// let source = InMemory::new(&data, 20, 0, None)?.share(first).drop_last();
    /// assert_eq!(source.batches_per_epoch(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drop_last(self) -> Self {
        Self { batches: self.batches.drop_last(), ..self }
    }
}

impl Source for InMemory<'_> {
    fn shape(&self) -> [usize; 3] {
        self.data.train.shape()
    }

    fn classes(&self) -> usize {
        self.data.train.classes()
    }

    fn train_len(&self) -> usize {
        self.data.train.len()
    }

    fn test_len(&self) -> usize {
        self.data.test.len()
    }

    fn batches_per_epoch(&self) -> usize {
        self.batches.batches_per_epoch()
    }

    fn own_share(&self) -> Share {
        self.share
    }

    fn settings(&self) -> Facts {
        Facts::default().with_flag("--no-augment", self.augment.is_none())
    }

    fn notes(&self) -> Vec<(&'static str, String)> {
        vec![("scaling", self.scaling.to_string())]
    }

    fn data(&self) -> Result<Facts, TrainError> {
        let identity = || {
            Facts::default()
                .with("the training set", self.data.train.identity())
                .with("the test set", self.data.test.identity())
        };
        Ok(self.identity.get_or_init(identity).clone())
    }

    fn epoch(&self, epoch: usize, skip: usize, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for indices in self.batches.epoch(epoch).skip(skip) {
            let own = self.share.of(&indices);
            self.data.train.write_batch(own, &self.scaling, &mut pixels, &mut labels)?;
            if let Some(augment) = &self.augment {
                augment.apply(epoch, own, self.shape(), &mut pixels)?;
            }
            visit(&pixels, &labels)?;
        }
        Ok(())
    }

    fn test(&self, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let indices: Vec<_> = (0..self.data.test.len()).collect();
        for indices in indices.chunks(TEST_BATCH) {
            self.data.test.write_batch(indices, &self.scaling, &mut pixels, &mut labels)?;
            visit(&pixels, &labels)?;
        }
        Ok(())
    }
}

/// Pictures that are decoded as they are needed, on threads beside the training.
#[cfg(feature = "pictures")]
#[derive(Debug)]
pub struct Decoded<'a> {
    folder: &'a Folder,
    preparation: Preparation,
    loader: Loader,
    batches: Batches,
    share: Share,
    batch_size: usize,
    seed: u64,
    /// The fingerprint, which is computed when the folder is opened, because files may change.
    identity: Facts,
}

#[cfg(feature = "pictures")]
impl<'a> Decoded<'a> {
    /// Pictures that are cropped and mirrored at random for training, in batches of this size.
    ///
    /// # Errors
    /// Batches would have no pictures, or pictures cannot be read.
    ///
    /// # Example
    /// ```
    /// use tlr_models::{
    ///     data::folder::{write_drawn, Folder, Loader, Preparation},
    ///     train::{Decoded, Source},
    /// };
    ///
    /// let dir = tempfile::tempdir()?;
    /// write_drawn(dir.path(), 7, 12, 4, 3, 40)?; // seed, to train on, to test on, classes, side
    /// let folder = Folder::open(dir.path())?;
    /// let source = Decoded::new(&folder, Preparation::square(32), Loader::default(), 4, 7)?;
    /// assert_eq!(source.batches_per_epoch(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(
        folder: &'a Folder,
        preparation: Preparation,
        loader: Loader,
        batch_size: usize,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let batches = Batches::new(folder.train.len(), batch_size, seed)?;
        let (train, test) = (folder.train.identity()?, folder.val.identity()?);
        let classes = folder.train.classes();
        let identity = Facts::default().with("the number of classes", classes.len());
        let identity = classes.iter().enumerate().fold(identity, |facts, (label, name)| {
            facts.with(&format!("class {}", label + 1), name)
        });
        let identity = identity.with("the training set", train).with("the validation set", test);
        let share = Share::default();
        Ok(Self { folder, preparation, loader, batches, share, batch_size, seed, identity })
    }

    /// Only a part of each batch, as one of several ranks has it. It may be empty.
    ///
    /// Example: as [`InMemory::drop_last`].
    pub fn share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Without a last batch that is smaller than the others: see [`Batches::drop_last`].
    ///
    /// Example: as [`InMemory::drop_last`].
    pub fn drop_last(self) -> Self {
        Self { batches: self.batches.drop_last(), ..self }
    }
}

#[cfg(feature = "pictures")]
impl Source for Decoded<'_> {
    fn shape(&self) -> [usize; 3] {
        let side = self.preparation.side as usize;
        [3, side, side]
    }

    fn classes(&self) -> usize {
        self.folder.train.classes().len()
    }

    fn train_len(&self) -> usize {
        self.folder.train.len()
    }

    fn test_len(&self) -> usize {
        self.folder.val.len()
    }

    fn batches_per_epoch(&self) -> usize {
        self.batches.batches_per_epoch()
    }

    fn own_share(&self) -> Share {
        self.share
    }

    fn settings(&self) -> Facts {
        Facts::default().with("--side", self.preparation.side)
    }

    fn data(&self) -> Result<Facts, TrainError> {
        Ok(self.identity.clone())
    }

    fn epoch(&self, epoch: usize, skip: usize, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        let crop = Crop::Random { seed: self.seed, epoch };
        let own = |indices: Vec<usize>| self.share.of(&indices).to_vec();
        let order = self.batches.epoch(epoch).skip(skip).map(own);
        for batch in self.folder.train.batches(order, &self.preparation, crop, self.loader)? {
            let batch = batch?;
            visit(&batch.pixels, &batch.labels)?;
        }
        Ok(())
    }

    fn test(&self, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        let indices: Vec<_> = (0..self.folder.val.len()).collect();
        let order: Vec<_> = indices.chunks(self.batch_size).map(<[_]>::to_vec).collect();
        for batch in self.folder.val.batches(order, &self.preparation, Crop::Centre, self.loader)? {
            let batch = batch?;
            visit(&batch.pixels, &batch.labels)?;
        }
        Ok(())
    }
}
