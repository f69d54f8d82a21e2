//! The implementations of the two traits, but for what `expand` and `fallback` each put into them.
//!
//! Both write implementations with the same headers and the same functions, and differ in the
//! bodies of these. All names that the code declares begin with `__`, and all its paths are
//! absolute, so that nothing that the user has named can be mistaken for something else.

use crate::{
    ast::{Field, Input},
    generics::{mentions, with_type_arguments, Roles},
};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{parse_quote, Generics, WherePredicate};

/// The implementation of `TensorCollection`, given its associated type `To` and the body of its
/// function `iter_tensors`.
pub(crate) fn tensor_collection(
    input: &Input<'_>,
    roles: &Roles<'_>,
    to: &TokenStream,
    iter_tensors: &TokenStream,
) -> TokenStream {
    let krate = input.krate();
    let dfdx = quote!(#krate::__private::dfdx);
    let Roles { dtype, device, .. } = roles;
    let ident = input.ident;
    let generics = tensor_collection_generics(input, roles);
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (_, ty_generics, _) = input.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #impl_generics #dfdx::nn::TensorCollection<#dtype, #device> for #ident #ty_generics
        #where_clause
        {
            type To<__E2: #dfdx::shapes::Dtype, __D2: #dfdx::tensor_ops::Device<__E2>> = #to;

            fn iter_tensors<__V: #dfdx::nn::ModuleVisitor<Self, #dtype, #device>>(
                __visitor: &mut __V,
            ) -> ::core::result::Result<
                ::core::option::Option<Self::To<__V::E2, __V::D2>>,
                __V::Err,
            > {
                #iter_tensors
            }
        }
    }
}

/// The type of the struct with the dtype `__E2` and the device `__D2`.
pub(crate) fn converted_type(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    let krate = input.krate();
    let Roles { dtype, device, modules, .. } = roles;
    with_type_arguments(input, |param| {
        if param == dtype {
            quote!(__E2)
        } else if param == device {
            quote!(__D2)
        } else if modules.contains(&param) {
            let collection = quote!(#krate::__private::dfdx::nn::TensorCollection);
            quote!(<#param as #collection<#dtype, #device>>::To<__E2, __D2>)
        } else {
            quote!(#param)
        }
    })
}

/// The generics of the implementation of `TensorCollection`.
fn tensor_collection_generics(input: &Input<'_>, roles: &Roles<'_>) -> Generics {
    let krate = input.krate();
    let Roles { dtype, device, modules, .. } = roles;
    let mut generics = roles.generics(input.generics, &krate);
    let predicates = &mut generics.make_where_clause().predicates;
    predicates.extend(modules.iter().map(|module| -> WherePredicate {
        parse_quote!(#module: #krate::__private::dfdx::nn::TensorCollection<#dtype, #device>)
    }));
    generics
}

/// What `expand` and `fallback` each put into the implementation of `TrainableLr`.
pub(crate) struct TrainableLrParts<'a> {
    /// The generics of the implementation.
    pub(crate) generics: Generics,
    /// The associated type `Optimizers<__F>`.
    pub(crate) optimizers: TokenStream,
    /// The body of the function `optimizers`, which has the arguments `__family` and `__layers`.
    pub(crate) build: TokenStream,
    /// The bodies of the two walks, which have the arguments `__optimizers` and `__visitor`.
    pub(crate) visit: &'a dyn Fn(Walk) -> TokenStream,
}

/// The implementation of `TrainableLr`.
pub(crate) fn trainable_lr(
    input: &Input<'_>,
    roles: &Roles<'_>,
    parts: &TrainableLrParts<'_>,
) -> TokenStream {
    let krate = input.krate();
    let Roles { dtype, device, .. } = roles;
    let ident = input.ident;
    let TrainableLrParts { generics, optimizers, build, visit } = parts;
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (_, ty_generics, _) = input.generics.split_for_impl();
    let family = family(input, roles);
    let walks = [Walk::Shared, Walk::Mutable].map(|walk| {
        let span = Span::call_site();
        let (method, visitor) = (walk.method(span), walk.visitor(span));
        let reference = walk.reference(span);
        let body = visit(walk);
        quote! {
            fn #method<__F: #family, __V: #krate::layers::#visitor<__F>>(
                #reference self,
                __optimizers: #reference #optimizers,
                __visitor: &mut __V,
            ) -> ::core::result::Result<(), __V::Err> {
                #body
            }
        }
    });
    quote! {
        #[automatically_derived]
        #[allow(deprecated, private_bounds)]
        impl #impl_generics #krate::TrainableLr<#dtype, #device> for #ident #ty_generics
        #where_clause
        {
            type Optimizers<__F: #family> = #optimizers;

            fn optimizers<__F: #family>(
                &self,
                __family: &__F,
                __layers: &mut #krate::layers::Layers,
            ) -> #optimizers {
                #build
            }

            #(#walks)*
        }
    }
}

/// One of the two functions of `TrainableLr` that walk through the layers of a model.
#[derive(Clone, Copy)]
pub(crate) enum Walk {
    /// `visit_layers`, which shows the layers and their optimizers to a `LayerVisitor`.
    Shared,
    /// `visit_layers_mut`, which lets a `LayerVisitorMut` change them.
    Mutable,
}

impl Walk {
    /// The name of the function.
    pub(crate) fn method(self, span: Span) -> Ident {
        let name = match self {
            Self::Shared => "visit_layers",
            Self::Mutable => "visit_layers_mut",
        };
        Ident::new(name, span)
    }

    /// The name of the trait of its visitors.
    pub(crate) fn visitor(self, span: Span) -> Ident {
        let name = match self {
            Self::Shared => "LayerVisitor",
            Self::Mutable => "LayerVisitorMut",
        };
        Ident::new(name, span)
    }

    /// `&` or `&mut`: how the function refers to layers and to optimizers.
    pub(crate) fn reference(self, span: Span) -> TokenStream {
        match self {
            Self::Shared => quote_spanned!(span=> &),
            Self::Mutable => quote_spanned!(span=> &mut),
        }
    }
}

/// The bound on the type parameter of `TrainableLr::Optimizers`.
pub(crate) fn family(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    let krate = input.krate();
    let Roles { dtype, device, .. } = roles;
    quote!(#krate::Family<Dtype = #dtype, Device = #device>)
}

/// The generics of the implementation of `TrainableLr`.
pub(crate) fn trainable_lr_generics(input: &Input<'_>, roles: &Roles<'_>) -> Generics {
    let krate = input.krate();
    let Roles { dtype, device, modules, kept, .. } = roles;
    let mut generics = roles.generics(input.generics, &krate);
    let predicates = &mut generics.make_where_clause().predicates;
    for param in modules {
        predicates.push(if input.trainable().any(|field| mentions(field.ty, param)) {
            parse_quote!(#param: #krate::TrainableLr<#dtype, #device>)
        } else {
            parse_quote! {
                #param: #krate::__private::dfdx::nn::TensorCollection<#dtype, #device>
                    + ::core::clone::Clone
            }
        });
    }
    // The struct has to be `Clone`, and `#[derive(Clone)]` requires this of all type parameters.
    predicates.extend(
        kept.iter().map(|param| -> WherePredicate { parse_quote!(#param: ::core::clone::Clone) }),
    );
    // The bounds of such a type parameter do not say whether a field whose type contains it
    // implements `TrainableLr`.
    let fields =
        input.trainable().filter(|field| kept.iter().any(|param| mentions(field.ty, param)));
    predicates.extend(fields.map(|Field { ty, .. }| -> WherePredicate {
        parse_quote!(#ty: #krate::TrainableLr<#dtype, #device>)
    }));
    generics
}
