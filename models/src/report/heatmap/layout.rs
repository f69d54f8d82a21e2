//! Where the parts of a heat map lie, and how they are drawn.

use super::{
    scale::{ink, Scale, RAMP},
    HeatCell, HeatMap, HeatPanel,
};
use crate::report::{
    color::{Color, AXIS},
    svg::{legible, stroke, text_width, Style, Svg, END, LABEL, MIDDLE, TITLE, UPRIGHT},
};

const MARGIN: f64 = 16.0;
/// The height of a title with the space around it, and of other lines of text.
const TITLE_HEIGHT: f64 = 38.0;
const TEXT_HEIGHT: f64 = 26.0;
const COLUMN_LABEL: f64 = 22.0;
/// The gap between a row's label and its cells.
const ROW_GAP: f64 = 8.0;
const PANEL_GAP: f64 = 16.0;
const CELL: [f64; 2] = [78.0, 40.0];
/// The width up to which panels are put side by side.
const WIDE: f64 = 900.0;
const BAR: f64 = 14.0;
const BAR_GAP: f64 = 26.0;
const BAR_STEPS: i32 = 64;
const MISSING: Color = Color(244, 244, 244);
const HATCHING: Color = Color(216, 216, 216);

fn widest<'t>(texts: impl IntoIterator<Item = &'t String>) -> f64 {
    texts.into_iter().map(|text| text_width(text)).fold(0.0, f64::max)
}

/// The room for a line of text, if there is one.
fn room(text: &str) -> f64 {
    if text.is_empty() {
        0.0
    } else {
        TEXT_HEIGHT
    }
}

impl HeatMap {
    /// The panels as the text of an SVG file, as large as its cells need: about 78x40 pixels each.
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
    /// assert!(map.to_svg().starts_with("<svg"));
    /// ```
    pub fn to_svg(&self) -> String {
        let mut svg = Svg::new();
        let table = Table::new(self);
        let [title, x_label, y_label] =
            [(&self.title, 80), (&self.x_label, 40), (&self.y_label, 40)]
                .map(|(text, limit)| legible(text, limit));
        let names: Vec<String> = self.panels.iter().map(|p| legible(&p.name, 48)).collect();
        let name = names.iter().map(|name| room(name)).fold(0.0, f64::max);
        let [width, height] = table.size();
        let panel = [table.row_labels + width.max(widest(&names)), name + height + COLUMN_LABEL];
        let left = MARGIN + room(&y_label);
        let top = if title.is_empty() { MARGIN } else { TITLE_HEIGHT };
        // How many panels there are side by side and above each other.
        let count = if width * height > 0.0 { names.len() } else { 0 };
        let fitting = ((WIDE + PANEL_GAP) / (panel[0] + PANEL_GAP)).max(1.0) as usize;
        let down = count.div_ceil(fitting);
        let across = count.div_ceil(down.max(1));
        let along = |i: usize, length| (length + PANEL_GAP) * i as f64;
        let panels = match count {
            0 => [300.0, 100.0],
            _ => [
                (along(across, panel[0]) - PANEL_GAP).max(text_width(&x_label)),
                (along(down, panel[1]) - PANEL_GAP).max(text_width(&y_label)),
            ],
        };
        let (right, bottom) = (left + panels[0], top + panels[1]);
        let mut size = [right, bottom];

        for (i, (panel_of, text)) in self.panels.iter().zip(&names).enumerate().take(count) {
            let x = left + along(i % across, panel[0]) + table.row_labels;
            let y = top + along(i / across, panel[1]) + name;
            svg.text([x, y - TEXT_HEIGHT / 2.0], text, Style { bold: true, ..LABEL });
            table.draw(&mut svg, panel_of, [x, y]);
        }
        match &table.scale {
            _ if count == 0 => {
                let at = [left + panels[0] / 2.0, top + panels[1] / 2.0];
                svg.text(at, "no data", Style { color: AXIS, ..MIDDLE });
            }
            Some(scale) => {
                let cells = panels[1] - name - COLUMN_LABEL - 2.0;
                let height = cells.clamp(80.0, 500.0);
                draw_bar(&mut svg, scale, [right + BAR_GAP, top + name + 1.0], height);
                size[0] += BAR_GAP + BAR + 6.0 + widest(&scale.labels());
                size[1] = size[1].max(top + name + height + 10.0);
            }
            None => {}
        }
        // The labels stand at the middle of the cells.
        let middle = [
            left + (table.row_labels + panels[0]) / 2.0,
            top + (name + panels[1] - COLUMN_LABEL) / 2.0,
        ];
        svg.text([MARGIN + 4.0, middle[1]], &y_label, UPRIGHT);
        svg.text([middle[0], size[1] + TEXT_HEIGHT / 2.0], &x_label, MIDDLE);
        svg.text([MARGIN, top / 2.0], &title, TITLE);
        // Bold letters are wider.
        let width = size[0].max(MARGIN + 1.25 * text_width(&title)) + MARGIN;
        svg.finish(width, size[1] + room(&x_label) + MARGIN / 2.0)
    }
}

/// What all panels have in common: the labels of rows and columns, and the scale.
struct Table {
    columns: Vec<String>,
    rows: Vec<String>,
    scale: Option<Scale>,
    /// The width of a cell.
    width: f64,
    /// The distance from the left edge of a panel to its cells.
    row_labels: f64,
}

impl Table {
    fn new(map: &HeatMap) -> Self {
        let columns: Vec<String> = map.columns.iter().map(|text| legible(text, 14)).collect();
        let rows: Vec<String> = map.rows.iter().map(|text| legible(text, 24)).collect();
        let count = columns.len() * rows.len();
        let cells = map.panels.iter().flat_map(|panel| panel.cells.iter().take(count).flatten());
        let cells: Vec<&HeatCell> = cells.filter(|cell| cell.value.is_finite()).collect();
        let printed: Vec<String> = cells.iter().map(|cell| legible(&cell.text, 14)).collect();
        let width = CELL[0].max(widest(columns.iter().chain(&printed)) + 8.0);
        let scale = Scale::new(cells.iter().map(|cell| cell.value));
        let row_labels = widest(&rows) + ROW_GAP;
        Self { columns, rows, scale, width, row_labels }
    }

    /// The width and the height of all cells.
    fn size(&self) -> [f64; 2] {
        [self.width * self.columns.len() as f64, CELL[1] * self.rows.len() as f64]
    }

    /// The cells of a panel and their labels, `[left, top]` being the corner of the first.
    fn draw(&self, svg: &mut Svg, panel: &HeatPanel, [left, top]: [f64; 2]) {
        let across = |j: usize| left + (j as f64 + 0.5) * self.width;
        for (j, column) in self.columns.iter().enumerate() {
            svg.text([across(j), top + self.size()[1] + COLUMN_LABEL / 2.0], column, MIDDLE);
        }
        let mut cells = panel.cells.iter();
        for (i, row) in self.rows.iter().enumerate() {
            let y = top + (i as f64 + 0.5) * CELL[1];
            svg.text([left - ROW_GAP, y], row, END);
            for j in 0..self.columns.len() {
                let at = [across(j), y];
                let size = [self.width - 2.0, CELL[1] - 2.0];
                let corner = [at[0] - size[0] / 2.0, at[1] - size[1] / 2.0];
                let cell = cells.next().and_then(Option::as_ref);
                let color = cell.zip(self.scale.as_ref()).and_then(|(c, s)| s.color(c.value));
                svg.rectangle(corner, size, color.unwrap_or(MISSING));
                if let (Some(cell), Some(color)) = (cell, color) {
                    svg.text(at, &legible(&cell.text, 14), Style { color: ink(color), ..MIDDLE });
                } else {
                    hatch(svg, corner, size);
                    svg.text(at, "–", MIDDLE);
                }
            }
        }
    }
}

/// The scale as a bar, its highest value above, and labels to the right.
fn draw_bar(svg: &mut Svg, scale: &Scale, [left, top]: [f64; 2], height: f64) {
    let labels = scale.labels();
    // A scale of a single value has nothing to interpolate.
    let steps = if labels.len() > 1 { BAR_STEPS } else { 1 };
    for step in 0..steps {
        let part = f64::from(step) / f64::from((steps - 1).max(1));
        // Each strip reaches up to the top, and the next one covers its upper part, so that no
        // seams show.
        let high = height - height * f64::from(step) / f64::from(steps);
        svg.rectangle([left, top], [BAR, high], Color::between(&RAMP, part));
    }
    for (i, label) in labels.iter().enumerate() {
        // The outer labels end with the bar.
        let part = if steps == 1 { 0.5 } else { i as f64 / (labels.len() - 1) as f64 };
        let y = top + height - 6.0 - part * (height - 12.0);
        svg.text([left + BAR + 6.0, y], label, LABEL);
    }
}

/// Stripes from the lower left to the upper right.
fn hatch(svg: &mut Svg, [left, top]: [f64; 2], [width, height]: [f64; 2]) {
    for step in 0..((width + height) / 10.0) as i32 {
        let offset = 5.0 + 10.0 * f64::from(step);
        let (start, end) = (offset.min(height), offset.min(width));
        let line = [[left + offset - start, top + start], [left + end, top + offset - end]];
        svg.line(line, stroke(HATCHING, 1.0));
    }
}
