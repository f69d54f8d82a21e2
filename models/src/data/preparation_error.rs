//! Why pictures cannot be prepared as asked for.

/// What is wrong with a `Preparation` of pictures.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PreparationError {
    /// Pictures would have no pixels.
    #[error("the side is 0")]
    NoSide,
    /// The shorter side does not hold the square that is cut out of it, or is too long.
    #[error(
        "the shorter side is resized to {shorter} pixels, and has to be from {least} to {most}"
    )]
    ShorterSide {
        /// The pixels that it would be resized to.
        shorter: u32,
        /// The side of the square.
        least: u32,
        /// The most pixels.
        most: u32,
    },
    /// A mean is not finite.
    #[error("the mean of channel {channel} is {value}, and has to be finite")]
    Mean {
        /// The channel, counted from 0.
        channel: usize,
        /// The mean.
        value: f32,
    },
    /// A deviation is not finite and above 0.
    #[error("the deviation of channel {channel} is {value}, and has to be finite and above 0")]
    Deviation {
        /// The channel, counted from 0.
        channel: usize,
        /// The deviation.
        value: f32,
    },
}
