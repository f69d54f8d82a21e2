//! Windows around an optimizer with momentum: long enough for what it carries over to fade.

use dfdx::{optim::*, prelude::*};
use support::{
    quadratic::Random,
    values::{gradients, vector, Vector},
};
use tlr::{Newton, NewtonConfig, PerLayer, TunableOptimizer, Window};

type Model = (Vector<2>, Vector<3>);

fn model() -> Model {
    (vector(&[1.0, -1.0]), vector(&[0.5, 0.0, -0.5]))
}

fn sgd(momentum: Option<Momentum>) -> Sgd<Model, f64, Cpu> {
    Sgd::new(&model(), SgdConfig { lr: 0.1, momentum, weight_decay: None })
}

fn adam(first: f64) -> Adam<Model, f64, Cpu> {
    Adam::new(&model(), AdamConfig { betas: [first, 0.999], ..Default::default() })
}

fn rmsprop(momentum: Option<f64>) -> RMSprop<Model, f64, Cpu> {
    RMSprop::new(&model(), RMSpropConfig { momentum, ..Default::default() })
}

fn window<Opt>(optimizer: Opt, config: NewtonConfig) -> usize
where
    Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>,
{
    Newton::new(&model(), optimizer, config).unwrap().window()
}

// Fails if an optimizer's momentum is not read, or one takes RMSprop's average of squares for
// momentum.
#[test]
fn a_window_outlasts_the_momentum() {
    let config = NewtonConfig::default().batches_per_epoch(118); // 23 steps
    assert_eq!(window(sgd(None), config), 23);
    assert_eq!(window(sgd(Some(Momentum::Classic(0.9))), config), 50);
    assert_eq!(window(sgd(Some(Momentum::Nesterov(0.95))), config), 100);
    assert_eq!(window(sgd(Some(Momentum::Classic(0.5))), config), 23);
    assert_eq!(window(adam(0.9), config), 50);
    assert_eq!(window(adam(0.0), config), 23);
    assert_eq!(window(rmsprop(None), config), 23);
    assert_eq!(window(rmsprop(Some(0.9)), config), 50);
    let model = model();
    let per_layer = PerLayer::new(&model, sgd(Some(Momentum::Classic(0.9))));
    assert_eq!(Newton::new(&model, per_layer, config).unwrap().window(), 50);

    assert_eq!(window(adam(0.9), config.batches_per_epoch(469)), 93);
    assert_eq!(window(adam(0.9), config.momentum_spans(8.0)), 80);
    assert_eq!(window(adam(0.9), config.momentum_spans(0.0)), 23);
    // Whoever counts steps means them; the paper knows no such limit.
    assert_eq!(window(adam(0.9), config.window(Window::steps(7).unwrap())), 7);
    assert_eq!(window(adam(0.9), NewtonConfig::paper_code().batches_per_epoch(118)), 39);
}

/// The cosine that the displacements of two windows of `steps` have if all gradients are noise: by
/// the weight that each gradient has in either.
fn cosine_of_noise(beta: f64, steps: i32) -> f64 {
    // The displacement of steps a..a + K holds the gradient of step s (1 − β)⁻¹ times
    // β^max(a − s, 0) − β^(a + K − s).
    let weight = |a: i32, s: i32| {
        if s >= a + steps {
            return 0.0;
        }
        beta.powi((a - s).max(0)) - beta.powi(a + steps - s)
    };
    let sum = |b: i32| (-400..2 * steps).map(|s| weight(0, s) * weight(b, s)).sum::<f64>();
    sum(steps) / sum(0)
}

// What `Config::momentum_spans` says of noise, measured and by the formula above. Fails if the
// limit is not where the agreement is small, or the products are not those of two windows in a row.
#[test]
fn noise_agrees_over_short_windows_only() {
    const N: usize = 300;
    for (steps, stated) in [(23, 0.27), (50, 0.12)] {
        let mut random = Random(3);
        let mut model: Vector<N> = vector(&[0.0; N]);
        let config = SgdConfig { momentum: Some(Momentum::Classic(0.9)), ..Default::default() };
        let config = (Sgd::new(&model, config), Window::steps(steps).unwrap());
        let settings = NewtonConfig::default().ramp(false).window(config.1);
        let mut newton = Newton::new(&model, config.0, settings).unwrap();
        for _ in 0..30 * steps {
            let noise = gradients(&model, &random.vector(N));
            newton.update(&mut model, &noise).unwrap();
        }
        let cosines = newton.history().iter().filter_map(|a| a.products).map(|m| m.cosine());
        let mean = cosines.clone().sum::<f64>() / cosines.count() as f64;
        let expected = cosine_of_noise(0.9, steps as i32);
        assert!((expected - stated).abs() < 0.005, "{steps}: {expected}");
        // Standard error: 1/√(300·28) = 0.011, and the windows overlap in noise.
        assert!((mean - expected).abs() < 0.05, "{steps}: {mean} for {expected}");
    }
}
