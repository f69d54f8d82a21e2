//! What the examples say: before a run, on the way, of their flags, and of flags that make no
//! sense.

use std::{
    path::Path,
    process::{Command, Output},
};
use support::examples::example;

fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(example(program));
    for variable in ["TLR_DATA", "TLR_CIFAR", "TLR_IMAGENET", "TLR_MULTI30K"] {
        command.env_remove(variable);
    }
    command.args(args).output().expect("cargo builds the examples for `cargo test`")
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Of a run in the folder `out`.
fn said(program: &str, out: &Path, args: &[&str]) -> (String, String) {
    let output = run(program, &[args, &["--out", out.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", words(&output.stderr));
    (words(&output.stdout), words(&output.stderr))
}

const SHORT: [&str; 8] =
    ["--limit", "400", "--batch-size", "20", "--epochs", "3", "--threads", "1"];

// Fails if a figure is another's, or if what is said comes after what it is about.
#[test]
fn a_run_begins_with_what_it_is_about() {
    let out = tempfile::tempdir().unwrap();
    let place = out.path().display();
    let begins = |program: &str, args: &[&str], lines: [&str; 3]| {
        let (text, _) = said(program, out.path(), args);
        let expected = format!("{}\nResults in {place}\n\n", lines.join("\n"));
        assert!(text.starts_with(&expected), "{text}");
    };
    let digits = "Drawn digits: 400 images to train on and 400 to test on, \
                  grey, 28 by 28 pixels, in 10 classes";
    begins(
        "mnist",
        &SHORT,
        [
            digits,
            "Perceptron 784-1000-10: 795,010 parameters, 1 thread",
            "3 epochs of 20 steps, each with 20 examples; one rate, looked at every 20 steps",
        ],
    );
    let other = ["--epochs", "1", "--batch-size", "5", "--threads", "2", "--mode", "per-layer"];
    begins(
        "mnist",
        &[&SHORT[..], &other].concat(),
        [
            digits,
            "Perceptron 784-1000-10: 795,010 parameters, 2 threads",
            "1 epoch of 80 steps, each with 5 examples; a rate a layer, looked at every 20 steps",
        ],
    );
    // More than there are.
    begins(
        "mnist",
        &[&SHORT[..], &["--batch-size", "1e6", "--epochs", "1"]].concat(),
        [
            digits,
            "Perceptron 784-1000-10: 795,010 parameters, 1 thread",
            "1 epoch of 1 step, each with 400 examples; one rate, looked at every 20 steps",
        ],
    );
    let constant = ["--rule", "constant", "--rate", "0.1"];
    begins(
        "mnist",
        &[&SHORT[..], &constant].concat(),
        [
            digits,
            "Perceptron 784-1000-10: 795,010 parameters, 1 thread",
            "3 epochs of 20 steps, each with 20 examples; a constant rate of 0.1",
        ],
    );
}

#[test]
fn other_examples_begin_so_too() {
    let out = tempfile::tempdir().unwrap();
    let few = ["--limit", "20", "--batch-size", "10", "--epochs", "1"];
    let (text, _) = said("cifar", out.path(), &few);
    for part in [
        "Drawn shapes, WRN-10-1: 20 images to train on and 20 to test on, \
         coloured, 32 by 32 pixels, in 10 classes\n",
        "Wide residual network WRN-10-1: 77,850 parameters, ",
        "1 epoch of 2 steps, each with 10 examples",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let (text, _) = said("translate", out.path(), &few);
    for part in [
        "A made language, 20 pairs: 20 to train on, 20 to watch training by, 20 to test on; ",
        "Transformer: ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Fails if pictures that an earlier run has drawn are among them.
    said("imagenet", out.path(), &["--limit", "12", "--epochs", "1"]);
    let (text, _) = said("imagenet", out.path(), &["--limit", "8", "--epochs", "1"]);
    for part in [
        "Drawn pictures, ResNet-50: 8 images to train on and 8 to test on, \
         coloured, 32 by 32 pixels, in 4 classes\n",
        "ResNet-50: 23,528,522 parameters, ",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

// Fails if an estimate is missing, or counts epochs that are done.
#[test]
fn the_time_left_is_told_after_each_epoch() {
    let out = tempfile::tempdir().unwrap();
    let (text, errors) = said("mnist", out.path(), &SHORT);
    let lines: Vec<&str> = text.lines().collect();
    let heading = lines.iter().position(|line| line.ends_with("  time left")).unwrap();
    let left = |epoch: usize| lines[heading + epoch].split("  ").last().unwrap().trim();
    // Of less than a second.
    assert!(left(1).ends_with('s') && left(1).starts_with(|c: char| c.is_ascii_digit()), "{text}");
    assert_eq!(left(3), "-", "{text}");
    assert_eq!(errors, "");
}

#[test]
fn quiet_leaves_the_last_line() {
    let out = tempfile::tempdir().unwrap();
    let quiet =
        |args: &[&str]| said("mnist", out.path(), &[&SHORT[..], &["--quiet"], args].concat());
    let (text, errors) = quiet(&[]);
    assert!(text.starts_with("Drawn digits: learned, ") && text.lines().count() == 1, "{text}");
    assert_eq!(errors, "");
    let (text, errors) = quiet(&["--json"]);
    assert!(text.starts_with('{') && text.lines().count() == 1, "{text}");
    assert_eq!(errors, "");
    // Too short to tell, more threads than are of use, and from a checkpoint: nothing bad.
    let checkpoint = out.path().join("run.safetensors");
    let checkpoint = ["--checkpoint", checkpoint.to_str().unwrap(), "--resume"];
    let short = ["--epochs", "1", "--batch-size", "100", "--threads", "1000"];
    for _ in 0..2 {
        let (text, errors) = quiet(&[&short[..], &checkpoint].concat());
        assert!(text.contains("too short to tell") && text.lines().count() == 1, "{text}");
        assert_eq!(errors, "");
    }
    // What goes wrong is told.
    let output = run("mnist", &[&SHORT[..], &["--quiet", "--damping", "2"]].concat());
    assert!(!output.status.success() && words(&output.stderr).contains("(0, 1]"));
    let text = Command::new(example("translate"))
        .env_remove("TLR_MULTI30K")
        .args(["--limit", "40", "--epochs", "1", "--quiet", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    assert_eq!(words(&text.stdout).lines().count(), 1);
}

const PROGRAMS: [&str; 7] =
    ["mnist", "cifar", "imagenet", "translate", "sweep", "predict", "compare"];

// Fails if help runs over the edge of a narrow terminal, lacks its groups, or shows a number as
// nobody writes it.
#[test]
fn help_is_for_people() {
    for program in PROGRAMS {
        for flag in ["-h", "--help"] {
            for width in [40, 100] {
                let mut command = Command::new(example(program));
                let output = command.arg(flag).env("COLUMNS", width.to_string()).output().unwrap();
                let text = words(&output.stdout);
                assert!(output.status.success());
                for line in text.lines() {
                    // Words are not cut.
                    let cut = line.trim().contains(' ') && line.chars().count() > width;
                    assert!(!cut, "{program} {flag} at {width}: {line}");
                }
                assert!(text.contains("Examples:"), "{text}");
                assert!(!text.contains("0.000001"), "{text}");
                let headings = ["Data:", "Training:", "Learned rate:", "Output:"];
                for heading in
                    headings.iter().filter(|_| !["predict", "compare"].contains(&program))
                {
                    assert!(text.contains(&format!("\n{heading}\n")), "{program}: {heading}");
                }
            }
        }
    }
}

#[test]
fn every_program_tells_its_version() {
    for program in PROGRAMS.iter().chain(&["soak"]) {
        let output = run(program, &["--version"]);
        let expected = format!("{program} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(words(&output.stdout), expected);
    }
}

// Fails if a sign makes a flag unknown, or if a number is refused without its range.
#[test]
fn numbers_out_of_range_are_refused_as_numbers() {
    let out = tempfile::tempdir().unwrap();
    let counts = [
        ("mnist", "--epochs", 1),
        ("mnist", "--batch-size", 1),
        ("mnist", "--limit", 1),
        ("mnist", "--seed", 0),
        ("mnist", "--threads", 1),
        ("mnist", "--sketch", 1),
        ("cifar", "--depth", 1),
        ("imagenet", "--side", 1),
        ("imagenet", "--decoders", 1),
        ("translate", "--beam", 1),
        ("translate", "--show", 0),
        ("sweep", "--epochs", 1),
        ("sweep", "--batch-size", 1),
        ("sweep", "--jobs", 1),
        ("predict", "--count", 1),
        ("soak", "--epochs", 1),
        ("soak", "--every", 2),
        ("soak", "--patience", 1),
    ];
    let refused = |program: &str, flag: &str, value: &str| {
        let mut args = vec![flag, value];
        if program != "predict" {
            args.extend(["--out", out.path().to_str().unwrap()]);
        }
        let output = run(program, &args);
        let text = words(&output.stderr);
        assert!(!output.status.success(), "{program} {flag} {value}");
        assert!(!text.contains("unexpected argument") && !text.contains("panicked"), "{text}");
        text
    };
    for (program, flag, least) in counts {
        let below = (i64::from(least) - 1).to_string();
        for value in [&*below, "-1", "-7", "1.5", "many", "--json", "nan", "1e400", "1e19"] {
            let text = refused(program, flag, value);
            let says = format!("it takes a whole number of at least {least}");
            assert!(
                text.contains(&says) && text.contains(flag),
                "{program} {flag} {value}: {text}"
            );
            // 1e19 is a whole number: what is wrong with it has to be said, and only there.
            let is_large = ["1e400", "1e19"].contains(&value);
            assert_eq!(text.contains("2^"), is_large, "{program} {flag} {value}: {text}");
        }
    }
    for (program, value) in [("mnist", "-1e-3"), ("mnist", "-inf"), ("sweep", "-1,1e-3")] {
        let text = refused(program, "--rate", value);
        assert!(text.contains("must be in [1e-30, 1e30]"), "{program} {value}: {text}");
    }
    for (program, flag) in
        [("mnist", "--damping"), ("mnist", "--window-fraction"), ("sweep", "--damping")]
    {
        assert!(refused(program, flag, "-0.5").contains("must be in (0, 1]"), "{program} {flag}");
    }
    assert!(refused("translate", "--dropout", "-0.1").contains("dropout"));
    assert!(refused("mnist", "--meta-rate", "-1").contains("above 0"));
    let text = refused("mnist", "--rate", "--json");
    assert!(text.contains("it takes a number, such as 0.01 or 1e-3"), "{text}");
}

#[test]
fn more_threads_than_cores_are_of_no_use() {
    let out = tempfile::tempdir().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let most = 4 * cores;
    for asked in ["1000", "1000000"] {
        let args = [&SHORT[..], &["--epochs", "1", "--threads", asked]].concat();
        let (text, errors) = said("mnist", out.path(), &args);
        assert!(text.contains(&format!("parameters, {most} threads\n")), "{text}");
        let note =
            format!("note: --threads {asked} is more than there is use for with {cores} core");
        assert!(errors.starts_with(&note), "{errors}");
    }
    let few = ["--limit", "40", "--epochs", "1", "--rate", "1", "--jobs", "1000000"];
    let (_, errors) = said("sweep", &out.path().join("sweep"), &few);
    assert!(errors.starts_with("note: --jobs 1000000 "), "{errors}");
}

/// `cargo test` builds the programs without CUDA.
#[test]
fn a_device_that_is_not_there_is_refused_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for program in ["mnist", "cifar", "sweep"] {
        let output = run(program, &["--device", "cuda", "--out", out.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{program}");
        let says = "error: --device cuda: this program was built without CUDA; \
                    `cargo run --release --features cuda --example …` builds it with CUDA\n";
        assert_eq!(words(&output.stderr), says, "{program}");
        assert!(!out.exists(), "{program} made a folder");
    }
}

/// As above. Fails if f16 is asked for and f32 is used, or if the processor is told to take it.
#[test]
fn a_precision_that_the_processor_lacks_is_refused_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for program in ["mnist", "cifar", "imagenet", "translate", "sweep"] {
        for device in ["cpu", "cuda", "auto"] {
            let flags = ["--precision", "f16", "--device", device, "--out", out.to_str().unwrap()];
            let output = run(program, &flags);
            assert_eq!(output.status.code(), Some(1), "{program}");
            let says = "error: --precision f16 is for a GPU, and this program was built without \
                        CUDA; `cargo run --release --features cuda --example … -- --device cuda \
                        --precision f16` builds it with CUDA and uses one\n";
            assert_eq!(words(&output.stderr), says, "{program}");
            assert!(!out.exists(), "{program} made a folder");
        }
    }
}

/// Fails if a checkpoint is of the device that it was written on, or if `auto` is no CPU here.
#[test]
fn a_run_goes_on_on_another_device() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.safetensors");
    let saved = ["--checkpoint", file.to_str().unwrap()];
    let on = |args: &[&str]| said("mnist", dir.path(), &[&SHORT[..], &saved, args].concat());
    on(&["--epochs", "1", "--schedule", "constant"]);
    let more = ["--epochs", "2", "--schedule", "constant", "--resume", "--device", "auto"];
    let (_, text) = on(&more);
    assert!(text.contains("resumed after step 20"), "{text}");
}

/// Without its data neither run of `soak` can train. Fails if the failure of the first one is
/// overlooked: the other one would be disturbed and started again for ever.
#[test]
#[cfg(target_os = "linux")]
fn soak_ends_with_a_run_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("none"), dir.path().join("out"));
    let flags = ["--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = run("soak", &flags);
    let text = words(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("the undisturbed run has failed: exit status"), "{text}");
}
