use std::path::Path;

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    figure::{
        between, contrast, legible, product, svg, text, text_width, Area, Drawn, AXIS, TEXT,
        TEXT_SIZE, TITLE_SIZE,
    },
    folder::write,
    ReportError,
};

/// Figures over two quantities, to be drawn as panels of coloured cells.
///
/// All panels have the same rows and columns, and share one scale of colours,
/// which is logarithmic: pale for low values, which are good, and dark red for
/// high ones. Values that are not positive get the colour of the lowest that
/// is. A cell without a figure, or with a value that is not finite, is hatched
/// and shows a dash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMap {
    /// What stands above the panels; empty for nothing.
    pub title: String,
    /// What the columns differ in.
    pub x_label: String,
    /// What the rows differ in.
    pub y_label: String,
    /// The labels of the columns, from left to right.
    pub columns: Vec<String>,
    /// The labels of the rows, from top to bottom.
    pub rows: Vec<String>,
    /// The panels. Narrow ones are put side by side.
    pub panels: Vec<HeatPanel>,
}

/// One of the panels of a [`HeatMap`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatPanel {
    /// What stands above the panel; empty for nothing.
    pub name: String,
    /// The cells, row by row; `None` where there is no figure. Cells that the
    /// vector is too short for have none either, and those beyond the last row
    /// are left out.
    pub cells: Vec<Option<HeatCell>>,
}

/// One of the cells of a [`HeatPanel`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatCell {
    /// Sets the colour, in the unit of all cells; the lower the better.
    pub value: f64,
    /// What is printed in the cell, such as `98.1`; up to 14 characters.
    pub text: String,
}

impl HeatMap {
    /// Draws the panels into the file `path`, as an SVG that is as large as
    /// its cells need: about 78x40 pixels each. An existing file is replaced.
    ///
    /// # Errors
    ///
    /// [`ReportError::Io`] when the file cannot be written, and
    /// [`ReportError::Draw`] should the plotting library fail.
    pub fn write_svg(&self, path: &Path) -> Result<(), ReportError> {
        write(path, self.to_svg()?)
    }

    /// The panels as the text of an SVG file.
    ///
    /// # Errors
    ///
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
const CELL: (i32, i32) = (156, 80);
/// The width up to which panels are put side by side.
const WIDE: i32 = 1800;
const BAR: i32 = 28;
const BAR_GAP: i32 = 52;
const BAR_HEIGHTS: (i32, i32) = (160, 1000);
const BAR_STEPS: i32 = 64;

/// From pale blue over yellow and orange to dark red, ever darker, so that the
/// order survives colour blindness and grey printers.
const RAMP: [RGBColor; 6] = [
    RGBColor(230, 244, 249),
    RGBColor(249, 228, 160),
    RGBColor(253, 190, 98),
    RGBColor(240, 122, 56),
    RGBColor(200, 36, 32),
    RGBColor(103, 0, 22),
];
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
fn ink(background: RGBColor) -> RGBColor {
    if contrast(background, BLACK) >= contrast(background, WHITE) {
        BLACK
    } else {
        WHITE
    }
}

/// The decimal logarithms of the lowest and the highest positive value; any
/// where none is positive.
struct Scale {
    low: f64,
    high: f64,
    positive: bool,
}

impl Scale {
    /// The scale of finite values, or `None` without any.
    fn new(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values = values.peekable();
        values.peek()?;
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .map(f64::log10)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        let positive = low <= high;
        Some(if positive {
            Self { low, high, positive }
        } else {
            Self { low: 0.0, high: 0.0, positive }
        })
    }

    /// The colour of a value, or `None` for one that is not finite.
    fn color(&self, value: f64) -> Option<RGBColor> {
        if !value.is_finite() {
            return None;
        }
        let span = self.high - self.low;
        let part = if span > 0.0 { (value.max(0.0).log10() - self.low) / span } else { 0.0 };
        Some(between(&RAMP, part))
    }

    /// The lowest value, the one in the middle and the highest, or fewer where
    /// they cannot be told apart.
    fn labels(&self) -> Vec<String> {
        if !self.positive {
            return vec!["≤ 0".into()];
        }
        if self.low == self.high {
            return vec![rounded(self.low, 2)];
        }
        let exact = [self.low, (self.low + self.high) / 2.0, self.high];
        let mut labels = exact.map(|y| rounded(y, 1)).to_vec();
        for digits in 2..=4 {
            if labels[0] != labels[1] && labels[1] != labels[2] {
                break;
            }
            labels = exact.map(|y| rounded(y, digits)).to_vec();
        }
        labels.dedup();
        labels
    }
}

/// Ten to the power of `y`, with `digits` decimals in scientific notation.
fn rounded(y: f64, digits: usize) -> String {
    // Just below a power of ten, rounding reaches it.
    let exponent = (y + 1e-9).floor();
    product(10_f64.powf(y - exponent), digits, exponent as i32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use roxmltree::{Document, Node};

    use super::{super::probe::texts, *};

    fn cell(value: f64, text: &str) -> Option<HeatCell> {
        Some(HeatCell { value, text: text.into() })
    }

    fn map(panels: Vec<Vec<Option<HeatCell>>>) -> HeatMap {
        let names = ["first", "second", "third"].map(String::from);
        HeatMap {
            title: "Errors & <more>".into(),
            x_label: "starting rate".into(),
            y_label: "batch size".into(),
            columns: ["1e-4", "1e-3", "1e-2"].map(String::from).into(),
            rows: ["32", "256"].map(String::from).into(),
            panels: panels
                .into_iter()
                .zip(names)
                .map(|(cells, name)| HeatPanel { name, cells })
                .collect(),
        }
    }

    fn run() -> HeatMap {
        let first = [1.5, 2.0, 3.0, 4.0, 10.0, 90.0].map(|v| cell(v, &format!("v{v}"))).to_vec();
        map(vec![first, vec![cell(1.5, "low"), None, cell(f64::NAN, "bad"), cell(90.0, "high")]])
    }

    /// The colours of the rectangles that are as high as a cell.
    fn cells(svg: &str) -> Vec<String> {
        let document = Document::parse(svg).unwrap();
        let high = (CELL.1 - 4).to_string();
        let is_cell = |n: &Node<'_, '_>| n.attribute("height") == Some(&high);
        let rects = document.descendants().filter(|n| n.has_tag_name("rect"));
        rects.filter(is_cell).map(|n| n.attribute("fill").unwrap().to_owned()).collect()
    }

    fn ink_of(svg: &str, text: &str) -> String {
        let document = Document::parse(svg).unwrap();
        let node = document
            .descendants()
            .find(|n| n.has_tag_name("text") && n.text().is_some_and(|found| found.trim() == text));
        node.unwrap().attribute("fill").unwrap().to_owned()
    }

    // Fails when a label is not drawn, or more often than its panel asks for.
    #[test]
    fn every_label_is_there() {
        let texts = texts(&run().to_svg().unwrap());
        let count = |text: &str| texts.iter().filter(|t| *t == text).count();
        for text in ["Errors & <more>", "starting rate", "batch size", "first", "second", "v90"] {
            assert_eq!(count(text), 1, "{text} in {texts:?}");
        }
        for text in ["1e-4", "1e-3", "1e-2", "32", "256"] {
            assert_eq!(count(text), 2, "{text} in {texts:?}");
        }
        // The ends of the scale and their geometric mean.
        for text in ["1.5", "12", "90"] {
            assert_eq!(count(text), 1, "{text} in {texts:?}");
        }
    }

    // Fails when cells are drawn twice or dropped, also where the vector is
    // too short, or when its surplus is drawn.
    #[test]
    fn there_is_a_rectangle_a_cell() {
        let mut map = run();
        assert_eq!(cells(&map.to_svg().unwrap()).len(), 12);
        map.panels[1].cells = vec![cell(1.0, "all"); 50];
        assert_eq!(cells(&map.to_svg().unwrap()).len(), 12);
    }

    // Fails when the panels have scales of their own, or the scale is upside down.
    #[test]
    fn panels_share_a_scale_from_pale_to_dark_red() {
        let svg = run().to_svg().unwrap();
        let colors = cells(&svg);
        assert_eq!((&colors[0], &colors[5]), (&"#E6F4F9".to_owned(), &"#670016".to_owned()));
        assert_eq!((&colors[6], &colors[9]), (&colors[0], &colors[5]));
    }

    // Fails when the scale is linear: the geometric mean is the middle colour.
    #[test]
    fn the_scale_is_logarithmic() {
        let scale = Scale::new([0.01, 100.0].into_iter()).unwrap();
        assert_eq!(scale.color(1.0), Some(between(&RAMP, 0.5)));
        assert_eq!(scale.labels(), ["0.010", "1.0", "100"]);
    }

    // Fails when zero is taken for missing, sets the scale, or is a NaN on it.
    #[test]
    fn values_that_are_not_positive_have_the_lowest_colour() {
        let scale = Scale::new([0.0, -3.0, 1.0, 2.0].into_iter()).unwrap();
        assert_eq!(scale.color(0.0), Some(RAMP[0]));
        assert_eq!(scale.color(-3.0), Some(RAMP[0]));
        assert_eq!(scale.color(1.0), Some(RAMP[0]));
        assert_eq!(scale.color(2.0), Some(RAMP[5]));
        let none = Scale::new([0.0, -1.0].into_iter()).unwrap();
        assert_eq!((none.color(-1.0), none.labels().len()), (Some(RAMP[0]), 1));
    }

    // Fails when equal values divide by an empty span.
    #[test]
    fn equal_values_have_one_colour_and_one_label() {
        let map = map(vec![vec![cell(7.0, "a"); 6]]);
        let svg = map.to_svg().unwrap();
        assert_eq!(cells(&svg), vec!["#E6F4F9"; 6]);
        assert_eq!(texts(&svg).iter().filter(|text| *text == "7.00").count(), 1);
    }

    // Fails when labels of close values are rounded until they are the same.
    #[test]
    fn labels_of_close_values_differ() {
        let scale = Scale::new([97.1, 97.9].into_iter()).unwrap();
        assert_eq!(scale.labels(), ["97.1", "97.5", "97.9"]);
    }

    // Fails when text keeps one colour, or the threshold is badly chosen.
    #[test]
    fn text_is_readable_on_every_colour() {
        let svg = run().to_svg().unwrap();
        assert_eq!(ink_of(&svg, "low"), "#000000");
        assert_eq!(ink_of(&svg, "high"), "#FFFFFF");
        for step in 0..=100 {
            let color = between(&RAMP, f64::from(step) / 100.0);
            assert!(contrast(color, ink(color)) >= 4.5, "{color:?}");
        }
    }

    // Fails when a ramp goes back to lighter colours, which grey printers and
    // colour-blind readers take for lower values.
    #[test]
    fn higher_values_are_darker() {
        let light = |step| contrast(between(&RAMP, f64::from(step) / 50.0), BLACK);
        assert!((1..=50).all(|step| light(step) < light(step - 1)));
    }

    // Fails when a missing cell is coloured as a good one or loses its dash.
    #[test]
    fn missing_and_bad_cells_are_hatched_with_a_dash() {
        let svg = run().to_svg().unwrap();
        let colors = cells(&svg);
        for i in [7, 8, 10, 11] {
            assert_eq!(colors[i], "#F4F4F4");
        }
        let texts = texts(&svg);
        assert_eq!(texts.iter().filter(|text| *text == "–").count(), 4);
        assert!(!texts.contains(&"bad".to_owned()));
        assert!(svg.contains("#D8D8D8"));
    }

    // Fails when nothing to draw is an error, divides by zero or says nothing.
    #[test]
    fn an_empty_map_says_so() {
        let no_rows = HeatMap { rows: Vec::new(), ..run() };
        let no_panels = HeatMap { panels: Vec::new(), ..run() };
        for map in [HeatMap::default(), no_rows, no_panels] {
            let svg = map.to_svg().unwrap();
            assert!(texts(&svg).contains(&"no data".to_owned()));
            assert!(cells(&svg).is_empty());
        }
        let all_missing = texts(&map(vec![Vec::new()]).to_svg().unwrap());
        assert_eq!(all_missing.iter().filter(|text| *text == "–").count(), 6);
    }

    // Fails when the size does not follow the cells, or labels are cut off.
    #[test]
    fn everything_is_within_the_size() {
        let many = |count: usize, text: &str| vec![text.to_owned(); count];
        for (columns, rows, panels) in [(1, 1, 1), (8, 4, 2), (3, 2, 3), (12, 1, 2), (1, 20, 5)] {
            let map = HeatMap {
                title: "x".repeat(80),
                columns: many(columns, "a long label"),
                rows: many(rows, "a label of a row"),
                panels: vec![HeatPanel { name: "n".repeat(60), cells: Vec::new() }; panels],
                ..run()
            };
            let svg = map.to_svg().unwrap();
            let document = Document::parse(&svg).unwrap();
            let size: Vec<f64> = document.root_element().attribute("viewBox").unwrap()[4..]
                .split(' ')
                .map(|length| length.parse().unwrap())
                .collect();
            let number = |n: &Node<'_, '_>, name| -> f64 {
                n.attribute(name).map_or(0.0, |value| value.parse().unwrap())
            };
            for node in document.descendants().filter(|n| n.has_tag_name("rect")) {
                assert!(number(&node, "x") + number(&node, "width") <= size[0]);
                assert!(number(&node, "y") + number(&node, "height") <= size[1]);
            }
            for node in document.descendants().filter(|n| n.has_tag_name("text")) {
                let (x, y) = (number(&node, "x"), number(&node, "y"));
                let wide = 13.0 * node.text().unwrap().trim().chars().count() as f64;
                let (before, after) = match node.attribute("text-anchor") {
                    Some("end") => (wide, 0.0),
                    Some("middle") => (wide / 2.0, wide / 2.0),
                    _ => (0.0, wide),
                };
                let (along, room) = match node.attribute("transform") {
                    Some(_) => (y, size[1]),
                    None => (x, size[0]),
                };
                assert!(along >= before && along + after <= room, "{:?}", node.text());
            }
        }
    }

    // Fails when the file is not what `to_svg` gives, or an error hides the path.
    #[test]
    fn a_file_is_written_or_the_path_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.svg");
        run().write_svg(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), run().to_svg().unwrap());
        let error = run().write_svg(&dir.path().join("no/where.svg")).unwrap_err();
        assert!(error.to_string().contains("where.svg"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

        // Fails when a text is not escaped or a number overflows the scale.
        #[test]
        fn any_map_gives_well_formed_xml(
            title in any::<String>(),
            columns in prop::collection::vec(any::<String>(), 0..5),
            rows in prop::collection::vec(any::<String>(), 0..4),
            values in prop::collection::vec(prop::option::of((any::<f64>(), any::<String>())), 0..24),
        ) {
            let cells = values
                .into_iter()
                .map(|cell| cell.map(|(value, text)| HeatCell { value, text }))
                .collect();
            let panels = vec![HeatPanel { name: title.clone(), cells }; 3];
            let map = HeatMap { x_label: title.clone(), y_label: title.clone(), title, columns, rows, panels };
            prop_assert!(Document::parse(&map.to_svg().unwrap()).is_ok());
        }
    }
}
