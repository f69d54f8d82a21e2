//! A model's weights alone, as a safetensors file: what
//! [`checkpoint::load`](crate::checkpoint::load) takes, and any other program.

use crate::report::{self, ReportError};
use dfdx::{
    nn::{
        RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorName,
        ViewTensorRef,
    },
    prelude::{Device, Dtype, HasShape, Shape, Tensor},
};
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::json;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{Error, ErrorKind},
    path::Path,
};

/// Writes the weights of `model` in f32 to `path`, as a whole or not at all, with `notes` for
/// readers who look for them (safetensors' `__metadata__`). The same weights and notes make the
/// same bytes.
///
/// # Errors
/// [`ReportError::Io`].
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::{checkpoint::{self, Names}, weights};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("linear.safetensors");
/// let dev = Cpu::seed_from_u64(1);
/// let trained = modules::Linear::<2, 1, f32, Cpu>::build(&dev);
/// weights::save(&trained, &path, &[("made by", "hand")])?;
///
/// let mut model = modules::Linear::<2, 1, f32, Cpu>::build(&dev);
/// checkpoint::load(&mut model, &path, &Names::default())?;
/// assert_eq!(model.weight.array(), trained.weight.array());
/// assert_eq!(weights::note(&std::fs::read(&path)?, "made by")?.unwrap(), "hand");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save<M: TensorCollection<E, D>, E: Dtype, D: Device<E>>(
    model: &M,
    path: &Path,
    notes: &[(&str, &str)],
) -> Result<(), ReportError> {
    let mut gathered = Gathered(BTreeMap::new());
    let view = (model, String::new());
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: view, f: &mut gathered });
    let notes: BTreeMap<&str, &str> = notes.iter().copied().collect();
    let file = file(&gathered.0, &notes).map_err(|error| ReportError::Io {
        path: path.to_owned(),
        source: Error::new(ErrorKind::InvalidData, error),
    })?;
    report::write(path, file)
}

/// A safetensors file: the header's length, the header, and the tensors one after another. The
/// library's own writer leaves the order of the notes to chance.
fn file(tensors: &Tensors, notes: &BTreeMap<&str, &str>) -> serde_json::Result<Vec<u8>> {
    let mut header = BTreeMap::from([("__metadata__", json!(notes))]);
    let mut end = 0;
    for (name, (shape, bytes)) in tensors {
        let start = end;
        end += bytes.len();
        let info = json!({"data_offsets": [start, end], "dtype": "F32", "shape": shape});
        header.insert(name, info);
    }
    let mut header = serde_json::to_vec(&header)?;
    // The tensors begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    tensors.values().for_each(|(_, bytes)| file.extend(bytes));
    Ok(file)
}

/// The note of this name in a safetensors file, if there is one.
///
/// # Errors
/// The bytes are no safetensors file.
pub fn note(file: &[u8], name: &str) -> Result<Option<String>, SafeTensorError> {
    let (_, metadata) = SafeTensors::read_metadata(file)?;
    Ok(metadata.metadata().as_ref().and_then(|notes| notes.get(name)).cloned())
}

/// The shape and the bytes of each tensor, by its name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

struct Gathered(Tensors);

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Gathered {
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        (tensor, name): (&Tensor<S, E, D>, String),
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let wide = |value: &E| value.to_f32().unwrap_or(f32::NAN);
        let values = tensor.as_vec();
        let bytes = values.iter().flat_map(|value| wide(value).to_le_bytes()).collect();
        let shape = tensor.shape().concrete().into();
        // A tensor that is a field by itself adds no name to that of the field.
        self.0.insert(name.trim_end_matches('.').to_owned(), (shape, bytes));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Fails if the order of the notes is left to chance, or if the file is one that safetensors
    // does not read.
    #[test]
    fn a_file_is_in_one_order_and_aligned() {
        let tensors = BTreeMap::from([
            ("b".to_owned(), (vec![2], vec![0; 8])),
            ("a".to_owned(), (Vec::new(), vec![1, 2, 3, 4])),
        ]);
        let names: Vec<String> = (0..9).map(|number| format!("note {number}")).collect();
        let notes = names.iter().map(|name| (&**name, "\"one\"")).collect();
        let file = file(&tensors, &notes).unwrap();
        let start = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        assert_eq!(start % 8, 0);
        let header = std::str::from_utf8(&file[8..start]).unwrap();
        let places = names.iter().map(|name| header.find(name.as_str()).unwrap());
        assert!(places.is_sorted());

        let read = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("a").unwrap().data(), [1, 2, 3, 4]);
        assert_eq!(read.tensor("b").unwrap().shape(), [2]);
        assert_eq!(note(&file, "note 3").unwrap().unwrap(), "\"one\"");
    }
}
