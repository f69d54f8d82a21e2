//! A trainer's way into a checkpoint, and out of it.

use super::Trainer;
use crate::{
    checkpoint::{Checkpoint, Metadata, Tensors},
    engine::RateRule,
    error::Error,
    optim::{OptimizerState, RestoreError, Resumable, Shards, TunableOptimizer, OPTIMIZER},
    settings::{join, Settings},
    snapshots::{Prepared, Sketches, Snapshots},
    tensors::{self, device_error, Element, Model, Stored},
};
use dfdx::tensor_ops::Device;
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

const MODEL: &str = "model";
const SNAPSHOT: &str = "snapshot";
const SKETCHES: [&str; 2] = ["sketch", "sketch_moved"];

impl<Opt, R> Trainer<Opt, R>
where
    Opt: TunableOptimizer,
    R: RateRule,
{
    /// Writes all that training depends on to one file: [`checkpoint`](Self::checkpoint) and
    /// [`Checkpoint::save`]. Ranks that
    /// [share out the snapshots](crate::DataParallel::shard_snapshots) all have to call it, and the
    /// first one writes the file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], and then the file that was at `path` is still there;
    /// [`Error::ModelChanged`], [`Error::Device`], [`Error::UpdateInterrupted`]. If ranks share out
    /// the snapshots and the first one cannot write, [`Error::Parallel`] on the others; all may go
    /// on.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, Newton, NewtonConfig};
    ///
    /// let dev = Cpu::default();
    /// let new = || -> Result<_, tlr::Error> {
    ///     let model = dev.build_module::<Linear<4, 2>, f32>();
    ///     let sgd = Sgd::new(&model, SgdConfig::default());
    ///     let opt = Newton::new(&model, sgd, NewtonConfig::default())?;
    ///     Ok((model, opt))
    /// };
    /// let path = std::env::temp_dir().join("tlr-doc-save.safetensors");
    /// let (model, opt) = new()?;
    /// opt.save(&model, &path)?;
    ///
    /// let (mut resumed, mut opt) = new()?; // other weights
    /// opt.load(&mut resumed, &path)?;
    /// assert_eq!(resumed.weight.array(), model.weight.array());
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn save(&self, model: &Opt::Model, path: impl AsRef<Path>) -> Result<(), Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Serialize,
    {
        self.write(&self.checkpoint(model)?, path)
    }

    /// Takes over what [`save`](Self::save) wrote: [`Checkpoint::open`] and
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    /// The errors of both. Nothing has changed then.
    ///
    /// Example: [`save`](Self::save).
    pub fn load(&mut self, model: &mut Opt::Model, path: impl AsRef<Path>) -> Result<(), Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Serialize,
    {
        self.resume(model, &self.open(path)?)
    }

    /// All that training depends on, as it is now. Ranks that
    /// [share out the snapshots](crate::DataParallel::shard_snapshots) all have to call it, and all
    /// get the same.
    ///
    /// # Errors
    /// [`Error::ModelChanged`], [`Error::Device`], [`Error::UpdateInterrupted`].
    ///
    /// Example: [`Checkpoint`].
    pub fn checkpoint(&self, model: &Opt::Model) -> Result<Checkpoint, Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Serialize,
    {
        let rest = match self.engine.state().is_within_step() {
            true => Err(Error::UpdateInterrupted),
            false => self.rest(model),
        };
        let (mut tensors, progress) = self.together(rest)?;
        let stored = stored(model, &self.snapshots, self.optimizer.shards());
        tensors.extend(self.together(stored)?);
        Checkpoint::new(tensors, &progress)
    }

    /// Takes over a checkpoint: this trainer and `model` become what those of the checkpoint were.
    ///
    /// They have to be of the same types and to have the same configuration. Only starting rates
    /// may differ.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], which names all that differs; [`Error::ModelChanged`],
    /// [`Error::Device`]. Nothing has changed then.
    ///
    /// Example: [`Checkpoint`].
    pub fn resume(&mut self, model: &mut Opt::Model, checkpoint: &Checkpoint) -> Result<(), Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Serialize,
    {
        let progress = self.matching(model, checkpoint)?;
        self.take_over(model, checkpoint, progress)
    }

    /// The part of a checkpoint that is not tensors, if the checkpoint is one that this trainer can
    /// resume.
    pub(super) fn matching(
        &self,
        model: &Opt::Model,
        checkpoint: &Checkpoint,
    ) -> Result<Metadata, Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Serialize,
    {
        let progress = checkpoint.fits(&self.outline(model)?)?;
        let found = self.engine.impossible_figure(&progress.engine);
        // A checkpoint is made between two steps.
        let found = found.or_else(|| progress.engine.is_within_step().then_some("phase"));
        match found {
            Some(figure) => Err(checkpoint.impossible(&format!("engine.{figure}"))),
            None => Ok(progress),
        }
    }

    /// Writes a checkpoint. Of ranks that share out the snapshots, the first one does.
    pub(super) fn write(
        &self,
        checkpoint: &Checkpoint,
        path: impl AsRef<Path>,
    ) -> Result<(), Error> {
        let is_first = self.optimizer.shards().is_none_or(|shards| shards.place().0 == 0);
        self.together(if is_first { checkpoint.save(path) } else { Ok(()) })
    }

    /// Opens a checkpoint.
    pub(super) fn open(&self, path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        self.together(Checkpoint::open(path))
    }

    /// Returns `own`, or the error of another rank if the ranks share out the snapshots. All of
    /// them have to call this: a rank that left without a word would leave the others waiting.
    fn together<T>(&self, own: Result<T, Error>) -> Result<T, Error> {
        let said = || own.as_ref().map(|_| Vec::new()).map_err(Error::clone);
        let told = self.optimizer.shards().map(|shards| shards.exchange_numbers(said()));
        let own = own?;
        told.transpose()?;
        Ok(own)
    }

    /// A checkpoint of this trainer to compare another one with. Model and snapshots have names,
    /// types and shapes in it, and no elements: those are about to be overwritten, and copying them
    /// would take three times the model's memory.
    fn outline(&self, model: &Opt::Model) -> Result<Checkpoint, Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Serialize,
    {
        let (mut tensors, progress) = self.rest(model)?;
        tensors.extend(outlined(model, &self.snapshots));
        Checkpoint::new(tensors, &progress)
    }

    /// What a checkpoint holds beside the model and its snapshots.
    fn rest(&self, model: &Opt::Model) -> Result<(Tensors, Metadata), Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
        R: Serialize,
    {
        self.snapshots.check(model)?;
        let state = self.optimizer.state(model);
        let state = state.map_err(|error| device_error(error.to_string(), &error))?;
        let OptimizerState { settings, steps, tensors: buffers } = state;
        let progress = Metadata {
            settings: self.settings(settings),
            optimizer_steps: steps,
            engine: self.engine.state().clone(),
        };
        Ok((buffer_tensors(buffers), progress))
    }

    /// What was configured, with the base optimizer's own settings.
    fn settings(&self, optimizer: Settings) -> Settings
    where
        Opt::Dtype: Element,
        R: Serialize,
    {
        self.engine
            .settings()
            .with("dtype", Opt::Dtype::NAME)
            .with("sketch", self.snapshots.sketches().map(Sketches::bins))
            .with("bf16_directions", self.snapshots.keeps_directions())
            .within(OPTIMIZER, optimizer)
    }

    /// Takes over a checkpoint that fits: all of it, or nothing.
    pub(super) fn take_over(
        &mut self,
        model: &mut Opt::Model,
        checkpoint: &Checkpoint,
        progress: Metadata,
    ) -> Result<(), Error>
    where
        Opt: Resumable,
        Opt::Dtype: Element,
    {
        let state = optimizer_state(checkpoint, progress.optimizer_steps);
        let snapshots = prepared(&self.snapshots, checkpoint)?;
        self.optimizer.restore(model, &state).map_err(|error| match error {
            RestoreError::Device(error) => device_error(error.to_string(), &error),
            RestoreError::State(problem) => checkpoint.refused(problem),
        })?;
        // Nothing fails after this, but for the panic that `Trainer` tells of.
        self.has_updated = false;
        self.snapshots.replace(snapshots);
        fill(model, &mut self.snapshots, checkpoint);
        self.engine.replace_state(progress.engine);
        self.apply_rates();
        Ok(())
    }
}

// What follows does not depend on the model's type, so that it is compiled once for all.

/// The model's tensors and their snapshots.
fn stored<E: Element, D: Device<E>>(
    model: &dyn Model<E, D>,
    snapshots: &Snapshots<E>,
    shards: Option<&dyn Shards>,
) -> Result<Tensors, Error> {
    let mut tensors = Tensors::new();
    let mut infos = tensors::list(model).into_iter();
    tensors::read(model, |weights| {
        if let Some(info) = infos.next() {
            let stored = Stored::new(info.shape, &weights.to_vec());
            tensors.insert(join(MODEL, &info.name), stored);
        }
    });
    if let Some(sketches) = snapshots.sketches() {
        for (name, state) in SKETCHES.into_iter().zip(sketches.state()) {
            let shape = vec![state.len() / sketches.bins(), sketches.bins()];
            tensors.insert(name.to_owned(), Stored::new(shape, state));
        }
    } else {
        let mut failed = Ok(());
        for tensor in snapshots.tensors() {
            let weights = tensors.get(&join(MODEL, &tensor.name));
            let shape = weights.map(|weights| weights.shape.clone()).unwrap_or_default();
            match snapshots.store(tensor, &shape, shards) {
                Ok([last, before]) => {
                    tensors.insert(join(SNAPSHOT, &tensor.name), last);
                    tensors.insert(join(tensor.before.name(), &tensor.name), before);
                }
                // The other ranks wait for this one's part of the tensors that follow.
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed?;
    }
    Ok(tensors)
}

/// What [`stored`] returns, without the elements.
fn outlined<E: Element, D: Device<E>>(
    model: &dyn Model<E, D>,
    snapshots: &Snapshots<E>,
) -> Tensors {
    let mut tensors = Tensors::new();
    for (info, tensor) in tensors::list(model).into_iter().zip(snapshots.tensors()) {
        let mut put = |part, dtype| {
            let outline = Stored::outline(dtype, info.shape.clone());
            tensors.insert(join(part, &info.name), outline);
        };
        put(MODEL, E::STORED);
        if snapshots.sketches().is_none() {
            put(SNAPSHOT, E::STORED);
            put(tensor.before.name(), tensor.before.stored_dtype());
        }
    }
    if let Some(sketches) = snapshots.sketches() {
        for (name, state) in SKETCHES.into_iter().zip(sketches.state()) {
            let shape = vec![state.len() / sketches.bins(), sketches.bins()];
            tensors.insert(name.to_owned(), Stored::outline(f64::STORED, shape));
        }
    }
    tensors
}

/// What the base optimizer has accumulated, by the names of a checkpoint.
fn buffer_tensors(buffers: BTreeMap<(String, String), Stored>) -> Tensors {
    let name = |(buffer, path): (String, String)| join(&join(OPTIMIZER, &buffer), &path);
    buffers.into_iter().map(|(key, stored)| (name(key), stored)).collect()
}

fn optimizer_state(checkpoint: &Checkpoint, steps: BTreeMap<String, u64>) -> OptimizerState {
    let mut state = OptimizerState { steps, ..Default::default() };
    for (path, stored) in checkpoint.below(OPTIMIZER) {
        let (buffer, path) = path.split_once('.').unwrap_or((path, ""));
        state.insert(buffer, path, stored.clone());
    }
    state
}

/// The snapshots of a checkpoint, for [`Snapshots::replace`].
fn prepared<E: Element>(
    snapshots: &Snapshots<E>,
    checkpoint: &Checkpoint,
) -> Result<Prepared<E>, Error> {
    let has_sketches = snapshots.sketches().is_some();
    snapshots.prepare(|tensor| {
        let stored = |part| checkpoint.tensor(&join(part, &tensor.name));
        match (has_sketches, tensor.group) {
            (false, _) => Some((stored(SNAPSHOT)?, stored(tensor.before.name())?)),
            // A sketch has no buffers, so their snapshot is that of the model in the file.
            (true, None) => Some((stored(MODEL)?, stored(MODEL)?)),
            (true, Some(_)) => None,
        }
    })
}

/// Overwrites model and sketches by those of a checkpoint that fits.
fn fill<E: Element, D: Device<E>>(
    model: &mut dyn Model<E, D>,
    snapshots: &mut Snapshots<E>,
    checkpoint: &Checkpoint,
) {
    let mut infos = tensors::list(&*model).into_iter();
    tensors::write(model, |_, _| {
        let stored = checkpoint.tensor(&join(MODEL, &infos.next()?.name))?;
        Some(stored.to_vec().into())
    });
    if let Some(sketches) = snapshots.sketches_mut() {
        for (name, state) in SKETCHES.into_iter().zip(sketches.state_mut()) {
            if let Some(stored) = checkpoint.tensor(name) {
                stored.copy_into(state);
            }
        }
    }
}
