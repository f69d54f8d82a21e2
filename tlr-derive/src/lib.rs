//! The derives of [`tlr`](https://docs.rs/tlr); use them through it.

mod ast;
mod attr;
mod expand;
mod fallback;
mod generics;
mod valid;

use proc_macro::TokenStream;
use syn::{parse_macro_input, DeriveInput};

/// Implements dfdx's `TensorCollection` for a struct of modules.
///
/// Each field is a module or a tensor, named as it is in the struct; those of a tuple struct are
/// called `0`, `1` and so on. With the implementation come building, conversion between dtypes and
/// devices, parameter counts and whatever else dfdx offers for any `TensorCollection`, all as if it
/// had been written by hand.
///
/// # Dtype and device
/// The device is the type parameter with a bound `Device<E>` or `Storage<E>`, and the dtype is that
/// `E`. Where a trait of your own stands for these, say it:
/// `#[tlr(dtype = E, device = D)]`. A struct with neither, such as a container of other modules, works
/// with all dtypes and devices.
///
/// # Other type parameters
/// One without bounds, in the type of a field, is a module: `struct Block<F> { inner: Residual<F> }`.
/// One with a bound, such as `S: ConstShape`, is the same for all dtypes and devices.
///
/// # Attributes
/// `#[tlr(skip)]` is for a field that is no module, such as a number. It has to implement `Default`:
/// wherever dfdx makes a model, by building it or by converting it, the field starts as that.
/// `#[tlr(crate = path)]` on the struct says where `tlr` is, should it not be `::tlr`.
///
/// A tensor as a field is filled with zeros when the model is built.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr::TensorCollection;
///
/// #[derive(TensorCollection)]
/// struct Mlp<E: Dtype, D: Device<E>> {
///     hidden: modules::Linear<4, 8, E, D>,
///     act: ReLU,
///     head: modules::Linear<8, 2, E, D>,
///     #[tlr(skip)]
///     calls: usize,
/// }
///
/// let dev = Cpu::default();
/// let model = Mlp::<f32, Cpu>::build(&dev);
/// assert_eq!(model.num_trainable_params(), 4 * 8 + 8 + 8 * 2 + 2);
/// let _: Mlp<f64, Cpu> = model.to_dtype::<f64>();
/// ```
#[proc_macro_derive(TensorCollection, attributes(tlr))]
pub fn derive_tensor_collection(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::tensor_collection(&input).into()
}

/// Implements `tlr::TrainableLr` for a struct of modules: its layers are those of its fields.
///
/// The layers are named by the fields that lead to them, as in `encoder.block1.conv1`. The struct
/// must be `Clone` and a `TensorCollection`, which
/// [`#[derive(TensorCollection)]`](macro@TensorCollection) makes it; what is said there of dtype,
/// device and other type parameters holds here too.
///
/// # Attributes of a field
/// Several can be combined, as in `#[tlr(group, rate = 0.1)]`.
///
/// | | |
/// |---|---|
/// | `group` | The module in it is one layer, with one rate, whatever it consists of. |
/// | `frozen` | The rates in it stay where they start. The weights are trained all the same. |
/// | `rate = 0.1` | The rates in it start at this times the optimizer's. A number above zero. |
/// | `skip` | No module: it has no layers and no tensors. |
///
/// # Attributes of the struct
///
/// | | |
/// |---|---|
/// | `group` | The struct as a whole is one layer: for a layer of your own, made of tensors. |
/// | `dtype = E`, `device = D` | Which type parameters are these, where the bounds do not tell. |
/// | `crate = path` | Where `tlr` is, should it not be `::tlr`. |
///
/// # Example
/// ```
/// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
/// use tlr::{Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr};
///
/// #[derive(Clone, TensorCollection, TrainableLr)]
/// struct Mlp<E: Dtype, D: Device<E>> {
///     #[tlr(frozen, rate = 0.5)]
///     embedding: modules::Linear<4, 8, E, D>,
///     blocks: modules::Repeated<(modules::Linear<8, 8, E, D>, ReLU), 2>,
///     head: modules::Linear<8, 2, E, D>,
/// }
///
/// let dev = Cpu::default();
/// let model = Mlp::<f32, Cpu>::build(&dev);
/// let sgd = Sgd::new(&model, SgdConfig { lr: 0.25, ..Default::default() });
/// let opt = Newton::new(&model, PerLayer::new(&model, sgd), NewtonConfig::default())?;
/// assert_eq!(
///     opt.rates(),
///     [("embedding", 0.125), ("blocks.0.0", 0.25), ("blocks.1.0", 0.25), ("head", 0.25)]
/// );
/// # Ok::<(), tlr::Error>(())
/// ```
#[proc_macro_derive(TrainableLr, attributes(tlr))]
pub fn derive_trainable_lr(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::trainable_lr(&input).into()
}
