use std::{ops::Range, path::Path};

use plotters::{
    coord::{
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
        Shift,
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::ReportError;

/// The curves of a training run, to be drawn as two panels over the same
/// epochs: the loss above and the learning rates below.
///
/// Both panels have logarithmic axes, so points whose value is not a positive
/// finite number are left out, and so are points and rollbacks whose epoch is
/// negative, not finite or beyond a thousand million. Points may come in any
/// order. A run without learning rates gets the upper panel only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// What stands above the panels; empty for nothing.
    pub title: String,
    /// The training loss: pairs of epoch (with fractions) and loss.
    pub train_loss: Vec<(f64, f64)>,
    /// The test loss: pairs of epoch and loss.
    pub test_loss: Vec<(f64, f64)>,
    /// The learning rates, drawn as steps: a rate holds until the next point.
    pub rates: Vec<Rate>,
    /// The epochs (with fractions) at which training was rolled back.
    pub rollbacks: Vec<f64>,
}

/// The course of one learning rate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rate {
    /// The name in the legend, usually that of the layer.
    pub name: String,
    /// Pairs of epoch (with fractions) and learning rate.
    pub points: Vec<(f64, f64)>,
}

impl Curves {
    /// Draws the curves into the file `path`, as an SVG of 900x640 pixels (900
    /// x 400 without learning rates). An existing file is replaced.
    ///
    /// # Errors
    ///
    /// [`ReportError::Io`] when the file cannot be written, and
    /// [`ReportError::Draw`] should the plotting library fail.
    pub fn write_svg(&self, path: &Path) -> Result<(), ReportError> {
        std::fs::write(path, self.to_svg()?)
            .map_err(|source| ReportError::Io { path: path.to_owned(), source })
    }

    /// The curves as the text of an SVG file.
    ///
    /// # Errors
    ///
    /// [`ReportError::Draw`] should the plotting library fail.
    ///
    /// ```
    /// use tlr_models::report::{Curves, Rate};
    ///
    /// let curves = Curves {
    ///     title: "A short run".into(),
    ///     train_loss: vec![(0.0, 2.3), (0.5, 0.6), (1.0, 0.3)],
    ///     test_loss: vec![(1.0, 0.35)],
    ///     rates: vec![Rate { name: "fc1".into(), points: vec![(0.0, 1e-3), (0.5, 2e-3)] }],
    ///     rollbacks: vec![0.7],
    /// };
    /// assert!(curves.to_svg()?.starts_with("<svg"));
    /// # Ok::<(), tlr_models::report::ReportError>(())
    /// ```
    pub fn to_svg(&self) -> Result<String, ReportError> {
        let figure = Figure::new(self);
        let (width, height) = (SCALE * WIDTH, SCALE * figure.height());
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
            let drawn = figure.draw(&root).and_then(|()| root.present());
            drawn.map_err(|error| ReportError::Draw { reason: error.to_string() })?;
        }
        Ok(svg.replacen(
            &format!("width=\"{width}\" height=\"{height}\""),
            &format!("width=\"{WIDTH}\" height=\"{}\"", figure.height()),
            1,
        ))
    }
}

/// The backend rounds positions to whole numbers. Drawing at twice the size
/// and scaling back keeps curves smooth; all lengths below are doubled.
const SCALE: u32 = 2;
const WIDTH: u32 = 900;

const TITLE: i32 = 84;
const LEGEND_ROW: i32 = 44;
const LEFT: i32 = 204;
const RIGHT: i32 = 44;
const X_AXIS: i32 = 92;
const QUANTITY: i32 = 30;
const PANEL_GAP: i32 = 22;

/// The backend divides font sizes by this.
const FONT_UNIT: f64 = 1.24;
const TITLE_SIZE: f64 = 34.0 * FONT_UNIT;
const TEXT_SIZE: f64 = 27.0 * FONT_UNIT;

/// The colours of Okabe and Ito, which colour-blind readers can tell apart.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const RATE_COLORS: [RGBColor; 6] = [
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 114, 178),
    RGBColor(0, 0, 0),
];
const ROLLBACK: RGBColor = RGBColor(68, 68, 68);
const TEXT: RGBColor = RGBColor(51, 51, 51);
const AXIS: RGBColor = RGBColor(140, 140, 140);
const GRID: RGBColor = RGBColor(222, 222, 222);
const FINE_GRID: RGBColor = RGBColor(243, 243, 243);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

struct Figure {
    title: String,
    panels: Vec<Panel>,
    end: f64,
    rollbacks: Vec<f64>,
}

struct Panel {
    quantity: &'static str,
    lines: Vec<Line>,
}

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    color: RGBColor,
    /// The width and the opacity of the line.
    stroke: (u32, f64),
    /// Whether to mark the single points.
    dots: bool,
}

impl Figure {
    fn new(curves: &Curves) -> Self {
        let rollbacks: Vec<f64> = curves.rollbacks.iter().copied().filter(is_epoch).collect();
        let train_loss = drawable(&curves.train_loss);
        let test_loss = drawable(&curves.test_loss);
        let mut rates: Vec<Line> = curves
            .rates
            .iter()
            .zip(RATE_COLORS.iter().cycle())
            .map(|(rate, &color)| Line {
                name: legible(&rate.name, 32),
                points: drawable(&rate.points),
                color,
                stroke: (4, 1.0),
                dots: false,
            })
            .collect();

        let points = [&train_loss, &test_loss];
        let end = points
            .into_iter()
            .chain(rates.iter().map(|line| &line.points))
            .flatten()
            .map(|&(epoch, _)| epoch)
            .chain(rollbacks.iter().copied())
            .fold(0.0, f64::max);
        // Shorter runs are a point on the axis, for which no step is small enough.
        let end = if end >= 1e-6 { end } else { 1.0 };
        for line in &mut rates {
            line.points = steps(&line.points, end);
        }

        let losses = vec![
            Line {
                name: "train".into(),
                // A loss a batch is a cloud that should not hide the test loss.
                stroke: if train_loss.len() > 100 { (2, 0.75) } else { (4, 1.0) },
                points: train_loss,
                color: BLUE,
                dots: false,
            },
            Line {
                name: "test".into(),
                dots: test_loss.len() <= 60,
                points: test_loss,
                color: VERMILION,
                stroke: (4, 1.0),
            },
        ];
        let panels = [("loss", losses), ("learning rate", rates)]
            .map(|(quantity, mut lines)| {
                lines.retain(|line| !line.points.is_empty());
                Panel { quantity, lines }
            })
            .into_iter()
            .enumerate()
            .filter(|(i, panel)| *i == 0 || !panel.lines.is_empty())
            .map(|(_, panel)| panel)
            .collect();
        Self { title: legible(&curves.title, 80), panels, end, rollbacks }
    }

    /// The height of the figure in pixels.
    fn height(&self) -> u32 {
        if self.panels.len() > 1 {
            640
        } else {
            400
        }
    }

    fn draw<'a>(&self, root: &Area<'a>) -> Drawn<'a> {
        root.fill(&WHITE)?;
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
        let share = (height as i32 - X_AXIS) / count.max(1);
        for (i, panel) in self.panels.iter().enumerate() {
            let last = i + 1 == self.panels.len();
            let (area, below) =
                if last { (rest.clone(), rest.clone()) } else { rest.split_vertically(share) };
            self.draw_panel(panel, &area, last)?;
            rest = below;
        }
        Ok(())
    }

    fn draw_panel<'a>(&self, panel: &Panel, area: &Area<'a>, last: bool) -> Drawn<'a> {
        let mut entries: Vec<Entry> = panel.lines.iter().map(Entry::of_line).collect();
        if last && !self.rollbacks.is_empty() {
            entries.push(Entry {
                text: format!("rollback ({})", self.rollbacks.len()),
                sample: Sample::Triangle,
                color: ROLLBACK,
            });
        }
        let area = draw_legend(&entries, area)?;

        let (low, high) = decades(panel.lines.iter().flat_map(|line| &line.points));
        let mut x_axis = epoch_axis(self.end);
        if !last {
            x_axis.labelled.iter_mut().for_each(|tick| tick.1.clear());
        }
        let mut chart = ChartBuilder::on(&area)
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
            if line.dots || line.points.len() == 1 {
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

struct Entry {
    text: String,
    sample: Sample,
    color: RGBColor,
}

enum Sample {
    Line,
    Triangle,
}

impl Sample {
    fn width(&self) -> i32 {
        match self {
            Self::Line => 44,
            Self::Triangle => 18,
        }
    }
}

impl Entry {
    fn of_line(line: &Line) -> Self {
        Self { text: line.name.clone(), sample: Sample::Line, color: line.color }
    }

    /// The width of the sample and the text, and the space up to the next
    /// entry. Only the viewer knows the font, hence a generous estimate.
    fn width(&self) -> i32 {
        self.sample.width() + 12 + 16 * self.text.chars().count() as i32 + 36
    }
}

const LEGEND_ROWS: usize = 4;

/// Draws the legend in rows above the plot, where it can cover nothing, and
/// returns the area below.
fn draw_legend<'a>(
    entries: &[Entry],
    area: &Area<'a>,
) -> Result<Area<'a>, DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let right = area.dim_in_pixel().0 as i32 - RIGHT;
    let (mut row, mut x) = (0, LEFT);
    let mut places = Vec::new();
    for entry in entries {
        if x > LEFT && x + entry.width() > right {
            (row, x) = (row + 1, LEFT);
        }
        places.push((row, x));
        x += entry.width();
    }
    let rows = if entries.is_empty() { 0 } else { (row + 1).min(LEGEND_ROWS) };
    let (strip, below) = area.split_vertically(rows as i32 * LEGEND_ROW + 8);
    let style = text(TEXT_SIZE, HPos::Left, VPos::Center);
    for (entry, (row, x)) in entries.iter().zip(places) {
        if row >= rows {
            break;
        }
        let y = row as i32 * LEGEND_ROW + LEGEND_ROW / 2;
        let end = x + entry.sample.width();
        match entry.sample {
            Sample::Line => {
                let line = [(x, y), (end, y)];
                strip.draw(&PathElement::new(line, entry.color.stroke_width(5)))?;
            }
            Sample::Triangle => {
                let corners = vec![(x, y - 8), (end, y - 8), ((x + end) / 2, y + 8)];
                strip.draw(&Polygon::new(corners, entry.color))?;
            }
        }
        strip.draw_text(&entry.text, &style, (end + 12, y))?;
    }
    Ok(below)
}

fn text(size: f64, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_text_style(&(1, 1)).color(&TEXT).pos(Pos::new(horizontal, vertical))
}

/// A text without what XML or a single line cannot hold, cut to `limit`
/// characters.
fn legible(text: &str, limit: usize) -> String {
    let allowed = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let mut characters = text.chars().filter(allowed);
    let mut kept: String = characters.by_ref().take(limit).collect();
    if characters.next().is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}

fn is_epoch(epoch: &f64) -> bool {
    (0.0..=1e9).contains(epoch)
}

fn drawable(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = points
        .iter()
        .copied()
        .filter(|(epoch, value)| is_epoch(epoch) && *value > 0.0 && value.is_finite())
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// The corners of a line that keeps each value until the next epoch.
fn steps(points: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
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
fn product(factor: f64, digits: usize, exponent: i32) -> String {
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
    use proptest::prelude::*;
    use roxmltree::Document;

    use super::*;

    fn run() -> Curves {
        let line =
            |scale: f64| (0..50).map(move |i| (f64::from(i) / 5.0, scale / f64::from(i + 1)));
        Curves {
            title: "A <run> & more".into(),
            train_loss: line(2.0).collect(),
            test_loss: vec![(0.0, 2.0), (5.0, 0.2), (10.0, 0.1)],
            rates: ["first", "second"]
                .map(|name| Rate { name: name.into(), points: line(1e-3).collect() })
                .to_vec(),
            rollbacks: vec![0.5, 3.25, 9.0],
        }
    }

    fn texts(svg: &str) -> Vec<String> {
        let document = Document::parse(svg).unwrap();
        let texts = document.descendants().filter(|n| n.has_tag_name("text"));
        texts.filter_map(|n| n.text()).map(|t| t.trim().to_owned()).collect()
    }

    /// The filled triangles in the colour of rollbacks.
    fn triangles(svg: &str) -> usize {
        let document = Document::parse(svg).unwrap();
        document
            .descendants()
            .filter(|n| n.has_tag_name("polygon") && n.attribute("fill") == Some("#444444"))
            .count()
    }

    fn polylines(svg: &str, color: &str) -> Vec<Vec<(f64, f64)>> {
        let document = Document::parse(svg).unwrap();
        let number = |text: &str| text.parse().unwrap();
        document
            .descendants()
            .filter(|n| n.has_tag_name("polyline") && n.attribute("stroke") == Some(color))
            .map(|n| {
                let points = n.attribute("points").unwrap().split_whitespace();
                let pair = |p: &str| p.split_once(',').map(|(x, y)| (number(x), number(y)));
                points.filter_map(pair).collect()
            })
            .collect()
    }

    #[test]
    fn the_svg_has_every_label_and_one_marker_a_rollback() {
        let svg = run().to_svg().unwrap();
        let texts = texts(&svg);
        for text in [
            "A <run> & more",
            "train",
            "test",
            "first",
            "second",
            "loss",
            "learning rate",
            "epoch",
            "rollback (3)",
            "10⁻⁴",
        ] {
            assert!(texts.iter().any(|t| t == text), "{text} not in {texts:?}");
        }
        assert_eq!(texts.iter().filter(|t| *t == "10").count(), 1);
        // One more in the legend.
        assert_eq!(triangles(&svg), 3 + 1);
        let document = Document::parse(&svg).unwrap();
        assert_eq!(document.root_element().attribute("width"), Some("900"));
        assert_eq!(document.root_element().attribute("viewBox"), Some("0 0 1800 1280"));
    }

    #[test]
    fn a_run_without_rollbacks_has_no_markers() {
        let curves = Curves { rollbacks: Vec::new(), ..run() };
        assert_eq!(triangles(&curves.to_svg().unwrap()), 0);
    }

    #[test]
    fn a_run_without_rates_has_one_panel_with_the_markers() {
        let curves = Curves { rates: Vec::new(), ..run() };
        let svg = curves.to_svg().unwrap();
        assert!(!texts(&svg).contains(&"learning rate".to_owned()));
        assert!(texts(&svg).contains(&"epoch".to_owned()));
        assert_eq!(triangles(&svg), 3 + 1);
    }

    #[test]
    fn an_empty_run_says_so() {
        assert!(texts(&Curves::default().to_svg().unwrap()).contains(&"no data".to_owned()));
    }

    #[test]
    fn rates_are_steps_that_reach_the_end() {
        let curves = Curves {
            test_loss: vec![(0.0, 1.0), (4.0, 0.5)],
            rates: vec![Rate { name: "all".into(), points: vec![(2.0, 1e-2), (0.0, 1e-3)] }],
            ..Curves::default()
        };
        let svg = curves.to_svg().unwrap();
        let green = polylines(&svg, "#009E73");
        let steps = green.iter().find(|line| line.len() == 4).unwrap();
        let [a, b, c, d] = steps[..] else { unreachable!() };
        assert_eq!((a.1, c.1), (b.1, d.1));
        assert_eq!(b.0, c.0);
        assert!(a.1 > c.1, "larger rates are higher up");
        let right = 2.0 * 900.0 - f64::from(RIGHT);
        assert!((a.0 - f64::from(LEFT)).abs() <= 2.0 && (d.0 - right).abs() <= 2.0);
        assert!((b.0 - (a.0 + d.0) / 2.0).abs() <= 2.0);
    }

    #[test]
    fn points_that_no_logarithmic_axis_holds_are_left_out() {
        let bad = [0.0, -1.0, f64::NAN, f64::INFINITY].map(|loss| (1.0, loss));
        let bad_epochs = [-1.0, f64::NAN, f64::INFINITY, 1e300].map(|epoch| (epoch, 1.0));
        let mut curves = run();
        curves.train_loss.extend(bad.into_iter().chain(bad_epochs));
        curves.rollbacks.extend([f64::NAN, -1.0]);
        assert_eq!(curves.to_svg().unwrap(), run().to_svg().unwrap());
    }

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
    fn a_run_of_hardly_any_epochs_is_drawn_over_a_whole_one() {
        let curves = Curves { test_loss: vec![(5e-324, 0.5)], ..Curves::default() };
        assert!(texts(&curves.to_svg().unwrap()).contains(&"1.0".to_owned()));
    }

    #[test]
    fn names_are_cut_to_what_a_line_of_xml_holds() {
        assert_eq!(legible("a\u{1}b\nc\u{ffff}", 10), "abc");
        assert_eq!(legible("abcdé", 5), "abcdé");
        assert_eq!(legible("abcdéf", 5), "abcd…");
        let curves = Curves { title: "\0\u{1b}[1m".into(), ..run() };
        assert!(texts(&curves.to_svg().unwrap()).contains(&"[1m".to_owned()));
    }

    #[test]
    fn a_file_is_written_or_the_path_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.svg");
        run().write_svg(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), run().to_svg().unwrap());
        let error = run().write_svg(&dir.path().join("no/where.svg")).unwrap_err();
        assert!(matches!(error, ReportError::Io { .. }));
        assert!(error.to_string().contains("where.svg"), "{error}");
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![0.0..20.0, Just(1.0), Just(1.0 + 1e-15), Just(5e-324), any::<f64>()]
    }

    fn points() -> impl Strategy<Value = Vec<(f64, f64)>> {
        prop::collection::vec((number(), number()), 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn any_run_gives_well_formed_xml(
            title in any::<String>(),
            train_loss in points(),
            test_loss in points(),
            rates in prop::collection::vec((any::<String>(), points()), 0..20),
            rollbacks in prop::collection::vec(number(), 0..8),
        ) {
            let rates = rates
                .into_iter()
                .map(|(name, points)| Rate { name, points })
                .collect();
            let marked = rollbacks.iter().filter(|r| is_epoch(r)).count();
            let curves = Curves { title, train_loss, test_loss, rates, rollbacks };
            let svg = curves.to_svg().unwrap();
            prop_assert!(Document::parse(&svg).is_ok());
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf"));
            prop_assert!(marked <= triangles(&svg));
        }
    }
}
