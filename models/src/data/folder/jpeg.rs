//! What a JPEG's markers say, before its pixels are decoded.
//!
//! A marker is a byte 255 and one that is neither 0 nor 255; within the data of a scan no such pair
//! occurs but the markers RST, at which decoding begins anew (T.81, section B.1.1).

use std::{borrow::Cow, ops::Range};

use super::edges::Edges;
use crate::data::PictureKind;

const START: u8 = 0xd8;
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// Why a JPEG is not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The file ends before the picture does.
    NoEnd,
    /// The decoder does not know such pictures, or gets their colours wrong.
    Kind(PictureKind),
}

/// A picture for the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    /// If there are some, the bytes say that brightness and the two colours are red, green and
    /// blue, and what is decoded has to be [mended](Edges::mend).
    pub(super) edges: Option<Edges>,
}

/// A segment of Adobe's that calls three colours red, green and blue.
const CALLED_RGB: &[u8] = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0";

/// The file's first picture, from its start to its end marker. Cameras put more behind that: a
/// film, a second picture, a map of depths.
///
/// A file without the end marker is refused: the decoder would fill up what is missing with grey.
///
/// A JFIF file has a brightness and two colours, and to libjpeg it does so whatever a segment of
/// Adobe's says. The decoder believes Adobe, so that segment is cut out there.
pub(super) fn first_picture(bytes: &[u8]) -> Result<Picture<'_>, Refused> {
    let mut frame: Option<Frame> = None;
    let (mut jfif, mut adobe): (bool, Option<Range<usize>>) = (false, None);
    let mut scans = 0;
    let mut at = 2;
    while let Some((marker, after)) = next_marker(bytes, at) {
        at = after;
        match marker {
            END => {
                let whole = bytes.get(..after).ok_or(Refused::NoEnd)?;
                let three = frame.filter(|frame| frame.sampling.len() == 3);
                let is_rgb = |frame: &Frame| match &adobe {
                    _ if jfif => false,
                    Some(segment) => whole.get(..segment.end).is_some_and(|it| it.ends_with(&[0])),
                    None => frame.names == *b"RGB",
                };
                let edges = three.as_ref().filter(|frame| !is_rgb(frame)).and_then(Frame::edges);
                let adobe = adobe.filter(|_| edges.is_some() || jfif && three.is_some());
                let mut bytes = match adobe {
                    Some(segment) => Cow::Owned(without(whole, segment)),
                    None => Cow::Borrowed(whole),
                };
                if edges.is_some() {
                    let (start, rest) = bytes.split_at(2);
                    bytes = Cow::Owned([start, CALLED_RGB, rest].concat());
                }
                return Ok(Picture { bytes, edges });
            }
            // Another picture begins in the midst of this one.
            START => break,
            // The markers RST have no data of their own.
            0x01 | 0xd0..=0xd7 => continue,
            _ => {}
        }
        let Some(body) = segment(bytes, after) else { break };
        at = after + 2 + body.len();
        match marker {
            0xe0 => jfif |= body.starts_with(b"JFIF\0"),
            0xee if body.starts_with(b"Adobe") => adobe = Some(after - 2..at),
            // Tables, not frames.
            0xc4 | 0xc8 | 0xcc => {}
            0xc0..=0xcf => frame = Some(Frame::read(marker, body)?),
            SCAN => {
                if let (Some(frame), Some(&components), 0) = (&frame, body.first(), scans) {
                    frame.check_scan(usize::from(components))?;
                }
                scans += 1;
            }
            _ => {}
        }
    }
    Err(Refused::NoEnd)
}

fn without(bytes: &[u8], segment: Range<usize>) -> Vec<u8> {
    let part = |range: Option<&[u8]>| range.unwrap_or_default().to_vec();
    [part(bytes.get(..segment.start)), part(bytes.get(segment.end..))].concat()
}

/// The next marker from `at` on, and the offset behind it.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(at..)?;
    let mut pairs = rest.iter().zip(rest.get(1..)?).enumerate();
    let marker = pairs.find(|(_, (first, second))| **first == 0xff && !matches!(second, 0 | 0xff));
    let (found, (_, second)) = marker?;
    Some((*second, at + found + 2))
}

/// The data behind a marker, which begins with its length.
fn segment(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    bytes.get(at + 2..at + length)
}

/// How the picture is coded.
struct Frame {
    progressive: bool,
    width: u16,
    height: u16,
    /// The bytes by which scans call the colours.
    names: Vec<u8>,
    /// Samples of each colour in a unit of the picture, across and down.
    sampling: Vec<(u8, u8)>,
}

impl Frame {
    fn read(marker: u8, body: &[u8]) -> Result<Self, Refused> {
        let kind = |kind| Err(Refused::Kind(kind));
        match marker {
            0xc0..=0xc2 => {}
            0xc3 => return kind(PictureKind::LosslessJpeg),
            0xc9..=0xcb => return kind(PictureKind::ArithmeticJpeg),
            _ => return kind(PictureKind::HierarchicalJpeg),
        }
        let (colours, _) = body.get(6..).unwrap_or_default().as_chunks();
        let sampling = colours.iter().map(|[_, sampling, _]| (sampling >> 4, sampling & 15));
        let length = |at| {
            let bytes = body.get(at..).and_then(|from: &[u8]| from.first_chunk());
            bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
        };
        let frame = Self {
            progressive: marker == 0xc2,
            width: length(3),
            height: length(1),
            names: colours.iter().map(|[name, _, _]| *name).collect(),
            sampling: sampling.collect(),
        };
        if frame.sampling_is_known() {
            Ok(frame)
        } else {
            kind(PictureKind::Sampling(frame.sampling))
        }
    }

    /// Whether the decoder (zune-jpeg 0.5) gets the colours right: the first colour is sampled
    /// most, and the others as often, or a half, a quarter or (downwards only) a third as often. It
    /// fails at two of four downwards. All samplings that exist were compared with libjpeg.
    fn sampling_is_known(&self) -> bool {
        let Some(&(across, down)) = self.sampling.first() else { return true };
        self.sampling
            .iter()
            .all(|&(h, v)| matches!(h, 1 | 2 | 4) && h <= across && (v == 1 || v == down))
    }

    fn edges(&self) -> Option<Edges> {
        Edges::of(self.width, self.height, &self.sampling)
    }

    /// The decoder mixes up the colours of sequential pictures whose colours are sampled
    /// differently and follow one another.
    fn check_scan(&self, components: usize) -> Result<(), Refused> {
        let plain = self.sampling.iter().all(|&sampling| sampling == (1, 1));
        if self.progressive || plain || components >= self.sampling.len() {
            return Ok(());
        }
        Err(Refused::Kind(PictureKind::SeveralScans(self.sampling.clone())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A frame of these samplings, a scan of `scan` colours, and some data.
    fn jpeg(frame: u8, sampling: &[u8], scan: u8) -> Vec<u8> {
        let mut bytes = vec![0xff, START];
        let mut body = vec![8, 0, 9, 0, 9, sampling.len() as u8];
        body.extend((1..).zip(sampling).flat_map(|(id, factors): (u8, _)| [id, *factors, 0]));
        for (marker, body) in [(frame, body), (SCAN, vec![scan, 1, 0, 2, 0, 3, 0, 0, 63, 0])] {
            bytes.extend([0xff, marker, 0, body.len() as u8 + 2]);
            bytes.extend(body);
        }
        // A 255 that is data, and a marker RST.
        bytes.extend([1, 2, 0xff, 0, 0xd9, 3, 0xff, 0xd0, 4, 0xff, 0xff, END]);
        bytes
    }

    fn picture(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Refused> {
        first_picture(bytes).map(|picture| picture.bytes)
    }

    fn kind(bytes: &[u8]) -> String {
        match picture(bytes) {
            Err(Refused::Kind(kind)) => kind.to_string(),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_the_end_is_cut() {
        let whole = jpeg(0xc0, &[0x22, 0x11, 0x11], 3);
        assert_eq!(picture(&whole), Ok(Cow::Borrowed(&whole[..])));
        for behind in [&[0xff, SCAN, 0, 8, 0][..], &whole, &whole[..20], &[0; 3], b"\xff\xd9"] {
            assert_eq!(
                picture(&[&whole, behind].concat()),
                Ok(Cow::Borrowed(&whole[..])),
                "{behind:?}"
            );
        }
    }

    // A picture within a segment, as cameras put a small one into the first, is passed by.
    #[test]
    fn only_an_end_of_its_own_counts() {
        let whole = jpeg(0xc2, &[0x11; 3], 1);
        let mut outer = vec![0xff, START, 0xff, 0xe1, 0, whole.len() as u8 + 2];
        outer.extend(&whole);
        assert_eq!(picture(&outer), Err(Refused::NoEnd));
        outer.extend(&whole[2..]);
        assert_eq!(picture(&outer), Ok(Cow::Borrowed(&outer[..])));
        for length in 0..whole.len() {
            assert_eq!(picture(&whole[..length]), Err(Refused::NoEnd), "{length}");
        }
        // A picture that was cut off before the next one begins.
        let cut = [&whole[..whole.len() - 3], &whole].concat();
        assert_eq!(picture(&cut), Err(Refused::NoEnd));
    }

    #[test]
    fn samplings_that_the_decoder_knows() {
        for sampling in [
            &[0x11][..],
            &[0x22],
            &[0x11; 3],
            &[0x22; 3],
            &[0x22, 0x11, 0x11],
            &[0x41, 0x21, 0x11],
            &[0x24, 0x11, 0x11],
            &[0x13, 0x11, 0x13],
            &[0x22, 0x11, 0x11, 0x22],
        ] {
            let bytes = jpeg(0xc0, sampling, sampling.len() as u8);
            assert_eq!(picture(&bytes), Ok(Cow::Borrowed(&bytes[..])), "{sampling:x?}");
        }
        for (sampling, words) in [
            (&[0x11, 0x22, 0x11][..], "1x1, 2x2, 1x1"),
            (&[0x12, 0x21, 0x11], "1x2, 2x1, 1x1"),
            (&[0x21, 0x12, 0x11], "2x1, 1x2, 1x1"),
            (&[0x31, 0x11, 0x11], "3x1, 1x1, 1x1"),
            (&[0x14, 0x12, 0x12], "1x4, 1x2, 1x2"),
            (&[0x01, 0x11, 0x11], "0x1, 1x1, 1x1"),
        ] {
            let what = kind(&jpeg(0xc0, sampling, 3));
            assert_eq!(what, format!("a JPEG with the sampling {words}"));
        }
    }

    #[test]
    fn codings_that_the_decoder_knows() {
        for (frame, what) in [
            (0xc3, "lossless coding"),
            (0xc5, "hierarchical coding"),
            (0xc9, "arithmetic coding"),
            (0xca, "arithmetic coding"),
            (0xcf, "hierarchical coding"),
        ] {
            assert_eq!(kind(&jpeg(frame, &[0x11; 3], 3)), format!("a JPEG with {what}"));
        }
        let apart = |frame, sampling: [u8; 3]| jpeg(frame, &sampling, 1);
        let what = kind(&apart(0xc0, [0x21, 0x11, 0x11]));
        assert_eq!(what, "a JPEG of several scans with the sampling 2x1, 1x1, 1x1");
        picture(&apart(0xc2, [0x21, 0x11, 0x11])).unwrap();
        picture(&apart(0xc1, [0x11, 0x11, 0x11])).unwrap();
    }

    // 24 by 40 pixels, colours at every second one. A segment of Adobe's is put in, and takes the
    // place of one that is there; a picture that is red, green and blue stays as it is.
    #[test]
    fn brightness_and_colours_are_called_rgb_where_edges_are_computed() {
        let mut plain = jpeg(0xc0, &[0x22, 0x11, 0x11], 3);
        (plain[8], plain[10]) = (40, 24);
        let with = |segments: &[u8]| [&plain[..2], segments, &plain[2..]].concat();
        let adobe = |transform| [&CALLED_RGB[..15], &[transform]].concat();
        let jfif = b"\xff\xe0\0\x07JFIF\0";
        for segments in [vec![], adobe(1), jfif.to_vec(), [&jfif[..], &adobe(0)].concat()] {
            let whole = with(&segments);
            let picture = first_picture(&whole).unwrap();
            assert!(picture.edges.is_some());
            let kept = if segments.starts_with(jfif) { &jfif[..] } else { &[] };
            assert_eq!(*picture.bytes, with(&[CALLED_RGB, kept].concat()));
        }
        let mut named = plain.clone();
        for (at, name) in [(12, b'R'), (15, b'G'), (18, b'B')] {
            named[at] = name;
        }
        for whole in [with(&adobe(0)), named] {
            let as_it_is = Picture { bytes: Cow::Borrowed(&whole), edges: None };
            assert_eq!(first_picture(&whole), Ok(as_it_is));
        }
    }
}
