//! Count sketches of the weights, which can replace snapshots. They give the dot products of
//! displacements from a state whose size does not grow with the model.
//!
//! A sketch C(x) has m bins. Element i of x is added to bin h(i) with the sign σ(i). Both are
//! computed by hashing i when needed. A sketch is linear, so C(A) − C(B) is the sketch of the
//! displacement A − B. ⟨C(x), C(y)⟩ equals ⟨x,y⟩ plus the signed products of different elements
//! that share a bin. Over random hash functions the sum of these products has mean 0 and a variance
//! of at most (‖x‖²‖y‖² + ⟨x,y⟩²)/m (Charikar et al., *Finding frequent items in data streams*,
//! 2002; Cormode and Garofalakis, *Sketching streams through the net*, 2005). All windows use the
//! same hash function. So the error of ⟨s,s⟩ is nearly the same in each window, and cancels in the
//! ratios that determine a rate.

use super::{gradients, tracked::Tracked};
use crate::{
    engine::{Target, WindowProducts},
    error::Error,
    tensors::{self, wide, Model},
};
use dfdx::{shapes::Dtype, tensor::Gradients, tensor_ops::Device};

/// The sketches of each group at the ends of the last two windows.
#[derive(Clone, Debug)]
pub(crate) struct Sketches {
    /// The number of bins of one group's sketch, a power of two.
    bins: usize,
    /// C(B) of every group, one after the other.
    last: Vec<f64>,
    /// C(A − B) of every group, one after the other.
    moved: Vec<f64>,
}

impl Sketches {
    pub(crate) fn new(bins: usize, groups: usize) -> Self {
        Self { bins, last: vec![0.0; bins * groups], moved: vec![0.0; bins * groups] }
    }

    pub(crate) fn bins(&self) -> usize {
        self.bins
    }

    /// C(B) and C(A − B), each with all groups one after the other.
    pub(crate) fn state(&self) -> [&Vec<f64>; 2] {
        [&self.last, &self.moved]
    }

    /// C(B) and C(A − B), to be overwritten by those of a checkpoint.
    pub(crate) fn state_mut(&mut self) -> [&mut Vec<f64>; 2] {
        [&mut self.last, &mut self.moved]
    }

    /// C(B) ← C(W).
    pub(crate) fn take<E, D>(&mut self, model: &dyn Model<E, D>, tensors: &[Tracked<E>])
    where
        E: Dtype,
        D: Device<E>,
    {
        // Weights that are not finite are not reported here: the next `advance` finds them.
        (self.last, _) = self.of(model, tensors);
    }

    /// The dot products of every group, and the sketches of the next window: A ← B and B ← W.
    ///
    /// # Errors
    /// The name of a trainable tensor that is not finite.
    pub(crate) fn next<E, D>(
        &self,
        model: &dyn Model<E, D>,
        tensors: &[Tracked<E>],
    ) -> Result<(Vec<WindowProducts>, Self), String>
    where
        E: Dtype,
        D: Device<E>,
    {
        let (now, bad) = self.of(model, tensors);
        if let Some(name) = bad {
            return Err(name);
        }
        let moved: Vec<f64> = self.last.iter().zip(&now).map(|(b, w)| b - w).collect();
        let dot = |(x, y): (&[f64], &[f64])| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let groups = || moved.chunks(self.bins);
        let across = self.moved.chunks(self.bins).zip(groups()).map(dot);
        let own = groups().zip(groups()).map(dot);
        let dots = across.zip(own).map(|(across, own)| WindowProducts { across, own }).collect();
        Ok((dots, Self { bins: self.bins, last: now, moved }))
    }

    /// C(W) of each group, and the name of the first tensor that is not finite. One thread adds all
    /// elements in order, so the result does not depend on the number of threads.
    fn of<E, D>(
        &self,
        model: &dyn Model<E, D>,
        tensors: &[Tracked<E>],
    ) -> (Vec<f64>, Option<String>)
    where
        E: Dtype,
        D: Device<E>,
    {
        let mut sketches = vec![0.0; self.last.len()];
        let mut bad = None;
        let mut first = 0;
        let mut tensors = tensors.iter();
        tensors::read(model, |elements| {
            let Some(tensor) = tensors.next() else { return };
            let Some(group) = tensor.group else { return };
            let bins = sketches.chunks_mut(self.bins).nth(group).unwrap_or_default();
            let mut finite = true;
            elements.values().read_range(0..elements.len(), |part| {
                finite &= add(bins, first, part);
                first += part.len() as u64;
            });
            if !finite {
                bad.get_or_insert_with(|| tensor.name.clone());
            }
        });
        (sketches, bad)
    }

    /// Adds ⟨g,d⟩, ‖d‖², ‖g‖² and ‖P‖² of each group to its sums, as the sketches estimate them.
    pub(super) fn slopes<E, D>(
        &self,
        sums: &mut [[f64; 4]],
        model: &dyn Model<E, D>,
        gradients: &mut Gradients<E, D>,
        tensors: &[Tracked<E>],
        since: Target,
    ) -> Result<(), Error>
    where
        E: Dtype,
        D: Device<E>,
    {
        let (now, _) = self.of(model, tensors);
        let mut gradient = vec![0.0; now.len()];
        let mut first = 0;
        let mut groups = tensors.iter().filter_map(|tensor| tensor.group);
        gradients::each(model, gradients, |_, buffer| {
            let bins = groups.next().and_then(|group| gradient.chunks_mut(self.bins).nth(group));
            gradients::with::<E, D>(buffer, |elements| {
                add(bins.unwrap_or_default(), first, elements);
                first += elements.len() as u64;
            })
        })?;
        let from: Vec<f64> = match since {
            Target::Last => self.last.clone(),
            Target::BeforeLast => {
                self.last.iter().zip(&self.moved).map(|(last, moved)| last + moved).collect()
            }
        };
        let sketches = now.chunks(self.bins).zip(gradient.chunks(self.bins));
        let groups = sums.iter_mut().zip(from.chunks(self.bins)).zip(sketches);
        for (([along, way, squared, norm], from), (now, gradient)) in groups {
            for ((now, from), gradient) in now.iter().zip(from).zip(gradient) {
                let moved = now - from;
                *along += gradient * moved;
                *way += moved * moved;
                *squared += gradient * gradient;
                *norm += from * from;
            }
        }
        Ok(())
    }
}

/// Adds elements with indices from `first` on to the bins. Returns whether all of them are finite.
fn add<E: Dtype>(bins: &mut [f64], first: u64, elements: &[E]) -> bool {
    let mut finite = true;
    let mask = (bins.len() as u64).wrapping_sub(1);
    for (index, element) in (first..).zip(elements) {
        let element = wide(*element);
        finite &= element.is_finite();
        let hash = hash(index);
        let signed = f64::from_bits(element.to_bits() ^ (hash & (1 << 63)));
        if let Some(bin) = bins.get_mut((hash & mask) as usize) {
            *bin += signed;
        }
    }
    finite
}

/// The `index`-th number of SplitMix64 (Steele et al., *Fast splittable pseudorandom number
/// generators*, 2014).
fn hash(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::snapshots::{Layout, Snapshots};
    use dfdx::prelude::{Cpu, Rank1, SampleTensor};

    fn dot(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(x, y)| x * y).sum()
    }

    /// Checks the mean and the variance of the error over many pairs with a cosine of 0.6, each
    /// with other hash values. The mean error is within 4 standard errors of 0. The variance is
    /// below the bound, up to 4 times its own standard error of √(2/trials) ≈ 7 %. It is also not
    /// far below the bound. It would be if no elements shared a bin.
    #[test]
    fn unbiased_with_the_variance_of_the_bound() {
        const TRIALS: u64 = 400;
        for bins in [64, 1024] {
            let mut errors = Vec::new();
            let device = Cpu::seed_from_u64(1);
            let normal = || device.sample_normal::<Rank1<3000>>().as_vec();
            for trial in 0..TRIALS {
                let x: Vec<f64> = normal();
                let y: Vec<_> = x.iter().zip(normal()).map(|(x, z)| 0.6 * x + 0.8 * z).collect();
                let sketch = |x: &[f64]| {
                    let mut sketch = vec![0.0; bins];
                    assert!(add(&mut sketch, trial * 1_000_003, x));
                    sketch
                };
                let estimate = dot(&sketch(&x), &sketch(&y));
                let bound = (dot(&x, &x) * dot(&y, &y) + dot(&x, &y).powi(2)) / bins as f64;
                errors.push((estimate - dot(&x, &y)) / bound.sqrt());
            }
            let trials = TRIALS as f64;
            let mean = errors.iter().sum::<f64>() / trials;
            let variance = errors.iter().map(|error| error * error).sum::<f64>() / trials;
            assert!(mean.abs() < 4.0 / trials.sqrt(), "{bins}: {mean}");
            assert!((0.7..1.28).contains(&variance), "{bins}: {variance}");
        }
    }

    /// The model is read in parts, tensor after tensor. Fails if an element is left out, counted
    /// twice or hashed with a wrong index.
    #[test]
    fn a_sketch_of_a_model_is_that_of_all_its_weights() {
        let device = Cpu::seed_from_u64(1);
        let model = (device.sample_normal::<Rank1<20_005>>(), device.sample_normal::<Rank1<3>>());
        let layout = Layout { bins: Some(64), ..Layout::default() };
        let snapshots = Snapshots::<f64>::new(&model, 1, &|_| Some(0), layout).unwrap();
        let of_model = Sketches::new(64, 1).of(&model, snapshots.tensors());
        let mut whole = vec![0.0; 64];
        assert!(add(&mut whole, 0, &[model.0.as_vec(), model.1.as_vec()].concat()));
        assert_eq!(of_model, (whole, None));
    }
}
