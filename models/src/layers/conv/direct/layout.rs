//! How images are laid out, so that each tap of a filter is a fixed distance from the first.
//!
//! A place is numbered `(image · rows + row) · pitch + column`, and an output's number is that of
//! the padded pixel which its first tap reads. Filters that move by several pixels see an image as
//! that many phases each way: padded pixel (r, c) is at row r / stride and column c / stride of
//! phase (r mod stride, c mod stride), where neighbouring outputs read neighbours.
//!
//! A place holds one pixel, or the same pixel of as many images as a register has lanes.

use super::super::geometry::Geometry;
use crate::layers::scratch;
use pulp::NullaryFnOnce;
use std::ops::Range;

/// The zeros behind the last place. Registers read fewer than these beyond it.
const SLACK: usize = 64;
/// Floats in a line of a cache. A register that starts where a line does touches one line only.
const LINE: usize = scratch::LINE / size_of::<f32>();
/// Images with more outputs in a row are not interleaved: their padding costs little.
const NARROW: usize = 16;
/// About how many places the images have that are laid out together.
const RUN: usize = 4096;
/// About how many floats these images' inputs and outputs have, so that they stay in a core's
/// cache.
const RUN_FLOATS: usize = 1 << 18;

/// The sizes of images laid out as `[channel][phase][image][row][column][lane]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// How many images share a place, with one pixel each.
    pub(super) lanes: usize,
    /// How many images, or groups of `lanes` images, stand one after the other.
    pub(super) images: usize,
    rows: usize,
    pitch: usize,
    /// The distance from the first tap of a filter to the last one, in rows and in columns.
    reach: usize,
    /// The number of floats from a phase to the next.
    phase: usize,
    /// The number of floats from an input channel to the next, with all phases.
    pub(super) input: usize,
    /// The number of floats from an output channel to the next: outputs have no phases.
    pub(super) output: usize,
}

/// A range of consecutive floats.
pub(super) type Span = Range<usize>;

impl Layout {
    /// The layout of a convolution's images, for registers of `lanes` floats.
    pub(super) fn new(g: &Geometry, lanes: usize) -> Self {
        let reach = (g.kernel - 1) * g.dilation / g.stride;
        let (mut rows, mut pitch) = (g.out_height + reach, g.out_width + reach);
        // Images are interleaved if that leaves at most a quarter of the lanes empty.
        let filled = g.batch.next_multiple_of(lanes) * 3 <= g.batch * 4;
        if filled && g.out_width <= NARROW {
            return Self { lanes, images: 1, rows, pitch, reach, phase: 0, input: 0, output: 0 }
                .sized(g);
        }
        if g.stride == 1 && g.dilation == 1 && g.padding < g.kernel {
            // The padding at a row's right is also that at the next row's left. In the same way,
            // the padding below an image is that above the next one.
            (rows, pitch) = (rows - g.padding, pitch - g.padding);
        }
        let planes = g.channels * g.stride * g.stride + g.outputs;
        let run = RUN.min(RUN_FLOATS / planes.max(1));
        let images = (run / (rows * pitch)).clamp(1, g.batch.max(1));
        Self { lanes: 1, images, rows, pitch, reach, phase: 0, input: 0, output: 0 }.sized(g)
    }

    fn sized(mut self, g: &Geometry) -> Self {
        self.phase = self.images * self.rows * self.pitch * self.lanes;
        let aligned = |floats: usize| floats.next_multiple_of(LINE);
        self.input = aligned(g.stride * g.stride * self.phase + self.lead() + SLACK);
        self.output = aligned(self.phase + self.lead() + SLACK);
        self
    }

    /// How many images are laid out together.
    pub(super) fn together(&self) -> usize {
        self.lanes * self.images
    }

    /// The number of floats from the first tap of a filter to the last, rounded up to whole lines
    /// of a cache.
    pub(super) fn lead(&self) -> usize {
        (self.reach * (self.pitch + 1) * self.lanes).next_multiple_of(LINE)
    }

    /// The places that outputs are computed for, and that gradients are summed over: one span with
    /// the padding in it, or a span for each row.
    pub(super) fn outputs(&self, g: &Geometry, images: usize) -> Vec<Span> {
        if self.lanes > 1 {
            return self.spans(0..g.out_height, 0..g.out_width);
        }
        std::iter::once(0..((images - 1) * self.rows + g.out_height) * self.pitch).collect()
    }

    /// A span for each of these rows of an image.
    fn spans(&self, rows: Range<usize>, columns: Range<usize>) -> Vec<Span> {
        let row = |row| {
            let first = (row * self.pitch + columns.start) * self.lanes;
            first..first + columns.len() * self.lanes
        };
        rows.map(row).collect()
    }

    /// How many floats each tap is behind its output's place, row by row of the filter.
    pub(super) fn offsets(&self, g: &Geometry) -> Vec<usize> {
        let tap = |tap: usize| {
            let (y, x) = (tap / g.kernel * g.dilation, tap % g.kernel * g.dilation);
            let phase = y % g.stride * g.stride + x % g.stride;
            phase * self.phase + self.within(y, x, g)
        };
        (0..g.kernel * g.kernel).map(tap).collect()
    }

    fn within(&self, y: usize, x: usize, g: &Geometry) -> usize {
        (y / g.stride * self.pitch + x / g.stride) * self.lanes
    }

    /// The phases of an image in which an output reads some pixel.
    pub(super) fn phases(&self, g: &Geometry) -> Vec<Phase> {
        let mut phases = Vec::new();
        for (row, column) in (0..g.stride).flat_map(|row| (0..g.stride).map(move |c| (row, c))) {
            let taps = (0..g.kernel * g.kernel).filter(|tap| {
                let (y, x) = (tap / g.kernel * g.dilation, tap % g.kernel * g.dilation);
                (y % g.stride, x % g.stride) == (row, column)
            });
            let taps: Vec<_> = taps.collect();
            let rows = self.pixels(row, g.height, g.out_height, g);
            let columns = self.pixels(column, g.width, g.out_width, g);
            if taps.is_empty() || rows.is_empty() || columns.is_empty() {
                continue;
            }
            let spans = match self.lanes {
                1 => std::iter::once(rows.start * self.pitch..self.phase).collect(),
                _ => self.spans(rows.clone(), columns.clone()),
            };
            // The outputs that read a pixel are at the places before it.
            let back = |tap: &usize| {
                let (y, x) = (tap / g.kernel * g.dilation, tap % g.kernel * g.dilation);
                self.lead() - self.within(y, x, g)
            };
            let offsets = taps.iter().map(back).collect();
            let first = (row * g.stride + column) * self.phase;
            let pixel = (
                (rows.start * g.stride + row).saturating_sub(g.padding),
                (columns.start * g.stride + column).saturating_sub(g.padding),
            );
            phases.push(Phase { first, rows, columns, pixel, taps, offsets, spans });
        }
        phases
    }

    /// The rows (or columns) of a phase that hold a pixel which an output reads.
    fn pixels(&self, phase: usize, size: usize, outputs: usize, g: &Geometry) -> Range<usize> {
        let first = g.padding.saturating_sub(phase).div_ceil(g.stride);
        let end = (size + g.padding).saturating_sub(phase).div_ceil(g.stride);
        first..end.min(outputs + self.reach)
    }
}

/// Every stride-th pixel of each row and column of an image.
#[derive(Debug)]
pub(super) struct Phase {
    /// The phase's first float in a channel.
    pub(super) first: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    /// The first pixel's row and column in the image.
    pixel: (usize, usize),
    /// The taps that read this phase.
    pub(super) taps: Vec<usize>,
    /// For each of these taps: [`Layout::lead`], less the distance from the output to the pixel
    /// that the tap reads.
    pub(super) offsets: Vec<usize>,
    /// Where the phase's pixels are.
    pub(super) spans: Vec<Span>,
}

/// Where pixels are, in the image and in the layout: rows of `width` columns.
pub(super) struct Place {
    /// The first pixel's float in the layout.
    first: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// The first pixel in the image, and the distances there between rows and between columns.
    pub(super) pixel: usize,
    pub(super) row_step: usize,
    pub(super) column_step: usize,
}

impl Layout {
    pub(super) fn input_place(&self, g: &Geometry, phase: &Phase) -> Place {
        let at = phase.rows.start * self.pitch + phase.columns.start;
        Place {
            first: phase.first + at * self.lanes,
            rows: phase.rows.len(),
            width: phase.columns.len(),
            pixel: phase.pixel.0 * g.width + phase.pixel.1,
            row_step: g.stride * g.width,
            column_step: g.stride,
        }
    }

    pub(super) fn output_place(&self, g: &Geometry, first: usize) -> Place {
        Place {
            first,
            rows: g.out_height,
            width: g.out_width,
            pixel: 0,
            row_step: g.out_width,
            column_step: 1,
        }
    }

    /// The first place of an image, and its lane.
    fn of_image(&self, image: usize) -> (usize, usize) {
        (image / self.lanes * self.rows * self.pitch * self.lanes, image % self.lanes)
    }

    /// The first float of a row of an image.
    #[inline(always)]
    pub(super) fn row(&self, place: &Place, image: usize, row: usize) -> usize {
        let (first, lane) = self.of_image(image);
        place.first + first + row * self.pitch * self.lanes + lane
    }
}

/// See [`Layout::put`]. This is a type, as is [`Take`], because the compiler does not inline a
/// closure of this size.
pub(super) struct Put<'a> {
    pub(super) layout: &'a Layout,
    pub(super) places: &'a [Place],
    pub(super) from: (&'a [f32], usize, usize),
    pub(super) to: (&'a mut [f32], usize),
}

impl NullaryFnOnce for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (images, image, plane) = self.from;
        for place in self.places {
            for (channel, laid) in self.to.0.chunks_exact_mut(self.to.1).enumerate() {
                for (index, image) in images.chunks_exact(image).enumerate() {
                    let pixels = &image[channel * plane..][..plane];
                    for row in 0..place.rows {
                        let from = &pixels[place.pixel + row * place.row_step..];
                        let to = &mut laid[self.layout.row(place, index, row)..];
                        let steps = (self.layout.lanes, place.column_step);
                        strided(to, from, steps, place.width, |to, from| *to = from);
                    }
                }
            }
        }
    }
}

/// See [`Layout::take`].
pub(super) struct Take<'a> {
    pub(super) layout: &'a Layout,
    pub(super) places: &'a [Place],
    pub(super) from: (&'a [f32], usize),
    pub(super) to: (&'a mut [f32], usize, usize),
}

impl NullaryFnOnce for Take<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (images, image, plane) = self.to;
        for place in self.places {
            // The layout has whole blocks of channels. The last block may hold more channels than
            // there are.
            let channels = self.from.0.chunks_exact(self.from.1).take(image / plane.max(1));
            for (channel, laid) in channels.enumerate() {
                for (index, image) in images.chunks_exact_mut(image).enumerate() {
                    let pixels = &mut image[channel * plane..][..plane];
                    for row in 0..place.rows {
                        let to = &mut pixels[place.pixel + row * place.row_step..];
                        let from = &laid[self.layout.row(place, index, row)..];
                        let steps = (place.column_step, self.layout.lanes);
                        strided(to, from, steps, place.width, |to, from| *to += from);
                    }
                }
            }
        }
    }
}

/// Does `work` on `count` pairs of elements, which are `steps` apart.
#[inline(always)]
fn strided(
    to: &mut [f32],
    from: &[f32],
    steps: (usize, usize),
    count: usize,
    work: impl Fn(&mut f32, f32),
) {
    // The compiler makes faster code for steps that are constants.
    match steps {
        (1, 1) => to[..count].iter_mut().zip(&from[..count]).for_each(|(to, from)| work(to, *from)),
        (1, 2) => steps_of::<1, 2>(to, from, count, work),
        (2, 1) => steps_of::<2, 1>(to, from, count, work),
        (to_step, from_step) => {
            for index in 0..count {
                work(&mut to[index * to_step], from[index * from_step]);
            }
        }
    }
}

#[inline(always)]
fn steps_of<const TO: usize, const FROM: usize>(
    to: &mut [f32],
    from: &[f32],
    count: usize,
    work: impl Fn(&mut f32, f32),
) {
    let pairs = to.chunks_mut(TO).zip(from.chunks(FROM)).take(count);
    for (to, from) in pairs {
        work(&mut to[0], from[0]);
    }
}
