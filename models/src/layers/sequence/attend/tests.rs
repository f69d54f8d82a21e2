//! Attention against its formula, and its gradients against differences.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::layers::check::*;
use crate::layers::SequenceKernels;
use dfdx::prelude::*;

type Matrix<const M: usize> = Tensor<(usize, Const<M>), f64, Cpu>;

fn rows<const M: usize>(dev: &Cpu, rows: usize) -> Matrix<M> {
    dev.sample_like(&(rows, Const), rand_distr::StandardNormal)
}

/// The last key of the first sequence is padding, and so are all keys of the last sequence.
fn padding(batch: usize, keys: usize) -> KeyPadding {
    let ids: Vec<usize> = (0..batch * keys)
        .map(|index| usize::from(index == keys - 1 || index / keys == batch - 1))
        .collect();
    KeyPadding::of(&ids, batch, 1).unwrap()
}

fn masks(batch: usize, keys: usize) -> [AttentionMask; 4] {
    [(false, None), (true, None), (false, Some(())), (true, Some(()))]
        .map(|(causal, some)| AttentionMask { causal, keys: some.map(|()| padding(batch, keys)) })
}

type Inputs<const M: usize> = QueryKeyValue<M, f64, Cpu, Owned>;

fn run<const M: usize, const H: usize>(
    sizes: AttentionSizes,
    mask: &AttentionMask,
    attention: impl Fn(
        Inputs<M>,
        AttentionSizes,
        &AttentionMask,
        DropoutRate,
    ) -> Rows<usize, M, f64, Cpu, Owned>,
) -> Vec<Vec<f64>> {
    let dev = Cpu::seed_from_u64(7);
    let q = rows::<M>(&dev, sizes.batch * sizes.queries);
    let k = rows::<M>(&dev, sizes.batch * sizes.keys);
    let v = rows::<M>(&dev, sizes.batch * sizes.keys);
    let inputs = (q.leaky_trace(), k.leaky_trace(), v.leaky_trace());
    let y = attention(inputs, sizes, mask, DropoutRate::NONE);
    let values = y.as_vec();
    let g = curved(y).backward();
    vec![values, g.get(&q).as_vec(), g.get(&k).as_vec(), g.get(&v).as_vec()]
}

// dfdx's own operations are the oracle. Fails for a wrong head, scale, mask or transposition.
fn equals_composed<const M: usize, const H: usize>() {
    for (batch, queries, keys) in [(1, 1, 1), (2, 3, 5), (3, 6, 6), (2, 5, 2)] {
        let sizes = AttentionSizes { batch, queries, keys };
        for mask in masks(batch, keys) {
            let ours = run::<M, H>(sizes, &mask, |inputs, sizes, mask, rate| {
                Cpu::try_attention::<_, M, H>(inputs, sizes, mask, rate).unwrap()
            });
            let theirs = run::<M, H>(sizes, &mask, |inputs, sizes, mask, rate| {
                composed::<_, _, _, M, H>(inputs, sizes, mask, rate).unwrap()
            });
            all_close(&ours, &theirs);
        }
    }
}

#[test]
fn as_composed_of_dfdx_operations() {
    equals_composed::<1, 1>();
    equals_composed::<6, 1>();
    equals_composed::<6, 2>();
    equals_composed::<8, 8>();
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let dev = Cpu::seed_from_u64(7);
    let sizes = AttentionSizes { batch: 2, queries: 3, keys: 3 };
    let (q, k, v) = (rows::<4>(&dev, 6), rows::<4>(&dev, 6), rows::<4>(&dev, 6));
    for mask in masks(2, 3) {
        let attend = |q, k, v| {
            let y = Cpu::try_attention::<_, 4, 2>((q, k, v), sizes, &mask, DropoutRate::NONE);
            curved(y.unwrap())
        };
        differences(&q, |q| attend(q, k.retaped(), v.retaped()));
        differences(&k, |k| attend(q.retaped(), k, v.retaped()));
        differences(&v, |v| attend(q.retaped(), k.retaped(), v));
    }
}

// What is masked has no influence at all, not even by a NaN or by being huge.
#[test]
fn masked_keys_have_no_influence() {
    let sizes = AttentionSizes { batch: 2, queries: 3, keys: 4 };
    let mask = AttentionMask { causal: false, keys: Some(padding(2, 4)) };
    let dev = Cpu::seed_from_u64(7);
    let (q, k, v) = (rows::<4>(&dev, 6), rows::<4>(&dev, 8), rows::<4>(&dev, 8));
    let mut other = (k.as_vec(), v.as_vec());
    for index in 12..16 {
        (other.0[index], other.1[index]) = (1e200, 17.0);
    }
    let attend = |k: Vec<f64>, v: Vec<f64>| {
        let rows = |values| dev.tensor_from_vec(values, (8, Const::<4>));
        let inputs = (q.clone(), rows(k), rows(v));
        Cpu::try_attention::<_, 4, 2>(inputs, sizes, &mask, DropoutRate::NONE).unwrap().as_vec()
    };
    assert_eq!(attend(k.as_vec(), v.as_vec()), attend(other.0, other.1));
}

// The last sequence is all padding. Fails with NaN if its softmax is 0/0.
#[test]
fn a_query_that_sees_nothing_gets_zeros() {
    let sizes = AttentionSizes { batch: 2, queries: 3, keys: 3 };
    for mask in &masks(2, 3)[2..] {
        let [y, q, k, v] = &run::<4, 2>(sizes, mask, |inputs, sizes, mask, rate| {
            Cpu::try_attention::<_, 4, 2>(inputs, sizes, mask, rate).unwrap()
        })[..] else {
            unreachable!()
        };
        assert_eq!(y[12..], [0.0; 12]);
        assert_eq!(q[12..], [0.0; 12]);
        assert_eq!(k[12..], [0.0; 12]);
        assert_eq!(v[12..], [0.0; 12]);
        assert!(q[..12].iter().any(|g| *g != 0.0));
    }
}

// The upper triangle is 0: the first query copies the first value.
#[test]
fn causal() {
    let dev = Cpu::seed_from_u64(7);
    let (q, k, v) = (rows::<4>(&dev, 5), rows::<4>(&dev, 5), rows::<4>(&dev, 5));
    let sizes = AttentionSizes { batch: 1, queries: 5, keys: 5 };
    let mask = AttentionMask { causal: true, keys: None };
    let inputs = (q, k, v.clone());
    let y = Cpu::try_attention::<_, 4, 2>(inputs, sizes, &mask, DropoutRate::NONE).unwrap();
    for (y, v) in y.as_vec()[..4].iter().zip(v.as_vec()) {
        assert!((y - v).abs() < 1e-15);
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let sizes = AttentionSizes { batch: 7, queries: 33, keys: 40 };
    let mask = AttentionMask { causal: true, keys: Some(padding(7, 40)) };
    same_for_any_threads(|| {
        run::<24, 3>(sizes, &mask, |inputs, sizes, mask, _| {
            let rate = DropoutRate::new(0.2).unwrap();
            Cpu::try_attention::<_, 24, 3>(inputs, sizes, mask, rate).unwrap()
        })
    });
}

// y is linear in v, with dropout or without, so its derivative in the direction of v is y. The
// derivatives by the scores are compared with finite differences, on a device that draws the same
// numbers each time.
#[test]
fn dropout_is_the_same_backwards() {
    let sizes = AttentionSizes { batch: 2, queries: 4, keys: 4 };
    let rate = DropoutRate::new(0.5).unwrap();
    let at = |step: f64| {
        let dev = Cpu::seed_from_u64(11);
        let (q, k, v) = (rows::<6>(&dev, 8), rows::<6>(&dev, 8), rows::<6>(&dev, 8));
        let along = rows::<6>(&dev, 8);
        let q = q + along.clone() * step;
        let inputs = (q.leaky_trace(), k.leaky_trace(), v.leaky_trace());
        let mask = AttentionMask { causal: true, keys: None };
        let y = Cpu::try_attention::<_, 6, 2>(inputs, sizes, &mask, rate).unwrap();
        let dropped = y.as_vec();
        let c = rows::<6>(&dev, 8);
        let loss = (y * c).sum::<Rank0, _>();
        let value: f64 = loss.array();
        let g = loss.backward();
        let by_q: f64 = (g.get(&q) * along).sum::<Rank0, _>().array();
        let by_v: f64 = (g.get(&v) * v).sum::<Rank0, _>().array();
        (dropped, value, by_q, by_v)
    };
    let (dropped, value, by_q, by_v) = at(0.0);
    // With a causal mask the first query sees one key. In each head it is dropped or doubled.
    assert!(dropped.contains(&0.0));
    assert!((by_v - value).abs() < 1e-12);
    let difference = (at(1e-5).1 - at(-1e-5).1) / 2e-5;
    assert!((difference - by_q).abs() < 1e-8, "{by_q} for {difference}");
}

// Fails if memory of earlier work is taken for a gradient, where nothing is written. (Without
// queries there is nothing to sum, at which dfdx panics.)
#[test]
fn without_keys_the_gradient_is_zero() {
    // Buffers of the size that this thread keeps for its next piece of work.
    let mut used: Vec<Scratch<f64>> = (0..20).map(|_| Scratch::any(12)).collect();
    used.iter_mut().for_each(|buffer| buffer.fill(7.0));
    drop(used);
    let dev = Cpu::seed_from_u64(7);
    let (q, k, v) = (rows::<4>(&dev, 3), rows::<4>(&dev, 0), rows::<4>(&dev, 0));
    let sizes = AttentionSizes { batch: 1, queries: 3, keys: 0 };
    let (inputs, mask) =
        ((q.leaky_trace(), k.leaky_trace(), v.leaky_trace()), AttentionMask::default());
    let y = Cpu::try_attention::<_, 4, 2>(inputs, sizes, &mask, DropoutRate::NONE);
    let gradients = y.unwrap().sum::<Rank0, _>().backward();
    assert_eq!(gradients.get(&q).as_vec(), [0.0; 12]);
}

// q = k = v. Fails if one gradient replaces another.
#[test]
fn all_inputs_can_be_one_tensor() {
    let dev = Cpu::seed_from_u64(7);
    let x = rows::<4>(&dev, 6);
    let sizes = AttentionSizes { batch: 2, queries: 3, keys: 3 };
    differences(&x, |x| {
        let inputs = (x.with_empty_tape(), x.with_empty_tape(), x);
        let mask = AttentionMask::default();
        curved(Cpu::try_attention::<_, 4, 2>(inputs, sizes, &mask, DropoutRate::NONE).unwrap())
    });
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let dev = Cpu::default();
    let attend = |sizes, mask: &AttentionMask| {
        let inputs = (rows::<4>(&dev, 6), rows::<4>(&dev, 8), rows::<4>(&dev, 8));
        Cpu::try_attention::<_, 4, 2>(inputs, sizes, mask, DropoutRate::NONE)
    };
    let fits = AttentionSizes { batch: 2, queries: 3, keys: 4 };
    let mask = AttentionMask::default();
    assert!(attend(fits, &mask).is_ok());
    let misfit = |sizes, mask: &AttentionMask| match attend(sizes, mask).err() {
        Some(LayerError::Shape { misfit, .. }) => Some(misfit),
        _ => None,
    };
    for (sizes, of, rows, length) in [
        (AttentionSizes { batch: 1, ..fits }, "queries", 6, 3),
        (AttentionSizes { queries: 4, ..fits }, "queries", 6, 4),
        (AttentionSizes { keys: 3, ..fits }, "keys", 8, 3),
    ] {
        let expected = Misfit::SequenceRows { of, rows, batch: sizes.batch, length };
        assert_eq!(misfit(sizes, &mask), Some(expected));
    }
    let mask = AttentionMask { causal: false, keys: Some(padding(4, 2)) };
    let expected = Misfit::Padding { padding: (4, 2), keys: (2, 4) };
    assert_eq!(misfit(fits, &mask), Some(expected));
}
