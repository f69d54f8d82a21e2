//! What can go wrong in a layer.

/// Why a layer could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError<Err> {
    /// The input does not fit the layer. Only its shape at run time shows that. Nothing was
    /// computed.
    #[error("{layer}: {what}")]
    Shape {
        /// The layer, with the sizes that it was made for.
        layer: String,
        /// What does not fit, and what would.
        what: String,
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
