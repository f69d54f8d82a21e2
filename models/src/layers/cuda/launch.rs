//! The kernels by name, and what they are launched with.

use dfdx::dtypes::AMP;
use half::f16;
use std::any::TypeId;

/// The threads of a block. Must equal the constant in `element.cu`.
pub(super) const THREADS: u32 = 256;
/// The threads of a warp.
const WARP: usize = 32;
/// More blocks than this do not make a launch faster: a thread then takes several elements. Tests
/// have a lower limit, so that threads do take several.
const BLOCKS: usize = if cfg!(test) { 3 } else { 1 << 14 };
/// The most blocks that CUDA allows in y.
pub(super) const MOST_IN_Y: usize = 65535;
/// The most blocks in y of a launch on channels: a block may then take several channels.
const CHANNELS: usize = if cfg!(test) { 5 } else { MOST_IN_Y };

/// The source of all kernels, of the kinds that `KINDS` names.
const SOURCE: &str = concat!(
    include_str!("element.cu"),
    include_str!("conv.cu"),
    include_str!("norm.cu"),
    include_str!("pointwise.cu"),
    include_str!("pool.cu"),
    include_str!("linear.cu"),
    include_str!("rows.cu"),
    include_str!("drop.cu"),
    include_str!("softmax.cu"),
    include_str!("embed.cu"),
);

/// The types of elements that there are kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers) enum Kind {
    F32,
    F64,
    /// f16 itself, and dfdx's `AMP<f16>`, which differs from it on the host only.
    F16,
}

impl Kind {
    pub(in crate::layers) fn of<E: 'static>() -> Option<Self> {
        let element = TypeId::of::<E>();
        let kinds = [
            (TypeId::of::<f32>(), Self::F32),
            (TypeId::of::<f64>(), Self::F64),
            (TypeId::of::<f16>(), Self::F16),
            (TypeId::of::<AMP<f16>>(), Self::F16),
        ];
        kinds.into_iter().find(|(of, _)| *of == element).map(|(_, kind)| kind)
    }

    /// The kind of `E`, if these sizes are small enough for the kernels and cuBLAS.
    pub(in crate::layers) fn of_small<E: 'static>(sizes: &[usize]) -> Option<Self> {
        Self::of::<E>().filter(|_| sizes.iter().all(|size| *size < 1 << 31))
    }

    /// The name that kernels of this kind are loaded under.
    pub(super) fn module(self) -> &'static str {
        match self {
            Self::F32 => "tlr_layers_f32",
            Self::F64 => "tlr_layers_f64",
            Self::F16 => "tlr_layers_f16",
        }
    }

    /// The source of the kernels of this kind.
    pub(super) fn source(self) -> String {
        let types = match self {
            Self::F32 => "float, f32",
            Self::F64 => "double, f64",
            Self::F16 => "f16, f16",
        };
        format!("#define KINDS(KERNELS) KERNELS({types})\n{SOURCE}")
    }

    /// The size of an element.
    pub(in crate::layers) fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F64 => size_of::<f64>(),
            Self::F16 => size_of::<f16>(),
        }
    }
}

/// The names of a kernel, one a kind.
#[derive(Clone, Copy, Debug)]
pub(in crate::layers) struct Kernel([&'static str; 3]);

impl Kernel {
    pub(super) fn name(self, kind: Kind) -> &'static str {
        let [single, double, half] = self.0;
        match kind {
            Kind::F32 => single,
            Kind::F64 => double,
            Kind::F16 => half,
        }
    }
}

macro_rules! all_kernels {
    ($($constant:ident: $name:literal,)*) => {
        /// The kernels, as the `.cu` files define them.
        pub(in crate::layers) mod kernels {
            use super::Kernel;

            $(
                pub(in crate::layers) const $constant: Kernel =
                    Kernel([
                        concat!($name, "_f32"),
                        concat!($name, "_f64"),
                        concat!($name, "_f16"),
                    ]);
            )*
        }

        /// The names of all kernels of a kind.
        pub(super) fn names(kind: Kind) -> Vec<&'static str> {
            [$(kernels::$constant),*].map(|kernel| kernel.name(kind)).to_vec()
        }
    };
}

all_kernels! {
    IM2COL: "im2col",
    COL2IM: "col2im",
    ADD_PARTS: "add_parts",
    FILL_PLANES: "fill_planes",
    SUM_PLANES: "sum_planes",
    ADD_SUMS: "add_sums",
    NORM_SUMS: "norm_sums",
    NORM_TRAIN: "norm_train",
    NORM_INFER: "norm_infer",
    NORM_GRADIENT_SUMS: "norm_gradient_sums",
    NORM_GRADIENTS: "norm_gradients",
    RECTIFY: "rectify",
    ADD: "add",
    ADD_PASSED: "add_passed",
    MAX_POOL: "max_pool",
    MAX_POOL_GRADIENT: "max_pool_gradient",
    MEAN_POOL: "mean_pool",
    MEAN_POOL_GRADIENT: "mean_pool_gradient",
    ADD_BIAS: "add_bias",
    LINEAR_GRADIENT: "linear_gradient",
    LAYER_NORM: "layer_norm",
    LAYER_NORM_GRADIENT: "layer_norm_gradient",
    LAYER_NORM_COLUMNS: "layer_norm_columns",
    ADD_COLUMNS: "add_columns",
    DROP: "drop",
    DROP_GRADIENT: "drop_gradient",
    WEIGH: "weigh",
    WEIGH_GRADIENT: "weigh_gradient",
    LOSSES: "losses",
    TOTAL_LOSS: "total_loss",
    LOSS_GRADIENT: "loss_gradient",
    EMBED: "embed",
    EMBED_GRADIENT: "embed_gradient",
}

/// How many blocks a kernel is launched with, in x and in y. If there are none, it is not launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers) struct Grid(pub(super) u32, pub(super) u32);

impl Grid {
    /// A thread takes one element, or several.
    pub(in crate::layers) fn of(elements: usize) -> Self {
        Self(elements.div_ceil(THREADS as usize).min(BLOCKS) as u32, 1)
    }

    /// A warp takes one row, or several.
    pub(in crate::layers) fn of_rows(rows: usize) -> Self {
        Self::of(rows.saturating_mul(WARP))
    }

    /// As [`of`](Self::of), with a row of blocks for each channel, or for several.
    pub(in crate::layers) fn of_channels(elements: usize, channels: usize) -> Self {
        Self(Self::of(elements).0, channels.min(CHANNELS) as u32)
    }

    /// As [`of`](Self::of), with a row of blocks for each share of the rows. There are no more
    /// shares than CUDA allows in y.
    pub(in crate::layers) fn of_shares(columns: usize, shares: usize) -> Self {
        Self(Self::of(columns).0, shares.min(MOST_IN_Y) as u32)
    }
}
