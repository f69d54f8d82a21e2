//! Ranks that make a failed step again, or go on with another trainer.

use crate::{
    problem::{config, part, sgd, Data, Real, BATCH},
    ranks::on_ranks,
};
use dfdx::prelude::*;
use tlr::{DataParallel, Error, Newton, ParallelError, Window};

/// By hand: losses of 1 and 5 that weigh 3 and 1 have the mean 2, and alike the mean 3. Fails if a
/// weight is used up by a step that is not made, or if it is not used up by one that is.
#[test]
fn a_batch_that_is_made_again_weighs_the_same() {
    let all = on_ranks(2, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let optimizer = DataParallel::new(sgd::<f64, _>(&net), ranks);
        let mut opt = Newton::new(&net, optimizer, config()).unwrap();
        let (_, own) = f64::loss(&net, &Data::new(BATCH), part(0..BATCH, rank, size));
        let bad = if rank == 1 { Gradients::leaky() } else { own.clone() };
        let (loss, weight) = ([1.0, 5.0][rank], [3.0, 1.0][rank]);
        let mut means = Vec::new();
        opt.weigh_next(weight).unwrap();
        opt.step(&mut net, &bad, loss).unwrap_err();
        opt.step(&mut net, &own, loss).unwrap();
        means.push(opt.optimizer().last_batch());
        opt.step(&mut net, &own, loss).unwrap();
        means.push(opt.optimizer().last_batch());
        // Only the second gradients of this step fail.
        opt.weigh_next(weight).unwrap();
        opt.step_lookahead(&mut net, &own, |_| bad.clone()).unwrap_err();
        opt.step(&mut net, &own, loss).unwrap();
        means.push(opt.optimizer().last_batch());
        means
    });
    for means in all {
        assert_eq!(means, [Some((2.0, 4.0)), Some((3.0, 2.0)), Some((2.0, 4.0))]);
    }
}

/// Fails if ranks compare their settings in the optimizer's first step alone.
#[test]
fn the_settings_of_a_second_trainer_are_compared_too() {
    let all = on_ranks(2, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let with = |steps| config().window(Window::steps(steps).unwrap());
        let optimizer = DataParallel::new(sgd::<f64, _>(&net), ranks);
        let mut first = Newton::new(&net, optimizer, with(7)).unwrap();
        let (loss, own) = f64::loss(&net, &Data::new(BATCH), part(0..BATCH, rank, size));
        first.step(&mut net, &own, loss).unwrap();
        let mut second = Newton::new(&net, first.into_inner(), with(5 + rank)).unwrap();
        second.step(&mut net, &own, loss).unwrap_err()
    });
    let problem = ParallelError::Differs {
        what: "window".to_owned(),
        here: "6".to_owned(),
        other: 0,
        there: "5".to_owned(),
    };
    assert_eq!(all, vec![Error::Parallel { rank: 1, step: 1, problem }; 2]);
}
