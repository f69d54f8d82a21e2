//! Models that cannot be trained are refused before the first step.

use super::{sgd, tells};
use dfdx::{nn::ModuleVisitor, optim::*, prelude::*};
use support::values::{vector, Vector};
use tlr::{
    layers::{LayerOptions, LayerVisitor, LayerVisitorMut, Layers, TrainableLr},
    Error, Family, Newton, NewtonConfig, PerLayer,
};

#[test]
fn nothing_to_train() {
    let model = (ReLU, Tanh);
    let adam = Adam::<_, f64, Cpu>::new(&model, AdamConfig::default());
    let error = Newton::new(&model, adam, NewtonConfig::default().ramp(false).settle(false))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error, Error::NothingToTrain);
    let per_layer = PerLayer::new(&model, sgd(&model, 0.1));
    let error = Newton::new(&model, per_layer, NewtonConfig::default().ramp(false).settle(false))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error, Error::NothingToTrain);
    tells(&error, &["no trainable tensor"]);
}

#[test]
fn not_contiguous() {
    let row: Tensor<Rank1<3>, f64, _> = Cpu::default().tensor([1.0, 2.0, 3.0]);
    let view: Tensor<Rank2<2, 3>, f64, _> = row.broadcast();
    let model = (vector::<2, f64>(&[1.0, 2.0]), view);
    let error =
        Newton::new(&model, sgd(&model, 0.1), NewtonConfig::default().ramp(false).settle(false))
            .map(|_| ())
            .unwrap_err();
    assert_eq!(error, Error::NotContiguous { tensor: "1".into() });
    tells(&error, &["`1`", "`.contiguous()`"]);
    let contiguous = (model.0, model.1.contiguous());
    Newton::new(
        &contiguous,
        sgd(&contiguous, 0.1),
        NewtonConfig::default().ramp(false).settle(false),
    )
    .unwrap();
}

/// Two tensors, of which the layers know one.
#[derive(Clone)]
struct Forgetful {
    known: Vector<1>,
    forgotten: Vector<1>,
}

impl TensorCollection<f64, Cpu> for Forgetful {
    type To<E: Dtype, D: Device<E>> = (Tensor<Rank1<1>, E, D>, Tensor<Rank1<1>, E, D>);

    fn iter_tensors<V: ModuleVisitor<Self, f64, Cpu>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        let options = || TensorOptions::reset_to_zeros();
        visitor.visit_fields(
            (
                Self::tensor("known", |s| &s.known, |s| &mut s.known, options()),
                Self::tensor("forgotten", |s| &s.forgotten, |s| &mut s.forgotten, options()),
            ),
            |tensors| tensors,
        )
    }
}

impl TrainableLr<f64, Cpu> for Forgetful {
    type Optimizers<F: Family<Dtype = f64, Device = Cpu>> = F::For<Vector<1>>;

    fn optimizers<F>(&self, family: &F, layers: &mut Layers) -> Self::Optimizers<F>
    where
        F: Family<Dtype = f64, Device = Cpu>,
    {
        layers.field("known", LayerOptions::default(), |layers| layers.layer(&self.known));
        family.for_layer(&self.known)
    }

    fn visit_layers<F, V>(
        &self,
        optimizers: &Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err>
    where
        F: Family<Dtype = f64, Device = Cpu>,
        V: LayerVisitor<F>,
    {
        visitor.visit_layer(&self.known, optimizers)
    }

    fn visit_layers_mut<F, V>(
        &mut self,
        optimizers: &mut Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err>
    where
        F: Family<Dtype = f64, Device = Cpu>,
        V: LayerVisitorMut<F>,
    {
        visitor.visit_layer(&mut self.known, optimizers)
    }
}

#[test]
fn tensor_outside_layers() {
    let model = Forgetful { known: vector(&[1.0]), forgotten: vector(&[2.0]) };
    let per_layer = PerLayer::new(&model, sgd(&model, 0.1));
    let error = Newton::new(&model, per_layer, NewtonConfig::default().ramp(false).settle(false))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error, Error::TensorOutsideLayers { tensor: "forgotten".into() });
    tells(&error, &["`forgotten`", "visits it", "#[tlr(skip)]"]);
    // A single rate needs no layers.
    Newton::new(&model, sgd(&model, 0.1), NewtonConfig::default().ramp(false).settle(false))
        .unwrap();
}
