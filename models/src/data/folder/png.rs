//! The checksums of a PNG, checked as Pillow does.
//!
//! A file that was cut off behind its pixels, or of whose pixels a checksum is wrong, is read where
//! the pixels themselves are whole: they have a checksum of their own, within.

use flate2::read::ZlibDecoder;
use std::{borrow::Cow, io};

/// What every PNG begins with.
const SIGNATURE: usize = 8;

/// Length and name of a chunk before its data, and the checksum behind it.
const FRAME: usize = 8;
const SUM: usize = 4;

/// The chunk that ends a file.
const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// The same file with an end and with right checksums of its pixels, if these are whole. Any other
/// file is left as it is, for the decoder to refuse.
pub(super) fn mended(bytes: &[u8]) -> Cow<'_, [u8]> {
    match pixels_anew(bytes) {
        Some(mended) => Cow::Owned(mended),
        None => Cow::Borrowed(bytes),
    }
}

/// The mended file; none if nothing is to be mended, or nothing can be.
fn pixels_anew(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut at = SIGNATURE;
    let mut pixels = Vec::new();
    let mut first = None;
    let mut right = true;
    while let Some(chunk) = Chunk::at(bytes, at) {
        if chunk.name == b"IDAT" {
            first.get_or_insert(at);
            pixels.extend_from_slice(chunk.data);
            right &= chunk.is_right();
        } else if first.is_some() {
            right &= chunk.name != b"IEND" || chunk.is_right();
            break;
        }
        at += FRAME + chunk.data.len() + SUM;
    }
    let ended = Chunk::at(bytes, at).is_some_and(|chunk| chunk.sum.is_some());
    if right && ended {
        return None;
    }
    // This checks the checksum of the decompressed pixels.
    io::copy(&mut ZlibDecoder::new(&pixels[..]), &mut io::sink()).ok()?;
    let mut mended = bytes.get(..first?)?.to_vec();
    mended.extend(u32::try_from(pixels.len()).ok()?.to_be_bytes());
    let named = [b"IDAT", &pixels[..]].concat();
    let mut sum = flate2::Crc::new();
    sum.update(&named);
    mended.extend(named);
    mended.extend(sum.sum().to_be_bytes());
    mended.extend(END);
    Some(mended)
}

struct Chunk<'a> {
    name: &'a [u8],
    data: &'a [u8],
    /// None if the file ends before the checksum.
    sum: Option<&'a [u8]>,
}

impl<'a> Chunk<'a> {
    /// The chunk; none if its data is not all there.
    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let (length, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (name, rest) = rest.split_at_checked(4)?;
        let (data, rest) = rest.split_at_checked(length)?;
        Some(Self { name, data, sum: rest.get(..SUM) })
    }

    fn is_right(&self) -> bool {
        let mut sum = flate2::Crc::new();
        sum.update(self.name);
        sum.update(self.data);
        self.sum == Some(&sum.sum().to_be_bytes())
    }
}
