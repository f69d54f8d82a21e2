//! What a batch's gradient says of the way that the weights have gone since a snapshot.

use super::{gradients, sums::each, way::Way, Snapshots};
use crate::{
    engine::{Slope, Target},
    error::Error,
    optim::Shards,
    tensors::{self, is_shared, Model},
};
use dfdx::{shapes::Dtype, tensor::Gradients, tensor_ops::Device};

impl<E: Dtype> Snapshots<E> {
    /// The slope of each group along the way since a snapshot. A trainable tensor without a
    /// gradient is given one of zeros. Sketches estimate the slope, with a deviation of at most
    /// √(2/bins)·‖g‖‖d‖. If the snapshots are shared out, all ranks have to call it.
    pub(crate) fn slopes<D>(
        &mut self,
        model: &dyn Model<E, D>,
        gradients: &mut Gradients<E, D>,
        since: Target,
        shards: Option<&dyn Shards>,
    ) -> Result<Vec<Slope>, Error>
    where
        D: Device<E>,
    {
        let own = self.sums(model, gradients, since);
        let sums = self.total(shards, own)?.into_iter();
        let of = |[along, moved, gradient, norm]: [f64; 4]| Slope {
            along,
            moved: moved.sqrt(),
            gradient: gradient.sqrt(),
            norm: norm.sqrt(),
            weights: 0,
        };
        let mut slopes: Vec<_> = sums.map(of).collect();
        let mut tensors = self.tensors.iter();
        tensors::read(model, |weights| {
            let slope = tensors.next().and_then(|tensor| slopes.get_mut(tensor.group?));
            if let Some(slope) = slope {
                slope.weights += weights.len() as u64;
            }
        });
        Ok(slopes)
    }

    /// ⟨g,d⟩, ‖d‖², ‖g‖² and ‖P‖² of each group, over the part that is kept here.
    fn sums<D>(
        &mut self,
        model: &dyn Model<E, D>,
        gradients: &mut Gradients<E, D>,
        since: Target,
    ) -> Result<Vec<[f64; 4]>, Error>
    where
        D: Device<E>,
    {
        let mut sums = vec![[0.0; 4]; self.groups];
        if let Some(sketches) = &self.sketches {
            sketches.slopes(&mut sums, model, gradients, &self.tensors, since)?;
        } else {
            #[cfg(feature = "cuda")]
            self.slopes_on_gpu(&mut sums, model, gradients, since)?;
            self.slopes_on_host(&mut sums, model, gradients, since)?;
        }
        Ok(sums)
    }

    /// Adds the sums of all weights whose snapshots are on the host.
    fn slopes_on_host<D>(
        &self,
        sums: &mut [[f64; 4]],
        model: &dyn Model<E, D>,
        gradients: &mut Gradients<E, D>,
        since: Target,
    ) -> Result<(), Error>
    where
        D: Device<E>,
    {
        if self.tensors.iter().all(|tensor| tensor.on_host(since).is_none()) {
            return Ok(());
        }
        gradients::with_all(model, gradients, |gradients| {
            let mut ways = Vec::new();
            let mut tensors = self.tensors.iter();
            tensors::read(model, |weights| {
                let Some(tensor) = tensors.next() else { return };
                let (Some(group), Some(gradient)) = (tensor.group, gradients.get(&tensor.id))
                else {
                    return;
                };
                let own = gradient.get(tensor.part.clone());
                if let (Some(from), Some(gradient)) = (tensor.on_host(since), own) {
                    let (now, first) = (weights.values(), tensor.part.start);
                    ways.push(Way { group, from, now, gradient, first });
                }
            });
            // All tensors are shared out together, so that the threads wake only once.
            let shared = is_shared(ways.iter().map(|way| way.gradient.len()).sum());
            let own = each(&mut ways, shared, |way| way.sums());
            ways.iter().zip(own).for_each(|(way, own)| add(sums, way.group, own));
        })
    }
}

#[cfg(feature = "cuda")]
impl<E: Dtype> Snapshots<E> {
    /// Does the work of [`slopes_on_host`](Self::slopes_on_host) for all weights whose snapshots
    /// are on a GPU, in one launch.
    fn slopes_on_gpu<D>(
        &mut self,
        sums: &mut [[f64; 4]],
        model: &dyn Model<E, D>,
        gradients: &mut Gradients<E, D>,
        since: Target,
    ) -> Result<(), Error>
    where
        D: Device<E>,
    {
        if self.tensors.iter().all(|tensor| tensor.on_gpu(since).is_none()) {
            return Ok(());
        }
        let mut places = std::collections::BTreeMap::new();
        gradients::each(model, gradients, |id, buffer| {
            places.extend(gradients::on_gpu::<E, D>(buffer).map(|place| (id, place)));
            Ok(())
        })?;
        let mut rows = super::gpu::Rows::new();
        let mut added = Ok(());
        let mut tensors = self.tensors.iter();
        tensors::read(model, |weights| {
            let (Ok(()), Some(tensor)) = (&added, tensors.next()) else { return };
            let (Some(group), Some(gradient)) = (tensor.group, places.get(&tensor.id)) else {
                return;
            };
            if let Some(from) = tensor.on_gpu(since) {
                added = rows.way(group, from, &weights, gradient, tensor.part.start);
            }
        });
        added?;
        // SAFETY: every row is one of `way`. W belongs to `model` and the gradients to `gradients`,
        // which are borrowed for this whole function. So all are still allocated, and nothing has
        // written to them.
        #[allow(unsafe_code)]
        let own = unsafe { rows.slopes(&mut self.resident, sums.len()) }?;
        own.into_iter().enumerate().for_each(|(group, own)| add(sums, group, own));
        Ok(())
    }
}

/// Adds the four sums over one tensor to those of its group.
fn add(sums: &mut [[f64; 4]], group: usize, own: [f64; 4]) {
    let Some(sums) = sums.get_mut(group) else { return };
    sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{
            sums::tests::{is_the_same_with_any_threads, values},
            Layout,
        },
        *,
    };
    use crate::engine::TensorKind;
    use dfdx::prelude::*;

    /// By hand, from snapshots, from a direction in bfloat16 that is exact here, and from sketches
    /// with room for three elements. Fails with another snapshot or another group.
    #[test]
    fn slopes_by_hand() {
        let close = |a: &Slope, b: &Slope| {
            let figures = |s: &Slope| [s.along, s.moved, s.gradient, s.norm, s.weights as f64];
            figures(a).iter().zip(figures(b)).all(|(a, b)| (a - b).abs() <= 1e-12 * b.abs())
        };
        let moved =
            Slope { along: 20.0, moved: 2.0, gradient: 164f64.sqrt(), norm: 5.0, weights: 2 };
        let still = Slope { along: 0.0, moved: 0.0, gradient: 2.0, norm: 1.0, weights: 1 };
        for (bins, directions) in [(None, false), (None, true), (Some(1 << 10), false)] {
            let dev = Cpu::default();
            let mut model = (dev.tensor([3.0f32, 4.0]), dev.tensor([1.0f32]));
            let second = tensors::id(&model.1);
            let group_of = |id| Some(usize::from(Some(id) == second));
            let layout = Layout { bins, directions, place: None };
            let mut snapshots = Snapshots::<f32>::new(&model, 2, &group_of, layout).unwrap();
            snapshots.take(&model, TensorKind::Weights).unwrap();
            model.0.copy_from(&[5.0, 4.0]);
            let squares = model.0.leaky_trace().square().sum::<Rank0, _>();
            let mut gradients = (squares + model.1.leaky_trace().square().sum()).backward();
            let slopes = snapshots.slopes(&model, &mut gradients, Target::Last, None).unwrap();
            assert!(close(&slopes[0], &moved) && close(&slopes[1], &still), "{slopes:?}");
            snapshots.advance(&model, None).unwrap();
            let slopes =
                snapshots.slopes(&model, &mut gradients, Target::BeforeLast, None).unwrap();
            assert!(close(&slopes[0], &moved) && close(&slopes[1], &still), "{slopes:?}");
            let slopes = snapshots.slopes(&model, &mut gradients, Target::Last, None).unwrap();
            assert_eq!((slopes[0].along, slopes[0].moved), (0.0, 0.0));
        }
    }

    /// Several tensors, shared between threads or not. Fails if the slopes depend on the number of
    /// threads, or if the gradients are not given back.
    #[test]
    fn slopes_are_the_same_with_any_number_of_threads() {
        let dev = Cpu::default();
        let tensor = |seed| dev.tensor_from_vec(values(700_001, seed), (Const::<700_001>,));
        let mut model = (tensor(1), dev.tensor([1.0f32, -2.0]), tensor(2));
        let second = tensors::id(&model.1);
        let group_of = |id| Some(usize::from(Some(id) == second));
        let mut snapshots = Snapshots::<f32>::new(&model, 2, &group_of, Layout::default()).unwrap();
        snapshots.take(&model, TensorKind::Weights).unwrap();
        model.0.copy_from(&values(700_001, 3));
        let squares = model.0.leaky_trace().square().sum::<Rank0, _>();
        let gradients = (squares + model.2.leaky_trace().square().sum()).backward();
        assert!(is_the_same_with_any_threads(|| {
            let mut own = gradients.clone();
            let slopes = snapshots.slopes(&model, &mut own, Target::Last, None).unwrap();
            assert_eq!(own.get(&model.0).as_vec(), gradients.get(&model.0).as_vec());
            assert_eq!(own.get(&model.2).as_vec(), gradients.get(&model.2).as_vec());
            // It had no gradient, and is given one.
            assert_eq!(own.get(&model.1).array(), [0.0; 2]);
            slopes
                .into_iter()
                .flat_map(|s| [s.along, s.moved, s.gradient, s.norm])
                .map(f64::to_bits)
                .collect::<Vec<_>>()
        }));
    }
}
