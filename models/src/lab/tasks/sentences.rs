//! Tasks on sentences, for transformers.

use super::{
    numbers::Random,
    task::{Opened, Task},
};
use crate::{
    data::text::{
        multi30k, toy, Buckets, EncodedPairs, ParallelText, TextError, Vocabulary, VocabularyConfig,
    },
    lab::{place::at_place, Batch, Budget, Problem, TaskDevice, Tested},
    layers::DropoutRate,
    train::{failed, Tally, TrainError, TrainLoss, Translator},
    Seq2SeqTransformer,
};
use dfdx::prelude::Gradients;
use std::marker::PhantomData;

/// How many pairs are tested at a time. It matters only for memory.
const AT_ONCE: usize = 50;

/// One layer on either side, 32 features, for some hundred words.
type Tiny<D> = Seq2SeqTransformer<100, 100, 32, 4, 64, 1, 1, f32, D>;

/// The same model for a thousand words.
type Small<D> = Seq2SeqTransformer<1000, 1000, 32, 4, 64, 1, 1, f32, D>;

pub(super) fn tasks() -> Vec<Task> {
    vec![
        Task {
            name: "copying",
            about: "eight letters out of sixteen, to be copied; a transformer of one layer on \
                    either side, without dropout, as in the next two",
            needs: None,
            on_gpu: true,
            open: |_, scale, place| {
                let [train, test] = scale.pick([64, 16], [3_200, 200], [20_000, 1_000]);
                let (train, val) = (letters(1, train)?, letters(2, test)?);
                let epochs = scale.pick(2, 3, 10);
                at_place!(place, D => sentences::<Tiny<D>>("drawn", &train, &val, 100, epochs))
            },
        },
        Task {
            name: "toy-translation",
            about: "a small language that the program makes itself, German to English",
            needs: None,
            on_gpu: true,
            open: |_, scale, place| {
                let [train, test] = scale.pick([64, 16], [3_200, 200], [20_000, 1_000]);
                let data = toy::draw(1, train, test, 1)?;
                let (train, val, epochs) = (data.train, data.val, scale.pick(2, 3, 10));
                at_place!(place, D => sentences::<Tiny<D>>("made", &train, &val, 100, epochs))
            },
        },
        Task {
            name: "multi30k",
            about: "Multi30k, captions of photographs, German to English, a thousand words of \
                    either",
            needs: Some("multi30k"),
            on_gpu: true,
            open: |folders, scale, place| {
                let folder = folders.find("multi30k").unwrap_or_default();
                let data = multi30k::load(&folder)?;
                let [train, test] = scale.pick([64, 16], [3_200, 100], [5_000, 1_014]);
                let (train, val) = (data.train.take(train)?, data.val.take(test)?);
                let (name, epochs) = ("Multi30k", scale.pick(2, 2, 15));
                at_place!(place, D => sentences::<Small<D>>(name, &train, &val, 1000, epochs))
            },
        },
    ]
}

/// `count` words of eight letters, each with itself as its translation.
fn letters(purpose: u64, count: usize) -> Result<ParallelText, TextError> {
    let mut random = Random::new(purpose);
    let word = |random: &mut Random| {
        let letters = (0..8).map(|_| char::from(b'a' + random.below(16) as u8).to_string());
        letters.collect::<Vec<_>>().join(" ")
    };
    let words: Vec<String> = (0..count).map(|_| word(&mut random)).collect();
    ParallelText::new(words.clone(), words)
}

/// How many pairs a batch has.
const BATCH: usize = 32;

pub(super) fn sentences<M: Translator<Number = f32, Device: TaskDevice>>(
    name: &'static str,
    train: &ParallelText,
    val: &ParallelText,
    size: usize,
    epochs: usize,
) -> Opened {
    let config = VocabularyConfig { size, ..VocabularyConfig::default() };
    let source = Vocabulary::learn(train.source(), config)?;
    let target = Vocabulary::learn(train.target(), config)?;
    let (takes, found) = (M::TOKENS, [source.len(), target.len()]);
    if takes.iter().zip(&found).any(|(takes, found)| found > takes) {
        return Err(TrainError::Vocabulary { takes, found });
    }
    let encoded = |text| EncodedPairs::new(text, &source, &target);
    let (train, val) = (encoded(train)?, encoded(val)?);
    let batches = Buckets::new(&train, BATCH, 0)?.batches_per_epoch();
    let budget = Budget { epochs, batches };
    Ok(Box::new(Sentences { name, train, val, budget, model: PhantomData::<fn() -> M> }))
}

/// Pairs of sentences.
struct Sentences<M> {
    name: &'static str,
    train: EncodedPairs,
    val: EncodedPairs,
    budget: Budget,
    model: PhantomData<fn() -> M>,
}

impl<M: Translator<Number = f32, Device: TaskDevice>> Problem for Sentences<M> {
    type Device = M::Device;
    type Model = M;

    fn budget(&self) -> Budget {
        self.budget
    }

    fn data(&self) -> String {
        let (pairs, epochs) = (self.train.len(), self.budget.epochs);
        format!("{}, {pairs} pairs, batch {BATCH}, {epochs} epochs", self.name)
    }

    fn build(&self, device: &M::Device) -> Result<M, TrainError> {
        let mut model = M::try_build(device).map_err(failed)?;
        // Dropout would draw anew for each trial on a batch.
        model.set_dropout(DropoutRate::NONE);
        Ok(model)
    }

    fn epoch(&self, epoch: usize, seed: u64) -> Result<Vec<Vec<usize>>, TrainError> {
        Ok(Buckets::new(&self.train, BATCH, seed)?.epoch(epoch).collect())
    }

    fn loss(
        &self,
        _: &M::Device,
        model: &mut M,
        batch: Batch<'_>,
        gradients: Gradients<f32, M::Device>,
    ) -> Result<TrainLoss<M::Device>, TrainError> {
        model.train_loss(self.train.batch(batch.examples)?, gradients)
    }

    fn test(&self, _: &M::Device, model: &M) -> Result<Tested, TrainError> {
        let mut all = Tally::default();
        for batch in Buckets::new(&self.val, AT_ONCE, 0)?.epoch(0) {
            all = all.add(model.tally(self.val.batch(&batch)?)?);
        }
        // The device keeps memory for batches of every length that has occurred.
        model.empty_cache()?;
        let tokens = all.tokens as f64;
        Ok(Tested { loss: all.loss / tokens, accuracy: Some(all.right as f64 / tokens) })
    }
}
