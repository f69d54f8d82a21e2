//! Mixed precision on several ranks: they keep one loss scale.

use crate::ranks::on_ranks;
use dfdx::{
    dtypes::{f16, AMP},
    optim::SgdConfig,
    prelude::*,
};
use support::values::{gradients, values};
use tlr::{
    engine::NewtonRule,
    optim::Sgd,
    parallel::{Ranks, Threads},
    Cause, DataParallel, Error, LossScale, MixedPrecision, Newton, NewtonConfig, ParallelError,
    Step,
};

type Half = modules::Linear<2, 1, AMP<f16>, Cpu>;
type Master = DataParallel<Sgd<modules::Linear<2, 1, f32, Cpu>, f32, Cpu>, Threads>;

fn mixed(ranks: Ranks<Threads>) -> (Half, MixedPrecision<Half, AMP<f16>, Master, NewtonRule>) {
    let model: Half = Cpu::seed_from_u64(1).build_module::<Linear<2, 1>, AMP<f16>>();
    let opt = MixedPrecision::new(&model, LossScale::default(), |master| {
        let sgd = Sgd::new(master, SgdConfig { lr: 1e-3, ..Default::default() });
        Newton::new(master, DataParallel::new(sgd, ranks), NewtonConfig::default())
    });
    (model, opt.unwrap())
}

/// Half precision overflows on one rank. Fails if that rank alone skips and halves its scale.
#[test]
fn an_overflow_on_one_rank_is_one_of_all() {
    let all = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let (mut model, mut opt) = mixed(ranks);
        let mut steps = Vec::new();
        for step in 0..4 {
            let mut own = gradients(&model, &[1.0, -2.0, 0.5]);
            if rank == 1 && step == 2 {
                own = gradients(&model, &[f64::INFINITY, 0.0, 0.0]);
            }
            steps.push(format!("{:?}", opt.step(&mut model, &own, 1.0).unwrap()));
        }
        (steps, opt.loss_scale(), opt.skipped_steps(), values(&model))
    });
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0].0[2], format!("{:?}", Step::Skipped(Cause::GradientOverflow)));
    assert_eq!((all[0].1, all[0].2), (512.0, 1));
}

/// All ranks save, and one writes. Fails if each does.
#[test]
fn the_first_rank_writes_the_file_in_mixed_precision() {
    let folder = tempfile::tempdir().unwrap();
    on_ranks(2, |ranks: Ranks<Threads>| {
        let path = folder.path().join(ranks.rank().to_string());
        let model: Half = Cpu::seed_from_u64(1).build_module::<Linear<2, 1>, AMP<f16>>();
        let opt = MixedPrecision::new(&model, LossScale::default(), |master| {
            let sgd = Sgd::new(master, SgdConfig { lr: 1e-3, ..Default::default() });
            let optimizer = DataParallel::new(sgd, ranks).shard_snapshots();
            Newton::new(master, optimizer, NewtonConfig::default())
        });
        opt.unwrap().save(path).unwrap();
    });
    assert!(folder.path().join("0").exists() && !folder.path().join("1").exists());
}

/// A rank whose loss does not use a parameter, in mixed precision. Fails if the others wait for it.
#[test]
fn a_gradient_that_is_missing_in_mixed_precision_is_told_to_all() {
    let all = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let (mut model, mut opt) = mixed(ranks);
        let own = match rank {
            0 => gradients(&model, &[1.0, -2.0, 0.5]),
            _ => model.bias.leaky_trace().sum::<Rank0, _>().backward(),
        };
        opt.step(&mut model, &own, 1.0).unwrap_err()
    });
    let Error::Parallel { rank: 1, problem: ParallelError::Failed { message }, .. } = &all[0]
    else {
        panic!("{:?}", all[0]);
    };
    assert!(message.contains("weight"), "{message}");
    assert_eq!(all[1], Error::UnusedParameters { tensors: vec!["weight".to_owned()] });
}

/// A rank passes another model. Fails if the others wait for it.
#[test]
fn another_model_in_mixed_precision_is_told_to_all() {
    let all = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let (mut model, mut opt) = mixed(ranks);
        if rank == 1 {
            model = Cpu::seed_from_u64(1).build_module::<Linear<2, 1>, AMP<f16>>();
        }
        let own = gradients(&model, &[1.0, -2.0, 0.5]);
        opt.step(&mut model, &own, 1.0).unwrap_err()
    });
    assert!(matches!(&all[0], Error::Parallel { rank: 1, .. }), "{:?}", all[0]);
    assert!(matches!(&all[1], Error::ModelChanged(_)), "{:?}", all[1]);
}

/// Fails if buffers are averaged in the model alone, or in the master alone.
#[test]
fn buffers_in_mixed_precision_are_averaged_too() {
    type Normed = modules::BatchNorm1D<1, AMP<f16>, Cpu>;
    let all = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let mut model: Normed = Cpu::default().build_module::<BatchNorm1D<1>, AMP<f16>>();
        let mut opt = MixedPrecision::new(&model, LossScale::default(), |master| {
            let sgd = Sgd::new(master, SgdConfig { lr: 1e-3, ..Default::default() });
            Newton::new(master, DataParallel::new(sgd, ranks), NewtonConfig::default())
        })
        .unwrap();
        model.running_mean = Cpu::default().tensor([AMP(f16::from_f64(2.0 * rank as f64))]);
        opt.average_buffers(&mut model).unwrap();
        (values(&model), opt.master().running_mean.array())
    });
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0].1, [1.0]);
    assert!(all[0].0.contains(&1.0), "{all:?}");
}

/// The other rank has left. Fails if the master keeps the running mean that was to be averaged.
#[test]
fn a_mean_that_fails_changes_no_buffer() {
    type Normed = modules::BatchNorm1D<1, AMP<f16>, Cpu>;
    on_ranks(2, |ranks| {
        if ranks.rank() == 1 {
            return;
        }
        let mut model: Normed = Cpu::default().build_module::<BatchNorm1D<1>, AMP<f16>>();
        let mut opt = MixedPrecision::new(&model, LossScale::default(), |master| {
            let sgd = Sgd::new(master, SgdConfig { lr: 1e-3, ..Default::default() });
            Newton::new(master, DataParallel::new(sgd, ranks), NewtonConfig::default())
        })
        .unwrap();
        model.running_mean.copy_from(&[AMP(f16::ONE)]);
        let failed = opt.average_buffers(&mut model).unwrap_err();
        assert!(matches!(failed, Error::Parallel { .. }), "{failed}");
        assert_eq!(opt.master().running_mean.array(), [0.0]);

        let mut other: Normed = Cpu::default().build_module::<BatchNorm1D<1>, AMP<f16>>();
        let refused = opt.average_buffers(&mut other).unwrap_err();
        assert!(matches!(refused, Error::ModelChanged(_)), "{refused}");
    });
}
