//! ResNet-50, a residual network for large images, and its blocks.

use super::Images;
use crate::layers::{
    BatchNorm2d, Conv2d, Conv2dOptions, Kernels, LayerError, MaxPool2d, Planes, Rows, Sliding,
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

/// A bottleneck: convolutions of 1 × 1, 3 × 3 and 1 × 1 pixels, each with a batch norm behind it
/// and MID channels in between. Their result is added to the input, and the sum is rectified.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Bottleneck<const MID: usize, const OUT: usize, E: Dtype, D: Device<E>> {
    /// A convolution of 1 × 1 pixels.
    pub conv1: Conv2d<OUT, MID, 1, 1, 0, 1, 1, E, D>,
    /// The norm behind it, with its rectifier.
    pub bn1: BatchNorm2d<MID, true, E, D>,
    /// The convolution of 3 × 3 pixels.
    pub conv2: Conv2d<MID, MID, 3, 1, 1, 1, 1, E, D>,
    /// The norm behind it, with its rectifier.
    pub bn2: BatchNorm2d<MID, true, E, D>,
    /// A convolution of 1 × 1 pixels.
    pub conv3: Conv2d<MID, OUT, 1, 1, 0, 1, 1, E, D>,
    /// The norm behind it; what it gives is rectified after the sum.
    pub bn3: BatchNorm2d<OUT, false, E, D>,
}

/// What the two kinds of bottleneck have in common: all but the path beside.
macro_rules! residual {
    ($block:ident, $x:expr, $forward:ident) => {{
        let y = $block.conv1.$forward($x)?;
        let y = $block.bn1.$forward(y)?;
        let y = $block.conv2.$forward(y)?;
        let y = $block.bn2.$forward(y)?;
        let y = $block.conv3.$forward(y)?;
        $block.bn3.$forward(y)?
    }};
}

macro_rules! bottleneck {
    ($block:ident, $x:ident, $forward:ident) => {{
        let y = residual!($block, $x.with_empty_tape(), $forward);
        Ok(D::try_sum($x, y, true)?)
    }};
}

both_modes! {
    [const MID: usize, const OUT: usize] Bottleneck<MID, OUT, E, D>,
    [Images<B, OUT, E, D] => [Images<B, OUT, E, D], bottleneck
}

/// The bottleneck that begins a stage: it changes the number of channels, and in `conv2` the size
/// of the image by STRIDE (version 1.5). A convolution of 1 × 1 pixels does the same to the input.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct FirstBottleneck<
    const IN: usize,
    const MID: usize,
    const OUT: usize,
    const STRIDE: usize,
    E: Dtype,
    D: Device<E>,
> {
    /// A convolution of 1 × 1 pixels.
    pub conv1: Conv2d<IN, MID, 1, 1, 0, 1, 1, E, D>,
    /// The norm behind it, with its rectifier.
    pub bn1: BatchNorm2d<MID, true, E, D>,
    /// The convolution of 3 × 3 pixels, in strides.
    pub conv2: Conv2d<MID, MID, 3, STRIDE, 1, 1, 1, E, D>,
    /// The norm behind it, with its rectifier.
    pub bn2: BatchNorm2d<MID, true, E, D>,
    /// A convolution of 1 × 1 pixels.
    pub conv3: Conv2d<MID, OUT, 1, 1, 0, 1, 1, E, D>,
    /// The norm behind it; what it gives is rectified after the sum.
    pub bn3: BatchNorm2d<OUT, false, E, D>,
    /// The path beside: a convolution of 1 × 1 pixels in strides, and its norm.
    pub downsample: (Conv2d<IN, OUT, 1, STRIDE, 0, 1, 1, E, D>, BatchNorm2d<OUT, false, E, D>),
}

macro_rules! first_bottleneck {
    ($block:ident, $x:ident, $forward:ident) => {{
        let y = residual!($block, $x.with_empty_tape(), $forward);
        let short = $block.downsample.0.$forward($x)?;
        let short = $block.downsample.1.$forward(short)?;
        Ok(D::try_sum(short, y, true)?)
    }};
}

both_modes! {
    [const IN: usize, const MID: usize, const OUT: usize, const STRIDE: usize]
    FirstBottleneck<IN, MID, OUT, STRIDE, E, D>,
    [Images<B, IN, E, D] => [Images<B, OUT, E, D], first_bottleneck
}

/// A stage: a first bottleneck, and MORE of them that leave the shape as it is.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Stage<
    const IN: usize,
    const MID: usize,
    const OUT: usize,
    const STRIDE: usize,
    const MORE: usize,
    E: Dtype,
    D: Device<E>,
> {
    /// The block that changes the shape.
    pub first: FirstBottleneck<IN, MID, OUT, STRIDE, E, D>,
    /// The other blocks.
    pub rest: Repeated<Bottleneck<MID, OUT, E, D>, MORE>,
}

macro_rules! stage {
    ($stage:ident, $x:ident, $forward:ident) => {{
        let x = $stage.first.$forward($x)?;
        $stage.rest.$forward(x)
    }};
}

both_modes! {
    [const IN: usize, const MID: usize, const OUT: usize, const STRIDE: usize, const MORE: usize]
    Stage<IN, MID, OUT, STRIDE, MORE, E, D>,
    [Images<B, IN, E, D] => [Images<B, OUT, E, D], stage
}

/// ResNet-50 (He et al., *Deep residual learning for image recognition*, CVPR 2016) in version 1.5,
/// as torchvision has it: strides in the 3 × 3 convolutions. 25,557,032 parameters for 1000
/// classes.
///
/// Maps `(batch, 3, height, width)` to `(batch, CLASSES)` logits, at any size; ImageNet's is 224 ×
/// 224. The input is data: it need not get a gradient. `forward_mut` with a tape trains (batch norm
/// by the batch), `forward` without one infers.
///
/// # Example
/// ```no_run
/// use dfdx::prelude::*;
/// use tlr_models::resnet::ResNet50;
///
/// let dev = Cpu::default();
/// let model = ResNet50::<1000, f32, Cpu>::build(&dev);
/// let logits = model.try_forward(dev.zeros::<Rank4<2, 3, 224, 224>>())?;
/// # Ok::<(), tlr_models::layers::LayerError<CpuError>>(())
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct ResNet50<const CLASSES: usize, E: Dtype, D: Device<E>> {
    /// A convolution of 7 × 7 pixels in strides of 2, from colours to 64 channels.
    pub conv1: Conv2d<3, 64, 7, 2, 3, 1, 1, E, D>,
    /// The norm behind it, with its rectifier.
    pub bn1: BatchNorm2d<64, true, E, D>,
    /// The pooling that halves the image once more.
    pub maxpool: MaxPool2d<3, 2, 1>,
    /// The stage with 256 channels.
    pub layer1: Stage<64, 64, 256, 1, 2, E, D>,
    /// The stage with 512 channels, at half the size.
    pub layer2: Stage<256, 128, 512, 2, 3, E, D>,
    /// The stage with 1024 channels, at half the size again.
    pub layer3: Stage<512, 256, 1024, 2, 5, E, D>,
    /// The stage with 2048 channels, at half the size again.
    pub layer4: Stage<1024, 512, 2048, 2, 2, E, D>,
    /// The dense layer from the channels' means to logits.
    pub fc: Linear<2048, CLASSES, E, D>,
}

macro_rules! resnet50 {
    ($net:ident, $x:ident, $forward:ident) => {{
        let sliding = Sliding { stride: 2, padding: 3, ..Sliding::default() };
        let options = Conv2dOptions { sliding, input_gradient: false };
        let x = D::try_conv2d($x, &$net.conv1.weight, None, options)?;
        let x = $net.bn1.$forward(x)?;
        let x = $net.maxpool.$forward(x)?;
        let x = $net.layer1.$forward(x)?;
        let x = $net.layer2.$forward(x)?;
        let x = $net.layer3.$forward(x)?;
        let x = $net.layer4.$forward(x)?;
        let x = x.try_mean::<(B, Const<2048>), Axes2<2, 3>>()?;
        Ok($net.fc.$forward(x)?)
    }};
}

both_modes! {
    [H: Dim, W: Dim, const CLASSES: usize] ResNet50<CLASSES, E, D>,
    [Planes<B, 3, H, W, E, D] => [Rows<B, CLASSES, E, D], resnet50
}
