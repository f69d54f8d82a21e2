//! Training that goes on where it was: model, optimizer and rates in one file.

mod error;
pub(crate) mod exact;
mod file;
mod settings;
mod stored;

pub use error::{CheckpointError, Difference};
pub use stored::Element;
pub(crate) use stored::Stored;

use crate::{
    history::Adaptation,
    newton::{DeviceError, Fault, Gathered, Previous, Snapshot, Tlr},
    optim::{join, LearningRate, OptimizerState, Resumable},
    rule::{RateRule, RATES},
    safeguard::Watch,
    sketch::Sketches,
    tensors, Error,
};
use file::Tensors;
use serde::{Deserialize, Serialize};
use settings::Settings;
use std::{
    collections::BTreeMap,
    fmt::{Debug, Display},
    path::{Path, PathBuf},
};

/// Everything that training depends on, at one step.
///
/// Model and buffers, what the base optimizer has accumulated, snapshots, rates, the place in the window, the losses
/// that the safeguard remembers, the history and the configuration; and what else is [attached](Self::attach), such as
/// the state of a random generator. Training that is [resumed](Tlr::resume) from one goes on as if it had never
/// stopped, to the bit. ([`Tlr::save`] and [`Tlr::load`] do without this type.)
///
/// # File
/// safetensors: `model.*`, `snapshot.*` and `snapshot_before.*` with the paths of the model's tensors (or `sketch` and
/// `sketch_moved` in place of the snapshots, or `direction.*` in place of the second), the optimizer's `optimizer.<buffer>.*`, `attached.*` as bytes, and the rest as
/// JSON in `progress`. A checksum covers it all.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{optim::Sgd, Checkpoint, Newton, NewtonConfig};
///
/// let dev = Cpu::default();
/// let new = || -> Result<_, tlr::Error> {
///     let model = dev.build_module::<Linear<4, 2>, f32>();
///     let opt = Newton::new(&model, Sgd::new(&model, SgdConfig::default()), NewtonConfig::default())?;
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
    /// Where it was read from.
    path: Option<PathBuf>,
}

const PROGRESS: &str = "progress";
const ATTACHED: &str = "attached.";
const MODEL: &str = "model";
const SNAPSHOT: &str = "snapshot";
const SKETCH: &str = "sketch";
const SKETCH_MOVED: &str = "sketch_moved";
const OPTIMIZER: &str = "optimizer";

impl Checkpoint {
    /// Adds bytes of the caller's own, or replaces those of the same name.
    pub fn attach(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.tensors.insert(format!("{ATTACHED}{name}"), Stored::of_bytes(bytes.into()));
        self
    }

    /// The bytes that were attached by this name.
    pub fn attachment(&self, name: &str) -> Option<&[u8]> {
        Some(&self.tensors.get(&format!("{ATTACHED}{name}"))?.bytes)
    }

    /// Writes the file. It is written beside its place, forced to the disk, and renamed: whatever happens, the old
    /// file is there or the new one.
    ///
    /// # Errors
    /// [`Error::Checkpoint`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        file::save(&self.tensors, path).map_err(|problem| Error::checkpoint(Some(path), problem))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], for one that is not there, not a checkpoint, damaged, or of another version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let read = || file::parse(&std::fs::read(path).map_err(CheckpointError::io("read"))?);
        match read() {
            Ok(tensors) => Ok(Self { tensors, path: Some(path.to_owned()) }),
            Err(problem) => Err(Error::checkpoint(Some(path), problem)),
        }
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], for a tensor of more bytes than there are addresses.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let written = file::write(&self.tensors, &mut bytes);
        written.map_err(|problem| Error::checkpoint(None, problem))?;
        Ok(bytes)
    }

    /// A checkpoint from the bytes of its file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        match file::parse(bytes) {
            Ok(tensors) => Ok(Self { tensors, path: None }),
            Err(problem) => Err(Error::checkpoint(None, problem)),
        }
    }

    /// What is not in tensors.
    fn progress(&self) -> Result<Progress, CheckpointError> {
        let Some(stored) = self.tensors.get(PROGRESS) else {
            return Err(CheckpointError::Damaged(format!("it has no `{PROGRESS}`")));
        };
        serde_json::from_slice(&stored.bytes)
            .map_err(|error| CheckpointError::Damaged(format!("`{PROGRESS}`: {error}")))
    }

    /// Names, types and shapes in which the tensors differ from those of `here`.
    fn differences(&self, here: &Self) -> Vec<Difference> {
        let names = |tensors: &Tensors| -> std::collections::BTreeSet<String> {
            tensors.keys().filter(|name| !name.starts_with(ATTACHED)).cloned().collect()
        };
        let mut differences = Vec::new();
        for tensor in names(&self.tensors).union(&names(&here.tensors)) {
            let tensor = tensor.clone();
            match (self.tensors.get(&tensor), here.tensors.get(&tensor)) {
                (None, _) => differences.push(Difference::Missing { tensor }),
                (_, None) => differences.push(Difference::Extra { tensor }),
                (Some(file), Some(here)) if file.dtype != here.dtype => {
                    let word = |stored: &Stored| format!("{:?}", stored.dtype);
                    let (file, here) = (word(file), word(here));
                    differences.push(Difference::Dtype { tensor, file, here });
                }
                (Some(file), Some(here)) if file.shape != here.shape && tensor != PROGRESS => {
                    let (file, here) = (file.shape.clone(), here.shape.clone());
                    differences.push(Difference::Shape { tensor, file, here });
                }
                _ => (),
            }
        }
        differences
    }

    /// The tensors below `name`, by their paths there.
    fn below<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Stored)> {
        self.tensors.iter().filter_map(move |(full, stored)| {
            let path = full.strip_prefix(name)?;
            (path.is_empty() || path.starts_with('.'))
                .then_some((path.strip_prefix('.').unwrap_or(path), stored))
        })
    }
}

/// All that is not a tensor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    settings: Settings,
    steps: u64,
    position: usize,
    #[serde(with = "exact")]
    factors: f64,
    /// Nothing, where it is missing.
    #[serde(default)]
    gathered: Gathered,
    snapshot: Snapshot,
    watch: Watch,
    groups: Vec<GroupProgress>,
    optimizer_steps: BTreeMap<String, u64>,
    history: Vec<Adaptation>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupProgress {
    #[serde(with = "exact")]
    rate: f64,
    climbs: bool,
    previous: Option<Previous>,
    #[serde(default, with = "exact::option")]
    regain: Option<f64>,
}

/// More steps than any training makes, and few enough to count on from.
const MOST: u64 = 1 << 53;

impl Progress {
    /// Whether these figures can be, in a window of this length.
    fn is_sane(&self, window: usize, groups: usize) -> bool {
        let counts = self.optimizer_steps.values().chain([&self.steps, &self.gathered.count]);
        self.groups.len() == groups
            && self.groups.iter().all(|group| {
                RATES.contains(&group.rate)
                    && group.previous.is_none_or(|previous| RATES.contains(&previous.rate))
                    && group.regain.is_none_or(|rate| RATES.contains(&rate))
            })
            && self.position < window
            && counts.into_iter().all(|&count| count < MOST)
            && self.watch.is_sane(MOST)
    }
}

impl<Opt, R> Tlr<Opt, R>
where
    Opt: LearningRate,
    R: RateRule,
{
    /// Writes all that training depends on to one file: [`checkpoint`](Self::checkpoint) and
    /// [`save`](Checkpoint::save).
    ///
    /// # Errors
    /// [`Error::Checkpoint`], and then the file that was at `path` is still there; [`Error::ModelChanged`],
    /// [`Error::Device`].
    pub fn save(&mut self, model: &Opt::Model, path: impl AsRef<Path>) -> Result<(), Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Debug,
    {
        self.checkpoint(model)?.save(path)
    }

    /// Takes over what [`save`](Self::save) wrote: [`open`](Checkpoint::open) and [`resume`](Self::resume).
    ///
    /// # Errors
    /// As those. Nothing has changed then.
    pub fn load(&mut self, model: &mut Opt::Model, path: impl AsRef<Path>) -> Result<(), Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Debug,
    {
        self.resume(model, &Checkpoint::open(path)?)
    }

    /// All that training depends on, as it is now. (`&mut` only because layers are walked that way.)
    ///
    /// # Errors
    /// [`Error::ModelChanged`], [`Error::Device`].
    pub fn checkpoint(&mut self, model: &Opt::Model) -> Result<Checkpoint, Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Debug,
    {
        self.capture(model).map_err(|fault| self.explain(fault))
    }

    /// Takes over a checkpoint: this optimizer and `model` then are what they were when it was made.
    ///
    /// They have to be made as those were, with the same types and configuration; starting rates do not matter.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], which names all that differs; [`Error::ModelChanged`], [`Error::Device`]. Nothing has
    /// changed then.
    pub fn resume(&mut self, model: &mut Opt::Model, checkpoint: &Checkpoint) -> Result<(), Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Debug,
    {
        let here = self.checkpoint(model)?;
        let progress = checkpoint
            .fits(&here, self.window(), self.groups.len())
            .map_err(|problem| Error::checkpoint(checkpoint.path.as_deref(), problem))?;
        self.take_over(model, checkpoint, progress).map_err(|fault| self.explain(fault))
    }

    fn capture(&mut self, model: &Opt::Model) -> Result<Checkpoint, Fault<DeviceError<Opt>>>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Debug,
    {
        self.snapshots.check(model)?;
        let state = self.optimizer.state(model).map_err(Fault::Device)?;
        let mut tensors = Tensors::new();
        let mut infos = tensors::list(model).into_iter();
        tensors::read(model, |weights| {
            if let Some(info) = infos.next() {
                let stored = Stored::new(info.shape, &weights.to_vec());
                tensors.insert(join(MODEL, &info.name), stored);
            }
        });
        if let Some(sketches) = self.snapshots.sketches() {
            let groups = self.groups.len();
            for (name, state) in [SKETCH, SKETCH_MOVED].into_iter().zip(sketches.state()) {
                let shape = vec![groups, state.len() / groups.max(1)];
                tensors.insert(name.to_owned(), Stored::new(shape, state));
            }
        } else {
            for tensor in self.snapshots.tensors() {
                let last = tensor.last.read()?;
                let shape = match tensors.get(&join(MODEL, &tensor.name)) {
                    Some(weights) => weights.shape.clone(),
                    None => vec![last.len()],
                };
                tensors.insert(join(SNAPSHOT, &tensor.name), Stored::new(shape.clone(), &last));
                let before = tensor.before.store(shape)?;
                tensors.insert(join(tensor.before.name(), &tensor.name), before);
            }
        }
        let progress = self.progress(&state);
        for ((buffer, path), stored) in state.tensors {
            tensors.insert(join(&join(OPTIMIZER, &buffer), &path), stored);
        }
        let json = serde_json::to_vec(&progress).map_err(|error| {
            Error::checkpoint(None, CheckpointError::Damaged(error.to_string()))
        })?;
        tensors.insert(PROGRESS.to_owned(), Stored::of_bytes(json));
        Ok(Checkpoint { tensors, path: None })
    }

    fn progress(&self, state: &OptimizerState) -> Progress
    where
        Opt::Dtype: Element,
        R: Debug,
    {
        let mut settings = Settings::new();
        let layers: Vec<_> = self
            .groups
            .iter()
            .map(|group| format!("{}{}", group.name, if group.frozen { " (frozen)" } else { "" }))
            .collect();
        settings.insert("layers".to_owned(), layers.join(", "));
        settings.insert("dtype".to_owned(), Opt::Dtype::NAME.to_owned());
        settings::insert(&mut settings, "window", &self.window());
        settings::insert(&mut settings, "climb", &self.climb);
        settings::insert(&mut settings, "rule", &self.rule);
        settings::insert(&mut settings, "safeguard", &self.safeguard);
        let sketch = self.snapshots.sketches().map(Sketches::bins);
        settings::insert(&mut settings, "sketch", &sketch);
        if self.snapshots.directions() {
            settings::insert(&mut settings, "bf16_directions", &true);
        }
        settings::insert(&mut settings, "schedule", &self.schedule);
        settings::insert_pretty(&mut settings, OPTIMIZER, &state.settings);
        Progress {
            settings,
            steps: self.steps,
            position: self.position,
            factors: self.factors,
            gathered: self.gathered,
            snapshot: self.snapshot,
            watch: self.watch.clone(),
            groups: self
                .groups
                .iter()
                .enumerate()
                .map(|(index, group)| GroupProgress {
                    rate: self.optimizer.rate(index),
                    climbs: group.climbs,
                    previous: group.previous,
                    regain: group.regain,
                })
                .collect(),
            optimizer_steps: state.steps.clone(),
            history: self.history.clone(),
        }
    }

    /// A checkpoint that fits, all at once.
    fn take_over(
        &mut self,
        model: &mut Opt::Model,
        checkpoint: &Checkpoint,
        progress: Progress,
    ) -> Result<(), Fault<DeviceError<Opt>>>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
    {
        let mut state = OptimizerState { steps: progress.optimizer_steps, ..Default::default() };
        for (path, stored) in checkpoint.below(OPTIMIZER) {
            let (buffer, path) = path.split_once('.').unwrap_or((path, ""));
            state.insert(buffer, path, stored.clone());
        }
        let snapshots = self.snapshots.prepare(|tensor| {
            let stored = |part| checkpoint.tensors.get(&join(part, &tensor.name));
            Some((stored(SNAPSHOT)?, stored(tensor.before.name())?))
        })?;
        // Nothing fails after this.
        self.optimizer.restore(model, &state).map_err(Fault::Device)?;
        self.snapshots.replace(snapshots);

        let mut infos = tensors::list(&*model).into_iter();
        tensors::write(model, |_, _| {
            let stored = checkpoint.tensors.get(&join(MODEL, &infos.next()?.name))?;
            Some(stored.to_vec().into())
        });
        if let Some(sketches) = self.snapshots.sketches_mut() {
            for (name, state) in [SKETCH, SKETCH_MOVED].into_iter().zip(sketches.state_mut()) {
                if let Some(stored) = checkpoint.tensors.get(name) {
                    stored.copy_into(state);
                }
            }
        }
        for (index, (group, saved)) in self.groups.iter_mut().zip(progress.groups).enumerate() {
            self.optimizer.set_rate(index, saved.rate);
            group.climbs = saved.climbs;
            group.previous = saved.previous;
            group.regain = saved.regain;
        }
        self.watch = progress.watch;
        self.position = progress.position;
        self.factors = progress.factors;
        self.gathered = progress.gathered;
        self.snapshot = progress.snapshot;
        self.steps = progress.steps;
        self.history = progress.history;
        Ok(())
    }
}

impl Checkpoint {
    /// What is not in tensors, if this is a checkpoint of the same kind as `here`.
    fn fits(&self, here: &Self, window: usize, groups: usize) -> Result<Progress, CheckpointError> {
        let progress = self.progress()?;
        let expected = here.progress()?;
        let mut differences = settings::differences(&progress.settings, &expected.settings);
        let retyped = differences.iter().any(
            |difference| matches!(difference, Difference::Setting { name, .. } if name == "dtype"),
        );
        differences.extend(
            self.differences(here)
                .into_iter()
                // Said once, of all.
                .filter(|difference| !(retyped && matches!(difference, Difference::Dtype { .. }))),
        );
        if !differences.is_empty() {
            return Err(CheckpointError::Differs(differences));
        }
        let layers = progress.optimizer_steps.keys().eq(expected.optimizer_steps.keys());
        if !layers || !progress.is_sane(window, groups) {
            return Err(CheckpointError::Damaged(format!("`{PROGRESS}` holds impossible figures")));
        }
        Ok(progress)
    }
}

impl Error {
    fn checkpoint(path: Option<&Path>, problem: CheckpointError) -> Self {
        Self::Checkpoint { path: path.map(Path::to_owned), problem }
    }
}

pub(crate) fn named(path: &Option<PathBuf>) -> impl Display + '_ {
    struct Named<'a>(&'a Option<PathBuf>);
    impl Display for Named<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match self.0 {
                Some(path) => write!(f, "checkpoint {}", path.display()),
                None => f.write_str("checkpoint"),
            }
        }
    }
    Named(path)
}
