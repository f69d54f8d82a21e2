//! Structs of all shapes: tuples, empty ones, wide ones, and generic parameters of all kinds.

use super::{layers, listing, names, own_layers, rates, Container, Lin, Mlp};
use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
struct Tuple<E: Dtype, D: Device<E>>(
    Lin<4, 4, E, D>,
    ReLU,
    #[tlr(skip)] u8,
    #[tlr(rate = 0.5)] Lin<4, 2, E, D>,
);

#[test]
fn tuple_structs() {
    let model = Tuple::<f32, Cpu>::build(&Cpu::default());
    assert_eq!(rates(&model), [("0".to_owned(), 0.5), ("3".to_owned(), 0.25)]);
    assert_eq!(names(&model), ["0.weight", "0.bias", "3.weight", "3.bias"]);
    assert_eq!(model.2, 0);
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Unit;

#[derive(Clone, TensorCollection, TrainableLr)]
struct Empty {}

#[derive(Clone, TensorCollection, TrainableLr)]
struct WithoutTensors(Unit, ReLU, Empty, modules::Residual<Tanh>);

#[derive(Clone, TensorCollection, TrainableLr)]
struct AfterNothing<E: Dtype, D: Device<E>> {
    nothing: WithoutTensors,
    linear: Lin<4, 2, E, D>,
}

#[test]
fn structs_without_tensors() {
    let model = AfterNothing::<f32, Cpu>::build(&Cpu::default());
    assert_eq!(layers(&model), ["linear"]);
    let _: AfterNothing<f64, Cpu> = model.to_dtype();
}

macro_rules! wide {
    ($($field:ident)+) => {
        #[derive(Clone, TensorCollection, TrainableLr)]
        struct Wide<E: Dtype, D: Device<E>> { $($field: Lin<1, 2, E, D>,)+ }
        const WIDE: &[&str] = &[$(stringify!($field)),+];
    };
}

wide! { a b c d e f g h i j k l m n o p q r s t u v w x y z aa bb cc dd ee ff gg hh ii jj kk }

#[test]
fn more_fields_than_tuples_have() {
    let model = Wide::<f32, Cpu>::build(&Cpu::default());
    assert_eq!(layers(&model), WIDE);
    let expected: Vec<_> =
        WIDE.iter().flat_map(|name| [format!("{name}.weight"), format!("{name}.bias")]).collect();
    assert_eq!(names(&model), expected);
    let again = model.to_dtype::<f64>().to_dtype::<f32>();
    assert_eq!(listing(&again), listing(&model), "no two fields are mixed up");
}

/// A module of any kind, before and after one that is known.
#[derive(Clone, TensorCollection, TrainableLr)]
struct Around<M, E: Dtype, D: Device<E>, N = ReLU>
where
    E: Dtype,
{
    before: modules::Residual<M>,
    between: Lin<4, 4, E, D>,
    after: (N, M),
}

#[test]
fn generic_parameters() {
    let dev = Cpu::default();
    let model = Around::<Mlp<f32, Cpu>, f32, Cpu>::build(&dev);
    assert_eq!(
        layers(&model),
        ["before.0.hidden", "before.0.head", "between", "after.1.hidden", "after.1.head"]
    );
    let _: Around<Mlp<f64, Cpu>, f64, Cpu, ReLU> = model.to_dtype();

    let model = Container::<'static, Lin<4, 4, f32, Cpu>, Tanh, String, 2>::build(&dev);
    assert_eq!(layers(&model), ["modules.0", "modules.1", "whole"]);
    let _: Container<'static, Lin<4, 4, f64, Cpu>, Tanh, String, 2> = model.to_dtype();
}

/// A trait of one's own for the device.
trait Hardware<E: Dtype>: Device<E> {}

impl<E: Dtype, D: Device<E>> Hardware<E> for D {}

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(dtype = E, device = H)]
struct Named<H: Hardware<E>, E: Dtype> {
    linear: Lin<4, 2, E, H>,
}

/// The bound at the place where dfdx's own layers have it, and as weak as theirs.
#[derive(Clone, TensorCollection, TrainableLr)]
struct Where<D, E>
where
    E: Dtype,
    D: dfdx::tensor::Storage<E>,
{
    r#type: Lin<4, 2, E, D>,
}

#[test]
fn dtype_and_device_by_any_name() {
    let dev = Cpu::default();
    let named = Named::<Cpu, f32>::build(&dev);
    let _: Named<Cpu, f64> = named.to_dtype();
    assert_eq!(layers(&named), ["linear"]);
    let bounded = Where::<Cpu, f32>::build(&dev);
    let _: Where<Cpu, f64> = bounded.to_dtype();
    assert_eq!(layers(&bounded), ["type"]);
    assert_eq!(names(&bounded), ["type.weight", "type.bias"]);
}

#[test]
fn under_another_name() {
    use tlr_renamed::{Model, Wrapper};
    let dev = Cpu::default();
    let model = Wrapper::<Model<f32, Cpu>, (), 1>::build(&dev);
    assert_eq!(own_layers(&model), ["inner.0.first.0", "inner.0.second", "inner.0.head"]);
    assert_eq!(model.inner.modules[0].steps(), 0);
}
