//! The derive macros of [`tlr`](https://docs.rs/tlr), which re-exports them: use them from there.

mod ast;
mod attr;
mod errors;
mod expand;
mod fallback;
mod generics;
mod implementation;
mod valid;

use ast::Input;
use errors::Errors;
use generics::Roles;
use proc_macro::TokenStream;
use quote::quote;
use syn::{parse_macro_input, DeriveInput};

/// Implements dfdx's `TensorCollection` for a struct of modules.
///
/// Its attributes and an example stand where `tlr` exports it.
#[proc_macro_derive(TensorCollection, attributes(tlr))]
pub fn derive_tensor_collection(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implement(&input, expand::tensor_collection, fallback::tensor_collection)
}

/// Implements `tlr::TrainableLr` for a struct of modules: its layers are those of its fields.
///
/// Its attributes and an example stand where `tlr` exports it.
#[proc_macro_derive(TrainableLr, attributes(tlr))]
pub fn derive_trainable_lr(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implement(&input, expand::trainable_lr, fallback::trainable_lr)
}

/// A function that writes an implementation for a struct.
type Implement = fn(&Input<'_>, &Roles<'_>) -> proc_macro2::TokenStream;

/// Implements a trait for a struct with `expand`. If there are errors in the struct, reports all of
/// them and implements the trait with `fallback`.
fn implement(input: &DeriveInput, expand: Implement, fallback: Implement) -> TokenStream {
    let mut errors = Errors::default();
    let input = Input::parse(input, &mut errors);
    let roles = Roles::of(&input);
    errors.take(valid::check(&input, &roles));
    match errors.finish() {
        Ok(()) => expand(&input, &roles).into(),
        Err(error) => {
            let (errors, implementation) = (error.to_compile_error(), fallback(&input, &roles));
            quote!(#errors #implementation).into()
        }
    }
}
