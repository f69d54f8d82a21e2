//! Figures: panels above each other, over the same epochs.

use super::{
    axis::{decades, epoch_axis, value_axis},
    drawing::{
        svg, text, Area, Drawn, AXIS, LEFT, RIGHT, SCALE, TEXT, TEXT_SIZE, TITLE_SIZE, WIDTH,
    },
    legend::{Entry, Legend, Sample, FREE_ROWS, LEGEND_ROW},
    ReportError,
};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

const TITLE: i32 = 84;
const X_AXIS: i32 = 92;
const QUANTITY: i32 = 30;
const PANEL_GAP: i32 = 22;
pub(super) const ROLLBACK: RGBColor = RGBColor(68, 68, 68);
const GRID: RGBColor = RGBColor(222, 222, 222);
const FINE_GRID: RGBColor = RGBColor(243, 243, 243);

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

#[cfg(test)]
mod tests;
