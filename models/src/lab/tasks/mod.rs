//! The tasks: small ones of the usual kinds.

mod folder;
#[cfg(all(test, feature = "cuda"))]
mod gpu_tests;
mod images;
mod models;
mod numbers;
pub(super) mod paper;
mod sentences;
mod task;
mod vectors;

pub use task::{Ready, Task};

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
pub fn tasks() -> Vec<Task> {
    let mut all = images::tasks();
    all.extend(vectors::tasks());
    all.extend(sentences::tasks());
    all
}
