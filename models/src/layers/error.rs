/// Why a layer could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError<Err> {
    /// The input has a shape that only running can tell does not fit; nothing was computed.
    #[error("{layer}: {what}")]
    Shape {
        /// Which layer, with the sizes it was made for.
        layer: String,
        /// What does not fit, and what would.
        what: String,
    },
    /// Of the device, such as no memory left.
    #[error("device: {0:?}")]
    Device(Err),
}

impl<Err> From<Err> for LayerError<Err> {
    fn from(error: Err) -> Self {
        Self::Device(error)
    }
}
