//! Exact steps on several ranks, whose second gradients and losses are averaged as well.

use crate::{
    problem::{config, part, sgd, Data, Real, BATCH},
    ranks::on_ranks,
};
use support::values::{bits, largest_error, values};
use tlr::{
    optim::Accumulate,
    parallel::{Alone, Communicator, Ranks},
    DataParallel, Error, LineSearch, Newton, ParallelError,
};

#[derive(Clone, Copy)]
enum Exact {
    Lookahead,
    LineSearch,
}

type Trained = (Vec<f64>, Vec<u64>, Vec<f64>);

/// Around ranks, and around batches that are gathered of ranks: the same training.
macro_rules! trains {
    ($name:ident, $around:expr) => {
        fn $name<C: Communicator>(ranks: Ranks<C>, exact: Exact) -> Trained {
            let data = Data::new(BATCH);
            let rows = part(0..BATCH, ranks.rank(), ranks.size());
            let mut net = f64::new_net(0);
            let optimizer = $around(DataParallel::new(sgd::<f64, _>(&net), ranks));
            let mut opt = Newton::new(&net, optimizer, config()).unwrap();
            for _ in 0..20 {
                // Also what the weight of a batch is in the second gradient: the same.
                opt.weigh_next(rows.len() as f64).unwrap();
                let (loss, own) = f64::loss(&net, &data, rows.clone());
                let again = |there: &mut _| f64::loss(there, &data, rows.clone());
                match exact {
                    Exact::Lookahead => {
                        opt.step_lookahead(&mut net, &own, |there| again(there).1).unwrap()
                    }
                    Exact::LineSearch => {
                        let search = LineSearch::default();
                        opt.step_line_search(&mut net, &own, loss, search, again).unwrap()
                    }
                };
            }
            let rates = opt.rates().iter().map(|(_, rate)| *rate).collect();
            (values(&net), bits(&net), rates)
        }
    };
}
trains!(train, |ranks| ranks);
trains!(train_gathered, |ranks| Accumulate::new(ranks, 1).unwrap());

/// Fails if a rank takes its own second gradient, or its own loss in a line search.
#[test]
fn exact_steps_are_those_of_one_process() {
    for exact in [Exact::Lookahead, Exact::LineSearch] {
        let (alone, _, alone_rates) = train(Ranks::new(Alone), exact);
        let [two, five] = [2, 5].map(|size| on_ranks(size, |ranks| train(ranks, exact)));
        for together in [two, five, on_ranks(5, |ranks| train_gathered(ranks, exact))] {
            for (net, bits, rates) in &together {
                assert_eq!(*bits, together[0].1);
                let off = largest_error(&alone, net);
                assert!(off < 1e-9, "{off:e}");
                assert!((rates[0] / alone_rates[0] - 1.0).abs() < 1e-6);
            }
        }
    }
}

/// A loss that is NaN on one rank: no rank waits for another.
#[test]
fn a_bad_loss_stops_the_search_of_all() {
    let errors = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let data = Data::new(BATCH);
        let mut net = f64::new_net(0);
        let optimizer = DataParallel::new(sgd::<f64, _>(&net), ranks);
        let mut opt = Newton::new(&net, optimizer, config()).unwrap();
        let (loss, own) = f64::loss(&net, &data, part(0..BATCH, rank, 2));
        let loss = if rank == 1 { f64::NAN } else { loss };
        opt.step_line_search(&mut net, &own, loss, LineSearch::default(), |_| unreachable!())
            .unwrap_err()
    });
    assert!(errors.iter().all(|error| matches!(error, Error::NonFiniteLoss { step: 1, .. })));
}

/// A second gradient that one rank lacks.
#[test]
fn a_second_gradient_that_is_missing_is_told_to_all() {
    let errors = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let data = Data::new(BATCH);
        let mut net = f64::new_net(0);
        let before = bits(&net);
        let optimizer = DataParallel::new(sgd::<f64, _>(&net), ranks);
        let mut opt = Newton::new(&net, optimizer, config()).unwrap();
        let (_, own) = f64::loss(&net, &data, part(0..BATCH, rank, 2));
        let error = opt
            .step_lookahead(&mut net, &own, |ahead| match rank {
                0 => f64::loss(ahead, &data, part(0..BATCH, rank, 2)).1,
                _ => dfdx::prelude::Gradients::leaky(),
            })
            .unwrap_err();
        assert_eq!(bits(&net), before);
        error
    });
    assert!(matches!(
        &errors[0],
        Error::Parallel { rank: 1, step: 1, problem: ParallelError::Failed { .. } }
    ));
    assert!(matches!(&errors[1], Error::UnusedParameters { .. }));
}
