//! Convolution without a matrix of columns: images are laid out with their padding, so that a
//! filter's tap is a fixed distance away in memory, for as many pixels at a time as a register
//! holds.
//!
//! There are two layouts. In the first, a register holds neighbouring pixels. An image is then one
//! run with its padding, and the results between the rows of outputs are thrown away. Where these
//! would be many, the second one is used: a register holds the same pixel of several images.

#[cfg(target_arch = "x86_64")]
mod interleave;
mod kernels;
mod layout;
mod moves;

use super::geometry::Geometry;
use crate::layers::scratch::Scratch;
use kernels::{Convolve, Correlate, Lanes, BLOCK, FILTERS};
use layout::{Layout, Phase};
use rayon::prelude::*;

/// Filters of more elements do not stay in a core's cache: matrix products handle them better.
const LARGEST_WEIGHT: usize = 1 << 18;

/// Whether this way is possible, and faster than matrix products.
pub(super) fn suits(g: &Geometry) -> bool {
    g.groups == 1
        && (2..=7).contains(&g.kernel)
        && g.outputs * g.channels * g.kernel * g.kernel <= LARGEST_WEIGHT
}

/// How many images are laid out together.
pub(super) fn together(g: &Geometry) -> usize {
    layout(g).together()
}

fn layout(g: &Geometry) -> Layout {
    Layout::new(g, pulp::Arch::new().dispatch(Lanes))
}

/// The filters for [`Convolve`]: `[block of outputs][channel][tap][output in the block]`, zeros
/// where the last block has no output. `of` gives a filter's element by output, channel and tap.
fn packed(
    (outputs, channels): (usize, usize),
    taps: &[usize],
    of: impl Fn(usize, usize, usize) -> f32,
) -> Scratch<f32> {
    let filters = BLOCK * channels * taps.len();
    let mut packed = Scratch::any(outputs.div_ceil(BLOCK) * filters);
    for (block, packed) in packed.chunks_exact_mut(filters.max(1)).enumerate() {
        for (channel, packed) in packed.chunks_exact_mut(BLOCK * taps.len()).enumerate() {
            for (tap, packed) in taps.iter().zip(packed.as_chunks_mut::<BLOCK>().0) {
                *packed = std::array::from_fn(|output| match block * BLOCK + output {
                    output if output < outputs => of(output, channel, *tap),
                    _ => 0.0,
                });
            }
        }
    }
    packed
}

/// `y` ← `y` + the convolution of `x` with `weight`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let layout = layout(g);
    let all: Vec<_> = (0..g.kernel * g.kernel).collect();
    let filters = packed((g.outputs, g.channels), &all, |output, channel, tap| {
        weight[(output * g.channels + channel) * all.len() + tap]
    });
    let (phases, offsets) = (layout.phases(g), layout.offsets(g));
    let spans = layout.outputs(g, layout.images);
    let unit = layout.together();
    let units = y
        .par_chunks_mut(unit * g.out_image())
        .with_min_len(g.least())
        .zip(x.par_chunks(unit * g.image()));
    units.for_each_init(
        || {
            let outputs = g.outputs.next_multiple_of(BLOCK);
            (Scratch::zeros(g.channels * layout.input), Scratch::any(outputs * layout.output))
        },
        |(laid, room), (y, x)| {
            // If there are fewer images than before, the rest of the older ones are computed again,
            // and their results are not used.
            layout.put_input(g, &phases, x, laid);
            let blocks = room.par_chunks_exact_mut(BLOCK * layout.output).with_min_len(g.least());
            let filters = filters.par_chunks_exact(BLOCK * g.channels * all.len());
            blocks.zip(filters).for_each(|(y, filters)| {
                pulp::Arch::new().dispatch(Convolve {
                    x: laid,
                    channel: layout.input,
                    filters,
                    offsets: &offsets,
                    spans: &spans,
                    y,
                    output: layout.output,
                    first: 0,
                });
            });
            layout.take_output(g, room, y);
        },
    );
}

/// Adds what some images contribute to the gradients.
pub(super) fn part(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    y_gradient: &[f32],
    mut x_gradient: Option<&mut [f32]>,
    weight_gradient: &mut [f32],
) {
    let layout = layout(g);
    let (phases, offsets) = (layout.phases(g), layout.offsets(g));
    let mut input = Scratch::zeros(g.channels * layout.input);
    let mut upstream = Scratch::zeros(g.outputs * layout.output);
    let transposed = match x_gradient {
        Some(_) => transposed(g, &phases, weight),
        None => Vec::new(),
    };
    let channels = if x_gradient.is_some() { g.channels.next_multiple_of(BLOCK) } else { 0 };
    let mut room = Scratch::any(channels * layout.input);
    let unit = layout.together();
    let units = x.chunks(unit * g.image()).zip(y_gradient.chunks(unit * g.out_image()));
    for (index, (x, y_gradient)) in units.enumerate() {
        let images = x.len() / g.image().max(1);
        if images < unit {
            upstream.fill(0.0);
        }
        layout.put_input(g, &phases, x, &mut input);
        layout.put_output(g, y_gradient, &mut upstream);
        let spans = layout.outputs(g, images);
        let per_output = g.channels * offsets.len();
        let filters = weight_gradient.par_chunks_mut(FILTERS * per_output).with_min_len(g.least());
        filters.zip(upstream.par_chunks(FILTERS * layout.output)).for_each(
            |(gradient, upstream)| {
                pulp::Arch::new().dispatch(Correlate {
                    x: &input,
                    upstream: &upstream[layout.lead()..],
                    channel: layout.input,
                    output: layout.output,
                    channels: g.channels,
                    offsets: &offsets,
                    spans: &spans,
                    gradient,
                });
            },
        );
        let Some(x_gradient) = x_gradient.as_deref_mut() else { continue };
        for (phase, filters) in phases.iter().zip(&transposed) {
            let blocks = room.par_chunks_exact_mut(BLOCK * layout.input).with_min_len(g.least());
            let filters = filters.par_chunks_exact(BLOCK * g.outputs * phase.taps.len());
            blocks.zip(filters).for_each(|(y, filters)| {
                pulp::Arch::new().dispatch(Convolve {
                    x: &upstream,
                    channel: layout.output,
                    filters,
                    offsets: &phase.offsets,
                    spans: &phase.spans,
                    y,
                    output: layout.input,
                    first: phase.first,
                });
            });
        }
        let x_gradient = &mut x_gradient[index * unit * g.image()..][..x.len()];
        layout.take_input(g, &phases, &room, x_gradient);
    }
}

/// The filters for the way back, from outputs to channels: for each phase of the input, the taps
/// that read it.
fn transposed(g: &Geometry, phases: &[Phase], weight: &[f32]) -> Vec<Scratch<f32>> {
    let taps = g.kernel * g.kernel;
    let of = |channel, output, tap| weight[(output * g.channels + channel) * taps + tap];
    phases.iter().map(|phase| packed((g.channels, g.outputs), &phase.taps, of)).collect()
}
