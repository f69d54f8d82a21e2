//! Heat maps: figures over two quantities, as panels of coloured cells.

mod layout;
mod scale;

/// Figures over two quantities, to be drawn as panels of coloured cells.
///
/// All panels have the same rows and columns, and share one scale of colours, which is logarithmic:
/// pale for low values, which are good, and dark red for high ones. Values that are not positive
/// get the colour of the lowest that is. A cell without a figure, or with a value that is not
/// finite, is hatched and shows a dash.
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
    /// The cells, row by row; `None` if there is no figure. Cells that the vector is too short
    /// for have none either, and those beyond the last row are left out.
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

#[cfg(test)]
mod tests;
