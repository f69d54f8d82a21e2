//! Figures: lines in panels above each other, over the same epochs or steps.

use super::{
    axis::{extent, Axis},
    color::{Color, AXIS, GRID},
    legend::{Entry, Legend, Sample, ROW},
    svg::{legible, stroke, text_width, Stroke, Style, Svg, END, MIDDLE, TITLE, UPRIGHT},
};

const RIGHT: f64 = 22.0;
/// The height below the last panel, for the labels of its axis and the axis's name.
const X_AXIS: f64 = 46.0;
/// The rows of a legend for which a figure does not grow.
const FREE_ROWS: usize = 4;
const FINE_GRID: Color = Color(243, 243, 243);
const ROLLBACK: Color = Color(68, 68, 68);

/// Panels above each other, over the same epochs or steps.
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) width: f64,
    /// What is counted along the axis: "epoch".
    pub(crate) along: &'static str,
    /// Where the axis begins and ends.
    pub(crate) range: (f64, f64),
    pub(crate) panels: Vec<Panel>,
    /// The epochs of rollbacks, which are marked.
    pub(crate) rollbacks: Vec<f64>,
}

pub(crate) struct Panel {
    pub(crate) quantity: &'static str,
    /// Whether the upright axis is logarithmic.
    pub(crate) log: bool,
    pub(crate) lines: Vec<Line>,
    /// Whether a legend names the lines.
    pub(crate) named: bool,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) stroke: Stroke,
    /// Whether to mark the single points.
    pub(crate) dots: bool,
}

impl Line {
    fn entry(&self) -> Entry {
        let stroke = Stroke { width: 2.5, opacity: 1.0, ..self.stroke };
        Entry { text: legible(&self.name, 32), sample: Sample::Line(stroke) }
    }
}

impl Panel {
    /// A panel with a logarithmic axis and a legend.
    pub(crate) fn new((quantity, lines): (&'static str, Vec<Line>)) -> Self {
        Self { quantity, log: true, lines, named: true }
    }

    fn height(&self, value: f64) -> f64 {
        if self.log {
            value.log10()
        } else {
            value
        }
    }

    /// The upright axis, with some room around the values. A linear axis is for shares, and then
    /// goes from 0 to 1, or for per cent.
    fn axis(&self) -> Axis {
        let values = self.lines.iter().flat_map(|line| &line.points);
        if !self.log {
            return match extent(values.map(|point| point.1)) {
                Some((low, high)) if high > 1.0 => {
                    let room = (0.06 * (high - low)).max(0.1);
                    Axis::linear(low - room, high + room, 5.0)
                }
                _ => Axis::linear(0.0, 1.0, 5.0),
            };
        }
        match extent(values.map(|point| point.1.log10())) {
            None => Axis::logarithmic(-1.0, 0.0),
            Some((low, high)) => {
                let room = (0.06 * (high - low)).max(0.1 - 0.5 * (high - low)).max(0.02);
                // The markers of rollbacks hang from the upper edge.
                Axis::logarithmic(low - room, high + 1.5 * room)
            }
        }
    }
}

/// Where a panel lies, and its axes.
struct Frame<'a> {
    x: &'a Axis,
    y: &'a Axis,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame<'_> {
    fn across(&self, x: f64) -> f64 {
        self.left + self.x.part(x) * (self.right - self.left)
    }

    fn down(&self, y: f64) -> f64 {
        self.bottom - self.y.part(y) * (self.bottom - self.top)
    }

    /// A level line through the panel, `y` below the picture's upper edge.
    fn level(&self, y: f64) -> [[f64; 2]; 2] {
        [[self.left, y], [self.right, y]]
    }

    /// An upright line through the panel, `x` right of the picture's left edge.
    fn upright(&self, x: f64) -> [[f64; 2]; 2] {
        [[x, self.top], [x, self.bottom]]
    }

    /// The grid, the axes and their labels; those below are the last panel's.
    fn draw(&self, svg: &mut Svg, last: bool) {
        for y in &self.y.fine {
            svg.line(self.level(self.down(*y)), stroke(FINE_GRID, 1.0));
        }
        let (left, bottom) = (self.left, self.bottom);
        for (x, label) in &self.x.labelled {
            let x = self.across(*x);
            svg.line(self.upright(x), stroke(GRID, 1.0));
            if last {
                svg.line([[x, bottom], [x, bottom + 4.0]], stroke(AXIS, 1.0));
                svg.text([x, bottom + 14.0], label, MIDDLE);
            }
        }
        for (y, label) in &self.y.labelled {
            let y = self.down(*y);
            svg.line(self.level(y), stroke(GRID, 1.0));
            svg.line([[left - 4.0, y], [left, y]], stroke(AXIS, 1.0));
            svg.text([left - 8.0, y], label, END);
        }
        let corner = [[left, self.top], [left, bottom], [self.right, bottom]];
        svg.line(corner, stroke(AXIS, 1.0));
    }
}

impl Figure {
    /// A figure over the epochs up to `end`, without panels yet.
    pub(super) fn of_epochs(end: f64) -> Self {
        let (title, panels, rollbacks) = (String::new(), Vec::new(), Vec::new());
        Self { title, width: 900.0, along: "epoch", range: (0.0, end), panels, rollbacks }
    }

    /// The figure as the text of an SVG file.
    pub(crate) fn svg(&self) -> String {
        let mut svg = Svg::new();
        let axes: Vec<Axis> = self.panels.iter().map(Panel::axis).collect();
        let labels = axes.iter().flat_map(|axis| &axis.labelled);
        let left = 38.0 + labels.map(|label| text_width(&label.1)).fold(0.0, f64::max);
        let right = self.width - RIGHT;
        let x = Axis::linear(self.range.0, self.range.1, (right - left) / 75.0);
        let count = self.panels.len();
        let legends: Vec<Legend> = (1..)
            .zip(&self.panels)
            .map(|(number, panel)| Legend::new(self.entries(panel, number == count), right - left))
            .collect();
        // The first rows of a legend take room of the panel. Only further rows make the figure
        // higher.
        let rows: usize =
            legends.iter().map(|legend| legend.rows().saturating_sub(FREE_ROWS)).sum();
        let height = 160.0 + 240.0 * count as f64 + rows as f64 * ROW;
        let mut top = 7.0;
        if !self.title.is_empty() {
            svg.text([left, top + 14.0], &legible(&self.title, 80), TITLE);
            top += 28.0;
        }
        let above: f64 = legends.iter().map(Legend::height).sum();
        let share = (height - 7.0 - X_AXIS - above - top) / count as f64;
        for (i, ((panel, legend), y)) in self.panels.iter().zip(&legends).zip(&axes).enumerate() {
            let last = i + 1 == count;
            legend.draw(&mut svg, left, top);
            top += legend.height();
            let bottom = top + share - if last { 0.0 } else { 11.0 };
            let frame = Frame { x: &x, y, left, right, top, bottom };
            self.draw_panel(&mut svg, panel, &frame, last);
            top += share;
        }
        svg.text([(left + right) / 2.0, height - 15.0], self.along, MIDDLE);
        svg.finish(self.width, height)
    }

    fn entries(&self, panel: &Panel, last: bool) -> Vec<Entry> {
        let lines = panel.lines.iter().filter(|_| panel.named).map(Line::entry);
        let text = format!("rollback ({})", self.rollbacks.len());
        let marked = (last && !self.rollbacks.is_empty())
            .then_some(Entry { text, sample: Sample::Triangle(ROLLBACK) });
        lines.chain(marked).collect()
    }

    fn draw_panel(&self, svg: &mut Svg, panel: &Panel, frame: &Frame<'_>, last: bool) {
        frame.draw(svg, last);
        let middle = (frame.top + frame.bottom) / 2.0;
        svg.text([15.0, middle], panel.quantity, UPRIGHT);
        let marks = || self.rollbacks.iter().map(|&epoch| frame.across(epoch));
        for x in marks() {
            svg.line(frame.upright(x), Stroke { opacity: 0.45, ..stroke(ROLLBACK, 1.0) });
        }
        for line in panel.lines.iter().filter(|line| !line.points.is_empty()) {
            let at = |&(x, y): &(f64, f64)| [frame.across(x), frame.down(panel.height(y))];
            svg.line(line.points.iter().map(at), line.stroke);
            let one_point = line.points.iter().all(|point| line.points.first() == Some(point));
            if line.dots || one_point {
                let color = line.stroke.color;
                line.points.iter().for_each(|point| svg.disc(at(point), 3.0, [color; 2], ""));
            }
        }
        if last {
            marks().for_each(|x| svg.triangle([x, frame.top + 8.0], ROLLBACK));
        }
        if panel.lines.iter().all(|line| line.points.is_empty()) {
            let across = (frame.left + frame.right) / 2.0;
            svg.text([across, middle], "no data", Style { color: AXIS, ..MIDDLE });
        }
    }
}

/// The epoch at which an axis over all of `epochs` ends.
pub(crate) fn last_epoch(epochs: impl Iterator<Item = f64>) -> f64 {
    let end = epochs.fold(0.0, f64::max);
    // A shorter run is a point on the axis, and no ticks can be that close.
    if end >= 1e-6 {
        end
    } else {
        1.0
    }
}

pub(super) fn is_epoch(epoch: &f64) -> bool {
    (0.0..=1e9).contains(epoch)
}

/// The points that a logarithmic axis over epochs holds, in their order.
pub(crate) fn drawable(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let fits = |&(epoch, value): &(f64, f64)| is_epoch(&epoch) && value > 0.0 && value.is_finite();
    let mut points: Vec<_> = points.iter().copied().filter(fits).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// The corners of a line that keeps each value until the next epoch.
pub(super) fn steps(points: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let until = points.iter().skip(1).map(|next| next.0).chain([end]);
    points.iter().zip(until).flat_map(|(&(epoch, y), until)| [(epoch, y), (until, y)]).collect()
}

#[cfg(test)]
mod tests;
