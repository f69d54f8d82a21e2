//! [`load`]: a model filled from a file, all of it or nothing.

use super::{Location, Names, WeightsDifference, WeightsError};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut},
    prelude::{Device, Dtype, ReshapeTo, Shape, Tensor},
};
use half::{bf16, f16};
use safetensors::{tensor::TensorView, Dtype as Stored, SafeTensors};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use tlr::__private::{self as walk, Model};

/// Fills `model` with the weights in a safetensors file.
///
/// Tensors keep their identity: an optimizer made for the model goes on with it.
///
/// # Errors
/// See [`WeightsError`]; the model is then as it was.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use safetensors::{serialize_to_file, tensor::TensorView, Dtype};
/// use tlr_models::weights::{self, Names};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("linear.safetensors");
/// let [weight, bias] = [&[1f32, 2.0][..], &[3.0]]
///     .map(|values| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
/// let weight = TensorView::new(Dtype::F32, vec![1, 2], &weight)?;
/// let bias = TensorView::new(Dtype::F32, vec![1], &bias)?;
/// serialize_to_file([("fc.weight", weight), ("fc.bias", bias)], None, &path)?;
///
/// let mut model = modules::Linear::<2, 1, f64, Cpu>::build(&Cpu::default());
/// weights::load(&mut model, &path, &Names::default().prefix("", "fc."))?;
/// assert_eq!(model.weight.array(), [[1.0, 2.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load<M, E, D>(
    model: &mut M,
    path: impl AsRef<Path>,
    names: &Names,
) -> Result<(), WeightsError>
where
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Device<E>,
{
    let path = path.as_ref();
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    load_bytes(model, &std::fs::read(path).map_err(read)?, names)
}

/// As [`load`], from memory.
///
/// # Errors
/// As [`load`].
///
/// Example: [`Names::leave_out`].
pub fn load_bytes<M, E, D>(model: &mut M, bytes: &[u8], names: &Names) -> Result<(), WeightsError>
where
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Device<E>,
{
    let file = SafeTensors::deserialize(bytes)?;
    let mut plan = Plan {
        stored: file.iter().collect(),
        names,
        used: BTreeSet::new(),
        left_out: BTreeSet::new(),
        values: Vec::new(),
        differences: Vec::new(),
    };
    plan.make(&*model);
    plan.find_extra();
    plan.find_unknown_parts();
    if !plan.differences.is_empty() {
        return Err(WeightsError::Mismatch(plan.differences));
    }
    // All that can fail is done first, and changes no value.
    M::iter_tensors(&mut RecursiveWalker { m: &mut *model, f: &mut MakeContiguous })
        .map_err(|error: D::Err| WeightsError::Device(format!("{error:?}")))?;
    fill(model, plan.values);
    Ok(())
}

/// The numbers that each tensor of the model is to be filled with, in order.
struct Plan<'a, E> {
    stored: BTreeMap<&'a str, TensorView<'a>>,
    names: &'a Names,
    used: BTreeSet<Location>,
    /// The parts that `names` leaves out and the model has.
    left_out: BTreeSet<&'a str>,
    /// None for a tensor that keeps its weights.
    values: Vec<Option<Vec<E>>>,
    differences: Vec<WeightsDifference>,
}

impl<'a, E: Dtype> Plan<'a, E> {
    /// Finds the values of each tensor, or why there are none.
    fn make<D: Device<E>>(&mut self, model: &dyn Model<E, D>) {
        model.look(walk::Names::Told, &mut |seen| {
            let name = seen.name.as_deref().unwrap_or_default();
            let location = self.names.location(name);
            if self.record_left_out(name) {
                self.values.push(None);
            } else {
                match self.values(name, &location, &seen.shape()) {
                    Ok(values) => self.values.push(Some(values)),
                    Err(difference) => self.differences.push(difference),
                }
            }
            self.used.insert(location);
        });
    }

    fn values(
        &self,
        name: &str,
        location: &Location,
        shape: &[usize],
    ) -> Result<Vec<E>, WeightsDifference> {
        let (name, location) = (name.to_owned(), location.clone());
        let there = location.part.is_none_or(|(part, of)| part < of);
        let Some(stored) = self.stored.get(location.name.as_str()).filter(|_| there) else {
            return Err(WeightsDifference::Missing { name, location });
        };
        let mut expected = shape.to_vec();
        if let Some((_, of)) = location.part {
            match expected.first_mut() {
                Some(first) => *first = first.saturating_mul(of),
                // Packed numbers without dimensions are a vector.
                None => expected.push(of),
            }
        }
        if stored.shape() != expected {
            let found = stored.shape().to_vec();
            return Err(WeightsDifference::Shape { name, location, expected, found });
        }
        let all: Vec<f64> = match stored.dtype() {
            Stored::F16 => numbers(stored.data(), f16::from_le_bytes).map(f64::from).collect(),
            Stored::BF16 => numbers(stored.data(), bf16::from_le_bytes).map(f64::from).collect(),
            Stored::F32 => numbers(stored.data(), f32::from_le_bytes).map(f64::from).collect(),
            Stored::F64 => numbers(stored.data(), f64::from_le_bytes).collect(),
            found => {
                return Err(WeightsDifference::Dtype {
                    name,
                    location,
                    found: format!("{found:?}"),
                })
            }
        };
        let len = shape.iter().product();
        let part = location.part.map_or(0, |(part, _)| part);
        let converted = |value: f64| {
            let converted = E::from_f64(value)?;
            let finite = converted.to_f64().is_some_and(f64::is_finite);
            (finite || !value.is_finite()).then_some(converted)
        };
        all.into_iter()
            .skip(part * len)
            .take(len)
            .map(converted)
            .collect::<Option<Vec<E>>>()
            .ok_or(WeightsDifference::Range { name, location })
    }

    /// Whether the tensor belongs to a part that is left out. Notes that the model has the part.
    fn record_left_out(&mut self, name: &str) -> bool {
        let names: &'a Names = self.names;
        let within = |part: &&String| {
            let rest = name.strip_prefix(part.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let parts: Vec<_> = names.left_out().iter().filter(within).map(String::as_str).collect();
        self.left_out.extend(&parts);
        !parts.is_empty()
    }

    /// The parts that were to be left out, and that the model does not have.
    fn find_unknown_parts(&mut self) {
        let unknown =
            self.names.left_out().iter().filter(|part| !self.left_out.contains(part.as_str()));
        let unknown = unknown.map(|part| WeightsDifference::NoPart { part: part.clone() });
        self.differences.extend(unknown);
    }

    /// The tensors of the file that no tensor of the model asked for.
    fn find_extra(&mut self) {
        for name in self.stored.keys().filter(|name| !self.names.is_ignored(name)) {
            let parts = self.used.iter().filter(|location| location.name == *name);
            let asked: Vec<_> = parts.map(|location| location.part).collect();
            let extra: Vec<_> = match asked.first() {
                None => vec![None],
                Some(Some((_, of))) => {
                    let parts = (0..*of).map(|part| Some((part, *of)));
                    parts.filter(|part| !asked.contains(part)).collect()
                }
                Some(None) => Vec::new(),
            };
            self.differences.extend(extra.into_iter().map(|part| {
                let location = Location { name: (*name).to_owned(), part };
                WeightsDifference::Extra { location }
            }));
        }
    }
}

fn numbers<'a, const N: usize, V>(
    bytes: &'a [u8],
    number: impl Fn([u8; N]) -> V + 'a,
) -> impl Iterator<Item = V> + 'a {
    bytes.chunks_exact(N).filter_map(move |bytes| Some(number(bytes.try_into().ok()?)))
}

/// A broadcast tensor shares its memory among elements, so it cannot be filled.
struct MakeContiguous;

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for MakeContiguous {
    type Viewer = ViewTensorMut;
    type Err = D::Err;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        tensor: &mut Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, D::Err> {
        // A tensor that is contiguous already keeps its identity.
        *tensor = tensor.clone().try_contiguous()?;
        Ok(None)
    }
}

/// Overwrites each tensor that there are values for.
fn fill<E: Dtype, D: Device<E>>(model: &mut dyn Model<E, D>, values: Vec<Option<Vec<E>>>) {
    let mut values = values.into_iter();
    model.change(&mut |mut seen| {
        values.next().flatten().into_iter().for_each(|values| seen.overwrite(&values));
    });
}

#[cfg(test)]
mod tests;
