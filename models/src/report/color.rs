//! Colours: those that tell lines apart, ramps between them, and how well they are read.

use std::fmt;

/// A colour's red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Color(pub(crate) u8, pub(crate) u8, pub(crate) u8);

pub(crate) const BLACK: Color = Color(0, 0, 0);
pub(crate) const WHITE: Color = Color(255, 255, 255);
pub(crate) const TEXT: Color = Color(51, 51, 51);
pub(crate) const AXIS: Color = Color(140, 140, 140);
pub(crate) const GRID: Color = Color(222, 222, 222);

// The colours of Okabe and Ito, which colour-blind readers can tell apart.
pub(crate) const BLUE: Color = Color(0, 114, 178);
pub(crate) const VERMILION: Color = Color(213, 94, 0);
pub(crate) const GREEN: Color = Color(0, 158, 115);
pub(crate) const PURPLE: Color = Color(204, 121, 167);
pub(crate) const ORANGE: Color = Color(230, 159, 0);
pub(crate) const SKY: Color = Color(86, 180, 233);

impl fmt::Display for Color {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "#{:02X}{:02X}{:02X}", self.0, self.1, self.2)
    }
}

impl Color {
    /// The colour at `part` (from 0 to 1, clamped) of the way along `ramp`.
    pub(super) fn between<const N: usize>(ramp: &[Self; N], part: f64) -> Self {
        let place = part.clamp(0.0, 1.0) * (N - 1) as f64;
        let below = (place as usize).min(N - 2);
        let (from, to, weight) = (ramp[below], ramp[below + 1], place - below as f64);
        let mix = |from: u8, to: u8| {
            (f64::from(from) + weight * (f64::from(to) - f64::from(from))).round() as u8
        };
        Self(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
    }

    /// The contrast to another colour as WCAG 2 defines it, from 1 to 21.
    pub(super) fn contrast(self, other: Self) -> f64 {
        let linear = |channel: u8| match f64::from(channel) / 255.0 {
            c if c <= 0.04045 => c / 12.92,
            c => ((c + 0.055) / 1.055).powf(2.4),
        };
        let [a, b] = [self, other].map(|Self(red, green, blue)| {
            0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue) + 0.05
        });
        a.max(b) / a.min(b)
    }
}
