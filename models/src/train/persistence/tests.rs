//! Which saved states are refused, and which weights are kept.
#![allow(clippy::unwrap_used)]

use super::*;
use dfdx::{nn::modules::Linear, prelude::*};

fn epoch(number: usize, test_loss: f64) -> Epoch {
    Epoch {
        epoch: number,
        train_loss: 1.0,
        test_loss,
        test_accuracy: 0.0,
        seconds: 0.0,
        rates: Vec::new(),
        schedule: 1.0,
        rollbacks: 0,
    }
}

// Fails if a state that was cut or forged is resumed: curves would lack steps without a word,
// or the run would draw random numbers for ever.
#[test]
fn a_state_that_contradicts_itself_is_refused() {
    let of = |epochs: usize, losses: usize, schedule: usize, drawn: u64| {
        let new = Progress::new(&Options::default(), &Facts::default(), Facts::default(), 3);
        Progress {
            epochs: (0..epochs).map(|_| epoch(1, 1.0)).collect(),
            losses: vec![1.0; losses],
            schedule: vec![1.0; schedule],
            decided: vec![2; losses],
            drawn: vec![0, drawn],
            ..new
        }
    };
    let told = |decided: Vec<usize>| Progress { decided, ..of(0, 2, 2, 0) }.contradiction();
    assert_eq!(told(vec![0, 3]), None);
    assert!(told(vec![0]).is_some_and(|what| what.contains("losses")));
    assert!(told(vec![3, 2]).is_some_and(|what| what.contains("decisions are gone")));
    let of = |epochs, losses, schedule, drawn| of(epochs, losses, schedule, drawn).contradiction();
    for good in [(0, 0, 0, 0), (1, 3, 3, 7), (1, 6, 6, MOST_DRAWN), (0, 2, 2, 0)] {
        assert_eq!(of(good.0, good.1, good.2, good.3), None);
    }
    for (bad, why) in [
        ((1, 3, 2, 0), "losses"),
        ((1, 2, 3, 0), "losses"),
        ((2, 5, 5, 0), "more epochs"),
        ((1, 7, 7, 0), "more steps"),
        ((1, 3, 3, u64::MAX), "random"),
    ] {
        assert!(of(bad.0, bad.1, bad.2, bad.3).is_some_and(|what| what.contains(why)), "{why}");
    }
}

type Model = Linear<1, 1, f32, Cpu>;

/// The epoch whose weights are in `path` after each of these losses, which follow on those of
/// `before`.
fn kept(path: &Path, before: &[f64], losses: &[f64]) -> Vec<String> {
    let persistence = Persistence { best: Some(path), ..Default::default() };
    let model = Model::build(&Cpu::default());
    let mut epochs: Vec<_> =
        before.iter().enumerate().map(|(index, loss)| epoch(index + 1, *loss)).collect();
    let mut keep = |loss: &f64| {
        let epoch = epoch(epochs.len() + 1, *loss);
        persistence.keep_best(&model, &epoch, &epochs, &[]).unwrap();
        epochs.push(epoch);
        weights::note(&std::fs::read(path).unwrap(), "epoch").unwrap().unwrap()
    };
    losses.iter().map(&mut keep).collect()
}

// Fails if the weights of an epoch whose loss is no number take the place of better ones, or
// keep it.
#[test]
fn the_best_weights_are_those_of_the_least_loss() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("best.safetensors");
    let losses = [f64::NAN, 3.0, f64::NAN, 4.0, 2.0, f64::NAN, 2.5];
    assert_eq!(kept(&path, &[], &losses), ["1", "2", "2", "2", "5", "5", "5"]);
    // A run that goes on there compares with what is there.
    assert_eq!(kept(&path, &losses, &[2.1, 1.9, 2.0]), ["5", "9", "9"]);
}

// Fails if weights have to be better than some that are not in this file: an earlier part of
// the run has left those elsewhere, or they could not be written.
#[test]
fn only_weights_of_this_run_in_this_file_are_compared_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("best.safetensors");
    let losses = [0.5, 0.3, 0.4];
    assert_eq!(kept(&path, &[0.2], &losses), ["2", "3", "3"]);
    // What another run has left there is not compared with, nor what is no weights.
    assert_eq!(kept(&path, &[], &[0.6, 0.7]), ["1", "1"]);
    std::fs::write(&path, "no weights").unwrap();
    assert_eq!(kept(&path, &[0.2], &losses), ["2", "3", "3"]);
}
