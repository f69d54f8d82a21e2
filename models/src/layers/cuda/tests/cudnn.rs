//! Convolutions by cuDNN. The tests beside this file use it too, if it is there.

use super::{
    super::{
        convolve::{ASKED, DONE},
        cudnn::{Library, Missing},
    },
    images::{convolution, convolutions},
    *,
};

/// How many of the passes that `work` needs are done by cuDNN.
fn done(work: impl FnOnce()) -> usize {
    let before = DONE.get();
    work();
    DONE.get() - before
}

// Fails where a pass is not handed to cuDNN, or one that it cannot do is; and where no cuDNN is
// found.
#[test]
#[ignore = "gpu"]
fn gpu_cudnn_does_all_passes() {
    // There are three convolutions, one without a gradient of the images, and each is done twice.
    let passes = 2 * (3 + 3 + 2);
    assert_eq!(done(|| convolution::<f32, 4, 6, 3, 2>((2, 9, 7), (2, 2, 2))), passes);
    assert_eq!(done(|| convolution::<f32, 6, 4, 1, 1>((3, 5, 4), (1, 0, 1))), passes);
    assert_eq!(done(|| convolution::<f64, 4, 6, 3, 2>((2, 9, 7), (2, 2, 2))), 0);
}

// Half precision is handed to it, too.
#[test]
#[ignore = "gpu"]
#[cfg(feature = "f16")]
fn gpu_cudnn_in_half_precision() {
    let size = (2, 5, 4);
    let options = crate::layers::Conv2dOptions::default();
    let convolved = || {
        super::images::convolved::<half::f16, Cuda, 4, 6, 3, 2>(
            &Cuda::default(),
            size,
            options,
            true,
        );
    };
    assert_eq!(done(convolved), 3);
}

// What the tests beside this file check, by our own kernels.
#[test]
#[ignore = "gpu"]
fn gpu_own_kernels_in_the_place_of_cudnn() {
    ASKED.set(false);
    assert_eq!(done(convolutions::<f32>), 0);
    ASKED.set(true);
}

// A program that finds no library says which one it has looked for.
#[test]
#[ignore = "gpu"]
fn gpu_no_library_of_the_name() {
    let missing = Library::open(&["libnothing-of-this-name.so"]).unwrap_err();
    assert!(matches!(missing, Missing::Library(_)));
    assert!(missing.to_string().contains("libnothing-of-this-name.so"), "{missing}");
}

// A library without cuDNN's functions is none.
#[test]
#[ignore = "gpu"]
fn gpu_another_library_is_not_cudnn() {
    let missing = Library::open(&["libc.so.6"]).unwrap_err();
    assert!(missing.to_string().contains("cudnnGetVersion"), "{missing}");
}
