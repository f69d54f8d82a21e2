//! The pixels of a picture's file.

use std::{
    borrow::Cow,
    io::Cursor,
    panic::{catch_unwind, AssertUnwindSafe},
    path::Path,
};

use image::{ImageFormat, ImageReader, RgbImage};

use super::{
    jpeg::{self, Refused},
    png,
};
use crate::data::{DataError, PictureKind};

/// The pixels of a file, red, green and blue. The format is detected from the contents.
pub(super) fn decode(path: &Path) -> Result<RgbImage, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    pixels(path, &bytes)
}

/// The pixels, given the contents of a file.
///
/// Those of a JPEG are libjpeg's to within 4 of 255 (seldom 5), but for pictures of at most 4
/// pixels across whose colours are sampled at every second pixel.
fn pixels(path: &Path, bytes: &[u8]) -> Result<RgbImage, DataError> {
    let unknown = |kind| DataError::PictureKind { path: path.to_owned(), kind };
    let damaged = |source| DataError::Picture {
        action: "decode",
        path: path.to_owned(),
        source: Box::new(source),
    };
    let format = image::guess_format(bytes).map_err(damaged)?;
    let (bytes, edges) = match format {
        ImageFormat::Png => (png::mended(bytes), None),
        ImageFormat::Jpeg => jpeg::first_picture(bytes)
            .map(|picture| (picture.bytes, picture.edges))
            .map_err(|refused| match refused {
                Refused::NoEnd => {
                    DataError::PictureEnd { path: path.to_owned(), length: bytes.len() as u64 }
                }
                Refused::Kind(kind) => unknown(kind),
            })?,
        _ => (Cow::Borrowed(bytes), None),
    };
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut picture = guarded(path, || reader.decode())?.map_err(damaged)?.into_rgb8();
    if picture.is_empty() {
        return Err(unknown(PictureKind::Empty));
    }
    if let Some(edges) = edges {
        edges.mend(&mut picture);
    }
    Ok(picture)
}

/// Turns a panic of the decoder, which no damaged file should cause, into an error that names the
/// file.
fn guarded<T>(path: &Path, decode: impl FnOnce() -> T) -> Result<T, DataError> {
    catch_unwind(AssertUnwindSafe(decode)).map_err(|_| DataError::Decoder { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image::Rgb;

    use super::*;

    const READ: [ImageFormat; 5] = [
        ImageFormat::Bmp,
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::Pnm,
        ImageFormat::WebP,
    ];

    /// Red grows to the right, green downwards, blue is 200.
    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 200])
        })
    }

    fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn decoded(name: &str, bytes: &[u8]) -> Result<RgbImage, DataError> {
        pixels(Path::new(name), bytes)
    }

    #[test]
    fn the_format_is_told_from_the_contents() {
        let picture = gradient(16, 12);
        for format in READ {
            let read = decoded("a.txt", &encoded(&picture, format)).unwrap();
            assert_eq!(read.dimensions(), (16, 12));
            let differences = read.iter().zip(picture.iter()).map(|(a, b)| a.abs_diff(*b));
            let most = if format == ImageFormat::Jpeg { 40 } else { 0 };
            assert!(differences.max().unwrap() <= most, "{format:?}");
        }
    }

    #[test]
    fn every_truncation_is_noticed_and_named() {
        let picture = gradient(40, 30);
        for format in READ {
            let bytes = encoded(&picture, format);
            // Without the last chunk and the checksum before it, a PNG's pixels are still whole.
            let end = bytes.len() - if format == ImageFormat::Png { 16 } else { 0 };
            for length in (0..end).step_by(5).chain([end - 1]) {
                let error = decoded("some.png", &bytes[..length]).unwrap_err();
                let typed =
                    matches!(error, DataError::Picture { .. } | DataError::PictureEnd { .. });
                assert!(typed, "{format:?} {length}: {error}");
                assert!(error.to_string().contains("some.png"), "{error}");
            }
        }
    }

    /// A flipped bit of a PNG breaks a checksum, and is noticed unless the pixels are what they
    /// were. The others have none: they may decode to something else, but do not panic.
    #[test]
    fn flipped_bits_give_an_error_or_a_picture() {
        let picture = gradient(40, 30);
        for format in READ {
            let bytes = encoded(&picture, format);
            let mut noticed = 0;
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                match decoded("some.jpg", &damaged) {
                    Ok(read) => assert!(format != ImageFormat::Png || read == picture, "{at}"),
                    Err(error) => {
                        assert!(!matches!(error, DataError::Decoder { .. }), "{error}");
                        assert!(error.to_string().contains("some.jpg"), "{error}");
                        noticed += 1;
                    }
                }
            }
            // At the least, errors in the first two bytes are noticed, because these show the
            // format.
            assert!(noticed > 1, "{format:?}: {noticed}");
        }
    }

    #[test]
    fn jpegs_that_are_not_decoded_say_why() {
        let whole = encoded(&gradient(20, 20), ImageFormat::Jpeg);
        let error = decoded("some.jpg", &whole[..whole.len() - 2]).unwrap_err().to_string();
        assert!(error.contains("some.jpg") && error.contains("end marker"), "{error}");
        // The frame's second colour is the last but one of three bytes each.
        let frame = whole.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let mut odd = whole.clone();
        odd[frame + 2 + 8 + 3 + 1] = 0x44;
        let error = decoded("some.jpg", &odd).unwrap_err();
        assert!(matches!(&error, DataError::PictureKind { kind: PictureKind::Sampling(each), .. }
            if each[1] == (4, 4)));
        assert!(error.to_string().contains("some.jpg"), "{error}");
    }

    // As libjpeg has it. Fails if the Adobe marker turns brightness and two colours into red, green
    // and blue.
    #[test]
    fn a_jfif_picture_is_no_rgb_whatever_adobe_says() {
        let whole = encoded(&gradient(20, 20), ImageFormat::Jpeg);
        let end_of_jfif = 4 + usize::from(whole[5]);
        assert_eq!(&whole[6..11], b"JFIF\0");
        let adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0";
        let both = [&whole[..end_of_jfif], adobe, &whole[end_of_jfif..]].concat();
        let [both, whole] = [both, whole].map(|bytes| decoded("some.jpg", &bytes).unwrap());
        assert!(both == whole);
    }

    #[test]
    fn other_contents_are_refused() {
        for bytes in [&b"GIF89a not a picture we read"[..], b"plain text, no picture", b""] {
            let error = decoded("a.jpg", bytes).unwrap_err();
            assert!(matches!(error, DataError::Picture { action: "decode", .. }), "{error}");
        }
    }

    #[test]
    fn a_decoder_that_panics_is_an_error() {
        assert_eq!(guarded(Path::new("a.png"), || 7).unwrap(), 7);
        let panics = || -> () { unreachable!("as it should") };
        let error = guarded(Path::new("some.png"), panics).unwrap_err();
        assert!(matches!(&error, DataError::Decoder { .. }), "{error}");
        assert!(error.to_string().contains("some.png"), "{error}");
    }
}
