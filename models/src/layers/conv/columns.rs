//! Convolution as matrix products: an image's windows become the columns of a matrix (im2col).

use super::geometry::Geometry;
use crate::layers::{
    element::Element,
    gemm::{self, Matrix},
    scratch::Scratch,
};
use rayon::prelude::*;

/// The bytes of a block of columns. A block of this size stays in a core's cache until it is used.
const BLOCK_BYTES: usize = 384 << 10;
/// Images with fewer pixels than this are put side by side: narrow products are slow.
const NARROW: usize = 256;
impl Geometry {
    /// How many rows the matrix of columns has: the elements that one output reads.
    pub(super) fn taps(&self) -> usize {
        self.channels / self.groups * self.kernel * self.kernel
    }

    /// How many images share a block of columns.
    pub(super) fn together(&self) -> usize {
        (NARROW / self.out_pixels().max(1)).clamp(1, self.batch.max(1))
    }

    /// How many rows of an output image a block of columns is for.
    fn block_rows<E>(&self) -> usize {
        let row = self.taps() * self.out_width * std::mem::size_of::<E>();
        (BLOCK_BYTES / row.max(1)).clamp(1, self.out_height.max(1))
    }

    /// Whether an image is its own matrix of columns.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }
}

/// A block of columns: the columns of output rows `rows` of one image, or of all rows of `images`
/// images.
struct Block {
    images: usize,
    first_row: usize,
    rows: usize,
}

/// The blocks that cover `images` images.
fn blocks<E>(geometry: &Geometry, images: usize) -> impl Iterator<Item = (usize, Block)> {
    let height = geometry.out_height;
    let together = geometry.together();
    let rows = if together > 1 { height } else { geometry.block_rows::<E>() };
    (0..images).step_by(together).flat_map(move |first| {
        (0..height).step_by(rows.max(1)).map(move |first_row| {
            let rows = rows.min(height - first_row);
            (first, Block { images: together.min(images - first), first_row, rows })
        })
    })
}

/// Fills `columns` with a block of the image's windows: channel by channel, and within a channel
/// tap by tap.
///
/// Column (image, row, column of the output) of tap (channel, y, x) is
/// `images[image][channel][row·s + y·d − p][column·s + x·d − p]`, or 0 in the padding.
fn gather<E: Element>(g: &Geometry, images: &[E], group: usize, block: &Block, columns: &mut [E]) {
    let per_group = g.channels / g.groups;
    let mut lines = columns.chunks_exact_mut(g.out_width.max(1));
    for channel in 0..per_group {
        for y in 0..g.kernel {
            let across = g.span(y, g.height, g.out_height);
            for x in 0..g.kernel {
                let along = g.span(x, g.width, g.out_width);
                for image in images.chunks_exact(g.image()).take(block.images) {
                    let plane = plane(g, image, group * per_group + channel);
                    for row in block.first_row..block.first_row + block.rows {
                        let Some(line) = lines.next() else { return };
                        if !(across.first..across.end).contains(&row) {
                            line.fill(E::ZERO);
                            continue;
                        }
                        let pixel_row = across.pixel + (row - across.first) * g.stride;
                        let pixels = &plane[pixel_row * g.width..][..g.width];
                        line[..along.first].fill(E::ZERO);
                        line[along.end..].fill(E::ZERO);
                        let line = &mut line[along.first..along.end];
                        if line.is_empty() {
                            continue;
                        }
                        let pixels = &pixels[along.pixel..];
                        if g.stride == 1 {
                            line.copy_from_slice(&pixels[..line.len()]);
                        } else {
                            let pixels = pixels.iter().step_by(g.stride);
                            line.iter_mut().zip(pixels).for_each(|(to, from)| *to = *from);
                        }
                    }
                }
            }
        }
    }
}

/// The transpose of [`gather`]: adds each column's elements to the pixels that they were read from.
fn scatter<E: Element>(g: &Geometry, columns: &[E], group: usize, block: &Block, images: &mut [E]) {
    let per_group = g.channels / g.groups;
    let mut lines = columns.chunks_exact(g.out_width.max(1));
    for channel in 0..per_group {
        for y in 0..g.kernel {
            let across = g.span(y, g.height, g.out_height);
            for x in 0..g.kernel {
                let along = g.span(x, g.width, g.out_width);
                for image in images.chunks_exact_mut(g.image()).take(block.images) {
                    let channel = group * per_group + channel;
                    let plane = &mut image[channel * g.height * g.width..][..g.height * g.width];
                    for row in block.first_row..block.first_row + block.rows {
                        let Some(line) = lines.next() else { return };
                        if !(across.first..across.end).contains(&row) || along.first == along.end {
                            continue;
                        }
                        let pixel_row = across.pixel + (row - across.first) * g.stride;
                        let pixels = &mut plane[pixel_row * g.width..][..g.width][along.pixel..];
                        let line = &line[along.first..along.end];
                        if g.stride == 1 {
                            pixels.iter_mut().zip(line).for_each(|(to, from)| *to += *from);
                        } else {
                            let pixels = pixels.iter_mut().step_by(g.stride);
                            pixels.zip(line).for_each(|(to, from)| *to += *from);
                        }
                    }
                }
            }
        }
    }
}

fn plane<'a, E>(g: &Geometry, image: &'a [E], channel: usize) -> &'a [E] {
    &image[channel * g.height * g.width..][..g.height * g.width]
}

/// The memory that one thread needs for its blocks.
struct Room<E: Element> {
    columns: Scratch<E>,
    /// The outputs of several images, side by side.
    outputs: Scratch<E>,
}

impl<E: Element> Room<E> {
    fn new(g: &Geometry) -> Self {
        let width = if g.together() > 1 {
            g.together() * g.out_pixels()
        } else {
            g.block_rows::<E>() * g.out_width
        };
        let columns = if g.is_pointwise() && g.together() == 1 { 0 } else { g.taps() * width };
        let outputs = if g.together() > 1 { g.outputs / g.groups * width } else { 0 };
        Self { columns: Scratch::any(columns), outputs: Scratch::any(outputs) }
    }
}

/// `y` ← `y` + the convolution of `x` with `weight`.
pub(super) fn forward<E: Element>(g: &Geometry, x: &[E], weight: &[E], y: &mut [E]) {
    let (taps, pixels, per_group) = (g.taps(), g.out_pixels(), g.outputs / g.groups);
    let unit = g.together();
    y.par_chunks_mut(unit * g.out_image())
        .with_min_len(g.least())
        .zip(x.par_chunks(unit * g.image()))
        .for_each_init(
            || Room::new(g),
            |room, (y, x)| {
                for group in 0..g.groups {
                    let weight = &weight[group * per_group * taps..][..per_group * taps];
                    let weight = Matrix::new(weight, per_group, taps);
                    for (_, block) in blocks::<E>(g, x.len() / g.image()) {
                        let width = block.images * block.rows * g.out_width;
                        let offset = group * per_group * pixels + block.first_row * g.out_width;
                        if g.is_pointwise() && block.images == 1 {
                            let first = group * taps * pixels + block.first_row * g.out_width;
                            let columns = Matrix::strided(&x[first..], taps, width, pixels);
                            gemm::add_to(&mut y[offset..], pixels, weight, columns, ALONE);
                            continue;
                        }
                        let columns = &mut room.columns[..taps * width];
                        gather(g, x, group, &block, columns);
                        let columns = Matrix::new(columns, taps, width);
                        if block.images == 1 {
                            gemm::add_to(&mut y[offset..], pixels, weight, columns, ALONE);
                            continue;
                        }
                        let outputs = &mut room.outputs[..per_group * width];
                        outputs.fill(E::ZERO);
                        gemm::add_to(outputs, width, weight, columns, ALONE);
                        for (output, side_by_side) in outputs.chunks_exact(width).enumerate() {
                            let images = y.chunks_exact_mut(g.out_image());
                            for (image, from) in images.zip(side_by_side.chunks_exact(pixels)) {
                                let to = &mut image[offset + output * pixels..][..pixels];
                                to.iter_mut().zip(from).for_each(|(to, from)| *to += *from);
                            }
                        }
                    }
                }
            },
        );
}

const ALONE: gemm::Threads = gemm::Threads::One;

/// Adds what some images contribute to the gradients.
pub(super) fn part<E: Element>(
    g: &Geometry,
    x: &[E],
    weight: &[E],
    y_gradient: &[E],
    mut x_gradient: Option<&mut [E]>,
    weight_gradient: &mut [E],
) {
    let (taps, pixels, per_group) = (g.taps(), g.out_pixels(), g.outputs / g.groups);
    let mut room = Room::new(g);
    for group in 0..g.groups {
        let range = group * per_group * taps..(group + 1) * per_group * taps;
        let weight_gradient = &mut weight_gradient[range.clone()];
        let weight = Matrix::new(&weight[range], per_group, taps);
        for (first, block) in blocks::<E>(g, x.len() / g.image()) {
            let x = &x[first * g.image()..][..block.images * g.image()];
            let y_gradient = &y_gradient[first * g.out_image()..][..block.images * g.out_image()];
            let x_gradient = x_gradient
                .as_deref_mut()
                .map(|gradient| &mut gradient[first * g.image()..][..block.images * g.image()]);
            let width = block.images * block.rows * g.out_width;
            let offset = group * per_group * pixels + block.first_row * g.out_width;
            let upstream = if block.images == 1 {
                Matrix::strided(&y_gradient[offset..], per_group, width, pixels)
            } else {
                let outputs = &mut room.outputs[..per_group * width];
                for (output, side_by_side) in outputs.chunks_exact_mut(width).enumerate() {
                    let images = y_gradient.chunks_exact(g.out_image());
                    for (image, to) in images.zip(side_by_side.chunks_exact_mut(pixels)) {
                        to.copy_from_slice(&image[offset + output * pixels..][..pixels]);
                    }
                }
                Matrix::new(outputs, per_group, width)
            };
            if g.is_pointwise() && block.images == 1 {
                let first = group * taps * pixels + block.first_row * g.out_width;
                let columns = Matrix::strided(&x[first..], taps, width, pixels);
                gemm::add_to(weight_gradient, taps, upstream, columns.transposed(), ALONE);
                if let Some(gradient) = x_gradient {
                    gemm::add_to(
                        &mut gradient[first..],
                        pixels,
                        weight.transposed(),
                        upstream,
                        ALONE,
                    );
                }
                continue;
            }
            let columns = &mut room.columns[..taps * width];
            gather(g, x, group, &block, columns);
            let transposed = Matrix::new(columns, taps, width).transposed();
            gemm::add_to(weight_gradient, taps, upstream, transposed, ALONE);
            if let Some(gradient) = x_gradient {
                columns.fill(E::ZERO);
                gemm::add_to(columns, width, weight.transposed(), upstream, ALONE);
                scatter(g, columns, group, &block, gradient);
            }
        }
    }
}
