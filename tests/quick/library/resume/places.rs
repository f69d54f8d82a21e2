//! Places that cannot be written, and writers that do not wait for one another.

use super::saved;
use tlr::{Checkpoint, CheckpointError, Error};

fn io_problem(result: Result<(), Error>) -> (std::io::ErrorKind, String) {
    match result {
        Err(
            ref error @ Error::Checkpoint {
                path: Some(_),
                problem: CheckpointError::Io { kind, .. },
            },
        ) => (kind, error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, checkpoint) = saved();
    let nowhere = dir.path().join("no such folder").join("run.safetensors");
    let (kind, message) = io_problem(checkpoint.save(&nowhere));
    assert_eq!(kind, std::io::ErrorKind::NotFound);
    assert!(message.contains(&nowhere.display().to_string()), "{message}");

    let (kind, _) = io_problem(Checkpoint::open(&nowhere).map(|_| ()));
    assert_eq!(kind, std::io::ErrorKind::NotFound);

    // A folder stands in its place.
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    io_problem(checkpoint.save(&folder));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Nobody, root included, makes files there.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_cannot_be_written_is_named() {
    let (_, checkpoint) = saved();
    let (_, message) = io_problem(checkpoint.save("/proc/run.safetensors"));
    assert!(message.contains("cannot create it"), "{message}");
}

const ROOM: &str = "TLR_LITTLE_ROOM";

/// The old file survives a disk that fills up while the new one is written: here, a process that
/// may write files of 512 bytes.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (mut run, checkpoint) = saved();
    checkpoint.save(&path).unwrap();
    let mut child = std::process::Command::new("sh");
    child.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]);
    child.arg(std::env::current_exe().unwrap());
    child
        .args(["--exact", "resume::places::in_a_process_with_little_room", "--ignored"])
        .env(ROOM, &path);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(Checkpoint::open(&path).unwrap().to_bytes() == checkpoint.to_bytes());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // And the next attempt, with room again, succeeds.
    run.step(30);
    run.opt.save(&run.model, &path).unwrap();
    assert!(Checkpoint::open(&path).unwrap().to_bytes() != checkpoint.to_bytes());
}

#[test]
#[ignore = "run by another, in a process of its own"]
fn in_a_process_with_little_room() {
    let (mut run, _) = saved();
    run.step(30);
    let (kind, message) = io_problem(run.opt.save(&run.model, std::env::var(ROOM).unwrap()));
    assert_eq!(kind, std::io::ErrorKind::FileTooLarge, "{message}");
}

/// Fails where two writers share a name for the file that they have not finished.
#[test]
fn two_savers_and_readers_find_whole_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (mut run, first) = saved();
    run.step(30);
    let second = run.opt.checkpoint(&run.model).unwrap();
    let (first_bytes, second_bytes) = (first.to_bytes().unwrap(), second.to_bytes().unwrap());
    assert!(first_bytes != second_bytes);
    first.save(&path).unwrap();
    std::thread::scope(|scope| {
        for checkpoint in [&first, &second] {
            scope.spawn(|| (0..200).for_each(|_| checkpoint.save(&path).unwrap()));
        }
        scope.spawn(|| {
            for _ in 0..10_000 {
                let bytes = std::fs::read(&path).unwrap();
                assert!(bytes == first_bytes || bytes == second_bytes);
            }
        });
    });
    Checkpoint::open(&path).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// What a killed writer has left is removed by the next, and nothing else is: no file that somebody
/// writes, and none of another name.
#[test]
fn what_a_killed_writer_leaves_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let names =
        ["run.1-0.partial", "run.2-0.partial", "run.a.partial", "ran.1-0.partial", "run.1-0"];
    names.iter().for_each(|name| std::fs::write(at(name), "half").unwrap());
    let written = std::fs::File::open(at("run.2-0.partial")).unwrap();
    written.lock().unwrap();
    saved().1.save(at("run")).unwrap();
    let there: Vec<_> = names.iter().filter(|name| at(name).exists()).collect();
    assert_eq!(there, [&"run.2-0.partial", &"run.a.partial", &"ran.1-0.partial", &"run.1-0"]);
}

#[test]
fn attachments_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (mut run, checkpoint) = saved();
    let checkpoint =
        checkpoint.attach("rng", vec![1, 2, 3]).attach("rng", vec![4]).attach("none", []);
    checkpoint.save(&path).unwrap();
    let back = Checkpoint::open(&path).unwrap();
    assert_eq!(back.attachment("rng"), Some(&[4][..]));
    assert_eq!(back.attachment("none"), Some(&[][..]));
    assert_eq!(back.attachment("other"), None);
    run.opt.resume(&mut run.model, &back).unwrap();
}
