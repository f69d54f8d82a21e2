//! What a run leaves beside its tables: event files, and weights to go on with.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};
use support::examples::example;
use tlr_models::report::{read_epochs_csv, Epoch};

fn mnist(out: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(example("mnist"));
    command.env_remove("TLR_DATA").args(args).arg("--out").arg(out);
    command.output().expect("cargo builds the examples for `cargo test`")
}

fn predict(args: &[&str]) -> Output {
    Command::new(example("predict")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn failure(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// 20 batches an epoch.
const SHORT: [&str; 6] = ["--limit", "400", "--batch-size", "20", "--epochs", "3"];

// ---- Event files ----

const EVENTS: &str = "events.out.tfevents.tlr";

/// CRC-32C, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

fn split<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(n);
    *bytes = rest;
    first
}

/// The next bytes of a TFRecord with their sum.
fn summed<'a>(file: &mut &'a [u8], n: usize) -> &'a [u8] {
    let bytes = split(file, n);
    let sum = u32::from_le_bytes(split(file, 4).try_into().unwrap());
    assert_eq!(sum, (crc(bytes) >> 15 | crc(bytes) << 17).wrapping_add(0xa282_ead8));
    bytes
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = split(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The fields of a message in a protocol buffer, by number; a number is its little-endian bytes.
fn fields(mut message: &[u8]) -> BTreeMap<u64, Vec<u8>> {
    let mut fields = BTreeMap::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => varint(&mut message).to_le_bytes().to_vec(),
            1 => split(&mut message, 8).to_vec(),
            2 => {
                let length = varint(&mut message) as usize;
                split(&mut message, length).to_vec()
            }
            5 => split(&mut message, 4).to_vec(),
            encoding => panic!("{encoding}"),
        };
        fields.insert(key >> 3, value);
    }
    fields
}

/// Steps and values by tag, and how many events there are.
fn scalars(out: &Path) -> BTreeMap<String, Vec<(u64, f32)>> {
    let file = fs::read(out.join(EVENTS)).unwrap();
    let mut rest = &file[..];
    let mut scalars: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut first = true;
    while !rest.is_empty() {
        let length = u64::from_le_bytes(summed(&mut rest, 8).try_into().unwrap());
        let event = fields(summed(&mut rest, length as usize));
        let time = f64::from_le_bytes(event[&1].clone().try_into().unwrap());
        assert!((1.7e9..1e10).contains(&time), "{time}");
        if std::mem::take(&mut first) {
            assert_eq!(event[&3], b"brain.Event:2");
            continue;
        }
        let step = u64::from_le_bytes(event[&2].clone().try_into().unwrap());
        let value = fields(&fields(&event[&5])[&1]);
        let tag = String::from_utf8(value[&1].clone()).unwrap();
        let value = f32::from_le_bytes(value[&2].clone().try_into().unwrap());
        scalars.entry(tag).or_default().push((step, value));
    }
    scalars
}

fn epochs(out: &Path) -> Vec<Epoch> {
    read_epochs_csv(&out.join("epochs.csv")).unwrap()
}

// Fails if a figure is lost or another one, in a run and in one that is stopped and goes on.
#[test]
fn event_files_hold_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    // Without the search for a rate, so that windows end.
    let flags = ["--mode", "per-layer", "--no-ramp", "--rate", "0.1", "--tensorboard"];
    let flags = [&SHORT[..], &flags].concat();
    stdout(&mnist(&whole, &flags));
    let read = scalars(&whole);
    let by_epoch = |of: fn(&Epoch) -> f64| -> Vec<(u64, f32)> {
        epochs(&whole).iter().map(|e| (20 * e.epoch as u64, of(e) as f32)).collect()
    };
    assert_eq!(read["loss/test"], by_epoch(|epoch| epoch.test_loss));
    assert_eq!(read["accuracy/test"], by_epoch(|epoch| epoch.test_accuracy));
    assert_eq!(read["rollbacks"].len(), 3);
    let steps: Vec<u64> = read["loss/train"].iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (1..=60).collect::<Vec<_>>());
    let mean: f32 = read["loss/train"][..20].iter().map(|(_, loss)| loss / 20.0).sum();
    assert!((f64::from(mean) - epochs(&whole)[0].train_loss).abs() < 1e-5);

    let mut history = csv::Reader::from_path(whole.join("history.csv")).unwrap();
    let mut cosines = 0;
    for line in history.records().map(Result::unwrap) {
        let step: u64 = line[0].parse().unwrap();
        let number = |column: usize| line[column].parse::<f64>();
        let rate = number(4).unwrap() as f32;
        assert!(read[&format!("learned_rate/{}", &line[2])].contains(&(step, rate)), "{line:?}");
        if let (Ok(uu), Ok(un), Ok(nn)) = (number(5), number(6), number(7)) {
            let cosine = (un / (uu * nn).sqrt()) as f32;
            let found = &read[&format!("cosine/{}", &line[2])];
            let near = |&(at, value): &(u64, f32)| at == step && (value - cosine).abs() < 1e-6;
            assert!(found.iter().any(near), "{line:?}: {found:?}");
            cosines += 1;
        }
    }
    assert!(cosines > 0);
    assert_eq!(read["learned_rate/head"][0], (0, 0.1));
    // In force is less: it falls to nothing.
    assert_eq!(read["rate/head"].len(), 60);
    let at_ends: Vec<f32> = read["rate/head"].iter().skip(19).step_by(20).map(|p| p.1).collect();
    let head = |epoch: &Epoch| epoch.rates.iter().find(|(name, _)| name == "head").unwrap().1;
    let of = |epoch: &Epoch| (head(epoch) * epoch.schedule) as f32;
    assert_eq!(at_ends, epochs(&whole).iter().map(of).collect::<Vec<_>>());
    let shares: Vec<f64> = epochs(&whole).iter().map(|epoch| epoch.schedule).collect();
    let near = |share: f64, steps: f64| (share - steps / 60.0).abs() < 1e-9;
    assert!(near(shares[0], 41.0) && near(shares[1], 21.0) && near(shares[2], 1.0), "{shares:?}");

    // Two epochs, and the third from a checkpoint.
    let file = dir.path().join("run.safetensors");
    let schedule = ["--schedule", "constant"];
    let again = ["--checkpoint", file.to_str().unwrap(), "--resume"];
    let flags = [&flags[..], &schedule].concat();
    stdout(&mnist(&whole, &flags));
    let flags = [&flags[..], &again].concat();
    stdout(&mnist(&parts, &[&flags[..], &["--epochs", "2"]].concat()));
    stdout(&mnist(&parts, &flags));
    assert_eq!(scalars(&parts), scalars(&whole));

    // Of a rule that decides nothing, the rate all the same; and no file where none was asked for.
    let constant = ["--rule", "constant", "--rate", "0.25", "--tensorboard"];
    stdout(&mnist(&dir.path().join("constant"), &[&SHORT[..], &constant].concat()));
    let read = scalars(&dir.path().join("constant"));
    assert!(
        read["rate/model"].iter().all(|(_, rate)| *rate == 0.25) && !read["rate/model"].is_empty()
    );
    stdout(&mnist(&dir.path().join("none"), &SHORT));
    assert!(!dir.path().join("none").join(EVENTS).exists());
}

/// Names of the files in a folder, sorted.
fn names(out: &Path) -> Vec<String> {
    let files = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

// Fails if TensorBoard would show two runs as one, or if weights of another run lie beside a table
// that knows nothing of them.
#[test]
fn a_new_run_takes_an_earlier_ones_files_away() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    stdout(&mnist(&out, &[&SHORT[..], &["--tensorboard"]].concat()));
    let (tables, event_file) = (names(&out), EVENTS.to_owned());
    assert!(tables.contains(&event_file));
    // Of a program that has nothing to do with it.
    fs::write(out.join("notes.txt"), "mine").unwrap();
    // It diverges before its first epoch ends.
    let output = mnist(&out, &[&SHORT[..], &["--rule", "constant", "--rate", "1e30"]].concat());
    assert!(failure(&output).contains("the loss is NaN"));
    assert!(epochs(&out).is_empty());
    let gone = ["best.safetensors", EVENTS];
    let kept: Vec<_> = tables.iter().filter(|name| !gone.contains(&name.as_str())).collect();
    assert_eq!(names(&out).iter().filter(|name| *name != "notes.txt").collect::<Vec<_>>(), kept);
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");

    // A run that cannot begin takes nothing away; one that goes on keeps what is its own.
    let file = dir.path().join("run.safetensors");
    let again = ["--checkpoint", file.to_str().unwrap(), "--resume", "--schedule", "constant"];
    let flags = [&SHORT[..], &again].concat();
    stdout(&mnist(&out, &[&flags[..], &["--tensorboard"]].concat()));
    let best = fs::read(out.join("best.safetensors")).unwrap();
    failure(&mnist(&out, &[&flags[..], &["--damping", "2"]].concat()));
    assert_eq!(fs::read(out.join("best.safetensors")).unwrap(), best);
    stdout(&mnist(&out, &[&flags[..], &["--epochs", "4"]].concat()));
    assert!(names(&out).contains(&"best.safetensors".to_owned()));
    assert!(names(&out).contains(&event_file));
    assert_eq!(epochs(&out).len(), 4);
}

// ---- Weights ----

/// Big-endian header and bytes, as MNIST's files are.
fn idx(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|dim| file.extend(dim.to_be_bytes()));
    file.extend(bytes);
    file
}

// Fails if the best weights are those of another epoch, or if pictures are scaled otherwise than in
// training.
#[test]
fn the_best_weights_are_kept_and_predict() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("data")).unwrap();
    let drawn = tlr_models::data::digits::draw(3, 200, 100).unwrap();
    for (split, images) in [("train", &drawn.train), ("t10k", &drawn.test)] {
        let count = images.len() as u32;
        let pixels: Vec<u8> =
            (0..images.len()).flat_map(|i| images.pixels_of(i).unwrap().to_vec()).collect();
        let labels: Vec<u8> = (0..images.len()).map(|i| images.label(i).unwrap()).collect();
        let file = |name: &str| at("data").join(format!("{split}-{name}-ubyte"));
        fs::write(file("images-idx3"), idx(&[count, 28, 28], &pixels)).unwrap();
        fs::write(file("labels-idx1"), idx(&[count], &labels)).unwrap();
    }
    // From a rate at which the loss goes up and down.
    let data = at("data");
    let flags = ["--data", data.to_str().unwrap(), "--epochs", "6", "--batch-size", "10"];
    let rate = ["--rule", "constant", "--rate", "0.5"];
    let output = mnist(&at("run"), &[&flags[..], &rate].concat());
    assert!(output.status.code().is_some());
    let epochs = epochs(&at("run"));
    let best = epochs.iter().min_by(|a, b| a.test_loss.total_cmp(&b.test_loss)).unwrap();
    assert_ne!(best.epoch, epochs.len(), "the test needs a run whose last epoch is not its best");

    let weights = at("run/best.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let note = |name| tlr_models::weights::note(&bytes, name).unwrap().unwrap();
    assert_eq!(note("epoch"), best.epoch.to_string());
    assert_eq!(note("test_loss"), best.test_loss.to_string());
    let pictures = at("data/t10k-images-idx3-ubyte");
    let by = ["--weights", weights.to_str().unwrap(), pictures.to_str().unwrap()];
    let text = stdout(&predict(&[&by[..], &["--count", "1000"]].concat()));
    let mut right = 0;
    for (i, line) in text.lines().enumerate() {
        let (name, said) = line.rsplit_once(": ").unwrap();
        assert!(name.ends_with(&format!("t10k-images-idx3-ubyte, picture {}", i + 1)), "{line}");
        let (class, sure) = said.split_once(", ").unwrap();
        let sure: f64 = sure.strip_suffix('%').unwrap().parse().unwrap();
        assert!((10.0..=100.0).contains(&sure), "{line}");
        right += usize::from(class == drawn.test.label(i).unwrap().to_string());
    }
    assert_eq!(text.lines().count(), 100);
    assert_eq!(right as f64 / 100.0, best.test_accuracy);
    assert_eq!(stdout(&predict(&by)).lines().count(), 10);
    let inverted = stdout(&predict(&[&by[..], &["--count", "1000", "--invert"]].concat()));
    assert_ne!(inverted, text);
    let drawn = stdout(&predict(&by[..2]));
    assert!(drawn.starts_with("a drawn ") && drawn.lines().count() == 10, "{drawn}");

    // A worse run in another folder of a checkpoint, and what is no such file.
    let missing = failure(&predict(&["--weights", "/nowhere"]));
    assert!(missing.contains("/nowhere") && missing.contains("--example mnist"), "{missing}");
    let labels = at("data/t10k-labels-idx1-ubyte");
    for (args, says) in [
        (["--weights", pictures.to_str().unwrap()], "no safetensors"),
        (["--weights", weights.to_str().unwrap()], "t10k-labels"),
    ] {
        let message = failure(&predict(&[&args[..], &[labels.to_str().unwrap()]].concat()));
        assert!(message.starts_with("error: ") && message.contains(says), "{message}");
    }
}

// Fails if weights that do not fit are told of by dozens of tensors, or a checkpoint by its own.
#[test]
fn predict_says_whose_weights_do_not_fit() {
    use dfdx::{nn::BuildModule, prelude::Cpu};
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("run.safetensors");
    let saved = ["--epochs", "1", "--checkpoint", checkpoint.to_str().unwrap()];
    stdout(&mnist(&dir.path().join("out"), &[&SHORT[..], &saved].concat()));
    let other = dir.path().join("other.safetensors");
    let model = dfdx::nn::modules::Linear::<2, 3, f32, Cpu>::build(&Cpu::default());
    tlr_models::weights::save(&model, &other, &[]).unwrap();
    for (file, says) in [
        (&checkpoint, "a checkpoint; the weights are in best.safetensors"),
        (&other, "these weights are of another model, and not of mnist's network: "),
    ] {
        let message = failure(&predict(&["--weights", file.to_str().unwrap()]));
        assert!(message.contains(says) && message.matches(';').count() <= 3, "{message}");
    }
}

// Fails if a picture is taken for an IDX file, or not brought to the size of the network.
#[test]
fn predict_takes_png() {
    let dir = tempfile::tempdir().unwrap();
    stdout(&mnist(dir.path(), &SHORT));
    let weights = dir.path().join("best.safetensors");
    let drawn = tlr_models::data::digits::draw(0, 1, 4).unwrap().test;
    let write = |name: &str, i: usize, times: u32| {
        let name = dir.path().join(name);
        let at = |x: u32, y: u32| (y / times * 28 + x / times) as usize;
        let pixel = |x, y| image::Luma([drawn.pixels_of(i).unwrap()[at(x, y)]]);
        image::GrayImage::from_fn(28 * times, 28 * times, pixel).save(&name).unwrap();
        name.to_str().unwrap().to_owned()
    };
    let names: Vec<String> = (0..4).map(|i| write(&format!("{i}.png"), i, 1)).collect();
    let by = ["--weights", weights.to_str().unwrap()];
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    let of_png = predict(&[&by[..], &files].concat());
    if !of_png.status.success() {
        // Built without: `cargo test --workspace --features tlr-examples/pictures` has them.
        let message = failure(&of_png);
        assert!(message.contains("cannot read PNG; `cargo run --release --features pictures"));
        assert!(!support::needs::found("predict-with-pictures", false));
        return;
    }
    let of_png = stdout(&of_png);
    let of_drawn = stdout(&predict(&[&by[..], &["--count", "4"]].concat()));
    for ((png, drawn), name) in of_png.lines().zip(of_drawn.lines()).zip(&names) {
        assert_eq!(png.strip_prefix(&format!("{name}: ")), Some(drawn.split_once(": ").unwrap().1));
    }
    // Large ones are made small.
    let large = write("large.png", 0, 3);
    assert!(stdout(&predict(&[&by[..], &[&large]].concat())).starts_with(&large));
    fs::write(&names[0], b"\x89PNG\r\n\x1a\n and no more").unwrap();
    let message = failure(&predict(&[&by[..], &files].concat()));
    assert!(message.contains("0.png"), "{message}");
}

// Fails if a resumed run forgets what was best before.
#[test]
fn a_resumed_run_knows_what_was_best() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let flags = ["--limit", "200", "--batch-size", "10", "--rule", "constant", "--rate", "0.1"];
    let again = ["--checkpoint", file.to_str().unwrap(), "--resume"];
    let run = |epochs: &str| {
        let last = ["--epochs", epochs];
        mnist(dir.path(), &[&flags[..], &again, &last].concat());
        let bytes = fs::read(dir.path().join("best.safetensors")).unwrap();
        tlr_models::weights::note(&bytes, "epoch").unwrap().unwrap()
    };
    run("3");
    let told = run("9");
    let epochs = epochs(dir.path());
    let best = epochs.iter().min_by(|a, b| a.test_loss.total_cmp(&b.test_loss)).unwrap();
    assert_eq!((epochs.len(), told), (9, best.epoch.to_string()));
}
