//! Which cells are run, and what a list of numbers is.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    lab::{contenders, Budget, WatchSteps},
    train::TrainError,
};
use serde::de::IntoDeserializer;

/// A task without data, whose training ends at once.
struct Nothing {
    fails: bool,
}

const NOTHING: Nothing = Nothing { fails: false };
const FAILING: Nothing = Nothing { fails: true };

impl Ready for Nothing {
    fn budget(&self) -> Budget {
        Budget { epochs: 1, batches: 1 }
    }

    fn data(&self) -> String {
        "nothing".to_owned()
    }

    fn train(&self, _: &Contender, _: u64, _: &WatchSteps<'_>) -> Result<Trained, TrainError> {
        if self.fails {
            return Err(TrainError::OnlyRelease);
        }
        Ok(Trained {
            points: Vec::new(),
            diverged: None,
            searched: 0,
            steps: 1,
            seconds: 0.0,
            rates: Vec::new(),
            rate_curve: Vec::new(),
            memory: None,
        })
    }
}

// Fails if a run that is asked for twice is made twice.
#[test]
fn a_cell_is_run_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::open(folder.path(), Scale::Smoke).unwrap();
    let (task, contenders) = (Task::of_test("nothing"), contenders());
    let cell = |contender, seed| Cell { task: &task, ready: &NOTHING, contender, seed };
    let (first, second) = (&contenders[0], &contenders[1]);
    let cells = [cell(first, 0), cell(first, 0), cell(first, 1), cell(second, 0)];
    let mut made = 0;
    run_cells(&cells, 2, &mut results, &|_, _, _| (), &mut |_| made += 1).unwrap();
    assert_eq!((made, results.records().count()), (3, 3));
}

// Fails if a run that failed is among the results: a page would say that it diverged.
#[test]
fn a_run_that_failed_has_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::open(folder.path(), Scale::Smoke).unwrap();
    let (task, contenders) = (Task::of_test("nothing"), contenders());
    let cell = |ready, seed| Cell { task: &task, ready, contender: &contenders[0], seed };
    let cells = [cell(&NOTHING, 0), cell(&FAILING, 1)];
    let mut failed = 0;
    let mut count = |record: &Record| failed += u32::from(record.ended == Ended::Failed);
    run_cells(&cells, 1, &mut results, &|_, _, _| (), &mut count).unwrap();
    assert_eq!(failed, 1);
    assert_eq!(results.records().map(|record| record.seed).collect::<Vec<_>>(), [0]);
}

// Fails if a word that is no number is left out, or is read as one.
#[test]
fn what_is_no_number_is_refused() {
    let read = |list: &str| only_numbers(list.into_deserializer());
    let error: Result<_, serde::de::value::Error> = read("1.0 x 3.0");
    assert!(error.is_err_and(|error| error.to_string().contains("`x`")));
    let list: Result<_, serde::de::value::Error> = read("1.0 inf");
    assert!(list.is_ok_and(|list| numbers(&list) == [1.0, f64::INFINITY]));
    assert!(numbers("").is_empty());
}
