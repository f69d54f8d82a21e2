//! A task: something to learn, by name, and the same with its data.

use crate::{
    lab::{
        run, Budget, Contender, Folders, Place, Problem, Scale, TaskDevice, Trained, WatchSteps,
    },
    train::TrainError,
};

/// Something to learn, which is known by name.
#[derive(Clone, Copy)]
pub struct Task {
    /// The name in files and tables.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// The folder of the data set that the task needs.
    pub needs: Option<&'static str>,
    /// Whether a GPU can train it.
    pub on_gpu: bool,
    pub(super) open: fn(&Folders, Scale, Place) -> Opened,
}

/// Whether the networks of full scale are compiled. Without optimisation they would take hours to
/// run, and they take minutes to compile.
pub(super) const LARGE: bool = !cfg!(debug_assertions);

/// A task with its data, or why there is none.
pub(super) type Opened = Result<Box<dyn Ready>, TrainError>;

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A task whose data are there.
pub trait Ready: Send + Sync {
    /// How long it is trained.
    fn budget(&self) -> Budget;

    /// What it is trained on, in words.
    fn data(&self) -> String;

    /// As [`train`](crate::lab::train).
    ///
    /// # Errors
    /// As [`train`](crate::lab::train).
    fn train(
        &self,
        contender: &Contender,
        seed: u64,
        watch: &WatchSteps<'_>,
    ) -> Result<Trained, TrainError>;
}

impl<P: Problem + Send> Ready for P {
    fn budget(&self) -> Budget {
        Problem::budget(self)
    }

    fn data(&self) -> String {
        let device = if P::Device::ON_THE_THREAD { "" } else { ", on a GPU" };
        Problem::data(self) + device
    }

    fn train(
        &self,
        contender: &Contender,
        seed: u64,
        watch: &WatchSteps<'_>,
    ) -> Result<Trained, TrainError> {
        run::train(self, contender, seed, watch)
    }
}

impl Task {
    /// A task that cannot be opened.
    #[cfg(test)]
    pub(crate) fn of_test(name: &'static str) -> Self {
        let open = |_: &Folders, _: Scale, _: Place| Err(TrainError::NoEpochs);
        Self { name, about: "", needs: None, on_gpu: false, open }
    }

    /// The task with its data, which are drawn or read; none if they are not in `folders`.
    ///
    /// # Errors
    /// Files that cannot be read. At full scale, [`TrainError::OnlyRelease`] without `--release`.
    ///
    /// Example: [the laboratory](crate::lab).
    pub fn open(
        &self,
        folders: &Folders,
        scale: Scale,
    ) -> Result<Option<Box<dyn Ready>>, TrainError> {
        self.open_at(folders, scale, Place::Cpu)
    }

    /// As [`open`](Self::open), to be trained at a place; none if it cannot be trained there.
    ///
    /// # Errors
    /// Files that cannot be read. At full scale, [`TrainError::OnlyRelease`] without `--release`.
    ///
    /// Example: [`Place`].
    pub fn open_at(
        &self,
        folders: &Folders,
        scale: Scale,
        place: Place,
    ) -> Result<Option<Box<dyn Ready>>, TrainError> {
        match self.needs {
            _ if place != Place::Cpu && !self.on_gpu => Ok(None),
            Some(name) if folders.find(name).is_none() => Ok(None),
            _ if scale == Scale::Paper && !LARGE => Err(TrainError::OnlyRelease),
            _ => (self.open)(folders, scale, place).map(Some),
        }
    }
}
