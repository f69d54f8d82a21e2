//! Getters of [`Engine`]: rates, history, counts, state.

use super::{history::Adaptation, phase::SnapshotTrust, state::State, Engine};

impl<R> Engine<R> {
    /// Each group's name and learned rate.
    ///
    /// Example: [`Engine`].
    pub fn rates(&self) -> impl ExactSizeIterator<Item = (&str, f64)> {
        self.groups.iter().zip(&self.state.groups).map(|(group, state)| (&*group.name, state.rate))
    }

    /// The factor of the next step: that of the schedule times that of the horizon. 1 without them,
    /// and while the starting rates are looked for.
    ///
    /// Example: [`Engine`].
    pub fn factor(&self) -> f64 {
        match self.state.ramp {
            Some(_) => 1.0,
            None => self.planned_factor(),
        }
    }

    /// The rates of the update that is [asked for](super::Request::Update): the learned rates times
    /// [`factor`](Self::factor), within [`RATES`](super::RATES). While no update is asked for, they
    /// mean nothing.
    ///
    /// Example: [`Engine`].
    pub fn effective_rates(&self) -> &[f64] {
        &self.effective
    }

    /// Every decision on a rate, in order: at the end of a window one for each group.
    ///
    /// Example: [`Engine`].
    pub fn history(&self) -> &[Adaptation] {
        &self.state.history
    }

    /// Hands the history over and starts a new one.
    ///
    /// # Example
    /// A host that writes the decisions down as they are made, and keeps none in memory.
    /// ```
    /// use tlr::engine::{Engine, RateRule};
    ///
    /// fn write_down<R: RateRule>(engine: &mut Engine<R>, log: &mut Vec<String>) {
    ///     for decision in engine.take_history() {
    ///         log.push(format!("{}: {:e}, {}", decision.layer, decision.to, decision.outcome));
    ///     }
    ///     assert!(engine.history().is_empty());
    /// }
    /// ```
    pub fn take_history(&mut self) -> Vec<Adaptation> {
        std::mem::take(&mut self.state.history)
    }

    /// Optimizer steps so far. Those that were rolled back count, batches that were only gathered
    /// do not.
    ///
    /// Example: [`Engine`].
    pub fn steps(&self) -> u64 {
        self.state.steps
    }

    /// Whether the next step begins with a snapshot: at the start, after a [`reset`](Self::reset),
    /// where a schedule restarts, and after an exact step. See [`Host`](super::Host).
    ///
    /// Example: [`Engine`].
    pub fn lacks_snapshot(&self) -> bool {
        self.state.snapshot == SnapshotTrust::Missing
    }

    /// K: the optimizer steps in a window.
    ///
    /// Example: [`Engine`].
    pub fn window(&self) -> usize {
        self.window
    }

    /// All that the engine remembers, to be saved.
    ///
    /// Example: [`Engine`].
    pub fn state(&self) -> &State {
        &self.state
    }
}
