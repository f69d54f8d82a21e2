//! A training step by burn, for benches/step.py: what benches/overhead.rs times of ours.

use burn::{
    module::{Module, ModuleVisitor, Param},
    nn::{
        conv::{Conv2d, Conv2dConfig},
        loss::CrossEntropyLossConfig,
        pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig},
        BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d,
    },
    optim::{GradientsParams, SgdConfig},
    tensor::{activation::relu, Device, Distribution, Int, Tensor},
};
use clap::{Parser, ValueEnum};
use std::{error::Error, time::Instant};

#[derive(Parser)]
struct Args {
    /// What is trained
    #[arg(long, value_enum, default_value_t = Name::Mlp)]
    model: Name,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Of a round; as many are done before it
    #[arg(long, default_value_t = 94)]
    steps: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// The perceptron 784-1000-10 on 128 digits
    Mlp,
    /// WRN-16-1 on 128 images of 32 × 32
    #[value(name = "wrn16x1")]
    Wrn16x1,
}

const BATCH: usize = 128;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    // As one of the threads that share the work, like ours.
    rayon::scope(|_| {
        let device = Device::flex().autodiff();
        device.seed(0);
        match args.model {
            Name::Mlp => measure(Perceptron::new(&device), [BATCH, 784], args.steps, &device),
            Name::Wrn16x1 => measure(Wide::new(&device), [BATCH, 3, 32, 32], args.steps, &device),
        }
    });
    Ok(())
}

fn measure<M: Classifier<D>, const D: usize>(
    mut model: M,
    shape: [usize; D],
    steps: usize,
    device: &Device,
) {
    let x = Tensor::random(shape, Distribution::Normal(0.0, 1.0), device);
    let labels: Vec<i32> = (0..10).cycle().take(BATCH).collect();
    let y = Tensor::<1, Int>::from_ints(labels.as_slice(), device);
    let loss = CrossEntropyLossConfig::new().init(device);
    let mut optimizer = SgdConfig::new().init();
    let mut trained = Trained(0);
    model.visit(&mut trained);
    assert_eq!(trained.0, M::PARAMETERS, "another model than ours");
    println!("{} parameters", trained.0);
    // The first round is for memory and caches.
    for round in ["warm-up", "measured"] {
        let (mut first, mut last) = (None, 0.0);
        let start = Instant::now();
        for _ in 0..steps {
            let loss = loss.forward(model.logits(x.clone()), y.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(1e-3, model, gradients);
            last = loss.into_scalar::<f32>();
            first.get_or_insert(last);
        }
        let milliseconds = start.elapsed().as_secs_f64() / steps as f64 * 1e3;
        let first = first.unwrap_or(last);
        println!("{round}: {milliseconds:.3} ms a step, loss from {first:.4} to {last:.4}");
    }
}

/// How many parameters are trained: burn counts batch norm's running means and variances too.
struct Trained(usize);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if parameter.is_require_grad() {
            self.0 += parameter.shape().num_elements();
        }
    }
}

/// What maps a batch of D dimensions to logits.
trait Classifier<const D: usize>: Module {
    /// As many as our model has.
    const PARAMETERS: usize;

    fn logits(&self, x: Tensor<D>) -> Tensor<2>;
}

#[derive(Module, Debug)]
struct Perceptron {
    hidden: Linear,
    output: Linear,
}

impl Perceptron {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(784, 1000).init(device),
            output: LinearConfig::new(1000, 10).init(device),
        }
    }
}

impl Classifier<2> for Perceptron {
    const PARAMETERS: usize = 795_010;

    fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        self.output.forward(relu(self.hidden.forward(x)))
    }
}

/// A block as of tlr_models::resnet's wide networks: the second convolution strides.
#[derive(Module, Debug)]
struct Block {
    norm1: BatchNorm,
    conv1: Conv2d,
    norm2: BatchNorm,
    conv2: Conv2d,
    short: Option<Conv2d>,
}

impl Block {
    fn new(inputs: usize, outputs: usize, stride: usize, device: &Device) -> Self {
        let same = inputs == outputs && stride == 1;
        Self {
            norm1: BatchNormConfig::new(inputs).init(device),
            conv1: conv(inputs, outputs, 3, 1, device),
            norm2: BatchNormConfig::new(outputs).init(device),
            conv2: conv(outputs, outputs, 3, stride, device),
            short: (!same).then(|| conv(inputs, outputs, 1, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv1.forward(relu(self.norm1.forward(x.clone())));
        let y = self.conv2.forward(relu(self.norm2.forward(y)));
        let short = match &self.short {
            Some(conv) => conv.forward(x),
            None => x,
        };
        short + y
    }
}

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> Conv2d {
    let padding = kernel / 2;
    Conv2dConfig::new([inputs, outputs], [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
        .with_bias(false)
        .init(device)
}

/// WRN-16-1.
#[derive(Module, Debug)]
struct Wide {
    conv: Conv2d,
    blocks: Vec<Block>,
    norm: BatchNorm,
    mean: AdaptiveAvgPool2d,
    output: Linear,
}

impl Wide {
    fn new(device: &Device) -> Self {
        let groups = [(16, 16, 1), (16, 32, 2), (32, 64, 2)];
        let blocks = groups.iter().flat_map(|&(inputs, outputs, stride)| {
            [(inputs, outputs, stride), (outputs, outputs, 1)]
        });
        Self {
            conv: conv(3, 16, 3, 1, device),
            blocks: blocks.map(|(i, o, stride)| Block::new(i, o, stride, device)).collect(),
            norm: BatchNormConfig::new(64).init(device),
            mean: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            output: LinearConfig::new(64, 10).init(device),
        }
    }
}

impl Classifier<4> for Wide {
    const PARAMETERS: usize = 175_066;

    fn logits(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.blocks.iter().fold(self.conv.forward(x), |x, block| block.forward(x));
        let x = self.mean.forward(relu(self.norm.forward(x)));
        self.output.forward(x.flatten(1, 3))
    }
}
