//! The translation example and the comparison of its runs, as a user runs them, on a few sentences.

use std::{
    fs,
    path::{Component, Path, PathBuf},
    process::{Command, Output},
};
use support::examples::example;

fn translate(out: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(example("translate"));
    command.env_remove("TLR_MULTI30K").args(args).arg("--out").arg(out);
    command.output().expect("cargo builds the examples for `cargo test`")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(stdout(output).lines().last().unwrap()).unwrap()
}

fn failure(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

const SHORT: [&str; 7] = ["--limit", "60", "--epochs", "2", "--batch-size", "20", "--json"];

// Fails if the seed does not decide everything, a file is missing, or translations are not shown
// beside what they translate.
#[test]
fn the_made_language() {
    let out = tempfile::tempdir().unwrap();
    let flags = ["--optimizer", "sgd", "--rate", "1e-2", "--show", "2", "--threads"];
    let args = [&SHORT[..], &flags, &["1"]].concat();
    let output = translate(out.path(), &args);
    let result = json(&output);
    let text = stdout(&output);
    for (begins, times) in [("  German  ", 2), (" English  ", 2), ("   model  ", 2), ("BLEU ", 1)] {
        assert_eq!(text.lines().filter(|line| line.starts_with(begins)).count(), times, "{text}");
    }
    assert_eq!(result["epochs"], 2);
    assert!((0.0..=100.0).contains(&result["bleu"].as_f64().unwrap()));
    let signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp";
    assert_eq!(result["bleu_signature"], signature);
    let bleu = text.lines().find(|line| line.starts_with("BLEU ")).unwrap();
    assert!(bleu.contains("sacrebleu") && bleu.contains(signature), "{bleu}");
    assert!(result["word_by_word_bleu"].as_f64().unwrap() > 10.0);
    assert!((0.0..=1.0).contains(&result["test_accuracy"].as_f64().unwrap()));
    assert!(result["rates"]["model"].as_f64().is_some_and(|rate| rate > 0.0 && rate != 1e-2));
    let tokens: Vec<u64> = serde_json::from_value(result["tokens"].clone()).unwrap();
    assert!(tokens.iter().all(|tokens| (50..=128).contains(tokens)), "{tokens:?}");

    let mut history = csv::Reader::from_path(out.path().join("history.csv")).unwrap();
    assert!(history.records().count() > 0);
    let mut epochs = csv::Reader::from_path(out.path().join("epochs.csv")).unwrap();
    assert_eq!(epochs.records().count(), 2);
    assert!(fs::read_to_string(out.path().join("curves.svg")).unwrap().starts_with("<svg"));
    let written = fs::read_to_string(out.path().join("run.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), result);

    let again = json(&translate(out.path(), &[&SHORT[..], &flags, &["2"]].concat()));
    let other = json(&translate(out.path(), &[&args[..], &["--seed", "1"]].concat()));
    assert_eq!((&again["test_loss"], &again["bleu"]), (&result["test_loss"], &result["bleu"]));
    assert_ne!(other["test_loss"], result["test_loss"]);
}

// Fails if the flags do not reach the vocabulary, the search or the model.
#[test]
fn sentences_from_files() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for half in ["train", "val", "test_2016_flickr"] {
        for (language, words) in [("de", ["ein", "Hund", "Mann"]), ("en", ["a", "dog", "man"])] {
            let line = |i: usize| format!("{} {} .\n", words[0], words[1 + i % 2]);
            let text: String = (0..8).map(line).collect();
            fs::write(data.path().join(format!("{half}.{language}")), text).unwrap();
        }
    }
    let dir = data.path().to_str().unwrap();
    let flags = ["--data", dir, "--epochs", "1", "--json", "--dropout", "0"];
    let greedy = json(&translate(out.path(), &[&flags[..], &["--tokens", "words"]].concat()));
    // Four special ones, and four words.
    assert_eq!((&greedy["tokens"][0], &greedy["tokens"][1]), (&8.into(), &8.into()));
    assert_eq!(greedy["word_by_word_bleu"].as_f64().unwrap(), 0.0); // no run of four words
    let choice = ["--vocabulary", "20", "--beam", "2", "--mode", "per-layer"];
    let beam = json(&translate(out.path(), &[&flags[..], &choice].concat()));
    assert!((9..=20).contains(&beam["tokens"][0].as_u64().unwrap()));
    assert!(beam["rates"].as_object().unwrap().contains_key("generator"));

    fs::remove_file(data.path().join("val.en")).unwrap();
    let message = failure(&translate(out.path(), &flags));
    assert!(message.starts_with("error: ") && message.contains("val.en"), "{message}");
}

#[test]
fn bad_input_ends_in_a_message() {
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().to_str().unwrap();
    for (args, says) in [
        (&["--data", "/does/not/exist"][..], "/does/not/exist"),
        (&["--data", dir], "train.de"),
        (&["--dropout", "1"], "dropout rate"),
        (&["--dropout", "-0.1"], "dropout rate"),
        (&["--vocabulary", "4"], "a vocabulary of 4 tokens"),
        (&["--limit", "0"], "at least 1"),
        (&["--limit", "9", "--batch-size", "0"], "at least 1"),
        (&["--limit", "9", "--epochs", "0"], "at least 1"),
        (&["--limit", "9", "--rate", "-1"], "starting learning rate"),
        (&["--tokens", "letters"], "letters"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let message = failure(&translate(out.path(), args));
        assert!(message.contains(says), "{args:?}: {message}");
        assert!(!message.contains("panicked"), "{args:?}: {message}");
    }
}

// Fails if a search, which may take hours, goes on to its end.
#[cfg(unix)]
#[test]
fn a_request_to_stop_ends_the_translations() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(example("translate"));
    command.env_remove("TLR_MULTI30K").args(["--limit", "200", "--epochs", "1", "--beam", "4"]);
    command.arg("--out").arg(out.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = said.find(|line| line.as_ref().unwrap().starts_with("translating "));
    assert!(begun.is_some());
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("stopped after step 7;")), "{rest:?}");
    let json = fs::read_to_string(out.path().join("run.json")).unwrap();
    assert!(json.contains("\"ended\": \"stopped after step 7\""), "{json}");
    assert!(out.path().join("best.safetensors").exists());
}

// Fails if runs of different rates are taken for different methods, or the worse of two is drawn.
#[test]
fn runs_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, flags) in [
        ("newton", &["--rate", "1e-6"][..]),
        ("low", &["--rule", "constant", "--rate", "1e-7"]),
        ("high", &["--rule", "constant", "--rate", "3e-3"]),
    ] {
        stdout(&translate(&at(name), &[&SHORT[..], flags].concat()));
    }
    let compare = |runs: &[&str]| {
        let mut command = Command::new(example("compare"));
        command.args(runs.iter().map(|name| at(name))).arg("--out").arg(at("compared"));
        command.output().unwrap()
    };
    let table = stdout(&compare(&["newton", "low", "high"]));
    assert!(table.contains("| token accuracy | BLEU |"), "{table}");
    let rows: Vec<&str> = table.lines().filter(|line| line.contains("adam")).collect();
    for (row, begins) in rows.iter().zip([
        "| newton | **Newton around adam** | found |",
        "| low | adam | 1e-7 | 1.0e-7 |",
        "| high | **adam** | 3e-3 |",
    ]) {
        assert!(row.starts_with(begins), "{row}");
    }
    assert_eq!(rows.len(), 3);
    let picture = fs::read_to_string(at("compared/losses.svg")).unwrap();
    for text in ["Newton around adam", "adam from 3e-3", "training loss", "validation loss"] {
        assert!(picture.contains(text), "{text}");
    }
    assert!(!picture.contains("1e-7"));
    let epochs = fs::read_to_string(at("compared/high.csv")).unwrap();
    assert_eq!(epochs, fs::read_to_string(at("high/epochs.csv")).unwrap());

    let missing = failure(&compare(&["newton", "nowhere"]));
    assert!(missing.contains("nowhere") && missing.contains("run.json"), "{missing}");
    let twice = failure(&compare(&["newton", "high/../newton"]));
    assert!(twice.contains("newton was given twice"), "{twice}");
    stdout(&translate(&at("other"), &["--limit", "30", "--epochs", "1"]));
    assert!(failure(&compare(&["newton", "other"])).contains("was trained on"));
    stdout(&translate(&at("words"), &[&SHORT[..], &["--vocabulary", "60"]].concat()));
    let words = failure(&compare(&["newton", "words"]));
    assert!(words.contains("--vocabulary was 2000, is 60"), "{words}");

    // Fails if a default that is written out is another setting.
    stdout(&translate(&at("spelt"), &[&SHORT[..], &["--tokens", "words"]].concat()));
    stdout(&compare(&["newton", "spelt"]));

    // What another version has written, or nobody.
    let path = at("low/run.json");
    let whole = fs::read_to_string(&path).unwrap();
    for (from, lacks) in [("\"rate\"", "rate"), ("\"fingerprint\"", "fingerprint")] {
        fs::write(&path, whole.replace(from, "\"other\"")).unwrap();
        let message = failure(&compare(&["newton", "low"]));
        assert!(message.contains(&format!("run.json: missing field `{lacks}`")), "{message}");
    }
    fs::write(&path, "{}").unwrap();
    assert!(failure(&compare(&["low"])).contains("train the run again"));
}

// Fails if one of two runs of the same name takes the other's place, or if their data is not
// compared.
#[test]
fn runs_of_the_same_name_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mnist = |name: &str, flags: &[&str]| {
        let mut command = Command::new(example("mnist"));
        command.env_remove("TLR_DATA").args(["--epochs", "2", "--batch-size", "20"]);
        stdout(&command.args(flags).arg("--out").arg(at(name)).output().unwrap());
    };
    mnist("a/newton", &["--limit", "100"]);
    mnist("b/newton", &["--limit", "100", "--optimizer", "adam"]);
    mnist("c/newton", &["--limit", "80"]);
    let compare = |runs: &[&str]| {
        let mut command = Command::new(example("compare"));
        command.args(runs.iter().map(|name| at(name))).arg("--out").arg(at("compared"));
        command.output().unwrap()
    };
    let table = stdout(&compare(&["a/newton", "b/newton"]));
    assert!(table.contains("| a/newton | **Newton around sgd** |"), "{table}");
    assert!(table.contains("| b/newton | **Newton around adam** |"), "{table}");
    // Digits have no tokens, and no BLEU.
    assert!(table.contains("| accuracy | rollbacks |") && !table.contains("BLEU"), "{table}");
    let cells = |line: &str| line.matches('|').count();
    let widths: Vec<usize> = table.lines().take(4).map(cells).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    for name in ["a/newton", "b/newton"] {
        let epochs = fs::read_to_string(at(&format!("compared/{name}.csv"))).unwrap();
        assert_eq!(epochs, fs::read_to_string(at(name).join("epochs.csv")).unwrap());
    }
    // The whole path of the first run is the end of the second one's. Fails if anything is written
    // outside of --out.
    let first = fs::canonicalize(at("a/newton")).unwrap();
    let parts = first.components().filter(|part| matches!(part, Component::Normal(_)));
    let parts: PathBuf = parts.collect();
    let second = at("x").join(&parts);
    fs::create_dir_all(&second).unwrap();
    for file in ["run.json", "epochs.csv"] {
        fs::copy(first.join(file), second.join(file)).unwrap();
    }
    stdout(&compare(&["a/newton", second.to_str().unwrap()]));
    assert!(!at("a/newton.csv").exists());
    assert!(at("compared").join(&parts).with_extension("csv").exists());
    assert!(at("compared/x").join(&parts).with_extension("csv").exists());

    let limits = failure(&compare(&["a/newton", "c/newton"]));
    assert!(limits.contains("--limit was 100, is 80"), "{limits}");

    // Fails if a run that was stopped in its first epoch hides all others.
    let epochs = at("c/newton/epochs.csv");
    let heading = fs::read_to_string(&epochs).unwrap().lines().next().unwrap().to_owned();
    fs::write(&epochs, heading + "\n").unwrap();
    let output = compare(&["c/newton", "a/newton"]);
    assert!(stdout(&output).contains("| a/newton | **Newton around sgd** |"));
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains("c/newton has no epochs: left out"), "{warning}");
    assert!(failure(&compare(&["c/newton"])).contains("no run has epochs"));
}

// Fails if a checkpoint of other tokens or another dropout is taken over, or told of by its
// tensors.
#[test]
fn a_checkpoint_knows_its_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let resumed = |flags: &[&str]| {
        let checkpoint = ["--resume", "--checkpoint", file.to_str().unwrap()];
        translate(&dir.path().join("out"), &[&SHORT[..], &checkpoint, flags].concat())
    };
    stdout(&resumed(&["--vocabulary", "60"]));
    for (flags, says) in [
        // All tokens that there are.
        (&[][..], "--vocabulary was 60, is 128"),
        (&["--vocabulary", "70"], "--vocabulary was 60, is 70"),
        (&["--vocabulary", "60", "--tokens", "subwords"], "--tokens was words, is subwords"),
        (&["--vocabulary", "60", "--dropout", "0.2"], "--dropout was 0.1, is 0.2"),
        (&["--vocabulary", "60", "--limit", "50"], "--limit was 60, is 50"),
    ] {
        let message = failure(&resumed(flags));
        assert!(message.contains(says) && !message.contains("shape"), "{message}");
    }
    // So may a default that is written out.
    stdout(&resumed(&["--vocabulary", "60", "--tokens", "words"]));
    // What is only shown, or sought by, may be another.
    stdout(&resumed(&["--vocabulary", "60", "--show", "1", "--beam", "2"]));
}
