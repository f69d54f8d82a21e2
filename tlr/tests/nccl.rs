//! Ranks whose GPUs carry what is long: the same bits as without, in whatever order they send, and
//! an end where one of them does not answer.
//!
//! `cargo test -p tlr --features nccl -- --ignored gpu`, with three GPUs. Where they are not there,
//! the tests say so and pass. `.ci/cuda` runs them on the host's processor.
#![cfg(feature = "nccl")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use dfdx::{losses::mse_loss, optim::SgdConfig, prelude::*};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tlr::{
    optim::Sgd,
    parallel::{Alone, Communicator, LinkError, Nccl, Ranks, Threads},
    DataParallel, Error, Newton, NewtonConfig, ParallelError, Window,
};

const MINUTE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

/// The tests share the GPUs, so they run one after the other. None if there are not enough.
fn gpus(size: usize) -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // cudarc panics where there is no driver, and where there is no such GPU.
    let found = std::panic::catch_unwind(|| Cuda::try_build(size - 1, 0).is_ok());
    if !matches!(found, Ok(true)) {
        eprintln!("skipped: there is no GPU for each of {size} ranks");
        return None;
    }
    Some(one)
}

/// What each rank's program gives back. Rank n has GPU n.
fn on_ranks<T: Send>(size: usize, program: impl Fn(Threads, Cuda) -> T + Sync) -> Vec<T> {
    let program = &program;
    thread::scope(|scope| {
        let ranks = Threads::new(size).into_iter().enumerate().map(|(rank, own)| {
            scope.spawn(move || program(own, Cuda::try_build(rank, rank as u64).unwrap()))
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// The same of ranks that are connected.
fn connected<T: Send>(size: usize, program: impl Fn(Nccl<Threads>) -> T + Sync) -> Vec<T> {
    on_ranks(size, |own, dev| program(Nccl::new(&dev, own, MINUTE).unwrap()))
}

type Net = (modules::Linear<8, 3000, f64, Cuda>, Tanh, modules::Linear<3000, 1, f64, Cuda>);

/// The weights and what has travelled. Most parts of buckets are longer than a letter.
fn train<C: Communicator>(ranks: &Ranks<C>, dev: &Cuda) -> Result<(Vec<f64>, u64), Error> {
    const ROWS: usize = 6;
    let mut net: Net = dev.build_module::<(Linear<8, 3000>, Tanh, Linear<3000, 1>), f64>();
    if ranks.is_first() {
        // The same in each training: dfdx draws weights from a generator that all devices share.
        let weights = (0..24_000).map(|index| (f64::from(index) * 0.7).sin() / 3.0);
        net.0.weight.copy_from(&weights.collect::<Vec<_>>());
        net.0.bias.copy_from(&[0.0; 3000]);
        net.2.weight.copy_from(&[0.02; 3000]);
        net.2.bias.copy_from(&[0.0]);
    }
    let sgd = Sgd::new(&net, SgdConfig { lr: 1e-3, ..Default::default() });
    let mut optimizer = DataParallel::new(sgd, ranks.clone()).bucket(10_000)?;
    optimizer.broadcast(&mut net)?;
    let config = NewtonConfig::default().window(Window::steps(2)?);
    let mut opt = Newton::new(&net, optimizer, config)?;
    let own = ROWS * ranks.rank() / ranks.size()..ROWS * (ranks.rank() + 1) / ranks.size();
    for _ in 0..5 {
        let inputs = own.clone().flat_map(|row| (0..8).map(move |c| ((row * 8 + c) as f64).sin()));
        let targets = own.clone().map(|row| (row as f64).cos());
        let x = dev.tensor_from_vec(inputs.collect(), (own.len(), Const::<8>));
        let y = dev.tensor_from_vec(targets.collect(), (own.len(), Const::<1>));
        let loss = mse_loss(net.forward(x.trace(net.alloc_grads())), y);
        let value = loss.array();
        opt.weigh_next(own.len() as f64)?;
        opt.step(&mut net, &loss.backward(), value)?;
    }
    let weights = [net.0.weight.as_vec(), net.0.bias.as_vec(), net.2.weight.as_vec()].concat();
    Ok((weights, ranks.traffic().bytes))
}

/// Fails if a byte gets lost, or if a GPU reads or writes a piece too early or too late.
#[test]
#[ignore = "gpu"]
fn gpu_ranks_take_the_same_steps_to_the_bit() {
    for size in [2, 3] {
        let Some(_one) = gpus(size) else { return };
        let by_host = on_ranks(size, |own, dev| train(&Ranks::new(own), &dev).unwrap());
        let by_gpus = on_ranks(size, |own, dev| {
            train(&Ranks::new(Nccl::new(&dev, own, MINUTE).unwrap()), &dev).unwrap()
        });
        assert!(by_host.iter().all(|(weights, _)| *weights == by_host[0].0));
        assert!(by_host == by_gpus, "{size} ranks differ");
    }
}

/// What rank `from` says to another one: all lengths around those of a letter and of a piece.
fn said(from: usize) -> impl Iterator<Item = Vec<u8>> {
    let lengths = [0, 3_000_000, 16_383, 16_384, (1 << 20) + 64, (1 << 20) + 65, 1];
    lengths.into_iter().zip(0..).map(move |(len, turn)| {
        (0..len).map(|index| (index * 7 + turn * 31 + from * 101) as u8).collect()
    })
}

/// Fails if a rank waits until what it sends is received, or if one message overtakes another.
#[test]
#[ignore = "gpu"]
fn gpu_ranks_may_all_send_before_any_receives() {
    let Some(_one) = gpus(3) else { return };
    let all = connected(3, |mut own| {
        let others: Vec<_> = (0..3).filter(|rank| *rank != own.rank()).collect();
        let deadline = Instant::now() + MINUTE;
        for message in said(own.rank()) {
            others.iter().for_each(|to| own.send(*to, message.clone()).unwrap());
        }
        let mut same = true;
        for from in others.iter().rev() {
            for message in said(*from) {
                same &= own.receive(*from, deadline).unwrap() == message;
            }
        }
        own.flush(deadline).unwrap();
        same
    });
    assert_eq!(all, [true; 3]);
}

#[test]
#[ignore = "gpu"]
fn gpu_a_rank_that_leaves_is_named() {
    let Some(_one) = gpus(3) else { return };
    let all = connected(3, |own| {
        let ranks = Ranks::new(own).time_out(MINUTE);
        ranks.wait_for_all().unwrap();
        if ranks.rank() == 1 {
            ranks.leave("the disk is full");
            return None;
        }
        Some(ranks.wait_for_all().unwrap_err().to_string())
    });
    let told = Some("rank 1, step 1: the disk is full".to_owned());
    assert_eq!(all, [told.clone(), None, told]);
    // Without a word.
    let all = connected(2, |own| {
        let ranks = Ranks::new(own).time_out(MINUTE);
        ranks.is_first().then(|| ranks.all_gather(&[7; 100_000]))
    });
    match all.first() {
        Some(Some(Err(Error::Parallel { rank: 1, problem: ParallelError::Ended, .. }))) => (),
        other => panic!("{other:?}"),
    }
    // While what it has announced is waited for.
    let all = connected(2, |mut own| {
        if own.rank() == 0 {
            return own.receive(1, Instant::now() + MINUTE);
        }
        own.send(0, vec![7; 100_000]).unwrap();
        thread::sleep(SHORT);
        Ok(Vec::new())
    });
    assert_eq!(all.first(), Some(&Err(LinkError::Ended)));
}

/// Fails if who asks for what is not there yet gives it up.
#[test]
#[ignore = "gpu"]
fn gpu_a_rank_may_ask_without_waiting() {
    let Some(_one) = gpus(2) else { return };
    let long = vec![7; 100_000];
    connected(2, |mut own| {
        if own.rank() == 1 {
            own.send(0, long.clone()).unwrap();
            own.flush(Instant::now() + MINUTE).unwrap();
            return;
        }
        for _ in 0..3 {
            assert_eq!(own.receive(1, Instant::now()), Err(LinkError::TimeOut));
            thread::sleep(SHORT / 3);
        }
        assert!(own.receive(1, Instant::now() + MINUTE).unwrap() == long);
    });
}

#[test]
#[ignore = "gpu"]
fn gpu_a_rank_that_says_nothing_is_named_in_time() {
    let Some(_one) = gpus(2) else { return };
    let all = connected(2, |own| {
        let ranks = Ranks::new(own).time_out(SHORT);
        if !ranks.is_first() {
            thread::sleep(4 * SHORT);
            return None;
        }
        let begun = Instant::now();
        let error = ranks.all_gather(&[7; 100_000]).unwrap_err();
        assert!(begun.elapsed() < MINUTE / 2);
        assert_eq!(ranks.all_gather(&[]).unwrap_err(), error);
        Some(error)
    });
    match all.first() {
        Some(Some(Error::Parallel { rank: 1, problem: ParallelError::TimeOut { .. }, .. })) => (),
        other => panic!("{other:?}"),
    }
}

/// Fails if a rank that is late goes on to wait for one that has given up, or takes it for the one
/// that is lost.
#[test]
#[ignore = "gpu"]
fn gpu_all_are_told_who_is_lost() {
    let Some(_one) = gpus(3) else { return };
    let all = connected(3, |own| {
        let rank = own.rank();
        let ranks = Ranks::new(own).time_out([SHORT, MINUTE, MINUTE][rank]);
        thread::sleep([0, 4, 2][rank] * SHORT);
        let begun = Instant::now();
        let error = (rank != 1).then(|| ranks.all_gather(&[7; 100_000]).unwrap_err());
        assert!(begun.elapsed() < MINUTE / 2);
        error
    });
    let lost = all.first().cloned().flatten();
    assert!(matches!(&lost, Some(Error::Parallel { rank: 1, .. })), "{all:?}");
    assert_eq!(all, [lost.clone(), None, lost]);
}

/// Fails if a GPU that waits for another one's piece cannot be freed from that, or if what the
/// other one says after that is not heard.
#[test]
#[ignore = "gpu"]
fn gpu_a_piece_that_does_not_come_is_given_up() {
    let Some(_one) = gpus(2) else { return };
    connected(2, |mut own| {
        let soon = Instant::now() + SHORT;
        if own.rank() == 1 {
            own.send(0, vec![7; 100_000]).unwrap();
            own.send(0, vec![8; 100_000]).unwrap();
            // Only a call moves a piece on.
            thread::sleep(3 * SHORT);
            own.send(0, b"I am late".to_vec()).unwrap();
            // By now it knows that nothing long travels any more.
            own.flush(Instant::now() + MINUTE).unwrap();
            own.send(0, vec![9; 100_000]).unwrap();
            return;
        }
        assert_eq!(own.receive(1, soon), Err(LinkError::TimeOut));
        // Nothing is left on the GPU: otherwise it could not be asked for memory.
        let dev = Cuda::try_build(0, 0).unwrap();
        drop(Nccl::new(&dev, Alone, MINUTE).unwrap());
        assert_eq!(own.send(1, vec![7; 100_000]), Err(LinkError::TimeOut));
        let heard = own.receive(1, Instant::now() + 10 * SHORT);
        assert_eq!(heard.unwrap(), b"I am late");
    });
}

#[test]
#[ignore = "gpu"]
fn gpu_two_ranks_on_one_gpu_are_refused() {
    let Some(_one) = gpus(1) else { return };
    let all = on_ranks(2, |own, _| {
        let dev = Cuda::try_build(0, 0).unwrap();
        Nccl::new(&dev, own, 10 * SHORT).err().map(|error| error.to_string())
    });
    assert!(all.iter().all(Option::is_some), "{all:?}");
    assert!(all.iter().flatten().any(|words| words.contains("NCCL")), "{all:?}");
}

/// A program for several ranks also runs as one.
#[test]
#[ignore = "gpu"]
fn gpu_alone_there_is_nobody_to_connect_to() {
    let Some(_one) = gpus(1) else { return };
    let all = connected(1, |mut own| {
        assert_eq!(own.send(1, vec![7; 100_000]), Err(LinkError::Ended));
        Ranks::new(own).all_gather(b"here").unwrap()
    });
    assert_eq!(all, [[b"here".to_vec()]]);
}
