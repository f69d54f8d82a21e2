//! What all pictures have in common: an SVG to draw on, its sizes, its colours and its texts.

use super::ReportError;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// The backend rounds positions to whole numbers. Drawing at twice the size and scaling back keeps
/// curves smooth; all lengths below are doubled.
pub(super) const SCALE: u32 = 2;
pub(super) const WIDTH: u32 = 900;
pub(super) const LEFT: i32 = 204;
pub(super) const RIGHT: i32 = 44;
/// The backend divides font sizes by this.
pub(super) const FONT_UNIT: f64 = 1.24;
pub(super) const TITLE_SIZE: f64 = 34.0 * FONT_UNIT;
pub(super) const TEXT_SIZE: f64 = 27.0 * FONT_UNIT;
pub(super) const TEXT: RGBColor = RGBColor(51, 51, 51);
pub(super) const AXIS: RGBColor = RGBColor(140, 140, 140);

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(super) type Drawn<'a, T = ()> =
    Result<T, DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// Draws an SVG of `width` x `height` pixels on an area of twice the size.
pub(super) fn svg(
    width: u32,
    height: u32,
    draw: impl for<'a> FnOnce(&Area<'a>) -> Drawn<'a>,
) -> Result<String, ReportError> {
    let (inner_width, inner_height) = (SCALE * width, SCALE * height);
    let mut svg = String::new();
    {
        let root =
            SVGBackend::with_string(&mut svg, (inner_width, inner_height)).into_drawing_area();
        let drawn = root.fill(&WHITE).and_then(|()| draw(&root)).and_then(|()| root.present());
        drawn.map_err(|error| ReportError::Draw { reason: error.to_string() })?;
    }
    Ok(svg.replacen(
        &format!("width=\"{inner_width}\" height=\"{inner_height}\""),
        &format!("width=\"{width}\" height=\"{height}\""),
        1,
    ))
}

/// The width of a text. Only the viewer knows the font, hence a generous estimate.
pub(super) fn text_width(text: &str) -> i32 {
    16 * text.chars().count() as i32
}

pub(super) fn text(size: f64, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_text_style(&(1, 1)).color(&TEXT).pos(Pos::new(horizontal, vertical))
}

/// A text without what XML or a single line cannot hold, cut to `limit` characters.
pub(super) fn legible(text: &str, limit: usize) -> String {
    let allowed = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let mut characters = text.chars().filter(allowed);
    let mut kept: String = characters.by_ref().take(limit).collect();
    if characters.next().is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}

/// The colour at `part` (from 0 to 1, clamped) of the way along `ramp`.
pub(super) fn between<const N: usize>(ramp: &[RGBColor; N], part: f64) -> RGBColor {
    let place = part.clamp(0.0, 1.0) * (N - 1) as f64;
    let below = (place as usize).min(N - 2);
    let (RGBColor(r, g, b), RGBColor(to_r, to_g, to_b)) = (ramp[below], ramp[below + 1]);
    let weight = place - below as f64;
    let mix = |from: u8, to: u8| {
        (f64::from(from) + weight * (f64::from(to) - f64::from(from))).round() as u8
    };
    RGBColor(mix(r, to_r), mix(g, to_g), mix(b, to_b))
}

/// The contrast of two colours as WCAG 2 defines it, from 1 to 21.
pub(super) fn contrast(a: RGBColor, b: RGBColor) -> f64 {
    let linear = |channel: u8| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    };
    let luminance =
        |RGBColor(r, g, b): RGBColor| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let [a, b] = [a, b].map(|color| luminance(color) + 0.05);
    a.max(b) / a.min(b)
}
