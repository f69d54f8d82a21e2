//! What stands in for an implementation when there is an error, so that no further ones follow.

use crate::{
    ast::Input,
    expand::{collection_generics, converted, trainable_generics},
    generics::Roles,
};
use proc_macro2::TokenStream;
use quote::quote;

pub(crate) fn tensor_collection(
    input: &Input<'_>,
    roles: &Roles<'_>,
    error: &syn::Error,
) -> TokenStream {
    let krate = input.krate();
    let dfdx = quote!(#krate::__private::dfdx);
    let Roles { dtype, device, .. } = roles;
    let ident = input.ident;
    let generics = collection_generics(input, roles);
    let to = if roles.convertible { converted(input, roles) } else { quote!(Self) };
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (_, ty_generics, _) = input.generics.split_for_impl();
    let errors = error.to_compile_error();
    quote! {
        #errors

        #[automatically_derived]
        impl #impl_generics #dfdx::nn::TensorCollection<#dtype, #device> for #ident #ty_generics
        #where_clause
        {
            type To<__E2: #dfdx::shapes::Dtype, __D2: #dfdx::tensor_ops::Device<__E2>> = #to;

            fn iter_tensors<__V: #dfdx::nn::ModuleVisitor<Self, #dtype, #device>>(
                _: &mut __V,
            ) -> ::core::result::Result<::core::option::Option<Self::To<__V::E2, __V::D2>>, __V::Err> {
                ::core::result::Result::Ok(::core::option::Option::None)
            }
        }
    }
}

pub(crate) fn trainable_lr(
    input: &Input<'_>,
    roles: &Roles<'_>,
    error: &syn::Error,
) -> TokenStream {
    let krate = input.krate();
    let Roles { dtype, device, .. } = roles;
    let ident = input.ident;
    let generics = trainable_generics(input, roles);
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (_, ty_generics, _) = input.generics.split_for_impl();
    let family = quote!(#krate::Family<Dtype = #dtype, Device = #device>);
    let errors = error.to_compile_error();
    quote! {
        #errors

        #[automatically_derived]
        impl #impl_generics #krate::TrainableLr<#dtype, #device> for #ident #ty_generics
        #where_clause
        {
            type Optimizers<__F: #family> = ();

            fn optimizers<__F: #family>(&self, _: &__F, _: &mut #krate::layers::Layers) {}

            fn visit_layers<__F: #family, __V: #krate::layers::LayerVisitor<__F>>(
                &mut self,
                _: &mut (),
                _: &mut __V,
            ) -> ::core::result::Result<(), __V::Err> {
                ::core::result::Result::Ok(())
            }
        }
    }
}
