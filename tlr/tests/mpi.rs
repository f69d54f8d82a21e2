//! The processes of an `mpirun`, which train together: `.ci/mpi` starts it with 1, 2 and 4 of them,
//! and once with one that is said to end or to stop by the only argument.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use dfdx::{losses::mse_loss, optim::SgdConfig, prelude::*};
use std::{
    process,
    time::{Duration, Instant},
};
use tlr::{
    optim::Sgd,
    parallel::{Alone, Communicator, LinkError, Mpi, Ranks},
    DataParallel, Error, Newton, NewtonConfig, ParallelError, Window,
};

/// Large enough that MPI does not send it at once.
type Net = (modules::Linear<8, 30_000, f64, Cpu>, Tanh, modules::Linear<30_000, 1, f64, Cpu>);

/// Rows of a batch of all ranks together.
const ROWS: usize = 8;
/// Those of a ramp, at whose end this network's rates are at the edge of what is stable. From there
/// on rounding grows.
const STEPS: usize = 16;

fn train<C: Communicator>(ranks: &Ranks<C>, sharded: bool) -> Result<(Vec<f64>, f64), Error> {
    let dev = Cpu::seed_from_u64(ranks.rank() as u64);
    let mut net: Net = dev.build_module::<(Linear<8, 30_000>, Tanh, Linear<30_000, 1>), f64>();
    let sgd = Sgd::new(&net, SgdConfig { lr: 1e-3, ..Default::default() });
    let mut optimizer = DataParallel::new(sgd, ranks.clone()).bucket(50_000)?;
    optimizer.broadcast(&mut net)?;
    if sharded {
        optimizer = optimizer.shard_snapshots();
    }
    let config = NewtonConfig::default().window(Window::steps(5)?);
    let mut opt = Newton::new(&net, optimizer, config)?;
    let at = |rank: usize| ROWS * rank / ranks.size();
    let own = at(ranks.rank())..at(ranks.rank() + 1);
    let input = |row: usize, column: usize| ((row * 8 + column) as f64).sin();
    for _ in 0..STEPS {
        let inputs = own.clone().flat_map(|row| (0..8).map(move |column| input(row, column)));
        let targets = own.clone().map(|row| (row as f64).cos());
        let x = dev.tensor_from_vec(inputs.collect(), (own.len(), Const::<8>));
        let y = dev.tensor_from_vec(targets.collect(), (own.len(), Const::<1>));
        let loss = mse_loss(net.forward(x.trace(net.alloc_grads())), y);
        let value = loss.array();
        opt.weigh_next(own.len() as f64)?;
        opt.step(&mut net, &loss.backward(), value)?;
    }
    Ok((net.2.weight.as_vec(), opt.rates()[0].1))
}

fn main() {
    let asked = std::env::args().nth(1).unwrap_or_default();
    let mut mpi = Mpi::new().unwrap();
    assert!(Mpi::new().is_err(), "MPI is entered once");
    ask(&mut mpi);
    let ranks = Ranks::new(mpi).time_out(Duration::from_secs(60));
    match asked.as_str() {
        "stop" => stop(&ranks.time_out(Duration::from_secs(2))),
        "fail" => fail(&ranks),
        // `cargo test` has arguments of its own.
        _ => together(&ranks),
    }
}

/// Who asks for a message that is not there yet has lost nobody: `mpirun` fails if a process ends
/// without leaving MPI, and one that has lost another does not leave it.
fn ask(mpi: &mut Mpi) {
    // A rank that is not there is one that has ended. Fails if MPI is asked for it: that panics.
    let nobody = mpi.size();
    assert_eq!(mpi.send(nobody, Vec::new()), Err(LinkError::Ended));
    assert_eq!(mpi.receive(nobody, Instant::now()), Err(LinkError::Ended));
    let soon = Instant::now() + Duration::from_secs(60);
    if mpi.rank() == 0 {
        // They wait for this one, so none of them has said anything.
        for to in 1..mpi.size() {
            assert_eq!(mpi.receive(to, Instant::now()), Err(LinkError::TimeOut));
            mpi.send(to, b"go".to_vec()).unwrap();
        }
    } else {
        assert_eq!(mpi.receive(0, soon).unwrap(), b"go");
    }
}

/// n ranks make the steps of one process, and end with the same bits.
fn together(ranks: &Ranks<Mpi>) {
    let (alone, rate_alone) = train(&Ranks::new(Alone), false).unwrap();
    for sharded in [false, true] {
        let (weights, rate) = train(ranks, sharded).unwrap();
        let largest = alone.iter().fold(0.0, |max: f64, w| max.max(w.abs()));
        // `f64::max` would hide a difference that is no number.
        let most = |most: f64, off: f64| if off <= most { most } else { off };
        let apart = alone.iter().zip(&weights).map(|(ours, theirs)| (ours - theirs).abs());
        let off = apart.fold(0.0, most) / largest;
        assert!(off < 1e-12, "off by {off:e}");
        assert!((rate / rate_alone - 1.0).abs() < 1e-9, "{rate} and {rate_alone}");
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut first = bytes.clone();
        ranks.broadcast(&mut first).unwrap();
        assert!(first == bytes, "rank {} has other bits than the first", ranks.rank());
        if ranks.is_first() {
            let (size, how) = (ranks.size(), if sharded { "shared" } else { "whole" });
            print!("{size} ranks, {how} snapshots: ");
            println!("off by {off:.1e} after {STEPS} steps, rate {rate:.4e}");
        }
    }
    // A longer one than any piece.
    let mut long = if ranks.is_first() { vec![7; (9 << 20) + 1] } else { Vec::new() };
    ranks.broadcast(&mut long).unwrap();
    assert!(long.len() == (9 << 20) + 1 && long.iter().all(|byte| *byte == 7));
    ranks.wait_for_all().unwrap();
}

/// The last rank says nothing for longer than the time-out.
fn stop(ranks: &Ranks<Mpi>) {
    let last = ranks.size() - 1;
    ranks.wait_for_all().unwrap();
    if ranks.rank() == last {
        std::thread::sleep(Duration::from_secs(30));
        process::exit(3);
    }
    match ranks.wait_for_all() {
        Err(Error::Parallel { rank, problem: ParallelError::TimeOut { .. }, .. })
            if rank == last =>
        {
            println!("rank {} has missed rank {rank}", ranks.rank());
        }
        other => panic!("{other:?}"),
    }
    // Long enough for the others to say the same.
    std::thread::sleep(Duration::from_millis(500));
    process::exit(4);
}

/// The last rank fails and says why.
fn fail(ranks: &Ranks<Mpi>) {
    let last = ranks.size() - 1;
    if ranks.rank() == last {
        ranks.leave("the disk is full");
    }
    let error = ranks.wait_for_all().unwrap_err();
    assert_eq!(error.to_string(), format!("rank {last}, step 1: the disk is full"));
    println!("rank {} was told", ranks.rank());
}
