//! What can go wrong with a data set.

use super::PreparationError;
use crate::report::count;
use std::path::PathBuf;

/// Why a data set could not be built, read, drawn or downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A count or a size that must be at least one is zero.
    #[error("{what} is zero; pass at least 1")]
    Zero {
        /// What was zero, for example `batch size`.
        what: &'static str,
    },

    /// The buffers of an image set disagree with its sizes.
    #[error(
        "{what}: expected {expected}, found {found}; \
         every image needs rows x columns pixels and one label"
    )]
    Length {
        /// What was counted.
        what: &'static str,
        /// The count that the sizes ask for.
        expected: usize,
        /// The count that was passed.
        found: usize,
    },

    /// A label names no class.
    #[error("image {index} has label {label}, but labels must lie in 0..{classes}")]
    Label {
        /// The position of the image in its set.
        index: usize,
        /// The label found there.
        label: u8,
        /// The number of classes.
        classes: usize,
    },

    /// A file can be read, but its contents are no data set.
    #[error("{}: {source}", path.display())]
    Contents {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<DataError>,
    },

    /// More classes were asked for than can be drawn, or none.
    #[error("{classes} classes were asked for; pass 1 to {limit}")]
    Classes {
        /// The number asked for.
        classes: usize,
        /// The most there are.
        limit: usize,
    },

    /// The scaling of a batch was made from images with another number of channels.
    #[error(
        "the images have {expected} channels, the scaling {found}; use that of the training set"
    )]
    Channels {
        /// The number of channels of the images.
        expected: usize,
        /// The number of channels of the scaling.
        found: usize,
    },

    /// An index lies outside the set it was meant for.
    #[error("image {index} was asked for, but the set holds {len}; use an index below {len}")]
    Index {
        /// The index asked for.
        index: usize,
        /// The number of images in the set.
        len: usize,
    },

    /// The two halves of a data set do not fit together.
    #[error("the training set has {what} {train}, the test set {test}; both must be equal")]
    Split {
        /// What differs: `channels`, `rows`, `columns` or `classes`.
        what: &'static str,
        /// The value in the training set.
        train: usize,
        /// The value in the test set.
        test: usize,
    },

    /// A file or directory could not be opened, read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, for example `read`.
        action: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },

    /// A file starts like gzip but does not decompress.
    #[error(
        "{}: corrupt gzip data after {offset} decompressed bytes ({source}); fetch the file again",
        path.display()
    )]
    Gzip {
        /// The file concerned.
        path: PathBuf,
        /// How many bytes had been decompressed before the fault.
        offset: u64,
        /// What the decompressor reported.
        source: std::io::Error,
    },

    /// The first four bytes are not those of the expected IDX file.
    #[error(
        "{}: bad magic number at offset 0: expected {expected:#010x}, found {found:#010x}; \
         images and labels may have been swapped, or this is not an IDX file",
        path.display()
    )]
    Magic {
        /// The file concerned.
        path: PathBuf,
        /// The magic number of the format that was asked for.
        expected: u32,
        /// The magic number in the file.
        found: u32,
    },

    /// The file ends before its header or its data is complete.
    #[error(
        "{}: {part} truncated: it should end at offset {expected}, \
         the file ends at offset {found}; fetch the file again",
        path.display()
    )]
    Truncated {
        /// The file concerned.
        path: PathBuf,
        /// The part that is incomplete: `header`, `data` or `record`.
        part: &'static str,
        /// The offset, in decompressed bytes, at which the part should end.
        expected: u64,
        /// The offset at which the file ends.
        found: u64,
    },

    /// The file goes on after its data.
    #[error(
        "{}: bytes remain after offset {expected}, where the file should end; fetch the file again",
        path.display()
    )]
    Trailing {
        /// The file concerned.
        path: PathBuf,
        /// The offset, in decompressed bytes, at which the file should end.
        expected: u64,
    },

    /// A label byte in a file names no class.
    #[error(
        "{}: label {label} at offset {offset}, but labels must lie in 0..{classes}; \
         this is another format, or the file is damaged",
        path.display()
    )]
    LabelAt {
        /// The file concerned.
        path: PathBuf,
        /// The offset of the label, in decompressed bytes.
        offset: u64,
        /// The label found there.
        label: u8,
        /// The number of classes.
        classes: usize,
    },

    /// A dimension in an IDX header is zero.
    #[error("{}: dimension at offset {offset} is zero; the file holds no data", path.display())]
    ZeroDimension {
        /// The file concerned.
        path: PathBuf,
        /// The offset of the dimension in the header.
        offset: u64,
    },

    /// The header of an IDX file announces more data than this crate reads.
    #[error(
        "{}: the header announces dimensions {dimensions:?}, more than the limit of {limit} bytes; \
         the header is probably corrupt",
        path.display()
    )]
    TooLarge {
        /// The file concerned.
        path: PathBuf,
        /// The dimensions in the header, outermost first.
        dimensions: Vec<u32>,
        /// The largest amount of data that is read, in bytes.
        limit: u64,
    },

    /// A file holds more than this crate reads.
    #[error("{}: more than {limit} bytes; this is no text to train on", path.display())]
    FileTooLarge {
        /// The file concerned.
        path: PathBuf,
        /// The largest amount of data that is read, in bytes.
        limit: u64,
    },

    /// A data set file is in none of the accepted spellings.
    #[error("{}: no file {name} (plain or .gz); {help}", dir.display())]
    Missing {
        /// The directory that was searched.
        dir: PathBuf,
        /// The usual name of the file, without `.gz`.
        name: String,
        /// What to do about it.
        help: &'static str,
    },

    /// An image file and its label file have different counts.
    #[error(
        "{}: {}, but {} has {}; the files belong to different sets",
        images_path.display(),
        count(*images, "image"),
        labels_path.display(),
        count(*labels, "label")
    )]
    Count {
        /// The file of images.
        images_path: PathBuf,
        /// The file of labels.
        labels_path: PathBuf,
        /// The number of images.
        images: usize,
        /// The number of labels.
        labels: usize,
    },

    /// The images of a file have another size than the data set asks for.
    #[error(
        "{}: images of {rows}x{columns} pixels, expected 28x28; this is not MNIST",
        path.display()
    )]
    Size {
        /// The file concerned.
        path: PathBuf,
        /// Rows of an image, in pixels.
        rows: usize,
        /// Columns of an image, in pixels.
        columns: usize,
    },

    /// A folder has no pictures.
    #[error(
        "{}: no pictures (.jpg, .png, .webp, .bmp or .ppm); expected <half>/<class>/<picture>",
        dir.display()
    )]
    NoPictures {
        /// The folder concerned.
        dir: PathBuf,
    },

    /// There is a class to test on that is not among those to train on.
    #[error(
        "{}: there is no class of this name to train on; remove or rename the folder",
        dir.display()
    )]
    UnknownClass {
        /// The folder of the class.
        dir: PathBuf,
    },

    /// A line of a list of pictures does not name a picture and its class.
    #[error("{}: line {line}: {what}", path.display())]
    Annotation {
        /// The list.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },

    /// None of some pictures can be decoded, so that a class or a half would be empty.
    #[error("none of the pictures {what} can be read; repair or replace them")]
    NoneSound {
        /// Which pictures: `of the class ant`, `to test on`.
        what: String,
    },

    /// A picture could not be decoded or written.
    #[cfg(feature = "pictures")]
    #[error("cannot {action} {}: {source}", path.display())]
    Picture {
        /// What was being done: `decode` or `write`.
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// What the decoder or encoder reported.
        source: Box<image::ImageError>,
    },

    /// A picture's file ends before the picture does.
    #[error(
        "{}: the picture is cut off: there is no end marker in its {length} bytes; \
         fetch the file again",
        path.display()
    )]
    PictureEnd {
        /// The file concerned.
        path: PathBuf,
        /// The length of the file in bytes.
        length: u64,
    },

    /// A picture is of a kind that the decoder does not know, or gets wrong.
    #[error(
        "{}: {what} is not decoded; save the picture anew, as PNG for instance",
        path.display()
    )]
    PictureKind {
        /// The file concerned.
        path: PathBuf,
        /// What it is: `a JPEG with arithmetic coding`.
        what: String,
    },

    /// Pictures cannot be prepared as asked for.
    #[error("cannot prepare pictures: {0}")]
    Preparation(#[from] PreparationError),

    /// A thread to decode pictures could not be started.
    #[error("cannot start a thread: {source}; use fewer")]
    Thread {
        /// The error of the operating system.
        source: std::io::Error,
    },

    /// The decoder gave up on a picture by a panic.
    #[error("{}: the decoder failed; the picture is damaged, remove or replace it", path.display())]
    Decoder {
        /// The file concerned.
        path: PathBuf,
    },

    /// The thread that should have prepared a batch has ended without a result.
    #[error("the thread that should have prepared batch {batch} has ended; see its panic message")]
    Worker {
        /// The position of the batch in the order asked for.
        batch: usize,
    },

    /// The request for a file failed.
    #[cfg(feature = "download")]
    #[error("cannot download {url}: {source}; check the connection or try another mirror")]
    Http {
        /// The address asked for.
        url: String,
        /// What the HTTP client reported, a status such as 404 included.
        source: Box<ureq::Error>,
    },

    /// The body of a download ended early or could not be read.
    #[error("the download of {url} broke off after {done} bytes: {source}; try again")]
    Transfer {
        /// The address asked for.
        url: String,
        /// How many bytes had arrived.
        done: u64,
        /// What the HTTP client reported.
        source: std::io::Error,
    },

    /// A download is larger than any of the files it could be.
    #[error("{url} sends more than {limit} bytes; this is not an MNIST mirror, try another")]
    DownloadTooLarge {
        /// The address asked for.
        url: String,
        /// The largest download that is accepted, in bytes.
        limit: u64,
    },

    /// A downloaded file is not the file it should be. Nothing of it is kept.
    #[error(
        "{url} has SHA-256 {found} after decompression, expected {expected}; try another mirror"
    )]
    Checksum {
        /// The address asked for.
        url: String,
        /// The checksum of the true contents, in hexadecimal.
        expected: String,
        /// The checksum of what was sent, in hexadecimal.
        found: String,
    },
}
