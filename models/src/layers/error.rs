//! What can go wrong in a layer.

/// Why a layer could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError<Err> {
    /// The input does not fit the layer. Only its shape at run time shows that. Nothing was
    /// computed.
    #[error("{layer}: {misfit}")]
    Shape {
        /// The layer, with the sizes that it was made for.
        layer: String,
        /// What does not fit.
        #[source]
        misfit: Misfit,
    },
    /// An error of the device, such as no memory left.
    #[error("device: {0:?}")]
    Device(Err),
}

impl<Err> From<Err> for LayerError<Err> {
    fn from(error: Err) -> Self {
        Self::Device(error)
    }
}

/// In what an input does not fit a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// An image with its padding does not hold the filter, or stride or dilation is 0.
    #[error(
        "images of {height}x{width} pixels; with their padding they must hold the filter, and \
         stride and dilation are at least 1"
    )]
    Filter {
        /// The rows of an image.
        height: usize,
        /// The columns of an image.
        width: usize,
    },
    /// An image with its padding does not hold the window, the padding is more than half of the
    /// window, or the stride is 0.
    #[error(
        "images of {height}x{width} pixels; with their padding they must hold the window, the \
         padding is at most half of it, and the stride at least 1"
    )]
    Window {
        /// The rows of an image.
        height: usize,
        /// The columns of an image.
        width: usize,
    },
    /// A channel has too few values to have a variance.
    #[error("a channel has too few values for a variance ({values}); train on larger batches")]
    NoVariance {
        /// The values in each channel.
        values: usize,
    },
    /// A token's id is not in the vocabulary.
    #[error("token id {id}, and the last is {}", tokens.saturating_sub(1))]
    TokenId {
        /// The id.
        id: usize,
        /// The number of tokens.
        tokens: usize,
    },
    /// There is not one label for each row.
    #[error("{labels} labels for {rows} rows")]
    Labels {
        /// The labels.
        labels: usize,
        /// The rows.
        rows: usize,
    },
    /// A label is no class.
    #[error("label {label}, and the last is {}", classes.saturating_sub(1))]
    Label {
        /// The label.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// Rows cannot be added to another number of rows.
    #[error("{rows} rows to add to {onto}")]
    Rows {
        /// The rows that were to be added.
        rows: usize,
        /// The rows that they were to be added to.
        onto: usize,
    },
    /// Queries, keys or values are not the rows of so many sequences.
    #[error(
        "{rows} rows of {of}, but {batch} sequences of {length} need {}",
        batch.saturating_mul(*length)
    )]
    SequenceRows {
        /// `queries`, `keys` or `values`.
        of: &'static str,
        /// The rows.
        rows: usize,
        /// The number of sequences.
        batch: usize,
        /// The length of a sequence.
        length: usize,
    },
    /// A padding is not that of the keys.
    #[error(
        "a padding of {} sequences of {} for {} of {} keys",
        padding.0, padding.1, keys.0, keys.1
    )]
    Padding {
        /// The padding's number of sequences and their length.
        padding: (usize, usize),
        /// The number of sequences of keys, and their length.
        keys: (usize, usize),
    },
    /// Queries, keys and values are not of the same number of sequences, or keys and values not of
    /// the same length.
    #[error(
        "{queries} queries, {} sequences of {} keys, {} of {} values",
        keys.0, keys.1, values.0, values.1
    )]
    Sequences {
        /// The number of sequences of queries.
        queries: usize,
        /// The number of sequences of keys, and their length.
        keys: (usize, usize),
        /// The number of sequences of values, and their length.
        values: (usize, usize),
    },
}
