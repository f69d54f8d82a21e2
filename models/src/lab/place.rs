//! Where runs are made.

use crate::{
    baselines::{AnyPeer, PeerOptimizer},
    train::{Learner, TrainDevice, TrainError},
};
use dfdx::prelude::Cpu;
use tlr::{Schedule, TrainableLr};

/// Where runs are made.
///
/// # Example
/// ```
/// use tlr_models::lab::{contenders, tasks, Folders, Place, Scale};
///
/// let (task, contender) = (tasks()[0], &contenders()[0]);
/// assert!(task.on_gpu && contender.on_gpu());
/// let ready = task.open_at(&Folders::default(), Scale::Smoke, Place::Cpu)?;
/// assert!(ready.is_some());
/// # Ok::<(), tlr_models::train::TrainError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// On the CPU, each run on a thread of its own.
    #[default]
    Cpu,
    /// On the first GPU: tasks and contenders that say `on_gpu`.
    #[cfg(feature = "cuda")]
    Gpu,
}

/// A device that tasks are trained on.
pub trait TaskDevice: TrainDevice {
    /// Whether all is computed on the thread that asks for it. If so, that thread's time counts,
    /// and otherwise the time that passes.
    const ON_THE_THREAD: bool;

    /// A peer that trains `model`.
    ///
    /// # Errors
    /// Settings out of range; [`TrainError::PeersOnCpu`] on a GPU.
    fn peer<M: TrainableLr<f32, Self> + 'static>(
        model: &M,
        rule: AnyPeer,
        schedule: Option<Schedule>,
    ) -> Result<Box<dyn Learner<M, Self>>, TrainError>;
}

impl TaskDevice for Cpu {
    const ON_THE_THREAD: bool = true;

    fn peer<M: TrainableLr<f32, Self> + 'static>(
        model: &M,
        rule: AnyPeer,
        schedule: Option<Schedule>,
    ) -> Result<Box<dyn Learner<M>>, TrainError> {
        Ok(Box::new(PeerOptimizer::new(model, rule)?.schedule(schedule)?))
    }
}

#[cfg(feature = "cuda")]
impl TaskDevice for dfdx::prelude::Cuda {
    const ON_THE_THREAD: bool = false;

    fn peer<M: TrainableLr<f32, Self> + 'static>(
        _: &M,
        _: AnyPeer,
        _: Option<Schedule>,
    ) -> Result<Box<dyn Learner<M, Self>>, TrainError> {
        Err(TrainError::PeersOnCpu)
    }
}

/// Evaluates an expression with the type of a place's device as `$D`.
#[cfg(feature = "lab")]
macro_rules! at_place {
    ($place:expr, $D:ident => $body:expr) => {
        match $place {
            crate::lab::Place::Cpu => {
                type $D = dfdx::prelude::Cpu;
                $body
            }
            #[cfg(feature = "cuda")]
            crate::lab::Place::Gpu => {
                type $D = dfdx::prelude::Cuda;
                $body
            }
        }
    };
}
#[cfg(feature = "lab")]
pub(super) use at_place;
