//! [`PeerOptimizer`]: a peer as an optimizer of a dfdx model on the CPU.

use super::{
    walk::{self, TrainableTensors},
    CpuReal, LossAtWeights, Peer, PeerError, PeerRule, Real, Saved,
};
use dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError, SgdConfig},
    prelude::{Cpu, CpuError, Dtype, Gradients},
};
use std::marker::PhantomData;
use tlr::{
    optim::Sgd, Backend, Checkpoint, CheckpointError, Config, Difference, Element, Error, Schedule,
    Trainer, TunableOptimizer,
};

/// A peer as an optimizer of any dfdx model on the CPU.
///
/// It walks the model, lends its [`Peer`] the trainable tensors and their gradients as slices, and
/// writes the weights back when the step is made. After an error model and state are as they were.
/// Tensors that dfdx does not update, such as running means, are left alone. A model with an
/// attribute about rates or decay, such as `#[tlr(untrained)]`, is refused, for no peer follows it.
///
/// It is a [`Learner`](crate::train::Learner) too, so that peers run in the same training loop.
///
/// # Cost
/// A step copies the weights out and in. Gradients are lent.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::baselines::{PeerOptimizer, ScheduleFreeSgd};
///
/// let dev = Cpu::seed_from_u64(0);
/// let mut model = dev.build_module::<(Linear<2, 8>, Tanh, Linear<8, 1>), f32>();
/// let rule = ScheduleFreeSgd { lr: 0.5, ..ScheduleFreeSgd::default() };
/// let mut opt = PeerOptimizer::new(&model, rule)?;
/// let x: Tensor<Rank2<32, 2>, f32, _> = dev.sample_normal();
/// let y = x.clone().square().sum::<Rank1<32>, _>().reshape::<Rank2<32, 1>>();
/// let mut losses = Vec::new();
/// for _ in 0..50 {
///     let loss = mse_loss(model.forward(x.trace(model.alloc_grads())), y.clone());
///     losses.push(loss.array());
///     opt.step(&mut model, &mut loss.backward(), losses.last().copied().map(f64::from))?;
/// }
/// let tested = opt.averaged(&model).expect("schedule-free averages");
/// assert!(mse_loss(tested.forward(x), y).array() < losses[0]);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Debug)]
pub struct PeerOptimizer<M, R: PeerRule, E: Real> {
    peer: Peer<R, E>,
    schedule: Option<Schedule>,
    /// The trainable tensors of the model.
    trained: TrainableTensors,
    marker: PhantomData<fn(&M)>,
}

/// The name under which a peer's state is attached to a checkpoint.
const ATTACHMENT: &str = "peer";
/// The name under which a peer's schedule is attached.
const SCHEDULE: &str = "schedule";
const NO_SCHEDULE: &str = "none";

impl<M, R, E> PeerOptimizer<M, R, E>
where
    M: TensorCollection<E, Cpu> + Clone,
    R: PeerRule,
    E: CpuReal,
    Cpu: Backend<E>,
{
    /// An optimizer of `model` that has made no step.
    ///
    /// # Errors
    /// [`PeerError::OutOfRange`]; [`PeerError::Model`] as [`Trainer::new`], for a model without
    /// trainable tensors, with one that is not contiguous, or with an attribute that has no effect
    /// here.
    ///
    /// Example: [`PeerOptimizer`].
    pub fn new(model: &M, rule: R) -> Result<Self, PeerError> {
        // A trainer checks the model, as it does for any optimizer.
        checkpointer(model)?;
        let peer = Peer::new(rule)?;
        let trained = walk::trained(model);
        Ok(Self { peer, schedule: None, trained, marker: PhantomData })
    }

    /// Checks that `model` has the tensors that this optimizer was made for, by their identity.
    fn check_model(&self, model: &M) -> Result<(), PeerError> {
        let found = walk::ids(model);
        let mut expected = self.trained.names.iter().zip(&self.trained.tensors.ids).zip(&found);
        match expected.find(|((_, id), found)| id != found) {
            Some(((name, _), _)) => Err(PeerError::AnotherModel { tensor: name.clone() }),
            None => Ok(()),
        }
    }

    /// Multiplies the rule's rate by a schedule.
    ///
    /// # Errors
    /// [`PeerError::NoSchedule`], for a rule without such a rate.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr::Schedule;
    /// use tlr_models::baselines::{NAdamW, PeerOptimizer};
    ///
    /// let model = Cpu::default().build_module::<Linear<2, 1>, f32>();
    /// let opt = PeerOptimizer::new(&model, NAdamW::default())?;
    /// let opt = opt.schedule(Schedule::cosine(100, 0.0)?)?;
    /// assert_eq!(opt.peer().steps(), 0);
    /// assert!(opt.rates().is_empty()); // before the first step
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schedule(mut self, schedule: impl Into<Option<Schedule>>) -> Result<Self, PeerError> {
        self.schedule = schedule.into();
        match &self.schedule {
            Some(_) if !self.peer.rule().is_scheduled() => {
                Err(PeerError::NoSchedule { rule: self.peer.rule().name() })
            }
            _ => Ok(self),
        }
    }

    /// What the schedule multiplies the rate of the next step by: 1 without one.
    pub(crate) fn factor(&self) -> f64 {
        self.schedule.as_ref().map_or(1.0, |schedule| schedule.factor(self.peer.steps()))
    }

    /// The rule and what it remembers.
    ///
    /// Example: [`schedule`](Self::schedule).
    pub fn peer(&self) -> &Peer<R, E> {
        &self.peer
    }

    /// One step, with the loss whose gradients these are. A tensor without a gradient counts as one
    /// whose gradient is 0. The gradients are lent, and are the same afterwards.
    ///
    /// # Errors
    /// As [`Peer::step`]; [`PeerError::AnotherModel`], [`PeerError::Device`].
    ///
    /// Example: [`PeerOptimizer`].
    pub fn step(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<E, Cpu>,
        loss: Option<f64>,
    ) -> Result<(), PeerError> {
        self.stepped(model, gradients, loss, None)
    }

    /// As [`step`](Self::step), for rules that need trials: `trial` computes the loss of the same
    /// batch by a model at other weights.
    ///
    /// The model is a copy: what a forward pass in training does to running means is not kept.
    /// If the model draws dropout, `trial` has to draw the same each time.
    ///
    /// # Errors
    /// As [`step`](Self::step), and what `trial` fails with.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::baselines::{PeerOptimizer, Sls};
    ///
    /// type Weight = Tensor<Rank1<1>, f64, Cpu>;
    /// let mut w: Weight = Cpu::default().tensor([3.0]);
    /// let mut opt = PeerOptimizer::new(&w, Sls::default())?;
    /// let mut trial = |w: &mut Weight| Ok(w.clone().square().sum::<Rank0, _>().array());
    /// for _ in 0..20 {
    ///     let loss = w.leaky_trace().square().sum::<Rank0, _>();
    ///     let value = loss.array();
    ///     opt.step_with(&mut w, &mut loss.backward(), value, &mut trial)?;
    /// }
    /// assert!(w.array()[0].abs() < 0.1);
    /// # Ok::<(), tlr_models::baselines::PeerError>(())
    /// ```
    pub fn step_with(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<E, Cpu>,
        loss: f64,
        trial: &mut dyn FnMut(&mut M) -> Result<f64, PeerError>,
    ) -> Result<(), PeerError> {
        let before = model.clone();
        let mut at = |weights: &[Vec<E>]| {
            let mut model = before.clone();
            walk::write(&mut model, weights);
            trial(&mut model)
        };
        self.stepped(model, gradients, Some(loss), Some(&mut at))
    }

    fn stepped<'a>(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<E, Cpu>,
        loss: Option<f64>,
        trial: Option<&'a mut LossAtWeights<'a, E>>,
    ) -> Result<(), PeerError> {
        let factor = self.factor();
        let in_range = factor >= 0.0 && factor.is_finite();
        PeerError::unless(in_range, "schedule: factor", "finite and at least 0", factor)?;
        self.check_model(model)?;
        let mut weights = walk::read(model);
        let mut lent: Vec<_> = weights.iter_mut().map(Vec::as_mut_slice).collect();
        let step = |slices: &[&[E]]| self.peer.step_scaled(&mut lent, slices, loss, factor, trial);
        walk::lend_gradients(model, gradients, step).map_err(PeerError::Device)??;
        walk::write(model, &weights);
        Ok(())
    }

    /// The model to test and to use, if it is not the one that is trained: its weights are the
    /// average of those so far. Its buffers are those of `model`; with batch norm see
    /// [`recalibrated`](super::recalibrated).
    ///
    /// `model` stays as it is. (Packages put the average in its place, and back before the next
    /// step. If that is forgotten, training goes on at the wrong weights, or saves them.)
    ///
    /// Example: [`PeerOptimizer`].
    pub fn averaged(&self, model: &M) -> Option<M> {
        let mut weights = walk::read(model);
        let lent: Vec<_> = weights.iter_mut().map(Vec::as_mut_slice).collect();
        let average = self.peer.averaged(&lent)?;
        let mut averaged = model.clone();
        walk::write(&mut averaged, &average);
        Some(averaged)
    }

    /// The rates of the last step, by name: of the model, or of each tensor. Empty if the rule
    /// has none, and before the first step.
    ///
    /// Example: [`schedule`](Self::schedule).
    pub fn rates(&self) -> Vec<(&str, f64)> {
        let rates = self.peer.rates();
        if rates.len() == 1 {
            return rates.into_iter().map(|rate| ("model", rate)).collect();
        }
        self.trained.names.iter().map(String::as_str).zip(rates).collect()
    }

    /// Everything that training depends on, as [`Trainer::checkpoint`].
    ///
    /// # Errors
    /// [`PeerError::Model`] as [`Trainer::checkpoint`]; [`PeerError::AnotherModel`].
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::baselines::{NAdamW, PeerOptimizer};
    ///
    /// let mut model = Cpu::default().build_module::<Linear<2, 1>, f32>();
    /// let opt = PeerOptimizer::new(&model, NAdamW::default())?;
    /// let checkpoint = opt.checkpoint(&model)?;
    /// let mut other = PeerOptimizer::new(&model, NAdamW::default())?;
    /// other.resume(&mut model, &checkpoint)?;
    /// assert_eq!(other.peer(), opt.peer());
    /// # Ok::<(), tlr_models::baselines::PeerError>(())
    /// ```
    pub fn checkpoint(&self, model: &M) -> Result<Checkpoint, PeerError> {
        self.check_model(model)?;
        let bytes = postcard::to_stdvec(&self.peer.saved());
        let bytes = bytes.map_err(|error| damaged(error.to_string()))?;
        let checkpoint = checkpointer(model)?.checkpoint(model)?;
        Ok(checkpoint.attach(ATTACHMENT, bytes).attach(SCHEDULE, self.described_schedule()))
    }

    /// The schedule in words that can be compared. All functions have the same words.
    fn described_schedule(&self) -> String {
        let schedule = self.schedule.as_ref();
        schedule.map_or_else(|| NO_SCHEDULE.to_owned(), |schedule| format!("{schedule:?}"))
    }

    /// Takes over a checkpoint: this optimizer and `model` then are what they were when it was
    /// made.
    ///
    /// # Errors
    /// As [`Peer::restore`]; [`PeerError::Model`] with [`Error::Checkpoint`], for a file of another
    /// model or schedule, or one that is no peer's; [`PeerError::AnotherModel`]. Nothing has
    /// changed then.
    ///
    /// Example: [`checkpoint`](Self::checkpoint).
    pub fn resume(&mut self, model: &mut M, checkpoint: &Checkpoint) -> Result<(), PeerError> {
        self.check_model(model)?;
        let Some(bytes) = checkpoint.attachment(ATTACHMENT) else {
            let here = Some(self.peer.rule().name().to_owned());
            return Err(differs("optimizer", None, here).into());
        };
        let undecoded = |error| damaged(format!("`{ATTACHMENT}`: {error}"));
        // The bytes of another rule's state need not be a state of this one. Name and settings
        // come first.
        let (head, _) = postcard::take_from_bytes::<(String, _)>(bytes).map_err(undecoded)?;
        self.peer.check_rule(&head.0, &head.1)?;
        let saved: Saved<R::State<E>> = postcard::from_bytes(bytes).map_err(undecoded)?;
        let mut peer = self.peer.clone();
        peer.restore(saved)?;
        let Some(schedule) = checkpoint.attachment(SCHEDULE) else {
            return Err(damaged(format!("it has no `{SCHEDULE}`")).into());
        };
        if schedule != self.described_schedule().as_bytes() {
            let file = Some(String::from_utf8_lossy(schedule).into_owned());
            return Err(differs("schedule", file, Some(self.described_schedule())).into());
        }
        checkpointer(model)?.resume(model, checkpoint)?;
        self.peer = peer;
        Ok(())
    }
}

fn differs(name: &str, file: Option<String>, here: Option<String>) -> Error {
    let differs = Difference::Setting { name: name.to_owned(), file, here };
    Error::Checkpoint { path: None, problem: CheckpointError::Differs(vec![differs]) }
}

fn damaged(what: String) -> Error {
    Error::Checkpoint { path: None, problem: CheckpointError::Damaged(what) }
}

/// A trainer that only saves and restores a model's tensors, and checks that they can be trained.
fn checkpointer<M, E>(model: &M) -> Result<Trainer<walk::Idle<M, E>, walk::Unchanging>, Error>
where
    M: TensorCollection<E, Cpu> + Clone,
    E: Dtype + Element,
    Cpu: Backend<E>,
{
    Trainer::new(model, walk::Idle::default(), Config::new(walk::Unchanging).safeguard(None))
}

impl<M, R, E> Optimizer<M, Cpu, E> for PeerOptimizer<M, R, E>
where
    M: TensorCollection<E, Cpu> + Clone,
    R: PeerRule,
    E: CpuReal,
    Cpu: Backend<E>,
{
    /// A step without a loss, for the rules that need none. dfdx has no error for a peer's refusal.
    /// So it reports all trainable tensors as unused, as a [`Trainer`] does. The log says why;
    /// [`step`](Self::step) returns the reason as an error.
    fn update(
        &mut self,
        model: &mut M,
        gradients: &Gradients<E, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        let sgd = Sgd::new(&*model, SgdConfig::default());
        // The walk reports a gradient that is missing.
        let complete = sgd.complete_gradients(model, gradients)?;
        let mut own = complete.unwrap_or_else(|| gradients.clone());
        let made = self.stepped(model, &mut own, None, None);
        made.map_err(|error| {
            tracing::error!(%error, "no parameter was updated");
            OptimizerUpdateError::UnusedParams(walk::trained(&*model).tensors)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::baselines::{AnyPeer, Cocob, Sls};
    use dfdx::prelude::{DeviceBuildExt, Linear};

    // Fails if the error names the list of peers in place of the peer.
    #[test]
    fn a_schedule_is_refused_by_the_peers_own_name() {
        let model = Cpu::default().build_module::<Linear<2, 1>, f32>();
        let opt = PeerOptimizer::new(&model, AnyPeer::from(Cocob::default())).unwrap();
        let error = opt.schedule(Schedule::cosine(100, 0.0).unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("any peer: Cocob has no rate"), "{error}");
    }

    // Fails if a whole file is told to be damaged.
    #[test]
    fn a_checkpoint_of_another_optimizer_differs() {
        let mut model = Cpu::default().build_module::<Linear<2, 1>, f32>();
        let checkpoint = checkpointer(&model).unwrap().checkpoint(&model).unwrap();
        let mut opt = PeerOptimizer::new(&model, Sls::default()).unwrap();
        let error = opt.resume(&mut model, &checkpoint).unwrap_err();
        let problem = CheckpointError::Differs(vec![Difference::Setting {
            name: "optimizer".to_owned(),
            file: None,
            here: Some("sls".to_owned()),
        }]);
        assert_eq!(error, Error::Checkpoint { path: None, problem }.into());
    }
}
