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
use safetensors::{tensor::TensorView, SafeTensorError, SafeTensors};
use std::{convert::Infallible, path::Path};

/// Writes the weights of `model` in f32 to `path`, as a whole or not at all, with `notes` for
/// readers who look for them (safetensors' `__metadata__`).
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
    let mut gathered = Gathered(Vec::new());
    let view = (model, String::new());
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: view, f: &mut gathered });
    let failed = |error: SafeTensorError| ReportError::Io {
        path: path.to_owned(),
        source: std::io::Error::other(error),
    };
    let views = gathered.0.iter().map(|(name, shape, bytes)| {
        Ok((name, TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let notes = notes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    report::write(path, safetensors::serialize(views, Some(notes.collect())).map_err(failed)?)
}

/// The note of this name in a safetensors file, if there is one.
///
/// # Errors
/// The bytes are no safetensors file.
pub fn note(file: &[u8], name: &str) -> Result<Option<String>, SafeTensorError> {
    let (_, metadata) = SafeTensors::read_metadata(file)?;
    Ok(metadata.metadata().as_ref().and_then(|notes| notes.get(name)).cloned())
}

/// The name, the shape and the bytes of each tensor.
struct Gathered(Vec<(String, Vec<usize>, Vec<u8>)>);

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
        self.0.push((name.trim_end_matches('.').to_owned(), shape, bytes));
        Ok(None)
    }
}
