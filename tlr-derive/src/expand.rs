//! The code of the derives.
//!
//! Paths are absolute and own names begin with `__`, so that nothing of the user's is in the way.

use crate::{
    ast::{Field, Input},
    fallback,
    generics::{mentions, Roles},
    valid::{validated, Validated},
};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned, ToTokens};
use syn::{parse_quote, spanned::Spanned, DeriveInput, Generics, Type, WherePredicate};

pub(crate) fn tensor_collection(input: &DeriveInput) -> TokenStream {
    let Validated { input, roles, error } = validated(input);
    if let Some(error) = error {
        return fallback::tensor_collection(&input, &roles, &error);
    }
    let krate = input.krate();
    let dfdx = quote!(#krate::__private::dfdx);
    let Roles { dtype, device, .. } = &roles;
    let generics = collection_generics(&input, &roles);
    let to = converted(&input, &roles);

    let names: Vec<_> = (0..input.fields.len()).map(|index| format_ident!("__{index}")).collect();
    let parts = || input.fields.iter().zip(&names).filter(|(field, _)| field.attrs.skip.is_none());
    let fields = nested(parts().map(|(field, _)| {
        let Field { member, ty, .. } = field;
        let name = field.name();
        quote_spanned! {at(ty)=>
            #krate::__private::module::<Self, #ty, #dtype, #device, _, _>(
                #name,
                |__self| &__self.#member,
                |__self| &mut __self.#member,
            )
        }
    }));
    let built = nested(parts().map(|(_, name)| quote!(#name)));
    let values = input.fields.iter().zip(&names).map(|(field, name)| {
        let member = &field.member;
        match field.attrs.skip {
            None => quote_spanned!(at(field.ty)=> #member: #name),
            Some(_) => quote_spanned! {at(field.ty)=>
                #member: ::core::default::Default::default()
            },
        }
    });

    let ident = input.ident;
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
                #dfdx::nn::ModuleVisitor::<Self, #dtype, #device>::visit_fields(
                    __visitor,
                    #fields,
                    |#built| #ident { #(#values,)* },
                )
            }
        }
    }
}

/// The struct with another dtype and device.
pub(crate) fn converted(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    let krate = input.krate();
    let Roles { dtype, device, modules, .. } = roles;
    Roles::with_arguments(input, |param| {
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

/// Those of the implementation of `TensorCollection`.
pub(crate) fn collection_generics(input: &Input<'_>, roles: &Roles<'_>) -> Generics {
    let krate = input.krate();
    let Roles { dtype, device, modules, .. } = roles;
    let mut generics = roles.generics(input.generics, &krate);
    let predicates = &mut generics.make_where_clause().predicates;
    predicates.extend(modules.iter().map(|module| -> WherePredicate {
        parse_quote!(#module: #krate::__private::dfdx::nn::TensorCollection<#dtype, #device>)
    }));
    generics
}

/// Tuples of tuples: dfdx takes up to six fields.
fn nested(items: impl Iterator<Item = TokenStream>) -> TokenStream {
    let mut items: Vec<_> = items.collect();
    while items.len() > 6 {
        items = items.chunks(6).map(|chunk| quote!((#(#chunk,)*))).collect();
    }
    quote!((#(#items,)*))
}

pub(crate) fn trainable_lr(input: &DeriveInput) -> TokenStream {
    let Validated { input, roles, error } = validated(input);
    if let Some(error) = error {
        return fallback::trainable_lr(&input, &roles, &error);
    }
    let krate = input.krate();
    let Roles { dtype, device, .. } = &roles;
    let generics = trainable_generics(&input, &roles);
    let family = quote!(#krate::Family<Dtype = #dtype, Device = #device>);

    let walked: Vec<_> = input
        .modules()
        .filter(|_| input.attrs.group.is_none())
        .map(|field| Walked {
            name: format_ident!("__{}", field.name(), span = at(field.ty)),
            field,
        })
        .collect();
    let types = walked.iter().map(|Walked { name, field }| {
        let ty = field.ty;
        let (start, end) = ends(ty);
        // Here an error tells of a field without layers, so it spans the type.
        let mut tokens = if field.attrs.group.is_some() {
            quote_spanned!(start=> #name: <__F as #krate::Family>::For<#ty)
        } else {
            quote_spanned!(start=> #name: <#ty as #krate::TrainableLr<#dtype, #device>>::Optimizers<__F)
        };
        tokens.extend(quote_spanned!(end=> >));
        tokens
    });
    let built = walked.iter().map(|Walked { name, field }| {
        let Field { member, ty, attrs } = field;
        let called = field.name();
        let frozen = attrs.frozen.is_some();
        let rate = attrs.rate.as_ref().map_or(1.0, |rate| rate.value);
        let walk = if attrs.group.is_some() {
            one_layer(&krate, &roles, &quote!(#ty), &quote!(&self.#member))
        } else {
            quote_spanned! {name.span()=>
                <#ty as #krate::TrainableLr<#dtype, #device>>::optimizers(
                    &self.#member,
                    __family,
                    __layers,
                )
            }
        };
        quote_spanned! {name.span()=>
            #name: #krate::layers::Layers::field(
                __layers,
                #called,
                #krate::layers::LayerOptions { frozen: #frozen, rate: #rate },
                |__layers| { #walk },
            )
        }
    });
    let visited = walked.iter().map(|Walked { name, field }| {
        let Field { member, ty, attrs } = field;
        if attrs.group.is_some() {
            quote_spanned! {name.span()=>
                #krate::layers::LayerVisitor::visit_layer::<#ty>(
                    __visitor,
                    &mut self.#member,
                    &mut __optimizers.#name,
                )?;
            }
        } else {
            quote_spanned! {name.span()=>
                <#ty as #krate::TrainableLr<#dtype, #device>>::visit_layers(
                    &mut self.#member,
                    &mut __optimizers.#name,
                    __visitor,
                )?;
            }
        }
    });

    let ident = input.ident;
    let (impl_generics, _, bounds) = generics.split_for_impl();
    let (_, ty_generics, _) = input.generics.split_for_impl();
    // Taken as given in the implementation, where an error would only be repeated. Unlike in that of
    // `TensorCollection`, it does no harm that these hide what the associated type is.
    let mut with_fields = generics.clone();
    let predicates = &mut with_fields.make_where_clause().predicates;
    predicates.extend(walked.iter().filter(|walked| walked.field.attrs.group.is_none()).map(
        |Walked { field, .. }| -> WherePredicate {
            let ty = field.ty;
            parse_quote!(#ty: #krate::TrainableLr<#dtype, #device>)
        },
    ));
    let where_clause = with_fields.where_clause;
    // Nothing but a type of its own may mention the types of private fields in a public interface.
    let mut with_family = generics.clone();
    with_family.params.push(parse_quote!(__F: #family));
    let (family_generics, family_arguments, _) = with_family.split_for_impl();
    let whole = input.attrs.group.is_some();
    let (definition, optimizers, build, visit) = if whole {
        let layer = one_layer(&krate, &roles, &quote!(Self), &quote!(self));
        (
            None,
            quote!(<__F as #krate::Family>::For<Self>),
            layer,
            quote! {
                #krate::layers::LayerVisitor::visit_layer(__visitor, self, __optimizers)
            },
        )
    } else {
        (
            Some(quote! {
                #[doc(hidden)]
                #[allow(
                    deprecated,
                    missing_debug_implementations,
                    missing_docs,
                    non_snake_case,
                    private_bounds,
                    unnameable_types,
                    unreachable_pub,
                )]
                pub struct __Optimizers #family_generics #bounds {
                    #(#types,)*
                    marker: ::core::marker::PhantomData<
                        fn() -> (#ident #ty_generics, #dtype, #device, __F),
                    >,
                }
            }),
            quote!(__Optimizers #family_arguments),
            quote! {
                __Optimizers { #(#built,)* marker: ::core::marker::PhantomData }
            },
            quote! {
                #(#visited)*
                ::core::result::Result::Ok(())
            },
        )
    };
    // Unused in a struct without layers.
    quote! {
        const _: () = {
            #definition

            #[automatically_derived]
            #[allow(deprecated, private_bounds, unused_variables)]
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

                fn visit_layers<__F: #family, __V: #krate::layers::LayerVisitor<__F>>(
                    &mut self,
                    __optimizers: &mut #optimizers,
                    __visitor: &mut __V,
                ) -> ::core::result::Result<(), __V::Err> {
                    #visit
                }
            }
        };
    }
}

/// A field with layers, and its name in `__Optimizers`.
struct Walked<'a> {
    name: Ident,
    field: &'a Field<'a>,
}

/// Where the type is. The code there remains the derive's, so that lints leave it alone.
fn at(ty: &Type) -> Span {
    ends(ty).0
}

/// The same of its first and of its last token.
fn ends(ty: &Type) -> (Span, Span) {
    let start = ty.span();
    let end = ty.to_token_stream().into_iter().last().map_or(start, |token| token.span());
    (start.resolved_at(Span::call_site()), end.resolved_at(Span::call_site()))
}

/// Tells of a module as one layer, and builds its optimizer.
fn one_layer(
    krate: &TokenStream,
    Roles { dtype, device, .. }: &Roles<'_>,
    ty: &TokenStream,
    module: &TokenStream,
) -> TokenStream {
    quote! {
        #krate::layers::Layers::layer::<#dtype, #device, #ty>(__layers, #module);
        #krate::Family::for_layer::<#ty>(__family, #module)
    }
}

/// Those of the implementation of `TrainableLr`.
pub(crate) fn trainable_generics(input: &Input<'_>, roles: &Roles<'_>) -> Generics {
    let krate = input.krate();
    let Roles { dtype, device, modules, kept, .. } = roles;
    let mut generics = roles.generics(input.generics, &krate);
    let predicates = &mut generics.make_where_clause().predicates;
    let walked = |param: &Ident| {
        input.attrs.group.is_none()
            && input.modules().any(|field| field.attrs.group.is_none() && mentions(field.ty, param))
    };
    for param in modules {
        predicates.push(if walked(param) {
            parse_quote!(#param: #krate::TrainableLr<#dtype, #device>)
        } else {
            parse_quote! {
                #param: #krate::__private::dfdx::nn::TensorCollection<#dtype, #device>
                    + ::core::clone::Clone
            }
        });
    }
    // As `#[derive(Clone)]` asks for.
    predicates.extend(
        kept.iter().map(|param| -> WherePredicate { parse_quote!(#param: ::core::clone::Clone) }),
    );
    // What such a parameter's own bounds do not say.
    let fields = input.modules().filter(|field| {
        input.attrs.group.is_none()
            && field.attrs.group.is_none()
            && kept.iter().any(|param| mentions(field.ty, param))
    });
    predicates.extend(fields.map(|Field { ty, .. }| -> WherePredicate {
        parse_quote!(#ty: #krate::TrainableLr<#dtype, #device>)
    }));
    generics
}
