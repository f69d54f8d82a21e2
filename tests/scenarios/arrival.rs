//! Where the ramp ends, beside the best constant rate: ten jobs, three sizes of a batch.

use super::{
    base::Base,
    report, rows,
    table::{cells, of_all, seeds, Cell, Row},
    ways::Way,
};
use std::fmt::Write;

/// Jobs whose batches may have any number of examples.
const JOBS: [&str; 10] = [
    "noise-normal",
    "noise-cubed",
    "ill-conditioned",
    "separable",
    "clusters",
    "label-noise",
    "spirals",
    "convolution",
    "attention",
    "autoencoder",
];
const BATCHES: [usize; 3] = [1, 16, 128];
const BASES: [Base; 3] = [Base::Sgd, Base::Momentum, Base::Adam];
const WAY: Way = Way { base: Base::Sgd, start: 1e-6, per_layer: false, told: true, horizon: false };

/// Runs all jobs, and tells for each batch and optimizer how far the ramps' ends are from the good
/// constants, and how many steps they took.
pub(crate) fn arrive() -> Vec<Arrival> {
    let of_batch = |batch| {
        let rows = rows::all().into_iter().filter(|row| JOBS.contains(&row.name));
        rows.map(move |row| row.batch(batch))
    };
    let rows: Vec<Row> = BATCHES.into_iter().flat_map(of_batch).collect();
    let units: Vec<(&Row, u64, Base)> = rows
        .iter()
        .flat_map(|row| (1..=seeds(10)).flat_map(move |seed| BASES.map(|base| (row, seed, base))))
        .collect();
    let cells = of_all(&units, |(row, seed, base)| {
        cells(row, *seed, vec![Way { base: *base, ..WAY }], *base)
    });
    report::write_if_asked(&cells);
    let arrival = |batch| BASES.map(|base| Arrival::new(batch, base, &cells));
    BATCHES.into_iter().flat_map(arrival).collect()
}

/// The ramps of one batch size and optimizer.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) batch: usize,
    base: Base,
    /// By which factor each ramp's end is outside of the good constants, ascending.
    off: Vec<f64>,
    /// How many steps each took, ascending.
    steps: Vec<u64>,
    /// Of each job, how many ended within a factor of 4, and how many there are.
    jobs: Vec<(&'static str, usize, usize)>,
}

impl Arrival {
    fn new(batch: usize, base: Base, cells: &[Cell]) -> Self {
        let of = |cell: &&Cell| cell.batch == batch && cell.way.base == base;
        let off = |cell: &Cell| cell.level_off();
        let all = || cells.iter().filter(of);
        let mut steps: Vec<u64> = all().map(|cell| cell.run.started_at).collect();
        let mut sorted: Vec<f64> = all().filter_map(off).collect();
        sorted.sort_by(f64::total_cmp);
        steps.sort_unstable();
        let job = |name| {
            let of_job = all().filter(|cell| cell.row == name).filter_map(off);
            let (near, far): (Vec<f64>, Vec<f64>) = of_job.partition(|off| *off <= 4.0);
            (name, near.len(), near.len() + far.len())
        };
        Self { batch, base, off: sorted, steps, jobs: JOBS.map(job).to_vec() }
    }

    /// Which part ended within this factor.
    pub(crate) fn within(&self, factor: f64) -> f64 {
        self.off.partition_point(|off| *off <= factor) as f64 / self.off.len() as f64
    }

    /// So many steps, or fewer, were taken by nine of ten.
    pub(crate) fn steps_of_nine_in_ten(&self) -> u64 {
        self.steps.get(self.steps.len() * 9 / 10).copied().unwrap_or(u64::MAX)
    }

    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "batch {:3} {:8} {:3.0} % within 4, {:3.0} % within 30, at most {:6.1}; nine of ten in \
             {} steps, all in {};",
            self.batch,
            self.base.name(),
            100.0 * self.within(4.0),
            100.0 * self.within(30.0),
            self.off.last().copied().unwrap_or(f64::NAN),
            self.steps_of_nine_in_ten(),
            self.steps.last().copied().unwrap_or(0),
        );
        for (name, near, of) in &self.jobs {
            let _ = write!(line, " {name} {near}/{of}");
        }
        line
    }
}
