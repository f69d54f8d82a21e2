//! [`Problem`]: a model and its examples, for any optimizer.

use super::TaskDevice;
use crate::train::{TrainError, TrainLoss};
use dfdx::{
    nn::{NumParams, ZeroGrads},
    prelude::Gradients,
};
use std::path::PathBuf;
use tlr::TrainableLr;

/// A model, examples to train it on, and others to test it on.
///
/// All that is random comes from the seed that [`build`](Self::build)'s device and
/// [`epoch`](Self::epoch) get: every optimizer begins at the same weights and sees the same
/// batches.
pub trait Problem: Sync {
    /// The device that the model is trained on.
    type Device: TaskDevice;

    /// The model that is trained.
    type Model: TrainableLr<f32, Self::Device>
        + NumParams<f32, Self::Device>
        + ZeroGrads<f32, Self::Device>
        + 'static;

    /// How long it is trained.
    fn budget(&self) -> Budget;

    /// The examples, in words. Results on other examples do not count as results on these.
    fn data(&self) -> String;

    /// A model with the weights that training begins at.
    ///
    /// # Errors
    /// Out of memory.
    fn build(&self, device: &Self::Device) -> Result<Self::Model, TrainError>;

    /// The batches of an epoch, each as numbers of examples.
    ///
    /// # Errors
    /// There are no examples.
    fn epoch(&self, epoch: usize, seed: u64) -> Result<Vec<Vec<usize>>, TrainError>;

    /// The batch's mean loss, with its tape.
    ///
    /// # Errors
    /// An error of a layer; a number that is no example's.
    fn loss(
        &self,
        device: &Self::Device,
        model: &mut Self::Model,
        batch: Batch<'_>,
        gradients: Gradients<f32, Self::Device>,
    ) -> Result<TrainLoss<Self::Device>, TrainError>;

    /// How good the model is on the examples that it is not trained on.
    ///
    /// # Errors
    /// An error of a layer.
    fn test(&self, device: &Self::Device, model: &Self::Model) -> Result<Tested, TrainError>;
}

/// Examples that are trained on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The examples' numbers.
    pub examples: &'a [usize],
    /// The epoch, counted from 0. With the seed it decides how pictures are cropped.
    pub epoch: usize,
    /// The seed of the run.
    pub seed: u64,
}

/// How long a task is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many passes over the examples.
    pub epochs: usize,
    /// How many steps a pass has.
    pub batches: usize,
}

impl Budget {
    /// How many steps there are in all.
    ///
    /// ```
    /// assert_eq!(tlr_models::lab::Budget { epochs: 4, batches: 100 }.steps(), 400);
    /// ```
    pub fn steps(self) -> usize {
        self.epochs.saturating_mul(self.batches)
    }
}

/// How good a model is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tested {
    /// The mean loss.
    pub loss: f64,
    /// The part of its answers that is right, from 0 to 1, if the task has right and wrong ones.
    pub accuracy: Option<f64>,
}

/// How much is trained.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// A run within a second: to see that all of it works
    Smoke,
    /// A run within seconds, on one core
    Small,
    /// All data at hand, and budgets as in publications: hours
    Paper,
}

impl Scale {
    /// One of three values.
    pub(super) fn pick<T>(self, smoke: T, small: T, paper: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Small => small,
            Self::Paper => paper,
        }
    }
}

/// The folder with the data sets that are there already, and a folder for pictures that are drawn.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    data: Option<PathBuf>,
    scratch: Option<PathBuf>,
}

impl Folders {
    /// A folder with `mnist`, `cifar10`, `cifar100`, `multi30k` and `imagenet` in it, or some of
    /// them.
    ///
    /// ```
    /// use tlr_models::lab::Folders;
    ///
    /// let folders = Folders::below("/no/such/folder").scratch("out/drawn");
    /// assert!(folders.find("mnist").is_none());
    /// assert!(Folders::default().find("mnist").is_none());
    /// ```
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { data: Some(root.into()), scratch: None }
    }

    /// Adds a folder in which pictures may be drawn, if there are no others.
    ///
    /// Example: [`below`](Self::below).
    pub fn scratch(self, folder: impl Into<PathBuf>) -> Self {
        Self { scratch: Some(folder.into()), ..self }
    }

    /// The folder for what is drawn, if there is one.
    pub(super) fn for_drawings(&self) -> Option<&PathBuf> {
        self.scratch.as_ref()
    }

    /// The folder of a data set, if there is one.
    ///
    /// Example: [`below`](Self::below).
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.data.as_ref().map(|root| root.join(name)).filter(|folder| folder.is_dir())
    }
}
