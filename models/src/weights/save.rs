//! [`save`]: a model's weights as a file.

use crate::report::{self, ReportError};
use dfdx::{
    nn::TensorCollection,
    prelude::{Device, Dtype},
};
use safetensors::{SafeTensorError, SafeTensors};
use std::path::Path;
use tlr::{
    __private::{self as walk, Model},
    TensorFile,
};

/// Writes the weights of `model` in f32 to `path`, as a whole or not at all, with `notes` for
/// readers who look for them (safetensors' `__metadata__`). The same weights and notes make the
/// same bytes.
///
/// # Errors
/// [`ReportError::BeyondF32`] for a number that f32 would make infinite, [`ReportError::Io`].
/// Nothing is written then.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::weights::{self, Names};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("linear.safetensors");
/// let dev = Cpu::seed_from_u64(1);
/// let trained = modules::Linear::<2, 1, f32, Cpu>::build(&dev);
/// weights::save(&trained, &path, &[("made by", "hand")])?;
///
/// let mut model = modules::Linear::<2, 1, f32, Cpu>::build(&dev);
/// weights::load(&mut model, &path, &Names::default())?;
/// assert_eq!(model.weight.array(), trained.weight.array());
/// assert_eq!(weights::note(&std::fs::read(&path)?, "made by")?.unwrap(), "hand");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save<M: TensorCollection<E, D>, E: Dtype, D: Device<E>>(
    model: &M,
    path: &Path,
    notes: &[(&str, &str)],
) -> Result<(), ReportError> {
    let failed = |source| ReportError::Io { path: path.to_owned(), source };
    let mut gathered = gathered(model);
    if let Some(tensor) = gathered.beyond {
        return Err(ReportError::BeyondF32 { path: path.to_owned(), tensor });
    }
    notes.iter().for_each(|(name, text)| gathered.file.note(name, text));
    let mut file = Vec::new();
    gathered.file.write(&mut file).map_err(failed)?;
    report::write(path, file)
}

/// The note of this name in a safetensors file, if there is one.
///
/// # Errors
/// The bytes are no safetensors file.
///
/// Example: [`save`].
pub fn note(file: &[u8], name: &str) -> Result<Option<String>, SafeTensorError> {
    let (_, metadata) = SafeTensors::read_metadata(file)?;
    Ok(metadata.metadata().as_ref().and_then(|notes| notes.get(name)).cloned())
}

/// The tensors in f32, and the first that holds a number beyond it.
#[derive(Default)]
struct Gathered {
    file: TensorFile,
    beyond: Option<String>,
}

fn gathered<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>) -> Gathered {
    let mut gathered = Gathered::default();
    model.look(walk::Names::Told, &mut |seen| {
        let name = seen.name.as_deref().unwrap_or_default();
        let values = seen.elements().into_iter().map(|value| {
            let rounded = value.to_f32().unwrap_or(f32::NAN);
            if rounded.is_infinite() && value.to_f64().is_some_and(f64::is_finite) {
                gathered.beyond.get_or_insert_with(|| name.to_owned());
            }
            rounded
        });
        let values: Vec<_> = values.collect();
        gathered.file.insert_elements(name, seen.shape(), &values);
    });
    gathered
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use dfdx::{
        nn::{modules::Linear, BuildModule},
        prelude::{Cpu, TensorFrom},
    };

    // Fails if a number beyond f32 is written as infinity, and if one that is infinite already is
    // refused.
    #[test]
    fn a_number_beyond_f32_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        let mut model = Linear::<1, 1, f64, Cpu>::build(&Cpu::default());
        model.bias = Cpu::default().tensor([1e39]);
        match save(&model, &path, &[]) {
            Err(ReportError::BeyondF32 { tensor, .. }) => assert_eq!(tensor, "bias"),
            other => unreachable!("{other:?}"),
        }
        assert!(!path.exists());
        model.bias = Cpu::default().tensor([f64::INFINITY]);
        save(&model, &path, &[]).unwrap();
    }
}
