//! Which class is a model's answer, and when it has none.
#![allow(clippy::unwrap_used)]

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
