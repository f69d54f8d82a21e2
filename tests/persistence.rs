//! Runs that are stopped and go on in another process, against runs that never stopped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dfdx::prelude::Cpu;
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use tlr_models::{
    data::{
        digits,
        text::{toy, VocabularyConfig},
        Dataset,
    },
    layers::DropoutRate,
    report::Epoch,
    train::{
        self, Base, Corpus, Event, InMemory, Mode, Net, Options, Persistence, Run, TrainError,
    },
    Seq2SeqTransformer,
};

/// What a run tells, but for how long it took.
#[derive(Debug, Default, PartialEq)]
struct Told {
    losses: Vec<f64>,
    epochs: Vec<Epoch>,
}

impl Told {
    fn listen(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { loss, .. } => self.losses.push(*loss),
            Event::Epoch(epoch) => self.epochs.push(Epoch { seconds: 0.0, ..(*epoch).clone() }),
            Event::Resumed { .. } => *self = Self::default(),
            Event::NotSaved(error) => panic!("{error}"),
        }
    }
}

/// A run, from its options, how it is to persist, and who listens.
type Train<'a> =
    dyn Fn(&Options, &Persistence<'_>, &mut dyn FnMut(Event<'_>)) -> Result<Run, TrainError> + 'a;

/// The run as it is after stops at each of these steps.
fn with_stops(train: &Train<'_>, options: &Options, file: &Path, stops: &[usize]) -> (Told, Run) {
    let mut told = Told::default();
    for &stop_at in stops {
        let stop = AtomicBool::new(false);
        let persistence = Persistence { checkpoint: Some(file), resume: true, stop: Some(&stop) };
        let result = train(options, &persistence, &mut |event| {
            told.listen(&event);
            stop.store(told.losses.len() == stop_at, Ordering::Relaxed);
        });
        assert!(matches!(result, Err(TrainError::Stopped { step }) if step == stop_at));
    }
    let persistence = Persistence { checkpoint: Some(file), resume: true, stop: None };
    let run = train(options, &persistence, &mut |event| told.listen(&event)).unwrap();
    (told, run)
}

fn goes_on_the_same(train: &Train<'_>, options: &Options, stops: &[usize]) {
    let dir = tempfile::tempdir().unwrap();
    let mut straight = Told::default();
    let run =
        train(options, &Persistence::default(), &mut |event| straight.listen(&event)).unwrap();
    assert!(run.history.len() > 2 && straight.losses.len() > *stops.last().unwrap());
    let (told, resumed) = with_stops(train, options, &dir.path().join("run.safetensors"), stops);
    assert_eq!(told, straight);
    assert_eq!(resumed.history, run.history);
    assert_eq!(resumed.epochs.len(), options.epochs);
}

fn small() -> Dataset {
    digits::draw(1, 200, 50).unwrap()
}

fn options() -> Options {
    Options { epochs: 3, batch_size: 20, rate: 1e-3, ..Options::default() }
}

fn images<'a>(data: &'a Dataset) -> Box<Train<'a>> {
    Box::new(|options, persistence, observer| {
        let source = InMemory::new(data, options.batch_size, options.seed, None)?;
        train::train::<Net>(&source, options, persistence, observer)
    })
}

/// Stops before, at and after the end of an epoch, inside windows (of two steps, and of 50) and at their ends.
#[test]
fn images_one_rate_and_one_a_layer() {
    let data = small();
    let train = images(&data);
    goes_on_the_same(&*train, &options(), &[1, 9, 10, 11, 24]);
    let (optimizer, mode) = (Base::Momentum, Mode::PerLayer);
    let options = Options { optimizer, mode, batch_size: 5, ..options() };
    goes_on_the_same(&*train, &options, &[1, 39, 40, 41, 100, 104]);
}

/// Dropout is drawn from the device's generator, whose state nobody can read.
#[test]
fn translation_with_dropout() {
    type Small = Seq2SeqTransformer<100, 100, 16, 2, 32, 1, 1, f32, Cpu>;
    let data = toy::draw(1, 400, 40, 1).unwrap();
    let corpus = Corpus::new(&data.train, &data.val, VocabularyConfig::default()).unwrap();
    let train =
        |options: &Options, persistence: &Persistence<'_>, observer: &mut dyn FnMut(Event<'_>)| {
            let dropout = DropoutRate::default();
            let (run, _) =
                train::train_translator::<Small>(&corpus, options, dropout, persistence, observer)?;
            Ok(run)
        };
    goes_on_the_same(&train, &Options { rate: 1e-2, ..options() }, &[3, 20, 47]);
}

/// A run that is done does nothing more, and one that is to have more epochs goes on.
#[test]
fn more_epochs_are_added() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let data = small();
    let train = images(&data);
    let short = Options { epochs: 1, ..options() };
    let first = with_stops(&*train, &short, &file, &[]);
    assert_eq!(with_stops(&*train, &short, &file, &[]).0, first.0);
    let mut straight = Told::default();
    train(&options(), &Persistence::default(), &mut |event| straight.listen(&event)).unwrap();
    assert_eq!(with_stops(&*train, &options(), &file, &[]).0, straight);
}

#[test]
fn checkpoints_of_other_runs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let data = small();
    let train = images(&data);
    with_stops(&*train, &options(), &file, &[5]);
    let run = |options: &Options, resume| {
        let persistence = Persistence { checkpoint: Some(&file), resume, stop: None };
        train(options, &persistence, &mut |_| ()).map(|_| ()).unwrap_err()
    };
    assert!(matches!(run(&options(), false), TrainError::CheckpointExists(path) if path == file));
    let other = |options: Options, words: [&str; 2]| match run(&options, true) {
        TrainError::AnotherRun { what, .. } => {
            assert!(words.iter().all(|word| what.contains(word)), "{what}");
        }
        other => panic!("{other}"),
    };
    other(Options { seed: 1, ..options() }, ["seed: 0", "seed: 1"]);
    other(Options { batch_size: 40, ..options() }, ["in an epoch: 10", "in an epoch: 5"]);
    // What only the optimizer knows of, it says itself.
    let checkpoint = tlr::Checkpoint::open(&file).unwrap();
    checkpoint.attach("run", []).save(&file).unwrap();
    other(options(), ["how far", ""]);
}

/// As a user does it: Ctrl-C, and the same command with `--resume`.
#[test]
#[cfg(unix)]
fn an_example_stops_on_ctrl_c_and_goes_on() {
    use std::{
        process::{Command, Stdio},
        time::Duration,
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let command = |out: &str| {
        let mut command = Command::new(support::examples::example("mnist"));
        command.args(["--limit", "2000", "--epochs", "3", "--json", "--threads", "1"]);
        command.args(["--rate", "1e-3", "--out"]).arg(dir.path().join(out));
        command.stdin(Stdio::null());
        command
    };
    let last_line = |out: std::process::Output| -> serde_json::Value {
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let mut run: serde_json::Value =
            serde_json::from_str(text.lines().last().unwrap()).unwrap();
        run["seconds"] = 0.into();
        run
    };
    let straight = last_line(command("straight").output().unwrap());

    let resumable = |out: &str| {
        let mut command = command(out);
        command.arg("--checkpoint").arg(&file).arg("--resume");
        command
    };
    let first = resumable("stopped").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &first.id().to_string()]).status().unwrap();
    let first = first.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&first.stderr);
    assert!(first.status.success(), "{words}");
    assert!(words.contains("--resume goes on"), "{words}");
    let checkpoint = std::fs::read(&file).unwrap();

    let second = resumable("resumed").output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("resumed after step"));
    assert_eq!(last_line(second), straight);
    let read = |out: &str, name| std::fs::read_to_string(dir.path().join(out).join(name)).unwrap();
    assert_eq!(read("resumed", "history.csv"), read("straight", "history.csv"));
    assert_ne!(std::fs::read(&file).unwrap(), checkpoint);

    // The same file without the flag is not written over.
    let third = command("third").arg("--checkpoint").arg(&file).output().unwrap();
    assert!(!third.status.success());
    assert!(String::from_utf8_lossy(&third.stderr).contains("already"));
}
