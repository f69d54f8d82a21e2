//! Snapshots that are shared out over the ranks: training is the same as if each rank had them all.

use crate::{
    problem::{config, part, sgd, Data, Net, Real, BATCH},
    ranks::on_ranks,
};
use dfdx::{
    optim::{Momentum, SgdConfig},
    prelude::*,
};
use support::values::{bits, gradients, largest_error, values};
use tlr::{
    optim::{Accumulate, Clip, Sgd},
    parallel::{Alone, Communicator, Ranks, Threads},
    Cause, Checkpoint, DataParallel, Error, Newton, NewtonConfig, ParallelError, PerLayer, Step,
    TunableOptimizer,
};

const STEPS: usize = 60;

/// What a rank has come to: its weights, what its steps were, and its checkpoint.
struct Trained {
    weights: Vec<f64>,
    bits: Vec<u64>,
    steps: Vec<Step>,
    checkpoint: Checkpoint,
}

/// Trains by `optimizer`.
fn train<Opt>(
    place: [usize; 2],
    optimizer: impl FnOnce(&Net<f64>) -> Opt,
    config: NewtonConfig,
    from: Option<&Checkpoint>,
    how: How,
) -> Result<Trained, Error>
where
    Opt: TunableOptimizer<Model = Net<f64>, Dtype = f64, Device = Cpu> + tlr::optim::Resumable,
{
    let data = Data::new(BATCH);
    let mut net = f64::new_net(0);
    let mut opt = Newton::new(&net, optimizer(&net), config)?;
    if let Some(checkpoint) = from {
        opt.resume(&mut net, checkpoint)?;
    }
    let mut steps = Vec::new();
    for step in 0..how.steps {
        let (loss, mut own) = f64::loss(&net, &data, part(0..BATCH, place[0], place[1]));
        if how.bad.is_some_and(|bad| (bad..bad + 2).contains(&step)) {
            own = gradients(&net, &vec![1e307; values(&net).len()]);
        }
        steps.push(match how.tells_losses {
            true => opt.step(&mut net, &own, loss)?,
            false => opt.update(&mut net, &own)?,
        });
    }
    let (weights, bits, checkpoint) = (values(&net), bits(&net), opt.checkpoint(&net)?);
    Ok(Trained { weights, bits, steps, checkpoint })
}

#[derive(Clone, Copy)]
struct How {
    steps: usize,
    tells_losses: bool,
    /// From this step on, two gradients are such that the weights are not finite after them.
    bad: Option<usize>,
}

const PLAIN: How = How { steps: STEPS, tells_losses: true, bad: None };

/// Trains on some ranks with snapshots shared out, and as well with whole ones. Answers both, of
/// the first rank.
fn both<Opt>(
    size: usize,
    make: impl Fn(&Net<f64>) -> Opt + Sync,
    config: &(impl Fn() -> NewtonConfig + Sync),
    how: How,
) -> [Trained; 2]
where
    Opt: TunableOptimizer<Model = Net<f64>, Dtype = f64, Device = Cpu> + tlr::optim::Resumable,
{
    [true, false].map(|sharded| {
        let mut all = on_ranks(size, |ranks| {
            let place = [ranks.rank(), size];
            let around = |net: &Net<f64>| around(make(net), ranks, sharded);
            train(place, around, config(), None, how).unwrap()
        });
        for rank in &all {
            assert_eq!(rank.bits, all[0].bits);
            assert!(rank.checkpoint == all[0].checkpoint);
        }
        all.swap_remove(0)
    })
}

fn around<Opt, C>(inner: Opt, ranks: Ranks<C>, sharded: bool) -> DataParallel<Opt, C>
where
    Opt: TunableOptimizer<Dtype = f64, Device = Cpu>,
    C: Communicator,
{
    let optimizer = DataParallel::new(inner, ranks);
    match sharded {
        true => optimizer.shard_snapshots(),
        false => optimizer,
    }
}

/// A network, and SGD for it whose snapshots are shared out.
fn sharded<C: Communicator>(ranks: Ranks<C>) -> (Net<f64>, Sharded<C>) {
    let net = f64::new_net(0);
    let optimizer = around(sgd::<f64, _>(&net), ranks, true);
    let opt = Newton::new(&net, optimizer, config()).unwrap();
    (net, opt)
}

type Sharded<C> = Newton<DataParallel<Sgd<Net<f64>, f64, Cpu>, C>>;

fn off(a: &Trained, b: &Trained) -> f64 {
    largest_error(&a.weights, &b.weights)
}

/// 97 weights over up to five ranks. Fails if a rank counts an element that another one counts too,
/// or none does, or if it takes its own sums for those of all. The sums differ by rounding, which
/// grows by some digits in these steps.
#[test]
fn training_is_the_same() {
    for size in [2, 3, 5] {
        let plain = both(size, sgd::<f64, _>, &config, PLAIN);
        assert!(off(&plain[0], &plain[1]) < 1e-10, "{size}: {:e}", off(&plain[0], &plain[1]));
        let momentum = Some(Momentum::Classic(0.9));
        let settings = SgdConfig { lr: 1e-2, momentum, weight_decay: None };
        let layers = |net: &Net<f64>| PerLayer::new(net, Sgd::new(net, settings));
        let layers = both(size, layers, &config, PLAIN);
        assert!(off(&layers[0], &layers[1]) < 1e-10, "{size}: {:e}", off(&layers[0], &layers[1]));
        let directions = both(size, sgd::<f64, _>, &|| config().bf16_directions(true), PLAIN);
        assert!(off(&directions[0], &directions[1]) < 1e-10, "{size}");
        // Every rank has all of a sketch.
        let sketch = || config().sketch(1 << 6).safeguard(None);
        let sketches = both(size, sgd::<f64, _>, &sketch, PLAIN);
        assert_eq!(sketches[0].bits, sketches[1].bits);
    }
}

/// Clipping and gathering around the ranks hand the question on. Fails if one of them does not: the
/// trainer then keeps whole snapshots, and takes no sum.
#[test]
fn optimizers_around_hand_it_on() {
    let sent = |sharded| {
        let all = on_ranks(2, |ranks| {
            let make = |net: &Net<f64>| {
                let inner = around(sgd::<f64, _>(net), ranks.clone(), sharded);
                Clip::by_norm(Accumulate::new(inner, 2).unwrap(), 1e9).unwrap()
            };
            train([ranks.rank(), 2], make, config(), None, PLAIN).unwrap();
            ranks.traffic().messages
        });
        all[0]
    };
    assert!(sent(true) > sent(false));
}

/// To the last snapshot, and to the one before: after weights that are not finite, and after a
/// window that has led uphill. Fails if a part of the weights is not put back, or in a wrong place.
#[test]
fn a_rollback_gathers_what_each_rank_has() {
    let no_ramp = || config().ramp(false);
    let broken = How { bad: Some(30), ..PLAIN };
    // The rate is ten times too high, and no loss tells it.
    let far = How { tells_losses: false, ..PLAIN };
    let high = |net: &Net<f64>| Sgd::new(net, SgdConfig { lr: 20.0, ..Default::default() });
    for directions in [false, true] {
        let config = || no_ramp().bf16_directions(directions);
        for (trained, cause) in [
            (both(3, sgd::<f64, _>, &config, broken), Cause::NonFiniteLoss),
            (both(3, high, &config, far), Cause::WentTooFar),
        ] {
            let back = |trained: &Trained| -> Vec<bool> {
                let goes = |step: &Step| match step {
                    Step::RolledBack { cause: found, .. } => *found == cause,
                    _ => false,
                };
                trained.steps.iter().map(goes).collect()
            };
            let went = back(&trained[0]);
            assert!(went.contains(&true), "{cause:?}: {:?}", trained[0].steps);
            assert_eq!(went, back(&trained[1]));
            assert!(off(&trained[0], &trained[1]) < 1e-10, "{cause:?}");
        }
    }
}

/// A checkpoint holds the whole snapshots, bit for bit, and may be resumed either way by any number
/// of ranks. Fails if a rank resumes the part of another one, or writes only its own.
#[test]
fn checkpoints_are_whole() {
    for directions in [false, true] {
        let config = || config().bf16_directions(directions);
        let run = |sharded: bool, size: usize, from: Option<&Checkpoint>, steps: usize| {
            let how = How { steps, ..PLAIN };
            let all = on_ranks(size, |ranks| {
                let place = [ranks.rank(), size];
                let make = |net: &Net<f64>| around(sgd::<f64, _>(net), ranks, sharded);
                train(place, make, config(), from, how).unwrap()
            });
            all.into_iter().next().unwrap()
        };
        let whole = run(false, 1, None, 30).checkpoint;
        for size in [2, 3] {
            assert!(run(true, size, Some(&whole), 0).checkpoint == whole, "{size}");
        }
        let half = run(true, 3, None, 30).checkpoint;
        let straight = run(true, 3, None, 60);
        assert_eq!(straight.bits, run(true, 3, Some(&half), 30).bits);
        for (sharded, size) in [(true, 2), (false, 3), (false, 1)] {
            let rest = run(sharded, size, Some(&half), 30);
            let off = off(&straight, &rest);
            assert!(off < 1e-10, "{size}: {off:e}");
        }
    }
}

/// What is overwritten is not gathered first. Fails if a rank asks the others for their parts of
/// the snapshots in order to compare a checkpoint with its own.
#[test]
fn to_resume_takes_no_message() {
    let (net, opt) = sharded(Ranks::new(Alone));
    let saved = opt.checkpoint(&net).unwrap();
    on_ranks(2, |ranks: Ranks<Threads>| {
        let (mut net, mut opt) = sharded(ranks.clone());
        let before = ranks.traffic().messages;
        opt.resume(&mut net, &saved).unwrap();
        assert_eq!(ranks.traffic().messages, before);
        assert!(opt.checkpoint(&net).unwrap() == saved);
        assert!(ranks.traffic().messages > before);
    });
}

/// All ranks save, and one writes. Fails if none does, or all.
#[test]
fn the_first_rank_writes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    on_ranks(2, |ranks: Ranks<Threads>| {
        let path = folder.path().join(ranks.rank().to_string());
        let (net, opt) = sharded(ranks);
        opt.save(&net, path).unwrap();
    });
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1);
    let (net, opt) = sharded(Ranks::new(Alone));
    let alone = opt.checkpoint(&net).unwrap();
    assert!(std::fs::read(folder.path().join("0")).unwrap() == alone.to_bytes().unwrap());
}

/// The first rank cannot write, for its disk is full or not there. Fails if another one takes the
/// file for saved, or if they cannot go on.
#[test]
fn all_are_told_that_there_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("not there").join("run.safetensors");
    let errors = on_ranks(2, |ranks: Ranks<Threads>| {
        let (net, opt) = sharded(ranks.clone());
        let error = opt.save(&net, &file).unwrap_err();
        ranks.wait_for_all().unwrap();
        error
    });
    let told = matches!(&errors[1], Error::Parallel { rank: 0, problem, .. }
        if matches!(problem, ParallelError::Failed { .. }));
    assert!(told && matches!(errors[0], Error::Checkpoint { .. }), "{errors:?}");
}

/// One rank asks with a model that is not its own. Fails if the other one waits for its part of the
/// snapshots, or if they cannot go on.
#[test]
fn a_rank_that_cannot_make_its_checkpoint_is_named() {
    let errors = on_ranks(2, |ranks: Ranks<Threads>| {
        let (net, opt) = sharded(ranks.clone());
        let asked = if ranks.rank() == 1 { f64::new_net(0) } else { net.clone() };
        let error = opt.checkpoint(&asked).unwrap_err();
        opt.checkpoint(&net).unwrap();
        error
    });
    let failed = matches!(&errors[0], Error::Parallel { rank: 1, problem, .. }
        if matches!(problem, ParallelError::Failed { .. }));
    assert!(failed && matches!(errors[1], Error::ModelChanged(_)), "{errors:?}");
}

/// One rank has no file to go on from. Fails if the others wait for it.
#[test]
fn a_rank_without_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    let net = f64::new_net(0);
    Newton::new(&net, sgd::<f64, _>(&net), config()).unwrap().save(&net, &file).unwrap();
    let errors = on_ranks(2, |ranks: Ranks<Threads>| {
        let path = if ranks.is_first() { file.clone() } else { folder.path().join("none") };
        let (mut net, mut opt) = sharded(ranks);
        opt.load(&mut net, path).unwrap_err()
    });
    let failed = matches!(&errors[0], Error::Parallel { rank: 1, problem, .. }
        if matches!(problem, ParallelError::Failed { .. }));
    assert!(failed && matches!(errors[1], Error::Checkpoint { .. }), "{errors:?}");
}

/// One rank asks for a checkpoint, and the other one makes a step. Fails if either takes what the
/// other one says for an answer.
#[test]
fn a_checkpoint_is_not_taken_for_a_step() {
    let errors = on_ranks(2, |ranks: Ranks<Threads>| {
        let (first, data) = (ranks.is_first(), Data::new(BATCH));
        let (mut net, mut opt) = sharded(ranks);
        let (loss, own) = f64::loss(&net, &data, 0..BATCH);
        match first {
            true => opt.checkpoint(&net).unwrap_err(),
            false => opt.step(&mut net, &own, loss).unwrap_err(),
        }
    });
    let orders = |error: &Error| {
        matches!(error, Error::Parallel { problem: ParallelError::Order { .. }, .. })
    };
    assert!(errors.iter().all(orders), "{errors:?}");
}

/// A rank that keeps whole snapshots is told from those that share them out.
#[test]
fn a_rank_that_does_not_share_is_named() {
    let errors = on_ranks(3, |ranks: Ranks<Threads>| {
        let (place, sharded) = ([ranks.rank(), 3], ranks.rank() != 1);
        let make = |net: &Net<f64>| around(sgd::<f64, _>(net), ranks, sharded);
        train(place, make, config(), None, PLAIN).err()
    });
    for error in errors {
        let Some(Error::Parallel { rank: 1, problem: ParallelError::Differs { what, .. }, .. }) =
            error
        else {
            panic!("{error:?}")
        };
        assert_eq!(what, "shard_snapshots");
    }
}

/// A rank ends within a window. The others are told at the next exchange, and their weights are
/// those of the last step. Fails if a rank waits, or goes on by its own sums.
#[test]
fn a_rank_that_ends_is_named() {
    let told = on_ranks(3, |ranks: Ranks<Threads>| {
        let (rank, data) = (ranks.rank(), Data::new(BATCH));
        let (mut net, mut opt) = sharded(ranks);
        for _ in 0..if rank == 2 { 10 } else { 11 } {
            let before = bits(&net);
            let (loss, own) = f64::loss(&net, &data, part(0..BATCH, rank, 3));
            if let Err(error) = opt.step(&mut net, &own, loss) {
                assert_eq!(bits(&net), before);
                return Some(error);
            }
        }
        None
    });
    for error in &told[..2] {
        let ended = ParallelError::Ended;
        assert!(
            matches!(error, Some(Error::Parallel { rank: 2, problem, .. }) if *problem == ended),
            "{error:?}"
        );
    }
}
