//! [`Mark`]: what `#[tlr(…)]` says of the fields on a walk's way.
//!
//! dfdx shows a visitor a tensor's own options, and nothing of the fields that lead to it. So a
//! derived walk notes the attributes of a field, for its thread, while it visits the field.

use dfdx::{
    nn::{ModuleFields, ModuleVisitor, TensorCollection, TensorOptions},
    shapes::{Dtype, Shape},
    tensor_ops::Device,
};
use std::cell::Cell;

/// The attributes of the fields that lead to a tensor. Each holds the name of the outermost field
/// that has it, as in `Model::head`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mark {
    /// `#[tlr(fixed_rate)]`.
    pub fixed_rate: Option<&'static str>,
    /// `#[tlr(rate = …)]`.
    pub rate: Option<&'static str>,
    /// `#[tlr(untrained)]`.
    pub untrained: Option<&'static str>,
    /// `#[tlr(no_decay)]`.
    pub no_decay: Option<&'static str>,
}

impl Mark {
    pub(crate) const NONE: Self =
        Self { fixed_rate: None, rate: None, untrained: None, no_decay: None };

    /// This mark combined with that of a field within.
    fn with(self, inner: Self) -> Self {
        Self {
            fixed_rate: self.fixed_rate.or(inner.fixed_rate),
            rate: self.rate.or(inner.rate),
            untrained: self.untrained.or(inner.untrained),
            no_decay: self.no_decay.or(inner.no_decay),
        }
    }

    /// The mark of the fields that this thread's walk is in.
    pub(crate) fn here() -> Self {
        HERE.get()
    }

    /// Calls `walk` within fields of this mark.
    pub(crate) fn around<T>(self, walk: impl FnOnce() -> T) -> T {
        /// Sets the mark back, also if `walk` panics.
        struct Back(Mark);
        impl Drop for Back {
            fn drop(&mut self) {
                HERE.set(self.0);
            }
        }
        let outer = Self::here();
        let _back = Back(outer);
        HERE.set(outer.with(self));
        walk()
    }
}

thread_local! {
    static HERE: Cell<Mark> = const { Cell::new(Mark::NONE) };
}

/// Whether gradients update the tensor that a walk is at.
pub(crate) fn is_trained<S: Shape, E: Dtype, D: Device<E>>(
    options: &TensorOptions<S, E, D>,
) -> bool {
    options.do_gradient_update && Mark::here().untrained.is_none()
}

/// A field with attributes, for dfdx's `visit_fields`.
#[derive(Debug)]
pub struct MarkedField<F> {
    /// The field without its attributes.
    pub field: F,
    /// What its attributes say.
    pub mark: Mark,
}

impl<F, M, E, D> ModuleFields<M, E, D> for MarkedField<F>
where
    F: ModuleFields<M, E, D>,
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Device<E>,
{
    type Options<E2: Dtype, D2: Device<E2>> = F::Options<E2, D2>;
    type Output<E2: Dtype, D2: Device<E2>> = F::Output<E2, D2>;

    fn visit_fields<V: ModuleVisitor<M, E, D>>(
        self,
        visitor: &mut V,
    ) -> Result<Self::Options<V::E2, V::D2>, V::Err> {
        self.mark.around(|| self.field.visit_fields(visitor))
    }

    fn handle_options<E2: Dtype, D2: Device<E2>>(
        options: Self::Options<E2, D2>,
    ) -> Option<Self::Output<E2, D2>> {
        F::handle_options(options)
    }
}
