//! n ranks with b examples each make the steps of one process with n·b.

use crate::{
    problem::{sgd, train, train_together, Net, Real, Trained, BATCH},
    ranks::on_ranks,
};
use dfdx::{
    optim::{AdamConfig, Momentum, SgdConfig},
    prelude::Cpu,
};
use tlr::{
    optim::{Accumulate, Adam, Clip, Sgd},
    parallel::{Alone, Compression, Ranks},
    DataParallel, PerLayer, Step, TunableOptimizer,
};

/// Steps that are compared.
const STEPS: usize = 100;

/// One process, and 1, 2, 3 and 4 ranks. Returns by how much the ranks were off at most.
///
/// Fails if gradients are summed, if a rank uses its own gradients or its own loss for anything, or
/// if ranks do not end with the same bits.
fn compare<E, Opt>(make: impl Fn(&Net<E>) -> Opt + Sync, tolerance: f64)
where
    E: Real,
    Cpu: tlr::Backend<E>,
    Opt: TunableOptimizer<Model = Net<E>, Dtype = E, Device = Cpu>,
{
    let net = E::new_net(0);
    let alone = train(net.clone(), make(&net), [0, 1], STEPS).unwrap();
    assert!(alone.history.len() > 5, "{:?}", alone.history);
    for size in 1..=4 {
        assert_eq!(BATCH % size, 0);
        let together = on_ranks(size, |ranks| train_together(ranks, &make, STEPS).unwrap());
        for rank in &together {
            assert_eq!(rank.bits, together[0].bits);
            assert_eq!(rank.history, together[0].history);
        }
        let distance = alone.distance(&together[0]);
        assert!(distance <= tolerance, "{size} ranks: off by {distance:e}");
        let kinds = |steps: &[Step]| steps.iter().map(std::mem::discriminant).collect::<Vec<_>>();
        assert_eq!(kinds(&alone.steps), kinds(&together[0].steps));
        for (alone, together) in alone.rates.iter().zip(&together[0].rates) {
            let off = (together / alone - 1.0).abs();
            assert!(off <= 1e4 * tolerance, "{size} ranks: a rate off by {off:e}");
        }
        if size == 1 {
            assert_eq!(alone.bits, together[0].bits);
        }
    }
}

#[test]
fn plain_sgd() {
    compare(sgd::<f64, _>, 1e-12);
    compare(sgd::<f32, _>, 1e-6);
}

#[test]
fn momentum() {
    let momentum = Some(Momentum::Classic(0.9));
    let config = SgdConfig { lr: 1e-2, momentum, weight_decay: None };
    compare::<f64, _>(|net| Sgd::new(net, config), 1e-12);
    compare::<f32, _>(|net| Sgd::new(net, config), 1e-6);
}

#[test]
fn adam() {
    let config = AdamConfig::default();
    compare::<f64, _>(|net| Adam::new(net, config), 1e-12);
    // Where gradients are small, Adam's division by their size multiplies the rounding.
    compare::<f32, _>(|net| Adam::new(net, config), 1e-5);
}

#[test]
fn clipping_takes_the_norm_of_the_mean() {
    compare::<f64, _>(|net| Clip::by_norm(sgd::<f64, _>(net), 0.05).unwrap(), 1e-12);
}

#[test]
fn a_rate_for_each_layer() {
    compare::<f64, _>(|net| PerLayer::new(net, sgd::<f64, _>(net)), 1e-12);
    compare::<f32, _>(|net| PerLayer::new(net, sgd::<f32, _>(net)), 1e-6);
}

#[test]
fn several_batches_for_a_step() {
    compare::<f64, _>(|net| Accumulate::new(sgd::<f64, _>(net), 2).unwrap(), 1e-12);
}

/// Clipping and gathering around the ranks hand the question on. Fails if one of them does not.
#[test]
fn it_does_not_matter_what_is_around_what() {
    let inside = on_ranks(2, |ranks| {
        let make = |net: &Net<f64>| Accumulate::new(sgd::<f64, _>(net), 2).unwrap();
        train_together(ranks, make, STEPS).unwrap()
    });
    let outside = on_ranks(2, |ranks| {
        let net = f64::new_net(0);
        let place = [ranks.rank(), ranks.size()];
        let inner = DataParallel::new(sgd::<f64, _>(&net), ranks);
        let clip = Clip::by_norm(Accumulate::new(inner, 2).unwrap(), 1e9).unwrap();
        train(net, clip, place, STEPS).unwrap()
    });
    assert_eq!(inside[0].bits, outside[0].bits);
    assert_eq!(outside[0].bits, outside[1].bits);
}

/// One rank talks to nobody, and is the plain optimizer to the bit.
#[test]
fn alone_nothing_is_changed() {
    let net = f32::new_net(0);
    let plain = train(net.clone(), sgd::<f32, _>(&net), [0, 1], STEPS).unwrap();
    let ranks = Ranks::new(Alone);
    let alone = train_together(ranks.clone(), sgd::<f32, _>, STEPS).unwrap();
    assert_eq!(plain.bits, alone.bits);
    assert_eq!(ranks.traffic().messages, 0);
}

fn with(
    plan: impl Fn(
            DataParallel<Sgd<Net<f32>, f32, Cpu>, tlr::parallel::Threads>,
        ) -> DataParallel<Sgd<Net<f32>, f32, Cpu>, tlr::parallel::Threads>
        + Sync,
) -> Trained {
    let all = on_ranks(3, |ranks| {
        let net = f32::new_net(0);
        let place = [ranks.rank(), ranks.size()];
        let optimizer = plan(DataParallel::new(sgd::<f32, _>(&net), ranks));
        train(net, optimizer, place, STEPS).unwrap()
    });
    assert!(all.iter().all(|rank| rank.bits == all[0].bits));
    all[0].clone()
}

/// Fails if an element at the edge of a bucket or of a rank's part is left out.
#[test]
fn the_size_of_a_bucket_changes_no_bit() {
    let large = with(|optimizer| optimizer);
    for numbers in [1, 2, 7, 64, 97] {
        let small = with(|optimizer| optimizer.bucket(numbers).unwrap());
        assert_eq!(small.bits, large.bits, "{numbers}");
    }
}

/// In 16 bits training is about the same, and the ranks still agree to the bit. Fails if a rank
/// keeps the mean as it was before it was rounded.
#[test]
fn compressed_gradients_are_about_the_same() {
    let exact = with(|optimizer| optimizer);
    for compression in [Compression::Bf16, Compression::F16] {
        let rounded = with(|optimizer| optimizer.compression(compression));
        let distance = exact.distance(&rounded);
        assert!(distance > 0.0 && distance < 0.1, "{compression:?}: {distance}");
    }
}
