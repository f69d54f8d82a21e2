//! Eq. 8 over windows once more, on plain vectors and straight from the text of the paper (Retsinas
//! et al., *Newton-based Trainable Learning Rate*, ICASSP 2023): what the library is compared with.

use crate::quadratic::dot;
use std::ops::Range;
use tlr::engine::NewtonForm;

/// The windowed rule over groups of weights, told the weights after every optimizer step.
#[derive(Clone, Debug)]
pub struct Windows {
    form: NewtonForm,
    damping: f64,
    max_factor: f64,
    steps_in_window: usize,
    position: usize,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Group {
    members: Range<usize>,
    rate: f64,
    snapshot: Vec<f64>,
    /// u₋ and the rate it was made at.
    previous: Option<(Vec<f64>, f64)>,
}

impl Windows {
    /// Begins at the weights `w`; each group is a range of them and has its own rate, at first
    /// `rate`.
    pub fn new(
        (form, damping, max_factor): (NewtonForm, f64, f64),
        steps_in_window: usize,
        groups: &[Range<usize>],
        rate: f64,
        w: &[f64],
    ) -> Self {
        let group = |members: &Range<usize>| Group {
            members: members.clone(),
            rate,
            snapshot: w[members.clone()].to_vec(),
            previous: None,
        };
        let groups = groups.iter().map(group).collect();
        Self { form, damping, max_factor, steps_in_window, position: 0, groups }
    }

    /// Each group's rate for the next step.
    pub fn rates(&self) -> Vec<f64> {
        self.groups.iter().map(|group| group.rate).collect()
    }

    /// Goes on from these rates, so that rounding does not add up over the windows.
    pub fn set_rates(&mut self, rates: impl IntoIterator<Item = f64>) {
        self.groups.iter_mut().zip(rates).for_each(|(group, rate)| group.rate = rate);
    }

    /// Takes note of the weights after a step, and adapts the rates at the end of a window.
    pub fn after_step(&mut self, w: &[f64]) {
        self.position += 1;
        if !self.position.is_multiple_of(self.steps_in_window) {
            return;
        }
        for group in &mut self.groups {
            let w = &w[group.members.clone()];
            let rate = group.rate;
            let u: Vec<f64> =
                group.snapshot.iter().zip(w).map(|(then, now)| (then - now) / rate).collect();
            if let Some((before, rate_before)) = &group.previous {
                let uu = dot(before, before);
                let un = dot(before, &u);
                let curvature = uu - un;
                if curvature > 0.0 {
                    let proposed = match self.form {
                        NewtonForm::Paper => rate * (1.0 + self.damping * un / curvature),
                        NewtonForm::Aligned => {
                            (1.0 - self.damping) * rate
                                + self.damping * rate_before * uu / curvature
                        }
                    };
                    group.rate = proposed.min(self.max_factor * rate);
                }
            }
            group.previous = Some((u, rate));
            group.snapshot = w.to_vec();
        }
    }
}
