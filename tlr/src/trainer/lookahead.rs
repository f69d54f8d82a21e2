//! Exact steps, which need a second gradient each. They apply the rule to exact derivatives
//! (Eq. 1–7 of Retsinas, Sfikas, Filntisis and Maragos, *Newton-based Trainable Learning Rate*,
//! ICASSP 2023; [their code](https://github.com/georgeretsi/NTLR)).

use super::{
    fault::StepFault,
    update::{update_or_undo, FailedStep},
    Trainer, Trial,
};
use crate::{
    engine::{ExactDecision, LookaheadProducts, RateRule, Step},
    error::Error,
    optim::{
        gradients::{self, StepGradients},
        ErrOf, TunableOptimizer,
    },
    tensors::{all_finite, wide, Model, Names},
};
use dfdx::{shapes::Dtype, tensor::Gradients, tensor_ops::Device};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

impl<Opt, R> Trainer<Opt, R>
where
    Opt: TunableOptimizer,
    R: RateRule,
{
    /// Makes one exact step: adapts the rate by a second gradient before the weights move (Eq.
    /// 1–7).
    ///
    /// From `gradients`, taken at w, the base optimizer proposes ŵ = w − α·u. Then `ahead` computes
    /// the gradients ĝ of the same loss at ŵ. With g the gradients at w, the derivatives of the
    /// loss with respect to α are
    ///
    /// - the first: −⟨ĝ,u⟩ (Eq. 3),
    /// - the second: ⟨u, g − ĝ⟩/α (Eq. 7).
    ///
    /// The rule computes α_new from them, and the weights become w − α_new·u. On a quadratic both
    /// derivatives are exact for any α, so with γ = 1 the step reaches the minimum along the line.
    /// With a rate for each layer, the derivatives of a layer are taken along its own part of u.
    ///
    /// A window in progress ends without a decision, and the next plain step begins a new window.
    /// The method returns [`Step::WindowEnded`] with the decisions, or [`Step::Gathered`]. There is
    /// no loss, so no safeguard judges the step, nor a batch that is gathered for it.
    ///
    /// # Errors
    /// [`Error::UnusedParameters`], for either set of gradients; [`Error::NonFiniteStep`], if the
    /// step would make a weight infinite or NaN; [`Error::ModelChanged`]; [`Error::Device`];
    /// [`Error::Parallel`] on several ranks. The weights are then unchanged, and so is what an
    /// optimizer of [`tlr::optim`](crate::optim) has accumulated. (One that
    /// [keeps no copy](TunableOptimizer::begin_trial), such as dfdx's own, is
    /// [reset](TunableOptimizer::reset) if `ahead` was called by then: its momentum and its moments
    /// are gone.) The same holds after a panic in `ahead`, which goes on to the caller.
    /// [`Error::WindowEnd`], after the step was made.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
    /// use tlr::{Newton, NewtonConfig};
    ///
    /// let dev = Cpu::default();
    /// let mut w: Tensor<Rank1<1>, f64, _> = dev.tensor([3.0]);
    /// let loss = |w: &Tensor<Rank1<1>, f64, Cpu>| (w.leaky_trace().square() * 2.0).sum();
    ///
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 0.01, ..Default::default() });
    /// let config = NewtonConfig::default().damping(1.0).max_factor(100.0);
    /// let mut opt = Newton::new(&w, sgd, config)?;
    /// let gradients = loss(&w).backward();
    /// opt.step_lookahead(&mut w, &gradients, |ahead| loss(ahead).backward())?;
    /// assert!(w.array()[0].abs() < 1e-9); // 2w² has its minimum one Newton step away
    /// assert!((opt.rates()[0].1 - 0.25).abs() < 1e-9);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn step_lookahead(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        ahead: impl FnOnce(&mut Opt::Model) -> Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<Step, Error> {
        let result = self.look_ahead(model, gradients, ahead);
        result.map_err(|fault| self.to_error(&fault))
    }

    fn look_ahead(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        ahead: impl FnOnce(&mut Opt::Model) -> Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<Step, StepFault<ErrOf<Opt>>> {
        let averaged = self.averaged_copy(model, gradients, None)?;
        let gradients = averaged.as_ref().map_or(gradients, |(means, _)| means);
        self.or_undo(model, |trainer, model| trainer.step_ahead(model, gradients, ahead))
    }

    /// Makes an exact step. If it fails after the base optimizer has proposed it, the base
    /// optimizer forgets it. A panic of the caller's closure or of the base optimizer is such a
    /// failure, and goes on.
    pub(super) fn or_undo(
        &mut self,
        model: &mut Opt::Model,
        step: impl FnOnce(&mut Self, &mut Opt::Model) -> Result<Step, StepFault<ErrOf<Opt>>>,
    ) -> Result<Step, StepFault<ErrOf<Opt>>> {
        match catch_unwind(AssertUnwindSafe(|| step(self, model))) {
            Ok(made) => {
                // A step that was made has no trial any more, also if its window could not end.
                if let (Err(_), Some(trial)) = (&made, self.trial.take()) {
                    self.forget_proposal(model, trial);
                }
                made
            }
            Err(panic) => {
                // A panic without a trial was one in the gathering of gradients.
                let without = Trial { kept: false, had_updated: false };
                let trial = self.trial.take().unwrap_or(without);
                self.forget_proposal(model, trial);
                resume_unwind(panic)
            }
        }
    }

    fn step_ahead(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        ahead: impl FnOnce(&mut Opt::Model) -> Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<Step, StepFault<ErrOf<Opt>>> {
        if self.gather_only(model, gradients)? {
            return Ok(Step::Gathered);
        }
        let proposed = self.propose(model, gradients)?;
        let (_, gradients_ahead) = self.evaluate(&proposed, |model| (0.0, ahead(model)))?;
        let products = self.derivatives(model, &proposed, gradients, &gradients_ahead);
        let decisions = self.engine.decide_ahead(&products);
        let next = self.move_along(model, &proposed, &decisions, 1.0)?;
        self.accept_step(model, next, decisions)
    }

    /// If the base optimizer only gathers these gradients, updates it by them and returns `true`.
    pub(super) fn gather_only(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<bool, StepFault<ErrOf<Opt>>> {
        let gathers = self.optimizer.only_gathers();
        if gathers {
            self.snapshots.check(model)?;
            let updated = self.update_by(model, gradients);
            updated.map_err(|FailedStep { fault, gathered_lost }| {
                if gathered_lost {
                    self.engine.gathered_gradients_lost();
                }
                fault
            })?;
        }
        Ok(gathers)
    }

    /// ŵ, the weights to which the base optimizer would move. Every gradient has to be there, even
    /// for an optimizer that accepts missing ones.
    pub(super) fn propose(
        &mut self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<Opt::Model, StepFault<ErrOf<Opt>>> {
        self.snapshots.check(model)?;
        gradients::check(model, gradients)?;
        let mut proposed = model.clone();
        let kept = self.optimizer.begin_trial(&mut proposed);
        let trial = Trial { kept, had_updated: self.has_updated };
        self.trial = Some(trial);
        match self.update_by(&mut proposed, gradients) {
            Ok(()) => Ok(proposed),
            Err(FailedStep { fault, gathered_lost }) => {
                self.trial = None;
                if kept {
                    self.forget_proposal(&mut proposed, trial);
                } else if gathered_lost {
                    self.engine.gathered_gradients_lost();
                }
                Err(fault)
            }
        }
    }

    fn update_by(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), FailedStep<ErrOf<Opt>>> {
        update_or_undo(
            &mut self.optimizer,
            model,
            &mut StepGradients::Borrowed(gradients),
            &mut None,
            &mut self.has_updated,
        )
    }

    /// Takes back what the base optimizer has accumulated for a step that is not made. An optimizer
    /// that has kept no copy is reset.
    fn forget_proposal(&mut self, model: &mut Opt::Model, trial: Trial) {
        if trial.kept {
            self.optimizer.end_trial(model, false);
            self.has_updated = trial.had_updated;
        } else {
            self.optimizer.reset(model);
            self.has_updated = false;
            self.engine.gathered_gradients_lost();
        }
    }

    /// Calls `evaluate` for the loss and its gradients at `there`.
    pub(super) fn evaluate(
        &mut self,
        there: &Opt::Model,
        evaluate: impl FnOnce(&mut Opt::Model) -> Evaluated<Opt>,
    ) -> Result<Evaluated<Opt>, StepFault<ErrOf<Opt>>> {
        // The closure works on a copy, because its changes to buffers are not part of the step.
        let mut there = there.clone();
        let (mut loss, mut gradients) = evaluate(&mut there);
        if let Some((means, mean)) = self.averaged_again(&there, &gradients, loss)? {
            (gradients, loss) = (means, mean.unwrap_or(loss));
        }
        gradients::check(&there, &gradients)?;
        Ok((loss, gradients))
    }

    /// Computes ⟨s,g⟩, ⟨s,ĝ⟩ and ⟨ĝ,ĝ⟩ of each group, with s = w − `there`.
    pub(super) fn derivatives(
        &self,
        model: &Opt::Model,
        there: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        gradients_ahead: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Vec<LookaheadProducts> {
        let groups: Vec<_> = self.snapshots.members().map(|(group, _)| group).collect();
        let mut products = vec![LookaheadProducts::default(); self.engine.rates().len()];
        add_products(&mut products, &groups, (model, gradients), (there, gradients_ahead));
        products
    }

    /// Computes w − t·α_new·u for each group, from w and ŵ = w − α·u.
    pub(super) fn move_along(
        &self,
        model: &Opt::Model,
        proposed: &Opt::Model,
        decisions: &[ExactDecision],
        t: f64,
    ) -> Result<Opt::Model, Error> {
        let groups: Vec<_> = self.snapshots.members().map(|(group, _)| group).collect();
        let factors: Vec<_> = decisions.iter().map(|decision| t * decision.factor()).collect();
        let mut next = proposed.clone();
        let not_finite = rescale(model, &mut next, &groups, &factors);
        let Some(index) = not_finite else { return Ok(next) };
        let tensor = self.snapshots.members().nth(index).map(|(_, name)| name.to_owned());
        Err(Error::NonFiniteStep { step: self.steps() + 1, tensor: tensor.unwrap_or_default() })
    }

    /// Completes the step: replaces the weights and adopts the decisions.
    pub(super) fn accept_step(
        &mut self,
        model: &mut Opt::Model,
        next: Opt::Model,
        decisions: Vec<ExactDecision>,
    ) -> Result<Step, StepFault<ErrOf<Opt>>> {
        *model = next;
        if self.trial.take().is_some_and(|trial| trial.kept) {
            self.optimizer.end_trial(model, true);
        }
        let step = self.engine.exact_step_made(decisions);
        self.apply_rates();
        let taken = self.take_buffers(model);
        taken.map(|()| step).map_err(|error| StepFault::AtWindowEnd(Box::new(error.into())))
    }
}

/// A loss and its gradients.
pub(super) type Evaluated<Opt> =
    (f64, Gradients<<Opt as TunableOptimizer>::Dtype, <Opt as TunableOptimizer>::Device>);

/// A model and the gradients there.
type Point<'a, E, D> = (&'a dyn Model<E, D>, &'a Gradients<E, D>);

/// Adds ⟨s,g⟩, ⟨s,ĝ⟩ and ⟨ĝ,ĝ⟩ of each tensor to those of its group, with s = w − ŵ.
fn add_products<E: Dtype, D: Device<E>>(
    products: &mut [LookaheadProducts],
    groups: &[Option<usize>],
    (here, gradients): Point<'_, E, D>,
    (there, gradients_ahead): Point<'_, E, D>,
) {
    let mut kept = Vec::with_capacity(groups.len());
    here.look(Names::Untold, &mut |seen| {
        let has_group = groups.get(kept.len()).is_some_and(Option::is_some);
        let gradient = || seen.gradient_elements(gradients);
        kept.push(has_group.then(|| (seen.tensor().values(), gradient())));
    });
    let mut kept = groups.iter().zip(kept);
    there.look(Names::Untold, &mut |seen| {
        let Some((Some(group), Some((here, gradient)))) = kept.next() else { return };
        let Some(products) = products.get_mut(*group) else { return };
        let moved = here.to_f64().into_iter().zip(seen.tensor().values().to_f64());
        let gradient_ahead = seen.gradient_elements(gradients_ahead);
        for (((w, ahead), g), g_ahead) in moved.zip(gradient).zip(gradient_ahead) {
            let (s, g, g_ahead) = (w - ahead, wide(g), wide(g_ahead));
            products.here += s * g;
            products.ahead += s * g_ahead;
            products.squared += g_ahead * g_ahead;
        }
    });
}

/// Replaces ŵ by w − factor·(w − ŵ), with one factor for each group. Returns the place of the first
/// tensor that would not be finite.
fn rescale<E: Dtype, D: Device<E>>(
    here: &dyn Model<E, D>,
    next: &mut dyn Model<E, D>,
    groups: &[Option<usize>],
    factors: &[f64],
) -> Option<usize> {
    let mut kept = Vec::with_capacity(groups.len());
    here.look(Names::Untold, &mut |seen| {
        let group = groups.get(kept.len()).copied().flatten();
        let factor = group.and_then(|group| factors.get(group));
        kept.push(factor.map(|factor| (*factor, seen.tensor().values())));
    });
    let (mut kept, mut not_finite) = (kept.into_iter().enumerate(), None);
    next.change(&mut |mut seen| {
        let Some((place, Some((factor, here)))) = kept.next() else { return };
        let moved = here.to_f64().into_iter().zip(seen.tensor().values().to_f64());
        let rescaled = moved.map(|(w, ahead)| w - factor * (w - ahead));
        let rescaled: Vec<E> =
            rescaled.map(|element| E::from_f64(element).unwrap_or_default()).collect();
        if all_finite(&rescaled) {
            seen.overwrite(&rescaled);
        } else {
            not_finite.get_or_insert(place);
        }
    });
    not_finite
}
