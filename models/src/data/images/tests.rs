//! Sets of images: their sizes, their scaling, and the bits of batches.
#![allow(clippy::unwrap_used)]
use super::*;

/// Three images of 2x3 pixels: 0..6, 6..12, 12..18.
fn three() -> Images {
    Images::new((0..18).collect(), vec![2, 0, 1], [1, 2, 3], 3).unwrap()
}

#[test]
fn accessors_return_what_was_stored() {
    let images = three();
    assert_eq!(images.len(), 3);
    assert!(!images.is_empty());
    assert_eq!((images.rows(), images.columns()), (2, 3));
    assert_eq!(images.classes(), 3);
    assert_eq!(images.pixels_of(1).unwrap(), [6, 7, 8, 9, 10, 11]);
    assert_eq!(images.label(0).unwrap(), 2);
}

#[test]
fn a_wrong_number_of_pixels_is_refused() {
    for length in [0, 17, 19] {
        let error = Images::new(vec![0; length], vec![0; 3], [1, 2, 3], 3).unwrap_err();
        assert!(matches!(error, DataError::Length { expected: 18, found, .. } if found == length));
    }
}

#[test]
fn an_overflowing_size_is_refused() {
    let error = Images::new(vec![0; 4], vec![0; 4], [1, usize::MAX, 2], 1).unwrap_err();
    assert!(matches!(error, DataError::Length { .. }));
}

#[test]
fn a_label_equal_to_the_number_of_classes_is_refused() {
    let error = Images::new(vec![0; 3], vec![0, 1, 2], [1, 1, 1], 2).unwrap_err();
    assert!(matches!(error, DataError::Label { index: 2, label: 2, classes: 2 }));
}

#[test]
fn zero_sizes_are_refused() {
    for (labels, shape, classes) in [
        (0, [1, 1, 1], 1),
        (1, [0, 1, 1], 1),
        (1, [1, 0, 1], 1),
        (1, [1, 1, 0], 1),
        (1, [1, 1, 1], 0),
    ] {
        let pixels = vec![0; labels * shape.iter().product::<usize>()];
        let error = Images::new(pixels, vec![0; labels], shape, classes).unwrap_err();
        assert!(matches!(error, DataError::Zero { .. }), "{error}");
    }
}

#[test]
fn take_keeps_the_first_images() {
    let two = three().take(2).unwrap();
    assert_eq!(two.len(), 2);
    assert_eq!(two.pixels_of(1).unwrap(), three().pixels_of(1).unwrap());
    assert_eq!(two, Images::new((0..12).collect(), vec![2, 0], [1, 2, 3], 3).unwrap());
    assert_eq!(three().take(100).unwrap(), three());
    assert!(matches!(three().take(0), Err(DataError::Zero { .. })));
}

#[test]
fn a_batch_is_scaled_in_the_order_asked_for() {
    let images = Images::new(vec![0, 200, 0, 200], vec![1, 0], [1, 1, 2], 2).unwrap();
    let other = Images::new(vec![100, 50], vec![0], [1, 1, 2], 2).unwrap();
    let (mut pixels, mut labels) = (vec![9.0], vec![9]);
    images.write_batch(&[1, 0], &images.scaling(), &mut pixels, &mut labels).unwrap();
    assert_eq!((&*pixels, &*labels), (&[-1.0, 1.0, -1.0, 1.0][..], &[0, 1][..]));
    // Others by the same mean, 100, and deviation, 100.
    other.write_batch(&[0], &images.scaling(), &mut pixels, &mut labels).unwrap();
    assert_eq!((&*pixels, &*labels), (&[0.0, -0.5][..], &[0][..]));
}

#[test]
fn scaled_pixels_have_mean_0_and_deviation_1() {
    let images = three();
    let scaled: Vec<f64> =
        (0..18).map(|byte| f64::from(images.scaling().of(0, byte).unwrap())).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / 18.0;
    assert!(mean(&scaled).abs() < 1e-7);
    let squares: Vec<f64> = scaled.iter().map(|value| value * value).collect();
    assert!((mean(&squares) - 1.0).abs() < 1e-6);
    let grey = Images::new(vec![7; 4], vec![0], [1, 2, 2], 1).unwrap();
    assert_eq!(grey.scaling().of(0, 7).unwrap(), 0.0);
}

/// Two channels of 1x2 pixels, two images; means 100 and 10, deviations 100 and 10.
fn two_channels() -> Images {
    Images::new(vec![0, 200, 0, 20, 200, 0, 20, 0], vec![1, 0], [2, 1, 2], 2).unwrap()
}

#[test]
fn each_channel_has_its_own_scaling_and_its_own_plane() {
    let images = two_channels();
    assert_eq!((images.channels(), images.shape(), images.size()), (2, [2, 1, 2], 4));
    assert_eq!(images.pixels_of(1).unwrap(), [200, 0, 20, 0]);
    let scaling = images.scaling();
    assert_eq!(scaling.channels(), 2);
    assert_eq!((scaling.of(0, 20).unwrap(), scaling.of(1, 20).unwrap()), (-0.8, 1.0));
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    images.write_batch(&[1, 0], &scaling, &mut pixels, &mut labels).unwrap();
    assert_eq!(pixels, [1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0]);
    assert_eq!(images.take(1).unwrap().pixels_of(0).unwrap(), [0, 200, 0, 20]);
}

/// Guards the figures made with grey images before there were channels: the bits of the values
/// that 18 bytes 0..18 are scaled to.
#[test]
fn the_scaling_of_grey_images_is_pinned() {
    let bits: Vec<u32> = [0, 9, 17, 255]
        .iter()
        .map(|&byte| three().scaling().of(0, byte).unwrap().to_bits())
        .collect();
    assert_eq!(bits, [0xbfd1b5a7, 0x3dc55fac, 0x3fd1b5a7, 0x423e0c9f]);
}

#[test]
fn a_scaling_for_other_channels_is_refused() {
    let (mut pixels, mut labels) = (vec![9.0], vec![9]);
    let error =
        three().write_batch(&[0], &two_channels().scaling(), &mut pixels, &mut labels).unwrap_err();
    assert!(matches!(error, DataError::Channels { expected: 1, found: 2 }));
    assert_eq!((pixels, labels), (vec![9.0], vec![9]));
}

#[test]
fn a_batch_with_a_bad_index_changes_nothing() {
    let (mut pixels, mut labels) = (vec![9.0], vec![9]);
    let error =
        three().write_batch(&[0, 3], &three().scaling(), &mut pixels, &mut labels).unwrap_err();
    assert!(matches!(error, DataError::Index { index: 3, len: 3 }));
    assert_eq!((pixels, labels), (vec![9.0], vec![9]));
}

#[test]
fn the_halves_of_a_dataset_must_agree() {
    let of = |shape: [usize; 3], classes| {
        Images::new(vec![0; shape.iter().product()], vec![0], shape, classes).unwrap()
    };
    assert!(Dataset::new(of([1, 2, 3], 4), of([1, 2, 3], 4)).is_ok());
    for (other, name) in [
        (of([3, 2, 3], 4), "channels"),
        (of([1, 3, 3], 4), "rows"),
        (of([1, 2, 2], 4), "columns"),
        (of([1, 2, 3], 5), "classes"),
    ] {
        let error = Dataset::new(of([1, 2, 3], 4), other).unwrap_err();
        assert!(matches!(error, DataError::Split { what, .. } if what == name));
    }
}
