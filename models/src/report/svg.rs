//! SVG, written element by element: the one way in which this project draws.

use super::color::{Color, TEXT, WHITE};
use std::fmt::{Arguments, Write};

/// A picture that is being drawn. Lengths are in pixels, from the upper left corner.
pub(crate) struct Svg(String);

/// How a line is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Stroke {
    pub(crate) color: Color,
    pub(crate) width: f64,
    pub(crate) opacity: f64,
    /// The lengths of dashes and of the gaps between them; empty for none.
    pub(crate) dashes: &'static str,
}

/// A solid line.
pub(crate) const fn stroke(color: Color, width: f64) -> Stroke {
    Stroke { color, width, opacity: 1.0, dashes: "" }
}

/// How a text is set.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) color: Color,
    pub(crate) size: f64,
    /// Which end of the text stands at its place: "start", "middle" or "end".
    pub(crate) anchor: &'static str,
    pub(crate) bold: bool,
    /// Whether the text is turned, to be read from bottom to top.
    pub(crate) upright: bool,
}

pub(crate) const LABEL: Style =
    Style { color: TEXT, size: 13.5, anchor: "start", bold: false, upright: false };
pub(crate) const MIDDLE: Style = Style { anchor: "middle", ..LABEL };
pub(crate) const END: Style = Style { anchor: "end", ..LABEL };
pub(crate) const UPRIGHT: Style = Style { upright: true, ..MIDDLE };
pub(crate) const TITLE: Style = Style { size: 17.0, bold: true, ..LABEL };

impl Svg {
    pub(crate) fn new() -> Self {
        Self(String::new())
    }

    fn add(&mut self, element: Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{element}");
    }

    pub(crate) fn rectangle(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], fill: Color) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{fill}\"/>"
        ));
    }

    pub(crate) fn line(&mut self, points: impl IntoIterator<Item = [f64; 2]>, stroke: Stroke) {
        let Stroke { color, width, .. } = stroke;
        let points = listed(points);
        let opacity = match stroke.opacity {
            1.0 => String::new(),
            opacity => format!(" stroke-opacity=\"{opacity}\""),
        };
        let dashes = match stroke.dashes {
            "" => String::new(),
            dashes => format!(" stroke-dasharray=\"{dashes}\""),
        };
        self.add(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" \
             stroke-width=\"{width}\"{opacity}{dashes}/>"
        ));
    }

    /// A triangle that points down to `[x, y]`.
    pub(crate) fn triangle(&mut self, [x, y]: [f64; 2], fill: Color) {
        let points = listed([[x - 4.5, y - 8.0], [x + 4.5, y - 8.0], [x, y]]);
        self.add(format_args!(r#"<polygon points="{points}" fill="{fill}"/>"#));
    }

    /// A disc with an edge, and words that are shown if one points at it.
    pub(crate) fn disc(
        &mut self,
        [x, y]: [f64; 2],
        radius: f64,
        [fill, edge]: [Color; 2],
        words: &str,
    ) {
        let words = match words {
            "" => String::new(),
            words => format!("<title>{}</title>", escaped(words)),
        };
        self.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\" stroke=\"{edge}\">\
             {words}</circle>"
        ));
    }

    /// A text whose middle is as high as `y`.
    pub(crate) fn text(&mut self, [x, y]: [f64; 2], text: &str, style: Style) {
        if text.is_empty() {
            return;
        }
        let Style { color, size, anchor, .. } = style;
        let weight = if style.bold { r#" font-weight="bold""# } else { "" };
        let turned = match style.upright {
            true => format!(r#" transform="rotate(270 {x:.1} {y:.1})""#),
            false => String::new(),
        };
        let text = escaped(text);
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" dy=\"0.5ex\" text-anchor=\"{anchor}\" \
             font-size=\"{size}\" fill=\"{color}\"{weight}{turned}>{text}</text>"
        ));
    }

    /// The file, on white.
    pub(crate) fn finish(self, width: f64, height: f64) -> String {
        let (width, height, elements) = (width.ceil(), height.ceil(), self.0);
        format!(
            "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" font-family=\"sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"{WHITE}\"/>\n{elements}</svg>\n"
        )
    }
}

fn listed(points: impl IntoIterator<Item = [f64; 2]>) -> String {
    points.into_iter().fold(String::new(), |mut all, [x, y]| {
        let _ = write!(all, "{x:.1},{y:.1} ");
        all
    })
}

/// Text that XML and HTML do not take for tags.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The width of a text. Only the viewer knows the font, hence a generous estimate.
pub(crate) fn text_width(text: &str) -> f64 {
    8.0 * text.chars().count() as f64
}

/// A text without what XML or a single line cannot hold, cut to `limit` characters.
pub(crate) fn legible(text: &str, limit: usize) -> String {
    let allowed = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let mut characters = text.chars().filter(allowed);
    let mut kept: String = characters.by_ref().take(limit).collect();
    if characters.next().is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}
