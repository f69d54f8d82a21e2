//! Processes: a new one goes on with the training, and a killed one leaves a whole file behind.

use super::{momentum, run};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use support::quadratic::Random;
use tlr::Checkpoint;

/// What the tests below have a second process do.
const TASK: &str = "TLR_RESUME_TASK";

fn child(task: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "resume::processes::in_a_second_process", "--ignored", "--nocapture"]);
    command.env(TASK, task).env("TLR_RESUME_PATH", path);
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

#[test]
#[ignore = "run by other tests, in a process of its own"]
fn in_a_second_process() {
    let path = std::path::PathBuf::from(std::env::var_os("TLR_RESUME_PATH").unwrap());
    match std::env::var(TASK).unwrap().as_str() {
        "go on" => {
            let mut run = run(5, 4, momentum);
            run.opt.load(&mut run.model, &path).unwrap();
            run.steps(31..70);
            run.opt.save(&run.model, &path).unwrap();
        }
        "write for ever" => {
            let checkpoint = run(5, 4, momentum).state();
            for round in 0_u64.. {
                let bytes: Vec<u8> = round.to_le_bytes().repeat(1 << 15);
                checkpoint.clone().attach("round", bytes).save(&path).unwrap();
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_new_process_goes_on_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let mut straight = run(1, 4, momentum);
    straight.steps(0..31);
    straight.opt.save(&straight.model, &path).unwrap();
    assert!(child("go on", &path).status().unwrap().success());

    straight.steps(31..70);
    let mut back = run(9, 4, momentum);
    back.opt.load(&mut back.model, &path).unwrap();
    assert_eq!(back.state(), straight.state());
}

/// A writer killed a hundred times, at any moment: the file is always whole, and the only one
/// beside it is the one that was being written.
#[test]
#[cfg(unix)]
fn a_killed_writer_leaves_the_old_file_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    run(5, 4, momentum).state().attach("round", [0; 8]).save(&path).unwrap();
    let mut random = Random(3);
    let mut rounds = 0;
    for _ in 0..100 {
        let mut writer = child("write for ever", &path).spawn().unwrap();
        let wait = 5.0 + 15.0 * (1.0 + random.uniform());
        std::thread::sleep(Duration::from_micros((1e3 * wait) as u64));
        writer.kill().unwrap();
        writer.wait().unwrap();

        let checkpoint = Checkpoint::open(&path).unwrap();
        let round = checkpoint.attachment("round").unwrap();
        assert!(round.chunks(8).all(|chunk| chunk == &round[..8]));
        rounds += usize::from(round[..8] != [0; 8]);
        let mut back = run(6, 4, momentum);
        back.opt.resume(&mut back.model, &checkpoint).unwrap();
        assert!(std::fs::read_dir(dir.path()).unwrap().count() <= 2);
    }
    assert!(rounds > 10, "the writer was always killed before it wrote: {rounds}");
}
