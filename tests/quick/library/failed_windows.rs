//! Windows whose end fails, after a step that was made.

use dfdx::{
    optim::{Optimizer, OptimizerUpdateError, SgdConfig},
    prelude::*,
    tensor::CpuError,
};
use std::cell::Cell;
use support::values::gradients;
use tlr::{
    optim::{forward, Sgd, Shards},
    Cause, Error, Newton, NewtonConfig, Schedule, Step, TunableOptimizer, Window,
};

type Norm = modules::BatchNorm1D<1, f64, Cpu>;

/// SGD on one rank, whose talk with itself fails on demand.
struct Failing {
    sgd: Sgd<Norm, f64, Cpu>,
    talk: Talk,
}

struct Talk(Cell<bool>);

impl Shards for Talk {
    fn place(&self) -> (usize, usize) {
        (0, 1)
    }

    fn exchange_numbers(&self, own: Result<Vec<f64>, Error>) -> Result<Vec<Vec<f64>>, Error> {
        match self.0.get() {
            true => Err(Error::NothingToTrain),
            false => Ok(vec![own?]),
        }
    }
}

impl Optimizer<Norm, Cpu, f64> for Failing {
    fn update(
        &mut self,
        model: &mut Norm,
        gradients: &Gradients<f64, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        self.sgd.update(model, gradients)
    }
}

impl TunableOptimizer for Failing {
    type Model = Norm;
    type Dtype = f64;
    type Device = Cpu;

    forward! { Self { sgd, .. } => sgd; but shards; }

    fn shards(&self) -> Option<&dyn Shards> {
        Some(&self.talk)
    }
}

/// The schedule restarts where a window ends, so the next step begins with a snapshot. Fails if the
/// buffers are not copied before its forward pass: the batch that is skipped there would leave
/// those of an earlier step.
#[test]
fn buffers_are_kept_where_a_schedule_restarts() {
    for fails in [false, true] {
        let mut norm = Cpu::default().build_module::<BatchNorm1D<1>, f64>();
        let sgd = Sgd::new(&norm, SgdConfig { lr: 0.1, ..Default::default() });
        let config = NewtonConfig::default().ramp(false).settle(false);
        let config = config.window(Window::steps(2).unwrap());
        let optimizer = Failing { sgd, talk: Talk(Cell::new(false)) };
        let opt = Newton::new(&norm, optimizer, config).unwrap();
        let mut opt = opt.schedule(Schedule::warm_restarts(2, 1, 0.0).unwrap());
        let here = gradients(&norm, &[0.5, -0.5]);
        let mut step = |mean: f64, loss: f64, fails: bool| {
            norm.running_mean.copy_from(&[mean]); // as its forward pass does
            opt.optimizer().talk.0.set(fails);
            (opt.step(&mut norm, &here, loss), norm.running_mean.array())
        };
        assert_eq!(step(1.0, 1.0, false).0, Ok(Step::Made));
        let (ended, _) = step(2.0, 1.0, fails);
        assert_eq!(matches!(ended, Err(Error::WindowEnd(_))), fails, "{ended:?}");
        let (skipped, mean) = step(3.0, f64::NAN, false);
        assert_eq!((skipped, mean), (Ok(Step::Skipped(Cause::NonFiniteLoss)), [2.0]));
    }
}
