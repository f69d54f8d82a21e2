//! The mean of many numbers over ranks, the same bits on each of them.

use super::{
    link::{blank, body, body_mut, Kind},
    ranks::Talk,
    Communicator, Compression, Ranks,
};
use crate::{
    error::Error,
    tensors::{wide, Element},
};
use std::ops::Range;

/// How a mean is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How many numbers travel together, in one bucket.
    pub(super) bucket: usize,
    pub(super) compression: Compression,
}

impl<C: Communicator> Ranks<C> {
    /// Replaces each of the `values` by its mean over the ranks, each with its weight. A rank that
    /// weighs 0 counts for nothing, whatever its values are.
    ///
    /// Each rank takes the means of its own part of a bucket: it is sent that part by the others,
    /// sums in f64 in the order of the ranks, rounds once, and sends the means to all. So a rank
    /// sends and receives 2(n − 1)/n times the bytes of its values, and no sum is taken twice.
    /// While the parts of one bucket are summed, those of the next are on their way.
    pub(super) fn mean<E: Element>(
        &self,
        values: &mut [E],
        weights: &[f64],
        plan: Plan,
    ) -> Result<(), Error> {
        let mut mean = Mean::new(self.rank(), weights, plan.compression);
        let mut buckets: Vec<_> = values.chunks_mut(plan.bucket.max(1)).collect();
        self.exchange(|talk| {
            if let Some(first) = buckets.first() {
                mean.send_parts(talk, first)?;
            }
            for current in 0..buckets.len() {
                if let Some(next) = buckets.get(current + 1) {
                    mean.send_parts(talk, next)?;
                }
                if let Some(bucket) = buckets.get_mut(current) {
                    mean.sum_own_part(talk, bucket)?;
                }
                if let Some(bucket) = current.checked_sub(1).and_then(|last| buckets.get_mut(last))
                {
                    mean.receive_means(talk, bucket)?;
                }
            }
            buckets.last_mut().map_or(Ok(()), |bucket| mean.receive_means(talk, bucket))
        })
    }
}

struct Mean {
    rank: usize,
    /// For each rank, the factor on its values.
    weights: Vec<f64>,
    /// What the sum is divided by.
    total: f64,
    compression: Compression,
    sums: Vec<f64>,
}

impl Mean {
    fn new(rank: usize, weights: &[f64], compression: Compression) -> Self {
        // If all weights that are not 0 are equal, 1 takes their place: a plain mean has fewer
        // roundings.
        let mut some = weights.iter().filter(|weight| **weight != 0.0);
        let first = some.next().copied().unwrap_or(1.0);
        let weights: Vec<f64> = match some.all(|weight| *weight == first) {
            true => weights.iter().map(|weight| f64::from(u8::from(*weight != 0.0))).collect(),
            false => weights.to_vec(),
        };
        let total = weights.iter().sum();
        Self { rank, weights, total, compression, sums: Vec::new() }
    }

    /// The part of a bucket that a rank sums.
    fn part(&self, rank: usize, len: usize) -> Range<usize> {
        let ranks = self.weights.len();
        len * rank / ranks..len * (rank + 1) / ranks
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        let own = self.rank;
        (0..self.weights.len()).filter(move |rank| *rank != own)
    }

    /// A message of some elements.
    fn message<E: Element>(&self, values: &[E]) -> Vec<u8> {
        let mut message = blank(self.compression.width::<E>() * values.len());
        self.compression.encode(values, body_mut(&mut message));
        message
    }

    /// Sends each of the other ranks its part of a bucket.
    fn send_parts<E: Element, C: Communicator>(
        &self,
        talk: &mut Talk<'_, C>,
        bucket: &[E],
    ) -> Result<(), Error> {
        for to in self.others() {
            let part = bucket.get(self.part(to, bucket.len())).unwrap_or_default();
            talk.send(to, Kind::Parts, self.message(part))?;
        }
        Ok(())
    }

    /// Takes the means of this rank's part of a bucket, and sends them to the others.
    fn sum_own_part<E: Element, C: Communicator>(
        &mut self,
        talk: &mut Talk<'_, C>,
        bucket: &mut [E],
    ) -> Result<(), Error> {
        let part = self.part(self.rank, bucket.len());
        let own = bucket.get_mut(part).unwrap_or_default();
        let len = self.compression.width::<E>() * own.len();
        self.sums.clear();
        self.sums.resize(own.len(), 0.0);
        let mut is_first = true;
        for (from, &weight) in self.weights.iter().enumerate() {
            let sent = match from == self.rank {
                true => None,
                false => Some(talk.receive(from, Kind::Parts, len)?),
            };
            if weight == 0.0 {
                continue;
            }
            let sums = &mut self.sums;
            // The first term is assigned and not added: 0 + (−0) is 0 and would lose the sign.
            let mut add = |index: usize, value: f64| {
                if let Some(sum) = sums.get_mut(index) {
                    let value = weight * value;
                    *sum = if is_first { value } else { *sum + value };
                }
            };
            match sent {
                Some(sent) => self.compression.each::<E>(sent.body(), add),
                None => own.iter().map(|own| wide(*own)).enumerate().for_each(|(i, v)| add(i, v)),
            }
            is_first = false;
        }
        for (value, sum) in own.iter_mut().zip(&self.sums) {
            *value = E::from_f64(sum / self.total).unwrap_or_default();
        }
        let message = self.message(own);
        // This rank keeps the means as the others will read them: rounded by the compression.
        self.compression.decode(body(&message), own);
        for to in self.others() {
            talk.send(to, Kind::Means, message.clone())?;
        }
        Ok(())
    }

    /// Receives the means of all other parts of a bucket.
    fn receive_means<E: Element, C: Communicator>(
        &self,
        talk: &mut Talk<'_, C>,
        bucket: &mut [E],
    ) -> Result<(), Error> {
        let all = bucket.len();
        for from in self.others() {
            let part = bucket.get_mut(self.part(from, all)).unwrap_or_default();
            let len = self.compression.width::<E>() * part.len();
            let means = talk.receive(from, Kind::Means, len)?;
            self.compression.decode(means.body(), part);
        }
        Ok(())
    }
}
