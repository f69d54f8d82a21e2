//! A resume that fails, at each place where it can: model, optimizer, snapshots and engine are as
//! they were, to the bit.

use super::{forged::change, net, Net, Run};
use dfdx::{
    optim::{Momentum, Optimizer, OptimizerUpdateError, SgdConfig},
    prelude::*,
    tensor::CpuError,
};
use std::cell::Cell;
use tlr::{
    optim::{forward, OptimizerState, RestoreError, Resumable, Sgd},
    Checkpoint, Error, Newton, NewtonConfig, TunableOptimizer, Window,
};

type Model = Net<f32, Cpu>;
type Inner = Sgd<Model, f32, Cpu>;

/// What of an optimizer fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fails {
    Nothing,
    State,
    Restore,
}

/// SGD on a device whose memory runs out on demand.
struct Failing {
    sgd: Inner,
    fails: Cell<Fails>,
}

impl Failing {
    fn unless(&self, fails: Fails) -> Result<(), CpuError> {
        match self.fails.get() == fails {
            true => Err(CpuError::OutOfMemory),
            false => Ok(()),
        }
    }
}

impl Optimizer<Model, Cpu, f32> for Failing {
    fn update(
        &mut self,
        model: &mut Model,
        gradients: &Gradients<f32, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        self.sgd.update(model, gradients)
    }
}

impl TunableOptimizer for Failing {
    type Model = Model;
    type Dtype = f32;
    type Device = Cpu;

    forward! { Self { sgd, .. } => sgd; }
}

impl Resumable for Failing {
    fn state(&self, model: &Model) -> Result<OptimizerState, CpuError> {
        self.unless(Fails::State)?;
        self.sgd.state(model)
    }

    fn restore(
        &mut self,
        model: &mut Model,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<CpuError>> {
        self.unless(Fails::Restore).map_err(RestoreError::Device)?;
        self.sgd.restore(model, state)
    }
}

fn run(seed: u64, config: NewtonConfig) -> Run<Failing> {
    let model = net::<f32>(seed);
    let momentum = Some(Momentum::Classic(0.9));
    let sgd = Sgd::new(&model, SgdConfig { lr: 0.1, momentum, weight_decay: None });
    let opt = Newton::new(&model, Failing { sgd, fails: Cell::new(Fails::Nothing) }, config);
    Run { model, opt: opt.unwrap() }
}

/// The same with an engine in the middle of a step, which no trainer takes over.
fn within_a_step(checkpoint: &Checkpoint) -> Checkpoint {
    change(checkpoint, |parts| {
        let (_, shape, bytes) = parts.get_mut("progress").unwrap();
        let progress = std::str::from_utf8(bytes).unwrap();
        assert!(progress.contains(IDLE), "{progress}");
        *bytes = progress.replace(IDLE, r#""phase":{"Retreating":{"tensor":"x"}}"#).into_bytes();
        *shape = vec![bytes.len()];
    })
}

const IDLE: &str = r#""phase":"Idle""#;

// Fails if anything of a checkpoint is taken over before all that can fail is done.
#[test]
fn a_resume_that_fails_changes_nothing() {
    let plain = NewtonConfig::default().ramp(false).settle(false).window(Window::steps(4).unwrap());
    let layouts =
        [plain, plain.bf16_directions(true), plain.safeguard(None).sketch(NewtonConfig::SKETCH)];
    for config in layouts {
        let mut other = run(1, config);
        other.steps(0..20);
        let checkpoint = other.state();
        let forged = within_a_step(&checkpoint);
        let foreign = run(1, config.damping(0.5)).state();

        let mut failed = run(2, config);
        failed.steps(0..10);
        let before = failed.state();
        for (fails, checkpoint) in [
            (Fails::State, &checkpoint),
            (Fails::Restore, &checkpoint),
            (Fails::Nothing, &forged),
            (Fails::Nothing, &foreign),
        ] {
            failed.opt.optimizer().fails.set(fails);
            let error = failed.opt.resume(&mut failed.model, checkpoint).unwrap_err();
            assert_eq!(matches!(error, Error::Device(_)), fails != Fails::Nothing, "{error}");
            failed.opt.optimizer().fails.set(Fails::Nothing);
            assert!(failed.state() == before, "{fails:?}, {config:?}");
        }
        // It goes on as if nothing had been tried, and can be resumed all the same.
        let mut unharmed = run(2, config);
        unharmed.steps(0..15);
        failed.steps(10..15);
        assert!(failed.state() == unharmed.state());
        failed.opt.resume(&mut failed.model, &checkpoint).unwrap();
        assert!(failed.state() == checkpoint);
    }
}
