//! Ranks that fail, differ, end or stop: what the others are told.

use crate::{
    problem::{config, part, sgd, Data, Net, Real, BATCH},
    ranks::{on_patient_ranks, on_ranks},
};
use dfdx::{optim::SgdConfig, prelude::*};
use std::{
    sync::Barrier,
    time::{Duration, Instant},
};
use support::values::{bits, gradients, weights};
use tlr::{
    optim::{Clip, Sgd},
    parallel::{Compression, LinkError, Ranks, Threads},
    Cause, DataParallel, Error, Newton, ParallelError, PerLayer, Step, TunableOptimizer, Window,
};

type Together<Opt> = Newton<DataParallel<Opt, Threads>>;

fn newton<Opt>(net: &Net<f64>, inner: Opt, ranks: Ranks<Threads>) -> Together<Opt>
where
    Opt: TunableOptimizer<Model = Net<f64>, Dtype = f64, Device = Cpu>,
{
    Newton::new(net, DataParallel::new(inner, ranks), config()).unwrap()
}

fn own_batch(net: &Net<f64>, rank: usize, size: usize) -> (f64, Gradients<f64, Cpu>) {
    f64::loss(net, &Data::new(BATCH), part(0..BATCH, rank, size))
}

/// NaN in the loss, or in the gradients, of one rank alone. Fails if only that rank skips.
#[test]
fn what_is_not_finite_on_one_rank_is_skipped_by_all() {
    let all = on_ranks(3, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let mut opt = newton(&net, sgd::<f64, _>(&net), ranks);
        let mut steps = Vec::new();
        for step in 0..30 {
            let (mut loss, mut own) = own_batch(&net, rank, size);
            if rank == 1 && step == 9 {
                loss = f64::NAN;
            }
            if rank == 2 && step == 15 {
                own = gradients(&net, &vec![f64::NAN; weights(&net).len()]);
            }
            steps.push(opt.step(&mut net, &own, loss).unwrap());
        }
        (bits(&net), steps)
    });
    let (net, steps) = &all[0];
    assert_eq!(steps[9], Step::Skipped(Cause::NonFiniteLoss));
    assert!(!matches!(steps[15], Step::Made), "{:?}", steps[15]);
    assert!(net.iter().all(|bits| f64::from_bits(*bits).is_finite()));
    for (other, others) in &all[1..] {
        assert_eq!(net, other);
        assert_eq!(format!("{steps:?}"), format!("{others:?}"));
    }
}

/// One rank lacks a gradient: it has its own error, the others are told of it, nobody has moved,
/// and the next step is made by all.
#[test]
fn a_rank_without_gradients_is_named() {
    let all = on_ranks(3, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let mut opt = newton(&net, sgd::<f64, _>(&net), ranks);
        let (loss, good) = own_batch(&net, rank, size);
        let bad = if rank == 1 { Gradients::leaky() } else { good.clone() };
        let error = opt.step(&mut net, &bad, loss).unwrap_err();
        assert_eq!(bits(&net), bits(&f64::new_net(0)));
        opt.step(&mut net, &good, loss).unwrap();
        (error, bits(&net))
    });
    assert!(matches!(&all[1].0, Error::UnusedParameters { tensors } if tensors.len() == 4));
    for rank in [0, 2] {
        let Error::Parallel { rank: 1, step: 1, problem } = &all[rank].0 else {
            panic!("{:?}", all[rank].0)
        };
        assert!(
            matches!(problem, ParallelError::Failed { message } if message.contains("0.weight"))
        );
        assert_eq!(all[rank].1, all[1].1);
    }
}

/// What all of them say, which has to be the same.
fn same<T: PartialEq + std::fmt::Debug + Clone>(all: &[T]) -> T {
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0].clone()
}

/// The step with which rank 2 of 4 is at odds, when it was made by `odd` and the others by `make`.
fn first_error<Opt>(
    make: impl Fn(&Net<f64>, Ranks<Threads>) -> Newton<Opt> + Sync,
    odd: impl Fn(&Net<f64>, Ranks<Threads>) -> Newton<Opt> + Sync,
) -> Error
where
    Opt: TunableOptimizer<Model = Net<f64>, Dtype = f64, Device = Cpu>,
{
    let errors = on_ranks(4, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let mut opt = if rank == 2 { odd(&net, ranks) } else { make(&net, ranks) };
        (0..40)
            .find_map(|_| {
                let (loss, own) = own_batch(&net, rank, size);
                opt.step(&mut net, &own, loss).err()
            })
            .unwrap()
    });
    same(&errors)
}

#[test]
fn other_settings_are_refused_by_name() {
    let plain = |net: &Net<f64>, ranks| newton(net, sgd::<f64, _>(net), ranks);
    let differs = |error: Error, what: &str, here: &str, there: &str| {
        let Error::Parallel { rank: 2, step: 1, problem } = &error else { panic!("{error:?}") };
        let expected = ParallelError::Differs {
            what: what.to_owned(),
            here: here.to_owned(),
            other: 0,
            there: there.to_owned(),
        };
        assert_eq!(*problem, expected);
    };
    let other = |net: &Net<f64>, ranks| {
        let optimizer = DataParallel::new(sgd::<f64, _>(net), ranks);
        Newton::new(net, optimizer.compression(Compression::Bf16), config()).unwrap()
    };
    differs(first_error(plain, other), "compression", "Bf16", "None");
    let other = |net: &Net<f64>, ranks| {
        let optimizer = DataParallel::new(sgd::<f64, _>(net), ranks);
        Newton::new(net, optimizer.bucket(10).unwrap(), config()).unwrap()
    };
    differs(first_error(plain, other), "bucket", "10", "262144");
    let other = |net: &Net<f64>, ranks| {
        let optimizer = DataParallel::new(sgd::<f64, _>(net), ranks);
        let config = config().window(Window::steps(8).unwrap());
        Newton::new(net, optimizer, config).unwrap()
    };
    differs(first_error(plain, other), "window", "8", "7");
}

/// The rate of one layer alone, on one rank alone. Fails if rates are not compared, or if another
/// layer is named.
#[test]
fn another_rate_is_named_with_its_layer() {
    let make = |net: &Net<f64>, ranks| {
        let mut inner = PerLayer::new(net, sgd::<f64, _>(net));
        inner.set_rate(1, 2e-2);
        Newton::new(net, DataParallel::new(inner, ranks), config().ramp(false)).unwrap()
    };
    let odd = |net: &Net<f64>, ranks| {
        let mut inner = PerLayer::new(net, sgd::<f64, _>(net));
        inner.set_rate(1, 3e-2);
        Newton::new(net, DataParallel::new(inner, ranks), config().ramp(false)).unwrap()
    };
    let problem = ParallelError::Rate { layer: "2".to_owned(), here: 3e-2, other: 0, there: 2e-2 };
    assert_eq!(first_error(make, odd), Error::Parallel { rank: 2, step: 1, problem });
}

/// A weight that one rank alone has changed is found at the beginning of the next window. Fails if
/// weights are not compared there, or if another tensor is named.
#[test]
fn other_weights_are_named_at_the_end_of_their_window() {
    let errors = on_ranks(3, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let optimizer = DataParallel::new(sgd::<f64, _>(&net), ranks);
        let mut opt = Newton::new(&net, optimizer, config().ramp(false)).unwrap();
        for step in 1.. {
            if rank == 1 && step == 5 {
                let mut bias = net.2.bias.array();
                bias[0] += 1e-9;
                net.2.bias.copy_from(&bias);
            }
            let (loss, own) = own_batch(&net, rank, size);
            if let Err(error) = opt.step(&mut net, &own, loss) {
                return error;
            }
        }
        unreachable!()
    });
    let problem = ParallelError::Weights { tensor: "2.bias".to_owned(), other: 0 };
    // The window has 7 steps.
    assert_eq!(same(&errors), Error::Parallel { rank: 1, step: 8, problem });
}

/// A weight that one rank has changed in the middle of a ramp is found when the ramp has ended, and
/// not before: a ramp has many steps, and all weights would be copied at each. Fails if they are
/// compared at each step, or not at the end.
#[test]
fn other_weights_are_named_at_the_end_of_their_ramp() {
    let found = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let mut net = f64::new_net(0);
        let mut opt = newton(&net, sgd::<f64, _>(&net), ranks);
        let mut ramped = 0;
        loop {
            if rank == 1 && ramped == 3 {
                let mut bias = net.2.bias.array();
                bias[0] += 1e-9;
                net.2.bias.copy_from(&bias);
            }
            let (loss, own) = own_batch(&net, rank, 2);
            match opt.step(&mut net, &own, loss) {
                Ok(Step::Ramped { .. }) => ramped += 1,
                Ok(step) => panic!("{step:?} after {ramped} steps of the ramp"),
                Err(error) => return (ramped, error),
            }
        }
    });
    let (ramped, error) = same(&found);
    assert!(ramped > 6, "{ramped}");
    // By then the slopes along other ways have moved other weights as well.
    let Error::Parallel { rank: 1, step, problem: ParallelError::Weights { .. } } = error else {
        panic!("{error:?}")
    };
    assert_eq!(step, ramped + 1);
}

#[test]
fn models_that_were_not_broadcast_are_refused() {
    let errors = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let mut net = f64::new_net(rank as u64);
        let mut opt = newton(&net, sgd::<f64, _>(&net), ranks);
        let (loss, own) = own_batch(&net, rank, 2);
        opt.step(&mut net, &own, loss).unwrap_err()
    });
    let problem = ParallelError::Weights { tensor: "0.weight".to_owned(), other: 0 };
    assert_eq!(same(&errors), Error::Parallel { rank: 1, step: 1, problem });
}

/// One rank calls `update` once, without a loss.
#[test]
fn a_loss_that_one_rank_leaves_out_is_refused() {
    let errors = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let mut net = f64::new_net(0);
        let mut opt = newton(&net, sgd::<f64, _>(&net), ranks);
        let (loss, own) = own_batch(&net, rank, 2);
        let stepped = match rank {
            0 => opt.step(&mut net, &own, loss),
            _ => opt.update(&mut net, &own),
        };
        stepped.unwrap_err()
    });
    let told = same(&errors).to_string();
    assert!(told.starts_with("rank 1, step 1: its loss is not given"), "{told}");
}

/// One rank ends in the middle. The others are told so at once, and not after the time-out.
#[test]
fn a_rank_that_ends_is_named_by_all_others() {
    let all = on_ranks(4, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let mut opt = newton(&net, sgd::<f64, _>(&net), ranks);
        for step in 0.. {
            if rank == 3 && step == 4 {
                return None;
            }
            let (loss, own) = own_batch(&net, rank, size);
            if let Err(error) = opt.step(&mut net, &own, loss) {
                // And nothing comes after it.
                let again = opt.step(&mut net, &own, loss).unwrap_err();
                assert_eq!(again, error);
                return Some(error);
            }
        }
        unreachable!()
    });
    let problem = ParallelError::Ended;
    assert_eq!(same(&all[..3]), Some(Error::Parallel { rank: 3, step: 5, problem }));
    assert_eq!(all[3], None);
}

/// One rank stops and does not end. Fails if a rank waits for ever, or if one is blamed that waits
/// itself.
#[test]
fn a_rank_that_stops_is_named_after_the_time_out() {
    let over = Barrier::new(3);
    let all = on_patient_ranks(3, Duration::from_millis(300), |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let mut opt = newton(&net, sgd::<f64, _>(&net), ranks);
        for step in 0.. {
            if rank == 1 && step == 3 {
                over.wait();
            }
            let (loss, own) = own_batch(&net, rank, size);
            let begun = Instant::now();
            if let Err(error) = opt.step(&mut net, &own, loss) {
                if rank != 1 {
                    let waited = begun.elapsed();
                    assert!(waited >= Duration::from_millis(250), "{waited:?}");
                    over.wait();
                }
                return error;
            }
        }
        unreachable!()
    });
    let problem = ParallelError::TimeOut { seconds: 0.3 };
    // The one that had stopped is told the same when it goes on.
    assert_eq!(same(&all), Error::Parallel { rank: 1, step: 4, problem });
}

#[test]
fn who_leaves_says_why() {
    let all = on_ranks(3, |ranks| {
        if ranks.rank() == 0 {
            ranks.leave("the disk is full");
        }
        ranks.wait_for_all().unwrap_err()
    });
    let problem = ParallelError::Failed { message: "the disk is full".to_owned() };
    assert_eq!(same(&all), Error::Parallel { rank: 0, step: 1, problem });
}

#[test]
fn a_failure_can_be_told_without_an_end() {
    let all = on_ranks(3, |ranks| {
        let full = (ranks.rank() == 2).then_some("the disk is full");
        let error = ranks.confirm(full).unwrap_err();
        ranks.confirm(None).unwrap();
        assert!(ranks.any(ranks.rank() == 1).unwrap());
        assert!(!ranks.any(false).unwrap());
        error
    });
    let problem = ParallelError::Failed { message: "the disk is full".to_owned() };
    assert_eq!(same(&all), Error::Parallel { rank: 2, step: 1, problem });
}

/// One rank makes a call that the others do not make.
#[test]
fn other_calls_are_told_apart() {
    let all = on_ranks(2, |ranks| match ranks.rank() {
        0 => ranks.broadcast(&mut vec![1, 2, 3]).unwrap_err(),
        _ => ranks.wait_for_all().unwrap_err(),
    });
    // Both find it: each names the other, or what the other has told it.
    for error in all {
        assert!(matches!(error, Error::Parallel { problem: ParallelError::Order { .. }, .. }));
    }
}

#[test]
fn facts_that_differ_are_named() {
    let all = on_ranks(3, |ranks| {
        let batch = if ranks.rank() == 0 { "64" } else { "128" };
        ranks.agree(&[("--seed", "1"), ("--batch-size", "128")]).unwrap();
        ranks.agree(&[("--seed", "1"), ("--batch-size", batch)]).unwrap_err()
    });
    let problem = ParallelError::Differs {
        what: "--batch-size".to_owned(),
        here: "64".to_owned(),
        other: 1,
        there: "128".to_owned(),
    };
    assert_eq!(same(&all), Error::Parallel { rank: 0, step: 1, problem });
}

/// The bytes of the first rank reach all, whatever the number of ranks: fails if a branch of the
/// tree is cut off, or if a long message loses a piece.
#[test]
fn a_copy_reaches_every_rank() {
    for size in 1..=9 {
        for len in [0, 1, 100, (4 << 20) + 7] {
            if len > 100 && size != 5 {
                continue;
            }
            let first: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
            let all = on_ranks(size, |ranks| {
                let mut own = if ranks.is_first() { first.clone() } else { vec![9; 3] };
                ranks.broadcast(&mut own).unwrap();
                own
            });
            assert!(all.iter().all(|own| *own == first), "{size} ranks, {len} bytes");
        }
    }
}

#[test]
fn models_of_other_shapes_are_not_broadcast() {
    let all = on_ranks(2, |ranks| {
        let dev = Cpu::default();
        if ranks.is_first() {
            let mut model = dev.build_module::<Linear<4, 2>, f32>();
            let sgd = Sgd::new(&model, SgdConfig::default());
            DataParallel::new(sgd, ranks).broadcast(&mut model).unwrap_err()
        } else {
            let mut model = dev.build_module::<Linear<4, 3>, f32>();
            let sgd = Sgd::new(&model, SgdConfig::default());
            DataParallel::new(sgd, ranks).broadcast(&mut model).unwrap_err()
        }
    });
    let told = same(&all).to_string();
    assert!(told.contains("its `weight` is [3, 4] of f32, trained"), "{told}");
}

/// Outside of a trainer the optimizer averages by itself.
#[test]
fn a_plain_update_is_averaged_too() {
    let all = on_ranks(2, |ranks| {
        let slope = [2.0, 4.0][ranks.rank()];
        let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([0.0]);
        let sgd = Sgd::new(&w, SgdConfig { lr: 1.0, ..Default::default() });
        let mut optimizer = DataParallel::new(Clip::by_norm(sgd, 100.0).unwrap(), ranks);
        for _ in 0..2 {
            let own = (w.leaky_trace() * slope).sum::<Rank0, _>().backward();
            optimizer.update(&mut w, &own).unwrap();
        }
        w.array()
    });
    assert_eq!(all, [[-6.0], [-6.0]]);
}

#[test]
fn a_link_knows_what_it_is() {
    use tlr::parallel::Communicator;
    let mut two = Threads::new(2);
    let (mut second, mut first) = (two.pop().unwrap(), two.pop().unwrap());
    assert_eq!((first.rank(), second.rank(), first.size()), (0, 1, 2));
    let soon = || Instant::now() + Duration::from_millis(20);
    assert_eq!(second.receive(0, soon()), Err(LinkError::TimeOut));
    first.send(1, vec![1]).unwrap();
    first.send(1, vec![2]).unwrap();
    drop(first);
    assert_eq!(second.receive(0, soon()), Ok(vec![1]));
    assert_eq!(second.receive(0, soon()), Ok(vec![2]));
    assert_eq!(second.receive(0, soon()), Err(LinkError::Ended));
    assert_eq!(second.send(0, vec![3]), Err(LinkError::Ended));
}

/// A step that was skipped has used no means. Fails if the next update, outside of a trainer, takes
/// a rank's own gradients for means.
#[test]
fn an_optimizer_that_leaves_its_trainer_averages_again() {
    let all = on_ranks(2, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let clipped = Clip::by_norm(DataParallel::new(sgd::<f64, _>(&net), ranks), 1.0).unwrap();
        let mut opt = Newton::new(&net, clipped, config()).unwrap();
        let (loss, own) = own_batch(&net, rank, size);
        opt.step(&mut net, &own, loss).unwrap();
        let skipped = opt.step(&mut net, &own, f64::NAN).unwrap();
        assert_eq!(skipped, Step::Skipped(Cause::NonFiniteLoss));
        let mut inner = opt.into_inner();
        let (_, own) = own_batch(&net, rank, size);
        inner.update(&mut net, &own).unwrap();
        bits(&net)
    });
    assert_eq!(all[0], all[1]);
}

/// One rank makes a plain step where the other makes an exact one, of two sets of gradients. Fails
/// if its next batch is averaged with the other's gradients at other weights.
#[test]
fn first_and_second_gradients_of_a_step_are_told_apart() {
    let all = on_ranks(2, |ranks| {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut net = f64::new_net(0);
        let mut opt = newton(&net, sgd::<f64, _>(&net), ranks);
        let (_, own) = own_batch(&net, rank, size);
        if rank == 0 {
            let ahead = |net: &mut Net<f64>| own_batch(net, rank, size).1;
            opt.step_lookahead(&mut net, &own, ahead).unwrap_err()
        } else {
            let first = opt.update(&mut net, &own);
            assert!(first.is_ok());
            opt.step_lookahead(&mut net, &own, |_| own.clone()).unwrap_err()
        }
    });
    let problem = ParallelError::Differs {
        what: "set of gradients in a step".to_owned(),
        here: "first".to_owned(),
        other: 0,
        there: "second".to_owned(),
    };
    assert_eq!(same(&all), Error::Parallel { rank: 1, step: 1, problem });
}
