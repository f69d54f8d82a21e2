//! Lays out the same pixel of sixteen images side by side, and takes it back: tiles of sixteen
//! pixels of sixteen images are transposed in registers.

use super::layout::{Layout, Place, Put, Take};
use pulp::{x86::V4, NullaryFnOnce};
use std::arch::x86_64::{__m512, __m512d};

/// How many images, and how many pixels, a tile has: as many as a register has floats.
pub(super) const LANES: usize = 16;

type Tile = [[f32; LANES]; LANES];

/// Transposes a tile. (It has no closures: a closure is compiled without the wide registers, and
/// then calls a function for each instruction.)
#[inline(always)]
fn transposed(simd: V4, rows: &Tile) -> Tile {
    let simd = simd.avx512f;
    let rows: [__m512; LANES] = pulp::cast(*rows);
    // `fours[f][c]` holds, in each of its four parts, the four values of rows 4f to 4f + 3 in one
    // column: column c of that part.
    let mut fours = [[rows[0]; 4]; 4];
    for four in 0..4 {
        let [a, b, c, d] =
            [rows[4 * four], rows[4 * four + 1], rows[4 * four + 2], rows[4 * four + 3]];
        let low: __m512d = pulp::cast(simd._mm512_unpacklo_ps(a, b));
        let high: __m512d = pulp::cast(simd._mm512_unpackhi_ps(a, b));
        let then_low: __m512d = pulp::cast(simd._mm512_unpacklo_ps(c, d));
        let then_high: __m512d = pulp::cast(simd._mm512_unpackhi_ps(c, d));
        fours[four][0] = pulp::cast(simd._mm512_unpacklo_pd(low, then_low));
        fours[four][1] = pulp::cast(simd._mm512_unpackhi_pd(low, then_low));
        fours[four][2] = pulp::cast(simd._mm512_unpacklo_pd(high, then_high));
        fours[four][3] = pulp::cast(simd._mm512_unpackhi_pd(high, then_high));
    }
    let mut columns = rows;
    for column in 0..4 {
        let [a, b] = [fours[0][column], fours[1][column]];
        let [c, d] = [fours[2][column], fours[3][column]];
        // The parts of even number, and the parts of odd number.
        let even =
            [simd._mm512_shuffle_f32x4::<0x88>(a, b), simd._mm512_shuffle_f32x4::<0x88>(c, d)];
        let odd =
            [simd._mm512_shuffle_f32x4::<0xdd>(a, b), simd._mm512_shuffle_f32x4::<0xdd>(c, d)];
        columns[column] = simd._mm512_shuffle_f32x4::<0x88>(even[0], even[1]);
        columns[column + 4] = simd._mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]);
        columns[column + 8] = simd._mm512_shuffle_f32x4::<0xdd>(even[0], even[1]);
        columns[column + 12] = simd._mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]);
    }
    pulp::cast(columns)
}

/// Neighbouring pixels of a place: the first one's number, their count, and where each is laid out.
struct Run {
    pixel: usize,
    count: usize,
    laid: [usize; LANES],
}

/// The runs that the pixels of a place are divided into.
fn runs(layout: &Layout, place: &Place) -> Vec<Run> {
    // If the rows follow each other without a gap, all pixels are one run.
    let (lines, length) = match place.row_step == place.width && place.column_step == 1 {
        true => (1, place.rows * place.width),
        false => (place.rows, place.width),
    };
    let mut runs = Vec::with_capacity(lines * length.div_ceil(LANES));
    for line in 0..lines {
        for start in (0..length).step_by(LANES) {
            let mut laid = [0; LANES];
            let count = LANES.min(length - start);
            for (index, laid) in (start..start + count).zip(&mut laid) {
                let (row, column) = (line + index / place.width, index % place.width);
                *laid = layout.row(place, 0, row) + column * LANES;
            }
            let pixel = place.pixel + line * place.row_step + start * place.column_step;
            runs.push(Run { pixel, count, laid });
        }
    }
    runs
}

/// [`Put`] or [`Take`] of sixteen images, by tiles.
pub(super) struct Tiled<W> {
    pub(super) simd: V4,
    pub(super) work: W,
}

impl NullaryFnOnce for Tiled<Put<'_>> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Put { layout, places, from: (images, image, plane), to } = self.work;
        for place in places {
            let runs = runs(layout, place);
            for (channel, laid) in to.0.chunks_exact_mut(to.1).enumerate() {
                for run in &runs {
                    let mut rows = Tile::default();
                    for (row, image) in rows.iter_mut().zip(images.chunks_exact(image)) {
                        let from = &image[channel * plane + run.pixel..];
                        match (place.column_step, run.count) {
                            (1, LANES) => row.copy_from_slice(&from[..LANES]),
                            (2, _) if from.len() >= 2 * LANES => {
                                let pairs = from.as_chunks::<2>().0;
                                row.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
                            }
                            (step, count) => {
                                for index in 0..count {
                                    row[index] = from[step * index];
                                }
                            }
                        }
                    }
                    let columns = transposed(self.simd, &rows);
                    for (first, values) in run.laid.iter().zip(&columns).take(run.count) {
                        laid[*first..][..LANES].copy_from_slice(values);
                    }
                }
            }
        }
    }
}

impl NullaryFnOnce for Tiled<Take<'_>> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Take { layout, places, from, to: (images, image, plane) } = self.work;
        for place in places {
            let runs = runs(layout, place);
            // The layout has whole blocks of channels. The last block may hold more channels than
            // there are.
            let channels = from.0.chunks_exact(from.1).take(image / plane.max(1));
            for (channel, laid) in channels.enumerate() {
                for run in &runs {
                    let mut rows = Tile::default();
                    for (row, first) in rows.iter_mut().zip(run.laid) {
                        row.copy_from_slice(&laid[first..][..LANES]);
                    }
                    let columns = transposed(self.simd, &rows);
                    for (image, values) in images.chunks_exact_mut(image).zip(&columns) {
                        let to = &mut image[channel * plane + run.pixel..];
                        if let (1, LANES) = (place.column_step, run.count) {
                            to[..LANES].iter_mut().zip(values).for_each(|(to, x)| *to += x);
                        } else {
                            for index in 0..run.count {
                                to[place.column_step * index] += values[index];
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let Some(simd) = V4::try_new() else { return };
        let rows: Tile = std::array::from_fn(|r| std::array::from_fn(|c| (100 * r + c) as f32));
        let columns = transposed(simd, &rows);
        for (index, column) in columns.into_iter().enumerate() {
            assert_eq!(column, std::array::from_fn(|r| (100 * r + index) as f32));
        }
    }
}
