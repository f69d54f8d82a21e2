//! [`Reported`]: what an observer has been told of a run, and how it is told a resumed run from the
//! beginning.

use super::{persistence::Progress, Event, Learner, Number, TrainsIn};
use tlr::Adaptation;

/// How many decisions the observer knows of.
#[derive(Default)]
pub(super) struct Reported(usize);

impl Reported {
    /// Tells the decisions that the observer does not know yet.
    pub(super) fn decisions(
        &mut self,
        history: &[Adaptation],
        observer: &mut dyn FnMut(Event<'_>),
    ) {
        for decision in history.get(self.0..).unwrap_or_default() {
            observer(Event::Decision(decision));
        }
        self.0 = history.len();
    }

    /// Tells the events so far.
    pub(super) fn replay<M, D: TrainsIn<E>, E: Number>(
        &mut self,
        progress: &Progress,
        batches: usize,
        optimizer: &dyn Learner<M, D, E>,
        observer: &mut dyn FnMut(Event<'_>),
    ) {
        let history = optimizer.history();
        // The rates before the first decision.
        let mut rates = optimizer.rates();
        for (name, rate) in &mut rates {
            if let Some(first) = history.iter().find(|decision| *decision.layer == **name) {
                *rate = first.from;
            }
        }
        let steps = progress.losses.len();
        observer(Event::Resumed { step: (steps > 0).then_some(steps) });
        for (step, &loss) in progress.losses.iter().enumerate() {
            let made = progress.decided.get(step).copied().unwrap_or_default();
            let made = history.get(..made).unwrap_or(history);
            for decision in made.get(self.0..).unwrap_or_default() {
                let rate = rates.iter_mut().find(|(name, _)| *decision.layer == **name);
                if let Some((_, rate)) = rate {
                    *rate = decision.to;
                }
            }
            self.decisions(made, observer);
            let (epoch, batch) = (step / batches, step % batches);
            let schedule = progress.schedule.get(step).copied().unwrap_or(1.0);
            observer(Event::Step { epoch, batch, batches, loss, rates: rates.clone(), schedule });
            if let (true, Some(epoch)) = (batch + 1 == batches, progress.epochs.get(epoch)) {
                observer(Event::Epoch(epoch));
            }
        }
    }
}
