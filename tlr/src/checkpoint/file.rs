//! The file: safetensors, with a version and a checksum among its metadata.

use super::{CheckpointError, Stored};
use safetensors::SafeTensors;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

const FORMAT: &str = "tlr checkpoint";
pub(super) const VERSION: u32 = 1;

pub(super) type Tensors = BTreeMap<String, Stored>;

/// Writes a whole file or leaves what was there: beside it, to the disk, and only then in its place.
pub(super) fn save(tensors: &Tensors, path: &Path) -> Result<(), CheckpointError> {
    let partial = partial(path);
    let saved = write_synced(tensors, &partial)
        .and_then(|()| std::fs::rename(&partial, path).map_err(CheckpointError::io("replace")));
    if saved.is_err() {
        // As far as that is possible; the next attempt writes over it.
        let _ = std::fs::remove_file(&partial);
    }
    saved?;
    sync_folder(path);
    Ok(())
}

/// Where a file is written before it takes its place. Always the same, so that a killed writer leaves no more than
/// one.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

fn write_synced(tensors: &Tensors, path: &Path) -> Result<(), CheckpointError> {
    let file = File::create(path).map_err(CheckpointError::io("create"))?;
    let mut buffered = BufWriter::with_capacity(1 << 20, &file);
    write(tensors, &mut buffered)?;
    buffered.flush().map_err(CheckpointError::io("write"))?;
    file.sync_all().map_err(CheckpointError::io("sync"))
}

/// So that the new name outlives a power failure; not every file system can.
fn sync_folder(path: &Path) {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// The bytes of the file.
pub(super) fn write(tensors: &Tensors, out: &mut impl Write) -> Result<(), CheckpointError> {
    // Widest elements first, as safetensors has it, so that all are aligned.
    let mut ordered: Vec<_> = tensors.iter().collect();
    ordered.sort_by(|(a, x), (b, y)| y.dtype.cmp(&x.dtype).then(a.cmp(b)));
    // In one order, so that the same state makes the same file; safetensors' own writer has it by chance.
    let mut header = BTreeMap::from([(
        "__metadata__".to_owned(),
        json!({"checksum": checksum(tensors), "format": FORMAT, "version": VERSION.to_string()}),
    )]);
    let mut offset = 0;
    for (name, stored) in &ordered {
        let start = offset;
        offset += stored.bytes.len();
        let (dtype, shape) = (stored.dtype, &stored.shape);
        let info = json!({"data_offsets": [start, offset], "dtype": dtype, "shape": shape});
        header.insert((*name).clone(), info);
    }
    let mut header = serde_json::to_vec(&header).map_err(|error| CheckpointError::Io {
        doing: "write",
        kind: io::ErrorKind::InvalidData,
        message: error.to_string(),
    })?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(CheckpointError::io("write"));
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    ordered.iter().try_for_each(|(_, stored)| put(&stored.bytes))
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
    // What lies behind it is what a fuzzer is after, and no fuzzer guesses a checksum.
    if !cfg!(fuzzing) && word("checksum") != Some(&checksum(&tensors)) {
        return Err(CheckpointError::Damaged("its checksum is not that of its tensors".to_owned()));
    }
    if words.len() != 3 {
        return Err(CheckpointError::Damaged("its header says more than was written".to_owned()));
    }
    Ok(tensors)
}

/// CRC-32 of names, types, shapes and elements. (The names are in the file and safetensors sees to their place.)
fn checksum(tensors: &Tensors) -> String {
    let mut crc = crc32fast::Hasher::new();
    for (name, stored) in tensors {
        // Length first: no two lists of tensors look the same.
        let about = format!("{} {name} {:?} {:?}", name.len(), stored.dtype, stored.shape);
        crc.update(about.as_bytes());
        crc.update(&stored.bytes);
    }
    format!("{:08x}", crc.finalize())
}
