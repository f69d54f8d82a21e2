//! Pictures of many kinds, beside what Pillow decodes them to: `pictures/make.py` made both.
#![cfg(feature = "pictures")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tlr_models::data::{
    folder::{Crop, Folder, Preparation},
    DataError,
};

/// The side of the pictures: a block of a JPEG is cut within two pixels of one sample.
const SIDE: u32 = 37;
/// The side of those whose names begin with `even`: a block is cut between two samples.
const EVEN: u32 = 40;

/// How far a value may be from Pillow's, of 255: decoders round and smooth colours in their own
/// ways.
const FAR: f32 = 4.0;

fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures")
}

/// What each of these files decodes to, by its name: from 0 to 255, the red plane first.
fn decoded(files: &[(String, Vec<u8>)]) -> BTreeMap<String, Result<Vec<f32>, DataError>> {
    decoded_at(SIDE, files)
}

fn decoded_at(
    side: u32,
    files: &[(String, Vec<u8>)],
) -> BTreeMap<String, Result<Vec<f32>, DataError>> {
    let dir = tempfile::tempdir().unwrap();
    for half in ["train", "val"] {
        fs::create_dir_all(dir.path().join(half).join("all")).unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(half).join("all").join(name), bytes).unwrap();
        }
    }
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(folder.train.len(), files.len());
    // The whole picture, as it is.
    let prepare = Preparation { side, shorter: side, mean: [0.0; 3], deviation: [1.0 / 255.0; 3] };
    (0..folder.train.len())
        .map(|index| {
            let name = folder.train.get(index).unwrap().0.file_name().unwrap();
            let name = name.to_str().unwrap().to_owned();
            (name, folder.train.read(index, &prepare, Crop::Centre))
        })
        .collect()
}

fn file(name: &str) -> (String, Vec<u8>) {
    (name.to_owned(), fs::read(pictures().join(name)).unwrap())
}

/// The pictures whose names fit.
fn files(fit: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(pictures()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let no_picture = |name: &str| name.ends_with(".rgb") || name.ends_with(".py");
    names.filter(|name| !no_picture(name) && fit(name)).map(|name| file(&name)).collect()
}

// Fails, by up to 44, if the last column or row of an even side is as the decoder leaves it.
#[test]
fn pixels_are_those_of_pillow() {
    let is_even = |name: &str| name.starts_with("even");
    let mut all = decoded(&files(|name| !name.starts_with("refused") && !is_even(name)));
    all.extend(decoded_at(EVEN, &files(is_even)));
    assert_eq!(all.len(), 56);
    for (name, pixels) in all {
        let pixels = pixels.unwrap_or_else(|error| unreachable!("{error}"));
        let expected = fs::read(pictures().join(format!("{name}.rgb"))).unwrap();
        assert_eq!(pixels.len(), expected.len(), "{name}");
        let plane = expected.len() / 3;
        for (at, expected) in expected.into_iter().enumerate() {
            let off = (pixels[at % 3 * plane + at / 3] - f32::from(expected)).abs();
            assert!(off <= FAR, "{name}: {off}");
        }
    }
}

// The decoder would give wrong pixels, or words that say nothing.
#[test]
fn kinds_that_are_not_decoded_are_named() {
    let all = decoded(&files(|name| name.starts_with("refused") && name.ends_with(".jpg")));
    let expected = [
        ("refused-arithmetic.jpg", "a JPEG with arithmetic coding"),
        ("refused-odd.jpg", "a JPEG with the sampling 1x1, 2x2, 1x1"),
        ("refused-thirds.jpg", "a JPEG with the sampling 3x1, 1x1, 1x1"),
        ("refused-three-scans.jpg", "a JPEG of several scans with the sampling 2x2, 1x1, 1x1"),
    ];
    assert_eq!(all.len(), expected.len());
    for ((name, result), (file, what)) in all.iter().zip(expected) {
        let error = result.as_ref().unwrap_err();
        assert!(matches!(error, DataError::PictureKind { .. }), "{error}");
        assert!(name == file && error.to_string().contains(&format!("{file}: {what}")), "{error}");
    }
}

// Pillow refuses them too. Fails if a checksum that matters is passed over.
#[test]
fn a_png_with_damaged_pixels_is_refused() {
    let all = decoded(&files(|name| name.starts_with("refused") && name.ends_with(".png")));
    assert_eq!(all.len(), 2);
    for (name, result) in all {
        let error = result.unwrap_err();
        assert!(matches!(error, DataError::Picture { .. }), "{error}");
        assert!(error.to_string().contains(&name), "{error}");
    }
}

#[test]
fn what_follows_the_end_does_not_matter() {
    let names = ["420.jpg", "and-a-film.jpg", "and-a-picture.jpg", "small-one-first.jpg"];
    let mut files = names.map(file).to_vec();
    // A megabyte that holds what could be a scan's beginning.
    let behind = [[0xff, 0xda, 0, 12].repeat(1 << 18), files[0].1[..500].to_vec()].concat();
    files.push(("long.jpg".to_owned(), [files[0].1.clone(), behind].concat()));
    let all = decoded(&files);
    let alone = all["420.jpg"].as_ref().unwrap();
    for (name, pixels) in &all {
        assert!(pixels.as_ref().unwrap() == alone, "{name}");
    }
}

#[test]
fn a_jpeg_without_its_end_is_refused() {
    let (_, whole) = file("420.jpg");
    let cut = |length: usize| (format!("{length}.jpg"), whole[..length].to_vec());
    let lengths = [whole.len() - 1, whole.len() - 2, whole.len() / 2, 30];
    for (name, result) in decoded(&lengths.map(cut)) {
        let error = result.unwrap_err();
        assert!(matches!(error, DataError::PictureEnd { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&name) && text.contains("no end marker"), "{text}");
    }
}
