//! A step of all ranks: what they compare and average before their gradients are used.

use super::{
    agree::digest,
    data_parallel::Means,
    explain::LocalView,
    header::{mean_loss, Header, HeaderCheck},
    setup::{checksums, of_engine, of_model, Facts},
    Communicator, DataParallel,
};
use crate::{
    digest::Digest,
    engine::Standing,
    error::{Error, ParallelError},
    optim::{gradients, StepFigures, TunableOptimizer},
    tensors::{device_error, Backend, Element},
};
use dfdx::tensor::{Gradients, HasErr};

impl<Opt, C> DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    /// Replaces one step's gradients and figures by their means over the ranks.
    pub(super) fn take_means(
        &mut self,
        model: &Opt::Model,
        own: Result<&mut Gradients<Opt::Dtype, Opt::Device>, Error>,
        figures: &mut StepFigures,
    ) -> Result<(), Error> {
        if !figures.again {
            self.last.weight = self.next.weight;
        }
        let taken = self.take_means_of_weighed(model, own, figures);
        self.next.weight = match &taken {
            // There is no batch that such a step could be made of.
            Ok(()) | Err(Error::Parallel { problem: ParallelError::NoExamples, .. }) => None,
            // The step can be made again, by the same batch.
            Err(_) => self.last.weight,
        };
        taken
    }

    fn take_means_of_weighed(
        &mut self,
        model: &Opt::Model,
        own: Result<&mut Gradients<Opt::Dtype, Opt::Device>, Error>,
        figures: &mut StepFigures,
    ) -> Result<(), Error> {
        figures.weight = self.last.weight.unwrap_or(figures.weight);
        let standing = figures.standing.as_ref();
        let steps = standing.map_or(0, |standing| standing.steps);
        self.ranks.set_step(steps + 1);
        let own = own.and_then(|own| {
            let flattened = self.flatten(model, own).map(|()| own);
            flattened.map_err(|error| device_error(error.to_string(), &error))
        });
        let begins_window = standing.is_none_or(|standing| standing.begins_window);
        let checksums = if begins_window { checksums(model) } else { Vec::new() };
        let header = Header {
            failed: own.is_err(),
            flag: self.next.flag,
            again: figures.again,
            loss: figures.loss,
            weight: figures.weight,
            steps,
            begins_window,
            setup: self.setup(model, standing),
            standing: standing.map_or(0, Standing::digest),
            weights: digest_of(&checksums),
        };
        let said = self.ranks.all_gather(&header.to_bytes())?;
        let headers: Vec<_> = said.iter().map(|said| Header::from_bytes(said)).collect();
        self.last.flag = headers.iter().any(|header| header.flag);
        match HeaderCheck::of(&headers) {
            HeaderCheck::Fine => (),
            HeaderCheck::Failed(_) => {
                self.ranks.confirm_own(own.as_ref().err())?;
            }
            HeaderCheck::Odd(mismatch, odd, other) => {
                let mine = LocalView { model, standing, headers: &headers, checksums: &checksums };
                return Err(self.describe_mismatch(mismatch, odd, other, mine)?);
            }
            HeaderCheck::NoExamples => {
                return Err(self.ranks.error(0, ParallelError::NoExamples));
            }
        }
        let weights: Vec<_> = headers.iter().map(|header| header.weight).collect();
        self.ranks.mean(&mut self.flat, &weights, self.settings.plan)?;
        if let Ok(own) = own {
            let written = self.unflatten(model, own);
            written.map_err(|error| device_error(error.to_string(), &error))?;
        }
        figures.loss = mean_loss(&headers);
        figures.weight = weights.iter().sum();
        let (loss, weight) = (figures.loss, figures.weight);
        self.last.means = Some(Means { loss, weight, unused: true });
        Ok(())
    }

    /// Copies all gradients into `flat`, one after the other.
    fn flatten(
        &mut self,
        model: &Opt::Model,
        own: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), <Opt::Device as HasErr>::Err> {
        let flat = &mut self.flat;
        flat.clear();
        gradients::each(model, own, |_, gradient| {
            <Opt::Device as Backend<Opt::Dtype>>::read(gradient, |values| {
                flat.extend_from_slice(values);
            })
        })
    }

    /// Copies `flat` back into the gradients.
    fn unflatten(
        &self,
        model: &Opt::Model,
        own: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), <Opt::Device as HasErr>::Err> {
        let mut rest = &self.flat[..];
        gradients::each(model, own, |_, gradient| {
            <Opt::Device as Backend<Opt::Dtype>>::write(gradient, |values| {
                if let Some((means, behind)) = rest.split_at_checked(values.len()) {
                    values.copy_from_slice(means);
                    rest = behind;
                }
            })
        })
    }

    /// What has to be the same on all ranks for the whole training.
    pub(super) fn facts(&self, model: &Opt::Model, standing: Option<&Standing>) -> Facts {
        let own = [
            ("optimizer", std::any::type_name::<Opt>().to_owned()),
            ("momentum", self.optimizer.momentum().to_string()),
            ("compression", format!("{:?}", self.settings.plan.compression)),
            ("bucket", self.settings.plan.bucket.to_string()),
            ("shard_snapshots", self.settings.sharded.to_string()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(of_engine(standing)).chain(of_model(model)).collect()
    }

    /// A digest of the facts, found again where a window begins: the model or the trainer may be
    /// another one by then, and a trainer's settings are known only there.
    fn setup(&mut self, model: &Opt::Model, standing: Option<&Standing>) -> u64 {
        let begins_window = standing.is_some_and(|standing| standing.begins_window);
        match self.setup {
            Some(setup) if !begins_window => setup,
            _ => *self.setup.insert(digest(&self.facts(model, standing))),
        }
    }
}

fn digest_of(checksums: &[u32]) -> u64 {
    let mut digest = Digest::default();
    checksums.iter().for_each(|checksum| digest.add(&checksum.to_le_bytes()));
    digest.value()
}
