//! What the engine makes of slopes: at the start, where a loss has risen, and where none is told.
//!
//! The host is a model on paper: a few weights with a known loss, trained by an optimizer on paper.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod blame;
mod ramp;
#[path = "../random/mod.rs"]
mod random;
mod velocity;
mod windows;
mod without_loss;

use tlr::engine::*;

/// The gradient of some weights, in the batch of a step.
type Gradient = Box<dyn Fn(&[f64], usize) -> Vec<f64>>;

/// Groups of weights in f64, and an optimizer on paper.
struct Paper {
    /// The weights, group by group.
    w: Vec<Vec<f64>>,
    last: Vec<Vec<f64>>,
    before: Vec<Vec<f64>>,
    gradient: Gradient,
    /// Takes signs of gradients, and not gradients.
    signs: bool,
    /// Decoupled: each step takes this part of the weights, times the rate.
    decay: f64,
    /// The part of the velocity that stays in each step: heavy-ball momentum.
    momentum: f64,
    velocity: Vec<Vec<f64>>,
    /// Whether the velocity cannot be cleared.
    fails_to_clear: bool,
    batch: usize,
    log: Vec<String>,
}

impl Paper {
    fn new(w: Vec<Vec<f64>>, gradient: impl Fn(&[f64], usize) -> Vec<f64> + 'static) -> Self {
        let (last, before) = (w.clone(), w.clone());
        Self {
            velocity: still(&w),
            w,
            last,
            before,
            gradient: Box::new(gradient),
            signs: false,
            decay: 0.0,
            momentum: 0.0,
            fails_to_clear: false,
            batch: 0,
            log: Vec::new(),
        }
    }

    fn gradients(&self) -> Vec<Vec<f64>> {
        let all = (self.gradient)(&self.w.concat(), self.batch);
        let mut rest = &all[..];
        let mut groups = Vec::new();
        for group in &self.w {
            let (these, others) = rest.split_at(group.len());
            groups.push(these.to_vec());
            rest = others;
        }
        groups
    }
}

/// No velocity.
fn still(w: &[Vec<f64>]) -> Vec<Vec<f64>> {
    w.iter().map(|group| vec![0.0; group.len()]).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn minus(x: &[f64], y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| x - y).collect()
}

impl Host for Paper {
    type Error = ();

    fn take_snapshot(&mut self, kind: TensorKind) -> Result<(), ()> {
        if kind == TensorKind::Weights {
            self.last = self.w.clone();
        }
        Ok(())
    }

    fn update(&mut self, rates: &[f64]) -> Result<(), ()> {
        let gradients = self.gradients();
        let groups = self.w.iter_mut().zip(&mut self.velocity);
        for (((w, velocity), gradient), rate) in groups.zip(&gradients).zip(rates) {
            for ((w, v), g) in w.iter_mut().zip(velocity).zip(gradient) {
                let sign = if *g == 0.0 { 0.0 } else { g.signum() };
                *v = self.momentum * *v + if self.signs { sign } else { *g };
                *w -= rate * (*v + self.decay * *w);
            }
        }
        Ok(())
    }

    fn skip(&mut self, _drop_gathered: bool) -> Result<(), ()> {
        self.log.push("skip".into());
        Ok(())
    }

    fn end_window(&mut self) -> Result<WindowEnd, ()> {
        let mut products = Vec::new();
        for ((before, last), w) in self.before.iter().zip(&self.last).zip(&self.w) {
            let (then, now) = (minus(before, last), minus(last, w));
            products.push(WindowProducts { across: dot(&then, &now), own: dot(&now, &now) });
        }
        self.before = std::mem::replace(&mut self.last, self.w.clone());
        Ok(WindowEnd::Products(products))
    }

    fn weights_are_finite(&mut self) -> Result<bool, ()> {
        Ok(self.w.concat().iter().all(|w| w.is_finite()))
    }

    fn slopes(&mut self, since: Target) -> Result<Vec<Slope>, ()> {
        self.log.push(format!("slopes {since:?}"));
        let from = match since {
            Target::Last => &self.last,
            Target::BeforeLast => &self.before,
        };
        let groups = self.w.iter().zip(from).zip(self.gradients());
        let slopes = groups.map(|((w, from), gradient)| {
            let way = minus(w, from);
            Slope {
                along: dot(&gradient, &way),
                moved: dot(&way, &way).sqrt(),
                gradient: dot(&gradient, &gradient).sqrt(),
                norm: dot(from, from).sqrt(),
                weights: w.len() as u64,
            }
        });
        Ok(slopes.collect())
    }

    fn clear_optimizer(&mut self) -> Result<(), ()> {
        self.log.push("clear".into());
        if self.fails_to_clear {
            return Err(());
        }
        self.velocity = still(&self.w);
        Ok(())
    }

    fn go_back(&mut self, target: Target) -> Result<(), ()> {
        self.log.push(format!("back {target:?}"));
        if target == Target::BeforeLast {
            self.last = self.before.clone();
        }
        self.w = self.last.clone();
        self.velocity = still(&self.w);
        Ok(())
    }
}

struct Run {
    engine: Engine<NewtonRule>,
    host: Paper,
}

impl Run {
    fn new(config: NewtonConfig, rate: f64, host: Paper) -> Self {
        Self::with_fixed(config, rate, host, None)
    }

    /// One group's rate stays where it is.
    fn with_fixed(config: NewtonConfig, rate: f64, host: Paper, fixed_rate: Option<usize>) -> Self {
        let groups = (0..host.w.len()).map(|index| Group {
            name: index.to_string().into(),
            fixed_rate: fixed_rate == Some(index),
            rate,
        });
        let facts = HostFacts { momentum: host.momentum, epsilon: f64::from(f32::EPSILON) };
        let engine = Engine::new(config, groups.collect(), facts).unwrap();
        Self { engine, host }
    }

    fn step(&mut self, loss: Option<f64>) -> Step {
        let step = drive(&mut self.engine, &mut self.host, loss, false).unwrap();
        self.host.batch += 1;
        step
    }

    /// A batch that is only gathered.
    fn gather(&mut self, loss: Option<f64>) -> Step {
        drive(&mut self.engine, &mut self.host, loss, true).unwrap()
    }

    /// Whether each group's rate has a bound, because a higher one was undone.
    fn are_bound(&self) -> Vec<bool> {
        let state = serde_json::to_value(self.engine.state()).unwrap();
        let groups = state["groups"].as_array().unwrap();
        groups.iter().map(|group| !group["bound"].is_null()).collect()
    }

    fn rates(&self) -> Vec<f64> {
        self.engine.rates().map(|(_, rate)| rate).collect()
    }

    /// Steps without a loss, until the ramp is over; how many.
    fn ramp(&mut self) -> usize {
        for steps in 1..5000 {
            let step = self.step(None);
            if self.engine.lacks_snapshot() || matches!(step, Step::RolledBack { .. }) {
                return steps;
            }
        }
        panic!("the ramp does not end: {:?}", self.rates());
    }
}

/// Numbers without pattern, of mean 0 and deviation 1 or so.
fn noise(index: usize) -> f64 {
    let number = random::Random((index as u64).wrapping_mul(random::STEP)).number();
    3.46 * ((number >> 11) as f64 / (1u64 << 53) as f64 - 0.5)
}

/// ½·h·|w|².
fn bowl(h: f64) -> impl Fn(&[f64], usize) -> Vec<f64> {
    move |w, _| w.iter().map(|w| h * w).collect()
}
