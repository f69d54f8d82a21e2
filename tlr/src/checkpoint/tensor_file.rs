//! [`TensorFile`]: tensors by name, in the safetensors format.

use crate::tensors::{Element, Stored};
use dfdx::{
    shapes::{HasShape, Shape},
    tensor::{Storage, Tensor},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

pub(crate) type Tensors = BTreeMap<String, Stored>;

/// The name that safetensors keeps for what is no tensor.
const NOTES: &str = "__metadata__";

/// Tensors by name, to be written as a safetensors file.
///
/// The same tensors and notes make the same bytes. (The writer of the crate `safetensors` leaves
/// the order of notes to chance.)
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr::TensorFile;
///
/// let dev = Cpu::default();
/// let mut file = TensorFile::default();
/// file.insert("scale", &dev.tensor([1.0_f32, 2.0]));
/// file.note("made by", "hand");
/// let mut bytes = Vec::new();
/// file.write(&mut bytes)?;
///
/// let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
/// assert_eq!(read.tensor("scale").unwrap().shape(), [2]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TensorFile {
    tensors: Tensors,
    notes: BTreeMap<String, String>,
}

impl TensorFile {
    /// Adds a tensor, or replaces the one of this name.
    ///
    /// Example: [`TensorFile`].
    pub fn insert<S, E, D, T>(&mut self, name: &str, tensor: &Tensor<S, E, D, T>)
    where
        S: Shape,
        E: Element,
        D: Storage<E>,
    {
        self.insert_elements(name, tensor.shape().concrete().into(), &tensor.as_vec());
    }

    /// [`insert`](Self::insert), of elements in the order of their indices.
    #[doc(hidden)]
    pub fn insert_elements<E: Element>(&mut self, name: &str, shape: Vec<usize>, elements: &[E]) {
        self.tensors.insert(name.to_owned(), Stored::new(shape, elements));
    }

    /// Adds a note for readers who look for it (safetensors' `__metadata__`), or replaces the one
    /// of this name.
    ///
    /// Example: [`TensorFile`].
    pub fn note(&mut self, name: &str, text: &str) {
        self.notes.insert(name.to_owned(), text.to_owned());
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of `out`. [`InvalidInput`](io::ErrorKind::InvalidInput) if a tensor is called
    /// `__metadata__`; nothing is written then.
    ///
    /// Example: [`TensorFile`].
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let notes = self.notes.iter().map(|(name, text)| (&**name, &**text));
        write(&self.tensors, &notes.collect(), out)
    }
}

/// Writes the header's length, the header, and the tensors one after another.
pub(super) fn write(
    tensors: &Tensors,
    notes: &BTreeMap<&str, &str>,
    out: &mut impl Write,
) -> io::Result<()> {
    // Widest elements first, as safetensors has it, so that all are aligned.
    let mut ordered: Vec<_> = tensors.iter().collect();
    ordered.sort_by(|(a, x), (b, y)| y.dtype.cmp(&x.dtype).then(a.cmp(b)));
    if tensors.contains_key(NOTES) {
        let problem = format!("no tensor can be called `{NOTES}`: that is the name of the notes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let mut header = BTreeMap::from([(NOTES, json!(notes))]);
    let mut offset = 0;
    for (name, stored) in &ordered {
        let start = offset;
        offset += stored.bytes.len();
        let (dtype, shape) = (stored.dtype, &stored.shape);
        let info = json!({"data_offsets": [start, offset], "dtype": dtype, "shape": shape});
        header.insert(name.as_str(), info);
    }
    let mut header = serde_json::to_vec(&header)?;
    // The tensors begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    ordered.iter().try_for_each(|(_, stored)| out.write_all(&stored.bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use dfdx::tensor::{Cpu, TensorFrom};
    use safetensors::SafeTensors;

    // Fails if the order of the notes is left to chance, if the tensors are not aligned, or if the
    // file is one that safetensors does not read.
    #[test]
    fn a_file_is_in_one_order_and_aligned() {
        let (dev, mut file) = (Cpu::default(), TensorFile::default());
        file.insert("a", &dev.tensor(1.5_f32));
        file.insert("b", &dev.tensor([2.0_f64, 3.0]));
        let names: Vec<String> = (0..9).map(|number| format!("note {number}")).collect();
        names.iter().for_each(|name| file.note(name, "\"one\""));
        let mut bytes = Vec::new();
        file.write(&mut bytes).unwrap();
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(start % 8, 0);
        let header = std::str::from_utf8(&bytes[8..start]).unwrap();
        let places = names.iter().map(|name| header.find(name.as_str()).unwrap());
        assert!(places.is_sorted());
        assert_eq!(bytes[start..start + 8], 2.0_f64.to_le_bytes()); // the widest first

        let read = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("a").unwrap().data(), 1.5_f32.to_le_bytes());
        assert_eq!(read.tensor("b").unwrap().shape(), [2]);
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["note 3"], "\"one\"");
    }

    // Fails if a tensor takes the place of the notes, so that nobody can read the file.
    #[test]
    fn no_tensor_has_the_name_of_the_notes() {
        let mut file = TensorFile::default();
        file.note("made by", "hand");
        file.insert("__metadata__", &Cpu::default().tensor(1.5_f32));
        let mut bytes = Vec::new();
        let refused = file.write(&mut bytes).unwrap_err();
        assert_eq!((refused.kind(), bytes.len()), (io::ErrorKind::InvalidInput, 0));
    }
}
