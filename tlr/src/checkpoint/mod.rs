//! Training that goes on where it was: model, optimizer and engine in one file.

mod file;
mod of_ranks;
mod tensor_file;

pub use tensor_file::TensorFile;

pub(crate) use tensor_file::Tensors;

use crate::{
    engine::{State, MAX_COUNT},
    error::{CheckpointError, Difference, Error},
    settings::Settings,
    tensors::Stored,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Everything that training depends on, at one step.
///
/// It holds the model with its buffers, what the base optimizer has accumulated, the snapshots, all
/// that the [engine](crate::engine) remembers, and the configuration. Bytes of your own can be
/// [attached](Self::attach), such as the state of a random generator. Training that is
/// [resumed](crate::Trainer::resume) from a checkpoint goes on as if it had never stopped, to the
/// bit. ([`save`](crate::Trainer::save) and [`load`](crate::Trainer::load) do without this type.)
///
/// # File
/// A checkpoint's file is in the safetensors format. Its tensors are `model.*`, `snapshot.*` and
/// `snapshot_before.*` with the paths of the model's tensors, `optimizer.<buffer>.*`, and
/// `attached.*` as bytes. `direction.*` takes the place of `snapshot_before.*` with
/// [`Config::bf16_directions`](crate::Config::bf16_directions); `sketch` and `sketch_moved` take
/// that of both snapshots with [`Config::sketch`](crate::Config::sketch). A
/// [`MixedPrecision`](crate::MixedPrecision) adds `tlr.loss_scale`. A plain trainer takes no notice
/// of it: it goes on from the master, in f32. Ranks that have
/// [joined](crate::parallel::Ranks::join) their checkpoints add `rank.<number>.*`. The rest is
/// JSON, in `progress`. A checksum covers it all.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{optim::Sgd, Checkpoint, Newton, NewtonConfig};
///
/// let dev = Cpu::default();
/// let new = || -> Result<_, tlr::Error> {
///     let model = dev.build_module::<Linear<4, 2>, f32>();
///     let sgd = Sgd::new(&model, SgdConfig::default());
///     let opt = Newton::new(&model, sgd, NewtonConfig::default())?;
///     Ok((model, opt))
/// };
/// let path = std::env::temp_dir().join("tlr-doc.safetensors");
///
/// let (model, mut opt) = new()?;
/// opt.checkpoint(&model)?.attach("epoch", [7]).save(&path)?;
///
/// let (mut resumed, mut opt) = new()?; // other weights, until they are read
/// let checkpoint = Checkpoint::open(&path)?;
/// opt.resume(&mut resumed, &checkpoint)?;
/// assert_eq!(resumed.weight.array(), model.weight.array());
/// assert_eq!(checkpoint.attachment("epoch"), Some(&[7][..]));
/// # Ok::<(), tlr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    tensors: Tensors,
    /// The path that it was read from, if it was.
    path: Option<PathBuf>,
}

const PROGRESS: &str = "progress";
const ATTACHED: &str = "attached.";
/// The beginning of the names of this crate's own bytes. No attachment has such a name.
const OWN: &str = "tlr.";
/// The beginning of the names of the tensors of a rank other than the first. Its number follows.
const RANK: &str = "rank.";

impl Checkpoint {
    /// Adds bytes of the caller's own, or replaces those of the same name.
    ///
    /// Example: [`Checkpoint`].
    pub fn attach(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.tensors.insert(format!("{ATTACHED}{name}"), Stored::of_bytes(bytes.into()));
        self
    }

    /// The bytes that were attached by this name.
    ///
    /// Example: [`Checkpoint`].
    pub fn attachment(&self, name: &str) -> Option<&[u8]> {
        Some(&self.tensors.get(&format!("{ATTACHED}{name}"))?.bytes)
    }

    /// Adds bytes of this crate's own, or replaces those of the same name.
    pub(crate) fn with_own(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.tensors.insert(format!("{OWN}{name}"), Stored::of_bytes(bytes));
        self
    }

    /// The bytes of this crate's own by this name.
    pub(crate) fn own(&self, name: &str) -> Option<&[u8]> {
        Some(&self.tensors.get(&format!("{OWN}{name}"))?.bytes)
    }

    /// Writes the file: to a new file in the same folder, which is forced to the disk and then
    /// renamed. Whatever happens, either the old file is there or the new one is, even if several
    /// processes write to one path at the same time.
    ///
    /// # Errors
    /// [`Error::Checkpoint`].
    ///
    /// Example: [`Checkpoint`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        file::save(&self.tensors, path).map_err(|problem| failed(Some(path), problem))
    }

    /// Tries whether [`save`](Self::save) can make a file at `path`, and leaves nothing there: to
    /// find out before a long training.
    ///
    /// # Errors
    /// The system's error: there is no such folder, for instance, or `path` is a folder, or names
    /// no file.
    ///
    /// # Example
    /// ```
    /// assert!(tlr::Checkpoint::probe("no/such/folder/run.safetensors").is_err());
    /// assert!(tlr::Checkpoint::probe("").is_err());
    /// ```
    pub fn probe(path: impl AsRef<Path>) -> std::io::Result<()> {
        file::probe(path.as_ref())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file is missing, not a checkpoint, damaged, or of another
    /// version.
    ///
    /// Example: [`Checkpoint`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let read = || file::parse(&std::fs::read(path).map_err(CheckpointError::io("read"))?);
        match read() {
            Ok(tensors) => Ok(Self { tensors, path: Some(path.to_owned()) }),
            Err(problem) => Err(failed(Some(path), problem)),
        }
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], for a tensor of more bytes than there are addresses.
    ///
    /// # Example
    /// A checkpoint that goes somewhere else than into a file.
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, Checkpoint, CheckpointError, Error, Newton, NewtonConfig};
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// let sgd = Sgd::new(&model, SgdConfig::default());
    /// let opt = Newton::new(&model, sgd, NewtonConfig::default())?;
    /// let checkpoint = opt.checkpoint(&model)?;
    /// let mut bytes = checkpoint.to_bytes()?;
    /// assert_eq!(Checkpoint::from_bytes(&bytes)?, checkpoint);
    ///
    /// *bytes.last_mut().unwrap() ^= 1;
    /// let damaged = Checkpoint::from_bytes(&bytes);
    /// assert!(matches!(
    ///     damaged,
    ///     Err(Error::Checkpoint { problem: CheckpointError::Damaged(_), .. })
    /// ));
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let written = file::write(&self.tensors, &mut bytes);
        written.map_err(|problem| failed(None, problem))?;
        Ok(bytes)
    }

    /// A checkpoint from the bytes of its file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// Example: [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        match file::parse(bytes) {
            Ok(tensors) => Ok(Self { tensors, path: None }),
            Err(problem) => Err(failed(None, problem)),
        }
    }

    /// A checkpoint of these tensors, and of all that is not a tensor.
    pub(crate) fn new(mut tensors: Tensors, progress: &Metadata) -> Result<Self, Error> {
        let json = serde_json::to_vec(progress)
            .map_err(|error| failed(None, CheckpointError::Damaged(error.to_string())))?;
        tensors.insert(PROGRESS.to_owned(), Stored::of_bytes(json));
        Ok(Self { tensors, path: None })
    }

    /// The tensor of this name.
    pub(crate) fn tensor(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// The error that this checkpoint cannot be taken over, for this reason.
    pub(crate) fn refused(&self, problem: CheckpointError) -> Error {
        failed(self.path.as_deref(), problem)
    }

    /// The part that is not tensors, if this checkpoint fits `here`: the same kind of model,
    /// optimizer and configuration.
    pub(crate) fn fits(&self, here: &Self) -> Result<Metadata, Error> {
        let problem = |problem| self.refused(problem);
        let progress = self.progress().map_err(problem)?;
        let expected = here.progress().map_err(problem)?;
        let mut differences = progress.settings.differences(&expected.settings);
        let retyped = differences.iter().any(
            |difference| matches!(difference, Difference::Setting { name, .. } if name == "dtype"),
        );
        // Another type is reported once, and not for each tensor.
        let is_told =
            |difference: &Difference| retyped && matches!(difference, Difference::Dtype { .. });
        let tensors = self.differences(here).into_iter();
        differences.extend(tensors.filter(|difference| !is_told(difference)));
        if !differences.is_empty() {
            return Err(self.refused(CheckpointError::Differs(differences)));
        }
        let counts = progress.optimizer_steps.iter();
        let layers = counts.clone().map(|(layer, _)| layer).eq(expected.optimizer_steps.keys());
        if !layers || !counts.map(|(_, steps)| *steps).all(|steps| steps < MAX_COUNT) {
            return Err(self.impossible("optimizer_steps"));
        }
        Ok(progress)
    }

    /// The error for a `progress` with a figure that this crate cannot have written there.
    pub(crate) fn impossible(&self, figure: &str) -> Error {
        let problem = format!("`{PROGRESS}` holds an impossible `{figure}`");
        self.refused(CheckpointError::Damaged(problem))
    }

    fn progress(&self) -> Result<Metadata, CheckpointError> {
        let Some(stored) = self.tensors.get(PROGRESS) else {
            return Err(CheckpointError::Damaged(format!("it has no `{PROGRESS}`")));
        };
        serde_json::from_slice(&stored.bytes)
            .map_err(|error| CheckpointError::Damaged(format!("`{PROGRESS}`: {error}")))
    }

    /// Names, types and shapes in which the tensors differ from those of `here`.
    fn differences(&self, here: &Self) -> Vec<Difference> {
        let names = |tensors: &Tensors| -> std::collections::BTreeSet<String> {
            let is_free =
                |name: &&String| [ATTACHED, OWN, RANK].iter().any(|free| name.starts_with(free));
            tensors.keys().filter(|name| !is_free(name)).cloned().collect()
        };
        let mut differences = Vec::new();
        for tensor in names(&self.tensors).union(&names(&here.tensors)) {
            let tensor = tensor.clone();
            match (self.tensors.get(&tensor), here.tensors.get(&tensor)) {
                (None, _) => differences.push(Difference::Missing { tensor }),
                (_, None) => differences.push(Difference::Extra { tensor }),
                // Its length is that of the JSON.
                (Some(file), Some(here)) if tensor == PROGRESS && file.dtype == here.dtype => (),
                (Some(file), Some(here)) => differences.extend(file.difference(here, tensor)),
            }
        }
        differences
    }

    /// The tensors below `name`, by their paths there.
    pub(crate) fn below<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Stored)> {
        self.tensors.iter().filter_map(move |(full, stored)| {
            let path = full.strip_prefix(name)?;
            (path.is_empty() || path.starts_with('.'))
                .then_some((path.strip_prefix('.').unwrap_or(path), stored))
        })
    }
}

/// All that is not a tensor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    pub(crate) settings: Settings,
    /// Updates that the base optimizer has made, by the path of the layer where each has its own.
    pub(crate) optimizer_steps: BTreeMap<String, u64>,
    pub(crate) engine: State,
}

fn failed(path: Option<&Path>, problem: CheckpointError) -> Error {
    Error::Checkpoint { path: path.map(Path::to_owned), problem }
}
