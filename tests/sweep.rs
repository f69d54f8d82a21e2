//! The sweep, run as a user runs it, on a few images.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};
use support::examples::example;

const GRID: [&str; 12] = [
    "--limit",
    "400",
    "--epochs",
    "3",
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

// Killed in the middle and started again, a sweep comes to what it would have come to. Fails if a run is
// lost, done twice, or depends on the others.
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

#[test]
fn bad_input_ends_in_a_message() {
    for (args, says) in [
        (&["--damping", "0"][..], "damping must be in (0, 1]"),
        (&["--rate", "1,nan"], "starting learning rate"),
        (&["--epochs", "0"], "at least one epoch"),
        (&["--limit", "0"], "number of images"),
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
