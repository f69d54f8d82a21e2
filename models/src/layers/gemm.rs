//! C ← C + A·B on slices, by the `gemm` crate.

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
        let whole = data.len().checked_div(columns).unwrap_or(rows);
        Self { data, rows: rows.min(whole), columns, row_step: columns, column_step: 1 }
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

/// What [`add_product`] multiplies: f32 and f64.
pub(super) trait Element: Copy + PartialOrd + std::ops::AddAssign + 'static {
    const ZERO: Self;
    const ONE: Self;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Element for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// Products with fewer multiplications run on the calling thread: waking others takes longer.
const PARALLEL: usize = 1 << 20;

/// `into` ← `into` + A·B, with `into` row by row. The result is the same for any number of threads.
///
/// Shapes that do not fit are cut to what does; callers make them fit by type.
pub(super) fn add_product<E: Element>(into: &mut [E], a: Matrix<'_, E>, b: Matrix<'_, E>) {
    let n = b.columns;
    let m = a.rows.min(into.len().checked_div(n).unwrap_or(0));
    let k = a.columns.min(b.rows);
    let work = m.saturating_mul(k).saturating_mul(n);
    let threads =
        if work < PARALLEL { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(0) };
    // At most the length of a slice, so it fits.
    let step = |step: usize| step as isize;

    // SAFETY: of A and B only elements are read that `Matrix::new` found in their slices, transposed
    // or not: m ≤ A's rows, k ≤ A's columns and B's rows, n = B's columns. Of `into` the first m·n are
    // written, no more than it has; it is borrowed mutably, so it overlaps neither. E is f32 or f64,
    // which gemm knows.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            into.as_mut_ptr(),
            1,
            step(n),
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
