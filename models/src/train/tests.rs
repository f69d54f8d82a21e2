//! Which class is a model's answer, when it has none, and which labels are classes.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::data::digits;
use dfdx::prelude::{BuildModule, TensorFrom};

#[test]
fn the_largest_value_is_the_answer() {
    assert_eq!(argmax(&[0.5, 2.0, -1.0]), Some(1));
    assert_eq!(argmax(&[-3.0, -1.0, -1.0]), Some(1));
    assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), Some(0));
    assert_eq!(argmax(&[]), None);
    for at in 0..3 {
        let mut values = [0.0, 1.0, 2.0];
        values[at] = f32::NAN;
        assert_eq!(argmax(&values), None, "{at}");
    }
}

// Fails if a model of NaN weights has the accuracy of one that guesses class 0.
#[test]
fn a_model_of_nan_is_right_nowhere() {
    let data = digits::draw(0, 20, 50).unwrap();
    let source = InMemory::new(&data, 20, 0, None).unwrap();
    let device = Cpu::default();
    let mut model: Mlp<784, 4, 10, f32, Cpu> = BuildModule::build(&device);
    model.head.bias = device.tensor([f32::NAN; 10]);
    let (loss, accuracy) = test(&model, &device, &source).unwrap();
    assert!(loss.is_nan() && accuracy == 0.0, "{loss} {accuracy}");
}

/// One image to train on and one to test on, with these labels.
struct Labelled {
    train: usize,
    test: usize,
    classes: usize,
}

impl Source for Labelled {
    fn shape(&self) -> [usize; 3] {
        [1, 28, 28]
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn train_len(&self) -> usize {
        1
    }

    // One more than is shown.
    fn test_len(&self) -> usize {
        2
    }

    fn batches_per_epoch(&self) -> usize {
        1
    }

    fn settings(&self) -> Facts {
        Facts::default()
    }

    fn data(&self) -> Result<Facts, TrainError> {
        Ok(Facts::default())
    }

    fn epoch(&self, _: usize, skip: usize, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        if skip > 0 {
            return Ok(());
        }
        visit(&[0.5; 784], &[self.train])
    }

    fn test(&self, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        visit(&[0.5; 784], &[self.test])
    }
}

// Fails if such an image has a loss of 0 and moves nothing, so that nobody learns of it. The model
// has ten classes, whatever the source says.
#[test]
fn a_label_that_is_no_class_ends_the_run() {
    type Small = Mlp<784, 4, 10, f32, Cpu>;
    let run = |source: Labelled| {
        let options = Options { epochs: 1, batch_size: 1, ..Options::default() };
        train::<Small>(&source, &options, &Persistence::default(), &mut |_| ())
    };
    for (train, test, classes, bad) in [(10, 0, 10, 10), (0, 10, 10, 10), (4, 0, 4, 4)] {
        let error = run(Labelled { train, test, classes }).unwrap_err();
        let TrainError::Label { label, classes: of } = error else { panic!("{error}") };
        assert_eq!((label, of), (bad, classes));
    }
    assert_eq!(run(Labelled { train: 9, test: 9, classes: 10 }).unwrap().losses.len(), 1);
    let error = one_hot::<Small>(&Cpu::default(), &[9, 10]).unwrap_err();
    assert!(matches!(error, TrainError::Label { label: 10, classes: 10 }), "{error}");
}

// Fails if a source that says a wrong number of images has an accuracy that none can have.
#[test]
fn the_images_that_are_shown_count() {
    let device = Cpu::default();
    let mut model: Mlp<784, 4, 10, f32, Cpu> = BuildModule::build(&device);
    model.head.bias = device.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1e3]);
    let source = Labelled { train: 9, test: 9, classes: 10 };
    assert_eq!(test(&model, &device, &source).unwrap(), (0.0, 1.0));
}
