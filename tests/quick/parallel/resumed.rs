//! Checkpoints: one rank writes them, and any number goes on.

use crate::{
    problem::{config, part, Data, Net, Real, BATCH},
    ranks::on_ranks,
};
use dfdx::{optim::AdamConfig, prelude::*};
use support::values::{bits, largest_error, values};
use tlr::{
    optim::Adam,
    parallel::{Alone, Communicator, Ranks, Threads},
    Checkpoint, DataParallel, Newton, PerLayer,
};

type Inner = PerLayer<Adam<Net<f64>, f64, Cpu>>;

fn adam(net: &Net<f64>) -> Inner {
    PerLayer::new(net, Adam::new(net, AdamConfig::default()))
}

/// Goes on from a checkpoint, if there is one, for some steps; answers the checkpoint at the end.
fn train<C: Communicator>(
    ranks: Ranks<C>,
    from: Option<&Checkpoint>,
    steps: usize,
) -> (Vec<f64>, Vec<u64>, Checkpoint) {
    let (rank, size) = (ranks.rank(), ranks.size());
    let data = Data::new(BATCH);
    let mut net = f64::new_net(0);
    let optimizer = DataParallel::new(adam(&net), ranks);
    let mut opt = Newton::new(&net, optimizer, config()).unwrap();
    if let Some(checkpoint) = from {
        opt.resume(&mut net, checkpoint).unwrap();
    }
    for _ in 0..steps {
        let (loss, own) = f64::loss(&net, &data, part(0..BATCH, rank, size));
        opt.step(&mut net, &own, loss).unwrap();
    }
    (values(&net), bits(&net), opt.checkpoint(&net).unwrap())
}

/// Fails if anything of the ranks is part of a checkpoint, or if something of it is lost.
#[test]
fn training_goes_on_with_another_number_of_ranks() {
    let (whole, ..) = train(Ranks::new(Alone), None, 60);
    let mut first = on_ranks(3, |ranks| train(ranks, None, 30));
    let all_wrote_the_same = first.iter().all(|(.., checkpoint)| *checkpoint == first[0].2);
    assert!(all_wrote_the_same);
    let (.., checkpoint) = first.pop().unwrap();
    for size in [1, 2, 4] {
        let rest = on_ranks(size, |ranks| train(ranks, Some(&checkpoint), 30));
        for (net, bits, _) in &rest {
            assert_eq!(*bits, rest[0].1);
            let off = largest_error(&whole, net);
            assert!(off < 1e-10, "{size} ranks: {off:e}");
        }
    }
    // With as many ranks as before, it is the same run, to the bit.
    let straight = on_ranks(3, |ranks| train(ranks, None, 60));
    let resumed = on_ranks(3, |ranks| train(ranks, Some(&checkpoint), 30));
    assert_eq!(straight[0].1, resumed[0].1);
}

/// A checkpoint of a plain optimizer is one of `DataParallel`, and the other way round.
#[test]
fn a_checkpoint_knows_nothing_of_ranks() {
    let net = f64::new_net(0);
    let plain = Newton::new(&net, adam(&net), config()).unwrap().checkpoint(&net).unwrap();
    let (.., alone) = train(Ranks::new(Alone), None, 0);
    assert_eq!(plain, alone);
}

/// Fails if a rank goes on from another checkpoint than the others, and nobody sees it.
#[test]
fn ranks_that_go_on_from_other_checkpoints_are_told() {
    let checkpoints: Vec<_> =
        [14, 21].map(|steps| train(Ranks::new(Alone), None, steps).2).into_iter().collect();
    let errors = on_ranks(2, |ranks: Ranks<Threads>| {
        let rank = ranks.rank();
        let mut net = f64::new_net(0);
        let mut opt = Newton::new(&net, DataParallel::new(adam(&net), ranks), config()).unwrap();
        opt.resume(&mut net, &checkpoints[rank]).unwrap();
        let (loss, own) = f64::loss(&net, &Data::new(BATCH), part(0..BATCH, rank, 2));
        opt.step(&mut net, &own, loss).unwrap_err().to_string()
    });
    assert_eq!(errors[0], errors[1]);
    assert!(errors[0].starts_with("rank 1, step 15: "), "{}", errors[0]);
    assert!(errors[0].contains("it has made 21 steps, and rank 0 has made 14"), "{}", errors[0]);
}

/// Running figures of batch norm are those of a rank, until they are averaged.
#[test]
fn buffers_are_averaged_when_asked() {
    type Normed = (modules::BatchNorm1D<2, f64, Cpu>, modules::Linear<2, 1, f64, Cpu>);
    let all = on_ranks(2, |ranks| {
        let rank = ranks.rank() as f64;
        let dev = Cpu::seed_from_u64(0);
        let mut model: Normed = dev.build_module::<(BatchNorm1D<2>, Linear<2, 1>), f64>();
        let adam = Adam::new(&model, AdamConfig::default());
        let optimizer = DataParallel::new(adam, ranks);
        let mut opt = Newton::new(&model, optimizer, config()).unwrap();
        for _ in 0..3 {
            let x = dev.tensor([[rank + 1.0, 2.0], [rank, -1.0], [3.0, rank]]);
            let out = model.forward_mut(x.trace(model.alloc_grads()));
            let loss = out.square().mean();
            let value = loss.array();
            opt.step(&mut model, &loss.backward(), value).unwrap();
        }
        let own = model.0.running_mean.array();
        let weight = model.1.weight.array();
        opt.average_buffers(&mut model).unwrap();
        assert_eq!(model.1.weight.array(), weight);
        (own, model.0.running_mean.array())
    });
    let [(first, averaged), (second, others)] = &all[..] else { panic!() };
    assert_ne!(first, second);
    assert_eq!(averaged, others);
    for index in 0..2 {
        assert!((averaged[index] - 0.5 * (first[index] + second[index])).abs() < 1e-15);
    }
}
