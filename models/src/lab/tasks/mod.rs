//! The tasks: small ones of the usual kinds.

mod halved;
mod measure;
mod task;

pub use task::{Ready, Task};

// This has all models, which take minutes to compile.
#[cfg(feature = "lab")]
mod decay;
#[cfg(feature = "lab")]
mod folder;
#[cfg(feature = "lab")]
mod gradients;
#[cfg(feature = "lab")]
mod half;
#[cfg(feature = "lab")]
mod images;
#[cfg(feature = "lab")]
mod models;
#[cfg(feature = "lab")]
mod numbers;
#[cfg(feature = "lab")]
pub(super) mod paper;
#[cfg(feature = "lab")]
mod sentences;
#[cfg(feature = "lab")]
mod vectors;

/// All tasks.
///
/// ```
/// use tlr_models::lab::{contenders, tasks, Folders, Scale};
///
/// let tasks = tasks();
/// let task = tasks.iter().find(|task| task.name == "heavy-tails").expect("it is in the list");
/// let ready = task.open(&Folders::default(), Scale::Smoke)?.expect("it is drawn");
/// let trained = ready.train(&contenders()[0], 0, &|_, _| ())?;
/// assert_eq!(trained.steps, ready.budget().steps());
/// # Ok::<(), tlr_models::train::TrainError>(())
/// ```
#[cfg(feature = "lab")]
pub fn tasks() -> Vec<Task> {
    let mut all = images::tasks();
    all.extend(vectors::tasks());
    all.extend(sentences::tasks());
    all
}
