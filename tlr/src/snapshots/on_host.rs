//! The kernels of `window.cu`, compiled for the host by a C++ compiler and compared with exact
//! sums.
//!
//! `tests/gpu-on-host` runs the same kernels, below dfdx and the driver's calls: it tests memory,
//! launches and errors in whole trainings, and for that everything is built with the feature
//! `cuda`, which takes minutes. This test needs no feature and is one of `cargo test -p tlr`. It
//! calls each kernel by itself, with empty tensors, an empty group and subnormal numbers, and knows
//! every sum to 1e-12. (Trainings on the stand-in pass with subnormal numbers read as 0.)

#![allow(clippy::unwrap_used)]

use super::{
    launch::{kernels, KernelName, Launch, Row},
    sums::tests::{exact, values},
};
use crate::needs;
use crate::tensors::{wide, Element};
use std::{
    ffi::OsStr,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The program that runs kernels on the host.
fn program() -> Option<PathBuf> {
    if !needs::found("c++", Command::new("c++").arg("--version").output().is_ok()) {
        return None;
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/snapshots/on_host.cpp");
    let program = std::env::temp_dir().join(format!("tlr-kernels-{}", std::process::id()));
    let built = Command::new("c++")
        .args(["-std=c++17", "-O1", "-w", "-ffp-contract=off", "-rdynamic", source, "-ldl", "-o"])
        .arg(&program)
        .status();
    assert!(built.unwrap().success());
    Some(program)
}

/// A, B, W and the gradient of one tensor.
struct Tensor<E> {
    group: usize,
    /// A, B, W and the gradient, in the order of the kernels' arguments.
    of: [Vec<E>; 4],
}

/// Runs a kernel twice, which has to give the same bits. Returns the sums of each group, and A of
/// each tensor as the kernel left it.
fn run<E: Element, const N: usize>(
    program: &OsStr,
    KernelName(kernel): KernelName<N>,
    groups: usize,
    tensors: &[Tensor<E>],
) -> (Vec<[f64; N]>, Vec<Vec<E>>) {
    let mut data = vec![0; 8];
    let rows = tensors.iter().map(|tensor| {
        let [before, last, now, gradient] = tensor.of.each_ref().map(|elements| {
            let offset = data.len().next_multiple_of(8);
            data.resize(offset, 0);
            elements.iter().for_each(|element| element.append(&mut data));
            offset as u64
        });
        Row { group: tensor.group, before, last, now, gradient, len: tensor.of[0].len() }
    });
    let rows: Vec<_> = rows.collect();
    let launch = Launch::new(rows.clone(), groups).unwrap().unwrap();
    let [groups_in_all, bytes] = [launch.groups, data.len()].map(|number| number as u64);
    let size = [launch.tensors, launch.blocks.into(), groups_in_all, bytes];
    let words = [&size[..], &launch.table].concat();
    let mut input: Vec<_> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    input.extend(data);

    let mut command = Command::new(program);
    command.args([kernel, &N.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{kernel}");

    let (sums, data) = output.stdout.split_at(2 * 8 * N * groups);
    let (sums, _) = sums.as_chunks::<8>();
    let numbers: Vec<_> = sums.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let (sums, again) = numbers.as_chunks::<N>().0.split_at(groups);
    // Nothing is written for a group without a block.
    let written = |group, sums: &[f64; N]| if launch.has_blocks(group) { *sums } else { [0.0; N] };
    let of_groups = |sums: &[[f64; N]]| {
        sums.iter().enumerate().map(|(group, sums)| written(group, sums)).collect::<Vec<_>>()
    };
    let sums = of_groups(sums);
    assert_eq!(sums, of_groups(again));
    let size = size_of::<E>();
    let before = |row: &Row| {
        let bytes = &data[row.before as usize..][..row.len * size];
        bytes.chunks(size).map(|bytes| E::from_bytes(bytes).unwrap()).collect()
    };
    (sums, rows.iter().map(before).collect())
}

/// The exact sum over all elements of a group of what `term` makes of A, B, W and the gradient.
fn expected<E: Element>(
    tensors: &[Tensor<E>],
    group: usize,
    term: impl Fn([f64; 4]) -> f64,
) -> f64 {
    let own = tensors.iter().filter(|tensor| tensor.group == group);
    exact(own.flat_map(|tensor| {
        let [before, last, now, gradient] = &tensor.of;
        let pairs = before.iter().zip(last).zip(now.iter().zip(gradient));
        pairs.map(|((a, b), (w, g))| term([*a, *b, *w, *g].map(wide))).collect::<Vec<_>>()
    }))
}

/// Tensors of one element, of a whole block, of more than two and of none, in three groups of which
/// one is empty. Fails if the table has another layout than the kernels read, if an element is left
/// out or counted twice, or if a kernel writes where it should not.
fn check<E: Element>(program: &OsStr, of: fn(f32) -> E) {
    let kernels = kernels::<E>().unwrap();
    let of_len = |(seed, (group, len)): (u64, (usize, usize))| Tensor {
        group,
        of: [1, 2, 3, 4].map(|n| values(len, 10 * seed + n).into_iter().map(of).collect()),
    };
    let sizes = [(2, 5000), (0, 4096), (2, 1), (2, 0), (0, 8193), (2, 300)];
    let tensors: Vec<_> = (1..).zip(sizes).map(of_len).collect();
    let close = |sum: f64, expected: f64, size: f64| {
        assert!((sum - expected).abs() <= 1e-12 * size, "{sum} for {expected}");
    };
    let squares =
        |group, of: fn([f64; 4]) -> f64| expected(&tensors, group, |elements| of(elements).powi(2));
    let (shifted, after_shift) = run(program, kernels.shift, 3, &tensors);
    let (squared, after_square) = run(program, kernels.square, 3, &tensors);
    let (slopes, after_slope) = run(program, kernels.slope, 3, &tensors);
    for group in 0..3 {
        let own = squares(group, |[_, b, w, _]| b - w);
        let then = squares(group, |[a, b, ..]| a - b);
        let norm = squares(group, |[_, b, ..]| b);
        let gradient = squares(group, |[.., g]| g);
        let across = expected(&tensors, group, |[a, b, w, _]| (a - b) * (b - w));
        let along = expected(&tensors, group, |[_, b, w, g]| g * (w - b));
        close(shifted[group][0], across, (then * own).sqrt());
        close(shifted[group][1], own, own);
        close(squared[group][0], norm, norm);
        close(slopes[group][0], along, (gradient * own).sqrt());
        close(slopes[group][1], own, own);
        close(slopes[group][2], gradient, gradient);
        close(slopes[group][3], norm, norm);
    }
    for (index, tensor) in tensors.iter().enumerate() {
        let [before, _, now, _] = &tensor.of;
        assert!(after_shift[index] == *now);
        assert!(after_square[index] == *before && after_slope[index] == *before);
    }
}

#[test]
fn kernels_take_the_sums_of_the_host() {
    let Some(program) = program() else { return };
    check::<f32>(program.as_os_str(), |x| x);
    check::<f64>(program.as_os_str(), |x| f64::from(x) * (1.0 + 1e-9));
    // Some of these are subnormal.
    #[cfg(feature = "f16")]
    check::<half::f16>(program.as_os_str(), |x| half::f16::from_f32(x * x.abs().powi(9)));
    std::fs::remove_file(program).unwrap();
}
