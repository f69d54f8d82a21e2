//! A learning rate that learns itself, for [dfdx].
//!
//! [`Newton`] wraps any dfdx optimizer and trains its learning rate along with the weights: every K
//! steps a damped Newton step on the rate, from two dot products of averaged update directions
//! (Retsinas, Sfikas, Filntisis and Maragos, *Newton-based Trainable Learning Rate*, ICASSP 2023;
//! [their code](https://github.com/georgeretsi/NTLR)).
//! One rate for the model, or one a layer ([`PerLayer`]). The rate is always positive and bounded,
//! whatever it starts from.
//!
//! Without the default feature `dfdx`, the crate is the [`engine`] alone: what decides on rates,
//! for a host of your own that has the weights.
//!
//! [dfdx]: https://docs.rs/dfdx/0.13

#![warn(missing_debug_implementations)]
#![cfg_attr(
    not(feature = "dfdx"),
    doc = "\n[`Newton`]: https://docs.rs/tlr/latest/tlr/type.Newton.html\n[`PerLayer`]: \
        https://docs.rs/tlr/latest/tlr/struct.PerLayer.html"
)]

#[cfg(feature = "dfdx")]
mod digest;
pub mod engine;
mod error;
mod rates;

pub use engine::{
    Adaptation, Config, HypergradientConfig, KeptBecause, NewtonConfig, Outcome, Safeguard,
    Schedule, Step, Window,
};
pub use error::{
    Cause, CheckpointError, DeviceError, Difference, Error, ParallelError, TensorDifference,
};

#[cfg(feature = "dfdx")]
mod checkpoint;
#[cfg(feature = "dfdx")]
mod files;
#[cfg(feature = "dfdx")]
#[doc(hidden)]
pub mod layers;
#[cfg(all(test, feature = "dfdx", target_os = "linux"))]
#[path = "../tests/needs/mod.rs"]
mod needs;
#[cfg(feature = "dfdx")]
pub mod optim;
#[cfg(feature = "dfdx")]
pub mod parallel;
#[cfg(feature = "dfdx")]
mod settings;
#[cfg(feature = "dfdx")]
mod snapshots;
#[cfg(feature = "dfdx")]
mod tensors;
#[cfg(feature = "dfdx")]
mod trainer;

#[cfg(feature = "dfdx")]
#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

// Other crates of this workspace use these for kernels on dfdx's tensors.
#[cfg(feature = "cuda")]
#[doc(hidden)]
pub use tensors::{gpu_place, GpuPlace};

#[cfg(feature = "dfdx")]
pub use {
    ::dfdx::nn::TensorCollection,
    checkpoint::{Checkpoint, TensorFile},
    layers::{PerLayer, TrainableLr},
    optim::{Family, TunableOptimizer},
    parallel::DataParallel,
    tensors::{Backend, Element},
    trainer::{Hypergradient, LineSearch, LossScale, MixedPrecision, Newton, Trainer},
};

/// Implements dfdx's `TensorCollection` for a struct of modules.
///
/// Each field is a module or a tensor, and has the same name as in the struct; the fields of a
/// tuple struct are called `0`, `1` and so on. As with an implementation written by hand, dfdx can
/// then build the struct, convert it between dtypes and devices, count its parameters, and do all
/// else that it offers for any `TensorCollection`.
///
/// # Dtype and device
/// The device is the type parameter that has a bound `Device<E>` or `Storage<E>`, and the dtype is
/// the `E` in that bound. If the bound is a trait of your own instead, name both type parameters:
/// `#[tlr(dtype = E, device = D)]`. A struct with neither a dtype nor a device, such as a container
/// of other modules, works with all dtypes and devices.
///
/// # Other type parameters
/// A type parameter without bounds that occurs in the type of a field is a module, as in
/// `struct Block<F> { inner: Residual<F> }`. A type parameter with a bound, such as
/// `S: ConstShape`, remains the same when the model is converted to another dtype or device.
///
/// # Several modules, or none
/// A model's type fixes how many modules it has, so a field cannot be a `Vec` or an `Option` of
/// modules. In place of a `Vec` use dfdx's `Repeated<M, N>`, or a tuple if their types differ. In
/// place of an `Option` use `Repeated<M, N>` with 0 or 1 for `N`.
/// ```
/// use dfdx::prelude::*;
/// use tlr::TensorCollection;
///
/// #[derive(TensorCollection)]
/// struct Body<const NORM: usize, E: Dtype, D: Device<E>> {
///     blocks: modules::Repeated<modules::Linear<4, 4, E, D>, 3>,
///     norm: modules::Repeated<modules::LayerNorm1D<4, E, D>, NORM>,
/// }
///
/// let dev = Cpu::default();
/// let plain = Body::<0, f32, Cpu>::build(&dev);
/// let normed = Body::<1, f32, Cpu>::build(&dev);
/// assert_eq!(plain.num_trainable_params() + 4 + 4, normed.num_trainable_params());
/// ```
///
/// # Attributes
/// `#[tlr(skip)]` is for a field that is not a module, such as a number. Its type has to implement
/// `Default`: when dfdx builds a model or converts it, the field of the new model has the default
/// value.
///
/// `#[tlr(untrained)]` is for a module whose weights stay as they are, bit for bit, such as one
/// that is already trained: what PyTorch calls `requires_grad = False`. The optimizers of
/// `tlr::optim` neither update nor decay them, whatever their gradients are, and `Clip` leaves
/// these out of the norm. A trainer treats these tensors like running means: saved and restored,
/// but without a rate. (Running means within the field still follow their inputs.) dfdx itself
/// knows nothing of it: its own optimizers would train the field, so a trainer around one is an
/// error.
///
/// `#[tlr(no_decay)]` leaves the weights of a module out of the weight decay that an optimizer of
/// `tlr::optim` makes, L2 or decoupled. (`Elementwise::decay_matrices_only` leaves out all biases,
/// and the scales and shifts of norm layers.) dfdx's own optimizers know nothing of it either.
///
/// `#[tlr(crate = path)]` on the struct gives the path to `tlr`, if it is not `::tlr`.
///
/// A field that is a tensor is filled with zeros when the model is built.
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
#[cfg(feature = "dfdx")]
pub use tlr_derive::TensorCollection;

/// Implements `tlr::TrainableLr` for a struct of modules: its layers are those of its fields.
///
/// The name of a layer consists of the names of the fields that lead to it, as in
/// `encoder.block1.conv1`. The struct has to implement `Clone` and `TensorCollection`; derive the
/// latter with [`#[derive(TensorCollection)]`](macro@TensorCollection). How the dtype, the device
/// and other type parameters are recognized is explained there, and is the same here.
///
/// # Attributes of a field
/// Several can be combined, as in `#[tlr(group, rate = 0.1)]`. `group`, `fixed_rate` and `rate` are
/// about the rates that `tlr::PerLayer` gives to layers. A field with `fixed_rate` or a `rate`
/// is an error in a trainer with one rate for the whole model, provided that `TensorCollection` is
/// derived.
///
/// | | |
/// |---|---|
/// | `group` | The field is one layer with one rate, whatever it consists of. |
/// | `fixed_rate` | The rates of the field's layers never change. Their weights are still trained. |
/// | `rate = 0.1` | Scales the rates at which the layers of the field start. A number above zero. |
/// | `no_decay` | The field's weights are left out of the weight decay. |
/// | `untrained` | The field's weights never change, so it has no layers. |
/// | `skip` | The field is not a module: it has no layers and no tensors. |
///
/// `no_decay` and `untrained` need the derived `TensorCollection`, and are explained there.
///
/// # Attributes of the struct
///
/// | | |
/// |---|---|
/// | `group` | The whole struct is one layer. Use it for a layer of your own, made of tensors. |
/// | `dtype = E`, `device = D` | The dtype and the device, if the bounds do not show them. |
/// | `crate = path` | The path to `tlr`, if it is not `::tlr`. |
///
/// # Example
/// ```
/// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
/// use tlr::{Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr};
///
/// #[derive(Clone, TensorCollection, TrainableLr)]
/// struct Mlp<E: Dtype, D: Device<E>> {
///     #[tlr(fixed_rate, rate = 0.5)]
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
#[cfg(feature = "dfdx")]
pub use tlr_derive::TrainableLr;
