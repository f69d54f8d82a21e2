//! The main example, run as a user runs it, on a few images.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use support::examples::example;

fn mnist(out: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(example("mnist"));
    command.env_remove("TLR_DATA").args(args).arg("--out").arg(out);
    command.output().expect("cargo builds the examples for `cargo test`")
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

fn failure(args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = mnist(dir.path(), args);
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// Big-endian header and bytes, as MNIST's files are.
fn idx(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|dim| file.extend(dim.to_be_bytes()));
    file.extend(bytes);
    file
}

/// A folder of `count` images, class by brightness.
fn write_mnist(dir: &Path, count: u32) {
    let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
    let pixels: Vec<u8> = labels.iter().flat_map(|label| [label * 25; 784]).collect();
    for split in ["train", "t10k"] {
        fs::write(dir.join(format!("{split}-labels-idx1-ubyte")), idx(&[count], &labels)).unwrap();
        let images = idx(&[count, 28, 28], &pixels);
        fs::write(dir.join(format!("{split}-images-idx3-ubyte")), images).unwrap();
    }
}

const SHORT: [&str; 5] = ["--limit", "200", "--epochs", "2", "--json"];

#[test]
fn writes_its_files_and_one_line_of_json() {
    let dir = tempfile::tempdir().unwrap();
    let args = [&SHORT[..], &["--batch-size", "10", "--no-ramp", "--rate", "0.01"]].concat();
    let result = json(&mnist(dir.path(), &args));
    assert_eq!(result["epochs"], 2);
    assert_eq!(result["parameters"], 795_010);
    for key in ["train_loss", "test_loss", "seconds"] {
        assert!(result[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!((0.0..=1.0).contains(&result["test_accuracy"].as_f64().unwrap()));
    assert_ne!(result["rates"]["model"].as_f64().unwrap(), 0.01);

    // 20 batches an epoch, and windows of 20 at least.
    let mut history = csv::Reader::from_path(dir.path().join("history.csv")).unwrap();
    assert_eq!(history.records().count(), 2);
    let mut epochs = csv::Reader::from_path(dir.path().join("epochs.csv")).unwrap();
    assert_eq!(epochs.records().count(), 2);
    assert!(fs::read_to_string(dir.path().join("curves.svg")).unwrap().starts_with("<svg"));
}

#[test]
fn depends_on_nothing_but_the_seed() {
    let run = |seed, threads| {
        let dir = tempfile::tempdir().unwrap();
        let args = [&SHORT[..], &["--seed", seed, "--threads", threads]].concat();
        let result = json(&mnist(dir.path(), &args));
        (result["test_loss"].clone(), result["rates"].clone())
    };
    assert_eq!(run("1", "1"), run("1", "2"));
    assert_ne!(run("1", "1"), run("2", "1"));
}

#[test]
fn every_optimizer_mode_and_rule_runs() {
    for optimizer in ["sgd", "momentum", "nesterov", "adam", "rmsprop"] {
        for (mode, groups) in [("global", 1), ("per-layer", 2)] {
            let dir = tempfile::tempdir().unwrap();
            let choice = ["--optimizer", optimizer, "--mode", mode];
            let result = json(&mnist(dir.path(), &[&SHORT[..], &choice].concat()));
            assert_eq!(result["rates"].as_object().unwrap().len(), groups, "{optimizer} {mode}");
        }
    }
    for rule in ["aligned", "paper", "additive", "multiplicative", "constant"] {
        let dir = tempfile::tempdir().unwrap();
        let choice = ["--rule", rule, "--batch-size", "10", "--rate", "0.01"];
        let result = json(&mnist(dir.path(), &[&SHORT[..], &choice].concat()));
        let moved = result["rates"]["model"].as_f64() != Some(0.01);
        assert_eq!(moved, rule != "constant", "{rule}");
    }
}

#[test]
fn reads_idx_files_by_flag_or_by_environment() {
    let data = tempfile::tempdir().unwrap();
    write_mnist(data.path(), 300);
    let dir = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let by_flag = json(&mnist(dir.path(), &[&SHORT[..], &["--data", folder]].concat()));
    assert_eq!(by_flag["data"], "MNIST");
    let mut command = Command::new(example("mnist"));
    let output = command.env("TLR_DATA", folder).args(SHORT).arg("--out").arg(dir.path()).output();
    assert_eq!(json(&output.unwrap())["test_loss"], by_flag["test_loss"]);
}

#[test]
fn bad_input_ends_in_a_message() {
    for (args, says) in [
        (&["--damping", "0"][..], "damping must be in (0, 1]"),
        (&["--damping", "1.5"], "damping must be in (0, 1]"),
        (&["--window-fraction", "0"], "fraction of an epoch in a window must be in (0, 1]"),
        (&["--rate", "0"], "starting learning rate"),
        (&["--rate", "-1"], "starting learning rate"),
        (&["--rate", "nan"], "starting learning rate"),
        (&["--limit", "0"], "at least 1"),
        (&["--batch-size", "0"], "at least 1"),
        (&["--epochs", "0"], "at least 1"),
        (&["--meta-rate", "0", "--rule", "additive"], "meta_lr"),
        (&["--data", "/does/not/exist"], "/does/not/exist"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--mirror", "http://localhost"], "--download"),
        (&["--rule", "sideways"], "sideways"),
    ] {
        let message = failure(args);
        assert!(message.contains(says), "{args:?}: {message}");
        assert!(!message.contains("panicked"), "{args:?}: {message}");
    }
}

#[test]
fn damaged_files_are_named() {
    let data = tempfile::tempdir().unwrap();
    write_mnist(data.path(), 20);
    let labels = data.path().join("train-labels-idx1-ubyte");
    for damage in [
        idx(&[20], &[1; 19]),      // truncated
        idx(&[21], &[1; 21]),      // one label more than images
        idx(&[20], &[10; 20]),     // no such class
        idx(&[20, 1], &[1; 20]),   // images where labels belong
        b"\x1f\x8b broken".into(), // no gzip after all
    ] {
        fs::write(&labels, damage).unwrap();
        let message = failure(&["--data", data.path().to_str().unwrap()]);
        assert!(message.starts_with("error: ") && message.contains("train-labels"), "{message}");
    }
}
