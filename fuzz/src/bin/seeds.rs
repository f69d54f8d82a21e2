//! Writes the checkpoints that the fuzzer starts from: `cargo run --bin seeds corpus/checkpoint`.

use std::{env, error::Error, fs, path::PathBuf};
use tlr_fuzz::Training;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args().nth(1).ok_or("where to?")?);
    let mut training = Training::new()?;
    for step in 0..12 {
        // Fresh, inside a window, at its end, after a broken batch and after a rollback.
        if [0, 1, 4, 7, 9, 11].contains(&step) {
            fs::write(folder.join(format!("step-{step:02}")), training.bytes()?)?;
        }
        training.step((6..9).contains(&step))?;
    }
    let checkpoint = training.optimizer.checkpoint(&training.model)?;
    fs::write(folder.join("attached"), checkpoint.attach("epoch", [7]).to_bytes()?)?;
    Ok(())
}
