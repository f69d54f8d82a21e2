//! Why pictures are not decoded, and what is wrong with lists of them.

use std::fmt;

/// What is wrong with a line of a list of pictures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotationError {
    /// The line does not name a picture and its class.
    #[error("no tab between a picture's name and its class")]
    NoTab,
    /// There is no class of this name.
    #[error("there is no class {0} to train on")]
    UnknownClass(String),
}

/// Pictures that a data set has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needed {
    /// Those of this class.
    OfClass(String),
    /// Those to test on.
    ToTestOn,
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfClass(class) => write!(f, "of the class {class}"),
            Self::ToTestOn => f.write_str("to test on"),
        }
    }
}

/// A kind of pictures that the decoder does not know, or gets wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PictureKind {
    /// A JPEG with lossless coding.
    LosslessJpeg,
    /// A JPEG with arithmetic coding.
    ArithmeticJpeg,
    /// A JPEG with hierarchical coding.
    HierarchicalJpeg,
    /// A JPEG whose colours are sampled so often, across and down.
    Sampling(Vec<(u8, u8)>),
    /// A JPEG of several scans whose colours are sampled so often, across and down.
    SeveralScans(Vec<(u8, u8)>),
    /// A picture without pixels.
    Empty,
}

impl fmt::Display for PictureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |sampling: &[(u8, u8)]| {
            sampling.iter().map(|(h, v)| format!("{h}x{v}")).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::LosslessJpeg => f.write_str("a JPEG with lossless coding"),
            Self::ArithmeticJpeg => f.write_str("a JPEG with arithmetic coding"),
            Self::HierarchicalJpeg => f.write_str("a JPEG with hierarchical coding"),
            Self::Sampling(each) => write!(f, "a JPEG with the sampling {}", words(each)),
            Self::SeveralScans(each) => {
                write!(f, "a JPEG of several scans with the sampling {}", words(each))
            }
            Self::Empty => f.write_str("a picture without pixels"),
        }
    }
}
