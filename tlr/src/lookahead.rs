//! The exact form of the rule (Eq. 1–7), for when a second gradient a step can be had.

use crate::{
    history::{KeptBecause, Outcome},
    newton::{DeviceError, Fault, Tlr},
    optimizer::LearningRate,
    rule::{self, Moments, Proposal, RateRule},
    Error,
};
use dfdx::{
    nn::{
        RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut,
        ViewTensorRef,
    },
    optim::{Optimizer, Sgd, SgdConfig},
    shapes::{Dtype, HasShape, Shape},
    tensor::{Gradients, Tensor},
    tensor_ops::Device,
};
use std::convert::Infallible;

impl<Opt, R> Tlr<Opt, R>
where
    Opt: LearningRate + Optimizer<Opt::Model, Opt::Device, Opt::Dtype>,
    R: RateRule,
{
    /// One step whose rate is adapted before it is made, by a gradient taken ahead (Eq. 1–7).
    ///
    /// The base optimizer proposes ŵ = w − α·u from `gradients`, taken at w. `ahead` computes the
    /// gradients ĝ of the same loss at ŵ. Then, along u,
    ///
    /// - the first derivative of the loss with respect to α is −⟨ĝ,u⟩ (Eq. 3),
    /// - the second ⟨u, g − ĝ⟩/α (Eq. 7),
    ///
    /// the rule moves α by them, and w ← w − α_new·u. On a quadratic both are exact for any α: with
    /// γ = 1 the step lands on the line's minimum. With a rate a layer, each layer's derivatives are
    /// along its own part of u.
    ///
    /// A window in progress ends without a decision: the next plain step begins a new one.
    ///
    /// # Errors
    /// [`Error::UnusedParameters`], for either gradients; [`Error::NonFiniteStep`], where the step
    /// would leave the finite numbers; [`Error::ModelChanged`], [`Error::Device`]. The weights are as
    /// they were.
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
    /// let mut opt = Newton::new(&w, sgd, NewtonConfig::default().damping(1.0))?;
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
    ) -> Result<(), Error> {
        let result = self.look_ahead(model, gradients, ahead);
        result.map_err(|fault| self.explain(fault))
    }

    fn look_ahead(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        ahead: impl FnOnce(&mut Opt::Model) -> Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), Fault<DeviceError<Opt>>> {
        self.snapshots.check(model)?;
        let mut proposed = model.clone();
        self.update_or_leave(&mut proposed, gradients)?;
        // What `ahead` does to buffers is not part of the step.
        let mut there = proposed.clone();
        let gradients_ahead = ahead(&mut there);
        // dfdx panics over a gradient that is not there; an optimizer tells of it. The first has just
        // been through one.
        let complete = Sgd::new(&there, SgdConfig::default()).update(&mut there, &gradients_ahead);
        if complete.is_err() {
            self.optimizer.reset(model); // it has seen a step that is not made
        }
        complete?;

        let groups: Vec<_> = self.snapshots.members().map(|(group, _)| group).collect();
        let mut derivatives = Derivatives {
            groups: groups.iter(),
            gradients,
            gradients_ahead: &gradients_ahead,
            sums: vec![Moments { uu: 0.0, un: 0.0, nn: 0.0 }; self.groups.len()],
        };
        let Ok(_) = <Opt::Model as TensorCollection<_, _>>::iter_tensors(&mut RecursiveWalker {
            m: (&*model, &proposed),
            f: &mut derivatives,
        });
        let decisions: Vec<_> = derivatives
            .sums
            .into_iter()
            .enumerate()
            .map(|(index, sums)| {
                let rate = self.optimizer.rate(index);
                // Displacements to directions.
                let moments = Moments { uu: sums.uu / rate, un: sums.un / rate, nn: sums.nn };
                let decision = if self.groups.get(index).is_some_and(|group| group.frozen) {
                    Proposal { rate, outcome: Outcome::Kept(KeptBecause::Frozen) }
                } else {
                    // u belongs to the current rate: both forms of the rule are the same here.
                    rule::decide(&self.rule, rate, rate, &moments)
                };
                (rate, decision, moments)
            })
            .collect();

        let mut rescale = Rescale {
            groups: groups.iter(),
            factors: decisions.iter().map(|(from, to, _)| to.rate / from).collect(),
            tensor: 0,
            not_finite: None,
        };
        let mut next = proposed;
        let Ok(_) = <Opt::Model as TensorCollection<_, _>>::iter_tensors(&mut RecursiveWalker {
            m: (&*model, &mut next),
            f: &mut rescale,
        });
        if let Some(index) = rescale.not_finite {
            self.optimizer.reset(model);
            let tensor = self.snapshots.members().nth(index).map(|(_, name)| name.to_owned());
            return Err(Error::NonFiniteStep {
                step: self.steps + 1,
                tensor: tensor.unwrap_or_default(),
            }
            .into());
        }
        *model = next;
        self.steps += 1;
        self.begin_anew();
        for (index, (from, decision, moments)) in decisions.into_iter().enumerate() {
            self.decide(index, from, decision, Some(moments));
        }
        Ok(())
    }
}

/// Values of a tensor, in f64.
fn values<S: Shape, E: Dtype, D: Device<E>>(tensor: &Tensor<S, E, D>) -> Vec<f64> {
    let mut values = vec![E::default(); tensor.shape().num_elements()];
    tensor.copy_into(&mut values);
    values.into_iter().map(|value| value.to_f64().unwrap_or(f64::NAN)).collect()
}

/// ⟨s,g⟩, ⟨s,ĝ⟩ and ⟨ĝ,ĝ⟩ of each group, with s = w − ŵ.
struct Derivatives<'a, E: Dtype, D: Device<E>> {
    groups: std::slice::Iter<'a, Option<usize>>,
    gradients: &'a Gradients<E, D>,
    gradients_ahead: &'a Gradients<E, D>,
    sums: Vec<Moments>,
}

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Derivatives<'_, E, D> {
    type Viewer = (ViewTensorRef, ViewTensorRef);
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        (here, ahead): (&Tensor<S, E, D>, &Tensor<S, E, D>),
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let Some(sums) =
            self.groups.next().copied().flatten().and_then(|group| self.sums.get_mut(group))
        else {
            return Ok(None);
        };
        let gradient = values(&self.gradients.get(here));
        let gradient_ahead = values(&self.gradients_ahead.get(ahead));
        let moved = values(here).into_iter().zip(values(ahead)).map(|(w, ahead)| w - ahead);
        for ((s, g), g_ahead) in moved.zip(gradient).zip(gradient_ahead) {
            sums.uu += s * g;
            sums.un += s * g_ahead;
            sums.nn += g_ahead * g_ahead;
        }
        Ok(None)
    }
}

/// ŵ ← w − factor·(w − ŵ).
struct Rescale<'a> {
    groups: std::slice::Iter<'a, Option<usize>>,
    factors: Vec<f64>,
    tensor: usize,
    not_finite: Option<usize>,
}

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Rescale<'_> {
    type Viewer = (ViewTensorRef, ViewTensorMut);
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        (here, next): (&Tensor<S, E, D>, &mut Tensor<S, E, D>),
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let tensor = self.tensor;
        self.tensor += 1;
        let Some(&factor) =
            self.groups.next().copied().flatten().and_then(|group| self.factors.get(group))
        else {
            return Ok(None);
        };
        let rescaled: Vec<E> = values(here)
            .into_iter()
            .zip(values(next))
            .map(|(w, ahead)| E::from_f64(w - factor * (w - ahead)).unwrap_or_default())
            .collect();
        if rescaled.iter().all(|value| value.to_f64().is_some_and(f64::is_finite)) {
            next.copy_from(&rescaled);
        } else {
            self.not_finite.get_or_insert(tensor);
        }
        Ok(None)
    }
}
