//! What has to be compiled before an example runs.

use std::{collections::BTreeSet, process::Command};

/// The names of the crates that `cargo run --example …` chooses from.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--prefix", "none", "--edges", "normal,build"]);
    cargo.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// What few examples need and takes long to build: a decoder of pictures, a tokenizer, TLS.
const HEAVY: [&str; 3] = ["image", "tokenizers", "rustls"];

#[test]
fn an_example_waits_for_nothing_that_it_does_not_need() {
    let built = crates(&[]);
    assert!(["dfdx", "tlr", "tlr-models"].iter().all(|name| built.contains(*name)), "{built:?}");
    let spared = HEAVY.into_iter().chain(["ureq", "proptest", "trybuild"]);
    let found: Vec<_> = spared.filter(|name| built.contains(*name)).collect();
    assert_eq!(found, [""; 0]);
    assert!(!crates(&["--package", "tlr-examples"]).contains("criterion"));
}

#[test]
fn each_feature_brings_what_it_is_for_and_no_more() {
    for (feature, brought) in ["pictures", "text", "download"].into_iter().zip(HEAVY) {
        let built = crates(&["--features", feature]);
        let found: Vec<_> = HEAVY.into_iter().filter(|name| built.contains(*name)).collect();
        assert_eq!(found, [brought], "--features {feature}");
    }
}
