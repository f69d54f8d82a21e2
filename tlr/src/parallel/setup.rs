//! The tensors and settings that all ranks must have in common, by name.

use crate::{
    engine::Standing,
    tensors::{self, Element, Elements, Model},
};
use dfdx::tensor_ops::Device;

/// Names and values.
pub(super) type Facts = Vec<(String, String)>;

/// The tensors of a model, and how they travel.
pub(super) fn of_model<E, D>(model: &dyn Model<E, D>) -> Facts
where
    E: Element,
    D: Device<E>,
{
    let tensors = tensors::list(model).into_iter().map(|tensor| {
        let kind = if tensor.trainable { "trained" } else { "a buffer" };
        (format!("`{}`", tensor.name), format!("{:?} of {}, {kind}", tensor.shape, E::NAME))
    });
    tensors.collect()
}

/// What an engine was configured with. This is known at the beginning of a window only.
pub(super) fn of_engine(standing: Option<&Standing>) -> Facts {
    standing.map(|standing| standing.settings.words().collect()).unwrap_or_default()
}

/// A checksum of each tensor that is trained.
pub(super) fn checksums<E, D>(model: &dyn Model<E, D>) -> Vec<u32>
where
    E: Element,
    D: Device<E>,
{
    let mut all = Vec::new();
    tensors::read(model, |tensor| {
        if tensor.trainable {
            all.push(checksum(&tensor));
        }
    });
    all
}

fn checksum<E: Element>(tensor: &Elements<'_, E>) -> u32 {
    /// The elements whose bytes are held at a time.
    const AT_ONCE: usize = 1 << 12;
    let size = size_of::<E>();
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = vec![0; AT_ONCE * size];
    for values in tensor.to_vec().chunks(AT_ONCE) {
        let places = bytes.chunks_exact_mut(size);
        places.zip(values).for_each(|(place, value)| value.write_to(place));
        hasher.update(bytes.get(..size_of_val(values)).unwrap_or_default());
    }
    hasher.finalize()
}
