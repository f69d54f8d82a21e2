//! Tests that need what not every machine has.

use support::needs::{asks_for, found};

// Fails if a list is not taken word by word, or if 1 is not all of them.
#[test]
fn a_list_asks_for_its_words() {
    assert!(asks_for("mnist", "valgrind mnist") && asks_for("valgrind", "valgrind mnist"));
    assert!(asks_for("mnist", "1") && !asks_for("mnist", "") && !asks_for("mnist", "emnist 1"));
}

const LACKS: &str = "TLR_TEST_LACKS";

#[test]
#[ignore = "run by another, in a process of its own"]
fn in_a_process_that_lacks_it() {
    assert!(!found("unicorn", std::env::var(LACKS).is_err()));
}

// Fails if a test passes that lacks what is asked for, or if one that passes does not say so.
#[test]
fn what_is_asked_for_has_to_be_there() {
    let run = |list: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "needs::in_a_process_that_lacks_it", "--ignored"]);
        let output = command.env(LACKS, "1").env("TLR_ALL", list).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for list in ["", "mnist"] {
        let (passed, said) = run(list);
        let told = "left out: needs::in_a_process_that_lacks_it, because there is no unicorn";
        assert!(passed && said.contains(told), "{said}");
    }
    assert!(!run("1").0 && !run("mnist unicorn").0);
}
