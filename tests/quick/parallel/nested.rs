//! `Clip` and `Accumulate` around `DataParallel`: with a trainer, and without.

use crate::{
    problem::config,
    ranks::{on_patient_ranks, on_ranks},
};
use dfdx::{optim::SgdConfig, prelude::*};
use std::time::Duration;
use tlr::{
    optim::{Accumulate, Clip, Sgd, WeighBatches},
    parallel::{Alone, Ranks, Threads},
    DataParallel, Error, Newton, ParallelError, Step,
};

type Weight = Tensor<Rank1<1>, f64, Cpu>;
type Together<C> = DataParallel<Sgd<Weight, f64, Cpu>, C>;

fn weight() -> Weight {
    Cpu::default().tensor([0.0])
}

/// SGD with a rate of 1, so that a step from 0 leads to minus the mean gradient.
fn together(w: &Weight, ranks: Ranks<Threads>) -> Together<Threads> {
    let sgd = Sgd::new(w, SgdConfig { lr: 1.0, ..Default::default() });
    DataParallel::new(sgd, ranks)
}

fn slope(w: &Weight, slope: f64) -> Gradients<f64, Cpu> {
    (w.leaky_trace() * slope).sum::<Rank0, _>().backward()
}

/// Two batches of a step. The second rank has no example of the first one, and NaN in its place.
/// Fails if it may not say so, or if it is counted.
#[test]
fn a_rank_may_have_no_example_of_a_gathered_batch() {
    let found = on_ranks(2, |ranks| {
        let own = [[(3.0, 2.0), (1.0, 6.0)], [(0.0, f64::NAN), (5.0, 8.0)]][ranks.rank()];
        let mut w = weight();
        let optimizer = Accumulate::new(together(&w, ranks), 2).unwrap();
        let mut opt = Newton::new(&w, optimizer, config().ramp(false)).unwrap();
        for (examples, steep) in own {
            opt.weigh_next(examples).unwrap();
            let own = slope(&w, steep);
            opt.step(&mut w, &own, 1.0).unwrap();
        }
        w.array()[0]
    });
    let mean = (3.0 * 2.0 + 1.0 * 6.0 + 5.0 * 8.0) / 9.0;
    assert!(found.iter().all(|w| (w + mean).abs() < 1e-12), "{found:?} and {mean}");
}

/// A batch that no rank has an example of is an error on all, and drops nothing that was gathered.
/// With one rank no batch may weigh 0: no other one could have an example.
#[test]
fn somebody_has_to_have_an_example_of_a_gathered_batch() {
    let found = on_ranks(2, |ranks| {
        let mut w = weight();
        let optimizer = Accumulate::new(together(&w, ranks), 2).unwrap();
        let mut opt = Newton::new(&w, optimizer, config().ramp(false)).unwrap();
        let own = slope(&w, 3.0);
        assert_eq!(opt.step(&mut w, &own, 1.0).unwrap(), Step::Gathered);
        opt.weigh_next(0.0).unwrap();
        let error = opt.step(&mut w, &own, 1.0).unwrap_err();
        let problem = ParallelError::NoExamples;
        assert_eq!(error, Error::Parallel { rank: 0, step: 1, problem });
        opt.weigh_next(1.0).unwrap();
        let own = slope(&w, 5.0);
        assert_eq!(opt.step(&mut w, &own, 1.0).unwrap(), Step::Made);
        w.array()
    });
    assert_eq!(found, [[-4.0]; 2]);
    let sgd = Sgd::new(&weight(), SgdConfig::default());
    let alone: Together<Alone> = DataParallel::new(sgd, Ranks::new(Alone));
    let mut alone = Accumulate::new(alone, 2).unwrap();
    for bad in [0.0, -1.0, f64::NAN] {
        assert!(matches!(alone.weigh_next(bad), Err(Error::OutOfRange { .. })), "{bad}");
    }
}

/// By hand, without a trainer: (3·2 + 1·6)/4 for a batch, and the mean of (2 + 6)/2 and (4 + 8)/2
/// for two that weigh the same. Fails if each rank's batches are gathered or clipped before they
/// are averaged, or if a batch is averaged only where the step is made.
#[test]
fn an_update_without_a_trainer_averages_first() {
    let found = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let mut w = weight();
        let mut opt = Accumulate::new(together(&w, ranks.clone()), 1).unwrap();
        opt.weigh_next([3.0, 1.0][rank]).unwrap();
        let own = slope(&w, [2.0, 6.0][rank]);
        opt.update(&mut w, &own).unwrap();
        let weighed = w.array()[0];

        let mut w = weight();
        let mut opt = Accumulate::new(together(&w, ranks.clone()), 2).unwrap();
        let before = ranks.traffic().messages;
        let own = slope(&w, [2.0, 6.0][rank]);
        opt.update(&mut w, &own).unwrap();
        assert!(ranks.traffic().messages > before, "the batch is averaged as it comes");
        let own = slope(&w, [4.0, 8.0][rank]);
        opt.update(&mut w, &own).unwrap();
        let gathered = w.array()[0];

        // 2 and 10 have the mean 6, which is clipped to 5. Of 2 and 5 the mean were 3.5.
        let mut w = weight();
        let mut opt = Clip::by_norm(together(&w, ranks), 5.0).unwrap();
        let own = slope(&w, [2.0, 10.0][rank]);
        opt.update(&mut w, &own).unwrap();
        [weighed, gathered, w.array()[0]]
    });
    assert_eq!(found, [[-3.0, -5.0, -5.0]; 2]);
}

/// One rank lacks a gradient. Fails if the other one waits for it in vain.
#[test]
fn an_update_without_a_trainer_fails_on_all_ranks() {
    let patience = Duration::from_secs(60);
    let found = on_patient_ranks(2, patience, |ranks| {
        let first = ranks.is_first();
        let mut w = weight();
        let mut opt = Clip::by_norm(together(&w, ranks), 5.0).unwrap();
        let good = slope(&w, 3.0);
        let begun = std::time::Instant::now();
        let own = if first { Gradients::leaky() } else { good.clone() };
        assert!(opt.update(&mut w, &own).is_err());
        assert!(begun.elapsed() < patience / 2);
        assert_eq!(w.array(), [0.0]);
        opt.update(&mut w, &good).unwrap();
        w.array()
    });
    assert_eq!(found, [[-3.0]; 2]);
}

/// Through `Clip`, through `Accumulate` and through both. Fails if a weight, the flag or the
/// buffers stop at one of them.
#[test]
fn what_a_program_says_reaches_the_ranks() {
    let found = on_ranks(2, |ranks| {
        let (rank, config) = (ranks.rank(), config().ramp(false));
        let mut found = Vec::new();
        macro_rules! check {
            ($w:ident, $optimizer:expr) => {
                let mut $w = weight();
                let mut opt = Newton::new(&$w, $optimizer, config.clone()).unwrap();
                opt.weigh_next([3.0, 1.0][rank]).unwrap();
                opt.set_flag(rank == 1);
                assert!(!opt.flag_was_set());
                let own = slope(&$w, [2.0, 6.0][rank]);
                opt.step(&mut $w, &own, 1.0).unwrap();
                assert!(opt.flag_was_set());
                found.push($w.array()[0]);
            };
        }
        check!(w, Clip::by_norm(together(&w, ranks.clone()), 100.0).unwrap());
        check!(w, Accumulate::new(together(&w, ranks.clone()), 1).unwrap());
        let around = |w: &Weight| Accumulate::new(together(w, ranks.clone()), 1).unwrap();
        check!(w, Clip::by_norm(around(&w), 100.0).unwrap());

        let mut norm = Cpu::default().build_module::<BatchNorm1D<1>, f64>();
        norm.running_mean.copy_from(&[[1.0, 3.0][rank]]);
        let sgd = Sgd::new(&norm, SgdConfig::default());
        let optimizer = Accumulate::new(DataParallel::new(sgd, ranks), 1).unwrap();
        let optimizer = Clip::by_norm(optimizer, 1.0).unwrap();
        let opt = Newton::new(&norm, optimizer, config).unwrap();
        opt.average_buffers(&mut norm).unwrap();
        found.push(norm.running_mean.array()[0]);
        found
    });
    assert_eq!(found, [[-3.0, -3.0, -3.0, 2.0]; 2]);
}

/// The same without a trainer, where `Clip` has no other way to be told.
#[test]
fn a_clip_can_be_weighed() {
    let found = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let mut w = weight();
        let mut opt = Clip::by_norm(together(&w, ranks), 100.0).unwrap();
        opt.weigh_next([3.0, 1.0][rank]).unwrap();
        let own = slope(&w, [2.0, 6.0][rank]);
        opt.update(&mut w, &own).unwrap();
        w.array()
    });
    assert_eq!(found, [[-3.0]; 2]);
}
