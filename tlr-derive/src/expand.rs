//! The implementations for a struct without errors.

use crate::{
    ast::{Field, Input},
    generics::Roles,
    implementation::{self, TrainableLrParts, Walk},
};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned, ToTokens};
use syn::{ext::IdentExt, parse_quote, spanned::Spanned, Generics, Type, WherePredicate};

/// The implementation of `TensorCollection`.
pub(crate) fn tensor_collection(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    let krate = input.krate();
    let dfdx = quote!(#krate::__private::dfdx);
    let Roles { dtype, device, .. } = roles;
    let ident = input.ident;

    // Each field gets a variable, which holds the field's value when the struct is built.
    let variables: Vec<_> =
        (0..input.fields.len()).map(|index| format_ident!("__{index}")).collect();
    let modules =
        || input.fields.iter().zip(&variables).filter(|(field, _)| field.attrs.skip.is_none());
    let visited = nested(modules().map(|(field, _)| {
        let Field { member, ty, .. } = field;
        let name = field.name();
        let visited = quote_spanned! {first_span(ty)=>
            #krate::__private::module::<Self, #ty, #dtype, #device, _, _>(
                #name,
                |__self| &__self.#member,
                |__self| &mut __self.#member,
            )
        };
        marked(input, field, visited)
    }));
    let built = nested(modules().map(|(_, variable)| quote!(#variable)));
    let values = input.fields.iter().zip(&variables).map(|(field, variable)| {
        let member = &field.member;
        match field.attrs.skip {
            None => quote_spanned!(first_span(field.ty)=> #member: #variable),
            Some(_) => quote_spanned! {first_span(field.ty)=>
                #member: ::core::default::Default::default()
            },
        }
    });
    let iter_tensors = quote! {
        #dfdx::nn::ModuleVisitor::<Self, #dtype, #device>::visit_fields(
            __visitor,
            #visited,
            |#built| #ident { #(#values,)* },
        )
    };
    let to = implementation::converted_type(input, roles);
    implementation::tensor_collection(input, roles, &to, &iter_tensors)
}

/// The field as a walk visits it, with its attributes that concern tensors, if it has any.
fn marked(input: &Input<'_>, field: &Field<'_>, visited: TokenStream) -> TokenStream {
    let marks = field.attrs.marks();
    if marks.iter().all(|(_, is_there)| !is_there) {
        return visited;
    }
    let krate = input.krate();
    let name = format!("{}::{}", input.ident.unraw(), field.name());
    let marks = marks.into_iter().map(|(key, is_there)| {
        let key = Ident::new(key, Span::call_site());
        match is_there {
            true => quote!(#key: ::core::option::Option::Some(#name)),
            false => quote!(#key: ::core::option::Option::None),
        }
    });
    quote_spanned! {first_span(field.ty)=>
        #krate::__private::MarkedField {
            field: #visited,
            mark: #krate::__private::Mark { #(#marks,)* },
        }
    }
}

/// The items as a tuple. If they are more than six, which is the most that dfdx takes, it is a
/// tuple of tuples.
fn nested(items: impl Iterator<Item = TokenStream>) -> TokenStream {
    let mut items: Vec<_> = items.collect();
    while items.len() > 6 {
        items = items.chunks(6).map(|chunk| quote!((#(#chunk,)*))).collect();
    }
    quote!((#(#items,)*))
}

/// The implementation of `TrainableLr`.
pub(crate) fn trainable_lr(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    if input.attrs.group.is_some() {
        trainable_lr_of_one_layer(input, roles)
    } else {
        trainable_lr_of_fields(input, roles)
    }
}

/// The implementation of `TrainableLr` for a struct that is one layer.
fn trainable_lr_of_one_layer(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    let krate = input.krate();
    let parts = TrainableLrParts {
        generics: implementation::trainable_lr_generics(input, roles),
        optimizers: quote!(<__F as #krate::Family>::For<Self>),
        build: build_one_layer(&krate, roles, &quote!(Self), &quote!(self)),
        visit: &|walk| {
            let visitor = walk.visitor(Span::call_site());
            quote!(#krate::layers::#visitor::visit_layer(__visitor, self, __optimizers))
        },
    };
    implementation::trainable_lr(input, roles, &parts)
}

/// The implementation of `TrainableLr` for a struct whose layers are those of its fields, with the
/// type that holds their optimizers.
fn trainable_lr_of_fields(input: &Input<'_>, roles: &Roles<'_>) -> TokenStream {
    let krate = input.krate();
    let Roles { dtype, device, .. } = roles;
    let fields: Vec<_> = input.optimized().map(OptimizedField::new).collect();

    let generics = implementation::trainable_lr_generics(input, roles);
    let definition = optimizers_struct(input, roles, &generics, &fields);
    let arguments = with_family(input, roles, &generics);
    let (_, arguments, _) = arguments.split_for_impl();
    let built = fields.iter().map(|field| field.build(&krate, roles));

    // `Optimizers` requires of each field's type that it implements `TrainableLr`, and an error
    // there tells the user that it does not. The implementation takes it for granted, so that it
    // does not repeat the error. That of `TensorCollection` cannot have such bounds (see
    // `Roles::generics`); this one can, since it does not use what they hide.
    let mut with_fields = generics.clone();
    with_fields.make_where_clause().predicates.extend(input.trainable().map(
        |Field { ty, .. }| -> WherePredicate {
            parse_quote!(#ty: #krate::TrainableLr<#dtype, #device>)
        },
    ));
    let parts = TrainableLrParts {
        generics: with_fields,
        optimizers: quote!(__Optimizers #arguments),
        build: quote!(__Optimizers { #(#built,)* marker: ::core::marker::PhantomData }),
        visit: &|walk| {
            let visited = fields.iter().map(|field| field.visit(&krate, roles, walk));
            quote! {
                #(#visited)*
                ::core::result::Result::Ok(())
            }
        },
    };
    let implementation = implementation::trainable_lr(input, roles, &parts);
    quote! {
        const _: () = {
            #definition

            #implementation
        };
    }
}

/// The struct `__Optimizers`, which holds the optimizers of each field.
///
/// A tuple in its place would make the types of private fields part of a public interface, where
/// they are not allowed.
fn optimizers_struct(
    input: &Input<'_>,
    roles: &Roles<'_>,
    generics: &Generics,
    fields: &[OptimizedField<'_>],
) -> TokenStream {
    let krate = input.krate();
    let Roles { dtype, device, .. } = roles;
    let ident = input.ident;
    let with_family = with_family(input, roles, generics);
    let (declared_generics, _, where_clause) = with_family.split_for_impl();
    let (_, ty_generics, _) = input.generics.split_for_impl();
    let declared = fields.iter().map(|field| field.declare(&krate, roles));
    quote! {
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
        pub struct __Optimizers #declared_generics #where_clause {
            #(#declared,)*
            marker: ::core::marker::PhantomData<
                fn() -> (#ident #ty_generics, #dtype, #device, __F),
            >,
        }
    }
}

/// The generics with the type parameter `__F`, the family of optimizers, in addition.
fn with_family(input: &Input<'_>, roles: &Roles<'_>, generics: &Generics) -> Generics {
    let family = implementation::family(input, roles);
    let mut generics = generics.clone();
    generics.params.push(parse_quote!(__F: #family));
    generics
}

/// A field with layers, and the field of `__Optimizers` that holds their optimizers.
struct OptimizedField<'a> {
    field: &'a Field<'a>,
    /// The name of the field of `__Optimizers`. Its span is used for all code about the field.
    optimizers: Ident,
}

impl<'a> OptimizedField<'a> {
    fn new(field: &'a Field<'a>) -> Self {
        let optimizers = format_ident!("__{}", field.name(), span = first_span(field.ty));
        Self { field, optimizers }
    }

    /// Whether the field is one layer, whatever it consists of.
    fn is_one_layer(&self) -> bool {
        self.field.attrs.group.is_some()
    }

    /// Declares the field of `__Optimizers`.
    fn declare(&self, krate: &TokenStream, Roles { dtype, device, .. }: &Roles<'_>) -> TokenStream {
        let Self { field: Field { ty, .. }, optimizers } = self;
        // If the field has no layers, the compiler's error is about the type after the colon. This
        // type begins and ends with the spans of the field's type, so the error points there.
        let (first, last) = (first_span(ty), last_span(ty));
        let mut tokens = if self.is_one_layer() {
            quote_spanned!(first=> #optimizers: <__F as #krate::Family>::For<#ty)
        } else {
            quote_spanned! {first=>
                #optimizers: <#ty as #krate::TrainableLr<#dtype, #device>>::Optimizers<__F
            }
        };
        tokens.extend(quote_spanned!(last=> >));
        tokens
    }

    /// Builds the field of `__Optimizers`.
    fn build(&self, krate: &TokenStream, roles: &Roles<'_>) -> TokenStream {
        let Self { field, optimizers } = self;
        let Roles { dtype, device, .. } = roles;
        let Field { member, ty, attrs } = field;
        let name = field.name();
        let fixed_rate = attrs.fixed_rate.is_some();
        let no_decay = attrs.no_decay.is_some();
        let rate = attrs.rate.as_ref().map_or(1.0, |rate| rate.value);
        let build = if self.is_one_layer() {
            build_one_layer(krate, roles, &quote!(#ty), &quote!(&self.#member))
        } else {
            quote_spanned! {optimizers.span()=>
                <#ty as #krate::TrainableLr<#dtype, #device>>::optimizers(
                    &self.#member,
                    __family,
                    __layers,
                )
            }
        };
        quote_spanned! {optimizers.span()=>
            #optimizers: #krate::layers::Layers::field(
                __layers,
                #name,
                #krate::layers::LayerOptions {
                    fixed_rate: #fixed_rate,
                    rate: #rate,
                    no_decay: #no_decay,
                },
                |__layers| { #build },
            )
        }
    }

    /// Visits the layers of the field, with their optimizers.
    fn visit(
        &self,
        krate: &TokenStream,
        Roles { dtype, device, .. }: &Roles<'_>,
        walk: Walk,
    ) -> TokenStream {
        let Self { field: Field { member, ty, .. }, optimizers } = self;
        let span = optimizers.span();
        let (method, visitor) = (walk.method(span), walk.visitor(span));
        let reference = walk.reference(span);
        if self.is_one_layer() {
            quote_spanned! {span=>
                #krate::layers::#visitor::visit_layer::<#ty>(
                    __visitor,
                    #reference self.#member,
                    #reference __optimizers.#optimizers,
                )?;
            }
        } else {
            quote_spanned! {span=>
                <#ty as #krate::TrainableLr<#dtype, #device>>::#method(
                    #reference self.#member,
                    #reference __optimizers.#optimizers,
                    __visitor,
                )?;
            }
        }
    }
}

/// Announces a module as one layer to `__layers`, and builds its optimizer.
fn build_one_layer(
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

/// The place of the first token of a type, for the span of code.
///
/// Lints still take code with this span for the derive's own, and not for the user's.
fn first_span(ty: &Type) -> Span {
    ty.span().resolved_at(Span::call_site())
}

/// The place of the last token of a type, as [`first_span`] is that of the first.
fn last_span(ty: &Type) -> Span {
    let last = ty.to_token_stream().into_iter().last();
    last.map_or(ty.span(), |token| token.span()).resolved_at(Span::call_site())
}
