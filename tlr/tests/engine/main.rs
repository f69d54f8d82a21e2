//! The engine alone: each decision by hand, with a host that does nothing but write down what it
//! was asked for.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod course;
mod rules;
mod safeguard;
mod schedules;
mod start;
mod state;

use std::collections::VecDeque;
use tlr::engine::*;

/// What a window's end answers, and what else it is asked for.
#[derive(Default)]
struct Script {
    windows: VecDeque<Vec<WindowProducts>>,
    /// Instead of products.
    broken: bool,
    unfinished: bool,
    movable: Vec<bool>,
    norms: Vec<f64>,
    slopes: Vec<Slope>,
    /// How often it was asked for slopes.
    looked: usize,
    /// What it was asked for, in order.
    log: Vec<String>,
    rates: Vec<f64>,
    /// The request that fails.
    fails_at: Option<&'static str>,
}

impl Script {
    fn note(&mut self, what: &str) -> Result<(), String> {
        self.log.push(what.to_owned());
        match self.fails_at {
            Some(fails_at) if what.starts_with(fails_at) => Err(what.to_owned()),
            _ => Ok(()),
        }
    }
}

impl Host for Script {
    type Error = String;

    fn take_snapshot(&mut self, kind: TensorKind) -> Result<(), String> {
        self.note(&format!("snapshot {kind:?}"))
    }

    fn update(&mut self, rates: &[f64]) -> Result<(), String> {
        self.rates = rates.to_vec();
        self.note("update")
    }

    fn skip(&mut self, drop_gathered: bool) -> Result<(), String> {
        self.note(if drop_gathered { "skip, drop" } else { "skip" })
    }

    fn end_window(&mut self) -> Result<WindowEnd, String> {
        self.note("end")?;
        if self.broken {
            return Ok(WindowEnd::Broken { tensor: "w".into() });
        }
        Ok(WindowEnd::Products(self.windows.pop_front().unwrap_or_else(|| vec![still(1.0)])))
    }

    fn weights_are_finite(&mut self) -> Result<bool, String> {
        self.note("check")?;
        Ok(!self.unfinished)
    }

    fn movable(&mut self) -> Result<Vec<bool>, String> {
        self.note("movable")?;
        Ok(self.movable.clone())
    }

    fn slopes(&mut self, _since: Target) -> Result<Vec<Slope>, String> {
        self.looked += 1;
        Ok(self.slopes.clone())
    }

    fn norms(&mut self) -> Result<Vec<f64>, String> {
        self.note("norms")?;
        Ok(self.norms.clone())
    }

    fn clear_optimizer(&mut self) -> Result<(), String> {
        self.note("clear")
    }

    fn go_back(&mut self, target: Target) -> Result<(), String> {
        self.note(&format!("back {target:?}"))
    }
}

/// A window that has moved by √`own` and has nothing to do with the one before.
fn still(own: f64) -> WindowProducts {
    WindowProducts { across: 0.0, own }
}

/// The products of a window whose displacement is `now` times a direction, after one of `then`
/// times it.
fn along(then: f64, now: f64) -> WindowProducts {
    WindowProducts { across: then * now, own: now * now }
}

struct Run<R> {
    engine: Engine<R>,
    host: Script,
}

const RATE: f64 = 0.5;

fn run<R: RateRule + Clone>(config: &Config<R>, fixed_rate: &[bool]) -> Run<R> {
    run_from(RATE, config, fixed_rate)
}

fn run_from<R: RateRule + Clone>(rate: f64, config: &Config<R>, fixed_rate: &[bool]) -> Run<R> {
    let groups = fixed_rate.iter().enumerate().map(|(index, fixed_rate)| Group {
        name: index.to_string().into(),
        fixed_rate: *fixed_rate,
        rate,
    });
    let facts = HostFacts { momentum: 0.0, epsilon: 1e-3 };
    let engine = Engine::new(config.clone(), groups.collect(), facts).unwrap();
    Run { engine, host: Script::default() }
}

/// One rate, windows of so many steps, and the rule alone.
fn plain(steps: usize) -> NewtonConfig {
    let config = NewtonConfig::default().climb(None).ramp(false).settle(false).safeguard(None);
    config.window(Window::steps(steps).unwrap())
}

fn guarded(steps: usize) -> NewtonConfig {
    plain(steps).safeguard(Safeguard::default())
}

impl<R: RateRule> Run<R> {
    fn batch(&mut self, loss: f64, only_gathers: bool) -> Result<Step, StepError<String>> {
        drive(&mut self.engine, &mut self.host, Some(loss), only_gathers)
    }

    fn step(&mut self, loss: f64) -> Step {
        self.batch(loss, false).unwrap()
    }

    /// Steps with these losses; what became of the last.
    fn steps(&mut self, losses: &[f64]) -> Step {
        losses.iter().map(|loss| self.step(*loss)).last().unwrap()
    }

    /// One step that ends a window with these products.
    fn window(&mut self, products: WindowProducts) -> (f64, Outcome) {
        self.host.windows.push_back(vec![products]);
        drive(&mut self.engine, &mut self.host, None, false).unwrap();
        (self.rate(), self.engine.history().last().unwrap().outcome)
    }

    fn rate(&self) -> f64 {
        self.engine.rates().next().unwrap().1
    }

    fn log(&mut self) -> String {
        std::mem::take(&mut self.host.log).join("; ")
    }
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} for {b}");
}
