//! Ranks whose batches have other sizes, or none at all.

use crate::{
    problem::{config, sgd, Data, Real},
    ranks::on_ranks,
};
use dfdx::{optim::SgdConfig, prelude::*};
use std::ops::Range;
use support::values::{self, largest_error, values, weights};
use tlr::{
    optim::{Accumulate, Sgd},
    parallel::{Alone, Communicator, Ranks},
    Cause, DataParallel, Error, Newton, ParallelError, Step,
};

/// Rows of an epoch: two batches of 12, and a last one of 2.
const ROWS: usize = 26;

/// What a rank has of each batch, where there are three: the last of them has nothing of the last
/// batch.
fn parts(rank: usize, size: usize) -> [Range<usize>; 3] {
    match (rank, size) {
        (0, 1) => [0..12, 12..24, 24..26],
        (0, _) => [0..5, 12..13, 24..25],
        (1, _) => [5..9, 13..20, 25..26],
        _ => [9..12, 20..24, 26..26],
    }
}

fn train<C: Communicator>(ranks: Ranks<C>) -> Result<Vec<f64>, Error> {
    let data = Data::new(ROWS);
    let mut net = f64::new_net(0);
    let (rank, size) = (ranks.rank(), ranks.size());
    let mut opt = Newton::new(&net, DataParallel::new(sgd::<f64, _>(&net), ranks), config())?;
    for rows in (0..30).flat_map(|_| parts(rank, size)) {
        opt.weigh_next(rows.len() as f64)?;
        let (loss, gradients) = f64::loss(&net, &data, rows);
        opt.step(&mut net, &gradients, loss)?;
    }
    Ok(values(&net))
}

/// Fails if all ranks count alike, or if a rank without examples counts.
#[test]
fn each_example_counts_once() {
    let alone = train(Ranks::new(Alone)).unwrap();
    let together = on_ranks(3, |ranks| train(ranks).unwrap());
    for rank in together {
        let off = largest_error(&alone, &rank);
        assert!(off < 1e-12, "{off:e}");
    }
}

/// What a rank without examples says of its loss and gradients does not matter, NaN included.
#[test]
fn who_has_no_example_has_no_say() {
    let together = on_ranks(2, |ranks| {
        let data = Data::new(ROWS);
        let mut net = f64::new_net(0);
        let rank = ranks.rank();
        let optimizer = DataParallel::new(sgd::<f64, _>(&net), ranks);
        let mut opt = Newton::new(&net, optimizer, config()).unwrap();
        let (mut loss, mut gradients) = f64::loss(&net, &data, 0..12);
        if rank == 1 {
            opt.weigh_next(0.0).unwrap();
            loss = f64::NAN;
            let count = weights(&net).len();
            gradients = values::gradients(&net, &vec![f64::NAN; count]);
        }
        opt.step(&mut net, &gradients, loss).unwrap();
        let (mean, weight) = opt.optimizer().last_batch().unwrap();
        assert!(mean.is_finite() && weight == 1.0);
        values(&net)
    });
    assert_eq!(together[0], together[1]);
    assert!(together[0].iter().all(|w| w.is_finite()));
    assert_ne!(together[0], values(&f64::new_net(0)));
}

#[test]
fn somebody_has_to_have_an_example() {
    let errors = on_ranks(2, |ranks| {
        let mut net = f64::new_net(0);
        let optimizer = DataParallel::new(sgd::<f64, _>(&net), ranks);
        let mut opt = Newton::new(&net, optimizer, config()).unwrap();
        opt.weigh_next(0.0).unwrap();
        let (loss, gradients) = f64::loss(&net, &Data::new(ROWS), 0..0);
        let error = opt.step(&mut net, &gradients, loss).unwrap_err();
        assert_eq!(values(&net), values(&f64::new_net(0)));
        // The next step is made.
        let (loss, gradients) = f64::loss(&net, &Data::new(ROWS), 0..3);
        opt.step(&mut net, &gradients, loss).unwrap();
        error
    });
    for error in errors {
        let problem = ParallelError::NoExamples;
        assert_eq!(error, Error::Parallel { rank: 0, step: 1, problem });
    }
}

#[test]
fn a_weight_is_a_number_from_0_on() {
    let net = f64::new_net(0);
    let mut optimizer = DataParallel::new(sgd::<f64, _>(&net), Ranks::new(Alone));
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(optimizer.weigh_next(weight), Err(Error::OutOfRange { .. })));
    }
    let optimizer = DataParallel::new(sgd::<f64, _>(&net), Ranks::new(Alone));
    assert!(matches!(optimizer.bucket(0), Err(Error::OutOfRange { .. })));
}

/// By hand: a step of two batches, each of them shared out unevenly. Fails if a batch weighs the
/// same in the step whatever the ranks have of it, or if one that was skipped changes the weight of
/// the batch in its place.
#[test]
fn gathered_batches_weigh_what_all_ranks_have() {
    let together = on_ranks(2, |ranks| {
        // Of each batch: examples, and the slope of their mean loss.
        let own = [[(3.0, 2.0), (1.0, 6.0)], [(1.0, 4.0), (5.0, 8.0)]][ranks.rank()];
        let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([0.0]);
        let sgd = Sgd::new(&w, SgdConfig { lr: 1.0, ..Default::default() });
        let optimizer = Accumulate::new(DataParallel::new(sgd, ranks), 2).unwrap();
        let mut opt = Newton::new(&w, optimizer, config().ramp(false)).unwrap();
        for (index, (examples, slope)) in own.into_iter().enumerate() {
            opt.weigh_next(examples).unwrap();
            let loss = (w.leaky_trace() * slope).sum::<Rank0, _>();
            let (value, gradients) = (loss.array(), loss.backward());
            if index == 1 {
                let skipped = opt.step(&mut w, &gradients, f64::NAN).unwrap();
                assert_eq!(skipped, Step::Skipped(Cause::NonFiniteLoss));
            }
            opt.step(&mut w, &gradients, value).unwrap();
        }
        w.array()[0]
    });
    let mean = (3.0 * 2.0 + 1.0 * 4.0 + 1.0 * 6.0 + 5.0 * 8.0) / 10.0;
    assert!(together.iter().all(|w| (w + mean).abs() < 1e-12), "{together:?} and {mean}");
}
