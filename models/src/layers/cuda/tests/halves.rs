//! f16 and `AMP<f16>` on the GPU against f32 on the CPU, on the same numbers. Each result is
//! rounded once, or a few times.

use super::{images::*, pointwise::*, sequence::*, *};
use crate::layers::{
    AttentionMask, AttentionSizes, Conv2dOptions, EmbeddingOptions, LinearOptions, Pooling, Sliding,
};
use dfdx::dtypes::AMP;
use half::f16;

/// The tolerance is a hundredth of the largest number: about ten roundings to f16 in a row.
impl Real for f16 {
    const FAR: f64 = 1e-2;
}

impl Real for AMP<f16> {
    const FAR: f64 = 1e-2;
}

fn layers<E: Real>()
where
    Cuda: Sequential<E>,
{
    let (cpu, gpu) = (Cpu::default(), Cuda::default());
    let compare = |ours: Vec<Vec<f64>>, theirs: Vec<Vec<f64>>, case: &str| {
        close::<E>(&ours, &theirs, case);
    };
    for (sliding, size) in [((1, 1, 1), (9, 8, 7)), ((2, 2, 2), (3, 9, 8)), ((1, 1, 1), (8, 2, 1))]
    {
        let sliding = Sliding { stride: sliding.0, padding: sliding.1, dilation: sliding.2 };
        let options = Conv2dOptions { sliding, input_gradient: true };
        compare(
            convolved::<E, Cuda, 6, 4, 3, 2>(&gpu, size, options, true),
            convolved::<f32, Cpu, 6, 4, 3, 2>(&cpu, size, options, true),
            "convolution",
        );
        compare(
            convolved::<E, Cuda, 5, 3, 1, 1>(&gpu, size, options, false),
            convolved::<f32, Cpu, 5, 3, 1, 1>(&cpu, size, options, false),
            "convolution of one pixel",
        );
        compare(
            normed::<E, Cuda, 3, true>(&gpu, size),
            normed::<f32, Cpu, 3, true>(&cpu, size),
            "batch norm",
        );
        for pooling in [Pooling::Max, Pooling::Mean] {
            compare(
                pooled::<E, Cuda>(&gpu, size, pooling, (2, 1, 1)),
                pooled::<f32, Cpu>(&cpu, size, pooling, (2, 1, 1)),
                "pooling",
            );
        }
    }
    compare(rectified::<E, Cuda>(&gpu, 1000), rectified::<f32, Cpu>(&cpu, 1000), "relu");
    for relu in [false, true] {
        compare(summed::<E, Cuda>(&gpu, 1000, relu), summed::<f32, Cpu>(&cpu, 1000, relu), "sum");
    }
    let options = LinearOptions::default();
    compare(
        dense::<E, Cuda, 40, 33>(&gpu, 50, options),
        dense::<f32, Cpu, 40, 33>(&cpu, 50, options),
        "dense",
    );
    compare(
        layer_normed::<E, Cuda, 65>(&gpu, 40),
        layer_normed::<f32, Cpu, 65>(&cpu, 40),
        "layer norm",
    );
    compare(losses::<E, Cuda, 33>(&gpu, 50), losses::<f32, Cpu, 33>(&cpu, 50), "loss");
    let options = EmbeddingOptions { scale: 2.5, positions: true };
    compare(
        embedded::<E, Cuda, 7>(&gpu, options, (3, 20)),
        embedded::<f32, Cpu, 7>(&cpu, options, (3, 20)),
        "embedding",
    );
    let (cpu, gpu) = (Cpu::seed_from_u64(3), Cuda::seed_from_u64(3));
    compare(dropped::<E, Cuda>(&gpu, 60, 0.4), dropped::<f32, Cpu>(&cpu, 60, 0.4), "dropout");
    let sizes = AttentionSizes { batch: 3, queries: 7, keys: 7 };
    let mask = AttentionMask { causal: true, keys: None };
    compare(
        attended::<E, Cuda, 12, 4>(&gpu, sizes, &mask, 0.3),
        attended::<f32, Cpu, 12, 4>(&cpu, sizes, &mask, 0.3),
        "attention",
    );
}

// Fails where a kernel reads or writes f16 as something else, and where sums are taken in it.
#[test]
#[ignore = "gpu"]
fn gpu_half_precision() {
    layers::<f16>();
}

#[test]
#[ignore = "gpu"]
fn gpu_mixed_precision() {
    layers::<AMP<f16>>();
}
