//! What the engine makes of slopes: at the start, where a loss has risen, and where none is told.
//!
//! The host is a model on paper: a few weights with a known loss, trained by an optimizer on paper.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use tlr::{engine::*, Cause};

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
    batch: usize,
    log: Vec<String>,
}

impl Paper {
    fn new(w: Vec<Vec<f64>>, gradient: impl Fn(&[f64], usize) -> Vec<f64> + 'static) -> Self {
        let (last, before) = (w.clone(), w.clone());
        let gradient = Box::new(gradient);
        Self { w, last, before, gradient, signs: false, decay: 0.0, batch: 0, log: Vec::new() }
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
        for ((w, gradient), rate) in self.w.iter_mut().zip(&gradients).zip(rates) {
            for (w, g) in w.iter_mut().zip(gradient) {
                let sign = if *g == 0.0 { 0.0 } else { g.signum() };
                *w -= rate * (if self.signs { sign } else { *g } + self.decay * *w);
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

    fn go_back(&mut self, target: Target) -> Result<(), ()> {
        self.log.push(format!("back {target:?}"));
        if target == Target::BeforeLast {
            self.last = self.before.clone();
        }
        self.w = self.last.clone();
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
        let numbers = Numbers { momentum: 0.0, spacing: f64::from(f32::EPSILON) };
        let engine = Engine::new(config, groups.collect(), numbers).unwrap();
        Self { engine, host }
    }

    fn step(&mut self, loss: Option<f64>) -> Step {
        let step = drive(&mut self.engine, &mut self.host, loss, false).unwrap();
        self.host.batch += 1;
        step
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
    let mut z = (index as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    3.46 * (((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 - 0.5)
}

/// ½·h·|w|².
fn bowl(h: f64) -> impl Fn(&[f64], usize) -> Vec<f64> {
    move |w, _| w.iter().map(|w| h * w).collect()
}

// ---- The start ----

// From any rate, of any curvature: on the bowl the way to the lowest point is one step at 1/h. Fails
// with another part of the first slope, without the trial, or if the given rate matters.
#[test]
fn the_rate_of_a_bowl_is_found_whatever_is_given() {
    for h in [1e-12, 1e-3, 1.0, 50.0, 1e12] {
        let found = [1e-12, 1e-3, 10.0, 1e30].map(|given| {
            let host = Paper::new(vec![vec![3.0, -4.0]], bowl(h));
            let mut run = Run::new(NewtonConfig::default(), given, host);
            let steps = run.ramp();
            assert!((15..=60).contains(&steps), "{h:e}, {given:e}: {steps} steps");
            // Nothing was gone back to, and no batch was left out.
            assert!(run.host.log.iter().all(|entry| entry == "slopes Last"), "{:?}", run.host.log);
            run.rates()[0]
        });
        assert!(found.iter().all(|rate| *rate == found[0]), "{h:e}: {found:?}");
        assert!((0.1..1.0).contains(&(h * found[0])), "{h:e}: {found:?}");
    }
}

// Weights that are all 0, and of 1e-9, on the way to 1.
#[test]
fn weights_that_start_at_zero() {
    for start in [0.0, 1e-9] {
        let host = Paper::new(vec![vec![start; 4]], |w, _| w.iter().map(|w| w - 1.0).collect());
        let mut run = Run::new(NewtonConfig::default(), 1e-6, host);
        assert!(run.ramp() <= 60);
        assert!((0.1..1.0).contains(&run.rates()[0]), "{start}: {:?}", run.rates());
    }
}

// Near the start, a batch without a gradient looks like the lowest point. Fails if that is believed.
#[test]
fn one_batch_near_the_start_does_not_end_the_ramp() {
    let found = |flat: Option<usize>| {
        let gradient =
            move |w: &[f64], batch| vec![if flat == Some(batch) { 0.0 } else { w[0] - 5.0 }];
        let mut run =
            Run::new(NewtonConfig::default(), 1e-9, Paper::new(vec![vec![1.0]], gradient));
        run.ramp();
        run.rates()[0]
    };
    let undisturbed = found(None);
    for flat in 8..16 {
        let rate = found(Some(flat));
        assert!((0.5..2.0).contains(&(rate / undisturbed)), "{flat}: {rate} for {undisturbed}");
    }
}

// A weight that is large and not learned makes every way a short one. The rate that is half-way is
// confirmed by the next one, and stays the rate that is found.
#[test]
fn a_confirmed_rate_is_the_one_that_was_half_way() {
    for still in [0.0, 1e3] {
        let bowl = |w: &[f64], _| vec![0.0, w[1] - 5.0];
        let mut run =
            Run::new(NewtonConfig::default(), 1e-9, Paper::new(vec![vec![still, 1.0]], bowl));
        run.ramp();
        // Half-way, and twice that.
        assert!((0.4..1.0).contains(&run.rates()[0]), "{still}: {:?}", run.rates());
    }
}

// Sign descent moves every weight by the rate. Of a thousand weights at 1, half-way is 0.5.
#[test]
fn steps_that_stay_long_start_lower() {
    let mut host = Paper::new(vec![vec![1.0; 1000]], bowl(1.0));
    host.signs = true;
    let mut run = Run::new(NewtonConfig::default(), 1e-6, host);
    assert!(run.ramp() <= 60);
    // The ramp's steps add up to about twice its last one.
    assert!((0.1..0.5).contains(&run.rates()[0]), "{:?}", run.rates());
}

// Gradients whose noise is ten times as long as they are: more steps, and no stop at once.
#[test]
fn noise_is_measured() {
    let noisy = |w: &[f64], batch| {
        w.iter().enumerate().map(|(i, w)| w + 10.0 * noise(batch * 100 + i)).collect()
    };
    for first in 0..5 {
        let started = |config| {
            let mut host = Paper::new(vec![vec![1.0; 50]], noisy);
            host.batch = first * 10_000;
            Run::new(config, 1e-6, host)
        };
        let mut run = started(NewtonConfig::default());
        let steps = run.ramp();
        assert!((30..2000).contains(&steps), "{steps}");
        let rate = run.rates()[0];
        assert!((1e-4..0.5).contains(&rate), "{first}: {rate:e} after {steps}");
        // A horizon does not raise the level.
        let mut told = started(NewtonConfig::default().horizon(10_000));
        assert_eq!((told.ramp(), told.rates()), (steps, run.rates()));
    }
}

// One group is a thousand times as steep as the other. The third has no gradient, and keeps its rate.
#[test]
fn each_group_by_its_own_slope() {
    let gradient = |w: &[f64], _| vec![w[0], w[1], 1e3 * w[2], 1e3 * w[3], 0.0];
    let w = vec![vec![1.0, 2.0], vec![1.0, 2.0], vec![1.0]];
    let mut run = Run::new(NewtonConfig::default(), 1e-3, Paper::new(w, gradient));
    assert!(run.ramp() <= 60);
    let [flat, steep, silent] = run.rates()[..] else { panic!() };
    assert!((0.1..1.0).contains(&flat) && (0.1..1.0).contains(&(1e3 * steep)), "{flat} {steep}");
    assert_eq!(silent, 1e-3);
    // Neither does it keep one that is above all others.
    let gradient = |w: &[f64], _| vec![w[0], 0.0];
    let w = vec![vec![1.0], vec![1.0]];
    let mut run = Run::new(NewtonConfig::default(), 1e3, Paper::new(w, gradient));
    run.ramp();
    assert_eq!(run.rates()[0], run.rates()[1]);
}

// The first batches have no gradient at all: nothing moves, and then the rate is found as ever. Fails
// where the given rate is taken for one that was found.
#[test]
fn a_start_without_a_gradient() {
    let late = |w: &[f64], batch| vec![if batch < 3 { 0.0 } else { w[0] }];
    let found = [1e-9, 1e9].map(|given| {
        let host = Paper::new(vec![vec![2.0]], late);
        let mut run = Run::new(NewtonConfig::default(), given, host);
        (0..3).for_each(|_| assert!(matches!(run.step(None), Step::Ramped { .. })));
        assert_eq!((run.rates()[0], run.host.w[0][0]), (given, 2.0));
        run.ramp();
        run.rates()[0]
    });
    assert!(found[0] == found[1] && (0.1..1.0).contains(&found[0]), "{found:?}");
}

// A group whose gradient comes late starts at the largest of the others' rates, with its first window
// that has one. A fixed rate (here 10) does not count.
#[test]
fn a_late_group_starts_where_the_others_are() {
    let gradient =
        |w: &[f64], batch| vec![w[0] - 5.0, if batch < 60 { 0.0 } else { w[1] }, w[2] - 2.0];
    for given in [1e-9, 10.0] {
        for (window, loss) in [(5, None), (1, None), (5, Some(1.0)), (1, Some(1.0))] {
            let config = NewtonConfig::default().window(Window::steps(window).unwrap());
            let host = Paper::new(vec![vec![1.0], vec![1.0], vec![1.0]], gradient);
            let mut run = Run::with_fixed(config, given, host, Some(2));
            run.ramp();
            let silent = run.rates()[1];
            assert_eq!(silent, given.min(run.rates()[0]));
            while run.host.batch < 60 {
                run.step(loss);
                assert_eq!((run.rates()[1], run.host.w[1][0]), (silent, 1.0));
            }
            let mut rates = vec![run.rates()];
            while run.host.batch < 70 {
                run.step(loss);
                rates.push(run.rates());
            }
            let started = rates.iter().map(|rates| rates[1]).find(|rate| *rate != silent).unwrap();
            let took = |rates: &Vec<f64>| rates[0] == started;
            assert!(given == 10.0 || rates.iter().any(took), "{window}: {rates:?}");
            assert!(rates.iter().all(|rates| rates[1] < 5.0), "{window}: {rates:?}");
        }
    }
}

// Its decay moves a group without a gradient: its rate stays, and it loses what its rate takes.
#[test]
fn decay_does_not_eat_what_has_no_gradient() {
    let gradient = |w: &[f64], _| vec![w[0] - 5.0, 0.0];
    let config = NewtonConfig::default().window(Window::steps(5).unwrap());
    let mut host = Paper::new(vec![vec![1.0], vec![1.0]], gradient);
    host.decay = 5e-4;
    let mut run = Run::new(config, 1e-3, host);
    (0..500).for_each(|_| drop(run.step(None)));
    assert_eq!(run.rates()[1], 1e-3);
    let constant = (1.0 - 1e-3 * 5e-4_f64).powi(500);
    assert!((run.host.w[1][0] - constant).abs() < 1e-12);
}

// A valley that ends at a cliff: behind it the slope is as steep up as it was down. The weights go
// back to the start.
#[test]
fn too_far_is_gone_back_from() {
    let gradient = |w: &[f64], _| vec![if w[0] > 1.0 - 1e-3 { 1.0 } else { -1e3 }];
    for given in [1e-9, 10.0] {
        let mut run =
            Run::new(NewtonConfig::default(), given, Paper::new(vec![vec![2.0]], gradient));
        let mut undone = None;
        for _ in 0..100 {
            if let Step::RolledBack { cause, decisions } = run.step(None) {
                undone = Some((cause, decisions[0].from > decisions[0].to));
                break;
            }
        }
        assert_eq!(undone, Some((Cause::WentTooFar, true)));
        assert_eq!(run.host.w, [[2.0]]);
        // And it does not ramp again.
        run.host.log.clear();
        run.step(None);
        assert!(run.host.log.is_empty());
    }
}

// From sketches there is no way back: the ramp ends where it is, with rates below what went too far.
#[test]
fn too_far_without_snapshots_is_the_end_of_the_ramp() {
    let gradient = |w: &[f64], _| vec![if w[0] > 1.0 - 1e-3 { 1.0 } else { -1e3 }];
    let config = NewtonConfig::default().safeguard(None).sketch(64);
    let mut run = Run::new(config, 1e-3, Paper::new(vec![vec![2.0]], gradient));
    run.ramp();
    assert!(run.host.log.iter().all(|entry| !entry.starts_with("back")), "{:?}", run.host.log);
    let largest = run.engine.history().iter().map(|decision| decision.from).fold(0.0, f64::max);
    assert!(run.rates()[0] < largest);
}

// One gradient that is not a number is left out. At the start, two are the batches' fault; later the
// weights go back.
#[test]
fn gradients_that_are_no_numbers() {
    let broken_at = |from: usize, to: usize| {
        let gradient =
            move |w: &[f64], batch| vec![if (from..to).contains(&batch) { f64::NAN } else { w[0] }];
        Run::new(NewtonConfig::default(), 1e-3, Paper::new(vec![vec![2.0]], gradient))
    };
    let mut run = broken_at(0, 1);
    assert_eq!(run.step(None), Step::Skipped(Cause::NonFiniteGradient));
    run.ramp();
    assert!((0.1..1.0).contains(&run.rates()[0]));

    let mut run = broken_at(0, 2);
    run.step(None);
    let undone = run.step(None);
    assert!(matches!(undone, Step::RolledBack { cause: Cause::NonFiniteGradient, .. }));
    assert_eq!(run.rates(), [1e-3]);
    run.ramp();
    assert!((0.1..1.0).contains(&run.rates()[0]));

    let mut run = broken_at(12, 14);
    (0..12).for_each(|_| drop(run.step(None)));
    let before = run.rates()[0];
    assert_eq!(run.step(None), Step::Skipped(Cause::NonFiniteGradient));
    assert!(matches!(run.step(None), Step::RolledBack { cause: Cause::WentTooFar, .. }));
    assert_eq!((run.rates()[0], run.host.w[0][0]), (before / 4.0, 2.0));

    // Rates that are fixed, or whose group has had no gradient, have led nowhere.
    let gradient = |w: &[f64], batch| {
        let broken = (12..14).contains(&batch);
        vec![if broken { f64::NAN } else { w[0] }, w[1], 0.0]
    };
    let host = Paper::new(vec![vec![2.0], vec![2.0], vec![2.0]], gradient);
    let mut run = Run::with_fixed(NewtonConfig::default(), 1e-3, host, Some(1));
    (0..12).for_each(|_| drop(run.step(None)));
    let before = run.rates();
    (0..2).for_each(|_| drop(run.step(None)));
    assert_eq!(run.rates(), [before[0] / 4.0, before[1], before[2]]);
}

// Two losses in a row that are not numbers undo the ramp, and a loss that explodes where the way
// explains it. One that the way does not explain is nothing to it.
#[test]
fn losses_on_the_ramp() {
    let run = || {
        let mut run =
            Run::new(NewtonConfig::default(), 1e-3, Paper::new(vec![vec![2.0]], bowl(1.0)));
        (0..16).for_each(|_| drop(run.step(Some(2.0))));
        run
    };
    let undo = |broken: &mut Run| {
        assert_eq!(broken.step(Some(f64::NAN)), Step::Skipped(Cause::NonFiniteLoss));
        let undone = broken.step(Some(f64::NAN));
        assert!(matches!(undone, Step::RolledBack { cause: Cause::NonFiniteLoss, .. }));
        assert_eq!(broken.host.w, [[2.0]]);
    };
    let mut broken = run();
    let before = broken.rates()[0];
    undo(&mut broken);
    // The ramp is over, with rates below what led there.
    assert_eq!(broken.rates(), [before / 4.0]);
    assert_eq!(broken.step(Some(2.0)), Step::Made);
    // At the start there is nothing to undo.
    let host = Paper::new(vec![vec![2.0]], bowl(1.0));
    let mut broken = Run::new(NewtonConfig::default(), 1e-3, host);
    undo(&mut broken);
    assert_eq!(broken.rates(), [1e-3]);
    assert!(matches!(broken.step(Some(2.0)), Step::Ramped { .. }));
    let mut risen = run();
    assert!(matches!(risen.step(Some(1e9)), Step::Ramped { .. }));
}

// The steps of the ramp are in the history, and the schedule and the window wait for its end.
#[test]
fn the_ramp_is_told() {
    let config = NewtonConfig::default().window(Window::steps(3).unwrap());
    let mut run = Run::new(config, 1e-3, Paper::new(vec![vec![2.0]], bowl(1.0)));
    run.engine.set_schedule(Some(Schedule::from_fn(|_| 1e-9)));
    assert_eq!(run.engine.factor(), 1.0);
    let steps = run.ramp();
    assert_eq!(run.engine.factor(), 1e-9);
    assert!((0.1..1.0).contains(&run.rates()[0]));
    let history = run.engine.take_history();
    assert!(history.iter().all(|decision| decision.outcome == Outcome::Ramped));
    assert_eq!((history[0].from, history[0].step), (1e-3, 0));
    assert_eq!(history.last().unwrap().to, run.rates()[0]);
    assert_eq!(run.engine.steps(), steps as u64);
    (0..2).for_each(|_| assert_eq!(run.step(None), Step::Made));
    assert!(matches!(run.step(None), Step::WindowEnded { .. }));
    // From the start again.
    run.engine.reset();
    assert!(matches!(run.step(None), Step::Ramped { .. }));
}

// ---- Blame ----

/// Accepted windows of two steps at a level of 1, on a bowl of two groups whose rates are given.
fn steady(safeguard: Safeguard, rate: f64, h: [f64; 2]) -> Run {
    steady_but(None, safeguard, rate, h)
}

/// The same, with one group's rate fixed.
fn steady_but(fixed_rate: Option<usize>, safeguard: Safeguard, rate: f64, h: [f64; 2]) -> Run {
    // The rule leaves these rates where they are.
    let config = NewtonConfig::default().climb(None).ramp(false).settle(false).damping(1e-12);
    let config = config.safeguard(safeguard).window(Window::steps(2).unwrap());
    let gradient = move |w: &[f64], _| vec![h[0] * w[0], h[1] * w[1]];
    let host = Paper::new(vec![vec![1.0], vec![1.0]], gradient);
    let mut run = Run::with_fixed(config, rate, host, fixed_rate);
    (0..4).for_each(|_| drop(run.step(Some(1.0))));
    run
}

// The loss rises by 100 for good, while the weights hardly move: no step fails, and no rate is cut.
// Without blame the windows are undone.
#[test]
fn a_rise_that_the_way_does_not_explain_is_forgiven() {
    let mut run = steady(Safeguard::default(), 1e-6, [1.0, 1.0]);
    assert_eq!(run.step(Some(101.0)), Step::Skipped(Cause::LossExploded));
    for _ in 0..100 {
        let step = run.step(Some(101.0));
        assert!(matches!(step, Step::Made | Step::WindowEnded { .. }), "{step:?}");
    }
    assert!(run.engine.history().iter().all(|d| !matches!(d.outcome, Outcome::RolledBack(_))));
    assert!(run.host.log.iter().any(|entry| entry.starts_with("slopes")));

    let mut blamed = steady(Safeguard::default().blame(None), 1e-6, [1.0, 1.0]);
    blamed.step(Some(101.0));
    let Step::RolledBack { decisions, .. } = blamed.step(Some(101.0)) else { panic!() };
    assert!(decisions.iter().all(|decision| decision.to == 0.5 * decision.from));
    assert!(blamed.host.log.iter().all(|entry| !entry.starts_with("slopes")));
}

// A loss that is not a number has not risen: no way explains it, and none is asked for.
#[test]
fn a_loss_that_is_no_number_is_not_explained() {
    let mut run = steady(Safeguard::default(), 1e-6, [1.0, 1.0]);
    run.step(Some(1.0));
    run.host.log.clear();
    assert_eq!(run.step(Some(f64::NAN)), Step::Skipped(Cause::NonFiniteLoss));
    assert!(matches!(run.step(Some(f64::NAN)), Step::RolledBack { .. }));
    assert_eq!(run.host.log, ["skip", "back Last"]);
}

// One group has jumped over its valley and up the other side: only its rate is cut.
// Where that one's rate is fixed, the other has to be.
#[test]
fn only_the_group_that_explains_the_rise_is_cut() {
    for (fixed_rate, cuts) in [(None, [1.0, 0.5]), (Some(0), [1.0, 0.5]), (Some(1), [0.5, 1.0])] {
        let mut run = steady_but(fixed_rate, Safeguard::default(), 1e-3, [1.0, 1.0]);
        run.host.gradient = Box::new(|w, _| vec![w[0], -5e3 * w[1]]);
        run.step(Some(1.0));
        // By now the second weight has moved, and its gradient turns round.
        run.host.gradient = Box::new(|w, _| vec![w[0], 5e3 * w[1]]);
        assert_eq!(run.step(Some(1e6)), Step::Skipped(Cause::LossExploded));
        let Step::RolledBack { decisions, .. } = run.step(Some(1e6)) else { panic!() };
        let made: Vec<f64> = decisions.iter().map(|decision| decision.to / decision.from).collect();
        assert_eq!(made, cuts, "{fixed_rate:?} fixed_rate");
    }
}

// ---- Without a loss ----

// A rate at which the bowl is jumped out of, told by no loss: the weights come back, and the rate is
// cut until they stay. Without the witness they are gone.
#[test]
fn without_a_loss_the_slope_is_the_witness() {
    let run = |safeguard: Option<Safeguard>| {
        let config = NewtonConfig::default().climb(None).ramp(false).settle(false);
        // The rule never lowers this rate.
        let config = config.damping(1e-9).safeguard(safeguard);
        let config = config.window(Window::steps(5).unwrap());
        let host = Paper::new(vec![vec![1.0, 1.0]], bowl(1.0));
        let mut run = Run::new(config, 3.0, host);
        (0..200).for_each(|_| drop(run.step(None)));
        run
    };
    let watched = run(Some(Safeguard::default()));
    assert!(watched.host.w[0][0].abs() < 1.0, "{:?}", watched.host.w);
    assert!(watched.rates()[0] < 2.0);
    let causes = watched.engine.history().iter().map(|decision| decision.outcome);
    assert!(causes.clone().any(|cause| cause == Outcome::RolledBack(Cause::WentTooFar)));
    assert!(run(None).host.w[0][0].abs() > 1e50);
}

// Not only at the end of a window: one of a thousand steps comes back within a few of its first.
// Fails if the ways on the way are not looked at, or if they are with a loss.
#[test]
fn without_a_loss_a_window_is_looked_at_on_its_way() {
    let run = |loss: Option<f64>| {
        let config = NewtonConfig::default().ramp(false).window(Window::steps(1000).unwrap());
        let mut run = Run::new(config, 3.0, Paper::new(vec![vec![1.0, 1.0]], bowl(1.0)));
        (0..40).for_each(|_| drop(run.step(loss)));
        run
    };
    let watched = run(None);
    assert!(watched.host.w[0][0].abs() < 10.0, "{:?}", watched.host.w);
    assert!(watched.rates()[0] < 2.0);
    assert!(run(Some(1.0)).host.log.is_empty());
}

// Where a loss is told it is the witness, though the slopes of a window's end are known. Fails if
// they undo the window.
#[test]
fn with_a_loss_the_slope_undoes_nothing() {
    let config = NewtonConfig::default().climb(None).ramp(false).damping(1e-9);
    let config = config.window(Window::steps(5).unwrap());
    let mut run = Run::new(config, 3.0, Paper::new(vec![vec![1.0, 1.0]], bowl(1.0)));
    (0..10).for_each(|_| drop(run.step(Some(1.0))));
    assert!(run.host.log.contains(&"slopes Last".to_owned()));
    let undone = |decision: &Adaptation| matches!(decision.outcome, Outcome::RolledBack(_));
    assert!(!run.engine.history().iter().any(undone));
}

// Windows of one step have no way of their own: that of the window before is looked at. Fails without
// it; the rule is kept from lowering the rate.
#[test]
fn without_a_loss_windows_of_one_step_are_looked_at() {
    let config = NewtonConfig::default().climb(None).ramp(false).damping(1e-9);
    let config = config.window(Window::steps(1).unwrap());
    let mut run = Run::new(config, 3.0, Paper::new(vec![vec![1.0, 1.0]], bowl(1.0)));
    (0..200).for_each(|_| drop(run.step(None)));
    assert!(run.host.w[0][0].abs() < 10.0, "{:?}", run.host.w);
    assert!(run.host.log.contains(&"slopes BeforeLast".to_owned()));
}

// Weights that are thrown far out, to where there is no gradient, come back. Fails if only gradients
// tell.
#[test]
fn without_a_loss_a_way_out_of_all_gradients_is_too_far() {
    let config = NewtonConfig::default().ramp(false).settle(false);
    let config = config.window(Window::steps(4).unwrap());
    // A slope that ends.
    let gradient = |w: &[f64], _| vec![if w[0].abs() < 2.0 { 1.0 } else { 0.0 }];
    let mut run = Run::new(config, 50.0, Paper::new(vec![vec![1.0]], gradient));
    (0..3).for_each(|_| assert_eq!(run.step(None), Step::Made));
    assert!(matches!(run.step(None), Step::RolledBack { cause: Cause::WentTooFar, .. }));
    assert_eq!(run.host.w, [[1.0]]);
    assert_eq!(run.rates(), [5.0]);
}

// ---- Windows that end uphill ----

// Steps of one length jump over the lowest point and back: the rate settles, and only where it may.
#[test]
fn a_rate_settles_where_windows_end_uphill() {
    let run = |on: bool, loss: Option<f64>| {
        let config = NewtonConfig::default().ramp(false).settle(on);
        let mut host = Paper::new(vec![vec![1.0, 0.7, 0.4]], bowl(1.0));
        host.signs = true;
        let mut run = Run::new(config.window(Window::steps(5).unwrap()), 0.3, host);
        (0..200).for_each(|_| drop(run.step(loss)));
        let mut outcomes = run.engine.history().iter().map(|decision| decision.outcome);
        (outcomes.any(|outcome| outcome == Outcome::Settled), run.rates()[0])
    };
    for loss in [Some(1.0), None] {
        let (settled, rate) = run(true, loss);
        assert!(settled && rate < 0.1, "{rate}");
        assert!(!run(false, loss).0);
    }
}

// ---- The horizon ----

// What is learned is the level. The rate stays there after the end of the ramp, and falls evenly at
// the end, no further once the horizon is reached. Fails with another shape.
#[test]
fn the_horizon_begins_where_the_ramp_ends() {
    let config = NewtonConfig::default().window(Window::steps(1000).unwrap());
    let mut run = Run::new(config, 1e-3, Paper::new(vec![vec![2.0]], bowl(1.0)));
    let ramp = run.ramp() as u64;
    let config = config.horizon(ramp + 10);
    let mut told = Run::new(config, 1e-3, Paper::new(vec![vec![2.0]], bowl(1.0)));
    assert_eq!(told.ramp() as u64, ramp);
    let level = run.rates()[0];
    assert_eq!(told.rates(), [level]);
    for factor in [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0] {
        let before = told.host.w[0][0];
        assert!((told.engine.factor() - factor).abs() < 1e-12);
        told.step(None);
        let rate = 1.0 - told.host.w[0][0] / before;
        assert!((rate / level - factor).abs() < 1e-9);
    }
    assert_eq!(told.rates(), [level]);
}

// ---- Directions that agree for other reasons ----

// Two windows agree, but the loss does not fall along their way: here a decay without a gradient to
// speak of. The rate stays where it is; with a gradient along the way it rises.
#[test]
fn a_rate_rises_only_where_the_loss_falls() {
    let run = |gradient: fn(&[f64], usize) -> Vec<f64>| {
        let config = NewtonConfig::default().ramp(false).settle(false).safeguard(None);
        let mut host = Paper::new(vec![vec![1.0, 0.0]], gradient);
        host.decay = 1.0;
        let mut run = Run::new(config.window(Window::steps(2).unwrap()), 1e-4, host);
        (0..20).for_each(|_| drop(run.step(None)));
        (run.rates()[0], run.engine.history().last().unwrap().outcome)
    };
    let across = |_: &[f64], batch| vec![0.0, if batch % 2 == 0 { 1e-3 } else { -1e-3 }];
    let kept = Outcome::Kept(KeptBecause::NotDownhill);
    assert_eq!(run(across), (1e-4, kept));
    assert!(run(|w, _| vec![w[0], 0.0]).0 > 1e-3);
}
