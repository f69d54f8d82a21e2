//! The decisions at the end of a window, and what is cleared where the next one begins.
//!
//! A window begins in one of three ways. The table says what each of them clears.
//!
//! | | `window_ended` | `rolled_back` | `leave_window` |
//! | --- | --- | --- | --- |
//! | when | the last one ended well | the last one is undone | ramp's end, schedule's restart, exact step |
//! | steps in the window | cleared | cleared | cleared |
//! | gathered batches | there are none | cleared | cleared |
//! | the window's losses | are kept, to judge the next window by | cleared | cleared |
//! | the losses at the snapshot | cleared | kept if the snapshot is the same one | cleared |
//! | previous directions | kept | cleared | cleared |
//! | snapshot | moves on | is gone back to | is taken anew |

use super::{
    event::Target,
    gathered::GatheredLosses,
    history::{Adaptation, KeptBecause, Outcome},
    phase::{EndedWindow, Phase, Rollback, SnapshotTrust},
    products::{DirectionProducts, Slope, WindowProducts},
    raising::stood_still,
    rule::{self, bounded, Proposal, RATES},
    safeguard::retry,
    settle::settle,
    start::climb::climb,
    state::{GroupState, PreviousWindow},
    Engine, RateRule, Request, Step,
};
use crate::error::{Cause, Error};

impl<R: RateRule> Engine<R> {
    /// Ends a window that was not undone, and begins the next one.
    pub(super) fn window_ended(
        &mut self,
        products: Vec<WindowProducts>,
        slopes: Option<Vec<Slope>>,
    ) -> Request {
        let state = &mut self.state;
        let factor = state.factors / state.position as f64;
        state.snapshot = SnapshotTrust::Unconfirmed;
        self.begin_window();
        self.weigh(EndedWindow { products, factor, slopes, movable: None })
    }

    /// Asks the host for the evidence that is missing, and decides once all of it is there.
    pub(super) fn weigh(&mut self, mut window: EndedWindow) -> Request {
        if window.slopes.is_none() {
            if self.agree(&window) || self.has_silent_groups() {
                self.state.phase = Phase::Weighing(window);
                return Request::MeasureSlopes(Target::BeforeLast);
            }
            window.slopes = Some(Vec::new());
        }
        // This is asked once for each window: the answer to `TellMovable` leads here again.
        let guilty = if window.movable.is_none() { self.guilty_of_uphill(&window) } else { None };
        if let Some(guilty) = guilty {
            return self.go_back(Rollback {
                cause: Cause::WentTooFar,
                rates_are_to_blame: true,
                guilty: Some(guilty),
                ramp: None,
                counts_step: false,
                target: Target::BeforeLast,
                watch: self.state.watch.clone(),
            });
        }
        // If a schedule makes the factor small, weights may stand still on purpose, and rounding is
        // not the reason. The horizon's factor alone is at least 0.5 for the first half of the
        // steps.
        let least = if self.schedule.is_some() { 1.0 } else { 0.5 };
        let looks_for_rounding = self.config.climb.is_some() && window.factor >= least;
        if !looks_for_rounding {
            return self.conclude(window, &[]);
        }
        if window.movable.is_none() {
            if window.products.iter().any(|products| products.own == 0.0) {
                self.state.phase = Phase::Weighing(window);
                return Request::TellMovable;
            }
            window.movable = Some(Vec::new());
        }
        if self.state.groups.iter().any(|group| group.climbs) {
            self.state.phase = Phase::Weighing(window);
            return Request::MeasureNorms;
        }
        self.conclude(window, &[])
    }

    /// Whether this window's directions agree with the last one's so well that a rate may climb. If
    /// so, slopes are needed: a rate climbs only if the loss falls along the way.
    fn agree(&self, window: &EndedWindow) -> bool {
        self.config.climb.is_some_and(|cosine| {
            let pairs = self.state.groups.iter().zip(&window.products);
            let directions =
                |(group, products)| GroupState::directions(group, products, window.factor);
            pairs.filter_map(directions).any(|products| products.cosine() > cosine)
        })
    }

    /// The groups to blame for a window that has gone too far uphill, without losses to judge by.
    /// Counts the window, so it is called once for each.
    fn guilty_of_uphill(&mut self, window: &EndedWindow) -> Option<Vec<bool>> {
        let without_loss = self.blames() && !self.state.watch.has_losses();
        let slopes = window.slopes.as_ref().filter(|_| without_loss)?;
        if !self.state.watch.record_uphill(slopes) {
            return None;
        }
        self.guilty(slopes)
    }

    /// Decides on each group's rate.
    pub(super) fn conclude(&mut self, window: EndedWindow, norms: &[f64]) -> Request {
        self.state.phase = Phase::Idle;
        self.state.watch.accept(self.config.safeguard.as_ref());
        let movable = window.movable.unwrap_or_default();
        let slopes = window.slopes.unwrap_or_default();
        let largest = self.largest_rate();
        let before = self.state.history.len();
        for (index, products) in window.products.into_iter().enumerate() {
            let moves = movable.get(index).is_some_and(|moves| *moves);
            let norm = norms.get(index).copied();
            let slope = slopes.get(index);
            // Deviation from the paper, which has no late start, no climb, and no raise: see
            // `Config::ramp` and `Config::climb`.
            if self.gets_first_gradient(index, slope) {
                self.start_late(index, largest);
            } else if let Some(rate) = self.raised(index, &products, moves, norm, slope) {
                self.raise(index, rate);
            } else {
                self.adapt(index, products, window.factor, slope);
            }
        }
        let decisions = self.decisions_since(before);
        self.count(1);
        Request::Done(Step::WindowEnded { decisions })
    }

    /// The largest rate of a group that has had a gradient.
    fn largest_rate(&self) -> Option<f64> {
        let groups = self.state.groups.iter().zip(&self.groups);
        let spoken = groups.filter(|(group, settings)| !group.silent && !settings.fixed_rate);
        spoken.map(|(group, _)| group.rate).reduce(f64::max)
    }

    /// Whether a group that has had no gradient now has its first one.
    fn gets_first_gradient(&self, index: usize, slope: Option<&Slope>) -> bool {
        let silent = self.state.groups.get(index).is_some_and(|group| group.silent);
        silent && slope.is_some_and(|slope| slope.gradient > 0.0)
    }

    /// Starts a group that has its first gradient only after the ramp, at the largest of the
    /// others' rates.
    fn start_late(&mut self, index: usize, largest: Option<f64>) {
        let Some(group) = self.state.groups.get_mut(index) else { return };
        (group.silent, group.previous) = (false, None);
        let rate = largest.unwrap_or(group.rate);
        self.set_rate(index, Proposal { rate, outcome: Outcome::Ramped }, None);
    }

    /// Decides on one group's rate at the end of a good window. `factor` is the mean of the factors
    /// of schedule and horizon over the window.
    fn adapt(&mut self, index: usize, window: WindowProducts, factor: f64, slope: Option<&Slope>) {
        let (Some(group), Some(settings)) =
            (self.state.groups.get_mut(index), self.groups.get(index))
        else {
            return;
        };
        let (rate, settles, follows) = (group.rate, self.config.settle, self.state.follows);
        let retry = self.config.safeguard.and_then(|safeguard| safeguard.retry);
        // A window in which nothing moved the weights, or only weight decay did, shows nothing
        // about the loss.
        let still = stood_still(&window, slope) && self.config.climb.is_some();
        let says_nothing = group.silent || still;
        if says_nothing && !settings.fixed_rate {
            group.previous = None;
            return self.set_rate(index, Proposal::kept(rate, KeptBecause::NoGradient), None);
        }
        group.highest = group.highest.max(rate * factor).min(*RATES.end());
        let products = group.directions(&window, factor);
        let this = PreviousWindow { rate, factor, squared: window.own };
        let previous = group.previous.replace(this);
        let proposal = match (previous, products) {
            _ if settings.fixed_rate => Proposal::kept(rate, KeptBecause::FixedRate),
            (Some(previous), Some(products)) => {
                let proposal = rule::decide(&self.config.rule, rate, previous.rate, &products);
                let agrees = self.config.climb.is_some_and(|cosine| products.cosine() > cosine);
                // Deviation from the paper, which has no climb: see `Config::climb`.
                group.climbs &= agrees;
                let proposal = if group.climbs {
                    climb(rate, previous.rate, &products, proposal)
                } else {
                    proposal
                };
                // Deviation from the paper, which has no slopes. With momentum or decay, successive
                // directions agree whatever the loss does. So a rate rises by agreement only if the
                // loss falls along the way.
                let proposal = match slope {
                    Some(slope) if agrees && proposal.rate > rate && !slope.is_downhill() => {
                        Proposal::kept(rate, KeptBecause::NotDownhill)
                    }
                    Some(slope) if settles => settle(rate, slope, follows, proposal),
                    _ => proposal,
                };
                // Deviation from the paper, which undoes nothing: see `Safeguard::retry`.
                let proposal = match (group.bound, retry) {
                    (Some(bound), Some(by)) => {
                        group.bound = retry::grown(bound, by);
                        retry::within(bound, rate, proposal)
                    }
                    _ => proposal,
                };
                // Deviation from the paper, which has no schedule: the change is multiplied by the
                // factor's mean over the window before. Without schedule and horizon that mean is
                // 1, and the proposal stays as it is, to the bit.
                if previous.factor < 1.0 {
                    let moved = rate + previous.factor * (proposal.rate - rate);
                    Proposal { rate: bounded(moved), ..proposal }
                } else {
                    proposal
                }
            }
            // Deviation from the paper, which has no cut that could be reverted.
            _ => match group.before_cut.take() {
                Some(rate) => {
                    group.bound = None;
                    Proposal { rate, outcome: Outcome::CutReverted }
                }
                None => Proposal { rate, outcome: Outcome::WarmingUp },
            },
        };
        self.set_rate(index, proposal, products);
    }

    /// Cuts the rates that are to blame. The host has gone back to a snapshot. Deviation from the
    /// paper, which has no safeguard.
    pub(super) fn rolled_back(&mut self, rollback: Rollback) -> Result<Request, Error> {
        let Rollback { cause, rates_are_to_blame, guilty, ramp, counts_step, watch, .. } = rollback;
        let state = &mut self.state;
        state.steps += u64::from(counts_step);
        state.watch = watch;
        // Only the ramp goes back without a safeguard.
        let safeguard = self.config.safeguard.unwrap_or_default();
        let is_guilty = |index: usize| {
            let named = guilty.as_ref().is_none_or(|guilty| guilty.get(index) == Some(&true));
            rates_are_to_blame && named
        };
        let on_probation = cause == Cause::LossIncreased && state.watch.trusts(&safeguard);
        for (index, group) in state.groups.iter_mut().enumerate() {
            let may_revert = on_probation && is_guilty(index) && group.is_steady();
            group.before_cut = may_revert.then_some(group.rate);
            group.climbs &= !(is_guilty(index) && state.watch.any_accepted());
        }
        self.restart_at_snapshot();
        let cut = self.state.watch.roll_back(&safeguard, rates_are_to_blame);
        let before = self.state.history.len();
        let outcome = Outcome::RolledBack(cause);
        if let Some(ramp) = ramp {
            self.ramp_undone(&ramp, outcome);
        } else {
            for index in 0..self.groups.len() {
                let Some(group) = self.state.groups.get_mut(index) else { continue };
                let fixed_rate = self.groups.get(index).is_some_and(|group| group.fixed_rate);
                let mut rate = group.rate;
                if is_guilty(index) && !fixed_rate {
                    group.bound = safeguard.retry.map(|_| bounded(retry::bound_after(rate)));
                    rate = bounded(rate * cut);
                }
                self.set_rate(index, Proposal { rate, outcome }, None);
            }
        }
        let (count, step) = (self.state.watch.rollbacks(), self.state.steps);
        let decisions = self.decisions_since(before);
        self.count(1);
        if count >= safeguard.max_rollbacks {
            return Err(Error::TooManyRollbacks { count, step, cause });
        }
        Ok(Request::Done(Step::RolledBack { cause, decisions }))
    }

    /// Ends a step whose weights were not finite. The host has gone back as far as it can, and
    /// there is no safeguard that could do more.
    pub(super) fn retreated(&mut self, tensor: String) -> Error {
        self.restart_at_snapshot();
        self.count(1);
        let step = self.state.steps;
        if self.keeps_snapshots() {
            Error::NonFiniteWeights { step, tensor }
        } else {
            Error::LostWeights { step, tensor }
        }
    }

    fn begin_window(&mut self) {
        self.state.position = 0;
        self.state.factors = 0.0;
    }

    fn restart_at_snapshot(&mut self) {
        self.begin_window();
        self.forget_directions();
        self.state.gathered = GatheredLosses::default();
        self.state.snapshot = SnapshotTrust::Good;
    }

    /// Ends the window without a decision. The next step begins a window at the weights as they are
    /// then.
    pub(super) fn leave_window(&mut self) {
        self.begin_window();
        self.forget_directions();
        self.state.gathered = GatheredLosses::default();
        self.state.watch.leave();
        self.state.watch.new_snapshot();
        self.state.snapshot = SnapshotTrust::Missing;
    }

    pub(super) fn forget_directions(&mut self) {
        self.state.groups.iter_mut().for_each(|group| group.previous = None);
    }

    /// Sets a rate, and notes it in the history. It never writes a rate that is out of bounds.
    /// Besides this function, only `new`, `reset` and `resume` write rates, and they check them.
    pub(super) fn set_rate(
        &mut self,
        index: usize,
        Proposal { rate: to, outcome }: Proposal,
        products: Option<DirectionProducts>,
    ) {
        let (Some(group), Some(settings)) =
            (self.state.groups.get_mut(index), self.groups.get(index))
        else {
            return;
        };
        let from = group.rate;
        let to = if RATES.contains(&to) { to } else { from };
        group.rate = to;
        let layer = settings.name.clone();
        tracing::debug!(
            step = self.state.steps,
            layer = &*layer,
            from,
            to,
            uu = products.map(|products| products.uu),
            un = products.map(|products| products.un),
            nn = products.map(|products| products.nn),
            %outcome,
            "learning rate"
        );
        let step = self.state.steps;
        self.state.history.push(Adaptation { step, layer, from, to, products, outcome });
    }

    pub(super) fn decisions_since(&self, before: usize) -> Vec<Adaptation> {
        self.state.history.get(before..).unwrap_or_default().to_vec()
    }
}
