//! Finds in which layer or setting a rank differs, and makes an error of it.

use super::{
    header::{Header, Mismatch},
    Communicator, DataParallel,
};
use crate::{
    engine::Standing,
    error::{Error, ParallelError},
    optim::TunableOptimizer,
    tensors::{self, Backend, Element},
};

/// The name in an error if no single layer differs.
const MODEL: &str = "the model";

/// What this rank can say of itself.
pub(super) struct LocalView<'a, M> {
    pub(super) model: &'a M,
    pub(super) standing: Option<&'a Standing>,
    pub(super) headers: &'a [Header],
    pub(super) checksums: &'a [u32],
}

impl<Opt, C> DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    /// The error that says in what a rank differs from the others. All ranks have to call it, and
    /// all get the same error.
    pub(super) fn describe_mismatch(
        &self,
        mismatch: Mismatch,
        odd: usize,
        other: usize,
        mine: LocalView<'_, Opt::Model>,
    ) -> Result<Error, Error> {
        let LocalView { model, standing, headers, checksums } = mine;
        let of = |rank: usize| headers.get(rank).copied().unwrap_or_default();
        let step = of(other).steps + 1;
        let at = |problem| Error::Parallel { rank: odd, step, problem };
        let problem = match mismatch {
            Mismatch::Setup => {
                return self.ranks.name_difference(&self.facts(model, standing), odd, other);
            }
            Mismatch::Loss => {
                let word = |rank| if of(rank).loss.is_some() { "given" } else { "not given" };
                let (here, there) = (word(odd).to_owned(), word(other).to_owned());
                ParallelError::Differs { what: "loss".to_owned(), here, other, there }
            }
            Mismatch::Again => {
                let word = |rank| if of(rank).again { "second" } else { "first" };
                let (here, there) = (word(odd).to_owned(), word(other).to_owned());
                let what = "set of gradients in a step".to_owned();
                ParallelError::Differs { what, here, other, there }
            }
            Mismatch::Steps => {
                ParallelError::Steps { here: of(odd).steps, other, there: of(other).steps }
            }
            Mismatch::Standing => self.compare_standing(standing, odd, other)?,
            Mismatch::Weights => {
                let said: Vec<_> = checksums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
                let all = self.ranks.all_gather(&said)?;
                let parts =
                    |rank: usize| all.get(rank).map_or(&[][..], |said| said.as_chunks::<4>().0);
                let differs = parts(odd).iter().zip(parts(other)).position(|(a, b)| a != b);
                let mut trained = tensors::list(model).into_iter().filter(|t| t.trainable);
                let tensor = differs.and_then(|index| trained.nth(index));
                ParallelError::Weights {
                    tensor: tensor.map_or_else(String::new, |t| t.name),
                    other,
                }
            }
        };
        Ok(at(problem))
    }

    /// The layer whose rate or remembered windows differ between two ranks.
    fn compare_standing(
        &self,
        standing: Option<&Standing>,
        odd: usize,
        other: usize,
    ) -> Result<ParallelError, Error> {
        let rates = standing.map_or(&[][..], |standing| &standing.rates);
        let group_digests = standing.map_or(&[][..], |standing| &standing.group_digests);
        let rates_said = rates.iter().flat_map(|(_, rate)| rate.to_bits().to_le_bytes());
        let digests_said = group_digests.iter().flat_map(|digest| digest.to_le_bytes());
        let all = self.ranks.all_gather(&rates_said.chain(digests_said).collect::<Vec<_>>())?;
        let words = |rank: usize| -> Vec<u64> {
            let said = all.get(rank).map_or(&[][..], |said| said.as_chunks().0);
            said.iter().map(|word| u64::from_le_bytes(*word)).collect()
        };
        let (here, there) = (words(odd), words(other));
        let name = |index: usize| rates.get(index).map(|(name, _)| name.to_string());
        let model = || MODEL.to_owned();
        let Some(index) = here.iter().zip(&there).position(|(here, there)| here != there) else {
            return Ok(ParallelError::Memory { layer: model(), other });
        };
        Ok(match (name(index), here.get(index), there.get(index)) {
            (Some(layer), Some(here), Some(there)) => ParallelError::Rate {
                layer,
                here: f64::from_bits(*here),
                other,
                there: f64::from_bits(*there),
            },
            _ => {
                let layer = index.checked_sub(rates.len()).and_then(name).unwrap_or_else(model);
                ParallelError::Memory { layer, other }
            }
        })
    }
}
