//! Images into their layout and back: one by one, or sixteen at a time.

use super::super::geometry::Geometry;
#[cfg(target_arch = "x86_64")]
use super::interleave;
use super::layout::{Layout, Phase, Place, Put, Take};

impl Layout {
    /// Lays out the pixels of input images.
    pub(super) fn put_input(&self, g: &Geometry, phases: &[Phase], x: &[f32], laid: &mut [f32]) {
        let places: Vec<_> = phases.iter().map(|phase| self.input_place(g, phase)).collect();
        self.put(&places, (x, g.image(), g.height * g.width), (laid, self.input));
    }

    /// Lays out the gradients of output images, behind the zeros that taps reach back to.
    pub(super) fn put_output(&self, g: &Geometry, y: &[f32], laid: &mut [f32]) {
        let place = self.output_place(g, self.lead());
        self.put(&[place], (y, g.out_image(), g.out_pixels()), (laid, self.output));
    }

    /// Adds the pixels of the layout to input images.
    pub(super) fn take_input(&self, g: &Geometry, phases: &[Phase], laid: &[f32], x: &mut [f32]) {
        let places: Vec<_> = phases.iter().map(|phase| self.input_place(g, phase)).collect();
        self.take(&places, (laid, self.input), (x, g.image(), g.height * g.width));
    }

    /// Adds the pixels of the layout to output images.
    pub(super) fn take_output(&self, g: &Geometry, laid: &[f32], y: &mut [f32]) {
        let place = self.output_place(g, 0);
        self.take(&[place], (laid, self.output), (y, g.out_image(), g.out_pixels()));
    }

    /// Lays out images. `from` holds the pixels, the number of pixels of an image, and that of a
    /// plane. `to` holds the layout, and the number of floats of a channel.
    fn put(&self, places: &[Place], from: (&[f32], usize, usize), to: (&mut [f32], usize)) {
        let work = Put { layout: self, places, from, to };
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.interleaved(from.0.len() / from.1.max(1)) {
            return simd.vectorize(interleave::Tiled { simd, work });
        }
        pulp::Arch::new().dispatch(work);
    }

    fn take(&self, places: &[Place], from: (&[f32], usize), to: (&mut [f32], usize, usize)) {
        let work = Take { layout: self, places, from, to };
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.interleaved(work.to.0.len() / work.to.1.max(1)) {
            return simd.vectorize(interleave::Tiled { simd, work });
        }
        pulp::Arch::new().dispatch(work);
    }

    /// The instructions that transpose tiles, if the machine has them and the images fill a tile.
    #[cfg(target_arch = "x86_64")]
    fn interleaved(&self, images: usize) -> Option<pulp::x86::V4> {
        let whole = (self.lanes, images) == (interleave::LANES, interleave::LANES);
        pulp::x86::V4::try_new().filter(|_| whole)
    }
}
