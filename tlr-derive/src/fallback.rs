//! The implementations for a struct with errors.
//!
//! They do nothing, but with them code that uses the struct compiles, so that the user sees only
//! the errors in the struct and none that follow from them.

use crate::{
    ast::Input,
    generics::Roles,
    implementation::{self, TrainableLrParts},
    valid,
};
use proc_macro2::TokenStream;
use quote::quote;

/// The implementation of `TensorCollection`.
pub(crate) fn tensor_collection(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    // With an error in its type parameters, the struct may not exist for other dtypes and devices.
    let to = match valid::check_type_params(input, roles) {
        Ok(()) => implementation::converted_type(input, roles),
        Err(_) => quote!(Self),
    };
    let iter_tensors = quote!(::core::result::Result::Ok(::core::option::Option::None));
    implementation::tensor_collection(input, roles, &to, &iter_tensors)
}

/// The implementation of `TrainableLr`.
pub(crate) fn trainable_lr(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    let parts = TrainableLrParts {
        generics: implementation::trainable_lr_generics(input, roles),
        optimizers: quote!(()),
        build: TokenStream::new(),
        visit: &|_| quote!(::core::result::Result::Ok(())),
    };
    implementation::trainable_lr(input, roles, &parts)
}
