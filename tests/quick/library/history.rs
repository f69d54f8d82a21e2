//! The history: what was decided, when, from what, and how it is passed on.

use dfdx::{optim::*, prelude::*};
use support::{
    quadratic::{dot, Quadratic, Random},
    values::{gradients, vector, weights, Vector},
};
use tlr::{
    Adaptation, Cause, KeptBecause, Newton, NewtonConfig, Outcome, PerLayer, Safeguard, Window,
};

type Model = (Vector<2>, Vector<3>);
type PerLayerNewton = Newton<PerLayer<Sgd<Model, f64, Cpu>>>;

const RATE: f64 = 0.02;

fn per_layer(steps: usize) -> (Model, PerLayerNewton) {
    let model: Model = (vector(&[1.0, -1.0]), vector(&[0.5, 0.0, -0.5]));
    let sgd = Sgd::new(&model, SgdConfig { lr: RATE, ..Default::default() });
    let config = by_losses_alone().climb(None).window(Window::steps(steps).unwrap());
    let newton = Newton::new(&model, PerLayer::new(&model, sgd), config).unwrap();
    (model, newton)
}

fn bowl() -> Quadratic {
    Quadratic::random(&[0.5, 1.0, 1.5, 2.0, 2.5], &mut Random(9))
}

fn step(model: &mut Model, newton: &mut PerLayerNewton, loss: Option<f64>) {
    let (w, bowl) = (weights(model), bowl());
    let here = gradients(model, &bowl.gradient(&w));
    // Above 0, so that a window's rise is told by the rise alone.
    newton.step(model, &here, loss.unwrap_or(10.0 + bowl.loss(&w))).unwrap();
}

// A window of 3: one decision a layer after steps 3, 6, 9 …, each starting where the last ended.
// Fails if a rate is set without a decision, or a decision noted without setting the rate.
#[test]
fn decisions_follow_each_other() {
    let (mut model, mut newton) = per_layer(3);
    for index in 0..24 {
        // Steps 14 and 15 explode in the middle of a window, which begins anew after them.
        step(&mut model, &mut newton, (13..15).contains(&index).then_some(1e9));
    }
    assert_eq!((newton.steps(), newton.window()), (24, 3));

    let history = newton.history();
    let steps: Vec<u64> = history.iter().step_by(2).map(|adaptation| adaptation.step).collect();
    assert_eq!(steps, [3, 6, 9, 12, 15, 18, 21, 24]);
    for (pair, both) in history.chunks(2).enumerate() {
        assert_eq!(
            both.iter().map(|adaptation| &*adaptation.layer).collect::<Vec<_>>(),
            ["0", "1"]
        );
        assert_eq!(both[0].step, both[1].step);
        for adaptation in both {
            match (pair, adaptation.outcome) {
                (0 | 5, outcome) => assert_eq!(outcome, Outcome::WarmingUp),
                (4, outcome) => {
                    assert_eq!(outcome, Outcome::RolledBack(Cause::LossExploded));
                    assert_eq!(adaptation.to, adaptation.from * 0.5);
                }
                (_, outcome) => assert!(
                    matches!(outcome, Outcome::Scaled | Outcome::Capped | Outcome::Kept(_)),
                    "{outcome}"
                ),
            }
            assert_eq!(adaptation.products.is_none(), matches!(pair, 0 | 4 | 5));
        }
    }
    for layer in ["0", "1"] {
        let own: Vec<_> = history.iter().filter(|adaptation| &*adaptation.layer == layer).collect();
        assert_eq!(own[0].from, RATE);
        assert!(own.windows(2).all(|pair| pair[0].to == pair[1].from));
        let last = own.last().unwrap().to;
        assert!(newton.rates().contains(&(layer, last)));
    }
}

// The products are those of the directions: each window's displacement over its rate. Fails with
// displacements in their place, or with the window's own ⟨u,u⟩ as the previous one's.
#[test]
fn products_are_of_directions() {
    let (mut model, mut newton) = per_layer(2);
    let mut corners = vec![weights(&model)];
    for _ in 0..6 {
        step(&mut model, &mut newton, None);
        corners.push(weights(&model));
    }
    let corners: Vec<_> = corners.iter().step_by(2).collect();
    let second_layer: Vec<_> = newton.history().iter().filter(|a| &*a.layer == "1").collect();
    let directions: Vec<Vec<f64>> = corners
        .windows(2)
        .zip(&second_layer)
        .map(|(pair, made_at)| {
            pair[0][2..]
                .iter()
                .zip(&pair[1][2..])
                .map(|(then, now)| (then - now) / made_at.from)
                .collect()
        })
        .collect();
    for (pair, adaptation) in directions.windows(2).zip(&second_layer[1..]) {
        let products = adaptation.products.unwrap();
        let expected = [dot(&pair[0], &pair[0]), dot(&pair[0], &pair[1]), dot(&pair[1], &pair[1])];
        for (ours, theirs) in [products.uu, products.un, products.nn].iter().zip(expected) {
            // Divided before and after the sum of three terms: a few roundings.
            assert!((ours - theirs).abs() <= 1e-13 * theirs.abs(), "{ours} for {theirs}");
        }
    }
}

// Taken away, the history starts anew and training goes on as before.
#[test]
fn take_history() {
    let (mut model, mut newton) = per_layer(1);
    let (mut model_kept, mut newton_kept) = per_layer(1);
    let mut taken = Vec::new();
    for index in 0..6 {
        step(&mut model, &mut newton, None);
        step(&mut model_kept, &mut newton_kept, None);
        if index % 2 == 1 {
            taken.extend(newton.take_history());
            assert!(newton.history().is_empty());
        }
    }
    assert_eq!(taken, newton_kept.history());
    assert_eq!(newton.rates(), newton_kept.rates());
}

// What the outcomes are called, in logs and tables.
#[test]
fn names_of_outcomes() {
    use Outcome::{Capped, Kept, RolledBack, Scaled, WarmingUp};
    for (outcome, name) in [
        (WarmingUp, "warming up"),
        (Scaled, "scaled"),
        (Capped, "capped"),
        (Kept(KeptBecause::NonPositiveCurvature), "kept: the curvature is not positive"),
        (Kept(KeptBecause::NonFinite), "kept: a figure is not finite"),
        (Kept(KeptBecause::FixedRate), "kept: the rate is fixed"),
        (RolledBack(Cause::LossIncreased), "rolled back: the mean loss rose"),
        (RolledBack(Cause::LossExploded), "rolled back: the loss exploded"),
        (RolledBack(Cause::NonFiniteLoss), "rolled back: the loss is not finite"),
        (RolledBack(Cause::NonFiniteWeights), "rolled back: a weight is not finite"),
    ] {
        assert_eq!(outcome.to_string(), name);
    }
}

// The JSON that readers of a run's log rely on; every field, by name.
#[test]
fn json() {
    let (mut model, mut newton) = per_layer(1);
    step(&mut model, &mut newton, None);
    step(&mut model, &mut newton, None);
    let as_json = |adaptation: &Adaptation| serde_json::to_value(adaptation).unwrap();
    let [first, _, second, _] = newton.history() else { panic!("two windows of two layers") };
    assert_eq!(
        as_json(first),
        serde_json::json!({
            "step": 1, "layer": "0", "from": RATE, "to": RATE, "products": null,
            "outcome": "WarmingUp",
        })
    );
    let products = second.products.unwrap();
    assert_eq!(
        as_json(second),
        serde_json::json!({
            "step": 2, "layer": "0", "from": RATE, "to": second.to,
            "products": { "uu": products.uu, "un": products.un, "nn": products.nn },
            "outcome": "Scaled",
        })
    );
    let mut kept = first.clone();
    kept.outcome = Outcome::Kept(KeptBecause::NonFinite);
    assert_eq!(as_json(&kept)["outcome"], serde_json::json!({ "Kept": "NonFinite" }));
    let cause = Cause::LossExploded;
    let mut undone = first.clone();
    undone.outcome = Outcome::RolledBack(cause);
    assert_eq!(as_json(&undone)["outcome"], serde_json::json!({ "RolledBack": "LossExploded" }));
}

/// These losses have nothing to do with the gradients beside them.
fn by_losses_alone() -> NewtonConfig {
    let safeguard = Safeguard::default().blame(None);
    NewtonConfig::default().ramp(false).settle(false).max_factor(100.0).safeguard(safeguard)
}
