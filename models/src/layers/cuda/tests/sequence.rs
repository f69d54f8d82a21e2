//! The operations of a transformer.

use super::*;
use crate::layers::{
    AttentionMask, AttentionSizes, DropoutRate, EmbeddingOptions, KeyPadding, Rows, SequenceKernels,
};

/// A device with a transformer's operations.
pub(super) trait Sequential<E: Dtype>: SequenceKernels<E> + Layers<E> {}
impl<E: Dtype, D: SequenceKernels<E>> Sequential<E> for D {}

fn rate(rate: f64) -> DropoutRate {
    DropoutRate::new(rate).unwrap()
}

pub(super) fn layer_normed<E: Real, D: Sequential<E>, const M: usize>(
    dev: &D,
    rows: usize,
) -> Vec<Vec<f64>> {
    let x: Rows<usize, M, E, D, NoneTape> = tensor(dev, (rows, Const), 1);
    let weight: Tensor<Rank1<M>, E, D> = tensor(dev, Default::default(), 2);
    let bias: Tensor<Rank1<M>, E, D> = tensor(dev, Default::default(), 3);
    let y = D::try_layer_norm(x.leaky_trace(), &weight, &bias, 1e-5).unwrap();
    let mut lists = vec![numbers(&y)];
    let gradients = backward(y);
    lists.extend([numbers(&gradients.get(&x)), numbers(&gradients.get(&weight))]);
    lists.push(numbers(&gradients.get(&bias)));
    lists
}

fn layer_norms<E: Real>()
where
    Cpu: Sequential<E>,
    Cuda: Sequential<E>,
{
    fn norm<E: Real, const M: usize>(rows: usize)
    where
        Cpu: Sequential<E>,
        Cuda: Sequential<E>,
    {
        let ours = layer_normed::<E, Cuda, M>(&Cuda::default(), rows);
        let theirs = layer_normed::<E, Cpu, M>(&Cpu::default(), rows);
        close::<E>(&ours, &theirs, &format!("{rows} rows of {M}"));
        assert!(layer_normed::<E, Cuda, M>(&Cuda::default(), rows) == ours);
    }
    for rows in [1, 3, 33, 130] {
        norm::<E, 7>(rows);
        norm::<E, 32>(rows);
        norm::<E, 65>(rows);
    }
    norm::<E, 1>(5);
    norm::<E, 300>(9);
}

// Fails for a wrong mean, scale or sum, and for a row or a column that is left out.
#[test]
#[ignore = "gpu"]
fn gpu_layer_norms() {
    layer_norms::<f32>();
    layer_norms::<f64>();
}

pub(super) fn dropped<E: Real, D: Sequential<E>>(dev: &D, rows: usize, p: f64) -> Vec<Vec<f64>> {
    let x: Rows<usize, 5, E, D, NoneTape> = tensor(dev, (rows, Const), 1);
    let onto: Rows<usize, 5, E, D, NoneTape> = tensor(dev, (rows, Const), 2);
    let y = D::try_drop(x.leaky_trace(), rate(p)).unwrap();
    let mut lists = vec![numbers(&y)];
    lists.push(numbers(&backward(y).get(&x)));
    let y = D::try_drop_and_add(x.leaky_trace(), &onto, rate(p)).unwrap();
    lists.push(numbers(&y));
    let gradients = backward(y);
    lists.extend([numbers(&gradients.get(&x)), numbers(&gradients.get(&onto))]);
    // Added to the tensor itself.
    let y = D::try_drop_and_add(x.leaky_trace(), &x, rate(p)).unwrap();
    lists.push(numbers(&y));
    lists.push(numbers(&backward(y).get(&x)));
    lists
}

// The same elements are dropped as on the CPU, by generators with the same seed. Fails if forwards
// and backwards drop different ones.
#[test]
#[ignore = "gpu"]
fn gpu_dropout() {
    for rows in [1, 3, 60, 1000] {
        for p in [0.0, 0.3, 0.9] {
            let (cpu, gpu) = (Cpu::seed_from_u64(3), Cuda::seed_from_u64(3));
            let case = format!("{rows}, {p}");
            close::<f32>(
                &dropped::<f32, _>(&gpu, rows, p),
                &dropped::<f32, _>(&cpu, rows, p),
                &case,
            );
            close::<f64>(
                &dropped::<f64, _>(&gpu, rows, p),
                &dropped::<f64, _>(&cpu, rows, p),
                &case,
            );
        }
    }
}

pub(super) fn attended<E: Real, D: Sequential<E>, const M: usize, const H: usize>(
    dev: &D,
    sizes: AttentionSizes,
    mask: &AttentionMask,
    p: f64,
) -> Vec<Vec<f64>> {
    let AttentionSizes { batch, queries, keys } = sizes;
    let q: Rows<usize, M, E, D, NoneTape> = tensor(dev, (batch * queries, Const), 1);
    let k: Rows<usize, M, E, D, NoneTape> = tensor(dev, (batch * keys, Const), 2);
    let v: Rows<usize, M, E, D, NoneTape> = tensor(dev, (batch * keys, Const), 3);
    let (k_taped, v_taped) = (k.retaped::<OwnedTape<E, D>>(), v.retaped::<OwnedTape<E, D>>());
    let qkv = (q.leaky_trace(), k_taped, v_taped);
    let y = D::try_attention::<_, M, H>(qkv, sizes, mask, rate(p)).unwrap();
    let mut lists = vec![numbers(&y)];
    let gradients = backward(y);
    lists.extend([&q, &k, &v].map(|of| numbers(&gradients.get(of))));
    if queries == keys {
        // One tensor in all three places.
        let same = || q.retaped::<OwnedTape<E, D>>();
        let qkv = (q.leaky_trace(), same(), same());
        let y = D::try_attention::<_, M, H>(qkv, sizes, mask, rate(p)).unwrap();
        lists.push(numbers(&y));
        lists.push(numbers(&backward(y).get(&q)));
    }
    lists
}

fn attention<E: Real, const M: usize, const H: usize>((batch, queries, keys): (usize, usize, usize))
where
    Cpu: Sequential<E>,
    Cuda: Sequential<E>,
{
    let sizes = AttentionSizes { batch, queries, keys };
    // Every third key is padding, and so are all keys of the first sequence.
    let ids: Vec<_> = (0..batch * keys).map(|at| usize::from(at >= keys && at % 3 > 0)).collect();
    for causal in [false, true] {
        for padding in [None, KeyPadding::of(&ids, batch, 0)] {
            for p in [0.0, 0.4] {
                let mask = AttentionMask { causal, keys: padding.clone() };
                let (cpu, gpu) = (Cpu::seed_from_u64(3), Cuda::seed_from_u64(3));
                let ours = attended::<E, Cuda, M, H>(&gpu, sizes, &mask, p);
                let theirs = attended::<E, Cpu, M, H>(&cpu, sizes, &mask, p);
                close::<E>(&ours, &theirs, &format!("{M}, {H}, {sizes:?}, {mask:?}, {p}"));
            }
        }
    }
}

fn attentions<E: Real>()
where
    Cpu: Sequential<E>,
    Cuda: Sequential<E>,
{
    attention::<E, 1, 1>((1, 1, 1));
    attention::<E, 4, 1>((2, 3, 3));
    attention::<E, 6, 2>((2, 3, 5));
    attention::<E, 12, 4>((3, 7, 7));
    attention::<E, 8, 8>((1, 2, 40));
    attention::<E, 16, 2>((5, 33, 33));
}

// Fails for a wrong step, mask or scale, in either direction, and where one of three gradients of
// the same tensor is lost.
#[test]
#[ignore = "gpu"]
fn gpu_attention() {
    attentions::<f32>();
    attentions::<f64>();
}

pub(super) fn losses<E: Real, D: Sequential<E>, const V: usize>(
    dev: &D,
    rows: usize,
) -> Vec<Vec<f64>> {
    let x: Rows<usize, V, E, D, NoneTape> = tensor(dev, (rows, Const), 1);
    let x = x.try_mul(E::from_f64(2.0).unwrap()).unwrap();
    let labels: Vec<usize> = (0..rows).map(|row| (row * 7) % V).collect();
    let mut lists = Vec::new();
    // First label 1 is ignored, then all labels are.
    for labels in [labels, vec![1; rows]] {
        let loss = D::try_cross_entropy(x.leaky_trace(), &labels, 1).unwrap();
        lists.push(numbers(&loss));
        let twice = loss.try_mul(E::from_f64(2.0).unwrap()).unwrap();
        lists.push(numbers(&twice.backward().get(&x)));
    }
    lists
}

fn all_losses<E: Real>()
where
    Cpu: Sequential<E>,
    Cuda: Sequential<E>,
{
    fn loss<E: Real, const V: usize>(rows: usize)
    where
        Cpu: Sequential<E>,
        Cuda: Sequential<E>,
    {
        let ours = losses::<E, Cuda, V>(&Cuda::default(), rows);
        let theirs = losses::<E, Cpu, V>(&Cpu::default(), rows);
        close::<E>(&ours, &theirs, &format!("{rows} rows of {V}"));
    }
    for rows in [1, 2, 9, 300] {
        loss::<E, 2>(rows);
        loss::<E, 5>(rows);
        loss::<E, 33>(rows);
        loss::<E, 100>(rows);
    }
}

// Fails if an ignored row counts in the sum, in the mean or in the gradient.
#[test]
#[ignore = "gpu"]
fn gpu_cross_entropy() {
    all_losses::<f32>();
    all_losses::<f64>();
}

pub(super) fn embedded<E: Real, D: Sequential<E>, const M: usize>(
    dev: &D,
    options: EmbeddingOptions,
    (batch, length): (usize, usize),
) -> Vec<Vec<f64>> {
    let weight: Tensor<Rank2<9, M>, E, D> = tensor(dev, Default::default(), 1);
    let ids: Vec<usize> = (0..batch * length).map(|at| at * at % 8).collect();
    let ids = dev.tensor_from_vec(ids, (batch, length));
    let ids = ids.put_tape(OwnedTape::<E, D>::default());
    let y = D::try_embedding(ids, &weight, options).unwrap();
    let values = numbers(&y);
    vec![values, numbers(&backward(y).get(&weight))]
}

// Fails for a wrong row, scale or position, and where a token's gradient forgets one of its uses.
#[test]
#[ignore = "gpu"]
fn gpu_embedding() {
    fn check<E: Real, const M: usize>(options: EmbeddingOptions, size: (usize, usize))
    where
        Cpu: Sequential<E>,
        Cuda: Sequential<E>,
    {
        let ours = embedded::<E, Cuda, M>(&Cuda::default(), options, size);
        let theirs = embedded::<E, Cpu, M>(&Cpu::default(), options, size);
        close::<E>(&ours, &theirs, &format!("{M}, {options:?}, {size:?}"));
    }
    for positions in [false, true] {
        let options = EmbeddingOptions { scale: 2.5, positions };
        for size in [(1, 1), (2, 3), (3, 50)] {
            check::<f32, 1>(options, size);
            check::<f32, 7>(options, size);
            check::<f64, 6>(options, size);
            check::<f64, 300>(options, size);
        }
    }
}
