//! Cells that end above the best constant, how many of them, and why.
//!
//! No entry allows weights that are not finite, or a step that fails.

use super::{base::Base, table::Cell};
use Base::{Adam, Momentum, Sgd, Sign};

/// Cells of one row and one base optimizer whose error is too high.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) row: &'static str,
    pub(crate) base: Base,
    /// How many of the first three seeds' twelve cells.
    pub(crate) of_three: usize,
    /// How many of the first ten seeds' forty cells.
    pub(crate) of_ten: usize,
    /// Why they do, as far as is known.
    #[allow(dead_code)] // shown by the report, as debug output
    pub(crate) reason: &'static str,
}

const NOISE: &str = "the slope is measured amid heavy tails or single examples, and the level \
    comes out too high by up to ten times; the best constant is known by the whole run";
const VALLEY: &str = "in a narrow valley the best constant keeps at the edge of stability, or a \
    useful rate lies decades above that of the start; the learned rate stays below it";
const CHANGE: &str = "the job changes on its way, and the best constant is the one for its end";
const FIT: &str = "the learned rate goes on to fit the examples of training, and the error is \
    that of others; or a layer's level is unstable from the start";
const START: &str = "from trained weights, or zeros, the first slope is not that of what follows";
const PLATEAU: &str = "on the plateau one direction's noise is nearly all of the gradient, and \
    rates settle for it";
const LENGTH: &str = "steps of one length: the slope's rate is 3 to 30 times too high on a small \
    network, and it settles slowly";
/// See the test `sign_descent_leaves_where_classes_overlap`.
const MAJORITY: &str = "sign descent goes where most batches point, and a few wrong answers that \
    cost much do not turn it: the error rises again at any constant rate, and the best one is that \
    which is near its lowest point when the steps are over";

/// The list. With other seeds it is no measure.
#[rustfmt::skip]
pub(crate) const EXPECTED: &[Expected] = &[
    expected("noise-cubed", Sgd, 2, 2, NOISE),
    expected("noise-cubed", Momentum, 0, 2, NOISE),
    expected("noise-student", Momentum, 2, 2, NOISE),
    expected("noise-student", Sign, 0, 2, LENGTH),
    expected("batch-one", Sgd, 2, 2, NOISE),
    expected("batch-one", Adam, 0, 2, NOISE),
    expected("batch-one", Sign, 0, 6, LENGTH),
    expected("batch-one-cubed", Sgd, 6, 12, NOISE),
    expected("batch-one-cubed", Momentum, 8, 18, NOISE),
    expected("batch-one-cubed", Adam, 6, 20, NOISE),
    expected("batch-one-cubed", Sign, 2, 10, LENGTH),
    expected("scaled-features", Adam, 0, 2, VALLEY),
    expected("ill-conditioned", Sgd, 0, 8, VALLEY),
    expected("ill-conditioned", Momentum, 12, 38, VALLEY),
    expected("ill-conditioned", Adam, 4, 8, VALLEY),
    expected("ill-conditioned", Sign, 8, 34, LENGTH),
    expected("zero-start", Sign, 8, 12, LENGTH),
    expected("offset", Sgd, 1, 3, CHANGE),
    expected("offset", Momentum, 1, 7, CHANGE),
    expected("offset", Adam, 2, 2, CHANGE),
    expected("offset", Sign, 1, 4, LENGTH),
    expected("factor", Momentum, 1, 1, CHANGE),
    expected("factor", Adam, 1, 2, CHANGE),
    expected("factor", Sign, 1, 3, LENGTH),
    expected("harder-targets", Momentum, 0, 4, CHANGE),
    expected("harder-inputs", Sgd, 0, 3, CHANGE),
    expected("harder-inputs", Momentum, 0, 1, CHANGE),
    expected("harder-inputs", Sign, 12, 40, MAJORITY),
    expected("tasks-in-turn", Sgd, 1, 3, CHANGE),
    expected("tasks-in-turn", Momentum, 5, 24, CHANGE),
    expected("tasks-in-turn", Adam, 1, 14, CHANGE),
    expected("tasks-in-turn", Sign, 4, 17, LENGTH),
    expected("rosenbrock", Sgd, 5, 12, VALLEY),
    expected("rosenbrock", Momentum, 2, 7, VALLEY),
    expected("rosenbrock", Adam, 1, 7, VALLEY),
    expected("rosenbrock", Sign, 3, 3, LENGTH),
    expected("reward", Adam, 0, 2, FIT),
    expected("density", Sgd, 2, 10, FIT),
    expected("trained-same", Momentum, 1, 8, START),
    expected("trained-same", Adam, 2, 8, START),
    expected("trained-same", Sign, 0, 1, LENGTH),
    expected("trained-other", Sgd, 4, 5, START),
    expected("trained-other", Momentum, 8, 18, START),
    expected("trained-other", Adam, 1, 5, START),
    expected("trained-other", Sign, 0, 2, LENGTH),
    expected("clusters", Sign, 11, 39, MAJORITY),
    expected("batch-one-classifier", Sgd, 2, 3, NOISE),
    expected("batch-one-classifier", Momentum, 5, 6, NOISE),
    expected("batch-one-classifier", Adam, 3, 16, NOISE),
    expected("batch-one-classifier", Sign, 12, 35, MAJORITY),
    expected("large-loss", Sign, 12, 40, MAJORITY),
    expected("tiny-loss", Sign, 12, 40, MAJORITY),
    expected("small-epochs", Sgd, 3, 12, FIT),
    expected("small-epochs", Momentum, 4, 12, FIT),
    expected("small-epochs", Adam, 8, 28, FIT),
    expected("small-epochs", Sign, 12, 40, MAJORITY),
    expected("spirals", Sgd, 1, 6, FIT),
    expected("spirals", Momentum, 1, 3, FIT),
    expected("spirals", Adam, 0, 2, FIT),
    expected("spirals", Sign, 2, 5, LENGTH),
    expected("convolution", Sgd, 5, 16, FIT),
    expected("convolution", Momentum, 2, 8, FIT),
    expected("convolution", Adam, 0, 1, FIT),
    expected("convolution", Sign, 2, 6, LENGTH),
    expected("attention", Sign, 9, 31, MAJORITY),
    expected("rare-words", Adam, 1, 1, CHANGE),
    expected("deep", Sgd, 11, 24, PLATEAU),
    expected("deep", Momentum, 11, 25, PLATEAU),
    expected("deep", Adam, 7, 19, PLATEAU),
    expected("deep", Sign, 3, 12, LENGTH),
    expected("recurrent", Momentum, 3, 10, VALLEY),
    expected("recurrent", Adam, 0, 6, VALLEY),
    expected("residual", Sgd, 0, 1, FIT),
    expected("residual", Momentum, 0, 2, FIT),
];

const fn expected(
    row: &'static str,
    base: Base,
    of_three: usize,
    of_ten: usize,
    reason: &'static str,
) -> Expected {
    Expected { row, base, of_three, of_ten, reason }
}

impl Expected {
    pub(crate) fn covers(&self, cell: &Cell) -> bool {
        self.row == cell.row && self.base == cell.way.base
    }

    /// How many may fail, with so many seeds.
    pub(crate) fn allowed(&self, seeds: u64) -> usize {
        if seeds <= 3 {
            self.of_three
        } else {
            self.of_ten
        }
    }
}
