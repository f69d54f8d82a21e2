//! C ← C + A·B on slices, by the `gemm` crate.

use super::element::Element;

/// A matrix in a slice: element (i, j) stands at `i * row_step + j * column_step`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, E> {
    data: &'a [E],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a, E> Matrix<'a, E> {
    /// Row by row. Of a slice that is too short, as many rows as are whole.
    pub(super) fn new(data: &'a [E], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Row by row, each `row_step` elements after the last.
    pub(super) fn strided(data: &'a [E], rows: usize, columns: usize, row_step: usize) -> Self {
        let rows = rows.min(whole_rows(data.len(), columns, row_step));
        Self { data, rows, columns, row_step, column_step: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
        }
    }
}

/// How many rows of `columns` elements, `step` apart, a slice of `len` holds.
fn whole_rows(len: usize, columns: usize, step: usize) -> usize {
    match len.checked_sub(columns) {
        None => 0,
        Some(_) if columns == 0 => usize::MAX,
        Some(rest) => rest.checked_div(step).map_or(1, |rows| rows + 1),
    }
}

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling thread: it is one of many that each have their own.
    One,
    /// All there are, if it is worth waking them.
    All,
}

/// Products with fewer multiplications run on the calling thread: waking others takes longer.
const PARALLEL: usize = 1 << 20;

/// `into` ← `into` + A·B, with `into` row by row; on all threads.
pub(super) fn add_product<E: Element>(into: &mut [E], a: Matrix<'_, E>, b: Matrix<'_, E>) {
    add_to(into, b.columns, a, b, Threads::All);
}

/// `into` ← `into` + A·B, with the rows of `into` `into_step` elements apart. The result is the same for
/// any number of threads.
///
/// Shapes that do not fit are cut to what does; callers make them fit by type.
pub(super) fn add_to<E: Element>(
    into: &mut [E],
    into_step: usize,
    a: Matrix<'_, E>,
    b: Matrix<'_, E>,
    threads: Threads,
) {
    let n = b.columns;
    let m = a.rows.min(whole_rows(into.len(), n, into_step));
    let k = a.columns.min(b.rows);
    // Rows that overlap would be written twice at a time.
    if n == 0 || (m > 1 && into_step < n) {
        return;
    }
    let work = m.saturating_mul(k).saturating_mul(n);
    let threads = match threads {
        Threads::All if work >= PARALLEL => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    // At most the length of a slice, so it fits.
    let step = |step: usize| step as isize;

    // SAFETY: of A and B only elements are read that `Matrix::strided` found in their slices, transposed
    // or not: m ≤ A's rows, k ≤ A's columns and B's rows, n = B's columns. Of `into` m rows of n elements
    // are written, which `whole_rows` found in it and which do not overlap; it is borrowed mutably, so it
    // overlaps neither A nor B. E is f32 or f64, which gemm knows.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            into.as_mut_ptr(),
            1,
            step(into_step),
            true,
            a.data.as_ptr(),
            step(a.column_step),
            step(a.row_step),
            b.data.as_ptr(),
            step(b.column_step),
            step(b.row_step),
            E::ONE,
            E::ONE,
            false,
            false,
            false,
            threads,
        );
    }
}
