//! What pixels become before a model sees them.

use std::{fmt, str::FromStr};

/// What each pixel byte of each channel becomes before it enters a model; see
/// [`Images::scaling`](super::Images::scaling).
///
/// As a text it can be kept beside the model that it belongs to.
///
/// ```
/// use tlr_models::data::{Images, Scaling};
///
/// let scaling = Images::new(vec![0, 200], vec![0], [1, 1, 2], 1)?.scaling();
/// assert_eq!(scaling.to_string(), "100 100");
/// assert_eq!(scaling.channels(), 1);
/// assert_eq!("100 100".parse::<Scaling>().unwrap(), scaling);
/// assert_eq!((scaling.of(0, 50), scaling.of(1, 50)), (Some(-0.5), None));
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling(Vec<Channel>);

#[derive(Clone, Debug, PartialEq)]
struct Channel {
    mean: f64,
    deviation: f64,
    table: [f32; 256],
}

impl Channel {
    fn new(mean: f64, deviation: f64) -> Self {
        let table = std::array::from_fn(|byte| ((byte as f64 - mean) / deviation) as f32);
        Self { mean, deviation, table }
    }

    /// The scaling of bytes of which byte b occurs `counts[b]` times, `total` in all.
    fn of_counts(counts: &[u64; 256], total: f64) -> Self {
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            (0..).zip(counts).map(|(byte, &count)| f(f64::from(byte)) * count as f64).sum::<f64>()
                / total
        };
        let mean = mean_of(&|byte| byte);
        let deviation = mean_of(&|byte| (byte - mean).powi(2)).sqrt();
        // A channel of a single shade has no deviation, and nothing to scale.
        Self::new(mean, if deviation > 0.0 { deviation } else { 1.0 })
    }
}

impl Scaling {
    pub(super) fn of_counts(counts: &[[u64; 256]], total: f64) -> Self {
        Self(counts.iter().map(|counts| Channel::of_counts(counts, total)).collect())
    }

    /// The number of channels.
    ///
    /// Example: [`Scaling`].
    pub fn channels(&self) -> usize {
        self.0.len()
    }

    /// The value of a pixel byte of channel `channel`, counted from 0. None if `channel` is not
    /// below [`channels`](Self::channels).
    ///
    /// Example: [`Scaling`].
    pub fn of(&self, channel: usize, byte: u8) -> Option<f32> {
        self.0.get(channel).map(|channel| channel.table[usize::from(byte)])
    }

    /// What the bytes of each channel become.
    pub(super) fn tables(&self) -> impl Iterator<Item = &[f32; 256]> {
        self.0.iter().map(|channel| &channel.table)
    }
}

/// Mean and deviation of each channel, with commas between channels.
impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Channel { mean, deviation, .. }) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{mean} {deviation}")?;
        }
        Ok(())
    }
}

/// A text that is no scaling of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mean and a deviation above 0 for each channel")]
pub struct NoScaling(String);

impl FromStr for Scaling {
    type Err = NoScaling;

    fn from_str(text: &str) -> Result<Self, NoScaling> {
        let channel = |text: &str| {
            let (mean, deviation) = text.trim().split_once(' ')?;
            let (mean, deviation) = (mean.parse::<f64>().ok()?, deviation.parse::<f64>().ok()?);
            let sound = mean.is_finite() && deviation.is_finite() && deviation > 0.0;
            sound.then(|| Channel::new(mean, deviation))
        };
        let channels = text.split(',').map(channel).collect::<Option<_>>();
        channels.map(Self).ok_or_else(|| NoScaling(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_text_gives_the_same_scaling() {
        let counts = [[3; 256], std::array::from_fn(|byte| byte as u64 % 7)];
        let scaling = Scaling::of_counts(&counts, 1234.0);
        assert_eq!(scaling.to_string().parse(), Ok(scaling));
        for text in ["", "1", "1 0", "1 -1", "nan 1", "1 inf", "1 1,", "1 1 1"] {
            assert!(text.parse::<Scaling>().is_err(), "{text}");
        }
    }
}
