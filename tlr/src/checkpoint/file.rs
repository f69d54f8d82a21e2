//! The file: safetensors, with a version and a checksum among its metadata.

use super::tensor_file::{self, Tensors};
use crate::{error::CheckpointError, files::Partial, tensors::Stored};
use safetensors::SafeTensors;
use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

const FORMAT: &str = "tlr checkpoint";
const VERSION: u32 = 11;

/// Writes a whole file or none: to a new file beside `path`, which is forced to the disk and then
/// renamed.
pub(super) fn save(tensors: &Tensors, path: &Path) -> Result<(), CheckpointError> {
    let partial = Partial::new(path).map_err(CheckpointError::io("create"))?;
    let mut buffered = BufWriter::with_capacity(1 << 20, partial.file());
    write(tensors, &mut buffered)?;
    buffered.flush().map_err(CheckpointError::io("write"))?;
    drop(buffered);
    partial.sync().map_err(CheckpointError::io("sync"))?;
    partial.replace().map_err(CheckpointError::io("replace"))
}

/// Whether a file can be made beside `path`, to take its place. Nothing is left of the trial.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Partial::new(path).map(|_| ())
}

/// The bytes of the file.
pub(super) fn write(tensors: &Tensors, out: &mut impl Write) -> Result<(), CheckpointError> {
    let (checksum, version) = (checksum(tensors), VERSION.to_string());
    let notes = [("checksum", &*checksum), ("format", FORMAT), ("version", &*version)];
    tensor_file::write(tensors, &notes.into(), out).map_err(CheckpointError::io("write"))
}

/// The tensors of a file that [`write`] wrote, whole and unchanged.
pub(super) fn parse(bytes: &[u8]) -> Result<Tensors, CheckpointError> {
    let foreign =
        |error: &dyn std::fmt::Display| CheckpointError::NotACheckpoint(error.to_string());
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| foreign(&error))?;
    let words = metadata.metadata().clone().unwrap_or_default();
    let word = |name: &str| words.get(name).map(String::as_str);
    if word("format") != Some(FORMAT) {
        return Err(foreign(&"a safetensors file of something else"));
    }
    let version = word("version").unwrap_or("none");
    if version != VERSION.to_string() {
        return Err(CheckpointError::Version { found: version.to_owned(), known: VERSION });
    }
    let file = SafeTensors::deserialize(bytes).map_err(|error| foreign(&error))?;
    let tensors: Tensors = file
        .iter()
        .map(|(name, view)| {
            let stored = Stored {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            (name.to_owned(), stored)
        })
        .collect();
    // No fuzzer guesses a checksum. So fuzzing leaves this check out, to reach the code after it.
    if !cfg!(fuzzing) && word("checksum") != Some(&checksum(&tensors)) {
        return Err(CheckpointError::Damaged("its checksum is not that of its tensors".to_owned()));
    }
    if words.len() != 3 {
        return Err(CheckpointError::Damaged("its header says more than was written".to_owned()));
    }
    Ok(tensors)
}

/// CRC-32 of names, types, shapes and elements.
fn checksum(tensors: &Tensors) -> String {
    let mut crc = crc32fast::Hasher::new();
    for (name, stored) in tensors {
        // The length comes first, so that no two lists of tensors give the same bytes.
        let about = format!("{} {name} {:?} {:?}", name.len(), stored.dtype, stored.shape);
        crc.update(about.as_bytes());
        crc.update(&stored.bytes);
    }
    format!("{:08x}", crc.finalize())
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{probe, save, Tensors};
    use crate::files::behind_links;
    use std::os::unix::fs::symlink;

    // Fails if a link is replaced: its user looks for the file where it leads.
    #[test]
    fn links_stay() {
        let dir = std::env::temp_dir().join(format!("tlr-links-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("far")).unwrap();
        let (near, far) = (dir.join("near"), dir.join("far").join("checkpoint"));
        symlink("far/between", &near).unwrap();
        symlink("checkpoint", dir.join("far").join("between")).unwrap();
        for _ in 0..2 {
            save(&Tensors::new(), &near).unwrap(); // the first time they lead nowhere
            assert!(near.is_symlink() && far.is_file() && !far.is_symlink());
        }
        // The file is tried where the link leads, and nothing of it stays.
        let lost = dir.join("lost");
        symlink("nowhere/checkpoint", &lost).unwrap();
        assert!(probe(&lost).is_err() && probe(&dir).is_err() && probe(&near).is_ok());
        assert_eq!(std::fs::read_dir(dir.join("far")).unwrap().count(), 2);
        symlink("circle", dir.join("circle")).unwrap();
        assert!(behind_links(&dir.join("circle")).ends_with("circle"));
        assert_eq!(behind_links(&far), far);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    // The longest name that most file systems take. Fails if what is added to it for the unfinished
    // file is too much, or if it is cut within a letter.
    #[test]
    fn a_name_may_be_long() {
        let dir = std::env::temp_dir().join(format!("tlr-long-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in ["n".repeat(255), format!("n{}", "\u{e4}".repeat(127))] {
            assert_eq!(name.len(), 255);
            save(&Tensors::new(), &dir.join(&name)).unwrap();
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
