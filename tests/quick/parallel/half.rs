//! Mixed precision on several ranks: they keep one loss scale.

use crate::ranks::on_ranks;
use dfdx::{
    dtypes::{f16, AMP},
    optim::SgdConfig,
    prelude::*,
};
use support::values::{gradients, values};
use tlr::{
    optim::Sgd, Cause, DataParallel, Error, LossScale, Newton, NewtonConfig, ParallelError, Step,
};

type Half = modules::Linear<2, 1, AMP<f16>, Cpu>;

/// Half precision overflows on one rank. Fails if that rank alone skips and halves its scale.
#[test]
fn an_overflow_on_one_rank_is_one_of_all() {
    let all = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let dev = Cpu::seed_from_u64(1);
        let mut model: Half = dev.build_module::<Linear<2, 1>, AMP<f16>>();
        let mut opt = tlr::MixedPrecision::new(&model, LossScale::default(), |master| {
            let sgd = Sgd::new(master, SgdConfig { lr: 1e-3, ..Default::default() });
            Newton::new(master, DataParallel::new(sgd, ranks.clone()), NewtonConfig::default())
        })
        .unwrap();
        let mut steps = Vec::new();
        for step in 0..4 {
            let mut own = gradients(&model, &[1.0, -2.0, 0.5]);
            if rank == 1 && step == 2 {
                own = gradients(&model, &[f64::INFINITY, 0.0, 0.0]);
            }
            steps.push(format!("{:?}", opt.step(&mut model, &own, 1.0).unwrap()));
        }
        (steps, opt.loss_scale(), opt.skipped(), values(&model))
    });
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0].0[2], format!("{:?}", Step::Skipped(Cause::GradientOverflow)));
    assert_eq!((all[0].1, all[0].2), (512.0, 1));
}

/// A rank whose loss does not use a parameter, in mixed precision. Fails if the others wait for it.
#[test]
fn a_gradient_that_is_missing_in_mixed_precision_is_told_to_all() {
    let all = on_ranks(2, |ranks| {
        let rank = ranks.rank();
        let dev = Cpu::seed_from_u64(1);
        let mut model: Half = dev.build_module::<Linear<2, 1>, AMP<f16>>();
        let mut opt = tlr::MixedPrecision::new(&model, LossScale::default(), |master| {
            let sgd = Sgd::new(master, SgdConfig { lr: 1e-3, ..Default::default() });
            Newton::new(master, DataParallel::new(sgd, ranks.clone()), NewtonConfig::default())
        })
        .unwrap();
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
