//! The drawing behind every report that is an SVG.

use std::ops::Range;

use plotters::{
    coord::{
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
        Shift,
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::ReportError;

/// The backend rounds positions to whole numbers. Drawing at twice the size
/// and scaling back keeps curves smooth; all lengths below are doubled.
const SCALE: u32 = 2;
const WIDTH: u32 = 900;

const TITLE: i32 = 84;
const LEGEND_ROW: i32 = 44;
pub(super) const LEFT: i32 = 204;
pub(super) const RIGHT: i32 = 44;
const X_AXIS: i32 = 92;
const QUANTITY: i32 = 30;
const PANEL_GAP: i32 = 22;

/// The backend divides font sizes by this.
const FONT_UNIT: f64 = 1.24;
pub(super) const TITLE_SIZE: f64 = 34.0 * FONT_UNIT;
pub(super) const TEXT_SIZE: f64 = 27.0 * FONT_UNIT;

pub(super) const ROLLBACK: RGBColor = RGBColor(68, 68, 68);
pub(super) const TEXT: RGBColor = RGBColor(51, 51, 51);
pub(super) const AXIS: RGBColor = RGBColor(140, 140, 140);
const GRID: RGBColor = RGBColor(222, 222, 222);
const FINE_GRID: RGBColor = RGBColor(243, 243, 243);

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

/// Panels above each other, over the same epochs.
pub(super) struct Figure {
    /// What stands above the panels, made legible.
    pub(super) title: String,
    pub(super) panels: Vec<Panel>,
    /// The epoch at which the axis ends.
    pub(super) end: f64,
    pub(super) rollbacks: Vec<f64>,
}

pub(super) struct Panel {
    pub(super) quantity: &'static str,
    pub(super) lines: Vec<Line>,
    pub(super) legend: Vec<Entry>,
}

pub(super) struct Line {
    /// The name in the legend, made legible.
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) color: RGBColor,
    /// The width and the opacity of the line.
    pub(super) stroke: (u32, f64),
    /// Whether to mark the single points.
    pub(super) dots: bool,
}

impl Line {
    pub(super) fn entry(&self) -> Entry {
        Entry { text: self.name.clone(), sample: Sample::Line, color: self.color }
    }
}

/// The epoch at which an axis over all of `epochs` ends.
pub(super) fn last_epoch(epochs: impl Iterator<Item = f64>) -> f64 {
    let end = epochs.fold(0.0, f64::max);
    // Shorter runs are a point on the axis, for which no step is small enough.
    if end >= 1e-6 {
        end
    } else {
        1.0
    }
}

impl Figure {
    /// The figure as the text of an SVG file.
    pub(super) fn to_svg(&self) -> Result<String, ReportError> {
        let legends: Vec<Legend> =
            self.panels.iter().map(|panel| Legend::new(&panel.legend)).collect();
        // The first rows of a legend are at the expense of its panel.
        let rows: usize =
            legends.iter().map(|legend| legend.rows().saturating_sub(FREE_ROWS)).sum();
        let height = 160 + 240 * self.panels.len().max(1) as u32;
        let height = height + rows as u32 * LEGEND_ROW as u32 / SCALE;
        svg(WIDTH, height, |root| self.draw(root, &legends))
    }

    fn draw<'a>(&self, root: &Area<'a>, legends: &[Legend]) -> Drawn<'a> {
        let mut rest = root.margin(14, 14, 0, 0);
        if !self.title.is_empty() {
            let (title, below) = rest.split_vertically(TITLE - 28);
            let bold = ("sans-serif", TITLE_SIZE).into_font().style(FontStyle::Bold);
            let style = TextStyle::from(bold).color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center));
            title.draw_text(&self.title, &style, (LEFT, (TITLE - 28) / 2))?;
            rest = below;
        }
        let (_, height) = rest.dim_in_pixel();
        let count = self.panels.len() as i32;
        let above: i32 = legends.iter().map(Legend::height).sum();
        let share = (height as i32 - X_AXIS - above) / count.max(1);
        for (i, (panel, legend)) in self.panels.iter().zip(legends).enumerate() {
            let last = i + 1 == self.panels.len();
            let (area, below) = if last {
                (rest.clone(), rest.clone())
            } else {
                rest.split_vertically(legend.height() + share)
            };
            let area = legend.draw(&area)?;
            self.draw_panel(panel, &area, last)?;
            rest = below;
        }
        Ok(())
    }

    fn draw_panel<'a>(&self, panel: &Panel, area: &Area<'a>, last: bool) -> Drawn<'a> {
        let (low, high) = decades(panel.lines.iter().flat_map(|line| &line.points));
        let mut x_axis = epoch_axis(self.end);
        if !last {
            x_axis.labelled.iter_mut().for_each(|tick| tick.1.clear());
        }
        let mut chart = ChartBuilder::on(area)
            .margin_right(RIGHT)
            .margin_bottom(if last { 0 } else { PANEL_GAP })
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, if last { X_AXIS } else { 1 })
            .build_cartesian_2d(x_axis, value_axis(low, high))?;
        let mut mesh = chart.configure_mesh();
        mesh.bold_line_style(GRID.stroke_width(2))
            .light_line_style(FINE_GRID.stroke_width(2))
            .axis_style(AXIS.stroke_width(2))
            .label_style(text(TEXT_SIZE, HPos::Left, VPos::Top));
        if last {
            mesh.x_desc("epoch").set_tick_mark_size(LabelAreaPosition::Bottom, 8);
        } else {
            mesh.set_tick_mark_size(LabelAreaPosition::Bottom, 0);
        }
        mesh.set_tick_mark_size(LabelAreaPosition::Left, 8).draw()?;
        let (columns, rows) = chart.plotting_area().dim_in_pixel();
        let middle = (LEFT + columns as i32 / 2, rows as i32 / 2);
        let style = text(TEXT_SIZE, HPos::Center, VPos::Center).transform(FontTransform::Rotate270);
        area.draw_text(panel.quantity, &style, (QUANTITY, middle.1))?;

        for &epoch in &self.rollbacks {
            let line = [(epoch, low), (epoch, high)];
            let style = ROLLBACK.mix(0.45).stroke_width(2);
            chart.draw_series(std::iter::once(PathElement::new(line, style)))?;
        }
        for line in &panel.lines {
            let points = line.points.iter().map(|&(epoch, value)| (epoch, value.log10()));
            let (width, opacity) = line.stroke;
            let style = line.color.mix(opacity).stroke_width(width);
            chart.draw_series(LineSeries::new(points.clone(), style))?;
            let one_point = line.points.windows(2).all(|pair| pair[0] == pair[1]);
            if line.dots || one_point {
                chart.draw_series(points.map(|at| Circle::new(at, 7, line.color.filled())))?;
            }
        }
        if last {
            for &epoch in &self.rollbacks {
                let corners = vec![(-9, 0), (9, 0), (0, 16)];
                let marker = EmptyElement::at((epoch, high)) + Polygon::new(corners, ROLLBACK);
                chart.draw_series(std::iter::once(marker))?;
            }
        }
        if panel.lines.is_empty() {
            let style = text(TEXT_SIZE, HPos::Center, VPos::Center).color(&AXIS);
            area.draw_text("no data", &style, middle)?;
        }
        Ok(())
    }
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) text: String,
    pub(super) sample: Sample,
    pub(super) color: RGBColor,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sample {
    Line,
    Triangle,
    Nothing,
}

impl Sample {
    /// The width with the space before the text.
    fn width(self) -> i32 {
        match self {
            Self::Line => 44 + 12,
            Self::Triangle => 18 + 12,
            Self::Nothing => 0,
        }
    }
}

impl Entry {
    /// The width of the sample and the text, and the space up to the next
    /// entry.
    fn width(&self) -> i32 {
        self.sample.width() + text_width(&self.text) + 36
    }
}

/// The width of a text. Only the viewer knows the font, hence a generous
/// estimate.
pub(super) fn text_width(text: &str) -> i32 {
    16 * text.chars().count() as i32
}

const LEGEND_ROWS: usize = 6;
/// The rows of a legend for which a figure does not grow.
const FREE_ROWS: usize = 4;

/// The entries of a legend with their places: the row, and where they begin.
struct Legend(Vec<(Entry, usize, i32)>);

impl Legend {
    /// Places the entries in rows. When they do not fit, the last ones of
    /// lines are left out and counted.
    fn new(entries: &[Entry]) -> Self {
        let mut entries = entries.to_vec();
        let mut left_out = 0;
        loop {
            let more = (left_out > 0).then(|| Entry {
                text: format!("… and {left_out} more"),
                sample: Sample::Nothing,
                color: TEXT,
            });
            let legend = Self::place(entries.iter().chain(&more));
            let spare = entries.iter().rposition(|entry| entry.sample == Sample::Line);
            match spare {
                Some(spare) if legend.rows() > LEGEND_ROWS => entries.remove(spare),
                _ => return legend,
            };
            left_out += 1;
        }
    }

    fn place<'e>(entries: impl Iterator<Item = &'e Entry>) -> Self {
        let right = (SCALE * WIDTH) as i32 - RIGHT;
        let (mut row, mut x) = (0, LEFT);
        let mut places = Vec::new();
        for entry in entries {
            if x > LEFT && x + entry.width() > right {
                (row, x) = (row + 1, LEFT);
            }
            places.push((entry.clone(), row, x));
            x += entry.width();
        }
        Self(places)
    }

    fn rows(&self) -> usize {
        self.0.last().map_or(0, |(_, row, _)| row + 1)
    }

    fn height(&self) -> i32 {
        self.rows() as i32 * LEGEND_ROW + 8
    }

    /// Draws the legend above the plot, where it can cover nothing, and
    /// returns the area below.
    fn draw<'a>(&self, area: &Area<'a>) -> Drawn<'a, Area<'a>> {
        let (strip, below) = area.split_vertically(self.height());
        let style = text(TEXT_SIZE, HPos::Left, VPos::Center);
        for (entry, row, x) in &self.0 {
            let y = *row as i32 * LEGEND_ROW + LEGEND_ROW / 2;
            let begin = x + entry.sample.width();
            let end = begin - 12;
            match entry.sample {
                Sample::Line => {
                    let line = [(*x, y), (end, y)];
                    strip.draw(&PathElement::new(line, entry.color.stroke_width(5)))?;
                }
                Sample::Triangle => {
                    let corners = vec![(*x, y - 8), (end, y - 8), ((x + end) / 2, y + 8)];
                    strip.draw(&Polygon::new(corners, entry.color))?;
                }
                Sample::Nothing => {}
            }
            strip.draw_text(&entry.text, &style, (begin, y))?;
        }
        Ok(below)
    }
}

pub(super) fn text(size: f64, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_text_style(&(1, 1)).color(&TEXT).pos(Pos::new(horizontal, vertical))
}

/// A text without what XML or a single line cannot hold, cut to `limit`
/// characters.
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

pub(super) fn is_epoch(epoch: &f64) -> bool {
    (0.0..=1e9).contains(epoch)
}

pub(super) fn drawable(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = points
        .iter()
        .copied()
        .filter(|(epoch, value)| is_epoch(epoch) && *value > 0.0 && value.is_finite())
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// The corners of a line that keeps each value until the next epoch.
pub(super) fn steps(points: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let mut corners = Vec::with_capacity(2 * points.len());
    for (i, &(epoch, value)) in points.iter().enumerate() {
        let until = points.get(i + 1).map_or(end, |next| next.0);
        corners.extend([(epoch, value), (until, value)]);
    }
    corners
}

/// The decimal logarithms of the smallest and the largest value, with some
/// room around them.
fn decades<'p>(points: impl Iterator<Item = &'p (f64, f64)>) -> (f64, f64) {
    let (low, high) = points
        .map(|point| point.1.log10())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    if low > high {
        return (-1.0, 0.0);
    }
    let room = (0.06 * (high - low)).max(0.1 - 0.5 * (high - low)).max(0.02);
    // The markers of rollbacks hang from the upper edge.
    (low - room, high + 1.5 * room)
}

/// A linear axis that knows its ticks.
struct Axis {
    range: Range<f64>,
    /// The ticks with a label.
    labelled: Vec<(f64, String)>,
    /// The positions of fine grid lines.
    fine: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        start + (part * f64::from(end - start)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            self.fine.clone()
        } else {
            self.labelled.iter().map(|tick| tick.0).collect()
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.labelled.iter().find(|tick| tick.0 == *value);
        tick.map_or(String::new(), |tick| tick.1.clone())
    }
}

/// The axis for decimal logarithms of values, labelled with the values.
fn value_axis(low: f64, high: f64) -> Axis {
    const BETWEEN: [f64; 8] = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let span = high - low;
    let inside = |y: &f64| (low..=high).contains(y);
    let exponents = || (low.floor() as i32)..=(high.ceil() as i32);
    let multiples = |factors: &'static [f64]| {
        exponents()
            .flat_map(move |e| factors.iter().map(move |&f| (f, e)))
            .map(|(f, e)| (f.log10() + f64::from(e), f, e))
            .filter(move |tick| inside(&tick.0))
    };
    let (labelled, fine) = if span >= 2.2 {
        let stride = (span / 6.0).ceil() as i32;
        let labelled = exponents()
            .filter(|e| e.rem_euclid(stride) == 0)
            .map(|e| (f64::from(e), power(e)))
            .filter(|tick| inside(&tick.0))
            .collect();
        let fine = if stride == 1 { &BETWEEN[..] } else { &[] };
        (labelled, multiples(fine).map(|tick| tick.0).collect())
    } else if span >= 0.8 {
        let labelled =
            multiples(&[1.0, 2.0, 5.0]).map(|(y, factor, e)| (y, product(factor, 0, e))).collect();
        (labelled, multiples(&BETWEEN).map(|tick| tick.0).collect())
    } else {
        // So little of a decade is nearly linear.
        let e = high.floor() as i32;
        let [bottom, top] = [low, high].map(|y| 10_f64.powf(y - f64::from(e)));
        let (factors, digits) = round_numbers(bottom, top, 6.0);
        let labelled = factors
            .into_iter()
            .map(|factor| (factor.log10() + f64::from(e), product(factor, digits, e)))
            .filter(|tick| inside(&tick.0))
            .collect();
        (labelled, Vec::new())
    };
    Axis { range: low..high, labelled, fine }
}

fn epoch_axis(end: f64) -> Axis {
    let (ticks, digits) = round_numbers(0.0, end, 10.0);
    let label = |epoch: f64| (epoch, format!("{epoch:.digits$}"));
    Axis { range: 0.0..end, labelled: ticks.into_iter().map(label).collect(), fine: Vec::new() }
}

/// Round numbers between `low` and `high`, about `count` of them, and how many
/// decimals they have.
fn round_numbers(low: f64, high: f64, count: f64) -> (Vec<f64>, usize) {
    let rough = (high - low) / count;
    let exponent = rough.log10().floor();
    let unit = 10_f64.powf(exponent);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * unit >= rough * 0.999);
    let step = factor.unwrap_or(10.0) * unit;
    let (first, last) = ((low / step).ceil() as i64, (high / step * 1.000_001).floor() as i64);
    // The bound is for ranges too narrow to be told apart.
    let ticks = (first..=last).take(50).map(|i| i as f64 * step).collect();
    let digits = -step.log10().floor();
    (ticks, if digits > 0.0 { digits as usize } else { 0 })
}

/// `factor` times ten to the power of `exponent`, with `digits` decimals in
/// the factor.
pub(super) fn product(factor: f64, digits: usize, exponent: i32) -> String {
    if (-3..=3).contains(&exponent) {
        let decimals = (digits as i32 - exponent).max(0) as usize;
        format!("{:.decimals$}", factor * 10_f64.powi(exponent))
    } else if factor == 1.0 && digits == 0 {
        power(exponent)
    } else {
        format!("{factor:.digits$}×{}", power(exponent))
    }
}

/// Ten to the power of `exponent`, as `10⁻⁶`.
fn power(exponent: i32) -> String {
    let superscript = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        '9' => '⁹',
        _ => '⁰',
    };
    let exponent: String = exponent.to_string().chars().map(superscript).collect();
    format!("10{exponent}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn axes_are_labelled_with_what_they_span() {
        let labels = |low: f64, high: f64| -> Vec<String> {
            let axis = value_axis(low.log10(), high.log10());
            axis.labelled.into_iter().map(|tick| tick.1).collect()
        };
        assert_eq!(labels(0.5e-6, 2e-3), ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³"]);
        assert_eq!(labels(1.5e-12, 1.5), ["10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "10⁰"]);
        assert_eq!(labels(0.04, 1.5), ["0.05", "0.1", "0.2", "0.5", "1"]);
        assert_eq!(labels(4e-6, 6e-5), ["5×10⁻⁶", "10⁻⁵", "2×10⁻⁵", "5×10⁻⁵"]);
        assert_eq!(labels(0.41, 0.49), ["0.42", "0.44", "0.46", "0.48"]);
        assert_eq!(labels(0.97e-6, 1.35e-6), ["1.0×10⁻⁶", "1.1×10⁻⁶", "1.2×10⁻⁶", "1.3×10⁻⁶"]);
        let epochs = |end| epoch_axis(end).labelled.into_iter().map(|tick| tick.1);
        assert_eq!(
            epochs(3.0).collect::<Vec<_>>(),
            ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]
        );
        assert_eq!(epochs(10.0).next_back().unwrap(), "10");
        assert_eq!(epochs(95.0).next_back().unwrap(), "90");
    }

    #[test]
    fn names_are_cut_to_what_a_line_of_xml_holds() {
        assert_eq!(legible("a\u{1}b\nc\u{ffff}", 10), "abc");
        assert_eq!(legible("abcdé", 5), "abcdé");
        assert_eq!(legible("abcdéf", 5), "abcd…");
    }

    fn entries(count: usize, length: usize) -> Vec<Entry> {
        let text = "x".repeat(length);
        vec![Entry { text, sample: Sample::Line, color: TEXT }; count]
    }

    // Fails with fewer rows, or with rows that are filled less.
    #[test]
    fn a_legend_holds_twelve_of_the_longest_names() {
        let legend = Legend::new(&entries(12, 32));
        assert_eq!((legend.0.len(), legend.rows()), (12, LEGEND_ROWS));
        assert!(legend.0.iter().all(|(entry, ..)| entry.sample == Sample::Line));
    }

    // Fails when entries vanish uncounted, or the marker of rollbacks does.
    #[test]
    fn a_legend_counts_what_it_leaves_out() {
        let mut all = entries(40, 32);
        all.push(Entry { text: "rollback (1)".into(), sample: Sample::Triangle, color: ROLLBACK });
        let legend = Legend::new(&all);
        let texts: Vec<&str> = legend.0.iter().map(|(entry, ..)| entry.text.as_str()).collect();
        let lines = texts.iter().filter(|text| text.starts_with('x')).count();
        assert!(lines >= 10 && legend.rows() == LEGEND_ROWS, "{texts:?}");
        assert_eq!(texts[lines..], ["rollback (1)", &format!("… and {} more", 40 - lines)]);
    }
}
