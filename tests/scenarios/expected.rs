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

/// The list. With other seeds it is no measure.
#[rustfmt::skip]
pub(crate) const EXPECTED: &[Expected] = &[
    expected("noise-cubed", Momentum, 4, 6, NOISE),
    expected("noise-student", Sgd, 0, 2, NOISE),
    expected("noise-student", Momentum, 2, 4, NOISE),
    expected("noise-student", Adam, 0, 2, NOISE),
    expected("batch-one", Momentum, 2, 4, NOISE),
    expected("batch-one", Adam, 4, 6, NOISE),
    expected("batch-one", Sign, 2, 10, LENGTH),
    expected("batch-one-cubed", Sgd, 8, 20, NOISE),
    expected("batch-one-cubed", Momentum, 10, 20, NOISE),
    expected("batch-one-cubed", Adam, 6, 20, NOISE),
    expected("batch-one-cubed", Sign, 4, 10, LENGTH),
    expected("full-batch", Sign, 6, 20, LENGTH),
    expected("scaled-features", Adam, 4, 4, VALLEY),
    expected("scaled-features", Sign, 2, 4, LENGTH),
    expected("ill-conditioned", Sgd, 0, 2, VALLEY),
    expected("ill-conditioned", Momentum, 12, 32, VALLEY),
    expected("ill-conditioned", Adam, 6, 18, VALLEY),
    expected("ill-conditioned", Sign, 8, 26, LENGTH),
    expected("separable", Adam, 2, 2, VALLEY),
    expected("separable", Sign, 2, 2, LENGTH),
    expected("zero-start", Sign, 6, 10, LENGTH),
    expected("offset", Sgd, 5, 9, CHANGE),
    expected("offset", Momentum, 2, 5, CHANGE),
    expected("offset", Adam, 0, 2, CHANGE),
    expected("offset", Sign, 0, 3, LENGTH),
    expected("factor", Momentum, 1, 1, CHANGE),
    expected("factor", Adam, 1, 4, CHANGE),
    expected("factor", Sign, 1, 4, LENGTH),
    expected("harder-targets", Momentum, 2, 4, CHANGE),
    expected("harder-targets", Adam, 0, 1, CHANGE),
    expected("harder-targets", Sign, 0, 1, LENGTH),
    expected("harder-inputs", Sgd, 2, 8, CHANGE),
    expected("harder-inputs", Momentum, 1, 2, CHANGE),
    expected("harder-inputs", Sign, 11, 39, LENGTH),
    expected("tasks-in-turn", Sgd, 3, 11, CHANGE),
    expected("tasks-in-turn", Momentum, 6, 24, CHANGE),
    expected("tasks-in-turn", Adam, 2, 12, CHANGE),
    expected("tasks-in-turn", Sign, 3, 14, LENGTH),
    expected("rosenbrock", Sgd, 6, 20, VALLEY),
    expected("rosenbrock", Momentum, 2, 8, VALLEY),
    expected("rosenbrock", Adam, 2, 6, VALLEY),
    expected("rosenbrock", Sign, 12, 37, LENGTH),
    expected("reward", Momentum, 4, 18, FIT),
    expected("reward", Adam, 2, 4, FIT),
    expected("reward", Sign, 0, 4, LENGTH),
    expected("density", Sgd, 3, 8, FIT),
    expected("density", Momentum, 0, 2, FIT),
    expected("density", Sign, 0, 3, LENGTH),
    expected("idle-layer-decayed", Momentum, 1, 2, CHANGE),
    expected("low-rank", Sgd, 0, 3, START),
    expected("trained-same", Momentum, 4, 12, START),
    expected("trained-same", Adam, 5, 17, START),
    expected("trained-other", Sgd, 2, 3, START),
    expected("trained-other", Momentum, 8, 20, START),
    expected("trained-other", Adam, 0, 3, START),
    expected("trained-other", Sign, 0, 1, LENGTH),
    expected("clusters", Sign, 12, 40, LENGTH),
    expected("batch-one-classifier", Sgd, 1, 4, NOISE),
    expected("batch-one-classifier", Momentum, 2, 9, NOISE),
    expected("batch-one-classifier", Adam, 3, 14, NOISE),
    expected("batch-one-classifier", Sign, 12, 36, LENGTH),
    expected("large-loss", Momentum, 0, 1, FIT),
    expected("large-loss", Sign, 12, 40, LENGTH),
    expected("tiny-loss", Adam, 0, 1, FIT),
    expected("tiny-loss", Sign, 12, 40, LENGTH),
    expected("small-epochs", Sgd, 6, 20, FIT),
    expected("small-epochs", Momentum, 3, 11, FIT),
    expected("small-epochs", Adam, 9, 27, FIT),
    expected("small-epochs", Sign, 12, 38, LENGTH),
    expected("label-noise", Sgd, 0, 2, NOISE),
    expected("spirals", Sgd, 2, 8, FIT),
    expected("spirals", Momentum, 1, 5, FIT),
    expected("spirals", Adam, 0, 1, FIT),
    expected("spirals", Sign, 2, 5, LENGTH),
    expected("convolution", Sgd, 7, 14, FIT),
    expected("convolution", Momentum, 3, 7, FIT),
    expected("convolution", Adam, 0, 5, FIT),
    expected("convolution", Sign, 3, 12, LENGTH),
    expected("attention", Adam, 0, 1, FIT),
    expected("attention", Sign, 9, 28, LENGTH),
    expected("autoencoder", Sgd, 0, 1, FIT),
    expected("rare-words", Adam, 1, 1, CHANGE),
    expected("rare-words", Sign, 0, 1, LENGTH),
    expected("deep", Sgd, 12, 26, PLATEAU),
    expected("deep", Momentum, 12, 29, PLATEAU),
    expected("deep", Adam, 7, 22, PLATEAU),
    expected("deep", Sign, 5, 11, LENGTH),
    expected("recurrent", Sgd, 0, 2, VALLEY),
    expected("recurrent", Momentum, 4, 15, VALLEY),
    expected("recurrent", Adam, 1, 8, VALLEY),
    expected("recurrent", Sign, 1, 2, LENGTH),
    expected("residual", Sgd, 0, 6, FIT),
    expected("residual", Momentum, 1, 3, FIT),
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
