//! Convolution in strides of one pixel without a matrix of columns: images are laid out with their padding, so
//! that a filter's tap is a fixed distance away in memory, for as many pixels at a time as a register holds.
//!
//! A row of the padded image is as long as a row of outputs and what a filter reaches beyond: outputs are
//! computed at that pitch, and the few at the end of each row that are none are left out.

use super::geometry::Geometry;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Filters of more elements do not stay in a core's cache: matrix products handle them better.
const LARGEST_WEIGHT: usize = 1 << 18;
/// Padded pixels that the gradients of the weights are summed over at a time, in registers.
const RUN: usize = 1024;
/// Behind the pixels of a channel, more zeros than registers read too far.
const SLACK: usize = 64;

/// Whether this is the faster way, and possible.
pub(super) fn suits(g: &Geometry) -> bool {
    (g.stride, g.dilation, g.groups) == (1, 1, 1)
        && (2..=7).contains(&g.kernel)
        && g.padding < g.kernel
        && g.outputs * g.channels * g.kernel * g.kernel <= LARGEST_WEIGHT
}

/// Images with their padding: `[channel][image][row][column]`.
struct Padded {
    values: Vec<f32>,
    rows: usize,
    pitch: usize,
    /// From a channel to the next.
    channel: usize,
}

impl Padded {
    /// Room for `images` of these sizes, all zeros.
    fn new(channels: usize, images: usize, rows: usize, pitch: usize) -> Self {
        let channel = images * rows * pitch + SLACK;
        Self { values: vec![0.0; channels * channel], rows, pitch, channel }
    }

    /// Puts `image` at `place`, `padding` pixels from its edges. What is around it stays zero.
    fn put(
        &mut self,
        place: usize,
        image: &[f32],
        (height, width): (usize, usize),
        padding: usize,
    ) {
        for (channel, plane) in image.chunks_exact(height * width).enumerate() {
            let first =
                channel * self.channel + (place * self.rows + padding) * self.pitch + padding;
            let rows = self.values[first..].chunks_mut(self.pitch);
            for (row, pixels) in rows.zip(plane.chunks_exact(width)) {
                row[..width].copy_from_slice(pixels);
            }
        }
    }
}

/// How far each tap is from the first, row by row.
fn offsets(kernel: usize, pitch: usize) -> Vec<usize> {
    (0..kernel * kernel).map(|tap| tap / kernel * pitch + tap % kernel).collect()
}

/// The filters for [`Convolve`]: `[block of outputs][channel][tap][output in the block]`, zeros where the last
/// block has no output. `of` gives a filter's element by output, channel and tap.
fn packed(
    (outputs, channels, taps): (usize, usize, usize),
    of: impl Fn(usize, usize, usize) -> f32,
) -> Vec<f32> {
    let mut packed = Vec::with_capacity(outputs.next_multiple_of(BLOCK) * channels * taps);
    for block in (0..outputs).step_by(BLOCK) {
        for channel in 0..channels {
            for tap in 0..taps {
                packed.extend((block..block + BLOCK).map(|output| match output < outputs {
                    true => of(output, channel, tap),
                    false => 0.0,
                }));
            }
        }
    }
    packed
}

/// Outputs at a time.
const BLOCK: usize = 8;

/// One image's convolution: adds to the planes `y` of `height` × `width` pixels.
struct Convolve<'a> {
    x: &'a Padded,
    channels: usize,
    filters: &'a [f32],
    offsets: &'a [usize],
    height: usize,
    width: usize,
    y: &'a mut [f32],
    /// `BLOCK` planes at the pitch of the padded image.
    room: &'a mut Vec<f32>,
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let pitch = self.x.pitch;
        let length = (self.height * pitch).next_multiple_of(lanes);
        self.room.resize(BLOCK * length, 0.0);
        let per_block = self.channels * self.offsets.len() * BLOCK;
        let planes = self.y.chunks_mut(BLOCK * self.height * self.width);
        for (planes, filters) in planes.zip(self.filters.chunks_exact(per_block)) {
            let tile = Tile {
                x: &self.x.values,
                channel: self.x.channel,
                filters,
                offsets: self.offsets,
                length,
            };
            let mut at = 0;
            // 8 × 3 sums, 3 inputs and a weight are 28 registers.
            while S::REGISTER_COUNT >= 32 && at + 3 * lanes <= length {
                tile.sums::<S, 3>(simd, at, self.room);
                at += 3 * lanes;
            }
            while at + 2 * lanes <= length {
                tile.sums::<S, 2>(simd, at, self.room);
                at += 2 * lanes;
            }
            while at < length {
                tile.sums::<S, 1>(simd, at, self.room);
                at += lanes;
            }
            let sums = self.room.chunks_exact(length);
            for (plane, sums) in planes.chunks_exact_mut(self.height * self.width).zip(sums) {
                for (row, sums) in plane.chunks_exact_mut(self.width).zip(sums.chunks(pitch)) {
                    row.iter_mut().zip(sums).for_each(|(y, sum)| *y += *sum);
                }
            }
        }
    }
}

/// What a tile of `BLOCK` outputs by some pixels is computed from.
struct Tile<'a> {
    x: &'a [f32],
    channel: usize,
    filters: &'a [f32],
    offsets: &'a [usize],
    length: usize,
}

impl Tile<'_> {
    /// The pixels from `at` on, N registers of them, of each output.
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(&self, simd: S, at: usize, room: &mut [f32]) {
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); N]; BLOCK];
        let channels = self.filters.chunks_exact(self.offsets.len() * BLOCK);
        for (channel, filters) in channels.enumerate() {
            let first = channel * self.channel + at;
            for (offset, weights) in self.offsets.iter().zip(filters.chunks_exact(BLOCK)) {
                let Some(x) = self.x.get(first + offset..first + offset + N * lanes) else {
                    return;
                };
                let x = registers::<S, N>(x);
                for (sums, weight) in sums.iter_mut().zip(weights) {
                    let weight = simd.splat_f32s(*weight);
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum = simd.mul_add_e_f32s(weight, x, *sum);
                    }
                }
            }
        }
        for (plane, sums) in room.chunks_exact_mut(self.length).zip(sums) {
            let (to, _) = S::as_mut_simd_f32s(&mut plane[at..]);
            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum);
        }
    }
}

/// The first N registers of a slice that has as many.
#[inline(always)]
fn registers<S: Simd, const N: usize>(values: &[f32]) -> [S::f32s; N] {
    let (values, _) = S::as_simd_f32s(values);
    std::array::from_fn(|index| values[index])
}

/// The gradients of some filters: for each output and channel, and each of their taps, the sum over all pixels
/// of what came back times what went in.
struct Correlate<'a> {
    x: &'a Padded,
    upstream: &'a Padded,
    offsets: &'a [usize],
    channels: usize,
    outputs: usize,
    /// Pixels to sum over.
    length: usize,
    /// `[output][channel][tap]`.
    weight_gradient: &'a mut [f32],
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // The outputs' pixels stay in the nearest cache while the channels pass by.
        let mut output = 0;
        while output < self.outputs {
            let outputs = match self.outputs - output {
                8.. if S::REGISTER_COUNT >= 32 => 8,
                2.. => 2,
                _ => 1,
            };
            for channel in 0..self.channels {
                let mut tap = 0;
                while tap < self.offsets.len() {
                    let place = Place { channel, tap, output };
                    let taps = (self.offsets.len() - tap).min(3);
                    match (outputs, taps) {
                        (8, 3) => self.dots::<S, 8, 3>(simd, place),
                        (8, 2) => self.dots::<S, 8, 2>(simd, place),
                        (8, _) => self.dots::<S, 8, 1>(simd, place),
                        (2, 3) => self.dots::<S, 2, 3>(simd, place),
                        (2, 2) => self.dots::<S, 2, 2>(simd, place),
                        (2, _) => self.dots::<S, 2, 1>(simd, place),
                        (_, 3) => self.dots::<S, 1, 3>(simd, place),
                        (_, 2) => self.dots::<S, 1, 2>(simd, place),
                        _ => self.dots::<S, 1, 1>(simd, place),
                    }
                    tap += taps;
                }
            }
            output += outputs;
        }
    }
}

#[derive(Clone, Copy)]
struct Place {
    channel: usize,
    tap: usize,
    output: usize,
}

impl Correlate<'_> {
    /// O outputs by T taps.
    #[inline(always)]
    fn dots<S: Simd, const O: usize, const T: usize>(&mut self, simd: S, place: Place) {
        let Place { channel, tap, output } = place;
        let mut sums = [[simd.splat_f32s(0.0); T]; O];
        // Beyond the last output there are zeros.
        let length = self.length.next_multiple_of(S::F32_LANES);
        let upstream: [_; O] = std::array::from_fn(|index| {
            let first = (output + index) * self.upstream.channel;
            S::as_simd_f32s(&self.upstream.values[first..first + length]).0
        });
        let x: [_; T] = std::array::from_fn(|index| {
            let first = channel * self.x.channel + self.offsets[tap + index];
            S::as_simd_f32s(&self.x.values[first..first + length]).0
        });
        let count = upstream.iter().chain(&x).map(|run| run.len()).min().unwrap_or(0);
        let (upstream, x) = (upstream.map(|run| &run[..count]), x.map(|run| &run[..count]));
        for pixel in 0..count {
            let x = x.map(|run| run[pixel]);
            for (sums, upstream) in sums.iter_mut().zip(upstream) {
                let upstream = upstream[pixel];
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = simd.mul_add_e_f32s(upstream, x, *sum);
                }
            }
        }
        let taps = self.offsets.len();
        for (index, sums) in sums.into_iter().enumerate() {
            let first = ((output + index) * self.channels + channel) * taps + tap;
            for (to, sum) in self.weight_gradient[first..].iter_mut().zip(sums) {
                *to += simd.reduce_sum_f32s(sum);
            }
        }
    }
}

/// `y` ← `y` + the convolution of `x` with `weight`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let taps = g.kernel * g.kernel;
    let filters = packed((g.outputs, g.channels, taps), |output, channel, tap| {
        weight[(output * g.channels + channel) * taps + tap]
    });
    let (rows, pitch) = (g.height + 2 * g.padding, g.width + 2 * g.padding);
    let offsets = offsets(g.kernel, pitch);
    y.par_chunks_exact_mut(g.out_image()).zip(x.par_chunks_exact(g.image())).for_each_init(
        || (Padded::new(g.channels, 1, rows, pitch), Vec::new()),
        |(padded, room), (y, x)| {
            padded.put(0, x, (g.height, g.width), g.padding);
            pulp::Arch::new().dispatch(Convolve {
                x: padded,
                channels: g.channels,
                filters: &filters,
                offsets: &offsets,
                height: g.out_height,
                width: g.out_width,
                y,
                room,
            });
        },
    );
}

/// Some images' share of the gradients.
pub(super) fn part(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    y_gradient: &[f32],
    x_gradient: Option<&mut [f32]>,
    weight_gradient: &mut [f32],
) {
    let taps = g.kernel * g.kernel;
    let arch = pulp::Arch::new();
    let (rows, pitch) = (g.height + 2 * g.padding, g.width + 2 * g.padding);
    let images = (RUN / (rows * pitch)).max(1);
    let mut padded = Padded::new(g.channels, images, rows, pitch);
    let mut upstream = Padded::new(g.outputs, images, rows, pitch);
    let tap_offsets = offsets(g.kernel, pitch);
    let run = x.chunks(images * g.image()).zip(y_gradient.chunks(images * g.out_image()));
    for (x, y_gradient) in run {
        let count = x.len() / g.image();
        if count < images {
            upstream.values.fill(0.0);
        }
        for (place, image) in x.chunks_exact(g.image()).enumerate() {
            padded.put(place, image, (g.height, g.width), g.padding);
        }
        for (place, image) in y_gradient.chunks_exact(g.out_image()).enumerate() {
            upstream.put(place, image, (g.out_height, g.out_width), 0);
        }
        arch.dispatch(Correlate {
            x: &padded,
            upstream: &upstream,
            offsets: &tap_offsets,
            channels: g.channels,
            outputs: g.outputs,
            length: ((count - 1) * rows + g.out_height) * pitch,
            weight_gradient,
        });
    }
    let Some(x_gradient) = x_gradient else { return };

    // The transpose: the filters turned by half a circle, from outputs to channels.
    let filters = packed((g.channels, g.outputs, taps), |channel, output, tap| {
        weight[(output * g.channels + channel) * taps + taps - 1 - tap]
    });
    let padding = g.kernel - 1 - g.padding;
    let (rows, pitch) = (g.out_height + 2 * padding, g.out_width + 2 * padding);
    let mut padded = Padded::new(g.outputs, 1, rows, pitch);
    let (offsets, mut room) = (offsets(g.kernel, pitch), Vec::new());
    let images = x_gradient.chunks_exact_mut(g.image()).zip(y_gradient.chunks_exact(g.out_image()));
    for (x_gradient, y_gradient) in images {
        padded.put(0, y_gradient, (g.out_height, g.out_width), padding);
        arch.dispatch(Convolve {
            x: &padded,
            channels: g.outputs,
            filters: &filters,
            offsets: &offsets,
            height: g.height,
            width: g.width,
            y: x_gradient,
            room: &mut room,
        });
    }
}
