//! The image examples with convolutional networks, run as a user runs them, on a few pictures.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use support::examples::example;
use tlr_models::data::folder;

fn run(name: &str, out: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(example(name));
    command.env_remove("TLR_CIFAR").env_remove("TLR_IMAGENET").args(args).arg("--out").arg(out);
    command.output().expect("cargo builds the examples for `cargo test`")
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Binary files as CIFAR's, with one label byte.
fn write_cifar10(dir: &Path, images: u8) {
    let bytes: Vec<u8> = (0..images)
        .flat_map(|index| std::iter::once(index % 10).chain([index.wrapping_mul(37); 3072]))
        .collect();
    fs::write(dir.join("data_batch_1.bin"), &bytes).unwrap();
    fs::write(dir.join("test_batch.bin"), &bytes).unwrap();
}

const SHORT: [&str; 5] = ["--epochs", "2", "--batch-size", "10", "--json"];

// Fails if flags do not reach the training, or a rate a layer is not one a layer.
#[test]
fn cifar_from_files() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_cifar10(data.path(), 40);
    let dir = data.path().to_str().unwrap();
    let args = [&SHORT[..], &["--data", dir, "--mode", "per-layer"]].concat();
    let result = json(&run("cifar", out.path(), &args));
    assert_eq!((&result["epochs"], &result["parameters"]), (&2.into(), &77_850.into()));
    let rates = result["rates"].as_object().unwrap();
    assert!(rates.contains_key("groups.1.first.conv2") && rates.contains_key("bn"), "{rates:?}");
    for file in ["epochs.csv", "history.csv", "curves.svg"] {
        assert!(out.path().join(file).exists(), "{file}");
    }
}

#[test]
fn cifar_depends_on_nothing_but_the_seed() {
    let run = |seed, threads| {
        let out = tempfile::tempdir().unwrap();
        let flags = ["--limit", "40", "--seed", seed, "--threads", threads];
        json(&run("cifar", out.path(), &[&SHORT[..], &flags].concat()))["test_loss"].clone()
    };
    assert_eq!(run("1", "1"), run("1", "2"));
    assert_ne!(run("1", "1"), run("2", "1"));
}

// Fails if another network's or other images' checkpoint is taken over, or told of by its tensors.
#[test]
fn a_checkpoint_knows_its_network() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_cifar10(data.path(), 40);
    let file = out.path().join("run.safetensors");
    let resumed = |flags: &[&str]| {
        let fixed =
            ["--data", data.path().to_str().unwrap(), "--epochs", "1", "--batch-size", "10"];
        let checkpoint = ["--resume", "--checkpoint", file.to_str().unwrap()];
        run("cifar", out.path(), &[&fixed[..], &checkpoint, flags].concat())
    };
    assert!(resumed(&[]).status.success());
    let refused = |flags: &[&str], says: &str| {
        let output = resumed(flags);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(says), "{text}");
    };
    refused(&["--depth", "16"], "--depth was 10, is 16");
    refused(&["--no-augment"], "--no-augment was not given, is given");
    refused(&["--limit", "30"], "--limit was not given, is 30");
    let batch = data.path().join("data_batch_1.bin");
    let mut bytes = fs::read(&batch).unwrap();
    bytes[5000] ^= 1;
    fs::write(batch, bytes).unwrap();
    refused(&[], "the training set was 40 images, ");
}

#[test]
fn networks_that_are_not_there() {
    let out = tempfile::tempdir().unwrap();
    for (args, part) in [
        (["--depth", "40", "--width", "4"], "WRN-40-4"),
        (["--classes", "20", "--limit", "10"], "CIFAR-20"),
        (["--data", "/nowhere", "--depth", "10"], "/nowhere"),
    ] {
        let output = run("cifar", out.path(), &args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(part), "{text}");
    }
}

#[test]
fn imagenet_from_a_folder() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    folder::write_drawn(data.path(), 1, 8, 4, 2, 40).unwrap();
    let dir = data.path().to_str().unwrap();
    let args = ["--data", dir, "--side", "32", "--epochs", "1", "--batch-size", "4", "--json"];
    let result = json(&run("imagenet", out.path(), &args));
    assert_eq!(result["parameters"], 23_528_522);
    assert!(result["train_loss"].as_f64().unwrap() > 0.0);

    // Fails if an epoch is tested before it is saved, or if a class may have another name.
    let file = out.path().join("run.safetensors");
    let checkpoint = ["--resume", "--checkpoint", file.to_str().unwrap()];
    let resumed = |flags: &[&str]| {
        let output = run("imagenet", out.path(), &[&args[..], &checkpoint, flags].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(resumed(&[]).0);
    let (done, text) = resumed(&["--side", "40"]);
    assert!(!done && text.contains("--side was 32, is 40"), "{text}");
    for half in ["train", "val"] {
        let half = data.path().join(half);
        fs::rename(half.join("00-disc"), half.join("00-disk")).unwrap();
    }
    let (done, text) = resumed(&[]);
    assert!(!done && text.contains("class 1 was 00-disc, is 00-disk"), "{text}");

    fs::write(data.path().join("train/00-disk/broken.png"), b"no picture").unwrap();
    let output = run("imagenet", out.path(), &args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("broken.png"), "{text}");
}
