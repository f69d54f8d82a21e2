//! Runs that are stopped and go on in another process, against runs that never stopped.

use dfdx::prelude::Cpu;
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use tlr::Adaptation;
use tlr_models::{
    data::{
        digits,
        text::{toy, VocabularyConfig},
        DataError, Dataset,
    },
    layers::DropoutRate,
    report::Epoch,
    train::{
        self, Base, Corpus, Event, Facts, InMemory, Mode, Net, Options, Persistence, Run,
        ScheduleKind, Source, TrainError, Visit,
    },
    Seq2SeqTransformer,
};

/// What a run tells, but for how long it took.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    losses: Vec<f64>,
    decisions: Vec<Adaptation>,
    pub(crate) epochs: Vec<Epoch>,
}

impl Told {
    pub(crate) fn listen(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { loss, .. } => self.losses.push(*loss),
            Event::Decision(decision) => self.decisions.push((*decision).clone()),
            Event::Epoch(epoch) => self.epochs.push(Epoch { seconds: 0.0, ..(*epoch).clone() }),
            Event::Resumed { .. } => *self = Self::default(),
            Event::NotSaved(error) => panic!("{error}"),
            _ => {}
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
        let persistence = Persistence { stop: Some(&stop), ..going_on(file) };
        let result = train(options, &persistence, &mut |event| {
            told.listen(&event);
            stop.store(told.losses.len() == stop_at, Ordering::Relaxed);
        });
        assert!(matches!(result, Err(TrainError::Stopped { step }) if step == stop_at));
    }
    let run = train(options, &going_on(file), &mut |event| told.listen(&event)).unwrap();
    assert_eq!((&told.losses, &told.decisions), (&run.losses, &run.history));
    (told, run)
}

pub(crate) fn going_on(file: &Path) -> Persistence<'_> {
    Persistence { checkpoint: Some(file), resume: true, ..Persistence::default() }
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

pub(crate) fn small() -> Dataset {
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

/// Stops before, at and after the end of an epoch, inside windows (of two steps, and of 50) and at
/// their ends.
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
        let persistence = Persistence { resume, ..going_on(&file) };
        train(options, &persistence, &mut |_| ()).map(|_| ()).unwrap_err()
    };
    assert!(matches!(run(&options(), false), TrainError::CheckpointExists(path) if path == file));
    let other = |options: Options, words: [&str; 2]| match run(&options, true) {
        TrainError::AnotherRun { changes, .. } => {
            let told = changes.to_string();
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
        other => panic!("{other}"),
    };
    other(Options { seed: 1, ..options() }, ["--seed was 0", "is 1"]);
    other(Options { batch_size: 40, ..options() }, ["--batch-size was 20", "is 40"]);
    other(Options { ramp: false, ..options() }, ["--no-ramp was not given", "is given"]);
    // Without a schedule a run may have more epochs; a cosine is stretched by them.
    let cosine = Options { schedule: ScheduleKind::Cosine, ..options() };
    other(cosine, ["--schedule was constant", "is cosine"]);
    // Images of the same size, and settings that only the caller knows.
    let others = digits::draw(2, 200, 50).unwrap();
    let refused = |data: &Dataset, settings: &Facts| {
        let persistence = Persistence { settings: Some(settings), ..going_on(&file) };
        images(data)(&options(), &persistence, &mut |_| ()).map(|_| ()).unwrap_err().to_string()
    };
    let message = refused(&others, &Facts::default());
    let says = "the training set has other contents: 200 images as before";
    assert!(message.contains(says) && !message.contains("--"), "{message}");
    let message = refused(&others, &Facts::default().with("--dropout", 0.5));
    assert!(message.ends_with("of another run: --dropout was not given, is 0.5"), "{message}");

    let attached = |bytes: &[u8]| {
        let checkpoint = tlr::Checkpoint::open(&file).unwrap();
        checkpoint.attach("run", bytes).save(&file).unwrap();
        run(&options(), true)
    };
    for (bytes, says) in [(&[][..], "no progress record"), (&[5], "cannot be read")] {
        let error = attached(bytes);
        let told = matches!(&error, TrainError::DamagedRun { what, .. } if what.contains(says));
        assert!(told, "{error}");
    }
    for (bytes, format) in [(&[1, 7][..], 1), (&[4], 4)] {
        let error = attached(bytes);
        let told = matches!(error, TrainError::AnotherFormat { found, expected: 5, .. }
            if found == format);
        assert!(told, "{error}");
    }
}

/// Images whose test fails, as those of a damaged file do.
pub(crate) struct Untestable<'a> {
    pub(crate) images: InMemory<'a>,
    /// How many tests are left that do not fail.
    pub(crate) tests: std::cell::Cell<usize>,
}

impl Source for Untestable<'_> {
    fn shape(&self) -> [usize; 3] {
        self.images.shape()
    }

    fn classes(&self) -> usize {
        self.images.classes()
    }

    fn train_len(&self) -> usize {
        self.images.train_len()
    }

    fn test_len(&self) -> usize {
        self.images.test_len()
    }

    fn batches_per_epoch(&self) -> usize {
        self.images.batches_per_epoch()
    }

    fn settings(&self) -> Facts {
        self.images.settings()
    }

    fn data(&self) -> Result<Facts, TrainError> {
        self.images.data()
    }

    fn epoch(&self, epoch: usize, skip: usize, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        self.images.epoch(epoch, skip, visit)
    }

    fn test(&self, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        match self.tests.replace(self.tests.get().saturating_sub(1)) {
            0 => Err(DataError::Zero { what: "a damaged picture" }.into()),
            _ => self.images.test(visit),
        }
    }
}

/// Fails if an epoch that cannot be tested is lost, or if the test is left out afterwards.
#[test]
fn an_epoch_is_saved_before_it_is_tested() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let data = small();
    let (options, mut straight) = (options(), Told::default());
    images(&data)(&options, &Persistence::default(), &mut |event| straight.listen(&event)).unwrap();
    let mut told = Told::default();
    let images_of = || InMemory::new(&data, options.batch_size, options.seed, None).unwrap();
    let source = Untestable { images: images_of(), tests: 1.into() };
    let error = train::train::<Net>(&source, &options, &going_on(&file), &mut |event| {
        told.listen(&event);
    });
    assert!(error.unwrap_err().to_string().contains("a damaged picture"));
    assert_eq!((told.losses.len(), told.epochs.len()), (20, 1));
    let mut first = None;
    let mut told = Told::default();
    train::train::<Net>(&images_of(), &options, &going_on(&file), &mut |event| {
        if let Event::Resumed { step } = event {
            first = step;
        }
        told.listen(&event);
    })
    .unwrap();
    assert_eq!(first, Some(20));
    assert_eq!(told, straight);
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_refused_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let data = small();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    for place in ["folder", "nowhere/run.safetensors"] {
        let path = dir.path().join(place);
        let train = images(&data);
        let mut steps = 0;
        let error = train(&options(), &going_on(&path), &mut |_| steps += 1).unwrap_err();
        assert!(matches!(&error, TrainError::CheckpointPath { path: of, .. } if *of == path));
        assert_eq!(steps, 0);
    }
    // Nothing is left of a trial.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
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
    assert_eq!(first.status.code(), Some(130), "{words}");
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
