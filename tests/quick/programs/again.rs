//! Runs that go on, or are repeated, in other circumstances than those that they began in.

use crate::runs::{errors, failure, json, mnist};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tlr_models::{report::read_epochs_csv, weights};

const SHORT: [&str; 6] = ["--limit", "400", "--batch-size", "20", "--schedule", "constant"];

/// What a run that succeeds says beside its results.
fn succeeded(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    errors(&output)
}

fn settings(out: &Path) -> Value {
    json(out)["settings"].clone()
}

#[test]
fn a_checkpoint_is_one_runs_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let saved = ["--checkpoint", file.to_str().unwrap()];
    let first = dir.path().join("first");
    let long = [&SHORT[..], &saved, &["--epochs", "100000", "--quiet"]].concat();
    let mut child = mnist(&first, &long).stdout(Stdio::null()).spawn().unwrap();
    while !file.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    let other = [&SHORT[..], &saved, &["--epochs", "1", "--seed", "1", "--resume"]].concat();
    let told = failure(&mut mnist(&dir.path().join("second"), &other));
    let says = format!("another program writes the checkpoint {}", file.display());
    assert!(told.contains(&says), "{told}");
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock goes with the program.
    let told = failure(&mut mnist(&dir.path().join("second"), &other));
    assert!(told.contains("--seed was 0, is 1"), "{told}");
}

// Fails if the best weights are lost, or if nothing is said of those that cannot be had.
#[test]
fn a_run_that_goes_on_elsewhere_has_best_weights_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let constant = ["--rule", "constant", "--rate", "0.3", "--checkpoint", file.to_str().unwrap()];
    let run = |out: &str, epochs: &str| {
        let args = [&SHORT[..], &constant, &["--epochs", epochs, "--resume"]].concat();
        succeeded(&mut mnist(&dir.path().join(out), &args))
    };
    let note = "note: best.safetensors is the best since the run has been resumed here";
    assert!(!run("first", "2").contains(note));
    assert!(!run("first", "3").contains(note));
    let told = run("second", "4");
    assert!(told.contains(note), "{told}");
    // The weights there are compared with each other, not with those that stay in the first folder.
    run("second", "8");
    let second = dir.path().join("second");
    let epochs = read_epochs_csv(&second.join("epochs.csv")).unwrap();
    let since = epochs[3..].iter().min_by(|a, b| a.test_loss.total_cmp(&b.test_loss)).unwrap();
    let file = fs::read(second.join("best.safetensors")).unwrap();
    assert_eq!(weights::note(&file, "epoch").unwrap(), Some(since.epoch.to_string()));
}

// Fails if a run is called finished with another number of epochs than was asked for.
#[test]
fn epochs_that_were_made_are_not_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let saved = ["--checkpoint", file.to_str().unwrap(), "--resume"];
    let run = |epochs| {
        let args = [&SHORT[..], &saved, &["--epochs", epochs]].concat();
        mnist(dir.path(), &args)
    };
    succeeded(&mut run("3"));
    succeeded(&mut run("3"));
    let told = failure(&mut run("2"));
    assert!(told.contains("has been through 3 epochs already, and 2 are asked for"), "{told}");
}

#[test]
fn flags_beside_a_config_may_choose_other_data() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    succeeded(&mut mnist(&at("first"), &[&SHORT[..], &["--epochs", "1"]].concat()));
    let config = at("first").join("run.json");
    let config = ["--config", config.to_str().unwrap()];
    succeeded(&mut mnist(&at("other"), &[&config[..], &["--seed", "5"]].concat()));
    assert_eq!(settings(&at("other"))["seed"], 5);
    succeeded(&mut mnist(&at("less"), &[&config[..], &["--limit", "300"]].concat()));
    // Data that has changed by itself is refused all the same.
    let text = fs::read_to_string(config[1]).unwrap();
    fs::write(config[1], text.replace("\"fingerprint\": \"", "\"fingerprint\": \"0")).unwrap();
    let told = failure(&mut mnist(&at("again"), &config));
    assert!(told.contains("the data is not that of"), "{told}");
    let told = failure(&mut mnist(&at("again"), &[&config[..], &["--batch-size", "10"]].concat()));
    assert!(told.contains("the data is not that of"), "{told}");
}

// Fails if a number is another one because it was written otherwise.
#[test]
fn numbers_are_compared_and_not_their_figures() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let saved = ["--checkpoint", file.to_str().unwrap(), "--resume", "--epochs", "1"];
    let run = |limit: &str, rate: &str| {
        let args = ["--limit", limit, "--batch-size", "20", "--rate", rate];
        succeeded(&mut mnist(dir.path(), &[&args[..], &saved].concat()))
    };
    run("4e2", "1e-3");
    run("400", "0.001");
    assert_eq!(settings(dir.path())["limit"], 400);
}

// Fails if a run on drawn data cannot be repeated where a variable names other data, or if nobody
// says that it did.
#[test]
fn a_variable_beside_a_config_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let args = [&SHORT[..], &["--epochs", "1"]].concat();
    succeeded(&mut mnist(&at("first"), &args));
    let config = at("first").join("run.json");
    let repeat = ["--config", config.to_str().unwrap()];
    succeeded(mnist(&at("second"), &repeat).env("TLR_DATA", "/nowhere"));
    assert_eq!(settings(&at("second")), settings(&at("first")));
    let told = failure(mnist(&at("third"), &args).env("TLR_DATA", "/nowhere"));
    assert!(told.contains("(--data is from the variable TLR_DATA)"), "{told}");
}

// Fails if data is told from other data by its fingerprint alone.
#[cfg(unix)]
#[test]
fn other_data_is_called_by_its_name() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let args = ["--resume", "--checkpoint", file.to_str().unwrap(), "--epochs", "1"];
    succeeded(&mut mnist(&dir.path().join("drawn"), &[&args[..], &["--limit", "60"]].concat()));
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    for split in ["train", "t10k"] {
        let [images, labels] = [[3, 28].as_slice(), &[1]].map(|dims| [0, 0, 8, dims[0]]);
        let count = 60_u32.to_be_bytes();
        let side = 28_u32.to_be_bytes();
        let pixels = [&images[..], &count, &side, &side, &[7; 60 * 784]].concat();
        let classes = [&labels[..], &count, &[1; 60]].concat();
        fs::write(files.join(format!("{split}-images-idx3-ubyte")), pixels).unwrap();
        fs::write(files.join(format!("{split}-labels-idx1-ubyte")), classes).unwrap();
    }
    let from = ["--limit", "60", "--data", files.to_str().unwrap()];
    let told = failure(&mut mnist(&dir.path().join("files"), &[&args[..], &from].concat()));
    assert!(told.contains("of another run: the data was Drawn digits, is MNIST"), "{told}");

    let config = dir.path().join("drawn/run.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("\"Drawn digits\"", "\"Others\"")
            .replace("\"fingerprint\": \"", "\"fingerprint\": \"0"),
    )
    .unwrap();
    let again = ["--config", config.to_str().unwrap()];
    let told = failure(&mut mnist(&dir.path().join("again"), &again));
    assert!(told.contains("run.json: it was Others, is Drawn digits"), "{told}");

    // A name that run.json could not keep.
    let mut command = mnist(&dir.path().join("bad"), &[]);
    let told = failure(command.arg("--data").arg(OsStr::from_bytes(b"bad\xffdata")));
    assert!(told.contains("which run.json cannot hold"), "{told}");
}

#[test]
fn a_variable_that_is_empty_is_not_set() {
    let out = tempfile::tempdir().unwrap();
    let args = [&SHORT[..], &["--epochs", "1"]].concat();
    succeeded(mnist(out.path(), &args).env("TLR_DATA", ""));
    assert_eq!(settings(out.path())["data"], Value::Null);
}
