//! Files of CIFAR, whole and damaged.
#![allow(clippy::unwrap_used)]
use std::io::Write;

use flate2::{write::GzEncoder, Compression};
use tempfile::TempDir;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Records with these label bytes; pixel `p` of record `r` of a file `f` is f + r + p, wrapped.
fn records<const N: usize>(file: usize, labels: &[[u8; N]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (record, labels) in labels.iter().enumerate() {
        bytes.extend(labels);
        bytes.extend((0..PIXELS).map(|pixel| (file + record + pixel) as u8));
    }
    bytes
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// CIFAR-10 whose one training file holds `train`.
fn cifar10(train: Vec<u8>) -> Result<Cifar, DataError> {
    let test = records(0, &[[1]]);
    let dir = folder(&[("data_batch_1.bin", train), ("test_batch.bin", test)]);
    load10(dir.path())
}

#[test]
fn the_training_files_that_are_there_follow_one_another() {
    let dir = folder(&[
        ("data_batch_4.bin", records(40, &[[4], [5]])),
        ("data_batch_2.bin.gz", gzip(&records(20, &[[9]]))),
        ("test_batch.bin.gz", gzip(&records(0, &[[0], [1], [2]]))),
        ("data_batch_6.bin", records(60, &[[6]])),
    ]);
    let Cifar { data, short } = load10(dir.path()).unwrap();
    let lacking: Vec<_> = short
        .iter()
        .map(|file| {
            let name = file.path.file_name().unwrap().to_str().unwrap();
            (name, file.records, file.expected)
        })
        .collect();
    let expected = [
        ("data_batch_1.bin", 0, 10_000),
        ("data_batch_3.bin", 0, 10_000),
        ("data_batch_5.bin", 0, 10_000),
        ("data_batch_2.bin.gz", 1, 10_000),
        ("data_batch_4.bin", 2, 10_000),
        ("test_batch.bin.gz", 3, 10_000),
    ];
    assert_eq!(lacking, expected);
    let words = |index: usize| short[index].to_string();
    assert!(words(0).ends_with("data_batch_1.bin is missing: 0 of 10000 images"));
    assert!(words(4).ends_with("data_batch_4.bin is short: 2 of 10000 images"));
    let labels =
        |images: &Images| (0..images.len()).map(|i| images.label(i).unwrap()).collect::<Vec<_>>();
    assert_eq!((labels(&data.train), labels(&data.test)), (vec![9, 4, 5], vec![0, 1, 2]));
    assert_eq!((data.train.shape(), data.train.classes()), ([3, 32, 32], 10));
    assert_eq!([0, 1, 2].map(|i| data.train.pixels_of(i).unwrap()[0]), [20, 40, 41]);
    // The first pixel of the green plane.
    assert_eq!(data.train.pixels_of(0).unwrap()[1024], (20 + 1024) as u8);
}

#[test]
fn files_that_are_whole_are_not_short() {
    let format = Format { labels: &[10], records: 2 };
    let dir = folder(&[("1.bin", records(0, &[[1], [2]])), ("2.bin", records(0, &[[1]]))]);
    let paths = ["1.bin", "2.bin"].map(|name| dir.path().join(name));
    let mut short = Vec::new();
    assert_eq!(read(&paths, &format, &mut short).unwrap().len(), 3);
    assert_eq!(short, [Short { path: paths[1].clone(), records: 1, expected: 2 }]);
}

#[test]
fn the_fine_labels_of_cifar100_are_the_classes() {
    let dir = folder(&[
        ("train.bin", records(0, &[[19, 99], [0, 7]])),
        ("test.bin.gz", gzip(&records(5, &[[3, 42]]))),
    ]);
    let Cifar { data, short } = load100(dir.path()).unwrap();
    let lacking: Vec<_> = short.iter().map(|file| (file.records, file.expected)).collect();
    assert_eq!(lacking, [(2, 50_000), (1, 10_000)]);
    assert_eq!(
        (data.train.label(0).unwrap(), data.train.label(1).unwrap(), data.test.label(0).unwrap()),
        (99, 7, 42)
    );
    assert_eq!(data.train.classes(), 100);
    assert_eq!((data.train.pixels_of(1).unwrap()[0], data.test.pixels_of(0).unwrap()[0]), (1, 5));
}

#[test]
fn missing_files_are_named() {
    let name_of = |result: Result<Cifar, DataError>| match result.unwrap_err() {
        DataError::Missing { name, .. } => name,
        other => other.to_string(),
    };
    let dir =
        folder(&[("test_batch.bin", records(0, &[[0]])), ("train.bin", records(0, &[[0, 0]]))]);
    assert_eq!(name_of(load10(dir.path())), "data_batch_1.bin");
    assert_eq!(name_of(load100(dir.path())), "test.bin");
    let dir =
        folder(&[("data_batch_5.bin", records(0, &[[0]])), ("test.bin", records(0, &[[0, 0]]))]);
    assert_eq!(name_of(load10(dir.path())), "test_batch.bin");
    assert_eq!(name_of(load100(dir.path())), "train.bin");
}

#[test]
fn a_file_that_ends_within_a_record_is_refused() {
    let bytes = records(0, &[[1], [2], [3]]);
    for length in [0, 1, 2, 1000, 3072, 3074, 5000, 6145, 6147, 9218] {
        let whole = length as u64 / 3073;
        for bytes in [bytes[..length].to_vec(), gzip(&bytes[..length])] {
            let error = cifar10(bytes).unwrap_err();
            assert!(
                matches!(&error, DataError::Truncated { path, part: "record", expected, found }
                    if path.ends_with("data_batch_1.bin")
                        && *expected == (whole + 1) * 3073 && *found == length as u64),
                "{length}: {error}"
            );
        }
    }
    assert_eq!(cifar10(bytes[..6146].to_vec()).unwrap().data.train.len(), 2);
}

#[test]
fn a_label_that_names_no_class_is_refused_with_its_offset() {
    let error = cifar10(records(0, &[[9], [10]])).unwrap_err();
    assert!(
        matches!(error, DataError::LabelAt { offset: 3073, label: 10, classes: 10, .. }),
        "{error}"
    );
    for (labels, at, classes) in
        [([20, 0], 3074, 20), ([0, 100], 3075, 100), ([255, 255], 3074, 20)]
    {
        let dir = folder(&[
            ("train.bin", records(0, &[[0, 0], labels])),
            ("test.bin", records(0, &[[0, 0]])),
        ]);
        let error = load100(dir.path()).unwrap_err();
        assert!(
            matches!(&error, DataError::LabelAt { path, offset, classes: c, .. }
                if path.ends_with("train.bin") && *offset == at && *c == classes),
            "{error}"
        );
    }
}

#[test]
fn a_byte_after_the_last_possible_record_is_refused() {
    let bytes = records(0, &[[1], [2]]);
    let format = Format { labels: &[10], records: 2 };
    for (extra, fits) in [(0, true), (1, false), (3073, false)] {
        let dir = folder(&[("some.bin", [bytes.clone(), vec![0; extra]].concat())]);
        let path = dir.path().join("some.bin");
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let result = read_file(&path, &format, &mut pixels, &mut labels);
        if fits {
            assert_eq!((result.unwrap(), labels.len()), ((), 2));
        } else {
            assert!(matches!(result, Err(DataError::Trailing { expected: 6146, .. })));
        }
    }
}

/// Whatever byte of a compressed file is damaged, an error says so and names the file.
#[test]
fn damaged_gzip_is_refused() {
    let bytes = gzip(&records(0, &[[1], [2]]));
    for length in (2..bytes.len()).step_by(7) {
        let error = cifar10(bytes[..length].to_vec()).unwrap_err();
        assert!(matches!(error, DataError::Gzip { .. }), "{length}: {error}");
        assert!(error.to_string().contains("data_batch_1.bin"), "{error}");
    }
    // The damage is behind the ten bytes of the header. The data, too, has bits that carry no
    // information.
    let intact = cifar10(bytes.clone()).unwrap();
    for at in (10..bytes.len()).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        match cifar10(damaged) {
            Ok(found) => assert!(found.data == intact.data, "{at}"),
            Err(error) => assert!(matches!(
                error,
                DataError::Gzip { .. } | DataError::LabelAt { .. } | DataError::Truncated { .. }
            )),
        }
    }
}

#[test]
fn the_real_files_load() {
    let dir = crate::needs::shared("data/cifar10");
    if !crate::needs::found("cifar10", dir.is_dir()) {
        return;
    }
    let Cifar { data, short } = load10(&dir).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (10_000, 2_000));
    assert_eq!(short.len(), 5);
    for class in 0..10 {
        let count = (0..10_000).filter(|&i| data.train.label(i).unwrap() == class).count();
        assert!((900..1100).contains(&count), "{class}: {count}");
    }
    // Photographs: neighbours along a row are alike, which wrong planes or offsets would undo.
    let rough: u64 = (0..200)
        .flat_map(|i| data.test.pixels_of(i).unwrap().chunks_exact(32))
        .flat_map(|row| row.windows(2))
        .map(|pair| u64::from(pair[0].abs_diff(pair[1])))
        .sum();
    let mean = rough as f64 / f64::from(200 * 96 * 31);
    assert!(mean < 15.0, "{mean}");
    // The blue of a sky or a sea: over all photographs the planes differ as they are known to.
    let scaling = data.train.scaling();
    let [red, green, blue] = [0, 1, 2].map(|channel| scaling.of(channel, 118).unwrap());
    assert!(red < green && green < blue, "{red} {green} {blue}");
}
