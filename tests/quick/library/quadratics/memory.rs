//! With less memory, in sketches or in bfloat16, the rates are those of whole snapshots.

use super::{config, sgd};
use dfdx::optim::*;
use support::{
    quadratic::Random,
    values::{gradients, largest, vector, weights, Vector},
};
use tlr::{engine::NewtonForm, Newton};

/// Rates learned from sketches, and from directions in bfloat16, beside those from snapshots, over
/// the same noisy gradients of a quadratic of 3,000 dimensions: each within 5 % with 2¹⁴ bins,
/// where a product has a deviation of about 1 % and a rate is a ratio of them, and worse with 2⁶,
/// or the test would tell nothing. Directions: within 1 %, and not the same. Fails for a sign, a
/// bin or a scale that is off.
#[test]
fn less_memory_learns_the_rates_of_snapshots() {
    const N: usize = 3000;
    let learned = |sketch: Option<usize>, bf16| -> Vec<f64> {
        let random = &mut Random(5);
        let mut model: Vector<N> = vector(&random.vector(N));
        let config = config(NewtonForm::Aligned, 0.33, 10).sketch(sketch).bf16_directions(bf16);
        let mut newton = Newton::new(&model, Sgd::new(&model, sgd(1e-4)), config).unwrap();
        for _ in 0..300 {
            let noise = random.vector(N);
            let slope: Vec<f64> = weights(&model)
                .iter()
                .zip(noise)
                .enumerate()
                .map(|(index, (w, noise))| (0.1 + index as f64 / N as f64) * w + 0.05 * noise)
                .collect();
            let here = gradients(&model, &slope);
            newton.update(&mut model, &here).unwrap();
        }
        newton.history().iter().map(|decision| decision.to).collect()
    };
    let exact = learned(None, false);
    let worst = |sketch, bf16| {
        let rates = learned(sketch, bf16);
        assert_eq!(rates.len(), exact.len());
        largest(rates.iter().zip(&exact).map(|(ours, exact)| (ours / exact - 1.0).abs()))
    };
    let (fine, coarse) = (worst(Some(1 << 14), false), worst(Some(1 << 6), false));
    assert!(fine < 0.05, "{fine}");
    assert!(coarse > 0.05, "{coarse}");
    let bf16 = worst(None, true);
    assert!((1e-9..1e-2).contains(&bf16), "{bf16}");
}
