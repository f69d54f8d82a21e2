//! A convolution in cuDNN's terms.

use super::geometry::Geometry;
use crate::layers::cuda::{Convolution, Kind, Precision};

impl Geometry {
    /// This convolution as cuDNN takes it. `None` if our own kernels do it: in f64, for an empty
    /// tensor, and for a tensor of more numbers than cuDNN takes.
    pub(super) fn for_cudnn(&self, kind: Kind) -> Option<Convolution> {
        let int = |number: usize| i32::try_from(number).ok();
        let sizes = |sizes: [usize; 4]| {
            let all = sizes.iter().try_fold(1_usize, |all, size| all.checked_mul(*size))?;
            int(all).filter(|all| *all > 0)?;
            let [a, b, c, d] = sizes;
            Some([int(a)?, int(b)?, int(c)?, int(d)?])
        };
        Some(Convolution {
            precision: Precision::of(kind)?,
            images: sizes([self.batch, self.channels, self.height, self.width])?,
            filters: sizes([self.outputs, self.channels / self.groups, self.kernel, self.kernel])?,
            outputs: sizes([self.batch, self.outputs, self.out_height, self.out_width])?,
            padding: int(self.padding)?,
            stride: int(self.stride)?,
            dilation: int(self.dilation)?,
            groups: int(self.groups)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Fails where two sizes change places, and where cuDNN is asked for a convolution that it does
    // not do.
    #[test]
    #[ignore = "gpu"]
    fn gpu_sizes_in_cudnns_order() {
        let g = Geometry {
            batch: 5,
            channels: 6,
            height: 7,
            width: 8,
            outputs: 4,
            kernel: 3,
            stride: 2,
            padding: 1,
            dilation: 9,
            groups: 2,
            out_height: 10,
            out_width: 11,
        };
        let of = g.for_cudnn(Kind::F32).unwrap();
        assert_eq!((of.images, of.outputs), ([5, 6, 7, 8], [5, 4, 10, 11]));
        assert_eq!(of.filters, [4, 3, 3, 3]);
        assert_eq!((of.stride, of.padding, of.dilation, of.groups), (2, 1, 9, 2));
        assert_eq!(g.for_cudnn(Kind::F16).unwrap().precision, Precision::F16);
        assert_eq!(g.for_cudnn(Kind::F64), None);
        assert_eq!(Geometry { batch: 0, ..g }.for_cudnn(Kind::F32), None);
        assert_eq!(Geometry { batch: (1 << 31) / 336, ..g }.for_cudnn(Kind::F32), None);
        assert!(Geometry { batch: (1 << 31) / 440, ..g }.for_cudnn(Kind::F32).is_some());
    }
}
