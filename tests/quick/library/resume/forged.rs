//! The file with one thing changed in its tensors, and a checksum to match.

use safetensors::{tensor::TensorView, Dtype, SafeTensors};
use std::collections::HashMap;
use tlr::Checkpoint;

pub(crate) type Parts = HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn parts(checkpoint: &Checkpoint) -> (Parts, HashMap<String, String>) {
    let bytes = checkpoint.to_bytes().unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let parts = file
        .iter()
        .map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    (parts, metadata.metadata().clone().unwrap())
}

/// CRC-32 (IEEE 802.3) as the file has it, written once more.
fn checksum(parts: &Parts) -> String {
    let mut names: Vec<_> = parts.keys().collect();
    names.sort();
    let mut crc = u32::MAX;
    for name in names {
        let (dtype, shape, bytes) = &parts[name];
        let about = format!("{} {name} {dtype:?} {shape:?}", name.len());
        for byte in about.bytes().chain(bytes.iter().copied()) {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            }
        }
    }
    format!("{:08x}", !crc)
}

pub(crate) fn file(parts: &Parts, mut words: HashMap<String, String>) -> Vec<u8> {
    words.insert("checksum".to_owned(), checksum(parts));
    let views = parts.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, Some(words)).unwrap()
}

/// The checkpoint with its `progress` edited.
pub(crate) fn edit(
    checkpoint: &Checkpoint,
    edit: impl FnOnce(&mut serde_json::Value),
) -> Checkpoint {
    change(checkpoint, |parts| {
        let (_, shape, bytes) = parts.get_mut("progress").unwrap();
        let mut progress = serde_json::from_slice(bytes).unwrap();
        edit(&mut progress);
        *bytes = serde_json::to_vec(&progress).unwrap();
        *shape = vec![bytes.len()];
    })
}

pub(crate) fn change(checkpoint: &Checkpoint, change: impl FnOnce(&mut Parts)) -> Checkpoint {
    let (mut parts, words) = parts(checkpoint);
    change(&mut parts);
    Checkpoint::from_bytes(&file(&parts, words)).unwrap()
}
