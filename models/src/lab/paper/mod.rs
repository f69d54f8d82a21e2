//! The paper's figures and tables as lists of runs, with how each is drawn.

#[cfg(feature = "lab")]
mod list;

#[cfg(feature = "lab")]
pub use list::exhibits;

use super::{Category, Contender, Task};

/// A part of the evidence, which can be made by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rates over the length of a window and over the damping.
    Fig1,
    /// Losses and rates from nine starting rates.
    Fig2,
    /// Learned rates and hypergradients over starting rates and batch sizes.
    Table1,
    /// All optimizers on CIFAR with a wide residual network.
    Fig3,
    /// Optimizers on a folder of pictures with ResNet-50.
    Fig4,
    /// A transformer with SGD and Adam, each with a learned rate and without.
    Fig5,
    /// The parts that this library adds to the paper's rule, each switched on and off.
    Ablations,
    /// The optimizers that find their own rate, and a search by hand.
    Peers,
}

/// One line of a figure, or one cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name for readers.
    pub label: String,
    /// The contender, or several of which the one with the least mean loss counts.
    pub of: Vec<Contender>,
}

impl Series {
    fn new(label: impl Into<String>, contender: Contender) -> Self {
        Self { label: label.into(), of: vec![contender] }
    }

    /// The category of the contenders, which is the same for all of them.
    ///
    /// Example: [`exhibits`].
    pub fn category(&self) -> Option<Category> {
        self.of.first().map(|one| one.category)
    }
}

/// What is drawn over the steps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The rate.
    Rate,
    /// The mean loss of the batches since the test before.
    Training,
    /// The loss in tests.
    Testing,
    /// The part of right answers in tests.
    Accuracy,
}

/// How runs are shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Panel {
    /// A chart for each quantity, and a table of the ends.
    Curves {
        /// What is to be seen.
        caption: String,
        /// The charts.
        charts: Vec<Quantity>,
        /// The lines of each.
        series: Vec<Series>,
    },
    /// A table of final losses over batch sizes and seeds, with a column for each starting rate.
    Grid {
        /// What is to be seen.
        caption: String,
        /// The headings.
        columns: Vec<String>,
        /// Each method's name and its cells.
        rows: Vec<(String, Vec<Series>)>,
    },
}

impl Panel {
    /// What is to be seen.
    ///
    /// Example: [`exhibits`].
    pub fn caption(&self) -> &str {
        match self {
            Self::Curves { caption, .. } | Self::Grid { caption, .. } => caption,
        }
    }

    /// All its series.
    ///
    /// Example: [`exhibits`].
    pub fn series(&self) -> Vec<&Series> {
        match self {
            Self::Curves { series, .. } => series.iter().collect(),
            Self::Grid { rows, .. } => rows.iter().flat_map(|(_, cells)| cells).collect(),
        }
    }
}

/// A figure or a table.
#[derive(Clone, Debug)]
pub struct Exhibit {
    /// The part that it belongs to.
    pub part: Part,
    /// The heading.
    pub title: &'static str,
    /// What it is, and what had to be chosen because the paper does not tell.
    pub about: &'static str,
    /// The tasks. Each series is trained on all of them.
    pub tasks: Vec<Task>,
    /// How it is drawn.
    pub panels: Vec<Panel>,
}

impl Exhibit {
    /// The contenders of all series, each once.
    ///
    /// Example: [`exhibits`].
    pub fn contenders(&self) -> Vec<&Contender> {
        let mut all: Vec<&Contender> = Vec::new();
        for one in self.panels.iter().flat_map(Panel::series).flat_map(|series| &series.of) {
            if !all.iter().any(|known| known.name == one.name) {
                all.push(one);
            }
        }
        all
    }
}
