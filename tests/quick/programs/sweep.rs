//! The sweep, run as a user runs it, on a few images.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};
use support::examples::example;

const GRID: [&str; 12] = [
    "--limit",
    "200",
    "--epochs",
    "2",
    "--batch-size",
    "20",
    "--rate",
    "1,1e-2,1e-4",
    "--mode",
    "global,per-layer",
    "--damping",
    "0.2,0.33",
];

fn sweep(out: &Path) -> Command {
    let mut command = Command::new(example("sweep"));
    command.env_remove("TLR_DATA").args(GRID).arg("--jobs").arg("1").arg("--out").arg(out);
    command
}

/// Each run's loss, by all that tells it from the others.
fn losses(out: &Path) -> BTreeMap<String, String> {
    let mut reader = csv::Reader::from_path(out.join("results.csv")).unwrap();
    let headings = reader.headers().unwrap().clone();
    let column = |name| headings.iter().position(|heading| heading == name).unwrap();
    let (options, loss) = (column("test_accuracy"), column("test_loss"));
    let mut losses = BTreeMap::new();
    for row in reader.records().map(Result::unwrap) {
        let key: Vec<_> = row.iter().take(options).collect();
        let twice = losses.insert(key.join(" "), row[loss].to_owned());
        assert_eq!(twice, None, "{key:?} was run twice");
    }
    losses
}

// Killed in the middle and started again, a sweep comes to what it would have come to. Fails if a
// run is lost, done twice, or depends on the others.
#[test]
fn killed_and_started_again() {
    let whole = tempfile::tempdir().unwrap();
    let output = sweep(whole.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("runs: 12, done before: 0"), "{text}");
    let expected = losses(whole.path());
    assert_eq!(expected.len(), 12);
    for name in ["table.md", "heatmap.svg", "heatmap-window.svg", "rates.svg", "windows.svg"] {
        let text = fs::read_to_string(whole.path().join(name)).unwrap();
        assert!(text.starts_with(if name.ends_with("svg") { "<svg" } else { "Test accuracy" }));
    }

    let killed = tempfile::tempdir().unwrap();
    let mut child = sweep(killed.path()).stdout(Stdio::null()).spawn().unwrap();
    let results = killed.path().join("results.csv");
    let lines = || fs::read_to_string(&results).map_or(0, |text| text.lines().count());
    while lines() < 4 {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let done = losses(killed.path()).len();
    assert!((3..12).contains(&done), "{done}");
    let output = sweep(killed.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with(&format!("runs: 12, done before: {done}")), "{text}");
    assert_eq!(losses(killed.path()), expected);
}

// Fails if runs on other data of the same size count as done, or if a reader who leaves ends the
// sweep.
#[test]
fn other_data_is_another_sweep() {
    let out = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let write = |brightness: u8| {
        for split in ["train", "t10k"] {
            let header = |dims: &[u32]| {
                let dims = dims.iter().flat_map(|dim| dim.to_be_bytes());
                [0, 0, 8, dims.clone().count() as u8 / 4]
                    .into_iter()
                    .chain(dims)
                    .collect::<Vec<u8>>()
            };
            let labels: Vec<u8> = (0..40).map(|i| i % 10).collect();
            let pixels = labels.iter().flat_map(|label| [label * brightness; 784]).collect();
            for (name, bytes) in [
                ("labels-idx1", [header(&[40]), labels.clone()].concat()),
                ("images-idx3", [header(&[40, 28, 28]), pixels].concat()),
            ] {
                fs::write(data.path().join(format!("{split}-{name}-ubyte")), bytes).unwrap();
            }
        }
    };
    let small = || {
        let mut command = Command::new(example("sweep"));
        command.args(["--epochs", "1", "--batch-size", "20", "--rate", "1,1e-2"]);
        command.arg("--data").arg(data.path()).arg("--out").arg(out.path());
        command
    };
    let first_line = |command: &mut Command| {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(child.wait().unwrap().success());
        line
    };
    write(20);
    assert_eq!(first_line(&mut small()), "runs: 2, done before: 0\n");
    assert_eq!(first_line(&mut small()), "runs: 2, done before: 2\n");
    write(25);
    assert_eq!(first_line(&mut small()), "runs: 2, done before: 0\n");
    let results = fs::read_to_string(out.path().join("results.csv")).unwrap();
    assert_eq!(results.lines().count(), 5, "{results}");
    assert!(out.path().join("table.md").exists());
}

// Fails if a run that failed counts as done.
#[test]
fn a_run_that_failed_is_made_again() {
    let out = tempfile::tempdir().unwrap();
    let results = out.path().join("results.csv");
    let first_line = || {
        let mut command = Command::new(example("sweep"));
        command.env_remove("TLR_DATA").args(["--limit", "40", "--epochs", "1", "--rate", "1,1e-2"]);
        let output = command.arg("--out").arg(out.path()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(first_line(), "runs: 2, done before: 0");
    let whole = losses(out.path());
    let text = fs::read_to_string(&results).unwrap();
    fs::write(&results, text.replacen(",finished,", ",failed,", 1)).unwrap();
    assert_eq!(first_line(), "runs: 2, done before: 1");
    assert_eq!(losses(out.path()), whole);
    assert!(!fs::read_to_string(&results).unwrap().contains("failed"));
}

// Fails if two programs write to one table.
#[test]
fn a_folder_is_one_sweeps_at_a_time() {
    let out = tempfile::tempdir().unwrap();
    let mut first = sweep(out.path()).stdout(Stdio::null()).spawn().unwrap();
    while !out.path().join("results.csv").exists() {
        assert!(first.try_wait().unwrap().is_none(), "ended by itself");
        thread::sleep(Duration::from_millis(1));
    }
    let second = sweep(out.path()).output().unwrap();
    let message = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(message.contains("another run writes to"), "{message}");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn bad_input_ends_in_a_message() {
    for (args, says) in [
        (&["--damping", "0"][..], "damping must be in (0, 1]"),
        (&["--rate", "1,nan"], "starting learning rate"),
        (&["--damping", "nan"], "damping must be in (0, 1]"),
        (&["--rule", "additive", "--meta-rate", "-1"], "meta_lr must be finite and above 0"),
        (&["--epochs", "0"], "at least 1"),
        (&["--limit", "0"], "at least 1"),
        (&["--data", "/does/not/exist"], "/does/not/exist"),
        (&["--rule", "sideways"], "sideways"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut command = Command::new(example("sweep"));
        command.env_remove("TLR_DATA").args(args).arg("--out").arg(out.path());
        let output = command.output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(says), "{args:?}: {message}");
        assert!(!message.contains("panicked"), "{args:?}: {message}");
    }
}
