//! Whole runs, as the examples make them: data that is shared out, checkpoints, a request to stop.

use crate::ranks::on_boxed_ranks;
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use support::values::largest_error;
use tlr::{Error, ParallelError};
use tlr_models::{
    baselines::{PeerOptimizer, Sgd},
    data::{digits, Dataset},
    sweep::{self, SweepRecord, SweepResults},
    train::{
        self, train, train_with, AnyLearner, AnyRanks, Event, InMemory, Net, Options, Persistence,
        Run, Share, TrainError,
    },
};

/// 201 images in batches of 40: the last one has a single image.
fn data() -> Dataset {
    digits::draw(1, 201, 60).unwrap()
}

fn options() -> Options {
    Options { batch_size: 40, epochs: 2, ..Options::default() }
}

fn run(
    data: &Dataset,
    ranks: &AnyRanks,
    persistence: &Persistence<'_>,
    options: &Options,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let source = InMemory::new(data, options.batch_size, options.seed, None)?;
    let source = source.share(Share::of_rank(ranks));
    let persistence = Persistence { ranks: Some(ranks), ..*persistence };
    train::<Net>(&source, options, &persistence, observer)
}

fn losses(run: &Run) -> Vec<f64> {
    let tests = run.epochs.iter().map(|epoch| epoch.test_loss);
    run.losses.iter().copied().chain(tests).collect()
}

/// The losses that are told are those of all ranks, and each image counts once. Fails if ranks have
/// the same images, or if the single image of the last batch counts on every rank.
#[test]
fn ranks_train_as_one_process() {
    let data = data();
    let alone =
        run(&data, &train::alone(), &Persistence::default(), &options(), &mut |_| ()).unwrap();
    assert_eq!(alone.losses.len(), 12);
    for size in [2, 3] {
        let all = on_boxed_ranks(size, |own| {
            losses(&run(&data, &own, &Persistence::default(), &options(), &mut |_| ()).unwrap())
        });
        assert!(all.iter().all(|losses| *losses == all[0]));
        let off = largest_error(&losses(&alone), &all[0]);
        assert!(off < 1e-4, "{size} ranks: {off:e}");
    }
}

/// One rank alone is asked to stop. All of them do so after the same step, and the first one has
/// saved the run, which another number of ranks finishes.
#[test]
fn a_run_that_was_stopped_goes_on_with_other_ranks() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    let kept = || Persistence { checkpoint: Some(&file), resume: true, ..Persistence::default() };
    let steps = on_boxed_ranks(3, |own| {
        let last = own.rank() == 2;
        let stop = AtomicBool::new(false);
        let persistence = Persistence { stop: Some(&stop), ..kept() };
        let stopped = run(&data, &own, &persistence, &options(), &mut |event| {
            if let (true, Event::Step { epoch: 0, batch: 3, .. }) = (last, event) {
                stop.store(true, Ordering::Relaxed);
            }
        });
        match stopped {
            Err(TrainError::Stopped { step }) => step,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(steps, [5; 3]);
    let rest = on_boxed_ranks(2, |own| {
        // Only the first rank has the file.
        let nowhere = Path::new("/nowhere/run.safetensors");
        let checkpoint = if own.is_first() { &file } else { nowhere };
        let persistence = Persistence { checkpoint: Some(checkpoint), ..kept() };
        losses(&run(&data, &own, &persistence, &options(), &mut |_| ()).unwrap())
    });
    assert_eq!(rest[0], rest[1]);
    let whole =
        run(&data, &train::alone(), &Persistence::default(), &options(), &mut |_| ()).unwrap();
    assert!(largest_error(&losses(&whole), &rest[0]) < 1e-4);
}

fn error(result: Result<Run, TrainError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn other_options_and_other_data_are_refused_by_name() {
    let data = data();
    let other = digits::draw(2, 201, 60).unwrap();
    let told = on_boxed_ranks(2, |own| {
        let batch_size = if own.is_first() { 40 } else { 50 };
        let options = Options { batch_size, ..options() };
        error(run(&data, &own, &Persistence::default(), &options, &mut |_| ()))
    });
    assert_eq!(told[0], told[1]);
    assert!(told[0].contains("rank 1") && told[0].contains("--batch-size is 50"), "{}", told[0]);
    let told = on_boxed_ranks(2, |own| {
        let data = if own.is_first() { &data } else { &other };
        error(run(data, &own, &Persistence::default(), &options(), &mut |_| ()))
    });
    assert_eq!(told[0], told[1]);
    assert!(told[0].contains("the training set is "), "{}", told[0]);
    let told = on_boxed_ranks(2, |own| {
        let options = Options { epochs: 2 + own.rank(), ..options() };
        error(run(&data, &own, &Persistence::default(), &options, &mut |_| ()))
    });
    assert!(told[0] == told[1] && told[0].contains("--epochs is 3"), "{}", told[0]);
    // All ranks have a part of a checkpoint, so none saves alone.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    let told = on_boxed_ranks(2, |own| {
        let checkpoint = own.is_first().then_some(&*file);
        let persistence = Persistence { checkpoint, ..Persistence::default() };
        error(run(&data, &own, &persistence, &options(), &mut |_| ()))
    });
    assert!(told[0] == told[1] && told[0].contains("--checkpoint is"), "{}", told[0]);
}

/// The first rank finds a checkpoint that it must not overwrite. It says so in its own words.
#[test]
fn what_stops_the_first_rank_is_told_to_all() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    std::fs::write(&file, "something").unwrap();
    let told = on_boxed_ranks(2, |own| {
        let persistence = Persistence { checkpoint: Some(&file), ..Persistence::default() };
        let stopped = run(&data, &own, &persistence, &options(), &mut |_| ()).unwrap_err();
        match stopped {
            TrainError::CheckpointExists(_) => "its own".to_owned(),
            TrainError::Rate(Error::Parallel {
                rank: 0,
                problem: ParallelError::Failed { message },
                ..
            }) => message,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(told[0], "its own");
    assert!(told[1].starts_with("there is a checkpoint at "), "{}", told[1]);
}

/// Trains with the optimizer that `learner` makes, on a run of `ranks`.
fn error_with(
    ranks: Option<&AnyRanks>,
    learner: impl FnOnce(&Net) -> Result<AnyLearner<Net>, TrainError>,
) -> TrainError {
    let (data, options) = (data(), options());
    let source = InMemory::new(&data, options.batch_size, options.seed, None).unwrap();
    let source = source.share(ranks.map_or_else(Share::default, Share::of_rank));
    let persistence = Persistence { ranks, ..Persistence::default() };
    let begun = &mut |_: Event<'_>| panic!("a run that is refused has begun");
    train_with(&source, &options, learner, &persistence, begun).unwrap_err()
}

/// Fails if ranks whose optimizers do not exchange train a model each, and nobody is told.
#[test]
fn an_optimizer_of_another_number_of_ranks_is_refused() {
    on_boxed_ranks(2, |own| {
        let peer = |model: &Net| -> Result<AnyLearner<Net>, TrainError> {
            Ok(Box::new(PeerOptimizer::new(model, Sgd::default())?))
        };
        let error = error_with(Some(&own), peer);
        assert!(matches!(error, TrainError::Apart { ranks: 2, together: 1 }), "{error}");
    });
    on_boxed_ranks(2, |own| {
        let together = |model: &Net| -> Result<AnyLearner<Net>, TrainError> {
            Ok(train::learner(model, &options(), 6, own.clone())?)
        };
        let error = error_with(None, together);
        assert!(matches!(error, TrainError::Apart { ranks: 1, together: 2 }), "{error}");
    });
}

/// Fails if two ranks train on the same examples, or on half of them, and nobody is told. A rank
/// whose own source is right is told of the other.
#[test]
fn a_source_that_does_not_show_the_ranks_own_share_is_refused() {
    let (data, options) = (data(), options());
    let shown_by = |own: &AnyRanks, share: Share| {
        let source = InMemory::new(&data, options.batch_size, options.seed, None).unwrap();
        let persistence = Persistence { ranks: Some(own), ..Persistence::default() };
        train::<Net>(&source.share(share), &options, &persistence, &mut |_| ()).unwrap_err()
    };
    let own_of = |rank| Share::new(rank, 2).unwrap();
    on_boxed_ranks(2, |own| match shown_by(&own, Share::default()) {
        TrainError::OtherShare { own: of, shown } => {
            assert_eq!((of, shown), (own_of(own.rank()), Share::default()));
        }
        other => panic!("{other:?}"),
    });
    on_boxed_ranks(2, |own| match (own.rank(), shown_by(&own, own_of(0))) {
        (0, TrainError::Rate(Error::Parallel { rank: 1, problem, .. })) => {
            let told = problem.to_string();
            assert!(told.contains("this is rank 1 of 2") && told.contains("rank 0 of 2"), "{told}");
        }
        (1, TrainError::OtherShare { shown, .. }) => assert_eq!(shown, own_of(0)),
        other => panic!("{other:?}"),
    });
    let alone = shown_by(&train::alone(), own_of(1));
    assert!(matches!(alone, TrainError::OtherShare { .. }), "{alone}");
}

/// Fails if a rank waits until the time is out for another that has no optimizer.
#[test]
fn a_rank_without_an_optimizer_tells_the_others() {
    let told = on_boxed_ranks(2, |own| {
        let learner = |model: &Net| -> Result<AnyLearner<Net>, TrainError> {
            match own.is_first() {
                true => Ok(train::learner(model, &options(), 6, own.clone())?),
                false => Err(TrainError::OnlyRelease),
            }
        };
        match error_with(Some(&own), learner) {
            TrainError::OnlyRelease => "its own".to_owned(),
            TrainError::Rate(Error::Parallel {
                rank: 1,
                problem: ParallelError::Failed { message },
                ..
            }) => message,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(told, [&*TrainError::OnlyRelease.to_string(), "its own"]);
}

/// The runs of a sweep, each made by one of the ranks, are those of one process. Fails if a cell is
/// left out or made twice, or if it depends on the rank that made it.
#[test]
fn a_sweep_is_shared_out() {
    let data = data();
    let rates = [1e-1, 1e-3, 1e-5];
    let cells: Vec<_> = rates
        .map(|rate| Options { rate, epochs: 1, ramp: false, ..options() })
        .into_iter()
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let losses = |records: &[SweepRecord]| -> Vec<(f64, Option<f64>)> {
        let mut all: Vec<_> = records.iter().map(|r| (r.rate, r.test_loss)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    };
    let mut alone = Vec::new();
    let mut results = SweepResults::open(&folder.path().join("alone"), "drawn", &data).unwrap();
    sweep::run::<Net>(&data, &cells, 1, &mut results, &mut |record| alone.push(record.clone()))
        .unwrap();
    assert_eq!(alone.len(), 3);
    // The second time, nothing is left to do. As many jobs as can be are as many as there are
    // cells: it fails if their number, times that of the ranks, overflows, or if a rank with
    // another number of jobs goes by its own.
    for (name, left, jobs) in [("most", 3, usize::MAX), ("most", 0, 1), ("two", 3, 2)] {
        let told = on_boxed_ranks(2, |own| {
            let path = folder.path().join(name);
            let mut results =
                own.is_first().then(|| SweepResults::open(&path, "drawn", &data).unwrap());
            let mut told = Vec::new();
            let failed = sweep::run_together::<Net>(
                &data,
                &cells,
                jobs / (1 + own.rank()),
                results.as_mut(),
                &own,
                &mut |r| {
                    told.push(r.clone());
                },
            );
            assert_eq!(failed.unwrap(), 0);
            told
        });
        assert_eq!((told[0].len(), told[1].len()), (left, 0));
        if left > 0 {
            assert_eq!(losses(&told[0]), losses(&alone));
        }
    }
    // A rank with other data.
    let other = digits::draw(2, 201, 60).unwrap();
    let told = on_boxed_ranks(2, |own| {
        let data = if own.is_first() { &data } else { &other };
        let done = sweep::run_together::<Net>(data, &cells, 1, None, &own, &mut |_| ());
        done.unwrap_err().to_string()
    });
    assert!(told[0] == told[1] && told[0].contains("the training set is "), "{}", told[0]);
}
