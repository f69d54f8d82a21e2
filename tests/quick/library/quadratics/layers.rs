//! One rate a layer: each block of a quadratic learns as if it were alone.

use super::{config, descend, quadratic, sgd, Spectrum};
use dfdx::{optim::*, prelude::*};
use support::{
    quadratic::{Quadratic, Random},
    values::{bits, gradients, vector, weights, Vector},
};
use tlr::{engine::NewtonForm, Newton, NewtonConfig, PerLayer, TunableOptimizer, Window};

// With one layer, a rate a layer is a rate: the same bits, with every base optimizer, K of 1 and 3,
// and the safeguard on.
#[test]
fn one_layer_is_the_whole_model() {
    fn bits_of<Opt>(
        optimizer: Opt,
        quadratic: &Quadratic,
        start: &Vector<6>,
        steps: usize,
    ) -> Vec<Vec<u64>>
    where
        Opt: TunableOptimizer<Model = Vector<6>, Dtype = f64, Device = Cpu>
            + Optimizer<Vector<6>, Cpu, f64>,
    {
        let mut model = start.clone();
        let window = Window::steps(steps).unwrap();
        let config = NewtonConfig::default().ramp(false).settle(false).climb(None).window(window);
        let mut newton = Newton::new(&model, optimizer, config).unwrap();
        (0..40)
            .map(|_| {
                let w = weights(&model);
                let here = gradients(&model, &quadratic.gradient(&w));
                newton.step(&mut model, &here, quadratic.loss(&w)).unwrap();
                let rates = newton.rates();
                assert_eq!(rates.len(), 1);
                bits(&model).into_iter().chain([rates[0].1.to_bits()]).collect()
            })
            .collect()
    }
    for seed in 0..4 {
        let random = &mut Random(seed);
        let quadratic = quadratic(6, Spectrum::Definite, random);
        let start: Vector<6> = vector(&random.vector(6));
        for steps in [1, 3] {
            macro_rules! same_bits {
                ($($optimizer:expr),+) => {$(
                    let global = bits_of($optimizer, &quadratic, &start, steps);
                    // The starting model is cloned, so it has the tensors that the layers know.
                    let per_layer = PerLayer::new(&start, $optimizer);
                    assert_eq!(global, bits_of(per_layer, &quadratic, &start, steps));
                )+};
            }
            let momentum = Some(Momentum::Classic(0.8));
            same_bits!(
                Sgd::new(&start, sgd(1e-2)),
                Sgd::new(&start, SgdConfig { momentum, ..sgd(1e-3) }),
                Adam::new(&start, AdamConfig::default()),
                RMSprop::new(&start, RMSpropConfig::default())
            );
        }
    }
}

// A quadratic whose blocks do not touch: a rate a layer is one run for each block, bit for bit.
// Fails if a layer's products, rate or state leak into another's.
#[test]
fn blocks_are_independent_runs() {
    type Blocks = (Vector<2>, (Vector<17>, Tanh), Vector<6>);

    fn alone<const N: usize>(
        block: &Quadratic,
        start: &Vector<N>,
        form: NewtonForm,
    ) -> (Vec<u64>, f64) {
        let mut model = start.clone();
        let optimizer = Adam::new(&model, AdamConfig::default());
        let mut newton = Newton::new(&model, optimizer, config(form, 0.5, 3)).unwrap();
        for _ in 0..30 {
            descend(&mut newton, &mut model, block).unwrap();
        }
        (bits(&model), newton.rates()[0].1)
    }

    for (seed, form) in [(1, NewtonForm::Paper), (2, NewtonForm::Aligned)] {
        let random = &mut Random(seed);
        let blocks = [2, 17, 6].map(|n| quadratic(n, Spectrum::Definite, random));
        let start: Blocks = (
            vector(&random.vector(2)),
            (vector(&random.vector(17)), Tanh),
            vector(&random.vector(6)),
        );

        let mut model = start.clone();
        let adam = Adam::new(&model, AdamConfig::default());
        let per_layer = PerLayer::new(&model, adam);
        let mut newton = Newton::new(&model, per_layer, config(form, 0.5, 3)).unwrap();
        for _ in 0..30 {
            let parts = [weights(&model.0), weights(&model.1), weights(&model.2)];
            let here: Vec<f64> =
                blocks.iter().zip(&parts).flat_map(|(block, w)| block.gradient(w)).collect();
            let here = gradients(&model, &here);
            newton.update(&mut model, &here).unwrap();
        }

        let first = alone(&blocks[0], &start.0, form);
        let second = alone(&blocks[1], &start.1 .0, form);
        let third = alone(&blocks[2], &start.2, form);
        assert_eq!([bits(&model.0), bits(&model.1), bits(&model.2)], [first.0, second.0, third.0]);
        assert_eq!(newton.rates(), [("0", first.1), ("1.0", second.1), ("2", third.1)]);
    }
}
