//! Training one model on several ranks: processes of several machines, or threads.
//!
//! [`DataParallel`] goes around any optimizer. Each rank computes the gradients of its own
//! examples; before anything else sees them, they are averaged over all ranks, and so is the loss.
//! So every rank takes the same decisions and makes the same steps, and n ranks with batches of b
//! examples train as one process does with batches of n·b.
//!
//! What carries the messages is a [`Communicator`]: [`Alone`], [`Threads`] of one process or, with
//! the feature `mpi`, the processes of an `mpirun`. With the feature `nccl`, their GPUs carry the
//! long ones. [`Ranks`] is how the ranks talk through it.

mod agree;
mod alone;
mod communicator;
mod compression;
#[cfg(feature = "nccl")]
mod connect;
mod data_parallel;
mod explain;
mod header;
#[cfg(feature = "nccl")]
mod letters;
mod link;
mod mean;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod one_checkpoint;
mod optimizer;
#[cfg(any(feature = "mpi", feature = "nccl"))]
mod patience;
mod ranks;
mod setup;
mod shards;
mod step;
mod threads;
#[cfg(feature = "nccl")]
mod wires;

pub use alone::Alone;
pub use communicator::{Communicator, LinkError};
pub use compression::Compression;
pub use data_parallel::DataParallel;
pub use link::Traffic;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use ranks::Ranks;
pub use threads::Threads;
