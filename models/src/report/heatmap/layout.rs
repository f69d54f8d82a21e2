//! Where the parts of a heat map lie, and how they are drawn.

use super::{
    scale::{Scale, RAMP},
    HeatMap, HeatPanel,
};
use crate::report::{
    drawing::{
        between, contrast, legible, svg, text, text_width, Area, Drawn, AXIS, TEXT, TEXT_SIZE,
        TITLE_SIZE,
    },
    folder::write,
    ReportError,
};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::path::Path;

impl HeatMap {
    /// Draws the panels into the file `path`, as an SVG that is as large as its cells need: about
    /// 78x40 pixels each. An existing file is replaced.
    ///
    /// # Errors
    /// [`ReportError::Io`] when the file cannot be written, and [`ReportError::Draw`] should the
    /// plotting library fail.
    pub fn write_svg(&self, path: &Path) -> Result<(), ReportError> {
        write(path, self.to_svg()?)
    }

    /// The panels as the text of an SVG file.
    ///
    /// # Errors
    /// [`ReportError::Draw`] should the plotting library fail.
    ///
    /// ```
    /// use tlr_models::report::{HeatCell, HeatMap, HeatPanel};
    ///
    /// let cell = |error: f64| Some(HeatCell { value: error, text: format!("{error:.1}") });
    /// let map = HeatMap {
    ///     title: "Test error in percent".into(),
    ///     x_label: "starting rate".into(),
    ///     y_label: "batch size".into(),
    ///     columns: ["1e-4", "1e-3"].map(String::from).into(),
    ///     rows: ["32", "256"].map(String::from).into(),
    ///     panels: vec![HeatPanel {
    ///         name: "SGD".into(),
    ///         cells: vec![cell(8.2), cell(3.1), cell(21.0), None],
    ///     }],
    /// };
    /// assert!(map.to_svg()?.starts_with("<svg"));
    /// # Ok::<(), tlr_models::report::ReportError>(())
    /// ```
    pub fn to_svg(&self) -> Result<String, ReportError> {
        let layout = Layout::new(self);
        let [width, height] = layout.size.map(|length| (length as u32).div_ceil(2));
        svg(width, height, |root| layout.draw(root))
    }
}

const MARGIN: i32 = 32;
const TITLE: i32 = 76;
const Y_LABEL: i32 = 52;
const X_LABEL: i32 = 52;
const NAME: i32 = 52;
const COLUMN_LABEL: i32 = 44;
/// Between a label of a row and its cells.
const ROW_GAP: i32 = 16;
const PANEL_GAP: i32 = 32;
pub(super) const CELL: (i32, i32) = (156, 80);
/// The width up to which panels are put side by side.
const WIDE: i32 = 1800;
const BAR: i32 = 28;
const BAR_GAP: i32 = 52;
const BAR_HEIGHTS: (i32, i32) = (160, 1000);
const BAR_STEPS: i32 = 64;
const MISSING: RGBColor = RGBColor(244, 244, 244);
const HATCHING: RGBColor = RGBColor(216, 216, 216);

/// A map with legible texts and the places of its parts, in doubled pixels.
struct Layout<'m> {
    map: &'m HeatMap,
    title: String,
    x_label: String,
    y_label: String,
    columns: Vec<String>,
    rows: Vec<String>,
    names: Vec<String>,
    scale: Option<Scale>,
    cell: (i32, i32),
    /// From the left edge of a panel to its cells.
    row_labels: i32,
    /// The height of the names of panels.
    name: i32,
    /// How many panels there are side by side and above each other.
    grid: (usize, usize),
    /// The upper left corner of all panels.
    origin: (i32, i32),
    /// The width and the height of a panel with its labels.
    panel: (i32, i32),
    /// The width and the height of all panels.
    panels: (i32, i32),
    size: [i32; 2],
}

impl<'m> Layout<'m> {
    fn new(map: &'m HeatMap) -> Self {
        let all = |texts: &[String], limit| -> Vec<String> {
            texts.iter().map(|text| legible(text, limit)).collect()
        };
        let widest = |texts: &[String]| texts.iter().map(|t| text_width(t)).max().unwrap_or(0);
        let title = legible(&map.title, 80);
        let [x_label, y_label] = [&map.x_label, &map.y_label].map(|label| legible(label, 40));
        let (columns, rows) = (all(&map.columns, 14), all(&map.rows, 24));
        let names: Vec<String> = map.panels.iter().map(|p| legible(&p.name, 48)).collect();
        let count = if columns.is_empty() || rows.is_empty() { 0 } else { names.len() };

        let count_of_cells = columns.len().saturating_mul(rows.len());
        let cells = || {
            let panels =
                map.panels.iter().flat_map(|panel| panel.cells.iter().take(count_of_cells));
            panels.flatten().filter(|cell| cell.value.is_finite())
        };
        let scale = Scale::new(cells().map(|cell| cell.value));
        let printed = cells().map(|cell| text_width(&legible(&cell.text, 14))).max().unwrap_or(0);
        let cell = (CELL.0.max(widest(&columns) + 16).max(printed + 16), CELL.1);

        let row_labels = widest(&rows) + ROW_GAP;
        let name = if names.iter().all(String::is_empty) { 0 } else { NAME };
        let panel = (
            row_labels + (cell.0 * columns.len() as i32).max(widest(&names)),
            name + cell.1 * rows.len() as i32 + COLUMN_LABEL,
        );
        let fitting = ((WIDE + PANEL_GAP) / (panel.0 + PANEL_GAP)).max(1) as usize;
        let down = count.div_ceil(fitting);
        let grid = (count.div_ceil(down.max(1)), down);
        let extent = |length: i32, count: usize| (length + PANEL_GAP) * count as i32 - PANEL_GAP;
        let panels = match count {
            0 => (600, 200),
            _ => (
                extent(panel.0, grid.0).max(text_width(&x_label)),
                extent(panel.1, grid.1).max(text_width(&y_label)),
            ),
        };
        let origin = (
            MARGIN + if y_label.is_empty() { 0 } else { Y_LABEL },
            if title.is_empty() { MARGIN } else { TITLE },
        );
        let bar = match &scale {
            Some(scale) if count > 0 => BAR_GAP + BAR + 12 + widest(&scale.labels()),
            _ => 0,
        };
        let bar_height = if bar > 0 { name + BAR_HEIGHTS.0 + 20 } else { 0 };
        let size = [
            // Bold letters are wider.
            (origin.0 + panels.0 + bar).max(MARGIN + text_width(&title) * 5 / 4) + MARGIN,
            origin.1
                + panels.1.max(bar_height)
                + if x_label.is_empty() { 0 } else { X_LABEL }
                + MARGIN / 2,
        ];
        Self {
            map,
            title,
            x_label,
            y_label,
            columns,
            rows,
            names,
            scale,
            cell,
            row_labels,
            name,
            grid,
            origin,
            panel,
            panels,
            size,
        }
    }

    fn draw<'a>(&self, root: &Area<'a>) -> Drawn<'a> {
        let (left, top) = self.origin;
        root.draw_text(&self.title, &bold(TITLE_SIZE), (MARGIN, top / 2))?;
        let middle = text(TEXT_SIZE, HPos::Center, VPos::Center);
        let sideways = middle.transform(FontTransform::Rotate270);
        // The labels stand at the middle of the cells.
        let x = left + (self.row_labels + self.panels.0) / 2;
        let y = top + (self.name + self.panels.1 - COLUMN_LABEL) / 2;
        root.draw_text(&self.y_label, &sideways, (MARGIN + 8, y))?;
        let below = self.size[1] - MARGIN / 2 - X_LABEL / 2;
        root.draw_text(&self.x_label, &middle, (x, below))?;
        if self.grid.0 == 0 {
            let at = (left + self.panels.0 / 2, top + self.panels.1 / 2);
            return root.draw_text("no data", &middle.color(&AXIS), at);
        }
        for (i, (panel, name)) in self.map.panels.iter().zip(&self.names).enumerate() {
            let (column, row) = ((i % self.grid.0) as i32, (i / self.grid.0) as i32);
            let corner = (
                left + column * (self.panel.0 + PANEL_GAP) + self.row_labels,
                top + row * (self.panel.1 + PANEL_GAP) + self.name,
            );
            root.draw_text(name, &bold(TEXT_SIZE), (corner.0, corner.1 - NAME / 2))?;
            self.draw_cells(panel, root, corner)?;
        }
        match &self.scale {
            Some(scale) => self.draw_bar(scale, root),
            None => Ok(()),
        }
    }

    fn draw_cells<'a>(&self, panel: &HeatPanel, root: &Area<'a>, corner: (i32, i32)) -> Drawn<'a> {
        let (width, height) = self.cell;
        let label = text(TEXT_SIZE, HPos::Right, VPos::Center);
        let middle = text(TEXT_SIZE, HPos::Center, VPos::Center);
        let bottom = corner.1 + height * self.rows.len() as i32;
        for (j, column) in self.columns.iter().enumerate() {
            let x = corner.0 + j as i32 * width + width / 2;
            root.draw_text(column, &middle, (x, bottom + COLUMN_LABEL / 2))?;
        }
        let mut cells = panel.cells.iter();
        for (i, row) in self.rows.iter().enumerate() {
            let y = corner.1 + i as i32 * height;
            root.draw_text(row, &label, (corner.0 - ROW_GAP, y + height / 2))?;
            for j in 0..self.columns.len() {
                let x = corner.0 + j as i32 * width;
                let corners = [(x + 2, y + 2), (x + width - 2, y + height - 2)];
                let cell = cells.next().and_then(Option::as_ref);
                let color = cell.zip(self.scale.as_ref()).and_then(|(c, s)| s.color(c.value));
                let at = (x + width / 2, y + height / 2);
                if let (Some(cell), Some(color)) = (cell, color) {
                    root.draw(&Rectangle::new(corners, color.filled()))?;
                    let ink = ink(color);
                    let style = middle.color(&ink);
                    root.draw_text(&legible(&cell.text, 14), &style, at)?;
                } else {
                    root.draw(&Rectangle::new(corners, MISSING.filled()))?;
                    hatch(root, corners)?;
                    root.draw_text("–", &middle, at)?;
                }
            }
        }
        Ok(())
    }

    fn draw_bar<'a>(&self, scale: &Scale, root: &Area<'a>) -> Drawn<'a> {
        let x = self.origin.0 + self.panels.0 + BAR_GAP;
        let top = self.origin.1 + self.name + 2;
        let cells = self.panels.1 - self.name - COLUMN_LABEL - 4;
        let height = cells.clamp(BAR_HEIGHTS.0, BAR_HEIGHTS.1);
        let labels = scale.labels();
        // A scale of a single value has nothing to interpolate.
        let steps = if labels.len() > 1 { BAR_STEPS } else { 1 };
        for step in 0..steps {
            let part = f64::from(step) / f64::from((steps - 1).max(1));
            // Each strip goes on to the top, below the next, for no seams.
            let lower = top + height - height * step / steps;
            let strip = [(x, top), (x + BAR, lower)];
            root.draw(&Rectangle::new(strip, between(&RAMP, part).filled()))?;
        }
        let last = labels.len().saturating_sub(1) as i32;
        for (i, label) in labels.iter().enumerate() {
            // The outer labels end with the bar.
            let y = match i as i32 {
                0 if last == 0 => top + height / 2,
                i => top + height - 12 - i * (height - 24) / last,
            };
            let style = text(TEXT_SIZE, HPos::Left, VPos::Center);
            root.draw_text(label, &style, (x + BAR + 12, y))?;
        }
        Ok(())
    }
}

/// Stripes from the lower left to the upper right, between two corners.
fn hatch<'a>(root: &Area<'a>, [(left, top), (right, bottom)]: [(i32, i32); 2]) -> Drawn<'a> {
    let (width, height) = (right - left, bottom - top);
    for offset in (10..width + height).step_by(20) {
        let (start, end) = (offset.min(height), offset.min(width));
        let line = [(left + offset - start, top + start), (left + end, top + offset - end)];
        root.draw(&PathElement::new(line, HATCHING.stroke_width(2)))?;
    }
    Ok(())
}

fn bold(size: f64) -> TextStyle<'static> {
    let font = ("sans-serif", size).into_font().style(FontStyle::Bold);
    TextStyle::from(font).color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center))
}

/// The colour in which text is read best on `background`.
pub(super) fn ink(background: RGBColor) -> RGBColor {
    if contrast(background, BLACK) >= contrast(background, WHITE) {
        BLACK
    } else {
        WHITE
    }
}
