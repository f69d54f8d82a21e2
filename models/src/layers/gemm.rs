//! C ← C + A·B on slices, by the `gemm` crates.

use super::{element::Element, shares::least};
use gemm_common::Parallelism;
use rayon::prelude::*;

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
    /// A matrix stored row by row. If the slice is too short, it has as many rows as are whole.
    pub(super) fn new(data: &'a [E], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix stored row by row, each row `row_step` elements after the last.
    pub(super) fn strided(data: &'a [E], rows: usize, columns: usize, row_step: usize) -> Self {
        let rows = rows.min(whole_rows(data.len(), columns, row_step));
        Self { data, rows, columns, row_step, column_step: 1 }
    }

    /// The matrix without the rows before this one.
    fn rows_from(self, row: usize) -> Self {
        let data = self.data.get(row * self.row_step..).unwrap_or_default();
        Self { data, rows: self.rows - row, ..self }
    }

    /// The matrix without the columns before this one.
    fn columns_from(self, column: usize) -> Self {
        self.transposed().rows_from(column).transposed()
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

/// The threads that compute a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling thread, where many threads compute a product of their own each.
    One,
    /// All threads, if it is worth waking them.
    All,
}

/// Products with fewer multiplications run on the calling thread: waking others takes longer.
const PARALLEL: usize = 1 << 20;

/// `into` ← `into` + A·B, with `into` row by row; on all threads.
pub(super) fn add_product<E: Element>(into: &mut [E], a: Matrix<'_, E>, b: Matrix<'_, E>) {
    add_to(into, b.columns, a, b, Threads::All);
}

/// `into` ← `into` + A·B, with the rows of `into` `into_step` elements apart. The result is the
/// same for any number of threads.
///
/// Shapes that do not fit are cut to the part that does. Callers' types make them fit.
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
    // Two threads would write to rows that overlap.
    if n == 0 || (m > 1 && into_step < n) {
        return;
    }
    let whole = Product { m, n, k, into: into.as_mut_ptr(), into_step, a, b };
    let work = m.saturating_mul(k).saturating_mul(n);
    if threads == Threads::One || work < PARALLEL {
        // SAFETY: as `Product::add` asks for.
        #[allow(unsafe_code)]
        unsafe {
            whole.add()
        };
        return;
    }
    // The panels are the same for any number of threads, so that sums are grouped in the same way.
    let panels = m.max(n).div_ceil(PANEL);
    (0..panels).into_par_iter().with_min_len(least(work)).for_each(|panel| {
        // SAFETY: as `Product::add` asks for, of the whole product. Panels share no element of
        // `into`.
        #[allow(unsafe_code)]
        unsafe {
            whole.panel(panel).add()
        };
    });
}

/// Rows or columns of a product that a thread computes at a time.
const PANEL: usize = 256;

/// A product of matrices whose sizes fit.
#[derive(Clone, Copy)]
struct Product<'a, E> {
    m: usize,
    n: usize,
    k: usize,
    into: *mut E,
    into_step: usize,
    a: Matrix<'a, E>,
    b: Matrix<'a, E>,
}

// SAFETY: `into` is only written to by `add`, and a caller of it on two threads sees to it that
// they write to different elements.
#[allow(unsafe_code)]
unsafe impl<E: Sync> Sync for Product<'_, E> {}

impl<E: Element> Product<'_, E> {
    /// A panel of the product: some of its rows if it is tall, some of its columns if it is wide.
    fn panel(mut self, panel: usize) -> Self {
        let first = panel * PANEL;
        if self.m >= self.n {
            self.m = PANEL.min(self.m - first);
            self.into = self.into.wrapping_add(first * self.into_step);
            self.a = self.a.rows_from(first);
        } else {
            self.n = PANEL.min(self.n - first);
            self.into = self.into.wrapping_add(first);
            self.b = self.b.columns_from(first);
        }
        self
    }

    /// Adds the product to `into`.
    ///
    /// # Safety
    /// `into` is of m rows of n elements, `into_step` apart, which no other thread reads or
    /// writes meanwhile.
    #[allow(unsafe_code)]
    unsafe fn add(self) {
        // A step is at most the length of a slice, so it fits.
        let step = |step: usize| step as isize;
        let Self { m, n, k, into, into_step, a, b } = self;
        // The kernels write columns: rows are the columns of the transposed product.
        let rows = into_step > 1;
        let (m, n, a, b) = if rows { (n, m, b.transposed(), a.transposed()) } else { (m, n, a, b) };
        let (column_step, row_step) = if rows { (into_step, 1) } else { (1, into_step) };
        // SAFETY: of A and B only elements are read that `Matrix::strided` found in their slices,
        // transposed or not: m ≤ A's rows, k ≤ A's columns and B's rows, n ≤ B's columns, less
        // those that a panel leaves out. `into` is the caller's promise, and borrowed mutably, so
        // it overlaps neither A nor B.
        unsafe {
            E::gemm()(
                m,
                n,
                k,
                into,
                step(column_step),
                step(row_step),
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
                Parallelism::None,
            );
        }
    }
}
