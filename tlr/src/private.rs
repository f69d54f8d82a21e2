//! What the derives' code names.

use ::dfdx::{
    nn::{ModuleField, TensorCollection},
    shapes::Dtype,
    tensor_ops::Device,
};

pub use ::dfdx;
pub use num_traits;
pub use rand_distr;

/// Any `TensorCollection`; says in words of ours what is none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module, or not one of any dtype and device",
    label = "does not implement `TensorCollection<{E}, {D}>`",
    note = "for a struct of your own: `#[derive(tlr::TensorCollection)]`",
    note = "for a field that is no module, such as a number: `#[tlr(skip)]`",
    note = "dfdx converts models between dtypes and devices: these are parameters of the model, as in `struct Model<E: Dtype, D: Device<E>>`; where a trait of your own stands for `Device`, `#[tlr(dtype = E, device = D)]` names them"
)]
pub trait Module<E: Dtype, D: Device<E>>: TensorCollection<E, D> {}

#[diagnostic::do_not_recommend]
impl<E: Dtype, D: Device<E>, M: TensorCollection<E, D>> Module<E, D> for M {}

/// dfdx's `M::module`, for a field that has to be a [`Module`].
pub fn module<M, Field, E, D, F1, F2>(
    name: &str,
    get_ref: F1,
    get_mut: F2,
) -> ModuleField<'_, F1, F2, M, Field>
where
    M: TensorCollection<E, D>,
    Field: Module<E, D>,
    E: Dtype,
    D: Device<E>,
    F1: FnMut(&M) -> &Field,
    F2: FnMut(&mut M) -> &mut Field,
{
    M::module(name, get_ref, get_mut)
}
