//! The engine alone, told anything: ten million events, most of them as bad as can be.
//!
//! Whatever it is told, and in whatever order, rates stay within their bounds, an event out of
//! order changes nothing, a state that is saved and loaded goes on alike, and training can go on.
//!
//! `TLR_ENGINE_EVENTS` is the number of events, for a longer or a shorter run.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod random;

use random::Random;
use std::{ops::Range, sync::Arc};
use tlr::{engine::*, Error};

impl Random {
    fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// In [0, 1).
    fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn magnitude(&mut self, exponents: Range<i32>) -> f64 {
        let span = f64::from(exponents.end - exponents.start);
        10f64.powf(f64::from(exponents.start) + span * self.fraction())
    }

    /// A figure as bad as can be, in one of three cases.
    fn figure(&mut self) -> f64 {
        let sign = if self.chance(4) { -1.0 } else { 1.0 };
        sign * match self.below(12) {
            0 => 0.0,
            1 => [f64::NAN, f64::INFINITY][self.below(2)],
            2 => [f64::MAX, f64::MIN_POSITIVE, 5e-324][self.below(3)],
            3 => self.magnitude(-300..300),
            4 => self.magnitude(-30..30),
            _ => self.magnitude(-1..1),
        }
    }
}

/// Losses of one stream: mostly a level with noise around it, which may have heavy tails, move, or
/// end.
struct Losses {
    level: f64,
    noise: f64,
}

impl Losses {
    fn next(&mut self, random: &mut Random) -> f64 {
        if random.chance(200) {
            self.level = random.figure();
        }
        match random.below(40) {
            0 => return random.figure(),
            1 => self.level *= 10.0,
            2 => self.level += 100.0,
            _ => self.level *= 0.99,
        }
        let normal = (0..6).map(|_| random.fraction()).sum::<f64>() - 3.0;
        self.level + self.noise * normal.powi(3)
    }
}

#[derive(Clone, Copy)]
enum AnyRule {
    Newton(NewtonRule),
    Hypergradient(HypergradientRule),
    /// Proposes the worst there is.
    Mad,
}

impl RateRule for AnyRule {
    fn propose(&self, rate: f64, previous: f64, products: &DirectionProducts) -> Proposal {
        match self {
            Self::Newton(rule) => rule.propose(rate, previous, products),
            Self::Hypergradient(rule) => rule.propose(rate, previous, products),
            Self::Mad => {
                let rates = [f64::NAN, f64::INFINITY, -1.0, 0.0, f64::MAX, 1e-300];
                let rate = rates[(products.un.to_bits() % 6) as usize];
                Proposal { rate, outcome: Outcome::Scaled }
            }
        }
    }
}

/// An engine, and how to make the same once more.
struct Setup {
    config: Config<AnyRule>,
    groups: Vec<Group>,
    schedule: Option<Schedule>,
}

impl Setup {
    fn new(random: &mut Random) -> Self {
        let rule = match random.below(5) {
            0 => AnyRule::Newton(NewtonRule::default().form(NewtonForm::Paper)),
            1 => AnyRule::Hypergradient(HypergradientRule::additive(random.magnitude(-6..6))),
            2 => AnyRule::Hypergradient(HypergradientRule::multiplicative(random.magnitude(-6..6))),
            3 => AnyRule::Mad,
            _ => AnyRule::Newton(NewtonRule::default().damping(1.0 - random.fraction())),
        };
        let safeguard = match random.below(4) {
            0 => None,
            1 => {
                let safeguard =
                    Safeguard::default().standard_errors(0.0).tolerance(0.0).max_rollbacks(1);
                Some(safeguard.cut(1e-300).first_cut(1e-300).trust(1))
            }
            _ => Some(Safeguard::default()),
        };
        let sketch = (safeguard.is_none() && random.chance(2)).then_some(64);
        let config = Config::new(rule)
            .window(Window::steps(1 + random.below(6)).unwrap())
            .climb((!random.chance(3)).then_some(0.8))
            .ramp(random.chance(2))
            .settle(random.chance(2))
            .horizon(random.chance(4).then_some(1000))
            .safeguard(safeguard)
            .sketch(sketch);
        let groups = (0..1 + random.below(3)).map(|index| Group {
            name: Arc::from(index.to_string()),
            fixed_rate: random.chance(8),
            rate: random.magnitude(-30..30).clamp(1e-30, 1e30),
        });
        let groups = groups.collect();
        let schedule = match random.below(6) {
            0 => Some(Schedule::warm_restarts(7, 2, 0.0).unwrap()),
            1 => Some(Schedule::from_fn(|step| [1.0, 0.0, 1e300, f64::NAN][step as usize % 4])),
            2 => Some(Schedule::warm_up(50).unwrap()),
            _ => None,
        };
        Self { config, groups, schedule }
    }

    fn engine(&self) -> Engine<AnyRule> {
        let facts = HostFacts { momentum: 0.9, epsilon: f64::from(f32::EPSILON) };
        let mut engine = Engine::new(self.config, self.groups.clone(), facts).unwrap();
        engine.set_schedule(self.schedule.clone());
        engine
    }
}

fn batch(random: &mut Random, losses: &mut Losses) -> Event {
    let loss = (!random.chance(10)).then(|| losses.next(random));
    Event::Batch { loss, only_gathers: random.chance(5) }
}

/// Mostly those of a way down a valley, at times as bad as can be.
fn slopes(groups: usize, random: &mut Random) -> Event {
    let bad = random.chance(10);
    let slopes = (0..groups).map(|_| match (bad, random.chance(8)) {
        (true, _) => Slope {
            along: random.figure(),
            moved: random.figure().abs(),
            gradient: random.figure().abs(),
            norm: random.figure().abs(),
            weights: random.number() >> random.below(64),
        },
        // It does not move.
        (false, true) => Slope { norm: 1.0, weights: 10, ..Slope::default() },
        (false, false) => {
            let moved = random.magnitude(-8..2);
            let along = (moved - 1.0 + 0.1 * random.fraction()) * moved;
            Slope { along, moved, gradient: 1.0, norm: 1.0, weights: 10 }
        }
    });
    Event::Slopes(slopes.collect())
}

/// An event that answers `request`, with figures as bad as can be.
fn answer(request: &Request, groups: usize, random: &mut Random, losses: &mut Losses) -> Event {
    match request {
        Request::TakeSnapshot(_) => Event::SnapshotTaken,
        Request::CheckWeights => Event::WeightsChecked { finite: !random.chance(4) },
        // Some hosts cannot tell.
        Request::MeasureSlopes(_) if random.chance(200) => Event::Slopes(Vec::new()),
        Request::MeasureSlopes(_) => slopes(groups, random),
        Request::Update => Event::Updated,
        Request::ClearOptimizer => Event::OptimizerCleared,
        Request::Skip { .. } => Event::Skipped,
        Request::EndWindow if random.chance(20) => Event::WindowBroken { tensor: "w".into() },
        Request::EndWindow => {
            // Half of all windows agree with the one before.
            let products = (0..groups).map(|_| match random.chance(2) {
                true => {
                    let own = random.magnitude(-20..20);
                    WindowProducts { across: own * random.fraction(), own }
                }
                false => WindowProducts { across: random.figure(), own: random.figure().abs() },
            });
            Event::WindowEnded(products.collect())
        }
        Request::TellMovable if random.chance(4) => Event::Movable(Vec::new()),
        Request::TellMovable => Event::Movable((0..groups).map(|_| !random.chance(4)).collect()),
        Request::MeasureNorms if random.chance(4) => Event::Norms(Vec::new()),
        Request::MeasureNorms => Event::Norms((0..groups).map(|_| random.figure().abs()).collect()),
        Request::GoBack(_) => Event::WentBack,
        Request::Done(_) => batch(random, losses),
    }
}

/// Any event at all.
fn anything(random: &mut Random, losses: &mut Losses) -> Event {
    let requests = [
        Request::TakeSnapshot(TensorKind::Weights),
        Request::CheckWeights,
        Request::MeasureSlopes(Target::Last),
        Request::Update,
        Request::ClearOptimizer,
        Request::Skip { drop_gathered: true },
        Request::EndWindow,
        Request::TellMovable,
        Request::MeasureNorms,
        Request::GoBack(Target::Last),
        Request::Done(Step::Made),
    ];
    let groups = random.below(5);
    answer(&requests[random.below(requests.len())], groups, random, losses)
}

fn json(engine: &Engine<AnyRule>) -> String {
    serde_json::to_string(engine.state()).unwrap()
}

/// Rates that are numbers within the bounds, always.
fn check(engine: &Engine<AnyRule>, seed: u64) {
    let effective = engine.effective_rates().iter().copied();
    for rate in engine.rates().map(|(_, rate)| rate).chain(effective) {
        assert!(RATES.contains(&rate), "stream {seed}: {rate:e}");
    }
}

/// One stream; how many of its steps were made.
fn stream(seed: u64, events: usize) -> u64 {
    let mut random = Random(seed);
    let random = &mut random;
    let setup = Setup::new(random);
    let mut engine = setup.engine();
    let groups = setup.groups.len();
    let noise = if random.chance(3) { 0.0 } else { random.magnitude(-3..3) };
    let losses = &mut Losses { level: random.figure(), noise };
    // A second engine, that was loaded from the first, and how long it still goes along.
    let mut twin: Option<(Engine<AnyRule>, usize)> = None;
    let mut request = Request::Done(Step::Made);
    let mut made = 0;
    for _ in 0..events {
        if random.chance(3000) {
            let mut loaded = setup.engine();
            let saved = json(&engine);
            loaded.resume(serde_json::from_str(&saved).unwrap()).unwrap();
            assert_eq!(json(&loaded), saved, "stream {seed}");
            twin = Some((loaded, 50));
        }
        if random.chance(40) {
            let step_made = engine.host_failed();
            if let Some((twin, _)) = &mut twin {
                assert_eq!(twin.host_failed(), step_made, "stream {seed}");
            }
            request = Request::Done(Step::Made);
            continue;
        }
        let out_of_order = random.chance(150);
        let event = match out_of_order {
            true => anything(random, losses),
            false => answer(&request, groups, random, losses),
        };
        let before = out_of_order.then(|| json(&engine));
        let told = engine.tell(event.clone());
        check(&engine, seed);
        if let Some((mut other, left)) = twin.take() {
            let same = format!("{:?}", other.tell(event)) == format!("{told:?}");
            assert!(same && json(&other) == json(&engine), "stream {seed}: not alike");
            twin = (left > 0).then(|| (other, left.saturating_sub(1)));
        }
        match told {
            Ok(next) => {
                made += u64::from(matches!(
                    next,
                    Request::Done(Step::Made | Step::WindowEnded { .. } | Step::Ramped { .. })
                ));
                if matches!(next, Request::Done(_)) && engine.history().len() > 20 {
                    engine.take_history();
                    if let Some((twin, _)) = &mut twin {
                        twin.take_history();
                    }
                }
                request = next;
            }
            Err(Error::OutOfOrder { .. }) => {
                assert!(out_of_order, "stream {seed}: {request:?} was answered");
                assert_eq!(Some(json(&engine)), before, "stream {seed}");
            }
            // The step is over.
            Err(_) => request = Request::Done(Step::Made),
        }
    }
    // However bad it was: with losses below all others, and a schedule that lets it, training goes
    // on.
    engine.host_failed();
    engine.set_schedule(None);
    let mut goes_on = false;
    let mut request = Request::Done(Step::Made);
    for _ in 0..200 {
        let event = match &request {
            Request::Done(_) => Event::Batch { loss: Some(f64::MIN), only_gathers: false },
            Request::MeasureSlopes(_) => Event::Slopes(vec![Slope::default(); groups]),
            Request::EndWindow => Event::WindowEnded(vec![WindowProducts::default(); groups]),
            request => answer(request, groups, random, losses),
        };
        request = engine.tell(event).unwrap_or(Request::Done(Step::Made));
        check(&engine, seed);
        goes_on |= request == Request::Update;
    }
    assert!(goes_on, "stream {seed} cannot go on");
    made
}

#[test]
fn ten_million_events() {
    let events = std::env::var("TLR_ENGINE_EVENTS").ok().and_then(|events| events.parse().ok());
    let events: usize = events.unwrap_or(10_000_000);
    let length = 2_000;
    let streams = events.div_ceil(length) as u64;
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let made: u64 = std::thread::scope(|scope| {
        let share = |thread| {
            move || {
                (thread..streams).step_by(threads as usize).map(|s| stream(s, length)).sum::<u64>()
            }
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(share(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // Not all of it is refused: of twenty events at least one is a step that was made.
    assert!(made > events as u64 / 20, "{made} steps of {events} events");
}
