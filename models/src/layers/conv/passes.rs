//! The passes of a convolution on CUDA, by columns and matrix products, on addresses.
//!
//! The columns of a part of the batch lie side by side in one matrix. It has a row for each tap and
//! a column for each output pixel, image after image. An image of that part is a range of its
//! columns, so products of all images are one batched product that reads and writes images as dfdx
//! has them. If the weight's gradient is one product over all images, the outputs' gradient is laid
//! out in the same way first.

use super::{
    geometry::Geometry,
    plan::{Plan, Share},
};
#[cfg(feature = "cudnn")]
use crate::layers::cuda::Pass;
use crate::layers::cuda::{kernels, Channels, CudaErr, Gpu, Grid, Kind, Matrix, Product};

/// CUDA's own addresses are multiples of this, and so are the parts of the workspace.
const ALIGNED: usize = 256;

/// A convolution on a GPU.
pub(super) struct Passes<'a> {
    gpu: &'a mut Gpu,
    kind: Kind,
    g: Geometry,
    channels: Channels,
}

impl<'a> Passes<'a> {
    pub(super) fn new(gpu: &'a mut Gpu, plan: &Plan) -> Self {
        let Plan { kind, g, channels } = *plan;
        Self { gpu, kind, g, channels }
    }
}

/// Functions for the matrices of one group, for each image of a share: images, columns and weights.
impl Passes<'_> {
    fn bytes(&self, elements: usize) -> usize {
        elements * self.kind.bytes()
    }

    /// The address of the share's first element in images of `channels` planes of the output's
    /// size.
    fn at(&self, address: u64, share: &Share, channels: usize) -> u64 {
        let pixels = share.first * channels * self.g.out_pixels();
        address + self.bytes(pixels + share.first_row * self.g.out_width) as u64
    }

    /// Images with `channels` planes of the output's size, as matrices: a row for each channel of
    /// the group.
    fn of_images(&self, address: u64, share: &Share, channels: usize) -> Matrix {
        let pixels = self.g.out_pixels();
        let steps = [channels * pixels, channels / self.g.groups * pixels];
        Matrix {
            address: self.at(address, share, channels),
            line: pixels,
            transposed: false,
            steps,
        }
    }

    /// Parts of a matrix with `rows` rows and a column for each output pixel of the share: the rows
    /// of the group, and `step` columns, those of an image or of several.
    fn of_columns(&self, address: u64, share: &Share, rows: usize, step: usize) -> Matrix {
        let line = share.columns(&self.g);
        Matrix { address, line, transposed: false, steps: [step, rows / self.g.groups * line] }
    }

    /// The weights of the group, as a matrix.
    fn of_weights(&self, address: u64) -> Matrix {
        let taps = self.g.taps();
        let steps = [0, self.g.outputs / self.g.groups * taps];
        Matrix { address, line: taps, transposed: false, steps }
    }

    /// The share that is the whole batch.
    fn all(&self) -> Share {
        Share { first: 0, images: self.g.batch, first_row: 0, rows: self.g.out_height }
    }

    /// Lays out the windows of the share's images as columns, `x` being the first image's address.
    ///
    /// # Safety
    /// The batch is at `x`, and `columns` has room for the share's.
    #[allow(unsafe_code)]
    unsafe fn lay_out(&self, share: &Share, x: u64, columns: u64) -> Result<(), CudaErr> {
        let x = x + self.bytes(share.first * self.g.image()) as u64;
        let grid = Grid::of_channels(share.columns(&self.g), self.g.channels);
        let arguments = (self.g.part(share), x, columns);
        // SAFETY: as the caller guarantees. The kernel reads only pixels of the share's images from
        // `x`.
        unsafe { self.gpu.launch(kernels::IM2COL, self.kind, grid, arguments) }
    }

    /// `y` ← the convolution, with a bias if there is one.
    ///
    /// # Safety
    /// The addresses are those of a batch, the weights, the bias and the outputs of this
    /// convolution.
    #[allow(unsafe_code)]
    pub(super) unsafe fn forward(
        &mut self,
        [x, weight, y]: [u64; 3],
        bias: Option<u64>,
    ) -> Result<(), CudaErr> {
        let g = self.g;
        if let Some(bias) = bias {
            let Channels { planes, grid, .. } = self.channels;
            // SAFETY: as the caller guarantees.
            unsafe { self.gpu.launch(kernels::FILL_PLANES, self.kind, grid, (planes, bias, y)) }?;
        }
        // SAFETY: as the caller guarantees.
        #[cfg(feature = "cudnn")]
        if unsafe { self.by_cudnn(Pass::Forward, [x, weight, y], bias.is_some()) }? {
            return Ok(());
        }
        let product = |passes: &Self, share: &Share, b: Matrix| Product {
            rows: g.outputs / g.groups,
            terms: g.taps(),
            columns: share.outputs(&g),
            counts: [share.images, g.groups],
            a: passes.of_weights(weight),
            b,
            c: passes.of_images(y, share, g.outputs),
            added: bias.is_some(),
        };
        if g.is_pointwise() {
            let share = self.all();
            let product = product(self, &share, self.of_images(x, &share, g.channels));
            // SAFETY: the images are their own columns, and each output image is a matrix of its
            // own.
            return unsafe { self.gpu.multiply(self.kind, &product) };
        }
        let row_bytes = self.bytes(g.all_taps() * g.out_width);
        for share in g.shares(row_bytes) {
            let columns = self.gpu.workspace(self.bytes(g.all_taps() * share.columns(&g)))?;
            let b = self.of_columns(columns, &share, g.all_taps(), share.outputs(&g));
            // SAFETY: as the caller guarantees; the workspace has room for the columns.
            unsafe {
                self.lay_out(&share, x, columns)?;
                self.gpu.multiply(self.kind, &product(self, &share, b))?;
            }
        }
        Ok(())
    }

    /// Does a pass by cuDNN. `false` if our own kernels have to do it.
    ///
    /// # Safety
    /// The addresses are those of the pass's operands.
    #[cfg(feature = "cudnn")]
    #[allow(unsafe_code)]
    unsafe fn by_cudnn(
        &mut self,
        pass: Pass,
        addresses: [u64; 3],
        added: bool,
    ) -> Result<bool, CudaErr> {
        match self.g.for_cudnn(self.kind) {
            // SAFETY: as the caller guarantees.
            Some(of) => unsafe { self.gpu.convolve(pass, &of, addresses, added) },
            None => Ok(false),
        }
    }

    /// Adds, for each channel, the sum of the outputs' gradient to the bias's gradient.
    ///
    /// # Safety
    /// The addresses are those of the outputs' gradient and the bias's.
    #[allow(unsafe_code)]
    pub(super) unsafe fn bias_gradient(&mut self, upstream: u64, to: u64) -> Result<(), CudaErr> {
        let Channels { planes, grid, shares } = self.channels;
        if self.g.batch == 0 {
            return Ok(());
        }
        let sums = self.gpu.workspace(self.channels.bytes_of_sums(1))?;
        // SAFETY: as the caller guarantees; each block writes its own sum.
        unsafe {
            self.gpu.launch(kernels::SUM_PLANES, self.kind, grid, (planes, upstream, sums))?;
            let (channels, of_all) = (planes.channels, Grid::of(self.g.outputs));
            self.gpu.launch(kernels::ADD_SUMS, self.kind, of_all, (sums, to, channels, shares))
        }
    }

    /// Adds to the gradients of the weights and, if it has an address, of the input.
    ///
    /// # Safety
    /// The addresses are those of a batch, the weights and the outputs' gradient of this
    /// convolution, of the weights' gradient, and of the batch's.
    #[allow(unsafe_code)]
    pub(super) unsafe fn backward(
        &mut self,
        [x, weight, upstream]: [u64; 3],
        weight_gradient: u64,
        x_gradient: Option<u64>,
    ) -> Result<(), CudaErr> {
        let g = self.g;
        // The images' gradient comes first. If cuDNN does that one only, our own kernels do that of
        // the filters.
        // SAFETY: as the caller guarantees.
        #[cfg(feature = "cudnn")]
        let x_gradient = match x_gradient {
            Some(to) if !unsafe { self.by_cudnn(Pass::Images, [weight, upstream, to], true) }? => {
                Some(to)
            }
            _ if unsafe { self.by_cudnn(Pass::Filters, [x, upstream, weight_gradient], true) }? => {
                return Ok(());
            }
            _ => None,
        };
        let pointwise = g.is_pointwise();
        // A product for each image gives a weight gradient for each image, which is written and
        // then read. A product over all images needs the outputs' gradient laid out like the
        // columns.
        let laid_out = g.outputs + if pointwise { g.channels } else { 0 };
        let by_image = g.weights() <= laid_out * g.out_pixels();
        let row_bytes = match pointwise && by_image {
            true => self.bytes(g.weights()) / g.out_height.max(1),
            false => self.bytes(g.all_taps() * g.out_width),
        };
        let downward = |passes: &Self, share: &Share, c: Matrix| Product {
            rows: g.taps(),
            terms: g.outputs / g.groups,
            columns: share.outputs(&g),
            counts: [share.images, g.groups],
            a: passes.of_weights(weight).transposed(),
            b: passes.of_images(upstream, share, g.outputs),
            c,
            added: pointwise,
        };
        for share in g.shares(row_bytes) {
            let room = Room::new(self, &share, by_image)?;
            // SAFETY: as the caller guarantees. `room` is large enough for the matrices that are
            // laid out in it. The columns are overwritten only after they have been used.
            unsafe {
                self.weight_gradient(&share, &room, [x, upstream], weight_gradient)?;
                if let Some(x_gradient) = x_gradient.filter(|_| !pointwise) {
                    let c = self.of_columns(room.columns, &share, g.all_taps(), share.outputs(&g));
                    self.gpu.multiply(self.kind, &downward(self, &share, c))?;
                    let part = g.part(&share);
                    let pixels = share.images * part.lines as usize * g.width;
                    let to = x_gradient + self.bytes(share.first * g.image()) as u64;
                    let grid = Grid::of_channels(pixels, g.channels);
                    let arguments = (part, room.columns, to);
                    self.gpu.launch(kernels::COL2IM, self.kind, grid, arguments)?;
                }
            }
        }
        if let Some(x_gradient) = x_gradient.filter(|_| pointwise) {
            let share = self.all();
            let c = self.of_images(x_gradient, &share, g.channels);
            // SAFETY: as the caller guarantees; the images are their own columns.
            unsafe { self.gpu.multiply(self.kind, &downward(self, &share, c)) }?;
        }
        Ok(())
    }

    /// Adds a share's part to the weights' gradient.
    ///
    /// # Safety
    /// As of [`backward`](Self::backward); `room` is the share's.
    #[allow(unsafe_code)]
    unsafe fn weight_gradient(
        &self,
        share: &Share,
        room: &Room,
        [x, upstream]: [u64; 2],
        to: u64,
    ) -> Result<(), CudaErr> {
        let g = self.g;
        let (columns, parts) = (share.columns(&g), room.parts);
        let (a, b) = if let Some(transposed) = room.transposed {
            let from = self.at(upstream, &Share { first_row: 0, ..*share }, g.outputs);
            let grid = Grid::of_channels(columns, g.outputs);
            let arguments = (g.transposing(share, g.outputs), from, transposed);
            // SAFETY: the caller guarantees the outputs' gradient, and `room` holds the result.
            unsafe {
                self.gpu.launch(kernels::IM2COL, self.kind, grid, arguments)?;
                self.lay_out(share, x, room.columns)?;
            }
            (
                self.of_columns(transposed, share, g.outputs, columns / parts),
                self.of_columns(room.columns, share, g.all_taps(), columns / parts),
            )
        } else {
            let b = if g.is_pointwise() {
                self.of_images(x, share, g.channels)
            } else {
                // SAFETY: as above.
                unsafe { self.lay_out(share, x, room.columns) }?;
                self.of_columns(room.columns, share, g.all_taps(), share.outputs(&g))
            };
            (self.of_images(upstream, share, g.outputs), b)
        };
        let alone = parts == 1;
        let weights = self.of_weights(if alone { to } else { room.sums });
        let product = Product {
            rows: g.outputs / g.groups,
            terms: columns / parts,
            columns: g.taps(),
            counts: [parts, g.groups],
            a,
            b: b.transposed(),
            c: Matrix { steps: [g.weights(), weights.steps[1]], ..weights },
            added: alone,
        };
        // SAFETY: each of the parts is a matrix of its own, with room for it.
        unsafe { self.gpu.multiply(self.kind, &product) }?;
        if alone {
            return Ok(());
        }
        let arguments = (to, room.sums, g.weights() as u64, parts as u32);
        // SAFETY: the parts follow each other, and each has the weights' length.
        unsafe { self.gpu.launch(kernels::ADD_PARTS, self.kind, Grid::of(g.weights()), arguments) }
    }
}

/// The parts of the workspace in a share's backward pass.
struct Room {
    columns: u64,
    /// The outputs' gradient, if it is laid out like the columns.
    transposed: Option<u64>,
    /// Into how many products the weights' gradient is split, and where their results are.
    parts: usize,
    sums: u64,
}

impl Room {
    fn new(passes: &mut Passes<'_>, share: &Share, by_image: bool) -> Result<Self, CudaErr> {
        let g = passes.g;
        let columns = share.columns(&g);
        let parts = if by_image { share.images } else { share.parts(&g) };
        let laid_out = !(by_image && g.is_pointwise());
        let sizes = [
            if laid_out { g.all_taps() * columns } else { 0 },
            if by_image { 0 } else { g.outputs * columns },
            if parts == 1 { 0 } else { parts * g.weights() },
        ]
        .map(|elements| passes.bytes(elements).next_multiple_of(ALIGNED));
        let start = passes.gpu.workspace(sizes.iter().sum())?;
        let transposed = start + sizes[0] as u64;
        Ok(Self {
            columns: start,
            transposed: (!by_image).then_some(transposed),
            parts,
            sums: transposed + sizes[1] as u64,
        })
    }
}
