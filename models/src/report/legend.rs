//! A legend above a panel: its entries in rows, as many as fit.

use super::{
    color::Color,
    svg::{text_width, Stroke, Svg, LABEL},
};

pub(super) const ROW: f64 = 22.0;
pub(super) const ROWS: usize = 6;

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) text: String,
    pub(super) sample: Sample,
}

#[derive(Clone, Copy)]
pub(super) enum Sample {
    Line(Stroke),
    Triangle(Color),
    Nothing,
}

impl Entry {
    /// The distance from the entry's beginning to that of its text.
    fn text_at(&self) -> f64 {
        match self.sample {
            Sample::Line(_) => 28.0,
            Sample::Triangle(_) => 15.0,
            Sample::Nothing => 0.0,
        }
    }
}

/// The entries of a legend with their places: the row, and where they begin.
pub(super) struct Legend(pub(super) Vec<(Entry, usize, f64)>);

impl Legend {
    /// Places the entries in rows of `width`. When they do not fit, the last ones of lines are left
    /// out and counted.
    pub(super) fn new(mut entries: Vec<Entry>, width: f64) -> Self {
        for left_out in 0.. {
            let more = (left_out > 0)
                .then(|| Entry {
                    text: format!("… and {left_out} more"), sample: Sample::Nothing
                });
            let legend = Self::place(entries.iter().chain(&more), width);
            let spare = entries.iter().rposition(|e| matches!(e.sample, Sample::Line(_)));
            match spare {
                Some(spare) if legend.rows() > ROWS => entries.remove(spare),
                _ => return legend,
            };
        }
        Self(Vec::new())
    }

    fn place<'e>(entries: impl Iterator<Item = &'e Entry>, width: f64) -> Self {
        let (mut row, mut x) = (0, 0.0);
        let placed = entries.map(|entry| {
            // The width with the space up to the next entry.
            let wide = entry.text_at() + text_width(&entry.text) + 18.0;
            if x > 0.0 && x + wide > width {
                (row, x) = (row + 1, 0.0);
            }
            x += wide;
            (entry.clone(), row, x - wide)
        });
        Self(placed.collect())
    }

    pub(super) fn rows(&self) -> usize {
        self.0.last().map_or(0, |(_, row, _)| row + 1)
    }

    pub(super) fn height(&self) -> f64 {
        self.rows() as f64 * ROW + 4.0
    }

    pub(super) fn draw(&self, svg: &mut Svg, left: f64, top: f64) {
        for (entry, row, x) in &self.0 {
            let (x, y) = (left + x, top + (*row as f64 + 0.5) * ROW);
            match entry.sample {
                Sample::Line(stroke) => svg.line([[x, y], [x + 22.0, y]], stroke),
                Sample::Triangle(color) => svg.triangle([x + 4.5, y + 4.0], color),
                Sample::Nothing => {}
            }
            svg.text([x + entry.text_at(), y], &entry.text, LABEL);
        }
    }
}
