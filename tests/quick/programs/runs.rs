//! What is left of a run that did not go well, and what is not mixed up: as a user sees it.
#![cfg(unix)]

use serde_json::Value;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};
use support::examples::example;
use tlr_models::report::OutFolder;

pub(crate) fn mnist(out: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(example("mnist"));
    command.env_remove("TLR_DATA").args(["--threads", "1"]).args(args).arg("--out").arg(out);
    command
}

/// 20 batches an epoch: less than a second.
const SHORT: [&str; 6] = ["--limit", "400", "--batch-size", "20", "--epochs", "3"];

/// Some seconds.
const SOME: [&str; 6] = ["--limit", "400", "--batch-size", "20", "--epochs", "20"];

/// Never at its end while a test looks at it.
const LONG: [&str; 6] = ["--limit", "400", "--batch-size", "20", "--epochs", "100000"];

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn errors(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!text.contains("panicked"), "{text}");
    text
}

pub(crate) fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    errors(&output)
}

pub(crate) fn json(out: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(out.join("run.json")).unwrap()).unwrap()
}

/// Lines below the headings.
fn rows(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count().saturating_sub(1))
}

fn wait_for(child: &mut Child, done: impl Fn() -> bool) {
    while !done() {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
}

// Fails if files are written at the end only, or if a run that was stopped looks like one that was
// not.
#[test]
fn a_stopped_run_leaves_its_files_and_tells_the_signal() {
    for (signal, status) in [("-INT", 130), ("-TERM", 143)] {
        let out = tempfile::tempdir().unwrap();
        let epochs = out.path().join("epochs.csv");
        let mut command = mnist(out.path(), &LONG);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for(&mut child, || rows(&epochs) >= 4);
        assert_eq!(json(out.path())["ended"], "running");
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status));
        let words = errors(&output);
        assert!(words.contains("stopped after step ") && words.contains("without --checkpoint"));
        let json = json(out.path());
        let steps: usize =
            json["ended"].as_str().unwrap()["stopped after step ".len()..].parse().unwrap();
        assert_eq!(json["epochs"], steps / 20);
        assert_eq!(rows(&epochs), steps / 20);
        // Windows of 20 steps, once the starting rate is found.
        let history = fs::read_to_string(out.path().join("history.csv")).unwrap();
        let last = history.lines().last().unwrap().split(',').next().unwrap();
        assert!(steps - last.parse::<usize>().unwrap() < 20, "{history}");
        assert!(fs::read_to_string(out.path().join("curves.svg")).unwrap().ends_with("</svg>\n"));
    }
}

// Fails if a closed terminal ends a run unsaved, or if `nohup` does not keep one alive.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_terminal_stops_a_run_but_for_nohup() {
    for (way, args, status) in
        [("--default-signal=HUP", LONG, Some(129)), ("--ignore-signal=HUP", SOME, Some(0))]
    {
        let out = tempfile::tempdir().unwrap();
        let program = mnist(out.path(), &args);
        let mut command = Command::new("env");
        command.arg(way).arg(program.get_program()).args(program.get_args());
        let mut child = command.env_remove("TLR_DATA").stdout(Stdio::null()).spawn().unwrap();
        wait_for(&mut child, || rows(&out.path().join("epochs.csv")) >= 1);
        Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), status);
        let words = if status == Some(0) { "finished" } else { "stopped after step " };
        assert!(json(out.path())["ended"].as_str().unwrap().starts_with(words));
    }
}

// The weights overflow in the second step or soon after. Fails if what came before is lost.
#[test]
fn a_run_that_diverges_leaves_its_files() {
    let out = tempfile::tempdir().unwrap();
    let args = [&SHORT[..], &["--rule", "constant", "--rate", "1e30"]].concat();
    let message = failure(&mut mnist(out.path(), &args));
    assert!(message.starts_with("error: the loss is NaN"), "{message}");
    assert!(message.contains("most likely a constant --rate of 1e30 is too large"), "{message}");
    assert!(message.contains("what was done before is in"), "{message}");
    let json = json(out.path());
    assert!(message.contains(json["ended"].as_str().unwrap()), "{json}");
    assert!(out.path().join("history.csv").exists() && out.path().join("epochs.csv").exists());
}

#[test]
fn who_reads_one_line_stops_nothing() {
    let out = tempfile::tempdir().unwrap();
    let mut child = mnist(out.path(), &SHORT).stdout(Stdio::piped()).spawn().unwrap();
    let mut heading = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut heading).unwrap();
    assert!(heading.starts_with("Drawn digits: "), "{heading}");
    assert!(child.wait().unwrap().success());
    assert_eq!(rows(&out.path().join("epochs.csv")), 3);
    assert_eq!(json(out.path())["ended"], "finished");
}

#[test]
fn a_full_disk_behind_stdout_is_told_at_the_end() {
    let out = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let message = failure(mnist(out.path(), &SHORT).stdout(full));
    assert!(message.contains("No space left"), "{message}");
    assert_eq!(json(out.path())["ended"], "finished");
}

/// The disk is full to a process that may write files of so many blocks of 512 bytes.
fn with_room_for(blocks: usize, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    limited.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    limited
}

// Fails if a file is emptied before there is room for its new contents, or if the run ends for it.
#[test]
fn a_disk_that_is_full_takes_nothing_away() {
    let out = tempfile::tempdir().unwrap();
    succeeded(&mnist(out.path(), &SHORT).output().unwrap());
    let picture = out.path().join("curves.svg");
    let before = fs::read_to_string(&picture).unwrap();
    let again = [&SHORT[..], &["--seed", "1"]].concat();
    let output = with_room_for(8, &mnist(out.path(), &again)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = errors(&output);
    assert_eq!(message.matches("trying again after each epoch").count(), 1, "{message}");
    assert!(message.lines().last().unwrap().contains("curves.svg"), "{message}");
    assert_eq!(fs::read_to_string(&picture).unwrap(), before);
    // Trained to its end all the same.
    assert_eq!(rows(&out.path().join("epochs.csv")), 3);
    assert!(String::from_utf8_lossy(&output.stdout).lines().count() >= 4);

    // The checkpoint is what the run was asked for.
    let file = out.path().join("run.safetensors");
    let saved = [&SHORT[..], &["--checkpoint", file.to_str().unwrap()]].concat();
    let message = failure(&mut with_room_for(8000, &mnist(out.path(), &saved)));
    let last = message.lines().last().unwrap();
    assert!(
        last.starts_with("error: not saved: ") && last.contains("run.safetensors"),
        "{message}"
    );
    assert!(!file.exists());

    let message = failure(&mut with_room_for(0, &mnist(out.path(), &SHORT)));
    assert!(message.contains("cannot write") && !message.contains("epoch"), "{message}");
}

#[test]
fn what_cannot_be_written_is_refused_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let output = mnist(&file.join("out"), &LONG).output().unwrap();
    assert!(errors(&output).contains("file/out"));
    let out = dir.path().join("out");
    for place in ["file/run", "nowhere/run", "."] {
        let checkpoint = dir.path().join(place);
        let args = [&LONG[..], &["--checkpoint", checkpoint.to_str().unwrap()]].concat();
        let message = failure(&mut mnist(&out, &args));
        assert!(message.contains("cannot write the checkpoint"), "{message}");
        assert!(!out.join("run.json").exists());
    }
    // A folder's name, and files that the run writes by itself.
    for (checkpoint, told) in [
        (format!("{}/", out.join("run").display()), "cannot write the checkpoint"),
        (format!("{}/run/.", dir.path().display()), "cannot write the checkpoint"),
        (out.join("run.json").display().to_string(), "a file that the run writes by itself"),
        (out.join("best.safetensors").display().to_string(), "a file that the run writes"),
    ] {
        let args = [&LONG[..], &["--checkpoint", &checkpoint]].concat();
        let message = failure(&mut mnist(&out, &args));
        assert!(message.contains(told), "{checkpoint}: {message}");
    }
}

// Fails if a signal that comes twice, as from `timeout`, ends the run before it is saved.
#[test]
fn a_request_to_stop_that_comes_twice_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (out, file) = (dir.path().join("out"), dir.path().join("run.safetensors"));
    let args = [&LONG[..], &["--checkpoint", file.to_str().unwrap()]].concat();
    let mut child = mnist(&out, &args).stdout(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, || rows(&out.join("epochs.csv")) >= 2);
    fs::remove_file(&file).unwrap();
    for _ in 0..2 {
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(file.exists());
}

// Fails if all that is trained after it is lost.
#[test]
fn a_folder_that_is_taken_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut child = mnist(&out, &LONG).stdout(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, || rows(&out.join("epochs.csv")) >= 2);
    fs::rename(&out, dir.path().join("elsewhere")).unwrap();
    wait_for(&mut child, || rows(&out.join("epochs.csv")) >= 3);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn data_that_is_not_to_be_read_is_told_from_data_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "no folder").unwrap();
    for (program, lacks) in [
        ("mnist", "no file train-images-idx3-ubyte"),
        ("cifar", "no file data_batch_1.bin"),
        ("translate", "no file train.de"),
    ] {
        let from = |data: &Path| {
            let mut command = Command::new(example(program));
            failure(command.arg("--data").arg(data).arg("--out").arg(dir.path().join("out")))
        };
        for nowhere in [&file, &dir.path().join("nowhere")] {
            let message = from(nowhere);
            let says = format!("cannot look into {}: ", nowhere.display());
            assert!(message.contains(&says), "{program}: {message}");
        }
        let message = from(dir.path());
        assert!(message.contains(lacks), "{program}: {message}");
    }
}

// Fails if a slip in the flags costs what an earlier run has left.
#[test]
fn a_run_that_cannot_begin_touches_no_file() {
    let out = tempfile::tempdir().unwrap();
    succeeded(&mnist(out.path(), &SHORT).output().unwrap());
    let before = fs::read_to_string(out.path().join("run.json")).unwrap();
    failure(&mut mnist(out.path(), &[&SHORT[..], &["--damping", "2"]].concat()));
    assert_eq!(fs::read_to_string(out.path().join("run.json")).unwrap(), before);
}

#[test]
fn a_folder_is_one_runs_at_a_time() {
    let out = tempfile::tempdir().unwrap();
    let held = OutFolder::claim(out.path()).unwrap();
    let message = failure(&mut mnist(out.path(), &SHORT));
    assert!(message.contains("another run writes to"), "{message}");
    let mut sweep = Command::new(example("sweep"));
    sweep.env_remove("TLR_DATA").args(["--limit", "40", "--epochs", "1"]);
    let message = failure(sweep.arg("--out").arg(out.path()));
    assert!(message.contains("another run writes to"), "{message}");
    drop(held);
    succeeded(&mnist(out.path(), &SHORT).output().unwrap());
}

#[test]
fn a_checkpoint_knows_its_data_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    let (out, file) = (dir.path().join("out"), dir.path().join("run.safetensors"));
    let resumed = |args: &[&str]| {
        let mut command = mnist(&out, args);
        command.arg("--checkpoint").arg(&file).arg("--resume");
        command
    };
    succeeded(&resumed(&SHORT).output().unwrap());
    for (change, says) in [
        (&["--limit", "300"][..], "--limit was 400, is 300"),
        (&["--seed", "7"], "--seed was 0, is 7"),
        (&["--rate", "1e-4", "--no-ramp"], "--rate was 1e-6, is 1e-4; --no-ramp was not given"),
        (&["--schedule", "cosine"], "--schedule was horizon, is cosine"),
        // The rate was to fall to 0 over three epochs.
        (&["--epochs", "4"], "--epochs was 3, is 4"),
        (&["--weight-decay", "0.1"], "--weight-decay was 0, is 0.1"),
        (&["--sketch", "64"], "--sketch was not given, is 64"),
    ] {
        let message = failure(&mut resumed(&[&SHORT[..], change].concat()));
        assert!(message.contains(says), "{change:?}: {message}");
        assert!(!message.contains("Some(") && !message.contains("shape"), "{message}");
    }
    // The same value in other words, and what has no part in training.
    let same = ["--rate", "0.000001", "--json"];
    succeeded(&resumed(&[&SHORT[..], &same].concat()).output().unwrap());
    // Where nothing depends on their number, a run may have more epochs.
    fs::remove_file(&file).unwrap();
    for (epochs, count) in [("2", 2), ("3", 3)] {
        let constant = ["--schedule", "constant", "--epochs", epochs];
        succeeded(&resumed(&[&SHORT[..], &constant].concat()).output().unwrap());
        assert_eq!(json(&out)["epochs"], count);
    }
}

/// Of the settings of run.json, but for times.
fn result(out: &Path) -> Value {
    let mut json = json(out);
    json["seconds"] = 0.into();
    json
}

// Fails if a setting is left out, or if flags beside it count less.
#[test]
fn run_json_repeats_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let flags = ["--optimizer", "momentum", "--mode", "per-layer", "--seed", "5", "--no-ramp"];
    let figures = ["--rate", "3e-3", "--weight-decay", "1e-4", "--schedule", "warm-up"];
    let args = [&SHORT[..], &flags, &figures].concat();
    succeeded(&mnist(&at("first"), &args).output().unwrap());
    let config = at("first").join("run.json");
    let repeat = |out: &str, args: &[&str]| {
        let mut command = Command::new(example("mnist"));
        command.env_remove("TLR_DATA").arg("--config").arg(&config).args(args);
        command.arg("--out").arg(at(out));
        command
    };
    succeeded(&repeat("second", &[]).output().unwrap());
    assert_eq!(result(&at("second")), result(&at("first")));
    let history = |out| fs::read_to_string(at(out).join("history.csv")).unwrap();
    assert_eq!(history("second"), history("first"));
    succeeded(&repeat("third", &["--rate", "1e-2"]).output().unwrap());
    assert_eq!(json(&at("third"))["settings"]["rate"], 1e-2);
    assert_eq!(json(&at("third"))["settings"]["seed"], 5);
    assert_ne!(history("third"), history("first"));

    let said = fs::read_to_string(&config).unwrap();
    for (from, to, says) in [
        ("\"mnist\"", "\"cifar\"", "is of cifar, and not of mnist"),
        ("\"settings\"", "\"sayings\"", "missing field `settings`"),
        ("\"fingerprint\"", "\"print\"", "missing field `fingerprint`"),
        ("\"damping\"", "\"dumping\"", "`dumping` is no setting of mnist"),
        ("\"damping\"", "\"help\"", "`help` is no setting of mnist"),
        ("\"limit\": 400", "\"limit\": null", "invalid value 'null' for '--limit <N>'"),
        ("\"epochs\": 3,\n    \"l", "\"epochs\": -3,\n    \"l", "a whole number of at least 1"),
        ("\"damping\": 0.33", "\"damping\": [1]", "invalid value '[1]' for '--damping <X>'"),
        ("{", "", "cannot read"),
    ] {
        fs::write(&config, said.replacen(from, to, 1)).unwrap();
        let message = failure(&mut repeat("fifth", &[]));
        assert!(message.contains(says) && message.contains("run.json"), "{message}");
    }
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(said.contains(&version), "{said}");
    fs::write(&config, said.replace(&version, "\"version\": \"0.0.1\"")).unwrap();
    let output = repeat("sixth", &[]).output().unwrap();
    succeeded(&output);
    assert!(errors(&output).contains("is of version 0.0.1"));
}

#[test]
fn figures_that_make_no_sense_are_refused() {
    for (args, says) in [
        (&["--weight-decay", "-1"][..], "weight_decay must be finite and at least 0, not -1"),
        (&["--weight-decay", "nan"], "weight_decay must be finite and at least 0, not NaN"),
        (&["--weight-decay", "inf", "--optimizer", "adam"], "finite and at least 0, not inf"),
        (&["--weight-decay", "-1", "--optimizer", "rmsprop"], "finite and at least 0, not -1"),
        (&["--damping", "nan", "--rule", "constant"], "damping must be in (0, 1]"),
        (&["--meta-rate", "-1"], "meta_lr must be finite and above 0"),
        (&["--rate", "inf"], "must be in [1e-30, 1e30]"),
        (&["--window-fraction", "nan"], "must be in (0, 1]"),
        (&["--sketch", "100"], "a power of two from 64"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let output = mnist(out.path(), &[&SHORT[..], args].concat()).output().unwrap();
        let message = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
        assert!(message.contains(says), "{args:?}: {message}");
    }
    for (args, flag) in [(["--threads", "0"], "--threads"), (["--epochs", "-1"], "--epochs")] {
        let out = tempfile::tempdir().unwrap();
        let output = mnist(out.path(), &args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(errors(&output).contains(flag));
    }
}

// Fails if failure is taken for success, or the other way round.
#[test]
fn the_last_line_tells_success_from_failure() {
    let run = |args: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let output = mnist(out.path(), &[&SHORT[..], args, &["--json"]].concat()).output().unwrap();
        let verdict = json(out.path())["verdict"].as_str().unwrap().to_owned();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let last = text.lines().last().unwrap();
        assert_eq!(serde_json::from_str::<Value>(last).unwrap()["verdict"], verdict.as_str());
        (output.status.code(), text, errors(&output), verdict)
    };
    let (status, text, words, verdict) = run(&["--no-ramp", "--rate", "0.1"]);
    assert_eq!((status, &*verdict, &*words), (Some(0), "learned", ""));
    assert!(text.contains("Drawn digits: learned, "), "{text}");

    let (status, text, words, verdict) = run(&["--rule", "constant", "--rate", "1e-9"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("Drawn digits: did not learn, "), "{text}");
    assert!(words.starts_with("error: did not learn: the training loss is "), "{words}");
    assert!(words.contains("a constant --rate of 1e-9 is too small"), "{words}");
    assert!(words.contains(&verdict), "{words}");

    // Its last losses are far below those after the first step, and far above the first one.
    let (status, text, words, _) = run(&["--rule", "constant", "--rate", "10"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("Drawn digits: did not learn, "), "{text}");
    assert!(words.contains("a constant --rate of 10 is too large"), "{words}");

    let (status, text, words, _) = run(&["--epochs", "1", "--batch-size", "100"]);
    assert_eq!(status, Some(0));
    assert!(text.contains("Drawn digits: too short to tell, "), "{text}");
    assert!(words.starts_with("note: too short to tell: after 4 steps"), "{words}");
}
