//! [`Runs`]: what has run of the paper's evidence, at one scale.

use crate::lab::{
    measures::spread,
    paper::{Exhibit, Panel, Series},
    Contender, Curve, Record, Results, Task,
};

/// The runs of one scale.
pub(super) struct Runs<'a> {
    pub(super) records: Vec<&'a Record>,
    pub(super) curves: Vec<&'a Curve>,
}

/// The runs of a series' best contender.
pub(super) struct Best<'a> {
    pub(super) records: Vec<&'a Record>,
    pub(super) settings: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn of(results: &'a Results) -> Self {
        Self { records: results.records().collect(), curves: results.curves().collect() }
    }

    /// The data of the task's latest run.
    pub(super) fn data(&self, task: &Task) -> Option<&'a str> {
        let last = self.records.iter().rev().find(|record| record.task == task.name)?;
        Some(&last.data)
    }

    pub(super) fn has_some(&self, exhibit: &Exhibit) -> bool {
        let all = exhibit.panels.iter().flat_map(Panel::series);
        all.into_iter().any(|series| self.best(series, exhibit).is_some())
    }

    /// How many pairs of a task and a contender have run, and how many there are.
    pub(super) fn done(&self, exhibit: &Exhibit) -> (usize, usize) {
        let contenders = exhibit.contenders();
        let pairs = exhibit.tasks.iter().flat_map(|task| contenders.iter().map(move |c| (task, c)));
        let has = |(task, contender): &(&Task, &&Contender)| {
            let data = self.data(task);
            self.records.iter().any(|record| {
                record.task == task.name
                    && record.contender == contender.name
                    && Some(&*record.data) == data
            })
        };
        (pairs.clone().filter(has).count(), pairs.count())
    }

    /// The best contender of a series; none before any of them has run.
    pub(super) fn best(&self, series: &Series, exhibit: &Exhibit) -> Option<Best<'a>> {
        let of = |name: &str| -> Vec<&'a Record> {
            let is_it = |record: &&&Record| {
                let mut tasks = exhibit.tasks.iter();
                record.contender == name
                    && tasks.any(|task| {
                        task.name == record.task && self.data(task) == Some(&record.data)
                    })
            };
            self.records.iter().filter(is_it).copied().collect()
        };
        let all =
            series.of.iter().map(|one| Best { records: of(&one.name), settings: one.settings });
        let all = all.filter(|best| !best.records.is_empty());
        all.min_by(|a, b| a.loss().total_cmp(&b.loss()))
    }

    pub(super) fn curve(&self, record: &Record) -> Option<&'a Curve> {
        let is_it = |curve: &&&Curve| {
            curve.contender == record.contender
                && curve.task == record.task
                && curve.seed == record.seed
                && curve.data == record.data
        };
        self.curves.iter().find(is_it).copied()
    }
}

impl Best<'_> {
    /// The final losses, infinite where a run diverged.
    pub(super) fn losses(&self) -> Vec<f64> {
        self.records.iter().map(|record| record.loss.unwrap_or(f64::INFINITY)).collect()
    }

    pub(super) fn loss(&self) -> f64 {
        spread(&self.losses()).map_or(f64::INFINITY, |(mean, _)| mean)
    }

    /// The mean of a figure, over the runs that have it.
    pub(super) fn mean(&self, figure: impl Fn(&Record) -> Option<f64>) -> Option<f64> {
        let all: Vec<_> = self.records.iter().filter_map(|record| figure(record)).collect();
        spread(&all).map(|(mean, _)| mean)
    }
}
