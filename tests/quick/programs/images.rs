//! The image examples with convolutional networks, run as a user runs them, on a few pictures.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};
use support::examples::example;
use tlr_models::data::folder;

fn run(name: &str, out: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(example(name));
    command.env_remove("TLR_CIFAR").env_remove("TLR_IMAGENET").args(args).arg("--out").arg(out);
    command.output().expect("cargo builds the examples for `cargo test`")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
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

// A part of the data set is trained on as if it were all of it, unless the program says so.
#[test]
fn what_cifar_lacks_is_said() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_cifar10(data.path(), 20);
    let dir = data.path().to_str().unwrap();
    let output = run("cifar", out.path(), &[&SHORT[..], &["--data", dir]].concat());
    json(&output);
    let said = stderr(&output);
    let warnings: Vec<&str> =
        said.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    let expected = [
        "data_batch_2.bin is missing: 0 of 10000 images",
        "data_batch_3.bin is missing: 0 of 10000 images",
        "data_batch_4.bin is missing: 0 of 10000 images",
        "data_batch_5.bin is missing: 0 of 10000 images",
        "data_batch_1.bin is short: 20 of 10000 images",
        "test_batch.bin is short: 20 of 10000 images",
    ];
    assert_eq!(warnings.len(), expected.len(), "{said}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.ends_with(expected), "{warning}");
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

// Fails if a checkpoint of another network or of other images is resumed, or if the error names
// only tensors that differ.
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
    refused(&[], "the training set has other contents: 40 images as before");
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
    let output = run("imagenet", out.path(), &args);
    let result = json(&output);
    assert!(!stderr(&output).contains("passed over"), "{}", stderr(&output));
    assert_eq!(result["parameters"], 23_528_522);
    assert!(result["train_loss"].as_f64().unwrap() > 0.0);

    // Fails if a class may have another name.
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
}

/// A small folder of drawn pictures, and what `imagenet` makes of it.
struct Pictures(tempfile::TempDir);

impl Pictures {
    fn drawn() -> Self {
        let dir = tempfile::tempdir().unwrap();
        folder::write_drawn(dir.path(), 1, 8, 4, 2, 40).unwrap();
        Self(dir)
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn imagenet(&self, flags: &[&str]) -> (Output, bool) {
        let out = tempfile::tempdir().unwrap();
        let dir = self.0.path().to_str().unwrap();
        let args = ["--data", dir, "--side", "32", "--epochs", "1", "--batch-size", "4", "--json"];
        let output = run("imagenet", out.path(), &[&args, flags].concat());
        (output, out.path().join("epochs.csv").exists())
    }
}

// A picture that cannot be read any more when it is to be tested on. Fails if an epoch is tested
// before it is saved.
#[test]
fn an_epoch_is_saved_before_its_test_fails() {
    let (data, out) = (Pictures::drawn(), tempfile::tempdir().unwrap());
    let file = out.path().join("run.safetensors");
    let dir = data.0.path().to_str().unwrap();
    let args = ["--data", dir, "--side", "32", "--epochs", "1", "--batch-size", "4"];
    let saved = ["--resume", "--checkpoint", file.to_str().unwrap(), "--out"];
    let command = || {
        let mut command = Command::new(example("imagenet"));
        command.env_remove("TLR_IMAGENET").args(args).args(saved).arg(out.path());
        command
    };
    let child = command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // All pictures have been read once when the folder's first table is there.
    while !out.path().join("epochs.csv").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let picture = data.at("val/01-ring/000001.png");
    let whole = fs::read(&picture).unwrap();
    fs::write(&picture, b"").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("000001.png"));
    fs::write(&picture, whole).unwrap();
    let output = command().output().unwrap();
    assert!(stderr(&output).contains("resumed after step 2"), "{}", stderr(&output));
}

// As people have them: a link to nothing, a folder called like a picture, a download cut off, and
// no picture at all.
#[test]
fn broken_pictures_are_found_first_or_left_out() {
    let pictures = Pictures::drawn();
    let disc = pictures.at("train/00-disc");
    let whole = fs::read(disc.join("000000.png")).unwrap();
    fs::write(disc.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(disc.join("text.jpg"), b"no picture").unwrap();
    fs::create_dir(pictures.at("val/01-ring/folder.png")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere.png", disc.join("link.png")).unwrap();
    let names = ["cut.png", "text.jpg", "folder.png", "link.png"];
    let broken = if cfg!(unix) { 4 } else { 3 };

    let (output, trained) = pictures.imagenet(&[]);
    let said = stderr(&output);
    assert!(!output.status.success() && !trained, "{said}");
    assert!(names.iter().take(broken).all(|name| said.contains(name)), "{said}");
    let last = format!("error: {broken} of {} pictures cannot be read", 12 + broken);
    assert!(said.lines().last().unwrap().starts_with(&last), "{said}");
    assert!(said.contains("--skip-broken") && !said.contains("panicked"), "{said}");

    let (output, trained) = pictures.imagenet(&["--skip-broken"]);
    let said = stderr(&output);
    json(&output);
    let count = format!("left out {broken} of {} pictures that cannot be read", 12 + broken);
    assert!(trained && said.lines().any(|line| line == count), "{said}");
    assert!(names.iter().take(broken).all(|name| said.contains(name)), "{said}");

    // A class of which nothing is left.
    for index in [1, 3, 5, 7] {
        fs::write(pictures.at(&format!("train/01-ring/{index:06}.png")), b"").unwrap();
    }
    let (output, trained) = pictures.imagenet(&["--skip-broken"]);
    let said = stderr(&output);
    assert!(
        !output.status.success() && !trained && said.contains("of the class 01-ring"),
        "{said}"
    );
}

// Fails if what is no picture is passed over without a word, or if folders below a class are.
#[test]
fn pictures_below_and_files_beside() {
    let pictures = Pictures::drawn();
    fs::create_dir(pictures.at("train/00-disc/images")).unwrap();
    fs::rename(pictures.at("train/00-disc/000000.png"), pictures.at("train/00-disc/images/0.PNG"))
        .unwrap();
    for name in ["train/00-disc/a.tif", "train/00-disc/b.TIFF", "val/00-disc/boxes.txt"] {
        fs::write(pictures.at(name), b"").unwrap();
    }
    let (output, trained) = pictures.imagenet(&[]);
    let said = stderr(&output);
    json(&output);
    let count = "passed over 3 files that are no pictures: 1 .tif, 1 .tiff, 1 .txt";
    assert!(trained && said.lines().any(|line| line == count), "{said}");

    // Fails if pictures are found again by each way around.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../..", pictures.at("train/00-disc/images/up")).unwrap();
        let (output, _) = pictures.imagenet(&[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(": 8 images to train on and 4 to test on"), "{text}");
        let count = "passed over 4 files that are no pictures: 1 .tif, 1 .tiff, 1 .txt, \
                     1 without an ending (a link to where it lies)";
        assert!(stderr(&output).lines().any(|line| line == count), "{}", stderr(&output));
    }

    // The one below counts: it is found broken.
    fs::write(pictures.at("train/00-disc/images/0.PNG"), b"").unwrap();
    let (output, _) = pictures.imagenet(&[]);
    assert!(stderr(&output).contains("1 of 12 pictures cannot be read"), "{}", stderr(&output));
}
