//! Wide residual networks for small images.

use super::Images;
use crate::layers::{
    BatchNorm2d, Conv2d, Conv2dOptions, Identity, Kernels, LayerError, Planes, Rows, Sliding,
};
use dfdx::{
    nn::{
        modules::{Linear, Repeated},
        Module, ModuleMut,
    },
    prelude::{Axes2, Const, Device, Dim, Dtype, MeanTo, NoneTape, OwnedTape, WithEmptyTape},
};
use num_traits::Float;
use rand_distr::uniform::SampleUniform;
use tlr::{TensorCollection, TrainableLr};

/// Two convolutions of 3 × 3 pixels, each behind a batch norm and a rectifier, beside a shortcut S:
/// `short(x) + conv2(norm(conv1(norm(x))))`.
///
/// Deviation: `conv2` strides and the shortcut takes the input itself, as in the networks whose
/// figures this project compares with. Zagoruyko and Komodakis have `conv1` stride, and the
/// shortcut take the normed input.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Block<const IN: usize, const OUT: usize, const STRIDE: usize, S, E: Dtype, D: Device<E>>
{
    /// The norm in front of `conv1`, with its rectifier.
    pub bn1: BatchNorm2d<IN, true, E, D>,
    /// A convolution of 3 × 3 pixels.
    pub conv1: Conv2d<IN, OUT, 3, 1, 1, 1, 1, E, D>,
    /// The norm in front of `conv2`, with its rectifier.
    pub bn2: BatchNorm2d<OUT, true, E, D>,
    /// A convolution of 3 × 3 pixels, in strides.
    pub conv2: Conv2d<OUT, OUT, 3, STRIDE, 1, 1, 1, E, D>,
    /// The shortcut: [`Identity`], or a convolution of 1 × 1 pixels where the shape changes.
    pub short: S,
}

macro_rules! block {
    ($block:ident, $x:ident, $forward:ident) => {{
        let y = $block.bn1.$forward($x.with_empty_tape())?;
        let y = $block.conv1.$forward(y)?;
        let y = $block.bn2.$forward(y)?;
        let y = $block.conv2.$forward(y)?;
        let short = $block.short.$forward($x)?;
        Ok(D::try_sum(short, y, false)?)
    }};
}

both_modes! {
    [const IN: usize, const OUT: usize, const STRIDE: usize, S] Block<IN, OUT, STRIDE, S, E, D>,
    [Images<B, IN, E, D] => [Images<B, OUT, E, D], block,
    S: [Images<B, IN, E, D] => [Images<B, OUT, E, D]
}

/// A block that leaves the shape as it is.
pub type PlainBlock<const C: usize, E, D> = Block<C, C, 1, Identity, E, D>;
/// A block that changes the number of channels, and the size of the image by STRIDE.
pub type FirstBlock<const IN: usize, const OUT: usize, const STRIDE: usize, E, D> =
    Block<IN, OUT, STRIDE, Conv2d<IN, OUT, 1, STRIDE, 0, 1, 1, E, D>, E, D>;

/// A group: a first block, and MORE of them that leave the shape as it is.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Group<F, const MORE: usize, const OUT: usize, E: Dtype, D: Device<E>> {
    /// The first block: a [`FirstBlock`], or a [`PlainBlock`] if the shape stays.
    pub first: F,
    /// The other blocks.
    pub rest: Repeated<PlainBlock<OUT, E, D>, MORE>,
}

macro_rules! group {
    ($group:ident, $x:ident, $forward:ident) => {{
        let x = $group.first.$forward($x)?;
        $group.rest.$forward(x)
    }};
}

both_modes! {
    [const IN: usize, const OUT: usize, const STRIDE: usize, const MORE: usize, S]
    Group<Block<IN, OUT, STRIDE, S, E, D>, MORE, OUT, E, D>,
    [Images<B, IN, E, D] => [Images<B, OUT, E, D], group,
    S: [Images<B, IN, E, D] => [Images<B, OUT, E, D]
}

/// A wide residual network for small images (Zagoruyko and Komodakis, *Wide residual networks*,
/// BMVC 2016): WRN-d-k, of depth d = 6n + 4, has three groups of n blocks with 16·k, 32·k and 64·k
/// channels.
///
/// The depth is given by MORE = n − 1, the width by C1, C2 and C3, and the type F of the very first
/// block: a [`FirstBlock<16, C1, 1>`](FirstBlock), or for a width of 1, where it changes nothing, a
/// [`PlainBlock<16>`](PlainBlock). The usual ones have names: [`Wrn16x4`] is WRN-16-4.
///
/// Maps `(batch, 3, height, width)` to `(batch, CLASSES)` logits. The input is data: it need not
/// get a gradient. `forward_mut` with a tape trains (batch norm by the batch), `forward` without
/// one infers.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::resnet::Wrn10x1;
///
/// let dev = Cpu::default();
/// let model = Wrn10x1::<10, f32, Cpu>::build(&dev);
/// assert_eq!(model.num_trainable_params(), 77_850);
/// let logits = model.try_forward(dev.zeros::<Rank4<2, 3, 32, 32>>())?;
/// assert_eq!(*logits.shape(), (Const::<2>, Const::<10>));
/// # Ok::<(), tlr_models::layers::LayerError<CpuError>>(())
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct WideResNet<
    F,
    const MORE: usize,
    const C1: usize,
    const C2: usize,
    const C3: usize,
    const CLASSES: usize,
    E: Dtype,
    D: Device<E>,
> {
    /// The first convolution, of 3 × 3 pixels, from colours to 16 channels.
    pub conv: Conv2d<3, 16, 3, 1, 1, 1, 1, E, D>,
    /// The three groups; the second and third halve the image.
    pub groups: Groups<F, MORE, C1, C2, C3, E, D>,
    /// The norm in front of the mean over all pixels, with its rectifier.
    pub bn: BatchNorm2d<C3, true, E, D>,
    /// The dense layer from channels to logits.
    pub fc: Linear<C3, CLASSES, E, D>,
}

type Groups<F, const MORE: usize, const C1: usize, const C2: usize, const C3: usize, E, D> = (
    Group<F, MORE, C1, E, D>,
    Group<FirstBlock<C1, C2, 2, E, D>, MORE, C2, E, D>,
    Group<FirstBlock<C2, C3, 2, E, D>, MORE, C3, E, D>,
);

macro_rules! wide_resnet {
    ($net:ident, $x:ident, $forward:ident) => {{
        let sliding = Sliding { padding: 1, ..Sliding::default() };
        let options = Conv2dOptions { sliding, input_gradient: false };
        let x = D::try_conv2d($x, &$net.conv.weight, None, options)?;
        let x = $net.groups.0.$forward(x)?;
        let x = $net.groups.1.$forward(x)?;
        let x = $net.groups.2.$forward(x)?;
        let x = $net.bn.$forward(x)?;
        let x = x.try_mean::<(B, Const<C3>), Axes2<2, 3>>()?;
        Ok($net.fc.$forward(x)?)
    }};
}

both_modes! {
    [
        H: Dim, W: Dim, F, const MORE: usize, const C1: usize, const C2: usize, const C3: usize,
        const CLASSES: usize
    ]
    WideResNet<F, MORE, C1, C2, C3, CLASSES, E, D>,
    [Planes<B, 3, H, W, E, D] => [Rows<B, CLASSES, E, D], wide_resnet,
    Group<F, MORE, C1, E, D>: [Images<B, 16, E, D] => [Images<B, C1, E, D]
}

/// WRN-10-1: 77,850 parameters for 10 classes.
pub type Wrn10x1<const CLASSES: usize, E, D> =
    WideResNet<PlainBlock<16, E, D>, 0, 16, 32, 64, CLASSES, E, D>;
/// WRN-16-1: 175,066 parameters for 10 classes.
pub type Wrn16x1<const CLASSES: usize, E, D> =
    WideResNet<PlainBlock<16, E, D>, 1, 16, 32, 64, CLASSES, E, D>;
/// WRN-16-2.
pub type Wrn16x2<const CLASSES: usize, E, D> =
    WideResNet<FirstBlock<16, 32, 1, E, D>, 1, 32, 64, 128, CLASSES, E, D>;
/// WRN-16-4.
pub type Wrn16x4<const CLASSES: usize, E, D> =
    WideResNet<FirstBlock<16, 64, 1, E, D>, 1, 64, 128, 256, CLASSES, E, D>;
/// WRN-16-8.
pub type Wrn16x8<const CLASSES: usize, E, D> =
    WideResNet<FirstBlock<16, 128, 1, E, D>, 1, 128, 256, 512, CLASSES, E, D>;
/// WRN-28-10.
pub type Wrn28x10<const CLASSES: usize, E, D> =
    WideResNet<FirstBlock<16, 160, 1, E, D>, 3, 160, 320, 640, CLASSES, E, D>;
