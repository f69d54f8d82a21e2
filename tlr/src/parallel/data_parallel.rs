//! [`DataParallel`]: an optimizer whose gradients are the means over all ranks.

use super::{mean::Plan, setup::of_model, Communicator, Compression, Ranks};
use crate::{
    error::Error,
    optim::{check_weight, TunableOptimizer},
    tensors::{self, Backend, Element},
};
use std::fmt;

/// Averages gradients and losses over the ranks of a training before an optimizer sees them.
///
/// Every rank has its own copy of the model and computes the gradients of its own batch. Put
/// `DataParallel` somewhere between [`Newton`](crate::Newton) and the optimizer that moves the
/// weights. Then each step is made by the mean of all ranks' gradients: n ranks with batches of b
/// examples make the steps of one process with batches of n·b, up to rounding. Learned
/// rates, the safeguard and [clipping](crate::optim::Clip) see nothing but the means, so they
/// decide the same on all ranks. A loss or gradient that is not finite on one rank is not finite in
/// the mean, and all ranks skip the step.
///
/// Batches of unequal sizes get their weights by
/// [`weigh_next`](crate::Trainer::weigh_next). To gather several batches for one step, take
/// [`Accumulate`](crate::optim::Accumulate) around `DataParallel`: a batch then has the weight that
/// `Accumulate` is given.
///
/// All of this holds without a trainer as well: `update` of `DataParallel`, and of
/// [`Clip`](crate::optim::Clip) and `Accumulate` around it, averages the gradients first.
///
/// At each step the ranks compare their counts and rates, and at the beginning of each window their
/// settings, their weights and all that they remember. If a rank differs, the step fails on all
/// ranks with an error that names the rank, the step and the layer ([`Error::Parallel`]). A rule's
/// own numbers are not compared, for a rule need not be one that serde can write: ranks whose rules
/// differ are told so once their rates do.
///
/// A layer that looks at its whole batch, such as batch norm, sees the examples of its own rank.
/// Its running figures differ between ranks, until
/// [`average_buffers`](crate::Trainer::average_buffers).
///
/// A checkpoint is the same as without `DataParallel`. One rank writes it, and all ranks resume
/// from it. There may be more ranks than when it was written, or fewer. Its buffers are those of
/// the rank that has written it. To keep those of all ranks, [join](Ranks::join) their checkpoints.
///
/// # Example
/// Two ranks, here as threads of one process. Each has half of the examples.
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{optim::Sgd, parallel::{Ranks, Threads}, DataParallel, Newton, NewtonConfig};
///
/// fn train(own: Threads, seed: u64) -> Result<[f64; 1], tlr::Error> {
///     let ranks = Ranks::new(own);
///     let dev = Cpu::seed_from_u64(seed); // each rank begins with other weights
///     let mut model: Tensor<Rank1<1>, f64, _> = dev.sample_normal();
///     let sgd = Sgd::new(&model, SgdConfig { lr: 0.1, ..Default::default() });
///     let mut optimizer = DataParallel::new(sgd, ranks.clone());
///     optimizer.broadcast(&mut model)?; // and now with those of the first one
///     let mut opt = Newton::new(&model, optimizer, NewtonConfig::default())?;
///     let examples = [1.0, 3.0, 5.0, 7.0];
///     let own = &examples[2 * ranks.rank()..][..2];
///     for _ in 0..60 {
///         let far = own.iter().map(|target| (model.leaky_trace() - *target).square().sum());
///         let loss = far.reduce(|sum: Tensor<_, _, _, _>, next| sum + next).unwrap() / 2.0;
///         let value = loss.array();
///         opt.step(&mut model, &loss.backward(), value)?;
///     }
///     Ok(model.array())
/// }
///
/// let ranks = Threads::new(2).into_iter().zip(0..);
/// let ranks = ranks.map(|(own, seed)| std::thread::spawn(move || train(own, seed)));
/// let found: Vec<_> = ranks.collect::<Vec<_>>().into_iter().map(|r| r.join().unwrap()).collect();
/// assert_eq!(found[0], found[1]); // to the bit
/// assert!((found[0].clone()?[0] - 4.0).abs() < 1e-3); // the mean of all four
/// # Ok::<(), tlr::Error>(())
/// ```
pub struct DataParallel<Opt: TunableOptimizer, C> {
    pub(super) optimizer: Opt,
    pub(super) ranks: Ranks<C>,
    pub(super) settings: ParallelSettings,
    pub(super) next: OwnNextBatch,
    pub(super) last: LastBatch,
    /// Digest of the model and the settings, as the last window began. None before the first step.
    pub(super) setup: Option<u64>,
    /// The gradients of all tensors, one after the other.
    pub(super) flat: Vec<Opt::Dtype>,
}

/// What was configured.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParallelSettings {
    /// How gradients travel.
    pub(super) plan: Plan,
    /// Whether a trainer shares out its snapshots.
    pub(super) sharded: bool,
}

/// What this rank was told of its next batch.
#[derive(Default)]
pub(super) struct OwnNextBatch {
    /// The weight, if it was set.
    pub(super) weight: Option<f64>,
    /// The flag that is sent with this batch, and with the batches after it.
    pub(super) flag: bool,
}

/// What is known of the last batch.
#[derive(Default)]
pub(super) struct LastBatch {
    /// The weight of this rank's part, if it was set.
    pub(super) weight: Option<f64>,
    /// Whether any rank has sent a flag with it.
    pub(super) flag: bool,
    /// The means over all ranks of this batch.
    pub(super) means: Option<Means>,
}

/// The means over the batches of all ranks.
#[derive(Clone, Copy)]
pub(super) struct Means {
    pub(super) loss: Option<f64>,
    /// The sum of the batches' weights.
    pub(super) weight: f64,
    /// Whether no update has used the mean gradients yet.
    pub(super) unused: bool,
}

impl LastBatch {
    /// The means, if the next update's gradients have been replaced by them already.
    pub(super) fn unused(&self) -> Option<Means> {
        self.means.filter(|means| means.unused)
    }

    pub(super) fn use_up(&mut self) {
        if let Some(means) = &mut self.means {
            means.unused = false;
        }
    }
}

/// The default size of a bucket, in numbers.
const BUCKET: usize = 1 << 18;

impl<Opt, C> DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    /// Averages over `ranks` what `optimizer` receives.
    ///
    /// Example: [`DataParallel`].
    pub fn new(optimizer: Opt, ranks: Ranks<C>) -> Self {
        Self {
            optimizer,
            ranks,
            settings: ParallelSettings {
                plan: Plan { bucket: BUCKET, compression: Compression::None },
                sharded: false,
            },
            next: OwnNextBatch::default(),
            last: LastBatch::default(),
            setup: None,
            flat: Vec::new(),
        }
    }

    /// Sets the format that gradients are sent in. Default: their own type.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, parallel::{Alone, Compression, Ranks}, DataParallel};
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// let sgd: Sgd<_, f32, Cpu> = Sgd::new(&model, SgdConfig::default());
    /// let optimizer = DataParallel::new(sgd, Ranks::new(Alone))
    ///     .compression(Compression::Bf16) // half of the bytes
    ///     .bucket(1 << 16)?;
    /// assert_eq!((optimizer.ranks().size(), optimizer.last_batch()), (1, None));
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.plan.compression = compression;
        self
    }

    /// Sets how many numbers travel together. Default 2¹⁸. Small buckets overlap better with
    /// computation; large ones need fewer messages.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for 0.
    ///
    /// Example: [`compression`](Self::compression).
    pub fn bucket(mut self, numbers: usize) -> Result<Self, Error> {
        Error::unless(numbers > 0, "the numbers of a bucket", "at least 1", numbers as f64)?;
        self.settings.plan.bucket = numbers;
        Ok(self)
    }

    /// Shares out a trainer's snapshots: each of n ranks keeps the snapshots of an n-th of the
    /// weights, and needs an n-th of the memory for them. In return the ranks talk more. They
    /// exchange a few numbers a layer whenever snapshots are measured, at the end of a window for
    /// instance, and the snapshots themselves whenever a trainer goes back to one or saves it.
    ///
    /// All ranks then have to call [`Trainer::save`](crate::Trainer::save), and only the first one
    /// writes the file. All have to call `checkpoint` and `resume`, too. The file does not depend
    /// on whether snapshots are shared out: it can be resumed either way.
    /// [Sketches](crate::Config::sketch) are not shared out.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, parallel::{Alone, Ranks}, DataParallel, Newton, NewtonConfig};
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// let sgd = Sgd::new(&model, SgdConfig { lr: 1e-6, ..Default::default() });
    /// let optimizer = DataParallel::new(sgd, Ranks::new(Alone)).shard_snapshots();
    /// let opt = Newton::new(&model, optimizer, NewtonConfig::default())?;
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn shard_snapshots(mut self) -> Self {
        self.settings.sharded = true;
        self
    }

    /// Gives every rank the weights and buffers of the first one. Call it before a trainer is made.
    ///
    /// # Errors
    /// [`Error::Parallel`], also if the models do not have the same tensors. The models are as they
    /// were then.
    ///
    /// Example: [`DataParallel`].
    pub fn broadcast(&mut self, model: &mut Opt::Model) -> Result<(), Error> {
        self.ranks.agree(&of_model(&*model))?;
        let mut bytes = Vec::new();
        if self.ranks.is_first() {
            tensors::read(&*model, |tensor| {
                tensor.to_vec().into_iter().for_each(|value| value.append(&mut bytes));
            });
        }
        self.ranks.broadcast(&mut bytes)?;
        let size = size_of::<Opt::Dtype>();
        let mut values = bytes.chunks_exact(size).map(Opt::Dtype::from_bytes);
        if !self.ranks.is_first() {
            tensors::write(model, |_, len| {
                let values: Option<Vec<_>> = values.by_ref().take(len).collect();
                Some(values?.into())
            });
        }
        Ok(())
    }

    /// Replaces the buffers of `model`, such as the running figures of batch norm, by their means
    /// over the ranks: before it is tested or saved. All ranks have to call it.
    ///
    /// # Errors
    /// [`Error::Parallel`]. The buffers are as they were then.
    ///
    /// Example: [`Trainer::average_buffers`](crate::Trainer::average_buffers).
    pub fn average_buffers(&self, model: &mut Opt::Model) -> Result<(), Error> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let mut values = Vec::new();
        tensors::read(&*model, |tensor| {
            if !tensor.trainable {
                values.extend(tensor.to_vec());
            }
        });
        let plan = Plan { compression: Compression::None, ..self.settings.plan };
        self.ranks.mean(&mut values, &vec![1.0; self.ranks.size()], plan)?;
        let mut values = values.into_iter();
        tensors::write(model, |trainable, len| {
            (!trainable).then(|| values.by_ref().take(len).collect::<Vec<_>>().into())
        });
        Ok(())
    }

    /// Sets the weight of this rank's next batch in the mean over the ranks: for losses that are
    /// means over their batches, the number of examples. Default 1. A rank without examples passes
    /// gradients of zeros and the weight 0. The weight holds for one batch: until a step by it is
    /// made on all ranks. So a batch whose step has failed can be taken again as it is.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `weight` is from 0 to 1e100.
    ///
    /// Example: [`Trainer::weigh_next`](crate::Trainer::weigh_next).
    pub fn weigh_next(&mut self, weight: f64) -> Result<(), Error> {
        check_weight(weight, true)?;
        self.next.weight = Some(weight);
        Ok(())
    }

    /// Sets a flag that is sent to all ranks with each step from now on, without a message of its
    /// own: that this rank was asked to stop, for instance. All ranks [know](Self::flag_was_set) it
    /// after the same step.
    ///
    /// Example: [`Trainer::average_buffers`](crate::Trainer::average_buffers).
    pub fn set_flag(&mut self, raised: bool) {
        self.next.flag = raised;
    }

    /// Whether any rank had the flag of [`set_flag`](Self::set_flag) set in the last step. False
    /// with one rank.
    ///
    /// Example: [`Trainer::average_buffers`](crate::Trainer::average_buffers).
    pub fn flag_was_set(&self) -> bool {
        self.last.flag
    }

    /// The optimizer that receives the means.
    ///
    /// Example: [`DataParallel`].
    pub fn optimizer(&self) -> &Opt {
        &self.optimizer
    }

    /// The ranks.
    ///
    /// Example: [`compression`](Self::compression).
    pub fn ranks(&self) -> &Ranks<C> {
        &self.ranks
    }

    /// The mean loss over all ranks of the last batch, and the sum of the weights. None with one
    /// rank, and before the first batch with a loss.
    ///
    /// Example: [`compression`](Self::compression).
    pub fn last_batch(&self) -> Option<(f64, f64)> {
        let means = self.last.means?;
        Some((means.loss?, means.weight))
    }
}

impl<Opt: TunableOptimizer + fmt::Debug, C> fmt::Debug for DataParallel<Opt, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataParallel")
            .field("optimizer", &self.optimizer)
            .field("ranks", &self.ranks)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
