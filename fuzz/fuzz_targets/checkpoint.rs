//! Whatever the bytes of a checkpoint: an error and nothing has changed, or training goes on from
//! just what they say.
//!
//! Built for fuzzing, the loader does not compare the checksum, which no fuzzer can guess. Half of
//! the mutations are within what is not in tensors, where a change of length has to be told in the
//! header.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use serde_json::{json, Value};
use tlr::Checkpoint;
use tlr_fuzz::Training;

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes(bytes) else { return };
    let written = checkpoint.to_bytes().expect("what was read can be written");
    assert_eq!(Checkpoint::from_bytes(&written).expect("and read"), checkpoint);

    let mut training = Training::new().expect("a training");
    let before = training.bytes().expect("its bytes");
    if training.optimizer.resume(&mut training.model, &checkpoint).is_err() {
        assert_eq!(training.bytes().expect("its bytes"), before, "refused, and yet changed");
        return;
    }
    let again = training.optimizer.checkpoint(&training.model).expect("a checkpoint");
    let mut other = Training::new().expect("a training");
    other.optimizer.resume(&mut other.model, &again).expect("its own checkpoint fits");
    for _ in 0..8 {
        let here = training.step(false);
        assert_eq!(here, other.step(false), "two that resumed the same went apart");
        for (layer, rate) in training.optimizer.rates() {
            assert!(rate > 0.0 && rate.is_finite(), "{layer}: {rate}");
        }
        if here.is_err() {
            break;
        }
    }
    assert_eq!(training.bytes().expect("its bytes"), other.bytes().expect("its bytes"));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let changed = if seed % 2 == 0 { with_other_progress(&data[..size], seed) } else { None };
    match changed {
        Some(bytes) if bytes.len() <= max_size => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});

/// The same file with a mutated `progress`, which the writer puts last.
fn with_other_progress(file: &[u8], seed: u32) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(file.get(..8)?.try_into().ok()?);
    let end = 8usize.checked_add(length.try_into().ok()?)?;
    let mut header: Value = serde_json::from_slice(file.get(8..end)?).ok()?;
    let tensors = file.get(end..)?;
    let offset = header.get("progress")?.get("data_offsets")?.get(0)?.as_u64()?;
    let (rest, progress) = tensors.split_at_checked(offset.try_into().ok()?)?;

    let room = progress.len() + 64;
    let mut changed = progress.to_vec();
    changed.resize(room, 0);
    // Several at once get past figures that have to agree.
    let mut size = progress.len();
    for _ in 0..1 + seed / 2 % 3 {
        size = fuzzer_mutate(&mut changed, size, room);
    }
    changed.truncate(size);

    header["progress"] = json!({
        "dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size as u64],
    });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Some([&(header.len() as u64).to_le_bytes(), &header[..], rest, &changed[..]].concat())
}
