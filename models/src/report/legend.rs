//! A legend above a panel: its entries in rows, as many as fit.

use super::drawing::{text, text_width, Area, Drawn, LEFT, RIGHT, SCALE, TEXT, TEXT_SIZE, WIDTH};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, VPos},
};

pub(super) const LEGEND_ROW: i32 = 44;

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
    /// The width of the sample and the text, and the space up to the next entry.
    fn width(&self) -> i32 {
        self.sample.width() + text_width(&self.text) + 36
    }
}

pub(super) const LEGEND_ROWS: usize = 6;
/// The rows of a legend for which a figure does not grow.
pub(super) const FREE_ROWS: usize = 4;

/// The entries of a legend with their places: the row, and where they begin.
pub(super) struct Legend(pub(super) Vec<(Entry, usize, i32)>);

impl Legend {
    /// Places the entries in rows. When they do not fit, the last ones of lines are left out and
    /// counted.
    pub(super) fn new(entries: &[Entry]) -> Self {
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

    pub(super) fn rows(&self) -> usize {
        self.0.last().map_or(0, |(_, row, _)| row + 1)
    }

    pub(super) fn height(&self) -> i32 {
        self.rows() as i32 * LEGEND_ROW + 8
    }

    /// Draws the legend above the plot, where it can cover nothing, and returns the area below.
    pub(super) fn draw<'a>(&self, area: &Area<'a>) -> Drawn<'a, Area<'a>> {
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
